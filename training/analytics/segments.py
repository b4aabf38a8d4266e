"""Kinds of users: what they do and like, grouped by k-means, each group with a sentence and an id that stays.

features     a user's events by kind and by category as square roots of shares (Hellinger), `PRIOR_EVENTS` events
             shared out as in the whole domain added to each user, so that few events do not shout; and how much they
             do, on how many days, for how long and how lately as standardised logarithms. Each block has total variance
             one, so that none wins by its columns; the amounts half the length: how much is a matter of degree.
k            among those that are stable (mean adjusted Rand index between fits on halves at least `STABLE`), the one
             with the largest mean silhouette. Rousseeuw 1987; Lange, Roth, Braun, Buhmann 2004, "Stability-based
             validation of clustering solutions".
newcomers    users of fewer than `FEWEST_EVENTS` events are a segment of their own: their shares say nothing.
ids          today's groups get the ids of the latest earlier day's, by the assignment of least total distance between
             the centroids, where a pair is nearer than `SAME_WITHIN`; what has no partner gets the next free number.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import psycopg
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score

from recsys.artifacts import AGG_USER_BEHAVIOUR, AGG_USER_CATEGORIES, SEGMENT_PROFILES, USER_SEGMENTS
from recsys.interval import Interval
from training.analytics.tables import read, replace

FEWEST_EVENTS = 5
PRIOR_EVENTS = 5.0
AMOUNTS_LENGTH = 0.5
NEWCOMERS = "newcomers"
KINDS = ("views", "clicks", "purchases", "ratings", "shares")
CATEGORIES = 12  # the most used of a domain; the rest is one column
CHOICES = range(2, 9)
FEWEST_A_SEGMENT = 10  # users; fewer than twice as many are one segment
STABLE = 0.8
HALVES = 5
SAMPLE = 2_000  # users whose silhouette is measured
FITTED = 50_000  # users that centroids are fitted on
FARTHEST = 3.0  # standard deviations of a block; a segment of a hundredth of the users still stands out
SAME_WITHIN = 0.75  # half of the total standard deviation: two blocks of variance 1 and one of 1/4


@dataclass(frozen=True)
class Grouping:
    """Groups of N users: label (N,), centroids (k, F) and how good they are (None where k is 1)."""

    label: np.ndarray
    centroids: np.ndarray
    silhouette: float | None
    stability: float | None


def features(behaviour: pd.DataFrame, categories: pd.DataFrame, as_of: Any) -> tuple[np.ndarray, list[str]]:
    """Return a matrix (N, F) in the order of `behaviour`, and the columns' names."""
    kinds = _shares(behaviour[list(KINDS)].to_numpy(float))
    wide = _by_category(behaviour, categories)
    amounts = pd.DataFrame(
        {
            "events": behaviour["events"],
            "active_days": behaviour["active_days"],
            "age": (pd.Timestamp(as_of) - pd.to_datetime(behaviour["first_date"])).dt.days,
            "silence": (pd.Timestamp(as_of) - pd.to_datetime(behaviour["last_date"])).dt.days,
        }
    )
    names = [*(f"share of {kind}" for kind in KINDS), *wide.columns, *amounts.columns]
    blocks = (
        _of_variance_one(kinds),
        _of_variance_one(_shares(wide.to_numpy(float))),
        AMOUNTS_LENGTH * _of_variance_one(_standardised(np.log1p(amounts.to_numpy(float)))),
    )
    return np.hstack(blocks), names


def _by_category(behaviour: pd.DataFrame, categories: pd.DataFrame) -> pd.DataFrame:
    """Return events by category, (N, C), the less used categories in one column."""
    used = categories.groupby("category")["events"].sum().sort_values(ascending=False, kind="stable")
    most = list(used.index[:CATEGORIES])
    told = categories.assign(category=categories["category"].where(categories["category"].isin(most), "others"))
    wide = told.pivot_table(index="user_id", columns="category", values="events", aggfunc="sum", fill_value=0.0)
    return wide.reindex(index=behaviour["user_id"], fill_value=0.0)


def _shares(counts: np.ndarray) -> np.ndarray:
    """Return the roots of each user's shares, drawn towards the domain's. (N, C)"""
    of_all = counts.sum(0) / max(counts.sum(), 1e-12)
    return np.sqrt((counts + PRIOR_EVENTS * of_all) / (counts.sum(1, keepdims=True) + PRIOR_EVENTS))


def _standardised(values: np.ndarray) -> np.ndarray:
    spread = values.std(0)
    return (values - values.mean(0)) / np.where(spread > 0, spread, 1)


