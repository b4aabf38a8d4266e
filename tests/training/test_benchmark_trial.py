"""One trial of the benchmark: its bounds, what a model that fails costs, and what is said of the last one."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from recsys.errors import RecsysError
from tests.training.test_benchmark import GIB, job
from tests.training.test_benchmark_formats import Oracle, lightgcn
from tests.worlds import checkerboard as world
from training.benchmark import pace, protocol, trial
from training.benchmark.formats import read
from training.benchmark.trial import Outcome
from training.model import Workplace, module_of


@pytest.mark.parametrize(
    ("seconds", "memory_bytes", "reason"), [(0.0, 4 * GIB, "abandoned after"), (60, 1, "abandoned above")]
)
def test_a_trial_beyond_its_bounds_is_ended(tmp_path, monkeypatch, seconds, memory_bytes, reason):
    monkeypatch.setattr(module_of("popularity"), "fit", lambda *_: iter(lambda: 0, 1) and _forever())
    outcome = trial.run(job(tmp_path), seconds, memory_bytes)
    assert reason in outcome.failed


def _forever():
    while True:
        pass


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (RecsysError("loss", "nan", "Lower it"), "loss: nan"),
        (ValueError("odd"), "ended with code 1"),
        (SystemExit(7), ""),
    ],
)
def test_a_model_that_fails_fails_alone(tmp_path, monkeypatch, raised, reason):
    def fit(*_):
        raise raised

    monkeypatch.setattr(module_of("popularity"), "fit", fit)
    outcome = trial.run(job(tmp_path), 60, 4 * GIB)
    assert outcome.failed
    assert reason in outcome.failed


def test_the_last_fit_says_how_fast_it_answers_and_how_large_it_is(tmp_path):
    (tried,) = trial.do(job(tmp_path, "ease"))
    assert (tried.answer_ms, tried.model_bytes, tried.answers) == ({}, 0, None)
    first, last = trial.do(replace(job(tmp_path, "ease"), is_last=True))
    assert (first.answer_ms, first.metrics, last.metrics) == ({}, {}, {}), "nobody has looked at what it is worth"
    np.testing.assert_array_equal(first.answers, last.answers)
    data, asked = job(tmp_path).data, job(tmp_path).asked
    assert protocol.measure_answers(last.answers, data, asked).overall == tried.metrics
    assert 0 < last.answer_ms["p50"] <= last.answer_ms["p99"]
    weights = module_of("ease").fit(job(tmp_path).data, module_of("ease").Config(), 1, Workplace(1, tmp_path))
    weights.save_native(tmp_path)
    assert last.model_bytes == (tmp_path / "weights.npz").stat().st_size


@pytest.mark.parametrize("raised", [RecsysError("disk", "full", "Free some"), ValueError("odd")])
def test_what_is_told_beside_the_answers_never_costs_them(tmp_path, monkeypatch, raised):
    def answer_times(*_):
        raise raised

    monkeypatch.setattr(trial, "answer_times", answer_times)
    outcome = trial.run(replace(job(tmp_path), is_last=True), 60, 4 * GIB)
    assert (outcome.failed, outcome.answer_ms) == ("", {})
    assert outcome.answers.shape == (world.USERS, protocol.RANKS)


def test_nobody_with_a_history_is_nothing_to_time(tmp_path):
    stranger = protocol.Asked(np.array([world.USERS + 5]), np.array([0, 1]), np.array([3]))
    data = read(*lightgcn(tmp_path), "lightgcn").train
    assert protocol.answer_times(Oracle(np.zeros((1, world.ITEMS))), data, stranger) == {}


def test_what_comes_before_the_first_step_is_part_of_the_time(monkeypatch):
    """A model that reads, or starts from a decomposition, for half of its time trains for the other half only."""
    now = 130.0
    monkeypatch.setattr("training.model.time", SimpleNamespace(perf_counter=lambda: now))
    place = Workplace(1, Path("."), seconds=40.0, began=100.0)
    assert (place.spent(), place.part(0.5).seconds, place.part(0.5).spent()) == (0.75, 5.0, 0.0)
    assert (place.anew().seconds, place.anew().spent()) == (40.0, 0.0)
    now = 150.0
    assert place.spent() > 1
    assert place.part(0.5).seconds > 0
    assert Workplace(1, Path(".")).spent() == 0


def test_time_is_left_to_ask_what_was_trained():
    """The slower a model answers, and the more users there are, the earlier it has to stop."""
    known = pace.Pace(more_users=3.0, asking=2.0)
    assert known.fit(100.0, None) == pace.FIRST_FIT_SHARE * 100
    assert known.fit(6.0, None) == pytest.approx(6 - pace.MORE_ASKED * pace.UNKNOWN * 2)
    slow = Outcome(wall_seconds=50, judge_wall_seconds=20)
    assert known.fit(200.0, slow, known.more_users) == pytest.approx(200 - pace.MORE_ASKED * 3 * 20)
    assert known.fit(10.0, slow) == pytest.approx(3.0), "something is learned, whatever happens"


def test_asking_is_measured_before_anything_is_trained(tmp_path):
    data, asked = job(tmp_path).data, job(tmp_path).asked
    assert 0 < protocol.seconds_of_asking(data, asked) < 5
