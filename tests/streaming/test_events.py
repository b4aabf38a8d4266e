"""The pure core: what a message is, or why it is nothing."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.schemas import MAX_CLOCK_SKEW, Impression, Interaction
from streaming.events import MAX_MESSAGE_BYTES, Refused, judge, plan
from tests.worlds.clicks import ANN, RECEIVED_AT, impression, instant, interaction, message, shown

CLICK = interaction("e1", "ann", "m:alpha", instant(3, 1))
SHOWN = impression("i1", "ann", "m:alpha", instant(3, 1))


def test_good_messages_become_events():
    assert judge(message(CLICK), RECEIVED_AT) == Interaction(**CLICK)
    assert judge(shown(SHOWN), RECEIVED_AT) == Impression(**SHOWN)


@pytest.mark.parametrize(
    ("bad", "reason", "detail"),
    [
        (message(None), "empty", "no value"),
        (message(b"{"), "not_json", "EOF"),
        (message(b"\xff\xfe"), "not_json", ""),
        (message(b"[]"), "schema", "object"),
        (message(SHOWN), "schema", "occurred_at"),
        (shown(CLICK), "schema", "request_id"),
        (message({**CLICK, "user_id": ""}), "schema", "user_id"),
        (message({**CLICK, "user_id": "a\nb"}), "schema", "user_id"),
        (message({**CLICK, "rating": 5.5}), "schema", "rating"),
        (message({**CLICK, "rating": float("nan")}), "schema", "rating"),
        (message({**CLICK, "domain": "weather"}), "schema", "domain"),
        (message({**CLICK, "event_type": "stare"}), "schema", "event_type"),
        (message({**CLICK, "more": 1}), "schema", "more"),
        (message({**CLICK, "occurred_at": "2020-03-01T00:00:00"}), "schema", "occurred_at"),
        (message({**CLICK, "occurred_at": "0001-01-01T00:00:00+14:00"}), "occurred_at_before_1970", "0001"),
        (message({**CLICK, "context": {"a": "\0"}}), "schema", "NUL"),
        (shown({**SHOWN, "rank": 2**31}), "schema", "rank"),
        (shown({**SHOWN, "propensity": 0}), "schema", "propensity"),
    ],
)
def test_a_bad_message_is_refused_with_its_reason(bad, reason, detail):
    outcome = judge(bad, RECEIVED_AT)
    assert isinstance(outcome, Refused)
    assert (outcome.message, outcome.reason) == (bad, reason)
    assert detail in outcome.detail


def test_a_clock_may_run_ahead_by_a_day_and_no_more():
    def at(skew: timedelta):
        return judge(message({**CLICK, "occurred_at": (RECEIVED_AT + skew).isoformat()}), RECEIVED_AT)

    assert isinstance(at(MAX_CLOCK_SKEW), Interaction)
    assert at(MAX_CLOCK_SKEW + timedelta(microseconds=1)).reason == "occurred_at_in_the_future"


def test_a_too_long_message_is_cut():
    long = message({**CLICK, "context": {"text": "x" * MAX_MESSAGE_BYTES}})
    outcome = judge(long, RECEIVED_AT)
    assert outcome.reason == "too_large"
    assert len(outcome.message.value) == MAX_MESSAGE_BYTES
    assert str(len(long.value)) in outcome.detail


@given(st.lists(st.one_of(st.binary(max_size=40), st.none(), st.sampled_from(ANN))))
def test_every_message_ends_in_exactly_one_place(bodies):
    effects = plan([message(body) for body in bodies], RECEIVED_AT)
    good = [body["event_id"] for body in bodies if isinstance(body, dict)]
    assert [event.event_id for event in effects.interactions] == good
    assert len(effects.refused) == len(bodies) - len(good)
    assert effects.impressions == []
