"""The benchmark command: its validation part, its judgement, and the promise of its budget."""

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from recsys import metrics
from recsys.errors import RecsysError
from recsys.settings import HOME
from tests.training.test_benchmark_formats import Oracle, lightgcn, ncf, write
from tests.worlds import checkerboard as world
from training.benchmark import choice, pace, protocol, trial
from training.benchmark.choice import choose
from training.benchmark.formats import read
from training.benchmark.pace import Budget
from training.benchmark.protocol import hold_out, judge
from training.benchmark.report import given_settings
from training.benchmark.trial import Job, Outcome
from training.model import ModelConfig, Workplace, module_of

GIB = 2**30


def test_settings_that_are_none_are_refused():
    assert given_settings('{"reg": 3}', "ease") == {"reg": 3}
    for text in ("[1]", '{"no_such": 1}', "{"):
        with pytest.raises(RecsysError, match="JSON object of settings of ease"):
            given_settings(text, "ease")


def test_whoever_was_not_there_in_training_is_shown_what_is_popular(tmp_path):
    train, test = lightgcn(tmp_path)
    split = read(train, write(tmp_path / "more.txt", [*test.read_text().splitlines(), "77 3"]), "lightgcn")
    assert split.strangers() == 1
    (stranger,) = [place for place, user in enumerate(split.asked.users) if split.user_ids[user] == "77"]
    model = module_of("ease").fit(split.train, module_of("ease").Config(), 1, Workplace(1, tmp_path))
    listed = protocol.rank(model, split.train, split.asked)
    counts = np.bincount(split.train.items, minlength=split.train.n_items)
    popular = np.lexsort((np.arange(len(counts)), -counts))
    np.testing.assert_array_equal(listed[stranger][: len(popular)], popular[: protocol.RANKS])
    assert len({tuple(one) for one in listed}) > 1


# validation and judgement ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "write_files"), [("lightgcn", lightgcn), ("ncf", ncf)])
def test_what_is_held_out_comes_from_training_alone(tmp_path, form, write_files):
    split = read(*write_files(tmp_path), form)
    rest, asked = hold_out(split, 1)
    before, after = (set(zip(d.users.tolist(), d.items.tolist(), strict=True)) for d in (split.train, rest))
    taken = set(zip(np.repeat(asked.users, np.diff(asked.start)).tolist(), asked.items.tolist(), strict=True))
    assert taken
    assert after | taken == before
    assert not after & taken
    if form == "ncf":
        last = {(user, int(items[-1])) for user, items in enumerate(world.histories())}
        assert taken == last
        for user, row in zip(asked.users, asked.candidates, strict=True):
            assert not set(row[1:][row[1:] >= 0].tolist()) & set(world.histories()[user].tolist())
    again, other = hold_out(split, 1)[1], hold_out(split, 2)[1]
    np.testing.assert_array_equal(asked.items, again.items)
    if form == "lightgcn":
        assert asked.items.tolist() != other.items.tolist()


def test_a_judge_that_goes_user_by_user_agrees(tmp_path, monkeypatch):
    split = read(*lightgcn(tmp_path), "lightgcn")
    table = np.random.default_rng(3).integers(0, 6, (world.USERS, world.ITEMS)).astype(np.float32)  # many ties
    judged = judge(Oracle(table), split.train, split.asked)
    assert len(split.asked.users) == world.USERS
    for user in split.asked.users:
        used = set(world.histories()[user].tolist())
        ranking = sorted(set(range(world.ITEMS)) - used, key=lambda item: (-table[user, item], item))
        found = np.array([item in world.held_back(user) for item in ranking])[None, :10]
        for name, function in (("recall", metrics.recall_at_k), ("ndcg", metrics.ndcg_at_k)):
            expected = function(found, np.array([world.HELD_BACK]), 10)[0]
            assert judged.per_user[f"{name}@10"][user] == pytest.approx(expected)
    monkeypatch.setattr(protocol, "BLOCK_SCORES", 7 * world.ITEMS)
    assert judge(Oracle(table), split.train, split.asked).overall == pytest.approx(judged.overall)


def test_ties_among_sampled_items_count_half(tmp_path):
    split = read(*ncf(tmp_path), "ncf")
    table = np.zeros((world.USERS, world.ITEMS), np.float32)
    judged = judge(Oracle(table), split.train, split.asked)
    negatives = (split.asked.candidates[:, 1:] >= 0).sum(1)
    np.testing.assert_allclose(judged.per_user["ndcg@10"], 1 / np.log2(negatives / 2 + 2))
    table[np.arange(world.USERS), split.asked.items] = 1
    assert judge(Oracle(table), split.train, split.asked).overall["mrr@10"] == 1


