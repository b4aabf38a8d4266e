"""Made-up worlds: what was planted is found again in the files, by means that know nothing of the generator."""

import json
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pytest

from etl.discovery import discover
from etl.synthetic.files import synthesize
from etl.synthetic.population import World
from recsys.columns import DOMAINS, EVENT_TYPES
from recsys.errors import RecsysError
from recsys.schemas import Impression
from recsys.settings import Settings
from tests.worlds.etl_files import write

WORLD = World(seed=5, events=40_000, users=800, items=400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made-up")
    synthesize(WORLD, folder)
    return folder / "synthetic"


@pytest.fixture(scope="module")
def truths(folder) -> dict:
    return json.loads((folder / "truths.json").read_text())


@pytest.fixture(scope="module")
def events(folder) -> pd.DataFrame:
    """All interactions, with the category of their item."""
    frames = []
    for domain in DOMAINS:
        frame = pd.read_csv(folder / domain / "synthetic_interactions.csv").assign(domain=domain)
        items = pd.read_csv(folder / domain / "synthetic_items.csv", usecols=["item_id", "category"])
        frames.append(frame.merge(items, validate="many_to_one"))
    whole = pd.concat(frames).sort_values("occurred_ms", kind="stable").reset_index(drop=True)
    whole["category"] = whole["category"].str.rsplit(" ", n=1).str[1].astype(int)
    whole["at"] = pd.to_datetime(whole["occurred_ms"], unit="ms")
    return whole


@pytest.fixture(scope="module")
def organic(events) -> pd.DataFrame:
    """Without the clicks on what a recommender showed."""
    return events[~events["context"].str.contains("request_id")]


@pytest.fixture(scope="module")
def users(folder) -> pd.DataFrame:
    return pd.read_csv(folder / "truths_users.csv").set_index("user_id")


def test_counts_are_those_of_the_truths(truths, events, organic, folder):
    assert len(organic) == truths["drawn"]["events"] == WORLD.events
    assert len(events) - len(organic) == truths["drawn"]["clicks"]
    assert set(events["event_type"]) == set(EVENT_TYPES)
    assert events["event"].is_unique
    with (folder / "synthetic_impressions.jsonl").open() as file:
        first = [Impression.model_validate_json(next(file)) for _ in range(20)]
    assert {impression.rank for impression in first} == set(range(1, 11))


def test_the_drift_date_is_where_the_daily_share_breaks(truths, organic):
    days = organic["at"].dt.floor("D")
    daily = (organic["category"] == truths["planted"]["drifting_category"]).groupby(days).agg(["sum", "count"])

    def log_likelihood(part: pd.DataFrame) -> float:
        share = part["sum"].sum() / part["count"].sum()
        return float((part["sum"] * np.log(share) + (part["count"] - part["sum"]) * np.log1p(-share)).sum())

    cuts = range(10, len(daily) - 10)
    best = max(cuts, key=lambda cut: log_likelihood(daily[:cut]) + log_likelihood(daily[cut:]))
    planted = pd.Timestamp(truths["planted"]["drift_date"])
    assert abs((daily.index[best] - planted).days) <= 1


def test_the_segments_are_found_by_what_their_users_choose_most(organic, users):
    home = organic.merge(users, left_on="user_id", right_index=True)
    home = home[(home["domain"] == home["home"]) & (home["category"] > 0)]
    active = home.groupby("user_id").filter(lambda of_user: len(of_user) >= 15)
    chosen = active.groupby("user_id")["category"].agg(lambda categories: categories.mode()[0])
    assert len(chosen) > 300
    assert (chosen == users.loc[chosen.index, "favourite"]).mean() > 0.95
    shares = chosen.value_counts(normalize=True).reindex(range(1, 5))
    assert np.abs(shares - WORLD.segment_shares).max() < 0.06


def test_the_transfer_between_domains_is_measured_from_behaviour(organic):
    counts = organic[organic["category"] > 0].groupby(["user_id", "domain", "category"]).size().unstack(fill_value=0)
    sure = counts[counts.sum(axis=1) >= 12]
    favourite = sure.idxmax(axis=1).unstack()
    both = favourite[favourite.notna().sum(axis=1) == 2]
    agrees = both.apply(lambda row: row.dropna().nunique() == 1, axis=1)
    assert len(agrees) > 80
    assert agrees.mean() == pytest.approx(WORLD.transfer, abs=3 * np.sqrt(0.16 / len(agrees)))


def test_the_lift_is_in_the_impressions_and_their_clicks(folder, events):
    with (folder / "synthetic_impressions.jsonl").open() as file:
        shown = pd.DataFrame([json.loads(line) for line in file])
    clicks = events[events["context"].str.contains("request_id")]
    requests = clicks["context"].map(lambda text: json.loads(text)["request_id"])
    clicked = set(zip(requests, clicks["item_id"], strict=True))
    pairs = zip(shown["request_id"], shown["item_id"], strict=True)
    shown["clicked"] = [pair in clicked for pair in pairs]
    rates = shown.groupby("variant")["clicked"].agg(["mean", "sum"])
    lift = rates["mean"]["treatment"] / rates["mean"]["control"] - 1
    error = (1 + WORLD.lift) * np.sqrt((1 / rates["sum"]).sum())
    assert abs(lift - WORLD.lift) < 3 * error
    assert lift > 3 * error / (1 + WORLD.lift) / 2  # and it is no accident
    assert shown.groupby("user_id")["variant"].nunique().max() == 1


def test_the_popularity_tail_the_weeks_and_the_bursts(organic):
    of_category = organic[(organic["domain"] == "movies") & (organic["category"] == 1)]
    top = of_category["item_id"].value_counts().to_numpy()[:15]
    slope = np.polyfit(np.log(np.arange(1, len(top) + 1)), np.log(top), 1)[0]
    assert -slope == pytest.approx(WORLD.popularity_exponent, abs=0.25)

    starts = organic.drop_duplicates("context")["at"]
    hours = starts.dt.hour.value_counts().sort_index()
    assert abs(int(hours.idxmax()) - WORLD.peak_hour) <= 2
    daily = starts.dt.dayofweek.value_counts()
    weekend = daily[[5, 6]].mean() / daily[[0, 1, 2, 3, 4]].mean()
    assert weekend == pytest.approx(WORLD.weekend_factor, abs=0.2)

    gaps = organic.groupby("user_id")["occurred_ms"].diff().dropna() / 1000
    assert 30 < gaps.median() < 120  # most follow within a session …
    burstiness = (gaps.std() - gaps.mean()) / (gaps.std() + gaps.mean())
    assert burstiness > 0.4  # … and a Poisson stream would have 0


def test_cold_users_and_items_are_few_and_late(truths, organic, users):
    cold = organic[organic["user_id"].isin(users.index[users["is_cold"]])]
    assert cold["user_id"].nunique() == truths["drawn"]["cold_users"] == 80
    assert cold.groupby("user_id").size().max() <= 2
    late = datetime(2025, 1, 1, tzinfo=UTC).timestamp() * 1000 + 162 * 86_400_000
    assert cold["occurred_ms"].min() >= late
    number = organic["item_id"].str.rsplit("-", n=1).str[1].astype(int)
    rare = organic[number >= WORLD.item_count - truths["drawn"]["cold_items_of_each_domain"]]
    assert len(rare)
    assert rare.groupby("item_id").size().max() <= 3
    assert rare["occurred_ms"].min() >= late


def test_revenue_adds_up(truths, events):
    bought = events[events["event_type"] == "purchase"]
    contexts = bought["context"].map(json.loads)
    revenue = contexts.map(lambda context: float(context["revenue"])).groupby(bought["domain"]).sum().round(2)
    assert revenue.to_dict() == pytest.approx({k: v for k, v in truths["drawn"]["revenue"].items() if v})
    assert all(float(c["price"]) * int(c["quantity"]) == pytest.approx(float(c["revenue"])) for c in contexts)


def test_one_seed_is_one_world_and_another_is_another(tmp_path):
    def digest(seed: int, name: str) -> list[bytes]:
        synthesize(World(seed=seed, events=2_000), tmp_path / name)
        return [path.read_bytes() for path in sorted((tmp_path / name).rglob("synthetic_*"))]

    first = digest(1, "a")
    assert len(first) == 13
    assert digest(1, "a") == first
    assert all(one != other for one, other in zip(digest(2, "b"), first, strict=True) if len(one) > 100_000)
    (tmp_path / "c" / "synthetic").mkdir(parents=True)
    with pytest.raises(RecsysError, match="holds no synthetic world"):
        synthesize(World(seed=1, events=2_000), tmp_path / "c")


def test_made_up_rows_are_never_found_beside_real_ones(folder, tmp_path):
    write(tmp_path / "data" / "ratings.csv", ["user_id,book_id,rating", "7,9,4"])
    write(tmp_path / "data" / "books.csv", ["book_id,authors,original_publication_year,title", "9,A,2000,T"])
    alone = Settings(_env_file=None, data_dir=folder.parent, var_dir=tmp_path)
    assert {files.source for _, files in discover(alone, ["books"])} == {"synthetic"}
    (tmp_path / "data" / "made-up").symlink_to(folder.parent)
    both = Settings(_env_file=None, data_dir=tmp_path / "data", var_dir=tmp_path)
    with pytest.raises(RecsysError, match=r"goodbooks.*RECSYS_MIX_SYNTHETIC"):
        discover(both, ["books"])
    mixed = both.model_copy(update={"mix_synthetic": True})
    assert {files.source for _, files in discover(mixed, ["books"])} == {"goodbooks", "synthetic"}
    (tmp_path / "lake/interactions/domain=books/source=goodbooks/partition=2020-01-01").mkdir(parents=True)
    with pytest.raises(RecsysError, match="domain books"):
        discover(alone, ["books"])


def test_made_up_rows_say_so_in_every_raw_table(land, tmp_path):
    synthesize(World(seed=3, events=1_000, first_day=date(2020, 1, 1), days=90, drift_day=60), tmp_path / "data")
    folder = tmp_path / "data" / "synthetic" / "books"
    kept = (folder / "synthetic_interactions.csv").read_text().splitlines()
    forged = kept[1].replace("synthetic:u", "u")
    write(folder / "synthetic_interactions.csv", [*kept, kept[1], forged])
    landed = land(tmp_path / "data", "books")
    assert landed.count().quarantine == {"duplicate_event": 1, "invalid_id": 1}
    assert landed.count().rows_landed == len(kept) - 1
    assert landed.count("users").rows_quarantined == landed.count("items").rows_quarantined == 0
    for table in ("interactions", "items", "users"):
        rows = landed.rows(table)
        assert rows
        assert {row["source"] for row in rows} == {"synthetic"}
        for key in ("user_id", "item_id"):
            assert all(row[key].startswith("synthetic:") for row in rows if key in row)
