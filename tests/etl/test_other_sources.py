"""Amazon, goodbooks-10k and Reddit: small files in the official formats."""

import json
from datetime import UTC, datetime

import pytest

from recsys.errors import UnusableInput
from tests.worlds.etl_files import write

REVIEW = {"reviewerID": "A1", "asin": "B01", "overall": 5.0, "unixReviewTime": 1472688000, "verified": True}


def lines_of(*records: dict) -> list[str]:
    return [json.dumps(record) for record in records]


def test_amazon_reviews_and_products_are_one_space_over_all_files(land, tmp_path):
    nested = {**REVIEW, "reviewText": {"a": [None, 1]}, "overall": {"stars": 5}}
    broken = [
        *lines_of(REVIEW, {**REVIEW, "overall": 6}, {**REVIEW, "overall": None}, {**REVIEW, "asin": ""}, nested),
        *lines_of({**REVIEW, "reviewerID": "A1\u0000"}, {**REVIEW, "unixReviewTime": "09 1, 2016"}),
        '{"reviewerID": "A1", "asin": ',
        "[1, 2]",
        "null",
    ]
    write(tmp_path / "a" / "Gift_Cards_5.json.gz", [*lines_of(REVIEW, {**REVIEW, "asin": "B02"}), *broken])
    write(tmp_path / "b" / "reviews_Toys_5.json", lines_of({**REVIEW, "asin": "B03", "verified": None}))
    described = {"asin": "B01", "title": "A <b>card</b>", "brand": "Ama", "description": ["One.", "Two."]}
    priced = {**described, "category": ["Gifts", "Gifts", "</span></span>"], "price": "$1,012.99"}
    older = "{'asin': 'B02', 'title': 'Old', 'categories': [['Toys', 'Dolls'], ['Toys']], 'price': 3.5}"
    strange = lines_of({"asin": "B03", "title": "T", "price": "-1"}, {"asin": "B04", "title": ""}, priced)
    write(tmp_path / "a" / "meta_Gift_Cards.json", [*lines_of(priced), older, *strange])
    landed = land(tmp_path, "products")
    assert landed.count().quarantine == {
        "broken_row": 3,
        "duplicate_event": 1,
        "empty_id": 1,
        "invalid_id": 1,
        "not_a_number": 2,
        "occurred_at_unparsable": 1,
        "rating_out_of_range": 1,
    }
    assert {(row["item_id"], row["context"]) for row in landed.rows("interactions")} == {
        ("amazon:B01", '{"verified":"true"}'),
        ("amazon:B02", '{"verified":"true"}'),
        ("amazon:B03", "{}"),
    }
    assert landed.count("items").quarantine == {"duplicate_item": 1, "empty_title": 1, "price_out_of_range": 1}
    first, second = landed.rows("items")
    assert (first["price"], first["categories"], first["creators"]) == (1012.99, ["Gifts"], ["Ama"])
    assert (first["title"], first["text"]) == ("A <b>card</b>", "One.\nTwo.")
    assert (second["title"], second["categories"], second["price"]) == ("Old", ["Toys", "Dolls"], 3.5)


@pytest.mark.parametrize(
    ("header", "row"), [("user_id,book_id,rating", "7,9,4"), ("book_id,user_id,rating", "9,7,4")], ids=["v2", "v1"]
)
def test_goodbooks_rows_say_that_their_instant_is_unknown(land, tmp_path, header, row):
    write(tmp_path / "ratings.csv", [header, row, row, "x,9,4"])
    write(tmp_path / "to_read.csv.gz", ["user_id,book_id", "7,9", "7,8"])
    books = ["book_id,authors,original_publication_year,title", '9,"A. Author, B. Bee",-750.0,"One, Two"']
    write(tmp_path / "books.csv", [*books, "8,,,Untitled"])
    landed = land(tmp_path, "books")
    assert landed.count().quarantine == {"duplicate_event": 1, "invalid_id": 1}
    assert landed.count().rows_landed == 3
    events = {(row["item_id"], row["event_type"]): row for row in landed.rows("interactions")}
    rated = events["goodbooks:9", "rate"]
    assert (rated["user_id"], rated["rating"], rated["context"]) == ("goodbooks:7", 4.0, '{"instant":"unknown"}')
    assert rated["occurred_at"] == datetime(2017, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert events["goodbooks:9", "click"]["rating"] is None
    first = next(row for row in landed.rows("items") if row["item_id"] == "goodbooks:9")
    assert (first["title"], first["creators"], first["published_year"]) == ("One, Two", ["A. Author", "B. Bee"], -750)


def test_reddit_comments_become_interactions_with_subreddits(land, tmp_path):
    comment = {
        "author": "ann",
        "subreddit": "de",
        "created_utc": 1136074029,
        "id": "c1",
        "parent_id": "t3_1",
        "link_id": "t3_1",
    }
    gone, text = {**comment, "author": "[deleted]"}, {**comment, "created_utc": "1136074030", "subreddit": "reddit.com"}
    write(tmp_path / "RC_2006-01.bz2", lines_of(comment, gone, text, {**comment, "author": None}))
    landed = land(tmp_path, "social")
    assert landed.count().quarantine == {"author_deleted": 1, "empty_id": 1}
    events = landed.rows("interactions")
    assert {(row["user_id"], row["item_id"], row["rating"]) for row in events} == {
        ("reddit:ann", "reddit:de", None),
        ("reddit:ann", "reddit:reddit.com", None),
    }
    assert json.loads(events[0]["context"]) == {
        "action": "comment",
        "comment_id": "c1",
        "parent_id": "t3_1",
        "link_id": "t3_1",
    }
    assert [(row["item_id"], row["title"]) for row in landed.rows("items")] == [
        ("reddit:de", "r/de"),
        ("reddit:reddit.com", "r/reddit.com"),
    ]


def test_a_dump_in_a_compression_that_is_not_read_is_named(land, tmp_path):
    write(tmp_path / "RC_2020-01.xz", ["{}"])
    with pytest.raises(UnusableInput, match=r"RC_2020-01\.xz"):
        land(tmp_path, "social")
