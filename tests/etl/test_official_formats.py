"""What the newer and richer official files become: one landing a domain, everything asked of it."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from etl import zstd
from recsys.errors import UnusableInput
from tests.etl.conftest import Land
from tests.worlds.etl_files import write

AUTHORS = [{"author_id": "1", "name": "Ann Author"}, {"author_id": "2", "name": "Ben Bee"}]
SHELF = {"user_id": "aa11", "is_read": False, "rating": 0, "date_updated": "Mon Oct 09 08:55:59 -0700 2017"}
COMMENT = {"author": "ann", "subreddit": "de", "created_utc": 1136074029, "id": "c1", "parent_id": "t3_s1"}


def lines_of(*records: dict) -> list[str]:
    return [json.dumps(record) for record in records]


def pack_zst(path: Path, lines: list[str], wide: bool) -> Path:
    """Write a Zstandard file; a wide one says, as Pushshift's do, that it needs a window of 2 GiB."""
    with pa.CompressedOutputStream(str(path), "zstd") as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
    if wide:
        content = bytearray(path.read_bytes())
        assert not content[4] & zstd.SINGLE_SEGMENT
        content[5] = 21 << 3
        path.write_bytes(content)
    return path


def test_movielens_tags_links_and_genome_describe_the_films(land: Land, tmp_path):
    folder = tmp_path / "ml-25m"
    write(folder / "ratings.csv", ["userId,movieId,rating,timestamp", "1,1,4,978300760"])
    write(folder / "movies.csv", ["movieId,title,genres", "1,Heat (1995),Crime", "2,Plain (1990),Drama"])
    tags = ["userId,movieId,tag,timestamp", "1,1,Heist,978300760", "2,1,heist,978300761", "3,1,slow,978300762"]
    write(
        folder / "tags.csv.gz", [*tags, "3,1,tomorrow,1591000000", "3,9,of no film,978300762"]
    )  # the fourth: after as_of
    write(folder / "links.csv", ["movieId,imdbId,tmdbId", "1,0113277,949", "2,0000002,"])
    write(folder / "genome-tags.csv", ["tagId,tag", "1,tense", "2,funny", "3,slow"])
    scores = ["movieId,tagId,relevance", "1,1,0.97", "1,2,0.01", "1,3,0.6", "1,7,0.9", "1,1,7"]
    write(folder / "genome-scores.csv", scores)
    landed = land(tmp_path)
    heat, plain = landed.rows("items")
    assert heat["text"] == "tense, slow, heist"
    assert json.loads(heat["attributes"]) == {"imdb_id": "0113277", "tmdb_id": "949"}
    assert (plain["text"], json.loads(plain["attributes"])) == (None, {"imdb_id": "0000002"})
    details = landed.count("details")
    assert (details.rows_read, details.rows_landed, details.rows_outside_interval) == (12, 9, 1)
    assert details.quarantine == {"unknown_code": 1, "weight_out_of_range": 1}


def test_amazon_of_2023_and_2018_are_one_space(land: Land, tmp_path):
    review = {"user_id": "AE1", "asin": "B0V", "parent_asin": "B01", "rating": 4.0, "verified_purchase": True}
    write(tmp_path / "All_Beauty.jsonl.gz", lines_of({**review, "timestamp": 1588687728923}))
    old = {"reviewerID": "A1", "asin": "B01", "overall": 5.0, "unixReviewTime": 1472688000}
    write(tmp_path / "All_Beauty_5.json", lines_of(old))
    family = {
        "parent_asin": "B01", "title": "Brush", "store": "Acme", "price": 9.5, "categories": ["Beauty", "Hair"],
        "description": ["Soft."], "features": ["Washable", "Light"],
        "details": {"Brand": "Acme", "Date First Available": "July 25, 2018"},
    }  # fmt: skip
    book = {**family, "parent_asin": "B02", "price": "from 14.99", "author": {"name": "Ann"}, "details": {}}
    write(tmp_path / "meta_All_Beauty.jsonl", lines_of(family, book))
    write(tmp_path / "items.jsonl", ["{}"])  # of no category: nobody's file
    landed = land(tmp_path, "products")
    events = {row["user_id"]: row for row in landed.rows("interactions")}
    assert {row["item_id"] for row in events.values()} == {"amazon:B01"}
    assert events["amazon:AE1"]["occurred_at"] == datetime(2020, 5, 5, 14, 8, 48, 923000, tzinfo=UTC)
    assert events["amazon:AE1"]["context"] == '{"verified":"true"}'
    first, second = landed.rows("items")
    assert first | {"attributes": "", "source": "", "landed_partition": ""} == {
        "item_id": "amazon:B01", "domain": "products", "title": "Brush", "text": "Soft.\nWashable\nLight",
        "categories": ["Beauty", "Hair"], "creators": ["Acme"], "price": 9.5, "published_year": 2018,
        "attributes": "", "source": "", "landed_partition": "",
    }  # fmt: skip
    assert (second["price"], second["creators"], second["published_year"]) == (None, ["Ann"], None)


