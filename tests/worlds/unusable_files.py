"""Files that cannot be used at all, and what the one sentence says with which a landing stops at each."""

import bz2
import gzip

RATINGS_HEADER = b"userId,movieId,rating,timestamp"
GOOD_CSV = RATINGS_HEADER + b"\n1,1,4.5,978300760\n"
GOOD_JSON = b'{"reviewerID": "A1", "asin": "B01", "overall": 5.0, "unixReviewTime": 1472688000}\n'
# case → domain, file, content, what the sentence says
UNUSABLE: dict[str, tuple[str, str, bytes, str]] = {
    "empty file": ("movies", "ml-25m/ratings.csv", b"", "is empty"),
    "blank lines only": ("movies", "ml-25m/ratings.csv", b" \r\n\n", "is empty"),
    "header only": ("movies", "ml-25m/ratings.csv", RATINGS_HEADER + b"\n", "header and no rows"),
    "no header": ("movies", "ml-25m/ratings.csv", b"1,1,4.5,978300760\n" * 2, "header lacks userId"),
    "missing column": ("movies", "ml-25m/ratings.csv", b"userId,movieId,rating\n1,1,5\n", "header lacks timestamp"),
    "semicolons in the header": ("movies", "ml-25m/ratings.csv", GOOD_CSV.replace(b",", b";"), "header lacks"),
    "UTF-16": ("movies", "ml-25m/ratings.csv", GOOD_CSV.decode().encode("utf-16"), "is not text"),
    "UTF-32": ("movies", "ml-25m/ratings.csv", GOOD_CSV.decode().encode("utf-32"), "is not text"),
    "a gzip that is none": ("movies", "ml-25m/ratings.csv.gz", GOOD_CSV, "cannot be read"),
    "a gzip that is cut": ("movies", "ml-25m/ratings.csv.gz", gzip.compress(GOOD_CSV)[:-9], "cannot be read"),
    "a gzip whose sum is wrong": (
        "movies", "ml-25m/ratings.csv.gz", gzip.compress(GOOD_CSV)[:-8] + b"\0" * 8, "cannot be read",
    ),
    "a bzip2 that is cut": ("products", "Gift_Cards_5.json.bz2", bz2.compress(GOOD_JSON)[:-5], "cannot be read"),
    "a gzip in a bzip2's name": ("products", "Gift_Cards_5.json.bz2", gzip.compress(GOOD_JSON), "cannot be read"),
    "a Zstandard file that is none": ("products", "Gift_Cards_5.json.zst", GOOD_JSON, "cannot be read"),
    "an empty archive": ("products", "Gift_Cards.jsonl.gz", gzip.compress(b""), "is empty"),
    "numbers without their maps": (
        "books", "goodreads_interactions.csv", b"user_id,book_id,is_read,rating,is_reviewed\n0,948,1,5,0\n",
        "numbers without meaning",
    ),
    "a header of HTML": ("books", "ratings.csv", b"<!DOCTYPE html>\n<html>\n", "header lacks"),
    "a dump in xz": ("social", "RC_2020-01.xz", b"\xfd7zXZ", "compression is not read"),
    "a dump of NUL bytes": ("social", "RC_2006-01", b"\0" * 4096, "is not text"),
}  # fmt: skip
BESIDE = {  # what must lie beside an unusable file for it to be looked at
    "movies": {"ml-25m/movies.csv": b"movieId,title,genres\n1,Heat (1995),Action\n"},
    "books": {"books.csv": b"book_id,authors,original_publication_year,title\n9,A,2000,T\n"},
}
