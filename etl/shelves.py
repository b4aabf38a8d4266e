"""Readers' shelves: which of them say what a book is about, and which only what the reader does with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column

STATES = (
    "to-read", "currently-reading", "read", "re-read", "reread", "dnf", "did-not-finish", "finished", "unfinished",
    "abandoned", "on-hold", "maybe", "tbr", "default", "owned", "own", "i-own", "owned-books", "books-i-own",
    "books-i-have", "own-it", "my-books", "my-library", "library", "library-book", "library-books", "borrowed",
    "home-library", "wish-list", "wishlist", "to-buy", "kindle", "kindle-books", "ebook", "ebooks", "e-book", "e-books",
    "nook", "audio", "audiobook", "audiobooks", "audio-book", "audio-books", "audible", "paperback", "hardcover",
    "favorites", "favourites", "favorite", "favorite-books", "all-time-favorites", "5-stars", "4-stars", "3-stars",
    "shelfari-favorites", "books", "book-club", "bookclub", "series", "english",
)  # fmt: skip
MOST = 5
"""Shelves of a book that become its categories."""


def is_subject(name: Column) -> Column:
    """Return whether a shelf says something of the book; `read-in-2014` and its like do not."""
    return ~name.isin(*STATES) & ~name.rlike(r"^(read|reads|books)(-in|-from)?-?\d{4}|^\d{4}(-reads?|-books)?$|^-*$")
