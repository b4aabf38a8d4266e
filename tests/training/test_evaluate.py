"""Evaluation against a brute-force judge, and the matching of items by id between cuts."""

from dataclasses import replace

import numpy as np
import pytest

from recsys.bundle import Catalogue
from recsys.retriever import Retriever
from tests.worlds import checkerboard as world
from training import evaluate as evaluation
from training.dataset import Cut, Requests, TrainingData
from training.evaluate import BLOCK_SCORES, Background, by_history, compare, differences, evaluate, fair, recommend_all
from training.model import Workplace, module_of, write_model

ORIGIN = {"framework": "numpy", "cut_id": "toy", "as_of": "2020-06-01T00:00:00+00:00"}


class ToyCut:
    """As much of a `Cut` as the evaluation reads: the world, whose items a newer catalogue has more in front of."""

    def __init__(self, catalogue: Catalogue):
        self.catalogue = catalogue

    def training_data(self) -> TrainingData:
        data = world.training_data()
        more = len(self.catalogue.item_id) - data.n_items
        return replace(data, items=data.items + more, catalogue=self.catalogue)


def bundle(tmp_path, name: str, data=None, **config):
    module = module_of(name)
    data = data or world.training_data()
    model = module.fit(data, module.Config(**config), 1, Workplace(1, tmp_path))
    folder = tmp_path / name
    folder.mkdir()
    write_model(folder, name, model, data, ORIGIN)
    return folder / "bundle"


def requests() -> Requests:
    """Every user asks; the target is what the user has not used, and for user 0 nothing."""
    targets = [np.array(sorted(world.held_back(user))) for user in range(world.USERS)]
    targets[0] = np.array([], np.int64)
    return Requests(np.arange(world.USERS), world.histories(), targets, np.zeros(world.USERS, np.int64))


def toy_cut(catalogue: Catalogue | None = None) -> Cut:
    return ToyCut(catalogue or world.catalogue())  # type: ignore[return-value]


@pytest.fixture
def ials(tmp_path):
    return bundle(tmp_path, "ials", embedding_size=8, epochs=8)


@pytest.fixture
def popular(tmp_path):
    return bundle(tmp_path, "popularity")


def test_the_values_are_those_of_a_judge_that_goes_user_by_user(popular):
    quality = evaluate(popular, toy_cut(), requests(), None, threads=1)
    retriever = Retriever(popular)
    shown = set()
    for user, (history, target) in enumerate(zip(requests().histories, requests().targets, strict=True)):
        ranking = sorted(set(range(world.ITEMS)) - set(history.tolist()), key=lambda i: (-retriever.popularity[i], i))
        shown |= set(ranking[:20])
        if not len(target):
            judged = set(quality.per_user) - {"novelty_at_20", "diversity_at_20", "miscalibration_at_20"}
            assert judged >= {"ndcg_at_10", "serendipity_at_20"}
            assert all(np.isnan(quality.per_user[name][user]) for name in judged)
            continue
        ranks = [rank for rank, item in enumerate(ranking, 1) if item in target.tolist()]
        assert quality.per_user["recall_at_20"][user] == pytest.approx(sum(r <= 20 for r in ranks) / len(target))
        gain = sum(1 / np.log2(rank + 1) for rank in ranks if rank <= 10)
        best = sum(1 / np.log2(rank + 1) for rank in range(1, len(target) + 1))
        assert quality.per_user["ndcg_at_10"][user] == pytest.approx(gain / best)
        assert quality.per_user["mrr_at_10"][user] == pytest.approx(1 / ranks[0] if ranks[0] <= 10 else 0)
    assert quality.overall["coverage_at_20"] == len(shown) / world.ITEMS
    assert 0 < quality.overall["inference_p50_ms"] <= quality.overall["inference_p99_ms"]


def test_a_model_that_understands_the_world_beats_popularity(ials, popular):
    better, baseline = (evaluate(folder, toy_cut(), requests(), None, threads=1) for folder in (ials, popular))
    difference = compare(better, baseline, seed=1)
    assert better.overall["ndcg_at_10"] > 0.8
    assert difference["low"] > 0
    assert difference["ratio"] == pytest.approx(better.overall["ndcg_at_10"] / baseline.overall["ndcg_at_10"])
    assert compare(baseline, better, seed=1)["high"] < 0


def test_blocks_change_no_list(ials, monkeypatch):
    retriever, histories = Retriever(ials), world.histories()
    whole = recommend_all(retriever, histories, None)
    monkeypatch.setattr("training.evaluate.BLOCK_SCORES", 7 * world.ITEMS)
    assert BLOCK_SCORES > 7 * world.ITEMS
    np.testing.assert_array_equal(whole, recommend_all(retriever, histories, None))


