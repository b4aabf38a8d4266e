"""What the carrier reads of a line without taking it apart is what taking it apart says."""

import json
from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from recsys.schemas import MAX_SHOWN
from serving.impressions import Line, _messages
from serving.left_behind import Counted, Facts, shown
from serving.model import Identity

INSTANT = datetime(2026, 11, 30, 4, 0, tzinfo=UTC)
IDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
HOSTILE = '","item_id":"x","user_id":"y\\'


def line(user_id: str, item_ids: list[str]) -> bytes:
    n = len(item_ids)
    told = Facts(
        "5f0c", INSTANT.isoformat(), user_id, "champion", 1.0, 1, "popular", "model", None,
        Identity("ials", "3", "ials", "cut", "2026-01-01", "", "", n), (0, 0), [], Counted(n, n, {}, 0),
        item_ids, [0.5] * n, ["movies"] * n, [], [], [], None,
    )  # fmt: skip
    return shown(told) or b""


@given(IDS, st.lists(IDS, min_size=1, max_size=5))
@example(HOSTILE, [HOSTILE, "m:1"])
@example("ü:Zoë", ["m:1"])
def test_user_and_length_are_those_of_the_whole_text(user_id, item_ids):
    read = Line.read(line(user_id, item_ids))
    assert (read.user.decode(), read.items) == (user_id, len(item_ids))


def test_a_line_that_is_too_long_goes_in_pieces_that_hold_all_of_it():
    item_ids = [f"m:{number}" for number in range(2 * MAX_SHOWN + 3)]
    pieces = _messages(Line.read(line("u:ann", item_ids)))
    assert [length for _, length in pieces] == [MAX_SHOWN, MAX_SHOWN, 3]
    said = [json.loads(text) for text, _ in pieces]
    assert [item["item_id"] for piece in said for item in piece["items"]] == item_ids
    assert {piece["user_id"] for piece in said} == {"u:ann"}


def test_a_line_that_fits_goes_as_it_is():
    read = Line.read(line("u:ann", ["m:1", "m:2"]))
    assert _messages(read) == [(read.text, 2)]
