"""The search for settings: on a real PostgreSQL, called again, killed half-way, and never reading the test."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from recsys import receipts
from recsys.errors import CheckFailed, RecsysError, UnusableInput
from recsys.interval import Interval
from recsys.settings import HOME
from recsys.warehouse import connect
from tests.worlds import checkerboard
from training import dataset, tasks, tune
from training.model import Between, OneOf, config_of, module_of, space_fingerprint

INTERVAL = Interval(("movies",), checkerboard.AS_OF)


@pytest.fixture
def validation() -> tune.Validation:
    return tune.Validation.of(checkerboard.training_data(), seed=1)


def test_nothing_is_learnt_from_behind_the_second_cut(validation):
    whole, data = checkerboard.training_data(), validation.data
    assert data.instants.max() < data.cut_at <= whole.instants.max()
    assert len(data.items) < len(whole.items)
    assert len(validation.targets) > 10
    for history, target in zip(validation.histories, validation.targets, strict=True):
        assert len(target)
        assert not set(target.tolist()) & set(history.tolist())
        assert len(set(history.tolist())) == len(history)


def test_each_rung_holds_the_users_of_the_one_below_and_the_last_all(validation):
    parts = [set(validation.part(rung).users.tolist()) for rung in range(len(tune.RUNGS))]
    assert parts[0] < parts[1] < parts[2] == set(validation.data.users.tolist())
    assert [round(9 * len(part) / len(parts[2])) for part in parts] == list(tune.RUNGS)


def test_features_go_with_their_events():
    rng, data = np.random.default_rng(2), checkerboard.training_data()
    given = rng.random((len(data.items), 4)).astype(np.float32)
    cut = tune.Validation.of(replace(data, user_features=given), seed=1)
    assert cut.features.shape == (len(cut.histories), 4)
    part = cut.part(1)
    known = {(user, item): row for user, item, row in zip(data.users, data.items, given, strict=True)}
    for user, item, row in zip(part.users, part.items, part.user_features, strict=True):
        np.testing.assert_array_equal(row, known[user, item])


def test_the_judge_knows_right_from_wrong(validation):
    class Oracle:
        sign = 1

        def score(self, histories, features=None):
            colour = np.array([history[0] % 2 for history in histories])
            own = np.arange(checkerboard.ITEMS)[None] % 2 == colour[:, None]
            return (self.sign * own).astype(np.float32)

    oracle = Oracle()
    right = validation.judge(oracle)
    oracle.sign = -1
    assert right > 3 * validation.judge(oracle)


def test_an_item_used_again_stands_at_its_latest_place():
    assert tune.last_uses(np.array([3, 1, 3, 2, 1])).tolist() == [3, 2, 1]


def test_too_little_to_split_is_said():
    data = checkerboard.training_data()
    few = replace(data, users=data.users[:1], items=data.items[:1], instants=data.instants[:1])
    with pytest.raises(UnusableInput, match="nothing can be tuned"):
        tune.Validation.of(few, seed=1)


def test_what_was_found_in_another_space_is_not_used(caplog):
    module = module_of("ials")
    known = {"space": space_fingerprint(module), "settings": {"reg": 0.02}}
    assert config_of(module, known).reg == 0.02
    assert config_of(module, None) == module.Config()
    assert config_of(module, {**known, "space": "older"}) == module.Config()
    assert "tune again" in caplog.text


# on the real store ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settings(world):
    settings = world("postgres", "mlflow")
    with connect(settings) as connection:
        for table in ("fct_interactions", "dim_items", "feat_user_activity", "feat_item_popularity"):
            connection.execute(f"drop table if exists marts.{table}")
        checkerboard.write_marts(connection)
        receipts.record(connection, "dbt.build", INTERVAL.key, "built", {})
    tasks.cut(settings, INTERVAL)
    return settings


def states(settings, study: str) -> list[TrialState]:
    return [trial.state for trial in tune.open_study(settings, study, 1).trials]


@pytest.mark.services
def test_a_search_goes_on_where_it_was_and_the_next_fit_uses_what_it_found(settings, monkeypatch):
    def refuse(self):
        raise AssertionError("the test requests were read")

    monkeypatch.setattr(dataset.Cut, "requests", refuse)
    first = tune.run(settings, INTERVAL, "ease", 3, 600)
    assert sum(first["trials"].values()) == 3
    own = module_of("ease").Config()
    study = tune.open_study(settings, first["study"], 1)
    assert study.trials[0].params == {name: getattr(own, name) for name in module_of("ease").SPACE}
    assert first["ndcg_at_10"] >= first["ndcg_at_10_of_the_own_settings"] > 0
    more = tune.run(settings, INTERVAL, "ease", 8, 600)
    assert more["study"] == first["study"]
    assert sum(more["trials"].values()) == 8
    assert len({json.dumps(trial.params) for trial in tune.open_study(settings, first["study"], 1).trials}) == 8
    again = tune.run(settings, INTERVAL, "ease", 8, 600)
    assert (again["settings"], again["trials"]) == (more["settings"], more["trials"])

    tasks.fit(settings, INTERVAL, "ease")
    bundle = tasks.cut_folder(settings, more["cut_id"]) / "models" / "ease" / "bundle"
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert {name: manifest["hyper_parameters"][name] for name in more["settings"]} == more["settings"]


@pytest.mark.services
def test_a_trial_that_is_behind_on_a_small_part_is_pruned(settings, validation, monkeypatch):
    module, learnt = module_of("item_knn"), []
    fit = module.fit
    monkeypatch.setattr(
        module, "fit", lambda data, *rest: learnt.append(len(np.unique(data.users))) or fit(data, *rest)
    )
    monkeypatch.setattr(validation.__class__, "judge", lambda self, model: -float(len(learnt)))  # ever worse
    study = tune.open_study(settings, "ever worse", 1)
    place = tune.Workplace(1, settings.var_dir)
    tune.search(study, module, validation, trials=6, seconds=600, seed=1, workplace=place)
    assert states(settings, "ever worse") == [TrialState.COMPLETE] + [TrialState.PRUNED] * 5
    users = len(np.unique(validation.data.users))
    assert learnt[:3] == [len(np.unique(validation.part(rung).users)) for rung in range(3)]
    assert max(learnt[3:]) < users


@pytest.mark.services
def test_trials_that_fail_are_counted_and_a_study_of_nothing_else_is_red(settings, validation, monkeypatch):
    module = module_of("item_knn")

    def diverge(*_):
        raise CheckFailed("loss", "nan", "It diverged")

    monkeypatch.setattr(module, "fit", diverge)
    study = tune.open_study(settings, "diverging", 1)
    with pytest.raises(CheckFailed, match="none to its end"):
        tune.search(
            study, module, validation, trials=2, seconds=600, seed=1, workplace=tune.Workplace(1, settings.var_dir)
        )
    assert states(settings, "diverging") == [TrialState.FAIL] * 2


DYING = """
import os, signal
from recsys.interval import Interval
from recsys.settings import load_settings
from tests.worlds import checkerboard
from training import tune
from training.model import module_of