def _of_variance_one(block: np.ndarray) -> np.ndarray:
    """Return a block (N, C) about its mean with variance one; whoever is farther out than FARTHEST is drawn in to it.

    A user who alone does a thing would otherwise be the block's whole variance, and a segment of one.
    """
    total = block.var(0).sum() if block.size else 0.0
    if total <= 1e-12:
        return np.zeros_like(block)
    scaled = (block - block.mean(0)) / np.sqrt(total)
    return scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True) / FARTHEST, 1)


def group(matrix: np.ndarray, seed: int) -> Grouping:
    """Choose k and group the users; too few users, or users who are all alike, are one group."""
    one_group = Grouping(np.zeros(len(matrix), int), matrix.mean(0, keepdims=True), None, None)
    distinct = len(np.unique(matrix.round(9), axis=0))
    choices = [k for k in CHOICES if len(matrix) >= k * FEWEST_A_SEGMENT and k <= distinct - 1]
    if not choices:
        return one_group
    rng = np.random.default_rng(seed)
    fitted = matrix[np.sort(rng.permutation(len(matrix))[:FITTED])]
    judged = [one for k in choices if (one := _judge(fitted, k, rng, seed))]  # (k, silhouette, stability)
    if not judged:
        return one_group
    stable = [one for one in judged if one[2] >= STABLE] or [max(judged, key=lambda one: one[2])]
    k, silhouette, stability = max(stable, key=lambda one: one[1])
    means = _means(fitted, k, seed, starts=10)
    return Grouping(means.predict(matrix), means.cluster_centers_, silhouette, stability)


def _means(matrix: np.ndarray, k: int, seed: int, starts: int = 4) -> KMeans:
    return KMeans(k, n_init=starts, random_state=seed).fit(matrix)


