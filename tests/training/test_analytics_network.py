"""The graph of users and items against networkx, a checkerboard's two halves, and the domains' overlap by hand."""

import networkx
import numpy as np
import pandas as pd
import pytest

from tests.worlds import made_up
from training.analytics import neo4j, network, overlap


def board(bridges: int = 1) -> pd.DataFrame:
    """Ten users and ten items: even users like even items, odd ones odd; `bridges` pairs cross over. And one loner."""
    pairs = [(f"u{user}", f"i{item}") for user in range(10) for item in range(10) if user % 2 == item % 2]
    pairs += [("u0", f"i{1 + 2 * number}") for number in range(bridges)] + [("loner", "his")]
    return pd.DataFrame(pairs, columns=["user_id", "item_id"])


def test_measures_agree_with_networkx():
    pairs = board(2)
    graph = networkx.Graph(list(pairs.itertuples(index=False, name=None)))
    told = network.analyse(pairs, seed=1)
    names = [*told.users, *told.items]

    assert told.measures["edges"] == graph.number_of_edges() == 53
    assert told.measures["components"] == networkx.number_connected_components(graph) == 2
    assert told.measures["share_of_largest_component"] == pytest.approx(20 / 22)
    assert told.measures["density"] == pytest.approx(53 / (11 * 11))
    rank = networkx.pagerank(graph, tol=1e-12)
    assert told.influence == pytest.approx([rank[name] for name in names], abs=1e-6)
    assert {names[place] for place in np.flatnonzero(told.is_cut_vertex)} == set(networkx.articulation_points(graph))
    assert told.measures["degree_assortativity"] == pytest.approx(networkx.degree_assortativity_coefficient(graph))
    groups = [{names[place] for place in np.flatnonzero(told.community == label)} for label in set(told.community)]
    assert told.measures["modularity"] == pytest.approx(networkx.community.modularity(graph, groups))


def test_the_halves_are_communities_and_who_crosses_is_the_bridge():
    told = network.analyse(board(2), seed=1)
    of = dict(zip([*told.users, *told.items], told.community, strict=True))

    assert told.measures["communities"] == 3
    assert len({of[f"u{number}"] for number in range(0, 10, 2)} | {of["i0"], of["i8"]}) == 1
    assert of["u0"] != of["u1"] != of["loner"]
    first = network.nodes(told, pd.Series({"i0": "Title"})).sort_values("participation", ascending=False)
    assert first["node_id"].iloc[0] == "u0"
    assert first["participation"].iloc[0] == pytest.approx(1 - (5 / 7) ** 2 - (2 / 7) ** 2)
    assert first.set_index("node_id").loc["i0", "title"] == "Title"
    assert network.links(told).to_numpy().tolist() == [[0, 1, 2]]


def test_communities_say_what_they_like_and_how_closed_they_are():
    told = network.analyse(board(1), seed=1)
    liked = pd.Series({f"i{number}": ["Even", "All"] if number % 2 == 0 else ["Odd", "All"] for number in range(10)})
    rows = network.communities(told, liked, network.links(told), seed=1)

    assert rows["users"].tolist() == [5, 5, 1]
    assert rows["edges"].tolist() == [26, 26, 1]
    assert rows["internal"].tolist() == pytest.approx([25 / 26, 25 / 26, 1])
    assert {likes[0] for likes in rows["categories"][:2]} == {"Even", "Odd"}
    assert np.isfinite(rows[["x", "y"]].to_numpy(float)).all()


@pytest.mark.parametrize("pairs", [[("u", "i")], [("u", "i"), ("u", "j")], [("u", "i"), ("v", "j")]])
def test_one_user_or_one_item_is_a_network_too(pairs):
    told = network.analyse(pd.DataFrame(pairs, columns=["user_id", "item_id"]), seed=1)

    assert told.measures["edges"] == len(pairs)
    assert len(network.nodes(told, pd.Series(dtype=str))) == len(told.users) + len(told.items)
    assert (
        len(network.communities(told, pd.Series(dtype=object), network.links(told), 1)) == told.measures["communities"]
    )