def test_best_asks_for_order_and_for_the_length_of_histories(tmp_path):
    train = read(*lightgcn(tmp_path), "lightgcn").train
    of_all = choice.candidates(train)
    in_order = choice.candidates(replace(train, is_ordered=True))
    assert not train.is_ordered
    assert {"slist", "sasrec", "hstu", "blend"}.isdisjoint(of_all)
    assert {"slist", "blend"} < set(in_order)
    assert {"sasrec", "hstu"}.isdisjoint(in_order)
    more = 1 + choice.LONG_HISTORY * len(np.unique(train.users)) // len(train.users)
    columns = {name: np.tile(getattr(train, name), more) for name in ("users", "items", "instants")}
    long = choice.candidates(replace(train, is_ordered=True, **columns))
    assert set(long) == {*in_order, "sasrec", "hstu"} - {"blend"}
    assert long.index("hstu") < long.index("sasrec")


# the budget -----------------------------------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def staged(monkeypatch, tmp_path):
    """A stage of models that take what they take by a clock of the test's; returns how to play a piece on it."""
    split, clock, played = read(*lightgcn(tmp_path), "lightgcn"), Clock(), []

    class Config(ModelConfig):
        setting: float = 0

    class WithMembers(Config):
        members: int = 1

    def play(models: dict[str, dict], seconds: float):
        def run(job: Job, allowed: float, memory_bytes: float) -> Outcome:
            is_final = job.data is split.train
            took = models[job.model].get("last" if is_final else "seconds", models[job.model]["seconds"])
            if callable(took):
                took = took(job.config)
            if isinstance(took, list):  # one after the other, the last of them for ever
                took = took.pop(0) if len(took) > 1 else took[0]
            clock.now += min(took, allowed)
            played.append((job.model, job.config.get("setting"), is_final))
            if took > allowed:
                return Outcome(wall_seconds=allowed, failed="abandoned")
            quality = models[job.model]["quality"] + job.config.get("setting", 0)
            return Outcome({"ndcg@20": quality}, {}, job.config, wall_seconds=took)

        def module(name: str):
            said = models[name].get("said")
            estimate = said if callable(said) else lambda config: said
            known = {"estimate_seconds": lambda data, config: estimate(config)} if said else {}
            known |= {"TRIALS_OF_SETS": models[name]["of_sets"]} if "of_sets" in models[name] else {}
            config = WithMembers if "members" in models[name] else Config
            return SimpleNamespace(Config=config, FEATURES=(), TRIALS=models[name].get("trials", ({},)), **known)

        monkeypatch.setattr(choice, "run", run)
        monkeypatch.setattr(choice, "module_of", module)
        monkeypatch.setattr(pace, "cpu_seconds", lambda: 0.0)
        verdict = choose(split, list(models), Budget(seconds, 1, 0.0, clock), 1, tmp_path, GIB)
        assert clock.now <= seconds
        return verdict, played

    return play


def test_where_order_means_nothing_a_model_may_have_trials_of_its_own(staged):
    told = {
        "seconds": 1,
        "quality": 0.3,
        "trials": ({"setting": 0.1},),
        "of_sets": ({"setting": 0.2}, {"setting": 0.0}),
    }
    verdict, played = staged({"one": told}, 100)
    assert {setting for _, setting, _ in played} == {0.2, 0.0}
    assert verdict.final.hyper_parameters == {"setting": 0.2}


def test_validation_chooses_and_the_leader_gets_the_trials(staged):
    trials = ({"setting": 0.0}, {"setting": 0.05}, {"setting": 0.02})
    verdict, played = staged(
        {
            "hopeless": {"seconds": 1, "quality": 0.2, "trials": trials},
            "weak": {"seconds": 1, "quality": 0.29, "trials": trials},
            "strong": {"seconds": 1, "quality": 0.3, "trials": trials},
        },
        100,
    )
    assert (verdict.model, verdict.final.hyper_parameters) == ("strong", {"setting": 0.05})
    tried = [model for model, _, is_final in played if not is_final]
    assert tried == ["hopeless", "weak", "strong", "strong", "strong", "weak", "weak"]
    assert [(model, setting) for model, setting, is_final in played if is_final] == [("strong", 0.0), ("strong", 0.05)]
    assert len(verdict.validation) == 7


def test_a_model_that_does_not_fit_is_not_begun(staged):
    verdict, played = staged(
        {"quick": {"seconds": 2, "quality": 0.1}, "slow": {"seconds": 50, "quality": 0.9, "said": 50}}, 60
    )
    assert {verdict.model} == {model for model, _, _ in played} == {"quick"}
    assert any("not begun" in note for note in verdict.notes)


