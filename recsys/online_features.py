"""Feast's online features in Redis, in Feast's own layout, without Feast: read in one round trip, written in bulk.

    key     entity: the join key's name and the entity's id, length-prefixed, then the project's name
    field   murmur3 of `view:feature`, four bytes → the value as Feast's protobuf `Value`; empty where there is none
    field   `_ts:view` → the instant of the row as protobuf `Timestamp`

Feast reads what is written here and this reads what Feast writes: held by tests/feature_repo/test_online_features.py.
Source: feast 0.67, `feast/infra/key_encoding_utils.py`, `feast/infra/online_stores/redis.py`, `Value.proto`; entity key
serialization version 3.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

import hiredis
import mmh3

from recsys import artifacts
from recsys.columns import ITEM_ID, USER_ID
from recsys.round_trip import exchange, send

PROJECT = "recsys"
STRING = 2
"""`ValueType.STRING` of Feast."""
INT64, DOUBLE = b"\x20", b"\x29"
"""Tags of the fields int64_val and double_val of Feast's `Value`."""

ROWS_A_SCRIPT = 500
"""Rows that the store writes without answering others: some two milliseconds."""

WRITE_NEWER = """
local function instant(raw)
    local parts, place = {[8] = 0, [16] = 0}, 1
    while place <= #raw do
        local tag, number, scale, byte = string.byte(raw, place), 0, 1
        repeat
            place = place + 1
            byte = string.byte(raw, place)
            number, scale = number + byte % 128 * scale, scale * 128
        until byte < 128
        parts[tag], place = number, place + 1
    end
    return parts[8], parts[16]
end
local row, written = {'HSET'}, 0
local width = #ARGV / (#KEYS + 1)
for field = 1, width do row[2 * field + 1] = ARGV[field] end
for number, key in ipairs(KEYS) do
    local at, held = ARGV[number * width + 1], redis.call('HGET', key, ARGV[1])
    local newer = not held
    if held and held ~= at then
        local seconds, nanos = instant(at)
        local held_seconds, held_nanos = instant(held)
        newer = seconds > held_seconds or seconds == held_seconds and nanos > held_nanos
    end
    if newer then
        row[2], written = key, written + 1
        for field = 1, width do row[2 * field + 2] = ARGV[number * width + field] end
        redis.call(unpack(row))
    end
end
return written
"""
"""Arguments: the fields' names, the instant's first; then a row's contents in their order for each key. Rows before
1970 are not told apart."""

Row = tuple[str, datetime, Sequence[float | None]]
"""Entity's id, instant, values in the view's order."""


@dataclass(frozen=True)
class View:
    """A feature view as far as the online store knows it."""

    name: str
    join_key: str
    features: tuple[str, ...]

    @cached_property
    def _head(self) -> bytes:
        name = self.join_key.encode()
        return struct.pack("<III", 1, STRING, len(name)) + name + struct.pack("<I", STRING)

    @cached_property
    def fields(self) -> list[bytes]:
        return [struct.pack("<I", mmh3.hash(f"{self.name}:{name}", signed=False)) for name in self.features]

    @cached_property
    def _encoders(self) -> list[Any]:
        return [_double if is_float(name) else _integer for name in self.features]

    @cached_property
    def instant_field(self) -> bytes:
        return f"_ts:{self.name}".encode()

    def key(self, entity_id: str) -> bytes:
        raw = entity_id.encode()
        return self._head + _length(len(raw)) + raw + PROJECT.encode()

    @cached_property
    def _reading(self) -> tuple[bytes, int, bytes]:
        """What stands before and behind the entity's id in the command that reads its row, and the length of the key
        without it, as it goes over the wire."""
        head, tail = hiredis.pack_command(("HMGET", b"", *self.fields)).split(b"$0\r\n\r\n")
        return head, len(self._head) + 4 + len(PROJECT), PROJECT.encode() + b"\r\n" + tail

    def reading(self, entity_id: str) -> bytes:
        """Return the command that reads an entity's row, packed."""
        head, around, tail = self._reading
        raw = entity_id.encode()
        return b"%b$%d\r\n%b%b%b%b" % (head, around + len(raw), self._head, _length(len(raw)), raw, tail)

    def cells(self, at: datetime, values: Sequence[float | None]) -> list[bytes]:
        """Return the contents of one row's fields, the instant's first."""
        cells = [timestamp(at)]
        for encode, value in zip(self._encoders, values, strict=True):
            cells.append(b"" if value is None else encode(value))
        return cells