module, fits = module_of("item_knn"), []
fit = module.fit
def die(*given):
    fits.append(1)
    if len(fits) == 5:  # in the second trial
        os.kill(os.getpid(), signal.SIGKILL)
    return fit(*given)
module.fit = die
tune.run(load_settings(), Interval(("movies",), checkerboard.AS_OF), "item_knn", 4, 600)
"""


@pytest.mark.services
def test_a_killed_search_asks_for_the_trial_that_died_once_more(settings):
    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    done = subprocess.run([sys.executable, "-c", DYING], cwd=HOME, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    cut_id = receipts_cut(settings)
    name = f"item_knn@{cut_id}@{space_fingerprint(module_of('item_knn'))[:8]}"
    left = tune.open_study(settings, name, 1).trials
    assert [trial.state for trial in left] == [TrialState.COMPLETE, TrialState.RUNNING]
    said = tune.run(settings, INTERVAL, "item_knn", 4, 600)
    trials = tune.open_study(settings, name, 1).trials
    assert said["died"] == 1
    assert len(trials) == 5
    assert trials[1].state == TrialState.FAIL
    assert trials[2].params == left[1].params
    assert not any(trial.state == TrialState.RUNNING for trial in trials)


def receipts_cut(settings) -> str:
    with connect(settings) as connection:
        return receipts.latest(connection, tasks.CUT, INTERVAL.key)[1]["cut_id"]


@pytest.mark.services
def test_a_study_is_searched_by_one_process_at_a_time(settings):
    with tune.alone(settings, "mine"):
        with pytest.raises(RecsysError, match="Another process"), tune.alone(settings, "mine"):
            pass
        with tune.alone(settings, "yours"):
            pass
    with connect(settings) as connection:
        held = connection.execute("select count(*) from pg_locks where locktype = 'advisory'").fetchone()
    assert held == (0,)


@pytest.mark.services
@pytest.mark.parametrize("given", [("ease", 0, 600), ("ease", 3, 0)])
def test_what_cannot_be_meant_is_refused(settings, given):
    with pytest.raises(RecsysError, match="both above zero"):
        tune.run(settings, INTERVAL, *given)


def test_values_are_asked_for_as_they_are_meant():
    trial = optuna.trial.FixedTrial({"whole": 3, "share": 0.5, "kind": "b"})
    assert Between(1, 8, log=True).suggest(trial, "whole") == 3
    assert Between(0.0, 1.0).suggest(trial, "share") == 0.5
    assert OneOf(("a", "b")).suggest(trial, "kind") == "b"
