"""Drift as the size of an effect beside chance: planted shifts are found, two samples of one distribution are not."""

from itertools import accumulate

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from monitoring import distances
from monitoring.drift import (
    CATEGORY_FLOOR,
    CATEGORY_METHOD,
    EMBEDDING_FLOOR,
    MIN_ROWS,
    NUMBER_FLOOR,
    Column,
    Drift,
    measure,
    measure_embeddings,
    write_page,
)  # fmt: skip
from monitoring.references import Histogram
from monitoring.stream import judge_stream, page_hinkley

ROWS = 5000


def numbers(seed: int, mean: float = 0.0, rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1.0, rows)


def mix(seed: int, share: float, rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(seed).choice(["view", "click"], rows, p=[share, 1 - share]).astype(object)


def column(reference, current, kind: str, units: int = 10_000) -> Column:
    """A column whose rows belong to so many units in turn: to one each, unless there are fewer."""
    made = float if kind == "number" else object
    values = [np.array(side, made) for side in (reference, current)]
    return Column("x", kind, values[0], np.arange(len(values[0])) % units, values[1], np.arange(len(values[1])) % units)


def judged(reference, current, kind: str) -> Drift:
    return measure([column(reference, current, kind)], seed=1)[0]


def test_psi_is_the_published_one():
    _, psi = measure([column(numbers(0), numbers(1, mean=0.2), "number")], seed=1)
    assert psi.method == CATEGORY_METHOD
    assert psi.score == pytest.approx(0.0349957854, abs=1e-9)


def test_the_wasserstein_distance_is_scipys():
    for there, here, exact in (
        (numbers(1), numbers(2, 0.3), 2e-3),  # in 256 bins
        (np.repeat([1.0, 2.5, 5.0], [5, 3, 2]), np.repeat([1.0, 2.5, 4.0], [2, 3, 5]), 1e-12),
    ):
        values, index = distances.support(np.concatenate([there, here]))
        r, c = (np.bincount(i, minlength=len(values)) / len(i) for i in np.split(index, [len(there)]))
        assert distances.wasserstein(r, c, values) == pytest.approx(wasserstein_distance(there, here), abs=exact)


@pytest.mark.parametrize("seed", range(5))
def test_two_samples_of_one_distribution_are_no_drift(seed):
    assert not any(d.is_drifted for d in measure([column(numbers(seed), numbers(seed + 100), "number")], seed))
    assert not judged(mix(seed, 0.5), mix(seed + 100, 0.5), "category").is_drifted


def test_a_shift_of_a_fifth_of_a_standard_deviation_is_found():
    found = measure([column(numbers(1), numbers(2, mean=0.2), "number")], seed=1)
    assert [drift.is_drifted for drift in found] == [True, True]
    assert found[0].score == pytest.approx(0.2, abs=0.05)  # the distance of two shifted equals is the shift
    assert found[0].threshold == NUMBER_FLOOR > found[0].chance


def test_a_mix_that_moves_by_ten_points_is_found():
    reference, current = np.repeat(["view", "click"], [2500, 2500]), np.repeat(["view", "click"], [3000, 2000])
    drift = judged(reference, current, "category")
    assert drift.is_drifted
    by_hand = (0.6 - 0.5) * np.log(0.6 / 0.5) + (0.4 - 0.5) * np.log(0.4 / 0.5)
    assert drift.score == pytest.approx(by_hand, abs=1e-9)
    assert drift.threshold == CATEGORY_FLOOR


def test_a_category_that_appears_is_found():
    current = np.repeat(["view", "click", "share"], [2000, 2000, 1000])
    assert judged(mix(1, 0.5), current, "category").is_drifted


def test_what_a_few_users_do_is_chance_and_what_many_do_is_drift():
    """Forty users with tastes of their own: the windows differ by a fifth of a deviation, and by chance."""
    taste = np.random.default_rng(3).normal(0, 1, 80)
    rows = np.arange(4000) % 40
    there, here = taste[:40][rows] + numbers(4, rows=4000) / 9, taste[40:][rows] + numbers(5, rows=4000) / 9
    few = measure([Column("x", "number", there, rows, here, 40 + rows)], seed=1)[0]
    assert few.score > 1.5 * NUMBER_FLOOR
    assert few.chance > few.score
    assert not few.is_drifted
    assert measure([column(there, here, "number")], seed=1)[0].is_drifted  # were each row a user's of its own


def test_nulls_are_left_out_and_too_few_rows_or_units_are_not_judged():
    reference = numbers(1)
    reference[::2] = np.nan
    drift = judged(reference, numbers(2), "number")
    assert drift.reference_rows == ROWS // 2
    assert not drift.is_drifted

    few = judged(numbers(1, rows=MIN_ROWS - 1), numbers(2, mean=9), "number")
    assert (few.score, few.is_drifted, few.note) == (None, False, "too few rows")
    assert judged(numbers(1, rows=MIN_ROWS), numbers(2, mean=9), "number").is_drifted
    (alone,) = measure([column(numbers(1), numbers(2, mean=9), "number", units=19)], seed=1)
    assert (alone.score, alone.is_drifted, alone.note) == (None, False, "too few units")


def test_a_feature_that_the_reference_lacks_or_that_is_gone_is_told():
    nothing = np.full(ROWS, np.nan)
    appeared, gone, never = (judged(*sides, "number") for sides in (
        (nothing, numbers(2)), (numbers(2), nothing), (nothing, nothing)))  # fmt: skip
    assert (appeared.score, appeared.is_drifted) == (None, True)
    assert "no values in the reference" in appeared.note
    assert (gone.score, gone.is_drifted, gone.note) == (None, True, "no values any more")
    assert (never.score, never.is_drifted, never.note) == (None, False, "too few rows")
    assert judged([None] * ROWS, mix(1, 0.5), "category").is_drifted


def test_a_constant_is_no_drift_until_it_moves():
    same = measure([column(np.ones(ROWS), np.ones(ROWS), "number")], seed=1)
    assert [(drift.score, drift.is_drifted) for drift in same] == [(0, False)] * 2
    for moved in (np.full(ROWS, 2.0), np.zeros(ROWS), np.repeat([1.0, 2.0], [ROWS - 100, 100])):
        assert judged(np.ones(ROWS), moved, "number").is_drifted
    assert not judged(np.ones(ROWS), np.append(np.ones(ROWS - 1), 2.0), "number").is_drifted  # one row is chance


def test_embeddings_that_move_together_are_drift():
    chance = np.random.default_rng(6)
    reference, same = chance.normal(0, 1, (3000, 8)), chance.normal(0, 1, (1000, 8))
    units = np.arange(3000) % 300, np.arange(1000) % 300
    assert not measure_embeddings("e", reference, same, units, seed=1).is_drifted
    moved = measure_embeddings("e", reference, same + 0.2, units, seed=1)
    assert moved.is_drifted
    assert moved.score == pytest.approx(np.sqrt(8 * 0.04) / np.sqrt(8), abs=0.04)
    assert moved.threshold >= EMBEDDING_FLOOR
    assert measure_embeddings("e", reference[:9], same, (units[0][:9], units[1]), seed=1).score is None


def test_the_report_is_a_page_that_names_the_columns(tmp_path):
    page = tmp_path / "reports" / "drift.html"
    columns = [column(numbers(1), numbers(2), "number"), column(mix(1, 0.5), mix(2, 0.5), "category")]
    columns = [Column(name, *list(vars(c).values())[1:]) for name, c in zip(("rating", "kind"), columns, strict=True)]
    write_page(columns, measure(columns, seed=1), page)
    text = page.read_text()
    assert text.lstrip().lower().startswith(("<html", "<!doctype"))
    assert "rating" in text
    write_page([], [], page)
    assert "No column could be judged" in page.read_text()


# Page and Hinkley -----------------------------------------------------------------------------------------------------


def test_the_statistic_by_hand_and_value_by_value():
    values = np.array([1.0, 0.0, 1.0, 0.0, 0.0])
    expected = [0.0, 0.4, 0.0, 0.4, 0.8]  # 0.5 is expected, 0.1 is tolerated
    assert page_hinkley(values, 0.5, 0.1) == pytest.approx(expected)
    shortfalls = 0.5 - values - 0.1
    one_by_one = list(accumulate(shortfalls, lambda risen, short: max(0.0, risen + short), initial=0.0))[1:]
    assert one_by_one == pytest.approx(expected)


def test_a_planted_fall_of_quality_is_found_within_the_window_and_a_steady_one_is_not():
    chance = np.random.default_rng(8)
    before, steady, fallen = ((chance.random(n) < rate).astype(float) for n, rate in (
        (4000, 0.3), (1000, 0.3), (1000, 0.2)))  # fmt: skip
    units = chance.integers(0, 400, 4000), chance.integers(0, 400, 1000)
    assert not judge_stream(before, steady, units, seed=1).is_drifted
    found = judge_stream(before, fallen, units, seed=1)
    assert found.is_drifted
    assert 0 < found.alarm_at < 1000
    assert not judge_stream(before, 1 - fallen, units, seed=1).is_drifted  # better is no fall
    with pytest.raises(ValueError, match="windows of 0"):
        judge_stream(before[:0], steady, units, seed=1)


@pytest.mark.parametrize(
    ("reference", "same", "other"),
    [
        (np.full(2000, 3.0), np.full(2000, 3.0), np.full(2000, 3.5)),  # constant
        (np.full(2000, np.nan), np.full(2000, np.nan), np.full(2000, 3.0)),  # missing
        (np.arange(2000) % 10.0, np.arange(2000) % 10.0, np.full(2000, np.nan)),  # gone
    ],
)
def test_a_kept_histogram_knows_constants_and_what_is_missing(reference, same, other):
    units = np.arange(2000) % 100
    kept = Histogram.of("x", "number", reference, units, seed=1)
    assert kept.rows == 2000
    unchanged, changed = (kept.judge(values, units, seed=1) for values in (same, other))
    assert (unchanged.score, unchanged.is_drifted) == (0, False)
    assert changed.is_drifted
    assert kept.judge(other[:100], units[:100], seed=1).note == "too few rows or units"


def test_a_kept_histogram_of_categories_counts_unknown_and_missing_ones():
    units = np.arange(2000) % 100
    names = np.array(["a", "b"], object)[np.arange(2000) % 2]
    kept = Histogram.of("x", "category", names, units, seed=1)
    assert (kept.bins, kept.counts.sum(0).tolist()) == (("a", "b"), [1000, 1000, 0, 0])
    assert not kept.judge(names, units, seed=1).is_drifted
    for stranger in ("c", None):
        moved = names.copy()
        moved[:1000] = stranger
        assert kept.judge(moved, units, seed=1).is_drifted
