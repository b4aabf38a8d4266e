"""What the charts decide by themselves."""

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from dashboard.charts import room_for


def test_the_first_of_a_crowd_keeps_its_name():
    names = pd.Series(["a", "b", "c", "d"], index=[7, 3, 5, 1])
    x, y = pd.Series([0.0, 0.05, 1, 0.02], names.index), pd.Series([0.0, 0.01, 1, 0.5], names.index)
    assert room_for(names, x, y).to_dict() == {7: "a", 3: "", 5: "c", 1: "d"}


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=12))
def test_somebody_is_always_named_and_no_two_lie_on_each_other(points):
    x, y = (pd.Series(values) for values in zip(*points, strict=True))
    labels = room_for(pd.Series([f"n{place}" for place in range(len(points))]), x, y)
    named = labels[labels != ""].index
    assert 0 in named
    assert len({points[place] for place in named}) == len(named)
