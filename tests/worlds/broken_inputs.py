"""Broken inputs of every source, as they are met in the wild, and what must become of each of their lines.

Each file is one landing's; a line carries the name of its fault, its bytes, and the reason for which it is refused, or
`LANDS` where it is only strange. Files that cannot be used at all are in tests/worlds/unusable_files.py.
"""

import bz2
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LANDS = "lands"
MEGABYTE = 1_000_000
FUTURE_SECONDS = 1592265601  # one second more than a day after etl_files.NOW
SECONDS = 978300760


@dataclass(frozen=True)
class Line:
    """One line of a raw file; `reason` says why it is refused."""

    fault: str
    content: bytes
    reason: str


@dataclass(frozen=True)
class BrokenFile:
    """A file with good and broken lines; `preamble` is what must stand before them and is no row."""

    table: str
    name: str
    lines: tuple[Line, ...]
    preamble: bytes = b""
    ending: bytes = b"\n"
    unfinished: bool = False  # the last line has no end

    @property
    def content(self) -> bytes:
        body = self.ending.join(line.content for line in self.lines)
        return self.preamble + body + (b"" if self.unfinished else self.ending)

    def write(self, root: Path) -> Path:
        path = root / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        pack = {".gz": lambda data: gzip.compress(data, mtime=0), ".bz2": bz2.compress}.get(path.suffix, bytes)
        path.write_bytes(pack(self.content))
        return path


def _lines(*rows: tuple[str, str | bytes | dict[str, Any], str]) -> tuple[Line, ...]:
    def encoded(content: str | bytes | dict[str, Any]) -> bytes:
        if isinstance(content, dict):
            content = json.dumps(content)
        return content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")

    return tuple(Line(fault, encoded(content), reason) for fault, content, reason in rows)


# movies: MovieLens in its CSV layout, with Windows' line ends and a byte order mark -----------------------------------

