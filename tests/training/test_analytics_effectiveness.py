"""What lists are like and lead to, by hand on three answers, and the planted lift on a made-up world."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.worlds import made_up
from training.analytics import effectiveness as lists

ITEMS = pd.DataFrame(
    {"users": [8, 4, 2, 1], "categories": [["Drama"], ["Drama"], ["Crime"], []], "is_available": True},
    index=["hit", "known", "rare", "odd"],
)
SHOWN = pd.DataFrame(
    [
        ("r", "u", "champion", "hit", 1, False), ("r", "u", "champion", "rare", 3, True),
        ("s", "u", "champion", "hit", 1, False), ("s", "u", "champion", "known", 2, False),
        ("t", "v", "champion", "gone", 1, True), ("t", "v", "champion", "odd", 2, True),
    ],
    columns=["request_id", "user_id", "variant", "item_id", "rank", "is_clicked"],
)  # fmt: skip


@pytest.fixture
def told() -> pd.DataFrame:
    rows, listed, clicked = lists.answers(SHOWN, ITEMS)
    assert listed[:, :3].tolist() == [[0, 2, -1], [0, 1, -1], [3, -1, -1]]
    numbers = lists.measured(listed, clicked, ITEMS, users=8)
    return lists.effectiveness(rows, numbers, listed, pd.Series({"u": "s1"}), available=4)


def test_by_hand(told):
    of = told.set_index(["segment", "variant", "measure"])["value"]

    assert of["s1", "champion", "click_through_rate"] == 1 / 4
    assert of["everybody", "champion", "click_through_rate"] == 2 / 5
    assert of["without", "champion", "coverage"] == 1 / 4
    assert of["everybody", "champion", "coverage"] == 1
    assert of["s1", "champion", "diversity"] == pytest.approx((1 + 0) / 2)  # Drama with Crime, Drama with Drama
    assert of["s1", "champion", "novelty_bits"] == pytest.approx(((0 + 2) / 2 + (0 + 1) / 2) / 2)
    assert of["without", "champion", "popularity_bias"] == pytest.approx(0.5 / 4)
    assert of["s1", "champion", "popularity_bias"] == pytest.approx(((3.5 + 1.5) / 2 + (3.5 + 2.5) / 2) / 2 / 4)
    assert ("without", "champion", "diversity") not in of.index  # a list of one
    assert set(told["users"]) == {1, 2}
    assert told[told["users"] == 1]["low"].isna().all()


def test_a_rates_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        shown = rng.integers(5, 40, 300).astype(float)
        low, high = lists.ratio(rng.binomial(shown.astype(int), 0.1).astype(float), shown)[1:]
        covered += low <= 0.1 <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_the_planted_lift_is_recovered(tmp_path):
    folder = made_up.write(tmp_path)
    interactions, items, _, truths = made_up.read(folder)
    shown = pd.read_json(folder / "synthetic_impressions.jsonl", lines=True)
    request = interactions["context"].map(lambda text: json.loads(text).get("request_id"))
    clicked = set(zip(request.dropna(), interactions.loc[request.notna(), "item_id"], strict=True))
    shown["is_clicked"] = [pair in clicked for pair in zip(shown["request_id"], shown["item_id"], strict=True)]
    catalogue = pd.DataFrame(
        {"users": 1, "categories": items["category"].map(lambda name: [name]).to_numpy()}, index=items["item_id"]
    )
    rows, listed, clicks = lists.answers(shown, catalogue)
    told = lists.effectiveness(
        rows, lists.measured(listed, clicks, catalogue, 1_000), listed, pd.Series(dtype=str), len(items)
    )
    rate = told[(told["measure"] == "click_through_rate") & (told["segment"] == "everybody")].set_index("variant")

    assert clicks.sum() == pytest.approx(truths["drawn"]["clicks"], rel=0.04)  # an answer may show an item twice
    assert rate.loc["control", "low"] <= truths["planted"]["click_rate"] <= rate.loc["control", "high"]
    lift = rate.loc["treatment", "value"] / rate.loc["control", "value"] - 1
    assert lift == pytest.approx(truths["planted"]["lift"], abs=0.12)
