"""A version beside the champion: who gets it, what is logged, that nobody pays for it, and the shadow's bounds."""

import json
from datetime import date

import pytest
from starlette.testclient import TestClient

from recsys.promotion import Rollout, Stage, candidate_folder, rollout_file, write_rollout
from recsys.settings import Settings
from recsys.split import Split
from serving import answering
from serving.metrics import Metrics
from serving.model import load
from serving.outbox import COPY, Outbox
from serving.rollout import Candidate, LiveRollout
from serving.shadow import COPIES_A_SECOND, WAITING, Rate, ShadowAnswers, ShadowLine
from tests.serving.ports import Candidates, assemble
from tests.worlds.served import EVEN, ITEMS, POPULAR, write_world

DAY = date(2026, 11, 25)
UNITS = [f"u{number}" for number in range(60)]


def rollout(stage: Stage, version: str = "2") -> Rollout:
    return Rollout(version=version, stage=stage, share=stage.share)


@pytest.fixture
def candidate_bundle(tmp_path):
    return write_world(tmp_path / "candidate", version="2", backwards=True)


@pytest.fixture
def parts(tmp_path):
    return assemble(write_world(tmp_path / "champion", version="1"), {"champion": 0.8, "popular": 0.2})


def answers(parts, units=UNITS) -> dict[str, dict]:
    client = TestClient(parts.app)
    asked = [{"user_id": unit, "k": 3} for unit in units]
    found = client.post("/v1/recommendations:batch", json={"requests": asked}).json()["answers"]
    assert [answer["user_id"] for answer in found] == units
    return dict(zip(units, found, strict=True))


def test_a_canary_answers_its_share_of_the_champions_users_with_its_own_list_and_the_log_says_which(
    parts, candidate_bundle
):
    parts.candidates.current = Candidate(load(candidate_bundle), rollout(Stage.CANARY_50))
    split = Split.by_weights({"champion": 0.8, "popular": 0.2})
    wanted = {
        unit: "2" if split.of(unit, DAY).policy == "champion" and rollout(Stage.CANARY_50).takes(unit) else "1"
        for unit in UNITS
    }
    found = answers(parts)

    assert 10 < list(wanted.values()).count("2") < 40
    assert {unit: answer["model_version"] for unit, answer in found.items()} == wanted
    for answer in found.values():
        items = [item["item_id"] for item in answer["items"]]
        assert items == (ITEMS[:3] if answer["model_version"] == "2" else POPULAR[:3])
    assert {shown.answer.user_id: shown.answer.model.version for shown in parts.records.shown} == wanted
    one = next(unit for unit, version in wanted.items() if version == "2")
    assert answers(parts, [one])[one]["model_version"] == "2"
    assert TestClient(parts.app).get("/readyz").json()["candidate"] == {
        "model_version": "2", "stage": "canary_50", "share": 0.5
    }  # fmt: skip


def test_held_out_units_and_sessions_of_nobody_never_get_it(parts, candidate_bundle):
    candidate = Candidate(load(candidate_bundle), rollout(Stage.CANARY_50))
    taken = next(unit for unit in UNITS if candidate.rollout.takes(unit))
    open_ = Split(()).of(taken, DAY)
    held = Split((), holdout=1.0).of(taken, DAY)
    assert candidate.takes(taken, open_)
    assert not candidate.takes(taken, held)
    assert not candidate.takes(taken, answering.NO_EXPERIMENT)


def test_what_the_candidate_fails_to_answer_the_champion_answers(parts, candidate_bundle, monkeypatch):
    candidate = Candidate(load(candidate_bundle), rollout(Stage.CANARY_50))
    parts.candidates.current, core = candidate, answering.recommend

    def failing(model, queries):
        if model is candidate.model:
            raise RuntimeError("planted")
        return core(model, queries)

    monkeypatch.setattr(answering, "recommend", failing)
    found = answers(parts)
    assert {answer["model_version"] for answer in found.values()} == {"1"}
    assert parts.count("recsys_candidate_failures_total", model_version="2") > 0