RATINGS_HEADER = b"userId,movieId,rating,timestamp"
MOVIES = (
    BrokenFile(
        "interactions", "movies/ml-25m/ratings.csv",
        _lines(
            ("a good row", f"1,1,4.5,{SECONDS}", LANDS),
            ("the header again", RATINGS_HEADER, "header_again"),
            ("missing column", "2,1,4.5", "broken_row"),
            ("extra column", f"2,1,4.5,{SECONDS},9", "broken_row"),
            ("forty thousand columns", "2" + "," * 40_000, "broken_row"),
            ("swapped columns", f"2,1,{SECONDS},4.5", "rating_out_of_range"),
            ("semicolons", f"2;1;4.5;{SECONDS}", "broken_row"),
            ("an open quote", f'"2,1,4.5,{SECONDS}', "broken_row"),
            ("rating inf", f"2,1,inf,{SECONDS}", "not_a_number"),
            ("rating nan", f"2,1,NaN,{SECONDS}", "not_a_number"),
            ("rating 1e999", f"2,1,1e999,{SECONDS}", "rating_out_of_range"),
            ("rating out of range", f"2,1,11,{SECONDS}", "rating_out_of_range"),
            ("negative rating", f"2,1,-0.5,{SECONDS}", "rating_out_of_range"),
            ("decimal comma", f'2,1,"4,5",{SECONDS}', "not_a_number"),
            ("hexadecimal rating", f"2,1,0x1p1,{SECONDS}", "not_a_number"),
            ("instant in milliseconds", f"2,1,4.5,{SECONDS}000", "occurred_at_in_the_future"),
            ("instant in the future", f"2,1,4.5,{FUTURE_SECONDS}", "occurred_at_in_the_future"),
            ("instant of 1970", "2,1,4.5,5", "occurred_at_too_early"),
            ("instant as a date", "2,1,4.5,2000-12-31", "occurred_at_unparsable"),
            ("instant beyond a long", "2,1,4.5,99999999999999999999", "occurred_at_unparsable"),
            ("a NUL byte in an id", f"2\0,1,4.5,{SECONDS}", "invalid_id"),
            ("SQL in an id", f"\"2'; drop table raw.users; --\",1,4.5,{SECONDS}", "invalid_id"),
            ("no id", f",1,4.5,{SECONDS}", "empty_id"),
            ("full-width digits", f"２,1,4.5,{SECONDS}", "invalid_id"),
            ("a lone surrogate", f"\ud800,1,4.5,{SECONDS}", "undecodable_text"),
            ("Latin-1", f"é,1,4.5,{SECONDS}".encode("latin-1"), "undecodable_text"),
            ("ten megabytes in a field", f'2,1,4.5,"{"9" * 10 * MEGABYTE}"', "record_too_long"),
            ("only blanks and commas", " , , , ", "empty_id"),
            ("the same event", f"1,1,4.5,{SECONDS}", "duplicate_event"),
            ("the same event in other words", f" 01 ,1,4.50,{SECONDS}", "duplicate_event"),
            ("a line separator of Unicode", f"2,1\u2028,4.5,{SECONDS}", "invalid_id"),
            ("half a line at the end", "2,1,4.", "broken_row"),
        ),
        preamble=b"\xef\xbb\xbf" + RATINGS_HEADER + b"\r\n", ending=b"\r\n", unfinished=True,
    ),
    BrokenFile(
        "items", "movies/ml-25m/movies.csv.gz",
        _lines(
            ("a good row", "1,Heat (1995),Action|Crime", LANDS),
            ("HTML in a title", "2,<script>alert(1)</script> (1999),Drama", LANDS),
            ("a formula in a title", '3,"=cmd|\' /C calc\'!A0",Drama', LANDS),
            ("SQL in a title", '4,"Robert\'); drop table raw.items; --",Drama', LANDS),
            ("quotes and commas in a title", '5,"A ""B"", C (2000)",(no genres listed)', LANDS),
            ("a NUL byte in a title", "6,He\0at,Drama", LANDS),
            ("characters of other planes", "7,\U0001f3ac 映画 עברית\u202e,Drama", LANDS),
            ("the same id", "1,Heat again,Action", "duplicate_item"),
            ("no title", "8,,Drama", "empty_title"),
            ("only a year", "9,(1995),Drama", "empty_title"),
            ("a title of NUL bytes", "10,\0\0,Drama", "empty_title"),
            ("a title of two thousand letters", f"11,{'x' * 2000},Drama", "title_too_long"),
            ("an id that is no number", "tt0113277,Heat,Drama", "invalid_id"),
            ("a line break in a title", '12,"He', "broken_row"),
            ("its other half", 'at",Drama', "broken_row"),
        ),
        preamble=b"movieId,title,genres\n",
    ),
    BrokenFile(
        "details", "movies/ml-25m/tags.csv",
        _lines(
            ("a good row", f"1,1,heist,{SECONDS}", LANDS),
            ("an empty tag", f"1,1,,{SECONDS}", "empty_value"),
            ("a comma without quotes", f"1,1,slow, long,{SECONDS}", "broken_row"),
            ("no instant", "1,1,heist,", "occurred_at_unparsable"),
            ("said twice", f"1,1,Heist,{SECONDS}", "duplicate_detail"),
        ),
        preamble=b"userId,movieId,tag,timestamp\n",
    ),
)  # fmt: skip

# products: Amazon of 2018, 2023, and 2014's metadata ------------------------------------------------------------------

