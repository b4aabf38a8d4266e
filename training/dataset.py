"""The data cut: what the marts hold at an instant, frozen into files that every fit and every evaluation reads.

    <var_dir>/training/<cut_id>/
        manifest.json          see `CutManifest`; written last, so that a folder without it is no cut
        interactions.parquet   user (int32 code), item (int32 code), instant (int64, ms), by user, instant and event id
        users.parquet          user_id; row number = code
        items.parquet          item_id, domain, title, categories, creators, published_year; row number = code,
                               ascending by item_id
        split.npz              train, history, target: row numbers; test_users: codes, ascending
        models/<model>/        written by `fit`

Every event counts as a positive signal, whatever its rating: somebody who rates a film chose to watch it.
"""

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from recsys import columns
from recsys.artifacts import DIM_ITEMS, FCT_INTERACTIONS
from recsys.bundle import Catalogue
from recsys.errors import MissingArtifact, ServiceUnavailable, UnusableInput
from recsys.interval import Interval
from recsys.settings import Settings
from recsys.temporal_split import temporal_split

MANIFEST = "manifest.json"
TRAIN_SHARE = 0.8
MAX_TEST_USERS = 5000
MIN_TEST_USERS = 100
"""With fewer who did something lately, a version is judged on the last fifth of everything."""

INTERACTIONS_SQL = f"""
    select i.user_id, i.item_id, (extract(epoch from i.occurred_at) * 1000)::bigint as instant
    from {FCT_INTERACTIONS} as i
    where i.domain = any($1::text[]) and i.occurred_at < $2::timestamptz
    order by i.user_id collate "C", i.occurred_at, i.event_id
"""
ITEMS_SQL = f"""
    select item_id, domain, title, categories, creators, published_year
    from {DIM_ITEMS}
    where is_available and domain = any($1::text[])
    order by item_id collate "C"
"""


class CutManifest(BaseModel):
    """What a cut holds. Conservation: read = kept + without_item."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cut_id: str
    as_of: str
    domains: tuple[str, ...]
    cut_at: str
    """Instant (ISO 8601, UTC) that ends the training part, exclusive."""
    interactions_read: int
    interactions_kept: int
    interactions_without_item: int
    """Events of items that no source describes or that are unavailable: they cannot be recommended."""
    train: int
    users: int
    items: int
    items_without_training_event: int
    test_users: int
    test_users_before_sampling: int
    seed: int
    known_until: str | None = None
    """Instant (ISO 8601) until which the champion knew the data: four fifths of what came since are training too, and
    the last fifth of it is the test. None: the last fifth of everything is."""


@dataclass(frozen=True)
class TrainingData:
    """What a model learns from. Shapes: n events, I items, U users, F user features.

    Events stand by user, then by time. Codes of items are their places in the catalogue.
    """

    users: np.ndarray
    """int32 (n,)"""
    items: np.ndarray
    """int32 (n,)"""
    instants: np.ndarray
    """ms since 1970, int64 (n,)"""
    cut_at: int
    """ms since 1970; every instant lies before it."""
    catalogue: Catalogue
    texts: tuple[str, ...]
    """What is known of each item in words. (I,)"""
    user_features: np.ndarray | None = None
    """The user's features as they were known at each event, NaN where unknown. float32 (n, F)"""
    is_ordered: bool = True
    """Whether the order of a user's events means anything; published splits often hold sets."""

    @property
    def n_items(self) -> int:
        return len(self.catalogue.item_id)

    def sequences(self) -> list[np.ndarray]:
        """Return each user's row numbers in the order of time, the first event of each item only."""
        pairs = self.users.astype(np.int64) * self.n_items + self.items
        _, first = np.unique(pairs, return_index=True)
        rows = np.sort(first)
        starts = np.flatnonzero(np.diff(self.users[rows])) + 1
        return np.split(rows, starts)


@dataclass(frozen=True)
class Requests:
    """The test: one request a user, at the instant between what is known and what is asked for. B requests."""

    users: np.ndarray
    """Codes, ascending. (B,)"""
    histories: list[np.ndarray]
    """Item codes, oldest first; never empty. (B,) of (L,)"""
    targets: list[np.ndarray]
    """Item codes of later events that the history does not hold, each once; may be empty. (B,) of (R,)"""
    instants: np.ndarray
    """Instant of the latest known event of each user, ms. (B,)"""