def test_a_bundle_of_an_older_cut_is_judged_by_item_ids(ials):
    """The newer catalogue has one item more, in front; everybody wants it, and the old bundle lacks it."""
    shown = world.catalogue().model_dump()
    newer = Catalogue(**{name: [values[0], *values] for name, values in shown.items()} | {
        "item_id": ["toy:!new", *shown["item_id"]]
    })  # fmt: skip
    now = requests()
    moved = Requests(
        now.users,
        [np.append(history + 1, 0) for history in now.histories],
        [np.append(target + 1, 0) if len(target) else target for target in now.targets],
        now.instants,
    )
    older = evaluate(ials, toy_cut(newer), moved, None, threads=1)
    same = evaluate(ials, toy_cut(), now, None, threads=1)
    np.testing.assert_allclose(older.per_user["mrr_at_10"], same.per_user["mrr_at_10"])
    found = same.per_user["recall_at_20"] * world.HELD_BACK
    np.testing.assert_allclose(older.per_user["recall_at_20"], found / (world.HELD_BACK + 1))


# beyond accuracy ------------------------------------------------------------------------------------------------------


def test_the_character_of_lists_is_that_of_a_judge_that_goes_list_by_list(ials, monkeypatch):
    """Whatever the blocks; categories are the colours of the world."""
    monkeypatch.setattr(evaluation, "BLOCK_USERS", 7)
    cut, asked = toy_cut(), requests()
    quality, background = evaluate(ials, cut, asked, None, threads=1), Background.of(cut)
    retriever = Retriever(ials)
    lists = recommend_all(retriever, asked.histories, None)
    colours = [cut.catalogue.categories[item][0] for item in range(world.ITEMS)]
    users_of = np.array([sum(item in history for history in asked.histories) for item in range(world.ITEMS)])
    np.testing.assert_array_equal(background.counts, users_of)
    popular = set(np.lexsort((np.arange(world.ITEMS), -users_of))[:20].tolist())
    for user, (best, target) in enumerate(zip(lists, asked.targets, strict=True)):
        shown = best[best >= 0].tolist()
        bits = -np.log2(np.maximum(users_of[shown], 1) / world.USERS)
        assert quality.per_user["novelty_at_20"][user] == pytest.approx(bits.mean())
        differ = [colours[a] != colours[b] for a in shown for b in shown if a != b]
        assert quality.per_user["diversity_at_20"][user] == pytest.approx(np.mean(differ))
        if len(target):
            surprising = len(set(shown) & set(target.tolist()) - popular) / 20
            assert quality.per_user["serendipity_at_20"][user] == pytest.approx(surprising)
        mixes = [np.array([np.mean([colours[item] == c for item in some]) for c in sorted(set(colours))])
                 for some in (asked.histories[user].tolist(), shown)]  # fmt: skip
        mixed = 0.99 * mixes[1] + 0.01 * mixes[0]
        divergence = sum(p * np.log(p / q) for p, q in zip(mixes[0], mixed, strict=True) if p)
        assert quality.per_user["miscalibration_at_20"][user] == pytest.approx(divergence, abs=1e-6)
    assert 0 < quality.overall["gini_at_20"] < 1


def test_a_catalogue_without_categories_has_no_variety(ials):
    bare = world.catalogue().model_copy(update={"categories": [[] for _ in range(world.ITEMS)]})
    overall = evaluate(ials, toy_cut(bare), requests(), None, threads=1, timed=False).overall
    assert {"novelty_at_20", "serendipity_at_20", "gini_at_20"} <= set(overall)
    assert not {"diversity_at_20", "miscalibration_at_20"} & set(overall)


def test_users_are_told_apart_by_how_much_is_known_of_them():
    lengths, values = [0, 1, 5, 6, 20, 21, 400, 3], np.array([1.0, 0, 1, 0, 1, 1, np.nan, np.nan])
    means = by_history(values, [np.zeros(length, int) for length in lengths])
    assert means == {f"ndcg_at_10_of_{name}_known": value for name, value in
                     (("0", 1.0), ("1_to_5", 0.5), ("6_to_20", 0.5), ("over_20", 1.0))}  # fmt: skip
    assert by_history(values[:1], [np.zeros(0, int)]) == {"ndcg_at_10_of_0_known": 1.0}


def test_what_is_seldom_used_is_seen_less_than_it_deserves_where_only_the_popular_is_shown():
    counts = np.array([50, 30, 10, 10])
    values, histories = np.repeat([0.2, 0.4], 40), [np.zeros(length, int) for length in [3] * 40 + [30] * 40]
    popular = fair(np.tile([0, 1], (80, 1)), counts, values, histories)
    assert popular == pytest.approx({"worst_over_best_by_history": 0.5, "rare_exposure_ratio_at_20": 0.0})
    half = fair(np.tile([[0, 2], [2, 0]], (40, 1)), counts, values, histories)
    assert half["rare_exposure_ratio_at_20"] == pytest.approx(0.5 / 0.2)
    assert "worst_over_best_by_history" not in fair(np.zeros((1, 1), int), counts, values[:1], histories[:1])


def test_every_metric_of_a_user_has_its_interval(ials, popular):
    better, baseline = (evaluate(folder, toy_cut(), requests(), None, threads=1) for folder in (ials, popular))
    found = differences(better, baseline, seed=1)
    assert set(found) == set(better.per_user)
    assert found["ndcg_at_10"] == compare(better, baseline, seed=1)
    assert all(one["low"] <= one["difference"] <= one["high"] for one in found.values())