REVIEW = {"reviewerID": "A1", "asin": "B01", "overall": 5.0, "unixReviewTime": 1472688000}
REVIEW_2023 = {"user_id": "AE1", "parent_asin": "B01", "rating": 4.0, "timestamp": 1588687728923}
PRODUCT = {"asin": "B01", "title": "Card", "price": "$9.99"}
FAMILY = {"parent_asin": "B21", "title": "Piano", "price": 99.5, "categories": ["Music"], "store": "Keys"}
PRODUCTS = (
    BrokenFile(
        "interactions", "products/Gift_Cards_5.json.gz",
        _lines(
            ("a good row", REVIEW, LANDS),
            ("an array instead of an object", "[1, 2]", "broken_row"),
            ("a number instead of an object", "5", "broken_row"),
            ("null instead of an object", "null", "broken_row"),
            ("half an object", '{"reviewerID": "A2", "asin": ', "broken_row"),
            ("a comma too many", '{"reviewerID": "A2", "asin": "B01",}', "broken_row"),
            ("a comma behind the object", json.dumps({**REVIEW, "reviewerID": "A3"}) + ",", LANDS),
            ("deep JSON", '{"reviewText": ' + "[" * 5000 + "]" * 5000 + "}", "broken_row"),
            ("a number of five thousand digits", '{"overall": ' + "9" * 5000 + "}", "broken_row"),
            ("nested nulls", {**REVIEW, "reviewerID": "A4", "overall": {"stars": [None, {"a": None}]}}, "not_a_number"),
            ("an array for an id", {**REVIEW, "reviewerID": ["A1"]}, "invalid_id"),
            ("an id with a line break", {**REVIEW, "reviewerID": "A1\n"}, "invalid_id"),
            ("an id with a NUL character", {**REVIEW, "reviewerID": "A1\0"}, "invalid_id"),
            ("a lone surrogate in an id", '{"reviewerID": "\\ud800", "asin": "B01"}', "invalid_id"),
            ("an id of a thousand letters", {**REVIEW, "reviewerID": "A" * 1000}, "invalid_id"),
            ("null for an id", {**REVIEW, "reviewerID": None}, "empty_id"),
            ("no id", {"asin": "B01", "overall": 5.0}, "empty_id"),
            ("rating NaN", '{"reviewerID": "A5", "asin": "B01", "overall": NaN}', "not_a_number"),
            ("rating Infinity", '{"reviewerID": "A5", "asin": "B01", "overall": Infinity}', "not_a_number"),
            ("six stars", {**REVIEW, "overall": 6}, "rating_out_of_range"),
            ("instant as text", {**REVIEW, "unixReviewTime": "09 1, 2016"}, "occurred_at_unparsable"),
            ("instant in milliseconds", {**REVIEW, "unixReviewTime": 1472688000000}, "occurred_at_in_the_future"),
            ("twice the same member", '{"reviewerID": "A1", "reviewerID": "A6", "asin": "B01", "overall": 5, '
             '"unixReviewTime": 1472688000}', LANDS),
            ("two objects on a line", json.dumps({**REVIEW, "reviewerID": "A7"}) + json.dumps(REVIEW), LANDS),
            ("ten megabytes in a field", {**REVIEW, "reviewText": "x" * 10 * MEGABYTE}, "record_too_long"),
            ("wrong encoding", '{"reviewerID": "Zoë"}'.encode("latin-1"), "undecodable_text"),
            ("the same event", {**REVIEW, "overall": 4.0}, "duplicate_event"),
            ("a CSV line among JSON", "A1,B01,5.0,1472688000", "broken_row"),
        ),
    ),
    BrokenFile(
        "interactions", "products/All_Beauty.jsonl",
        _lines(
            ("a good row", REVIEW_2023, LANDS),
            ("instant in seconds", {**REVIEW_2023, "user_id": "AE2", "timestamp": 1588687728}, "occurred_at_too_early"),
            ("half a line at the end", '{"user_id": "AE3", "par', "broken_row"),
        ),
        preamble=b"\xef\xbb\xbf", ending=b"\r\n", unfinished=True,
    ),
    BrokenFile(
        "items", "products/meta_Gift_Cards.json",
        _lines(
            ("a good row", PRODUCT, LANDS),
            ("a Python literal", "{'asin': 'B02', 'title': 'It\\'s \"old\"', 'price': 3.5}", LANDS),
            ("a Python literal with a quote of the other kind", "{'asin': 'B03', 'title': \"It's\"}", LANDS),
            ("a Python literal with None", "{'asin': 'B04', 'title': None}", "python_literal"),
            ("a Python literal with an escape", "{'asin': 'B05', 'title': 'Caf\\xe9'}", "python_literal"),
            ("a negative price", {**PRODUCT, "asin": "B06", "price": "-$4"}, LANDS),
            ("a price below zero", {**PRODUCT, "asin": "B07", "price": "-4.00"}, "price_out_of_range"),
            ("a price without bounds", {**PRODUCT, "asin": "B08", "price": "9" * 400}, "price_out_of_range"),
            ("price inf", {**PRODUCT, "asin": "B09", "price": "inf"}, LANDS),
            ("a page for a price", {**PRODUCT, "asin": "B10", "price": ".a-section {margin: 0}"}, LANDS),
            ("HTML in a title", {**PRODUCT, "asin": "B11", "title": "<b onclick=x>&amp;</b>"}, LANDS),
            ("NUL characters in lists", {**PRODUCT, "asin": "B12", "category": ["a\0", "\0", None]}, LANDS),
            ("a lone surrogate in a title", '{"asin": "B13", "title": "a\\udc00b"}', LANDS),
            ("an object for a category", {**PRODUCT, "asin": "B14", "category": {"a": 1}}, LANDS),
            ("the same id", {**PRODUCT, "title": "Card again"}, "duplicate_item"),
            ("no title", {"asin": "B15"}, "empty_title"),
        ),
    ),
    BrokenFile(
        "items", "products/meta_All_Beauty.jsonl.gz",
        _lines(
            ("a good row", FAMILY, LANDS),
            ("null for everything", {**dict.fromkeys(FAMILY), "parent_asin": "B22", "title": "T"}, LANDS),
            ("a negative price", {**FAMILY, "parent_asin": "B23", "price": -1}, "price_out_of_range"),
            ("no id", {"title": "Nobody's"}, "empty_id"),
        ),
    ),
)  # fmt: skip