class Cut:
    """A written cut, read lazily.

    Raises:
        MissingArtifact: the folder is no complete cut.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            self.manifest = CutManifest.model_validate_json((folder / MANIFEST).read_text())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingArtifact("data cut", folder, "Run `python -m training cut` first") from error
        table = pq.read_table(folder / "interactions.parquet")
        self.users, self.items, self.instants = (table[name].to_numpy() for name in ("user", "item", "instant"))
        self.split = dict(np.load(folder / "split.npz", allow_pickle=False))
        items = pq.read_table(folder / "items.parquet").to_pydict()
        self.texts = tuple(texts_of(items))
        self.catalogue = Catalogue(**{name: items[name] for name in Catalogue.model_fields})

    def user_ids(self) -> np.ndarray:
        """Return the user ids; the place is the code. object (U,)"""
        return pq.read_table(self.folder / "users.parquet")[columns.USER_ID].to_numpy()

    def training_data(self, user_features: np.ndarray | None = None) -> TrainingData:
        """Return the training part; `user_features` has one row for each of its events."""
        rows = self.split["train"]
        cut_at = int(datetime.fromisoformat(self.manifest.cut_at).timestamp() * 1000)
        return TrainingData(
            self.users[rows], self.items[rows], self.instants[rows], cut_at, self.catalogue, self.texts, user_features
        )

    def requests(self) -> Requests:
        """Return the test part."""
        users = self.split["test_users"]
        known, asked = (self._by_user(self.split[name], users) for name in ("history", "target"))
        histories = [self.items[rows] for rows in known]
        targets = [np.setdiff1d(self.items[rows], seen) for rows, seen in zip(asked, histories, strict=True)]
        return Requests(users, histories, targets, np.array([self.instants[rows[-1]] for rows in known]))

    def _by_user(self, rows: np.ndarray, users: np.ndarray) -> list[np.ndarray]:
        rows = rows[np.isin(self.users[rows], users)]
        ends = np.searchsorted(self.users[rows], users, side="right")  # rows stand by user
        return np.split(rows, ends[:-1])


def read_marts(settings: Settings, interval: Interval) -> tuple[pa.Table, pa.Table]:
    """Return the interval's events, by user and time, and the items that can be recommended, by item id.

    Raises:
        ServiceUnavailable: PostgreSQL does not answer or refuses.
    """
    import adbc_driver_postgresql.dbapi as adbc

    domains = list(interval.domains)
    try:
        with adbc.connect(settings.postgres_url) as connection, connection.cursor() as cursor:
            cursor.execute(INTERACTIONS_SQL, (domains, interval.end.isoformat()))
            interactions = cursor.fetch_arrow_table()
            cursor.execute(ITEMS_SQL, (domains,))
            return interactions, cursor.fetch_arrow_table()
    except adbc.OperationalError as error:
        raise ServiceUnavailable("PostgreSQL", error, "Start the platform, then build the marts with dbt") from error


def write_cut(
    folder: Path, interactions: pa.Table, items: pa.Table, *, cut_id: str, interval: Interval, seed: int,
    known_until: datetime | None = None,
) -> CutManifest:  # fmt: skip
    """Write a cut; an earlier folder of this name is replaced.

    Args:
        interactions: user_id, item_id, instant (ms), by user id, instant and event id.
        items: the catalogue's columns and creators, ascending by item_id.
        known_until: see `CutManifest`; None, and where too few users did something since: not looked at.

    Raises:
        UnusableInput: there is nothing to recommend, or too little to split.
    """
    item_code = pc.index_in(interactions[columns.ITEM_ID], items[columns.ITEM_ID].combine_chunks())
    kept = pc.is_valid(item_code)
    users = interactions[columns.USER_ID].filter(kept).combine_chunks().dictionary_encode()
    user = users.indices.to_numpy().astype(np.int32)
    item = item_code.filter(kept).to_numpy().astype(np.int32)
    instant = interactions["instant"].filter(kept).to_numpy()
    if not len(item):
        raise UnusableInput(
            "interactions of described items", f"none of {len(interactions)}", "Land items and interactions first"
        )
    split = temporal_split(user, instant, TRAIN_SHARE)
    if known_until is not None:
        newest = temporal_split(user, instant, TRAIN_SHARE, int(known_until.timestamp() * 1000))
        if len(np.unique(user[newest.target])) >= MIN_TEST_USERS:
            split = newest
        else:
            known_until = None
    testable = np.unique(user[split.target])
    rng = np.random.default_rng(seed)
    tested = np.sort(rng.choice(testable, min(MAX_TEST_USERS, len(testable)), replace=False))
    if not len(split.train) or not len(tested):
        raise UnusableInput(
            "temporal split",
            f"{len(split.train)} events before the cut and {len(tested)} test users after it",
            "Land more history: both must be above zero",
        )
    manifest = CutManifest(
        cut_id=cut_id,
        as_of=interval.end.isoformat(),
        domains=interval.domains,
        cut_at=datetime.fromtimestamp(split.cut_at / 1000, UTC).isoformat(),
        interactions_read=len(interactions),
        interactions_kept=len(item),
        interactions_without_item=len(interactions) - len(item),
        train=len(split.train),
        users=len(users.dictionary),
        items=len(items),
        items_without_training_event=len(items) - len(np.unique(item[split.train])),
        test_users=len(tested),
        test_users_before_sampling=len(testable),
        seed=seed,
        known_until=known_until and known_until.isoformat(),
    )
    draft = begin_folder(folder)
    pq.write_table(pa.table({"user": user, "item": item, "instant": instant}), draft / "interactions.parquet")
    pq.write_table(pa.table({columns.USER_ID: users.dictionary}), draft / "users.parquet")
    pq.write_table(items, draft / "items.parquet")
    np.savez(draft / "split.npz", train=split.train, history=split.history, target=split.target, test_users=tested)
    (draft / MANIFEST).write_text(manifest.model_dump_json(indent=2))
    publish_folder(draft, folder)
    return manifest


def begin_folder(folder: Path) -> Path:
    """Return a new empty folder beside this one, to be filled and published; what a killed run left is removed."""
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    return draft


def publish_folder(draft: Path, folder: Path) -> None:
    """Give a filled folder its name; who is killed in between leaves the old one, none, or the new one, never half."""
    if folder.exists():
        retired = folder.with_name(f".{folder.name}.retired")
        shutil.rmtree(retired, ignore_errors=True)
        folder.rename(retired)
        shutil.rmtree(retired)
    os.replace(draft, folder)


def texts_of(items: dict[str, Sequence]) -> Iterable[str]:
    """What is known of each item in words: title, categories, creators, year."""
    listed = zip(items[columns.TITLE], items["categories"], items["creators"], items["published_year"], strict=True)
    for title, categories, creators, year in listed:
        parts = [title, ", ".join(categories), ", ".join(creators[:3])]
        if year is not None and str(year) not in title:
            parts.append(str(year))
        yield ". ".join(filter(None, parts))