def test_the_same_seed_gives_the_same_network_and_gini_is_known():
    one, other = network.analyse(board(), 3), network.analyse(board().sample(frac=1, random_state=1), 3)

    assert one.measures["modularity"] == pytest.approx(other.measures["modularity"])
    assert network.gini(np.array([2, 2, 2])) == 0
    assert network.gini(np.array([0, 0, 3])) == pytest.approx(2 / 3)


def test_neo4j_gets_every_node_and_edge_once_whatever_the_names(tmp_path):
    told = network.analyse(board(1), seed=1)
    awkward = {"i0": ('Comma, "quote"\nand line', ["One;Two", "Three"])}
    events = {pair: 2 for pair in board(1).itertuples(index=False, name=None)}
    neo4j.write(tmp_path, told, awkward, events)
    users, items, used = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("users", "items", "used"))

    assert sorted(users["userId:ID(User)"]) == sorted(told.users)
    first = items.set_index("itemId:ID(Item)").loc["i0"]
    assert (first["title"], first["categories:string[]"]) == ('Comma, "quote"\nand line', "One,Two;Three")
    assert items.set_index("itemId:ID(Item)").loc["i1", "title"] == "i1"
    assert set(used[[":START_ID(User)", ":END_ID(Item)"]].itertuples(index=False, name=None)) == set(events)
    assert len(used) == len(events)
    assert users["community:int"].tolist() == told.community[: len(told.users)].tolist()
    columns = [*users, *items, *used]
    assert all(f"row['{name}']" in (tmp_path / "load.cypher").read_text() for name in columns)


def test_overlap_by_hand():
    behaviour = pd.DataFrame(
        [("movies", "u", 4), ("movies", "v", 1), ("books", "u", 9), ("social", "w", 2)],
        columns=["domain", "user_id", "events"],
    )
    rows = overlap.overlap(behaviour, pd.DataFrame({"domain": [], "user_id": [], "category": []}))
    told = rows.set_index(["source_domain", "target_domain"]).loc[("movies", "books")]

    assert len(rows) == 6
    assert (told["users"], told["share_of_source"], told["jaccard"]) == (1, 0.5, 0.5)
    one, other = np.log1p([4, 1]), np.log1p([9, 0])
    assert told["activity_cosine"] == pytest.approx(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    assert rows["taste_association"].isna().all()


def test_planted_transfer_is_recovered(tmp_path):
    interactions, _, tastes, truths = made_up.read(made_up.write(tmp_path))
    counts = interactions.groupby(["domain", "user_id", "category"]).size().rename("events").reset_index()
    favourite = counts.sort_values("events", ascending=False, kind="stable").drop_duplicates(["domain", "user_id"])
    rows = overlap.overlap(counts, favourite).dropna(subset="taste_association")
    events = counts.pivot_table(index="user_id", columns="domain", values="events", aggfunc="sum", fill_value=0)
    planted = []
    for pair in rows.itertuples():
        both = (events[[pair.source_domain, pair.target_domain]] >= overlap.FEWEST_EVENTS).all(axis=1)
        truth = tastes.loc[events.index[both]].dropna(subset="second")
        planted.append(overlap.cramers_v(truth["favourite"].to_numpy(), truth["second_favourite"].to_numpy()))

    assert len(rows) >= 4
    assert truths["drawn"]["transferred_share"] == pytest.approx(0.8, abs=0.05)
    assert rows["taste_association"].mean() == pytest.approx(np.mean(planted), abs=0.15)
    assert rows["taste_association"].min() > 0.3  # where taste is carried over, every pair shows it


def test_association_of_what_is_unrelated_is_nothing():
    rng = np.random.default_rng(4)
    one, other = rng.integers(0, 5, 5_000), rng.integers(0, 5, 5_000)

    assert overlap.cramers_v(one, other) < 0.03
    assert overlap.cramers_v(one, one) == pytest.approx(1)
    assert np.isnan(overlap.cramers_v(one, one * 0))