def test_goodreads_tells_stars_reading_and_marking_apart(land: Land, tmp_path):
    folder = tmp_path / "goodreads"
    kinds = [
        {**SHELF, "book_id": "1", "rating": 5, "is_read": True}, {**SHELF, "book_id": "2", "is_read": True},
        {**SHELF, "book_id": "3"}, {**SHELF, "book_id": "4", "date_updated": "", "date_added": SHELF["date_updated"]},
    ]  # fmt: skip
    write(folder / "goodreads_interactions_dedup.json.gz", lines_of(*kinds))
    reviews = [{**SHELF, "book_id": "1", "rating": 5, "review_id": "r"}, {**SHELF, "book_id": "9", "review_id": "q"}]
    write(folder / "goodreads_reviews_dedup.json.gz", lines_of(*reviews))
    shelves = [{"count": "9", "name": name} for name in ("to-read", "poetry", "read-in-2015", "classics")]
    book = {
        "book_id": "1", "title": "One", "description": "Words.", "publication_year": "1999", "isbn13": "97",
        "authors": [{"author_id": "2", "role": ""}, {"author_id": "1"}, {"author_id": "7"}], "popular_shelves": shelves,
    }  # fmt: skip
    write(folder / "goodreads_books.json.gz", lines_of(book, {**book, "book_id": "2", "authors": []}))
    write(folder / "goodreads_book_authors.json.gz", lines_of(*AUTHORS, {**AUTHORS[0], "name": "Zoe Twice"}))
    genres = [{"book_id": "2", "genres": {"poetry": 3, "fiction, prose": 12}}, {"book_id": "1", "genres": {}}]
    write(folder / "goodreads_book_genres_initial.json.gz", lines_of(*genres))

    landed = land(tmp_path, "books")
    events = {row["item_id"]: row for row in landed.rows("interactions")}
    found = {
        item: (row["event_type"], row["rating"], json.loads(row["context"])["action"]) for item, row in events.items()
    }
    assert found == {
        "goodreads:1": ("rate", 5.0, "rating"),  # and the review is the same event
        "goodreads:2": ("view", None, "read"),
        "goodreads:3": ("click", None, "to-read"),
        "goodreads:4": ("click", None, "to-read"),
        "goodreads:9": ("share", None, "review"),
    }
    assert {row["occurred_at"] for row in events.values()} == {datetime(2017, 10, 9, 15, 55, 59, tzinfo=UTC)}
    assert landed.count().quarantine == {"duplicate_event": 1}
    one, two = landed.rows("items")
    assert (one["creators"], one["categories"]) == (["Ben Bee", "Ann Author"], ["poetry", "classics"])
    assert (two["creators"], two["categories"]) == ([], ["fiction, prose", "poetry"])
    assert (one["text"], one["published_year"], one["attributes"]) == ("Words.", 1999, '{"isbn13":"97"}')