def test_a_model_that_overruns_costs_no_promise(staged):
    verdict, played = staged(
        {"quick": {"seconds": 5, "quality": 0.1}, "liar": {"seconds": 500, "quality": 0.9, "said": 1}}, 60
    )
    assert verdict.model == "quick"
    assert ("liar", None, False) in played
    assert verdict.validation[1]["failed"] == "abandoned"


def test_a_last_fit_that_overruns_leaves_the_cheapest_its_time(staged):
    verdict, played = staged(
        {"quick": {"seconds": 2, "quality": 0.1, "last": 3}, "liar": {"seconds": 10, "quality": 0.9, "last": 500}}, 60
    )
    assert verdict.model == "quick"
    assert ("liar", None, True) in played


def test_a_machine_that_stands_still_at_the_end_costs_the_better_answer_not_every_answer(staged):
    """Where the machine gives ten times less for the last fits, the one that was laid by while it was quiet stands."""
    trials = ({"setting": 0.0}, {"setting": 0.1})
    verdict, played = staged(
        {
            "quick": {"seconds": 1, "quality": 0.1},
            "strong": {"seconds": 2, "quality": 0.3, "last": [3, 500], "trials": trials},
        },
        60,
    )
    assert (verdict.model, verdict.final.hyper_parameters) == ("strong", {"setting": 0.0})
    assert played[-1] == ("strong", 0.1, True)
    assert any("last fit: abandoned" in note for note in verdict.notes)


def test_where_the_leader_is_dear_the_next_best_is_laid_by(staged):
    """The leader's last fit does not end; the one that answers was fitted before, and is not the baseline."""
    verdict, played = staged(
        {
            "popularity": {"seconds": 1, "quality": 0.01},
            "knn": {"seconds": 4, "quality": 0.2},
            "dear": {"seconds": 60, "quality": 0.25, "last": 900},
        },
        300,
    )
    assert verdict.model == "knn"
    assert [(model, is_final) for model, _, is_final in played][-2:] == [("knn", True), ("dear", True)]


def test_the_baseline_never_answers_where_a_better_one_fits(staged):
    """A budget that is short for one model only: the others were tried first."""
    models = {
        "popularity": {"seconds": 3, "quality": 0.01, "said": 1},
        "knn": {"seconds": 4, "quality": 0.2, "said": 2},
        "dear": {"seconds": 60, "quality": 0.9, "said": 20},
    }
    for seconds in (30, 60, 120):
        verdict, _ = staged(models, seconds)
        assert verdict.model == "knn"


def slow(scale: float, said: float, trials: tuple[dict[str, float], ...]) -> dict[str, dict[str, Any]]:
    """One model whose seconds are `scale` times its setting, and are said to be `said` times."""
    played = {"seconds": lambda config: scale * config["setting"], "said": lambda config: said * config.setting}
    return {"slow": {**played, "quality": 0.5, "trials": trials}}


def test_after_a_trial_that_does_not_end_a_cheaper_one_of_the_model_is_tried(staged):
    """The estimate is right about what is dearer, and wrong by a factor that a first trial tells."""
    trials = ({"setting": 0.4}, {"setting": 0.3}, {"setting": 0.1})
    verdict, played = staged(slow(1000, 100, trials), 600)
    assert [setting for _, setting, is_final in played if not is_final] == [0.4, 0.1]
    assert verdict.final.hyper_parameters == {"setting": 0.1}


def test_untuned_a_model_takes_what_it_expects_to_end(staged):
    trials = ({"setting": 0.4}, {"setting": 0.1})
    verdict, played = staged(slow(200, 200, trials), 45)
    assert played == [("slow", 0.1, True)]
    assert not verdict.validation


def test_what_is_kept_back_for_the_test_grows_with_its_users():
    known = pace.Pace(more_users=3.0)
    trial = Outcome(fit_cpu_seconds=2, judge_cpu_seconds=2, wall_seconds=12, judge_wall_seconds=4)
    known.learn(trial)
    assert known.slowness == 3
    assert known.last(trial) == pytest.approx(pace.MORE_DATA * 8 + pace.MORE_ASKED * 3 * 4)
    longest = Outcome(wall_seconds=known.trial(100.0), judge_wall_seconds=4)
    assert longest.wall_seconds + known.last(longest) == pytest.approx(100)


