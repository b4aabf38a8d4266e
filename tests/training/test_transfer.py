"""What one domain teaches another: planted help, verdicts by hand, and the tables after two runs."""

from dataclasses import replace

import numpy as np
import pytest

from recsys import receipts
from recsys.bundle import Catalogue
from recsys.interval import Interval
from recsys.warehouse import connect
from tests.worlds import checkerboard
from training import tasks, transfer
from training.dataset import TrainingData
from training.model import Workplace
from training.models import content_ials

DOMAINS = ("books", "movies")
CONFIG = content_ials.Config(embedding_size=4, text_size=4, unobserved_ratio=2.0, reg=0.003)


def two_domains() -> tuple[TrainingData, transfer.Asked]:
    """The checkerboard in films and again in books, for the same users. Those above number 20 are new to films: they
    have read books only, and want films of their colour."""
    films, items = checkerboard.training_data(), checkerboard.ITEMS
    catalogue = checkerboard.catalogue().model_dump()
    both = {name: [*column, *column] for name, column in catalogue.items()}
    both["domain"] = ["movies"] * items + ["books"] * items
    both["item_id"] = [*(f"a:{place:03d}" for place in range(items)), *(f"b:{place:03d}" for place in range(items))]
    users, codes = np.concatenate([films.users] * 2), np.concatenate([films.items, films.items + items])
    instants = np.concatenate([films.instants] * 2)
    new = (users >= 20) & (codes < items)
    order = np.lexsort((instants[~new], users[~new]))
    data = replace(
        films,
        users=users[~new][order],
        items=codes[~new][order].astype(np.int32),
        instants=instants[~new][order],
        catalogue=Catalogue(**both),
        texts=tuple(f"item {place}" for place in range(2 * items)),  # the texts say nothing
    )
    histories = [data.items[data.users == user] for user in range(checkerboard.USERS)]
    targets = [
        np.array(sorted(checkerboard.held_back(user))) if user < 20 else checkerboard.histories()[user]
        for user in range(checkerboard.USERS)
    ]
    return data, transfer.Asked(histories, targets)


def test_users_who_are_new_to_a_domain_are_helped_by_what_they_did_in_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "FEWEST_USERS", 10)
    data, asked = two_domains()
    rows = transfer.compare(data, asked, DOMAINS, CONFIG, 1, Workplace(1, tmp_path))
    chosen = rows[(rows.target_domain == "movies") & (rows.target_share == 1.0)].set_index("bucket")
    assert chosen.loc["0", "users"] == 20
    assert chosen.loc["0", "verdict"] == "helps"
    assert chosen.loc["0", "transferred"] > chosen.loc["0", "alone"] + 0.2
    assert chosen.loc["0", "low"] <= chosen.loc["0", "difference"] <= chosen.loc["0", "high"]
    assert chosen.loc["all", "users"] == chosen.drop("all")["users"].sum()
    assert set(rows.target_share) == set(transfer.SHARES)
    assert rows.embedding_similarity.between(-1, 1).all()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((100, 0.2, 0.01, 0.05), "helps"),
        ((100, 0.2, -0.05, -0.01), "negative transfer"),
        ((100, 0.2, -0.005, 0.01), "harmless"),
        ((100, 0.2, -0.05, 0.06), "undecided"),
        ((29, 0.2, 0.01, 0.05), "undecided"),
    ],
)
def test_verdicts_by_hand(given, expected):
    assert transfer.verdict(*given) == expected


def test_a_source_that_makes_lists_worse_is_called_negative():
    rng = np.random.default_rng(1)
    alone = rng.random(200)
    rows = {row["bucket"]: row for row in transfer.by_bucket(alone, alone - 0.1, np.repeat([0, 3, 10, 50], 50), 1)}
    assert {row["verdict"] for row in rows.values()} == {"negative transfer"}
    assert set(rows) == {"all", "0", "1_to_5", "6_to_20", "over_20"}
    assert rows["0"]["difference"] == pytest.approx(-0.1)


def test_domains_that_are_the_same_are_nearer_than_those_that_are_not():
    rng = np.random.default_rng(2)
    vectors = np.concatenate([rng.normal(0, 1, (20, 8)), rng.normal(0, 1, (20, 8))])
    vectors[10:20] = vectors[:10]
    same = transfer.similarity(vectors, np.arange(10), np.arange(10, 20))
    assert same == pytest.approx(1)
    assert transfer.similarity(vectors, np.arange(10), np.arange(20, 40)) < same


@pytest.mark.services
def test_the_tables_hold_the_latest_rows_after_two_runs(world_of_two):
    settings, interval = world_of_two
    first = transfer.run(settings, interval)
    assert (first["pairs"], first["unchanged"]) == (2, False)
    assert transfer.run(settings, interval)["unchanged"]

    def read():
        with connect(settings) as connection:
            verdicts = connection.execute(
                "select * from analytics.transfer_verdicts order by source_domain, target_domain, target_share, bucket"
            ).fetchall()
            places = connection.execute("select domain, count(*) from analytics.transfer_map group by 1").fetchall()
        return verdicts, dict(places)

    verdicts, places = read()
    assert len(verdicts) >= 4
    assert places == {"movies": checkerboard.ITEMS, "books": checkerboard.ITEMS}
    with connect(settings) as connection:
        connection.execute("delete from monitoring.receipts where task = %s", (transfer.TASK,))
    transfer.run(settings, interval)
    assert read()[0] == verdicts


@pytest.fixture(scope="module")
def world_of_two(world):
    interval = Interval(DOMAINS, checkerboard.AS_OF)
    settings = world("postgres")
    with connect(settings) as connection:
        for table in ("fct_interactions", "dim_items", "feat_user_activity", "feat_item_popularity"):
            connection.execute(f"drop table if exists marts.{table}")
        write_two(connection)
        receipts.record(connection, "dbt.build", interval.key, "built", {})
    tasks.cut(settings, interval)
    return settings, interval


def write_two(connection) -> None:
    checkerboard.write_marts(connection)
    connection.execute(
        "insert into marts.fct_interactions select 'b' || event_id, user_id, 'b' || item_id, 'books', event_type,"
        " rating, occurred_at, occurred_date, source from marts.fct_interactions"
    )
    connection.execute(
        "insert into marts.dim_items select 'b' || item_id, 'books', title, text, categories, creators, price,"
        " published_year, interaction_count, is_available from marts.dim_items"
    )
