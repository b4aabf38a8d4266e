"""One file a provider of raw data, all of the shape `etl.files.Source`.

Spark is imported inside `read` and `cast`: looking for files, which an unchanged task does too, must not wait for it.
"""

from etl.files import Source
from etl.sources import amazon, goodbooks, goodreads, movielens, reddit, synthetic

SOURCES: tuple[Source, ...] = (movielens, amazon, goodbooks, goodreads, reddit, *synthetic.EVERY_DOMAIN)