# books: Goodreads and goodbooks-10k -----------------------------------------------------------------------------------

SHELVED = {
    "user_id": "8842281e", "book_id": "24375664", "is_read": True, "rating": 5,
    "date_added": "Fri Aug 25 13:55:02 -0700 2017", "date_updated": "Mon Oct 09 08:55:59 -0700 2017",
}  # fmt: skip
BOOK = {"book_id": "24375664", "title": "The Thing", "publication_year": "2015"}
BOOKS = (
    BrokenFile(
        "interactions", "books/goodreads/goodreads_interactions_poetry.json.gz",
        _lines(
            ("a good row", SHELVED, LANDS),
            ("year 1", {**SHELVED, "book_id": "2", "date_updated": "Mon Jan 01 00:00:00 -0800 0001"},
             "occurred_at_too_early"),
            ("the thirtieth of February", {**SHELVED, "book_id": "2", "date_updated": "Mon Feb 30 00:00:00 -0800 2016"},
             "occurred_at_unparsable"),
            ("an ISO instant", {**SHELVED, "book_id": "2", "date_updated": "2017-10-09T08:55:59Z"},
             "occurred_at_unparsable"),
            ("a date in the future", {**SHELVED, "book_id": "2", "date_updated": "Mon Oct 09 08:55:59 -0700 2817"},
             "occurred_at_in_the_future"),
            ("no date", {**SHELVED, "book_id": "2", "date_updated": "", "date_added": None}, "occurred_at_unparsable"),
            ("six stars", {**SHELVED, "book_id": "2", "rating": 6}, "rating_out_of_range"),
            ("minus one star", {**SHELVED, "book_id": "2", "rating": -1}, "rating_out_of_range"),
            ("an empty rating", {**SHELVED, "book_id": "2", "rating": ""}, "not_a_number"),
            ("a path for a book", {**SHELVED, "book_id": "../../etc/passwd"}, "invalid_id"),
            ("the same event", SHELVED, "duplicate_event"),
            ("HTML for an answer", "<html><body>403 Forbidden</body></html>", "broken_row"),
        ),
    ),
    BrokenFile(
        "items", "books/goodreads/goodreads_books_poetry.json.gz",
        _lines(
            ("a good row", BOOK, LANDS),
            ("a year beyond an integer", {**BOOK, "book_id": "3", "publication_year": "1e30"}, LANDS),
            ("shelves that are no list", {**BOOK, "book_id": "4", "popular_shelves": "to-read"}, LANDS),
            ("authors that are nulls", {**BOOK, "book_id": "5", "authors": [None, {"author_id": None}]}, LANDS),
            ("the same id", {**BOOK, "title": "Again"}, "duplicate_item"),
            ("no title", {"book_id": "6", "title": " \0 "}, "empty_title"),
        ),
    ),
    BrokenFile(
        "details", "books/goodreads/goodreads_book_genres_initial.json.gz",
        _lines(
            ("a good row", {"book_id": "24375664", "genres": {"poetry": 3, "fiction": 12}}, LANDS),
            ("a list for a map", {"book_id": "24375664", "genres": ["poetry"]}, "empty_value"),
            ("no votes", {"book_id": "4", "genres": {"poetry": None}}, LANDS),
            ("no book", {"genres": {"poetry": 3}}, "empty_id"),
        ),
    ),
    BrokenFile(
        "interactions", "books/goodbooks/ratings.csv",
        _lines(
            ("a good row", "7,9,4", LANDS),
            ("swapped columns", "4,7,9", "rating_out_of_range"),
            ("a blank rating", "7,9, ", "not_a_number"),
            ("a negative id", "-7,9,4", "invalid_id"),
            ("an id with a fraction", "7.0,9,4", "invalid_id"),
            ("a tab", "7\t9\t4", "broken_row"),
        ),
        preamble=b"user_id,book_id,rating\n",
    ),
    BrokenFile(
        "items", "books/goodbooks/books.csv",
        _lines(
            ("a good row", '9,77,"A. Author, B. Bee",2008.0,Title', LANDS),
            ("a year beyond an integer", "10,78,A,1e30,Title", LANDS),
            ("year nan", "11,79,A,nan,Title", LANDS),
            ("no authors", "12,80,,-720.0,Odyssey", LANDS),
            ("a formula", '13,81,"@SUM(1)",2000,"+1-2"', LANDS),
        ),
        preamble=b"book_id,goodreads_book_id,authors,original_publication_year,title\n",
    ),
    BrokenFile(
        "details", "books/goodbooks/book_tags.csv",
        _lines(
            ("a good row", "77,1,50", LANDS),
            ("a tag that nobody names", "77,99,50", "unknown_code"),
            ("a book that nobody names", "66,1,50", "unknown_code"),
            ("a count that is none", "77,1,many", "not_a_number"),
        ),
        preamble=b"goodreads_book_id,tag_id,count\n",
    ),
)  # fmt: skip
DICTIONARIES = {"books/goodbooks/tags.csv": b"tag_id,tag_name\n1,fantasy\n1,zz twice\nx\n"}

