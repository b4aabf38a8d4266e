"""Drift as the size of an effect: planted shifts are found, two samples of one distribution are not."""

import numpy as np
import pandas as pd
import pytest

from monitoring.drift import CATEGORY_THRESHOLD, MIN_ROWS, NUMBER_THRESHOLD, Drift, measure

ROWS = 5000


def numbers(seed: int, mean: float = 0.0, rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1.0, rows)


def mix(seed: int, share: float, rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(seed).choice(["view", "click"], rows, p=[share, 1 - share])


def judged(reference, current, kind: str) -> Drift:
    (drift,) = measure(pd.DataFrame({"x": reference}), pd.DataFrame({"x": current}), {"x": kind})
    return drift


@pytest.mark.parametrize("seed", range(5))
def test_two_samples_of_one_distribution_are_no_drift(seed):
    assert not judged(numbers(seed), numbers(seed + 100), "number").is_drifted
    assert not judged(mix(seed, 0.5), mix(seed + 100, 0.5), "category").is_drifted


def test_a_shift_of_a_fifth_of_a_standard_deviation_is_found():
    drift = judged(numbers(1), numbers(2, mean=0.2), "number")
    assert drift.is_drifted
    assert drift.score == pytest.approx(0.2, abs=0.05)  # the distance of two shifted equals is the shift


def test_a_mix_that_moves_by_ten_points_is_found():
    reference, current = np.repeat(["view", "click"], [2500, 2500]), np.repeat(["view", "click"], [3000, 2000])
    drift = judged(reference, current, "category")
    assert drift.is_drifted
    by_hand = (0.6 - 0.5) * np.log(0.6 / 0.5) + (0.4 - 0.5) * np.log(0.4 / 0.5)
    assert drift.score == pytest.approx(by_hand, abs=1e-3)


def test_a_category_that_appears_is_found():
    current = np.repeat(["view", "click", "share"], [2000, 2000, 1000])
    assert judged(mix(1, 0.5), current, "category").is_drifted


def test_nulls_are_left_out_and_too_few_rows_are_not_judged():
    reference = pd.Series(numbers(1))
    reference[::2] = None
    drift = judged(reference, numbers(2), "number")
    assert drift.reference_rows == ROWS // 2
    assert not drift.is_drifted

    few = judged(numbers(1, rows=MIN_ROWS - 1), numbers(2, mean=9), "number")
    assert (few.score, few.is_drifted) == (None, False)
    assert judged(numbers(1, rows=MIN_ROWS), numbers(2, mean=9), "number").is_drifted
    assert judged([None] * ROWS, numbers(2), "number").score is None


def test_a_constant_is_no_drift_until_it_moves():
    assert judged(np.ones(ROWS), np.ones(ROWS), "number").score == 0
    assert judged(np.ones(ROWS), np.full(ROWS, 2.0), "number").is_drifted


def test_the_report_is_a_page_that_names_the_columns(tmp_path):
    page = tmp_path / "reports" / "drift.html"
    measure(pd.DataFrame({"rating": numbers(1)}), pd.DataFrame({"rating": numbers(2)}), {"rating": "number"}, page)
    text = page.read_text()
    assert text.lstrip().lower().startswith(("<html", "<!doctype"))
    assert "rating" in text


def test_the_thresholds_lie_between_chance_and_the_smallest_effect_of_interest():
    chance = [judged(numbers(seed), numbers(seed + 1000), "number").score for seed in range(20)]
    assert len(chance) == 20
    assert max(chance) < NUMBER_THRESHOLD < 0.2
    chance = [judged(mix(seed, 0.5), mix(seed + 1000, 0.5), "category").score for seed in range(20)]
    assert max(chance) < CATEGORY_THRESHOLD < 0.0405
