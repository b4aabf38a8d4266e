"""The state machine: what holds for whatever is seen, and each rule as a case."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.promotion import WAY, Candidacy, Evidence, Rollout, ShadowCount, Stage
from training.promotion import Rules, next_move

AT = datetime(2026, 11, 25, tzinfo=UTC)
RULES = Rules(planned_users=10_000, min_users=100, days=14)
UNDER_WAY = [stage for stage in Stage if stage.is_under_way]
CANARIES = [stage for stage in Stage if stage.share]


def candidacy(stage: Stage, **said) -> Candidacy:
    return Candidacy(
        **{"version": "7", "stage": stage, "against": "3", "entered_at": AT, "live_at": AT, "why": "it won", **said}
    )


def evidence(stage: Stage, **seen) -> Evidence:
    users = {"candidate_users": 500, "champion_users": 500, "champion_rate": 0.1, "difference": 0.0}
    interval = {"gain_low": -0.01, "harm_high": 0.01}
    return Evidence(**{"version": "7", "against": "3", "stage": stage, "live_at": AT, **users, **interval, **seen})


def move(stage: Stage, rules: Rules = RULES, now: datetime = AT, champion: str | None = "3", **seen):
    return next_move(candidacy(stage), evidence(stage, **seen), champion, now, rules)


counts = st.integers(0, 500)
bounds = st.none() | st.floats(-0.5, 0.5)
anything = st.builds(
    Evidence,
    version=st.sampled_from(["7", "8"]),
    against=st.sampled_from(["3", "2"]),
    stage=st.sampled_from(Stage),
    live_at=st.sampled_from([AT, AT + timedelta(hours=1)]),
    candidate_users=st.integers(0, 20_000),
    champion_users=st.integers(0, 20_000),
    sample_ratio_p=st.sampled_from([0.0, 0.5]),
    champion_rate=st.none() | st.floats(0, 1),
    difference=bounds,
    harm_high=st.floats(-0.5, 0.5),
    gain_low=st.floats(-0.5, 0.5),
    harmed=st.sampled_from([(), ("conversion",)]),
    shadow=st.none()
    | st.builds(ShadowCount, version=st.just("7"), answered=st.integers(0, 500), failed=st.integers(0, 500)),
)
days = st.integers(0, 30).map(lambda passed: AT + timedelta(days=passed))


@given(st.sampled_from(Stage), st.none() | anything, st.sampled_from(["3", "2", None]), days)
def test_no_stage_is_skipped_none_is_taken_twice_and_none_without_evidence(stage, seen, champion, now):
    here = candidacy(stage)
    moved = next_move(here, seen, champion, now, RULES)

    assert moved == next_move(here, seen, champion, now, RULES)
    if moved is None:
        return
    assert stage.is_under_way
    assert moved.to in {stage.following, Stage.ROLLED_BACK}
    assert moved.why
    forward = moved.to is not Stage.ROLLED_BACK
    if forward and stage is not Stage.CANDIDATE:
        assert seen is not None
        assert seen.is_about(here)
        assert champion == here.against
        assert not seen.harmed
    there = candidacy(moved.to, live_at=None)
    again = next_move(there, seen, champion, AT, RULES)
    assert again is None or again.to is Stage.ROLLED_BACK


@given(st.lists(anything, max_size=30))
def test_whatever_is_seen_nobody_beyond_ten_per_cent_gets_what_is_not_shown_to_be_better(seen):
    here, shown = candidacy(Stage.CANDIDATE), False
    for one in seen:
        moved = next_move(here, one, "3", AT, RULES)
        if moved is not None:
            shown |= here.stage is Stage.CANARY_10 and (one.gain_low or 0) > 0
            here = candidacy(moved.to)
        assert here.stage.share <= 0.10 or shown


def test_the_way_from_candidate_to_champion():
    counted = ShadowCount(version="7", answered=200, failed=1)
    better = {"difference": 0.02, "gain_low": 0.001, "harm_high": 0.04, "shadow": counted}
    here, way = Stage.CANDIDATE, [Stage.CANDIDATE]
    while here.is_under_way:
        here = move(here, **better).to
        way.append(here)

    assert tuple(way) == WAY
    assert [stage.share for stage in way] == [0, 0, 0.01, 0.10, 0.25, 0.50, 0]


@pytest.mark.parametrize("stage", CANARIES)
@pytest.mark.parametrize(
    ("seen", "why"),
    [
        ({"harm_high": -0.001, "difference": -0.02, "gain_low": -0.04}, "it is worse"),
        ({"sample_ratio_p": 1e-6}, "not dealt as told"),
        ({"harmed": ("conversion",)}, "harms conversion"),
    ],
)
def test_harm_leads_back_from_every_canary(stage, seen, why):
    moved = move(stage, **seen)
    assert moved.to is Stage.ROLLED_BACK
    assert why in moved.why


@pytest.mark.parametrize("stage", UNDER_WAY[1:])
def test_a_new_champion_and_too_many_days_lead_back(stage):
    assert "champion is 5 now" in move(stage, champion="5").why
    assert "champion is none now" in move(stage, champion=None).why
    waiting = {"candidate_users": 0, "champion_users": 0}
    assert move(stage, **waiting) is None
    moved = move(stage, now=AT + timedelta(days=15), **waiting)
    assert (moved.to, "decided nothing" in moved.why) == (Stage.ROLLED_BACK, True)


def test_the_gate_wants_a_gain_or_no_more_than_the_margin_and_ends_with_the_planned_users():
    assert move(Stage.CANARY_10, gain_low=-0.001) is None
    assert move(Stage.CANARY_10, gain_low=0.0) is None
    lenient = Rules(planned_users=10_000, min_users=100, margin=0.02)
    assert move(Stage.CANARY_10, lenient, gain_low=-0.0019).to is Stage.CANARY_25
    assert move(Stage.CANARY_10, lenient, gain_low=-0.0021) is None
    moved = move(Stage.CANARY_10, champion_users=9_500, gain_low=-0.001)
    assert (moved.to, "nothing is shown" in moved.why) == (Stage.ROLLED_BACK, True)


def test_the_shadow_counts_faults():
    def shadow(answered: int, failed: int):
        return move(Stage.SHADOW, shadow=ShadowCount(version="7", answered=answered, failed=failed))

    assert shadow(98, 1) is None
    assert shadow(199, 1).to is Stage.CANARY_1
    assert shadow(98, 2).to is Stage.ROLLED_BACK
    assert move(Stage.SHADOW) is None


def test_who_gets_a_small_share_gets_every_larger_one_and_the_shares_are_kept():
    units = [f"u{number}" for number in range(5_000)]
    takers = [
        {unit for unit in units if Rollout(version="7", stage=stage, share=stage.share).takes(unit)}
        for stage in (Stage.SHADOW, *CANARIES)
    ]
    assert [len(smaller - larger) for smaller, larger in pairwise(takers)] == [0] * 4
    assert takers[0] == set()
    for taking, stage in zip(takers[1:], CANARIES, strict=True):
        assert abs(len(taking) / len(units) - stage.share) < 0.02
