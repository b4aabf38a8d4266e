"""The judge of a soak says of each sentence whether it holds, from the stretches alone."""

from dataclasses import replace

import pytest

from bench.faults import FAULTS, Fault
from bench.report.results import verdict
from bench.soak import Stretch, judged, told

GOOD = {"answers": 1000, "lost": 0, "statuses": {"200": 1000}, "wrong": 3, "cut": 0, "late": 0, "p50_ms": 2.0,
        "p99_ms": 20.0, "max_ms": 90.0}  # fmt: skip
EVENTS = {"acknowledged": 500, "lost": 0, "twice": 0, "of users whose count is wrong": 0}
SOAK = [Stretch(number, fault, GOOD, {"serving": 170.0}) for number in (1, 2) for fault in (None, *FAULTS)]


def verdicts(stretches=SOAK, events=EVENTS, minutes=30.0):
    return {measure: said for measure, _, said in judged(stretches, events, minutes)}


def with_one(**changed):
    return [replace(SOAK[5], **changed), *SOAK[:5], *SOAK[6:]]


def test_what_the_host_took_is_told_of_a_stretch_where_it_may_matter():
    assert "host" not in told(replace(SOAK[5], stolen=0.01))[1][2]
    assert told(replace(SOAK[5], stolen=0.12))[1][2].endswith("worst 90 ms; the host took 12% of the processors")


def test_a_soak_without_a_flaw_meets_every_sentence():
    said = verdicts()
    assert len(said) == 9
    assert all(one.endswith(": met") for one in said.values())
    assert f"{len(FAULTS)} faults, each at least 2 times" in said["soak: each fault of the harness"]


@pytest.mark.parametrize(
    ("measure", "stretches", "events", "minutes"),
    [
        ("soak: lists that failed", with_one(report=GOOD | {"statuses": {"200": 999, "503": 1}}), EVENTS, 30),
        ("soak: lists that failed", with_one(report=GOOD | {"lost": 1}), EVENTS, 30),
        ("soak: events lost, counted twice, users whose count is wrong", SOAK, EVENTS | {"twice": 1}, 30),
        ("soak: events lost, counted twice, users whose count is wrong", SOAK, {}, 30),
        ("soak: p99 in each fault", with_one(report=GOOD | {"p99_ms": 100.1}), EVENTS, 30),
        ("soak: each fault of the harness", SOAK[: len(FAULTS) + 1], EVENTS, 30),
        ("soak: each fault of the harness", with_one(report={}), EVENTS, 30),
        ("soak: duration", SOAK, EVENTS, 12),
        ("soak: memory", [*SOAK[:-1], replace(SOAK[-1], memory={"serving": 190.0})], EVENTS, 30),
        ("soak: processes that ended by themselves", with_one(memory={"serving": 0.0}), EVENTS, 30),
        ("soak: memory", SOAK[: len(FAULTS) + 1], EVENTS, 30),
    ],
)
def test_what_falls_short_is_missed_under_its_own_sentence(measure, stretches, events, minutes):
    assert verdicts(stretches, events, minutes)[measure].endswith(": MISSED")


def test_a_late_answer_spends_the_budget_and_breaks_no_promise():
    said = verdicts(with_one(report=GOOD | {"late": 10}))
    assert said.pop("soak: error budget").endswith("spent 10: not reached")
    assert all(one.endswith(": met") for one in said.values())


def test_the_page_s_verdict_on_a_stretch_is_that_of_its_p99():
    slow = Stretch(1, Fault("redis", "slow"), GOOD | {"p99_ms": 100.1})
    judgements = [verdict({"target": target, "measured": said}) for _, target, said in (*told(SOAK[1]), *told(slow))]
    assert judgements == ["met", "met", "met", "missed"]


def test_a_stretch_without_a_report_is_void_and_nothing_else_is_said_of_it():
    ((measure, _, said),) = told(Stretch(1, Fault("kafka", "drop"), {}))
    assert measure == "kafka: drop, round 1: lists"
    assert said.startswith("void")


def test_a_run_that_broke_off_at_once_meets_nothing():
    said = verdicts([], {}, 0.0)
    assert said.pop("soak: processes that ended by themselves") == "0: met"  # there was none
    assert not any(one.endswith(": met") for one in said.values())