def test_goodreads_csv_gets_its_ids_from_the_maps_and_goodbooks_its_shelves(land: Land, tmp_path):
    csv, ten = tmp_path / "csv", tmp_path / "goodbooks-10k"
    rows = ["user_id,book_id,is_read,rating,is_reviewed", "0,948,1,5,0", "0,949,0,0,0", "7,948,1,5,0"]
    write(csv / "goodreads_interactions.csv", rows)
    write(csv / "user_id_map.csv", ["user_id_csv,user_id", "0,8842281e"])
    write(csv / "book_id_map.csv", ["book_id_csv,book_id", "948,24375664", "949,7"])
    write(ten / "ratings.csv", ["user_id,book_id,rating", "7,9,4"])
    write(ten / "books.csv", ["book_id,goodreads_book_id,authors,original_publication_year,title", "9,77,A,2008,T"])
    write(ten / "tags.csv", ["tag_id,tag_name", "1,fantasy", "2,to-read", "3,dragons"])
    write(ten / "book_tags.csv", ["goodreads_book_id,tag_id,count", "77,1,50", "77,2,900", "77,3,60"])
    landed = land(tmp_path, "books")
    of_maps = [row for row in landed.rows("interactions") if row["source"] == "goodreads"]
    assert {(row["user_id"], row["item_id"], row["rating"]) for row in of_maps} == {
        ("goodreads:8842281e", "goodreads:24375664", 5.0),
        ("goodreads:8842281e", "goodreads:7", None),
    }
    assert {json.loads(row["context"])["instant"] for row in of_maps} == {"unknown"}
    (unmapped,) = [count for count in landed.counts if (count.source, count.table) == ("goodreads", "interactions")]
    assert unmapped.quarantine == {"unknown_code": 1}
    assert landed.rows("items")[0]["categories"] == ["dragons", "fantasy"]


def test_reddit_replies_find_their_parent_across_files_and_packings(land: Land, tmp_path):
    first = [COMMENT, {**COMMENT, "id": "c2", "author": "bob", "parent_id": "t1_c1"}]
    later = [
        {**COMMENT, "id": "c3", "author": "cyd", "parent_id": "t1_c2", "created_utc": 1590000000},
        {**COMMENT, "id": "c4", "parent_id": "t1_unknown", "created_utc": 1590000001},
    ]
    post = {"author": "dan", "subreddit": "de", "created_utc": 1136074000, "id": "s1", "title": "Hello"}
    pack_zst(tmp_path / "RC_2006-01.zst", lines_of(*first), wide=True)
    pack_zst(tmp_path / "RC_2020-05.zst", lines_of(*later), wide=False)
    write(tmp_path / "RS_2006-01.gz", lines_of(post))
    history = land(tmp_path, "social")
    contexts = [json.loads(row["context"]) for row in history.rows("interactions")]
    known = {c.get("comment_id", c.get("submission_id")): (c["action"], c.get("parent_user_id")) for c in contexts}
    assert known == {
        "s1": ("submission", None),
        "c1": ("comment", "reddit:dan"),
        "c2": ("reply", "reddit:ann"),
        "c3": ("reply", "reddit:bob"),
        "c4": ("reply", None),
    }
    assert history.count().rows_landed == 5
    day = land(tmp_path, "social", since="2020-05-20", as_of="2020-05-21", lake="day")
    (reply,) = [row for row in day.rows("interactions") if "c3" in row["context"]]
    assert json.loads(reply["context"])["parent_user_id"] == "reddit:bob"  # of a month that is outside the interval


@pytest.mark.parametrize("wide", [True, False])
def test_a_dump_that_is_cut_is_named(land: Land, tmp_path, wide):
    many = lines_of(*({**COMMENT, "id": f"c{number * 7919}"} for number in range(20_000)))
    packed = pack_zst(tmp_path / "RC_2006-01.zst", many, wide)
    packed.write_bytes(packed.read_bytes()[: packed.stat().st_size * 9 // 10])
    with pytest.raises(UnusableInput, match=r"RC_2006-01\.zst"):
        land(tmp_path, "social")