# social: Pushshift ----------------------------------------------------------------------------------------------------

COMMENT = {
    "author": "ann", "subreddit": "de", "created_utc": 1136074029, "id": "c1", "parent_id": "t3_s1", "link_id": "t3_s1",
}  # fmt: skip
SOCIAL = (
    BrokenFile(
        "interactions", "social/RC_2006-01.bz2",
        _lines(
            ("a good row", COMMENT, LANDS),
            ("a second comment in the same second", {**COMMENT, "id": "c2"}, LANDS),
            ("the same comment", COMMENT, "duplicate_event"),
            ("a deleted author", {**COMMENT, "author": "[deleted]"}, "author_deleted"),
            ("null for an author", {**COMMENT, "author": None}, "empty_id"),
            ("HTML for an author", {**COMMENT, "author": "<a href=x>"}, "invalid_id"),
            ("an author with a line break", {**COMMENT, "author": "ann\n"}, "invalid_id"),
            ("an object for a subreddit", {**COMMENT, "subreddit": {"name": "de"}}, "invalid_id"),
            ("instant with a fraction", {**COMMENT, "created_utc": 1136074029.5}, "occurred_at_unparsable"),
            ("instant before Reddit", {**COMMENT, "created_utc": 1}, "occurred_at_too_early"),
            ("instant as true", {**COMMENT, "created_utc": True}, "occurred_at_unparsable"),
            ("a parent with quotes", {**COMMENT, "id": "c3", "parent_id": 't1_"},"x":{"'}, LANDS),
            ("a NUL character in a parent", {**COMMENT, "id": "c4", "parent_id": "t1_\0c1"}, LANDS),
            ("a comment that answers itself", {**COMMENT, "id": "c5", "parent_id": "t1_c5"}, LANDS),
            ("a control character inside a text", '{"author": "a\tb"}', "broken_row"),
            ("an empty object", "{}", "empty_id"),
        ),
    ),
    BrokenFile(
        "interactions", "social/RS_2006-01.gz",
        _lines(
            ("a good row", {**COMMENT, "id": "s1", "author": "bob"}, LANDS),
            ("deep JSON", {**COMMENT, "media": None} | {"id": "s2", "author": ""}, "empty_id"),
        ),
    ),
)  # fmt: skip

SOURCES: dict[str, tuple[BrokenFile, ...]] = {"movies": MOVIES, "products": PRODUCTS, "books": BOOKS, "social": SOCIAL}


def faults() -> Iterator[str]:
    """Yield the name of every fault in a line."""
    for files in SOURCES.values():
        for file in files:
            yield from (f"{file.name}: {line.fault}" for line in file.lines if line.fault != "a good row")


def write(domain: str, root: Path) -> None:
    """Write the files of a domain below `root`."""
    for file in SOURCES[domain]:
        file.write(root)
    for name, content in DICTIONARIES.items():
        if name.startswith(f"{domain}/"):
            (root / name).write_bytes(content)


def expected(domain: str) -> dict[tuple[str, str], Counter[str]]:
    """Return how many lines of each source folder and table land or are refused, by reason."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for file in SOURCES[domain]:
        key = (Path(file.name).parent.name, file.table)
        found.setdefault(key, Counter()).update(line.reason for line in file.lines)
    return found
