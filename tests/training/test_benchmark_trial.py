"""One trial of the benchmark: its bounds, what a model that fails costs, and what is said of the last one."""

from dataclasses import replace

import numpy as np
import pytest

from recsys.errors import RecsysError
from tests.training.test_benchmark import GIB, job
from tests.training.test_benchmark_formats import Oracle, lightgcn
from tests.worlds import checkerboard as world
from training.benchmark import protocol, trial
from training.benchmark.formats import read
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
