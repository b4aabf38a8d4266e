"""The graph of users and items of a domain: an edge where a user has used an item, however often.

communities     Leiden on modularity (Traag, Waltman, van Eck 2019), in C by igraph: users and items together
influence       PageRank
participation   Guimerà and Amaral 2005: 1 − Σ (share of a node's edges in each community)²; a bridge between
                communities is near 1, a node that lives in one is at 0
cut vertices    nodes whose removal splits the graph, exact (Hopcroft and Tarjan 1973)

All are linear or nearly so in the edges: bench/network.py measures them on a million.
"""

import random
from dataclasses import dataclass
from typing import Any

import igraph
import numpy as np
import pandas as pd
import psycopg

from recsys.artifacts import (
    DIM_ITEMS,
    FCT_INTERACTIONS,
    NETWORK_COMMUNITIES,
    NETWORK_LINKS,
    NETWORK_MEASURES,
    NETWORK_NODES,
)
from recsys.interval import Interval
from training.analytics.tables import read, replace

KEPT_NODES = 50  # of each kind by influence, and as many by bridging
KEPT_COMMUNITIES = 40  # the largest
FAVOURITES = 3
LEIDEN_ITERATIONS = 10


@dataclass(frozen=True)
class Network:
    """E edges between U users and I items; nodes are the users, then the items. Node arrays are (U + I,)."""

    users: np.ndarray
    items: np.ndarray
    edges: np.ndarray  # (E, 2) nodes
    community: np.ndarray  # from 0, the largest first
    degree: np.ndarray
    influence: np.ndarray
    participation: np.ndarray
    is_cut_vertex: np.ndarray
    measures: dict[str, float]

    @property
    def is_item(self) -> np.ndarray:
        return np.arange(len(self.community)) >= len(self.users)


def analyse(pairs: pd.DataFrame, seed: int) -> Network:
    """Return the graph of these pairs (user_id, item_id; each once) with all that is measured on it."""
    user, users = pd.factorize(pairs["user_id"], sort=True)
    item, items = pd.factorize(pairs["item_id"], sort=True)
    edges = np.column_stack([user, item + len(users)])
    graph = igraph.Graph(n=len(users) + len(items), edges=edges)
    igraph.set_random_number_generator(random.Random(seed))
    found = graph.community_leiden(objective_function="modularity", n_iterations=LEIDEN_ITERATIONS)
    community = _largest_first(np.array(found.membership))
    degree = np.array(graph.degree())
    components = np.array(graph.connected_components().sizes())
    cut = np.zeros(len(degree), bool)
    cut[graph.articulation_points()] = True
    measures = {
        "users": len(users),
        "items": len(items),
        "edges": len(edges),
        "density": len(edges) / (len(users) * len(items)),
        "items_per_user": len(edges) / len(users),
        "users_per_item": len(edges) / len(items),
        "degree_gini_of_items": gini(degree[len(users) :]),
        "components": len(components),
        "share_of_largest_component": components.max() / components.sum(),
        "communities": community.max() + 1,
        "modularity": graph.modularity(community.tolist()),
        "edges_within_communities": float((community[edges[:, 0]] == community[edges[:, 1]]).mean()),
        "cut_vertices": int(cut.sum()),
        "degree_assortativity": graph.assortativity_degree(directed=False),
    }
    return Network(
        users=np.asarray(users),
        items=np.asarray(items),
        edges=edges,
        community=community,
        degree=degree,
        influence=np.array(graph.pagerank(directed=False)),
        participation=participation(edges, community, degree),
        is_cut_vertex=cut,
        measures={name: float(value) for name, value in measures.items() if np.isfinite(value)},
    )


def _largest_first(labels: np.ndarray) -> np.ndarray:
    """Number the communities anew by size; of equal ones the one with the first node comes first."""
    _, first, inverse, size = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(size), int)
    rank[np.lexsort((first, -size))] = np.arange(len(size))
    return rank[inverse]


def participation(edges: np.ndarray, community: np.ndarray, degree: np.ndarray) -> np.ndarray:
    """Return how evenly each node's edges go to the communities, 1 − Σ share². (N,)"""
    ends = np.vstack([edges, edges[:, ::-1]])  # (2E, 2): node, neighbour
    key, count = np.unique(ends[:, 0] * (community.max() + 1) + community[ends[:, 1]], return_counts=True)
    node = key // (community.max() + 1)
    squares = np.bincount(node, (count / degree[node]) ** 2, minlength=len(degree))
    return 1 - squares


def gini(counts: np.ndarray) -> float:
    """Return how unequal the counts are: 0 all alike, towards 1 where one has all."""
    ordered = np.sort(counts).astype(float)
    rank = np.arange(1, len(ordered) + 1)
    return float(((2 * rank - len(ordered) - 1) * ordered).sum() / (len(ordered) * ordered.sum()))