def _judge(matrix: np.ndarray, k: int, rng: np.random.Generator, seed: int) -> tuple[int, float, float] | None:
    """Return k, its silhouette and its stability; None where a group would be too small to be a segment."""
    label = _means(matrix, k, seed).labels_
    if np.bincount(label, minlength=k).min() < FEWEST_A_SEGMENT:
        return None
    sample = np.sort(rng.permutation(len(matrix))[:SAMPLE])
    has_two = len(np.unique(label[sample])) > 1
    silhouette = float(silhouette_score(matrix[sample], label[sample])) if has_two else -1.0
    agreements = []
    for _ in range(HALVES):
        order = rng.permutation(len(matrix))
        halves = order[: len(order) // 2], order[len(order) // 2 :]
        one, other = (_means(matrix[half], k, seed).predict(matrix[sample]) for half in halves)
        agreements.append(adjusted_rand_score(one, other))
    return k, silhouette, float(np.mean(agreements))


def stable_names(centroids: pd.DataFrame, earlier: pd.DataFrame) -> list[str]:
    """Return an id for each of today's centroids, an earlier day's where it is the same segment.

    Args:
        centroids: one row a group, one column a feature.
        earlier: the same of the earlier day, its index the ids; a feature of only one of the two days counts as 0.
    """
    columns = centroids.columns.union(earlier.columns)
    today = centroids.reindex(columns=columns, fill_value=0.0).to_numpy(float)
    before = earlier.reindex(columns=columns, fill_value=0.0).to_numpy(float)
    names: dict[int, str] = {}
    if len(before):
        distance = cdist(today, before)
        for row, column in zip(*linear_sum_assignment(distance), strict=True):
            if distance[row, column] <= SAME_WITHIN:
                names[row] = str(earlier.index[column])
    free = iter(number for number in range(1, 10_000) if f"s{number}" not in set(earlier.index))
    return [names.get(row) or f"s{next(free)}" for row in range(len(today))]


def describe(profile: dict[str, Any], domain: dict[str, Any]) -> str:
    """Return a sentence about a segment, its numbers beside those of the whole domain."""
    likes = " and ".join(profile["favourite_categories"][:2]) or "no category more than another"
    most = max(KINDS, key=lambda kind: profile[kind] - domain[kind])
    words = [
        f"{profile['users']:,} users ({profile['share']:.0%})",
        f"{profile['events_per_user']:.0f} events on {profile['active_days_per_user']:.0f} days each",
        f"more {most} than others ({profile[most]:.0%} of their events, {domain[most]:.0%} of all)"
        if profile[most] - domain[most] > 0.01
        else "the same mix of events as others",
        f"drawn to {likes}",
    ]
    if profile["revenue_per_user"] is not None:
        words.append(f"{profile['revenue_per_user']:.2f} of revenue each")
    if profile["click_through_rate"] is not None:
        words.append(f"click {profile['click_through_rate']:.1%} of what is recommended")
    return "; ".join(words) + "."


def profiles(behaviour: pd.DataFrame, categories: pd.DataFrame) -> pd.DataFrame:
    """Return one row per segment (the column `segment` of `behaviour`): size, value, engagement, likes and response."""
    domain = _numbers(behaviour)
    liked_by_all = categories.groupby("category")["events"].sum() / max(categories["events"].sum(), 1e-12)
    told = categories.merge(behaviour[["user_id", "segment"]], on="user_id")
    rows = []
    for segment, members in behaviour.groupby("segment"):
        liked = told[told["segment"] == segment].groupby("category")["events"].sum()
        over = (liked / max(liked.sum(), 1e-12) - liked_by_all.reindex(liked.index)).sort_values(ascending=False)
        numbers = _numbers(members) | {
            "segment": segment,
            "share": len(members) / len(behaviour),
            "favourite_categories": list(over[over > 0.01].index[:3]),
        }
        rows.append(numbers | {"description": describe(numbers, domain)})
    return pd.DataFrame(rows).drop(columns=list(KINDS))


def _numbers(users: pd.DataFrame) -> dict[str, Any]:
    events, shown = users["events"].sum(), users["impressions"].sum()
    return {
        "users": len(users),
        "events_per_user": float(users["events"].mean()),
        "active_days_per_user": float(users["active_days"].mean()),
        "revenue_per_user": float(users["revenue"].fillna(0).mean()) if users["revenue"].notna().any() else None,
        "click_through_rate": float(users["impressions_clicked"].sum() / shown) if shown else None,
        **{kind: float(users[kind].sum() / events) for kind in KINDS},
    }


def segment(
    behaviour: pd.DataFrame, categories: pd.DataFrame, earlier: pd.DataFrame, as_of: Any, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return users with their segment, and the segments' profiles.

    Args:
        earlier: centroids of the latest earlier day, as `stable_names` takes them.
    """
    is_known = behaviour["events"] >= FEWEST_EVENTS
    known, named = behaviour[is_known].reset_index(drop=True), behaviour.assign(segment=NEWCOMERS)
    centroids, silhouette, stability = pd.DataFrame(), None, None
    if len(known):
        matrix, columns = features(known, categories[categories["user_id"].isin(known["user_id"])], as_of)
        grouping = group(matrix, seed)
        silhouette, stability = grouping.silhouette, grouping.stability
        centroids = pd.DataFrame(grouping.centroids, columns=columns)
        centroids.index = stable_names(centroids, earlier)
        named.loc[is_known.to_numpy(), "segment"] = centroids.index.to_numpy()[grouping.label]
    told = profiles(named, categories)
    told["segments"], told["silhouette"], told["stability"] = len(centroids), silhouette, stability
    told["centroid"] = [
        json.dumps(centroids.loc[name].round(6).to_dict() if name in centroids.index else {})
        for name in told["segment"]
    ]
    return named[["user_id", "segment"]], told


def run(connection: psycopg.Connection, interval: Interval, seed: int) -> dict[str, Any]:
    """Segment the users of each domain of the interval."""
    users, told = [], []
    for domain in interval.domains:
        behaviour = read(connection, f"select * from {AGG_USER_BEHAVIOUR} where domain = %s order by user_id", [domain])
        if behaviour.empty:
            continue
        categories = read(
            connection,
            f"select user_id, category, events from {AGG_USER_CATEGORIES} where domain = %s order by 1, 2",
            [domain],
        )
        members, described = segment(
            behaviour, categories, _earlier(connection, domain, interval), interval.as_of, seed
        )
        users.append(members.assign(domain=domain, as_of=interval.as_of))
        told.append(described.assign(domain=domain, as_of=interval.as_of))
    kept = pd.concat(told) if told else pd.DataFrame()
    replace(connection, USER_SEGMENTS, pd.concat(users) if users else pd.DataFrame(), interval.domains)
    replace(connection, SEGMENT_PROFILES, kept, interval.domains, day=interval.as_of)
    return {
        "segments": {row.domain: int(row.segments) for row in kept.itertuples()},
        "stability": {row.domain: row.stability for row in kept.itertuples()},
        "unchanged": False,
    }


def _earlier(connection: psycopg.Connection, domain: str, interval: Interval) -> pd.DataFrame:
    rows = connection.execute(
        f"select segment, centroid from {SEGMENT_PROFILES} where domain = %s and segment <> %s and as_of ="
        f" (select max(as_of) from {SEGMENT_PROFILES} where domain = %s and as_of < %s) order by segment",
        [domain, NEWCOMERS, domain, interval.as_of],
    ).fetchall()
    return pd.DataFrame({name: centroid for name, centroid in rows}).T
