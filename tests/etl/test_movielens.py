"""MovieLens in its official layouts: what each row becomes, and why a row is refused."""

from collections import Counter
from datetime import UTC, datetime

import pytest

from recsys.schemas import event_id
from tests.worlds import etl_files as world


def test_ratings_of_the_1m_layout_become_interactions(land, tmp_path):
    landed = land(world.movielens_1m(tmp_path / "data" / "ml-1m").parent)
    rows = {(row["user_id"], row["item_id"]): row for row in landed.rows("interactions")}
    assert len(rows) == len(world.RATINGS) == landed.count().rows_read == landed.count().rows_landed
    assert rows["ml-1m:1", "movielens:1193"] == {
        "event_id": event_id("ml-1m", "ml-1m:1", "movielens:1193", "rate", 978300760000),
        "user_id": "ml-1m:1",
        "item_id": "movielens:1193",
        "rating": 5.0,
        "occurred_at": datetime(2000, 12, 31, 22, 12, 40, tzinfo=UTC),
        "domain": "movies",
        "event_type": "rate",
        "context": "{}",
        "source": "ml-1m",
        "landed_partition": "history",
    }
    assert rows["ml-1m:2", "movielens:1"]["rating"] == 0.5


@pytest.mark.parametrize(("suffix", "encoding"), [("", "latin-1"), (".gz", "latin-1"), (".bz2", "utf-8")])
def test_films_and_users_whatever_the_packing_and_the_encoding(land, tmp_path, suffix, encoding):
    folder = world.movielens_1m(tmp_path / "data" / "ml-1m", suffix=suffix)
    world.write(folder / f"movies.dat{suffix}", list(world.FILMS), encoding)
    landed = land(folder.parent)
    items = {row["item_id"]: row for row in landed.rows("items")}
    assert items["movielens:73"] == {
        "item_id": "movielens:73",
        "domain": "movies",
        "title": "Misérables, Les",
        "text": None,
        "categories": ["Drama", "Musical"],
        "creators": [],
        "price": None,
        "published_year": 1995,
        "attributes": "{}",
        "source": "ml-1m",
        "landed_partition": "history",
    }
    assert [row["user_id"] for row in landed.rows("users")] == ["ml-1m:1", "ml-1m:2"]
    assert landed.rows("users")[0]["attributes"] == '{"gender":"F","age":"1","occupation":"10","zip_code":"48067"}'


def test_csv_layout_with_quotes_carriage_returns_and_a_byte_order_mark(land, tmp_path):
    folder = tmp_path / "ml-latest-small"
    world.write(folder / "ratings.csv.gz", ["\ufeffuserId,movieId,rating,timestamp\r", '"1","31",2.5,1260759144\r'])
    titles = ["movieId,title,genres", '31,"American President, The ""Cut"" (1995)",Comedy|Drama']
    world.write(folder / "movies.csv", [*titles, "40,Solo,(no genres listed)"])
    landed = land(tmp_path)
    (rating,) = landed.rows("interactions")
    assert (rating["user_id"], rating["item_id"], rating["rating"]) == ("ml-latest-small:1", "movielens:31", 2.5)
    items = {row["item_id"]: row for row in landed.rows("items")}
    assert items["movielens:31"]["title"] == 'American President, The "Cut"'
    assert (items["movielens:40"]["categories"], items["movielens:40"]["published_year"]) == ([], None)


def test_100k_numbers_its_films_differently_and_keeps_them_apart(land, tmp_path):
    folder = tmp_path / "ml-100k"
    flags = ["0"] * 19
    flags[5] = flags[14] = "1"
    film = "2|Misérables, Les (1995)|01-Jan-1995||http://imdb/2|" + "|".join(flags)
    world.write(folder / "u.data", ["196\t2\t3\t881250949"])
    world.write(folder / "u.item", [film, "3|unknown||||" + "|".join(["1"] + ["0"] * 18)], "latin-1")
    world.write(folder / "u.user", ["196|49|M|writer|55105"])
    landed = land(tmp_path)
    assert landed.rows("interactions")[0]["item_id"] == "ml-100k:2"
    known, unknown = landed.rows("items")
    assert (known["title"], known["categories"], known["published_year"]) == (
        "Misérables, Les",
        ["Comedy", "Romance"],
        1995,
    )
    assert (unknown["title"], unknown["categories"], unknown["published_year"]) == ("unknown", [], None)


@pytest.mark.usefixtures("compiled")
def test_every_broken_row_is_refused_with_its_reason_and_nothing_else_is_lost(land, tmp_path):
    bad = [*world.BROKEN_RATINGS, *world.NOT_YET]
    lines = [*world.RATINGS, *bad, world.UNDECODABLE, world.LONG]
    folder = world.movielens_1m(tmp_path / "data" / "ml-1m", ratings=lines, films=[*world.FILMS, *world.BROKEN_FILMS])
    landed = land(folder.parent)
    expected = Counter(reason for reason in world.BROKEN_RATINGS.values() if reason)
    expected.update({"undecodable_text": 1, "record_too_long": 1})
    assert expected.total() >= 34
    counts = landed.count()
    assert counts.quarantine == dict(sorted(expected.items()))
    assert (counts.rows_read, counts.rows_landed) == (len(lines) - 1, len(world.RATINGS))
    assert counts.rows_outside_interval == len(world.NOT_YET)
    assert landed.count("items").quarantine == dict(sorted(Counter(world.BROKEN_FILMS.values()).items()))
    # of an event that comes three times the one with the most stars lands
    first = next(row for row in landed.rows("interactions") if row["item_id"] == "movielens:1193")
    assert first["rating"] == 5.0

    kept = {(row["table_name"], row["record"]): row["reason"] for row in landed.rows("quarantine")}
    unchanged = [line for line, reason in world.BROKEN_RATINGS.items() if reason and reason != "duplicate_event"]
    assert {line: kept["interactions", line] for line in unchanged} == {
        line: world.BROKEN_RATINGS[line] for line in unchanged
    }
    assert kept["interactions", "3::119�3::5::978300760"] == "undecodable_text"
    assert max(len(record.encode()) for _, record in kept) == 10_000


def test_a_header_that_comes_again_is_a_refused_row_and_the_first_is_none(land, tmp_path):
    header = "userId,movieId,rating,timestamp"
    world.write(
        tmp_path / "ml-25m" / "ratings.csv", [header, "1,31,2.5,1260759144", header, "2,31,4,1260759145", header]
    )
    world.write(tmp_path / "ml-25m" / "movies.csv", ["movieId,title,genres", "31,Film (1990),Drama"])
    counts = land(tmp_path).count()
    assert (counts.rows_read, counts.rows_landed, counts.quarantine) == (4, 2, {"header_again": 2})
    later = land(tmp_path, since="2010-01-01", as_of="2011-01-01").count()
    assert (later.rows_read, later.rows_outside_interval) == (4, 4)
