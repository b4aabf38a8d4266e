"""The promotion gate, as a table of cases."""

from dataclasses import replace

from recsys.artifacts import BASELINE_MODEL
from training.promote import Contender, decide

CHALLENGER = Contender(version="7", model="ials", run_id="new", as_of="2020-02-01T00:00:00+00:00")
CHAMPION = Contender(version="3", model="two_tower", run_id="old", as_of="2020-01-01T00:00:00+00:00")
POPULARITY = Contender(version="6", model=BASELINE_MODEL, run_id="pop", as_of=CHALLENGER.as_of)
BETTER = {"difference": 0.05, "low": 0.01, "high": 0.09}
UNSURE = {"difference": 0.05, "low": 0.0, "high": 0.1}
WORSE = {"difference": -0.05, "low": -0.09, "high": -0.01}


def test_the_first_champion_beats_popularity():
    decision = decide(CHALLENGER, None, POPULARITY, BETTER, None)
    assert (decision.champion, decision.promoted) == (CHALLENGER, True)
    assert "+0.0500 [+0.0100, +0.0900]" in decision.reason


def test_the_first_champion_is_the_better_one_and_the_reason_says_whether_it_is_certain():
    decision = decide(CHALLENGER, None, POPULARITY, UNSURE, None)
    assert (decision.champion, decision.promoted) == (CHALLENGER, True)
    assert "not yet with certainty" in decision.reason
    for over_baseline in (WORSE, None):
        decision = decide(CHALLENGER, None, POPULARITY, over_baseline, None)
        assert (decision.champion, decision.promoted) == (POPULARITY, True)


def test_popularity_itself_may_be_the_first_champion():
    decision = decide(POPULARITY, None, POPULARITY, None, None)
    assert (decision.champion, decision.promoted) == (POPULARITY, True)


def test_nothing_is_promoted_without_a_baseline():
    decision = decide(CHALLENGER, None, None, None, None)
    assert (decision.champion, decision.promoted) == (None, False)


def test_a_better_challenger_becomes_champion():
    decision = decide(CHALLENGER, CHAMPION, POPULARITY, BETTER, BETTER)
    assert (decision.champion, decision.promoted) == (CHALLENGER, True)


def test_a_challenger_that_may_be_no_better_does_not():
    for over_champion in (UNSURE, WORSE, None):
        decision = decide(CHALLENGER, CHAMPION, POPULARITY, BETTER, over_champion)
        assert (decision.champion, decision.promoted) == (CHAMPION, False)
        assert "does not beat the champion" in decision.reason


def test_a_challenger_that_may_be_no_better_than_popularity_does_not():
    for over_baseline in (UNSURE, WORSE, None):
        decision = decide(CHALLENGER, CHAMPION, POPULARITY, over_baseline, BETTER)
        assert (decision.champion, decision.promoted) == (CHAMPION, False)
        assert "popularity" in decision.reason


def test_popularity_replaces_a_champion_that_it_beats():
    decision = decide(POPULARITY, CHAMPION, POPULARITY, None, BETTER)
    assert (decision.champion, decision.promoted) == (POPULARITY, True)


def test_the_champion_stays_when_it_is_the_challenger():
    decision = decide(CHALLENGER, replace(CHALLENGER), POPULARITY, BETTER, None)
    assert (decision.champion, decision.promoted) == (CHALLENGER, False)


def test_a_backfill_never_replaces_a_champion_that_knows_later_data():
    later = replace(CHAMPION, as_of="2020-03-01T00:00:00+00:00")
    decision = decide(CHALLENGER, later, POPULARITY, BETTER, BETTER)
    assert (decision.champion, decision.promoted) == (later, False)


def test_a_challenger_that_serves_its_groups_too_unequally_stays_behind_where_that_is_asked():
    def of(equality: float | None, least: float):
        return decide(CHALLENGER, CHAMPION, POPULARITY, BETTER, BETTER, equality, least)

    assert of(0.3, 0.0).champion == CHALLENGER
    assert of(0.5, 0.5).champion == CHALLENGER
    for equality, shown in ((0.3, "0.30"), (None, "could not be judged")):
        assert (of(equality, 0.5).champion, of(equality, 0.5).promoted) == (CHAMPION, False)
        assert f"worst over best {shown}, asked 0.50" in of(equality, 0.5).reason
    assert decide(CHALLENGER, None, POPULARITY, BETTER, None, 0.1, 0.5).champion == CHALLENGER, "something must serve"
