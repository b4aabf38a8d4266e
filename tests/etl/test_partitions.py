"""A landing is a function of the files and the interval: every row has one home, and landing again changes nothing."""

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.worlds import etl_files as world

FUTURE = 1592265600  # landing + 1 day, the last second that is believed
END = 1590969600  # AS_OF

numbers = st.sampled_from(["", " ", "1", "2", "07", "7", "x", "-4", "2.5", "5", "9", "nan"])
instants = st.one_of(
    st.sampled_from(["", "soon", "-1", str(END - 1), str(END), str(FUTURE), str(FUTURE + 1)]),
    st.integers(946684800, 2 * 10**9).map(str),
)
rows = st.tuples(numbers, numbers, numbers, instants).map("::".join)
texts = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\u2028\u2029\x85"), max_size=30)
lines = st.lists(st.one_of(rows, rows, rows, texts), max_size=40)


def verdict(line: str, seen: set[tuple]) -> str:
    """What must become of a line of ratings.dat: a second opinion, in plain Python."""
    fields = line.split("::")
    if len(fields) != 4:
        return "broken_row"
    user, film, stars, instant = fields
    seconds = int(instant) if instant.isdigit() else None
    reasons = [
        "empty_id" if not text.strip(" ") else None if text.strip().isdigit() else "invalid_id" for text in (user, film)
    ]
    stars = float(stars) if stars.strip() and stars not in ("x", "nan") else None
    reasons.append("not_a_number" if stars is None else None if 0.5 <= stars <= 5 else "rating_out_of_range")
    reasons.append("occurred_at_unparsable" if seconds is None else None)
    future = seconds is not None and seconds > FUTURE
    if seconds is not None and not future and seconds >= END:
        return "outside"
    reasons.append("occurred_at_in_the_future" if future else None)
    refused = next(filter(None, reasons), None)
    if refused:
        return refused
    key = int(user), int(film), seconds
    if key in seen:
        return "duplicate_event"
    seen.add(key)
    return "landed"


@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=lines)
def test_rows_in_are_rows_landed_and_refused_and_outside(land, tmp_path, lines):
    lines = [world.RATINGS[-1], *lines]
    landed = land(world.movielens_1m(tmp_path / "data" / "ml-1m", ratings=lines).parent).count()
    seen: set[tuple] = set()
    expected = Counter(verdict(line, seen) for line in lines if line.strip(" "))
    assert landed.rows_read == expected.total()
    assert landed.rows_landed == expected.pop("landed")
    assert landed.rows_outside_interval == expected.pop("outside", 0)
    assert landed.quarantine == dict(sorted(expected.items()))


def test_landing_twice_gives_the_same_rows(land, tmp_path):
    lines = [*world.RATINGS, *world.BROKEN_RATINGS]
    data = world.movielens_1m(tmp_path / "data" / "ml-1m", ratings=lines).parent
    tables = ("interactions", "items", "users", "quarantine")
    first = {table: land(data).rows(table) for table in tables}
    world.movielens_1m(tmp_path / "data" / "ml-1m", ratings=reversed(lines))
    again = land(data)
    assert all(first.values())
    assert {table: again.rows(table) for table in tables} == first
    assert not (again.lake / ".landing").exists() or not list((again.lake / ".landing").glob("*"))


def test_partitions_by_day_tile_the_file_and_carry_the_items_that_they_name(land, tmp_path):
    data = world.movielens_1m(tmp_path / "data" / "ml-1m", ratings=[*world.RATINGS, *world.BROKEN_RATINGS]).parent
    whole = land(data, lake="whole")
    history = land(data, as_of="2020-03-01", lake="cut")
    day = land(data, since="2020-03-01", as_of="2020-03-02", lake="cut")
    assert (history.count().rows_landed, day.count().rows_landed) == (4, 1)
    assert day.count().quarantine == {}
    assert [row["item_id"] for row in day.rows("items") if row["landed_partition"] == "2020-03-01"] == ["movielens:1"]
    cut = Counter(row["event_id"] for row in day.rows("interactions"))
    assert cut == Counter(row["event_id"] for row in whole.rows("interactions"))
    assert history.count().quarantine == whole.count().quarantine


def test_a_source_that_is_gone_leaves_the_partition(land, tmp_path):
    world.movielens_1m(tmp_path / "data" / "ml-1m")
    assert {row["source"] for row in land(tmp_path / "data").rows("interactions")} == {"ml-1m"}
    (tmp_path / "data" / "ml-1m").rename(tmp_path / "data" / "ml-10m")
    assert {row["source"] for row in land(tmp_path / "data").rows("interactions")} == {"ml-10m"}
