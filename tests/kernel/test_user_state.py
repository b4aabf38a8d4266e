"""A user's features as the online store keeps them: nothing is lost, and whole numbers are short."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from recsys import user_state


class Kept:
    """Takes what would go to the store."""

    def hset(self, key, mapping):
        self.mapping = mapping


def kept(value: float) -> str:
    client = Kept()
    user_state.set_features(client, "u:ann", {"feature": value})
    return client.mapping["feature"]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_value_comes_back_as_it_was(value):
    assert float(kept(value)) == value


@given(st.integers(-(2**53) + 1, 2**53 - 1))
def test_a_whole_number_is_kept_as_one(value):
    assert kept(float(value)) == str(value)


def test_what_is_no_count_keeps_all_its_digits():
    assert kept(3.7) == "3.7"
    assert struct.pack("<d", float(kept(1 / 3))) == struct.pack("<d", 1 / 3)
    assert kept(1e300) == "1e+300"