@pytest.mark.parametrize(
    ("seconds", "beside", "order"),
    [(400, True, [0.2, 0.3, 0.1]), (400, False, [0.3, 0.2, 0.1]), (100, False, [0.1])],
    ids=["60 s of 400 are too many, 40 are not", "alone it may take them", "where all are too dear, the cheapest"],
)
def test_a_model_begins_with_the_first_of_its_trials_that_is_cheap_enough(staged, seconds, beside, order):
    trials = ({"setting": 0.3}, {"setting": 0.2}, {"setting": 0.1})
    costly = {"seconds": 20, "quality": 0.1, "said": lambda config: 200 * config.setting, "trials": trials}
    models = {"costly": costly} | ({"quick": {"seconds": 1, "quality": 0.01}} if beside else {})
    _, played = staged(models, seconds)
    assert [setting for name, setting, is_final in played if name == "costly" and not is_final] == order


@pytest.mark.parametrize(
    ("seconds", "members"), [(80, 1), (90, 2), (1000, 3)], ids=["no time", "some time", "all the time of the world"]
)
def test_what_is_left_at_the_end_goes_into_more_networks(staged, seconds, members):
    told = {"seconds": 30, "quality": 0.3, "trials": ({}, {"setting": -0.1}), "members": True}
    verdict, played = staged({"net": told}, seconds)
    assert [setting for _, setting, is_final in played if is_final][-1:] == [None]
    assert verdict.final.hyper_parameters == ({"members": members} if members > 1 else {})


def test_settings_for_short_histories_are_theirs_alone(tmp_path):
    data = replace(read(*lightgcn(tmp_path), "lightgcn").train, is_ordered=True)
    module = SimpleNamespace(TRIALS=({"layers": 2},), TRIALS_OF_SHORT=({"layers": 1},), TRIALS_OF_SETS=({},))
    assert choice.trials(module, data) == module.TRIALS_OF_SHORT
    assert choice.trials(module, replace(data, is_ordered=False)) == module.TRIALS_OF_SETS
    del module.TRIALS_OF_SETS
    assert choice.trials(module, replace(data, is_ordered=False)) == module.TRIALS_OF_SHORT
    more = 1 + choice.LONG_HISTORY * len(np.unique(data.users)) // len(data.users)
    columns = {name: np.tile(getattr(data, name), more) for name in ("users", "items", "instants")}
    assert choice.trials(module, replace(data, **columns)) == module.TRIALS


def test_what_never_ends_is_said(staged):
    with pytest.raises(RecsysError, match="give more time"):
        staged({"endless": {"seconds": 500, "quality": 0.9, "trials": ({}, {})}}, 10)


def job(tmp_path, model: str = "popularity") -> Job:
    split = read(*lightgcn(tmp_path), "lightgcn")
    return Job(model, {}, split.train, split.asked, 1, Workplace(1, tmp_path))


def test_a_trial_runs_apart_and_brings_its_result(tmp_path):
    outcome = trial.run(job(tmp_path, "ease"), 60, 4 * GIB)
    assert not outcome.failed
    assert outcome.metrics["recall@10"] > 0.9
    assert outcome.fit_cpu_seconds > 0
    assert outcome.peak_rss_bytes > 2**20


# the command ----------------------------------------------------------------------------------------------------------


def command(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "training.benchmark", *map(str, arguments)], cwd=HOME, capture_output=True, text=True
    )


def test_the_command_chooses_the_best_and_writes_it_down(tmp_path):
    train, test = lightgcn(tmp_path, item="B{}".format)
    out, per_user = tmp_path / "result.json", tmp_path / "users.parquet"
    done = command(
        "--train", train, "--test", test, "--format", "lightgcn", "--model", "best", "--budget-s", 60, "--out", out,
        "--per-user", per_user,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["metrics"]["recall@20"] == 1
    assert result["metrics"]["recall@10"] > 0.9
    assert result["model"] != "popularity"
    assert {"recall@20", "ndcg@20", "hit_rate@10", "ndcg@10", "coverage@20", "gini@20"} <= set(result["metrics"])
    assert 0 < result["wall_seconds"] <= 60
    assert result["cpu_seconds"] > 0
    assert result["peak_rss_bytes"] > 2**20
    assert (result["seed"], result["sampled"], result["test_users"]) == (1, False, world.USERS)
    assert {row["model"] for row in result["validation"]["trials"]} >= {"ease", "popularity"}
    assert per_user.is_file()


def test_the_command_says_a_fault_in_one_sentence(tmp_path):
    train, test = lightgcn(tmp_path)
    done = command("--train", train, "--test", test, "--format", "lightgcn", "--model", "crystal_ball", "--out", "o")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip().startswith("FAILED RecsysError: MODEL: crystal_ball. Choose best or one of")
    assert len(done.stderr.strip().splitlines()) == 1