def links(network: Network) -> pd.DataFrame:
    """Return the edges between the kept communities: source < target, edges."""
    ends = np.sort(network.community[network.edges], axis=1)
    kept = ends[(ends[:, 0] != ends[:, 1]) & (ends[:, 1] < KEPT_COMMUNITIES)]
    pair, count = np.unique(kept, axis=0, return_counts=True)
    return pd.DataFrame({"source": pair[:, 0], "target": pair[:, 1], "edges": count})


def communities(network: Network, categories: pd.Series, between: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the largest communities with their size, their categories and their place on a map.

    Args:
        categories: item_id → list of categories.
    """
    kept = min(network.community.max() + 1, KEPT_COMMUNITIES)
    ends = network.community[network.edges]
    is_inside = ends[:, 0] == ends[:, 1]
    inside = np.bincount(ends[is_inside, 0], minlength=kept)
    touching = inside + np.bincount(ends[~is_inside].ravel(), minlength=len(inside))
    map_of = igraph.Graph(n=kept, edges=between[["source", "target"]].to_numpy())
    igraph.set_random_number_generator(random.Random(seed))
    weights = np.sqrt(between["edges"].to_numpy(float))
    place = np.array(map_of.layout_fruchterman_reingold(weights=weights.tolist() or None).coords).reshape(kept, 2)
    of_item = network.community[len(network.users) :]
    share_of_all = _category_shares(categories, network.items)
    rows = []
    for number in range(kept):
        is_member = network.community == number
        over = (_category_shares(categories, network.items[of_item == number]) - share_of_all).sort_values()
        rows.append(
            {
                "community": number,
                "users": int((is_member & ~network.is_item).sum()),
                "items": int((is_member & network.is_item).sum()),
                "edges": int(touching[number]),
                "internal": float(inside[number] / touching[number]),
                "categories": list(over[over > 0].index[::-1][:FAVOURITES]),
                "x": place[number, 0],
                "y": place[number, 1],
            }
        )
    return pd.DataFrame(rows)


def _category_shares(categories: pd.Series, items: np.ndarray) -> pd.Series:
    told = categories.reindex(items).explode().dropna()
    return told.value_counts(normalize=True).rename_axis("category").sort_index()


def nodes(network: Network, titles: pd.Series) -> pd.DataFrame:
    """Return the first of each kind by influence and by bridging (participation times the root of the degree)."""
    whole = pd.DataFrame(
        {
            "kind": np.where(network.is_item, "item", "user"),
            "node_id": np.concatenate([network.users, network.items]),
            "community": network.community,
            "degree": network.degree,
            "influence": network.influence,
            "participation": network.participation,
            "is_cut_vertex": network.is_cut_vertex,
        }
    )
    whole["bridging"] = whole["participation"] * np.sqrt(whole["degree"])
    first = pd.concat(
        whole.sort_values([by, "node_id"], ascending=[False, True]).groupby("kind").head(KEPT_NODES)
        for by in ("influence", "bridging")
    )  # fmt: skip
    kept = first.drop_duplicates(["kind", "node_id"]).drop(columns="bridging")
    return kept.assign(title=kept["node_id"].map(titles).fillna(kept["node_id"]))


def run(connection: psycopg.Connection, interval: Interval, seed: int) -> dict[str, Any]:
    """Analyse the graph of each domain of the interval."""
    found: dict[str, list[pd.DataFrame]] = {
        table: [] for table in (NETWORK_MEASURES, NETWORK_COMMUNITIES, NETWORK_LINKS, NETWORK_NODES)
    }
    edges = {}
    for domain in interval.domains:
        pairs = read(
            connection, f"select distinct user_id, item_id from {FCT_INTERACTIONS} where domain = %s", [domain]
        )
        edges[domain] = len(pairs)
        if pairs.empty:
            continue
        items = read(connection, f"select item_id, title, categories from {DIM_ITEMS} where domain = %s", [domain])
        told = items.set_index("item_id")
        network = analyse(pairs, seed)
        between = links(network)
        measures = pd.DataFrame(network.measures.items(), columns=["measure", "value"])
        for table, rows in {
            NETWORK_MEASURES: measures,
            NETWORK_COMMUNITIES: communities(network, told["categories"], between, seed),
            NETWORK_LINKS: between,
            NETWORK_NODES: nodes(network, told["title"]),
        }.items():
            found[table].append(rows.assign(domain=domain, as_of=interval.as_of))
    for table, parts in found.items():
        replace(connection, table, pd.concat(parts) if parts else pd.DataFrame(), interval.domains)
    return {"edges": edges, "unchanged": False}
