"""Segments: the planted ones are found, ids stay, and too little to go on is one segment with a sentence."""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from tests.worlds import made_up
from training.analytics import segments

NOTHING = pd.DataFrame()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return made_up.read(made_up.write(tmp_path_factory.mktemp("made-up")))


@pytest.fixture(scope="module")
def films(world) -> tuple[pd.DataFrame, pd.DataFrame]:
    here = world[0][world[0]["domain"] == "movies"]
    return made_up.behaviour(here), made_up.categories(here)


@pytest.fixture(scope="module")
def found(films):
    return segments.segment(*films, NOTHING, made_up.AS_OF, seed=1)


def test_the_planted_segments_are_found(world, found):
    users, profiles = found
    truth = world[2].loc[users["user_id"]]
    at_home = ((truth["home"] == "movies").to_numpy()) & (users["segment"] != segments.NEWCOMERS).to_numpy()

    assert at_home.sum() > 200
    assert profiles["segments"].iloc[0] == 4
    assert adjusted_rand_score(truth["segment"][at_home], users["segment"][at_home]) > 0.85
    assert profiles["stability"].iloc[0] > segments.STABLE


def test_profiles_add_up_and_say_what_was_planted(films, found):
    users, profiles = found
    behaviour = films[0].merge(users)

    assert profiles["users"].sum() == len(behaviour)
    assert profiles["share"].sum() == pytest.approx(1)
    for row in profiles.itertuples():
        members = behaviour[behaviour["segment"] == row.segment]
        assert row.events_per_user == pytest.approx(np.mean(members["events"].tolist()))
        assert row.revenue_per_user == pytest.approx(sum(members["revenue"].dropna()) / len(members))
        assert f"{row.users:,} users" in row.description
    liked = {likes[0] for name, likes in zip(profiles["segment"], profiles["favourite_categories"], strict=True)
             if name != segments.NEWCOMERS}  # fmt: skip
    assert liked == {f"movies category {number}" for number in (1, 2, 3, 4)}


def test_ids_stay_from_day_to_day_whatever_the_seed(films, found):
    today, profiles = found
    kept = profiles[profiles["segment"] != segments.NEWCOMERS].set_index("segment")["centroid"]
    earlier = pd.DataFrame({name: pd.read_json(text, typ="series") for name, text in kept.items()}).T
    renamed = earlier.set_axis([f"s{number}" for number in (7, 3, 9, 5)])
    behaviour = films[0][films[0]["events"] != films[0]["events"].max()]  # somebody has gone

    tomorrow, _ = segments.segment(behaviour, films[1], renamed, made_up.AS_OF + timedelta(days=1), seed=2)

    both = today.merge(tomorrow, on="user_id")
    known = both[(both["segment_x"] != segments.NEWCOMERS) & (both["segment_y"] != segments.NEWCOMERS)]
    names = dict(zip(earlier.index, renamed.index, strict=True))
    assert set(known["segment_y"]) == {"s7", "s3", "s9", "s5"}
    assert (known["segment_x"].map(names) == known["segment_y"]).mean() > 0.97


def test_a_new_segment_gets_the_next_free_id():
    earlier = pd.DataFrame([[0.0, 0.0], [4.0, 4.0]], index=["s2", "s1"], columns=["a", "b"])
    today = pd.DataFrame([[4.1, 4.0], [9.0, 0.0], [0.1, 0.0]], columns=["a", "b"])

    assert segments.stable_names(today, earlier) == ["s1", "s3", "s2"]
    assert segments.stable_names(today, NOTHING) == ["s1", "s2", "s3"]


def user(name: str, events: int = 6, **more) -> dict:
    day = date(2020, 1, 1)
    return {
        "user_id": name, "views": events, "clicks": 0, "purchases": 0, "ratings": 0, "shares": 0, "events": events,
        "active_days": 1, "first_date": day, "last_date": day, "revenue": None, "impressions": 0,
        "impressions_clicked": 0,
    } | more  # fmt: skip


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        ([user("one")], {"s1": 1}),
        ([user("new", 1)], {segments.NEWCOMERS: 1}),
        ([user(f"u{number}") for number in range(50)], {"s1": 50}),  # all alike
        ([user("odd", 900), *(user(f"u{number}", 2) for number in range(9))], {"s1": 1, segments.NEWCOMERS: 9}),
    ],
)
def test_too_little_to_go_on(behaviour, expected):
    no_categories = pd.DataFrame({"user_id": [], "category": [], "events": pd.Series([], dtype=float)})

    users, profiles = segments.segment(pd.DataFrame(behaviour), no_categories, NOTHING, date(2020, 1, 2), seed=1)

    assert users["segment"].value_counts().to_dict() == expected
    assert profiles["silhouette"].isna().all()
    assert all("no category more than another" in text for text in profiles["description"])
    assert profiles["revenue_per_user"].isna().all()  # nobody states a price


def test_a_user_who_alone_does_a_thing_is_no_segment():
    likes = {"films": "drama", "books": "poems"}
    crowd = [user(f"{kind}{number}") for kind in likes for number in range(100)]
    categories = pd.DataFrame(
        {"user_id": name["user_id"], "category": likes[name["user_id"][:5]], "events": 6.0} for name in crowd
    )
    alone = pd.DataFrame([user("films0", clicks=6, events=12), *crowd[1:]])

    users, _ = segments.segment(alone, categories, NOTHING, date(2020, 1, 2), seed=1)

    assert sorted(users["segment"].value_counts()) == [100, 100]
