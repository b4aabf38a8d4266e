"""The benchmark command: its formats, its validation part, its judgement, and the promise of its budget."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from recsys import metrics
from recsys.errors import RecsysError
from recsys.settings import HOME
from tests.worlds import checkerboard as world
from training.benchmark import choice, protocol, trial
from training.benchmark.choice import Budget, choose
from training.benchmark.formats import read
from training.benchmark.protocol import hold_out, judge
from training.benchmark.report import given_settings
from training.benchmark.trial import Job, Outcome
from training.model import ModelConfig, Workplace, module_of

GIB = 2**30


def write(path: Path, lines: list[str]) -> Path:
    text = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def lightgcn(tmp_path: Path, user="{}".format, item="{}".format) -> tuple[Path, Path]:
    """The checkerboard, what is held back as the test."""
    used = world.histories()
    train = [" ".join([user(u), *map(item, items.tolist())]) for u, items in enumerate(used)]
    test = [" ".join([user(u), *map(item, sorted(world.held_back(u)))]) for u in range(world.USERS)]
    return write(tmp_path / "train.txt.gz", train), write(tmp_path / "test.txt", test)


def ncf(tmp_path: Path) -> tuple[Path, Path]:
    rng, train, test, negatives = np.random.default_rng(1), [], [], []
    for user, items in enumerate(world.histories()):
        order = rng.permutation(len(items))
        train += [f"{user}\t{items[place]}\t5\t{place}" for place in order]  # the file's order is not that of time
        wanted = min(world.held_back(user))
        others = [item for item in range(world.ITEMS) if item % 2 != user % 2]
        test.append(f"{user}\t{wanted}\t4\t99")
        negatives.append("\t".join([f"({user},{wanted})", *map(str, [*others, wanted][:13])]))
    write(tmp_path / "x.test.negative.gz", negatives)
    return write(tmp_path / "x.train.rating", train), write(tmp_path / "x.test.rating.gz", test)


# formats --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spell", ["{}".format, lambda n: str(10**30 + int(n)), lambda n: f"-{int(n) + 1}7", lambda n: f"käse-{n}"]
)
def test_any_integers_and_strings_are_ids(tmp_path, spell):
    split = read(*lightgcn(tmp_path, item=spell), "lightgcn")
    assert len(split.user_ids) == world.USERS
    assert set(split.item_ids) <= {spell(item) for item in range(world.ITEMS)}
    for user, items in enumerate(world.histories()):
        code = split.user_ids.index(str(user))
        coded = split.train.items[split.train.users == code]
        assert [split.item_ids[item] for item in coded] == [spell(item) for item in items.tolist()]
        asked = split.asked.items[split.asked.start[code] : split.asked.start[code + 1]]
        assert {split.item_ids[item] for item in asked} == {spell(item) for item in world.held_back(user)}
    assert not split.train.is_ordered


def test_integers_keep_their_numeric_order(tmp_path):
    split = read(*lightgcn(tmp_path), "lightgcn")
    assert split.item_ids == [str(item) for item in range(world.ITEMS)]


def test_ncf_puts_a_user_in_the_order_of_time(tmp_path):
    split = read(*ncf(tmp_path), "ncf")
    for user, items in enumerate(world.histories()):
        assert split.train.items[split.train.users == user].tolist() == items.tolist()
    assert split.asked.items.tolist() == [min(world.held_back(user)) for user in range(world.USERS)]
    own = split.asked.candidates[:, :1]
    assert (split.asked.candidates[:, 1:] != own).all(), "the test item among its own negatives counts once"


def test_both_ways_of_reading_ratings_agree(tmp_path):
    train, test = ncf(tmp_path)
    whole = read(train, test, "ncf")
    write(train, [line.replace("\t", " ") for line in train.read_text().splitlines()])  # no longer four tab columns
    slow = read(train, test, "ncf")
    np.testing.assert_array_equal(whole.train.items, slow.train.items)
    np.testing.assert_array_equal(whole.train.users, slow.train.users)


def test_the_last_item_of_a_sequence_is_the_test(tmp_path):
    path = write(tmp_path / "s.txt", ["10 4 5 6", "9 7", "2 6 4"])
    split = read(path, None, "sequence")
    assert [split.user_ids[user] for user in split.asked.users] == ["2", "10"]
    assert [split.item_ids[item] for item in split.asked.items] == ["4", "6"]
    assert [split.item_ids[item] for item in split.train.items] == ["6", "7", "4", "5"]
    assert split.train.is_ordered


BROKEN = {
    "missing": (lambda t: (t / "no.txt", t / "test.txt"), "lightgcn", "It is not there"),
    "empty test": (lambda t: (t / "train.txt.gz", write(t / "e.txt", ["3", ""])), "lightgcn", "interactions in"),
    "broken id": (
        lambda t: (t / "train.txt.gz", write(t / "e.txt", ["1 3", "2 4x"])), "lightgcn", "line 2 of .*e.txt: 4x",
    ),
    "binary": (lambda t: (t / "train.txt.gz", write(t / "e.txt", ["1 3", "2 \0"])), "lightgcn", "line 2 of"),
    "no gzip": (lambda t: (t / "test.txt", (t / "test.txt").rename(t / "t.gz")), "lightgcn", "file: "),
    "unknown format": (lambda t: (t / "train.txt.gz", t / "test.txt"), "csv", "Choose among"),
    "no test": (lambda t: (t / "train.txt.gz", None), "lightgcn", "is missing"),
    "a test too many": (lambda t: (t / "train.txt.gz", t / "test.txt"), "sequence", "must be left out"),
    "one item a line": (lambda t: (write(t / "e.txt", ["1 2", "2 3"]), None), "sequence", "none with two items"),
    "columns": (
        lambda t: (write(t / "e", ["1\t2\t3\t4", "1\t2\t3\t4\t5"]), t / "x.test.rating.gz"), "ncf", "line 2 of .*5 col",
    ),
    "rating": (
        lambda t: (write(t / "e", ["1\t2\t3\t4", "1\t2\tnan\t4"]), t / "x.test.rating.gz"), "ncf", "rating nan",
    ),
    "no negatives": (
        lambda t: (t / "x.train.rating", write(t / "y.test.rating", ["1\t2\t3\t4"])), "ncf", "y.test.negative",
    ),
    "foreign negatives": (
        lambda t: (t / "x.train.rating", write(t / "x.test.rating", ["0\t1\t3\t4"])), "ncf", "line 1 of .*Expected",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_is_one_sentence_that_names_it(tmp_path, fault):
    lightgcn(tmp_path)
    ncf(tmp_path)
    paths, form, sentence = BROKEN[fault]
    with pytest.raises(RecsysError, match=sentence):
        read(*paths(tmp_path), form)


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


class Oracle:
    """Scores from a table. (U, I)"""

    def __init__(self, table: np.ndarray):
        self.table = table

    def score_users(self, users: np.ndarray) -> np.ndarray:
        return self.table[users].copy()


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

    def play(models: dict[str, dict], seconds: float):
        def run(job: Job, allowed: float, memory_bytes: float) -> Outcome:
            is_final = job.data is split.train
            took = models[job.model].get("last" if is_final else "seconds", models[job.model]["seconds"])
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
            return SimpleNamespace(Config=Config, FEATURES=(), TRIALS=models[name].get("trials", ({},)), **known)

        monkeypatch.setattr(choice, "run", run)
        monkeypatch.setattr(choice, "module_of", module)
        monkeypatch.setattr(choice, "cpu_seconds", lambda: 0.0)
        verdict = choose(split, list(models), Budget(seconds, 1, 0.0, clock), 1, tmp_path, GIB)
        assert clock.now <= seconds
        return verdict, played

    return play


def test_validation_chooses_and_the_leader_gets_the_trials(staged):
    trials = ({"setting": 0.0}, {"setting": 0.05}, {"setting": 0.02})
    verdict, played = staged(
        {
            "weak": {"seconds": 1, "quality": 0.1, "trials": trials},
            "strong": {"seconds": 1, "quality": 0.3, "trials": trials},
        },
        100,
    )
    assert (verdict.model, verdict.final.hyper_parameters) == ("strong", {"setting": 0.05})
    assert [model for model, _, _ in played] == ["weak", "strong", "strong", "strong", "weak", "weak", "strong"]
    assert [is_final for _, _, is_final in played] == [False] * 6 + [True]
    assert len(verdict.validation) == 6


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


def test_what_is_kept_back_for_the_test_grows_with_its_users():
    pace = choice.Pace(more_users=3.0)
    trial = Outcome(fit_cpu_seconds=2, judge_cpu_seconds=2, wall_seconds=12, judge_wall_seconds=4)
    pace.learn(trial)
    assert pace.slowness == 3
    assert pace.last(trial) == pytest.approx(choice.MORE_DATA * 8 + choice.MORE_ASKED * 3 * 4)
    longest = Outcome(wall_seconds=pace.trial(100.0), judge_wall_seconds=4)
    assert longest.wall_seconds + pace.last(longest) == pytest.approx(100)


@pytest.mark.parametrize(
    ("seconds", "order"),
    [(400, [0.2, 0.3, 0.1, 0.3]), (100, [0.1, 0.1])],
    ids=["60 s of 400 are too many, 40 are not", "where all are too dear, the cheapest"],
)
def test_a_model_begins_with_the_first_of_its_trials_that_is_cheap_enough(staged, seconds, order):
    trials = ({"setting": 0.3}, {"setting": 0.2}, {"setting": 0.1})
    costly = {"seconds": 20, "quality": 0.1, "said": lambda config: 200 * config.setting, "trials": trials}
    _, played = staged({"costly": costly}, seconds)
    assert [setting for _, setting, _ in played] == order


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
