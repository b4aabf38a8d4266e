"""The pure core: what a message is, or why it is nothing."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.schemas import MAX_CLOCK_SKEW, MAX_SHOWN, Impression, Interaction, event_id
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


LIST = {
    "request_id": "r", "shown_at": instant(3, 1).isoformat(), "user_id": "ann", "variant": "champion",
    "model_version": "1", "rung": "popular", "propensity": 0.5,
    "items": [{"item_id": item, "rank": rank, "score": 0.1, "domain": "movies"} for rank, item in ((1, "a"), (2, "b"))],
}  # fmt: skip


def test_the_list_of_an_answer_is_an_impression_for_each_item():
    first, second = plan([shown(LIST)], RECEIVED_AT).impressions
    assert (first.item_id, first.rank, second.item_id, second.rank) == ("a", 1, "b", 2)
    assert [first.event_id, second.event_id] == [event_id("r", "a"), event_id("r", "b")]
    assert (first.user_id, first.propensity, first.shown_at) == ("ann", 0.5, instant(3, 1))
    for one in (first, second):
        assert Impression.model_validate(one.model_dump()) == one


@pytest.mark.parametrize(("wrong", "reason"), [
    ({"items": []}, "schema"),
    ({"items": LIST["items"] * 51}, "schema"),
    ({"items": [LIST["items"][0] | {"rank": 0}]}, "schema"),
    ({"items": [LIST["items"][0] | {"rank": 2**31}]}, "schema"),
    ({"propensity": 0}, "schema"),
    ({"more": 1}, "schema"),
    ({"shown_at": (RECEIVED_AT + 2 * MAX_CLOCK_SKEW).isoformat()}, "occurred_at_in_the_future"),
])  # fmt: skip
def test_a_bad_list_is_refused_whole(wrong, reason):
    effects = plan([shown(LIST | wrong)], RECEIVED_AT)
    assert ([one.reason for one in effects.refused], effects.impressions) == ([reason], [])


def test_the_longest_list_fits_into_a_message():
    longest = "i" * 256
    items = [{"item_id": longest, "rank": 2**31 - 1, "score": -0.12345678901234567, "domain": "products"}] * MAX_SHOWN
    ids = dict.fromkeys(("request_id", "user_id", "variant", "model_version", "rung"), longest)
    effects = plan([shown(LIST | ids | {"items": items})], RECEIVED_AT)
    assert len(effects.impressions) == MAX_SHOWN