def test_the_shadow_gets_copies_and_nobody_gets_its_answers(parts, candidate_bundle):
    parts.candidates.current = Candidate(load(candidate_bundle), rollout(Stage.SHADOW))
    parts.users.know(UNITS[0], EVEN[:2])
    found = answers(parts)
    champions = [unit for unit, answer in found.items() if answer["variant"] == "champion"]

    assert {answer["model_version"] for answer in found.values()} == {"1"}
    assert len(parts.copies.lines) == len(champions) > 10
    metrics = Metrics()
    shadow = ShadowAnswers(parts.candidates, metrics)
    parts.candidates.refresh = lambda: None
    for line in parts.copies.lines:
        shadow.answer(ShadowLine.model_validate_json(line.model_dump_json()))
    counted = metrics.registry.get_sample_value
    assert counted("recsys_shadow_answers_total", {"model_version": "2", "outcome": "answered"}) == len(champions)
    assert counted("recsys_shadow_items_total", {"model_version": "2", "placed": "other"}) > 0


def line(version: str = "2") -> ShadowLine:
    return ShadowLine(model_version=version, k=3, history=[], features={}, session=[], domain=None, given=["a"])


def test_the_shadow_is_bounded_on_both_sides_of_the_pipe(candidate_bundle):
    rate = Rate(COPIES_A_SECOND)
    assert sum(rate.take(now / 1000) for now in range(10_000)) <= 10 * COPIES_A_SECOND + COPIES_A_SECOND
    outbox = Outbox({}, Metrics())
    for _ in range(1000):
        outbox.copy(line())
    assert 0 < len(outbox._lines) <= COPIES_A_SECOND + 1
    assert {one[:1] for one in outbox._lines} == {COPY}

    metrics = Metrics()
    candidates = Candidates(Candidate(load(candidate_bundle), rollout(Stage.SHADOW)))
    candidates.refresh = lambda: None
    shadow = ShadowAnswers(candidates, metrics)  # its thread is not started: nothing is taken out of the queue
    for _ in range(WAITING + 5):
        shadow.put(line().model_dump_json().encode())
    dropped = {"model_version": "2", "outcome": "dropped"}
    assert metrics.registry.get_sample_value("recsys_shadow_answers_total", dropped) == 5
    shadow.answer(line("9"))
    assert metrics.registry.get_sample_value(
        "recsys_shadow_answers_total", {"model_version": "9", "outcome": "dropped"}
    ) == 1  # fmt: skip


def test_a_rollout_is_taken_once_its_version_is_loaded_and_a_broken_one_gives_nobody_a_candidate(
    tmp_path, candidate_bundle
):
    settings = Settings(_env_file=None, var_dir=tmp_path / "var")
    live = LiveRollout(settings, Metrics())
    live.refresh()
    assert live.current is None

    link = candidate_folder(settings)
    link.parent.mkdir(parents=True)
    link.symlink_to(candidate_bundle)
    live.refresh()
    assert live.current is None
    write_rollout(rollout_file(settings), rollout(Stage.SHADOW))
    live.refresh()
    first = live.current
    assert (first.model.version, first.rollout.stage) == ("2", Stage.SHADOW)
    write_rollout(rollout_file(settings), rollout(Stage.CANARY_1))
    live.refresh()
    assert live.current.model is first.model
    assert live.current.rollout.share == 0.01

    write_rollout(rollout_file(settings), rollout(Stage.CANARY_1, version="7"))
    live.refresh()
    assert live.current is None
    rollout_file(settings).write_text(json.dumps({"version": "2", "stage": "canary_1", "share": 0.9}))
    live.refresh()
    assert live.current is None
    write_rollout(rollout_file(settings), None)
    live.refresh()
    assert live.current is None