def is_float(feature: str) -> bool:
    """Tell whether a feature is a mean or a decayed sum; the rest are counts (feature_repo/features.py)."""
    return feature.endswith(("_mean_rating", "_decayed"))


USER_ACTIVITY = View(artifacts.FEATURE_VIEW_USER_ACTIVITY, USER_ID, artifacts.USER_FEATURES)
ITEM_POPULARITY = View(artifacts.FEATURE_VIEW_ITEM_POPULARITY, ITEM_ID, artifacts.ITEM_FEATURES)
USER_WINDOWS = View(artifacts.FEATURE_VIEW_USER_WINDOWS, USER_ID, artifacts.USER_WINDOW_FEATURES)
ITEM_WINDOWS = View(artifacts.FEATURE_VIEW_ITEM_WINDOWS, ITEM_ID, artifacts.ITEM_WINDOW_FEATURES)


def _varint(number: int) -> bytes:
    if 0 <= number < 128:
        return bytes((number,))
    number &= 0xFFFF_FFFF_FFFF_FFFF  # protobuf's two's complement
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


@lru_cache(65_536)
def _integer(value: float) -> bytes:
    return INT64 + _varint(int(value))


_length = struct.Struct("<I").pack
_read_double = struct.Struct("<d").unpack_from


def _double(value: float) -> bytes:
    return DOUBLE + struct.pack("<d", value)


@lru_cache(4096)
def timestamp(at: datetime) -> bytes:
    """Return an instant as protobuf's `Timestamp`, to the microsecond."""
    seconds, nanos = int(at.replace(microsecond=0).timestamp()), at.microsecond * 1000
    return (b"\x08" + _varint(seconds) if seconds else b"") + (b"\x10" + _varint(nanos) if nanos else b"")


@lru_cache(65_536)
def _decode_integer(raw: bytes) -> int:
    if raw[:1] != INT64:
        raise ValueError(f"not a value of this platform's features: {raw!r}")
    number = 0
    for place, byte in enumerate(raw[1:]):
        number |= (byte & 127) << (7 * place)
    return number - (1 << 64) if number >> 63 else number


def decode_row(cells: Sequence[bytes | None]) -> list[float | None]:
    """Return a row's values; of a feature that is not there, None.

    Raises:
        ValueError: one is neither a count nor a mean.
    """
    return [  # without a call for each: of a hundred rows those took a third of the time
        None if not raw else _read_double(raw, 1)[0] if raw[0] == DOUBLE[0] else _decode_integer(raw) for raw in cells
    ]


def read(client: Any, view: View, entity_ids: Sequence[str]) -> list[list[float | None]]:
    """Return the latest values of these entities, in the view's order; unknown ones have none. One round trip."""
    return [decode_row(row) for row in exchange(client, [view.reading(one) for one in entity_ids])]


def write(client: Any, view: View, rows: Sequence[Row]) -> int:
    """Write rows that are newer than what the store holds, as Feast does; return how many were.

    One round trip; the store compares and writes a row as one, and `ROWS_A_SCRIPT` rows before it answers others. Of
    rows of one entity the newest is written.
    """
    newest: dict[str, Row] = {}
    for row in rows:
        if (known := newest.get(row[0])) is None or row[1] > known[1]:
            newest[row[0]] = row
    fresh = list(newest.values())
    scripts = []
    for start in range(0, len(fresh), ROWS_A_SCRIPT):
        some = fresh[start : start + ROWS_A_SCRIPT]
        said = [view.instant_field, *view.fields]
        for _, at, values in some:
            said += view.cells(at, values)
        scripts.append(("EVAL", WRITE_NEWER, len(some), *(view.key(row[0]) for row in some), *said))
    return sum(send(client, scripts))
