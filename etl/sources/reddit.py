"""Reddit comments (Pushshift dumps): RC_YYYY-MM as newline-delimited JSON, plain, bzip2 or gzip.

A comment is one interaction of its author with its subreddit, `share`, without a rating; comment, parent and link ids
stay in the context and carry the reply graph. Subreddits become items. An author who has deleted the account is nobody:
the row is kept in the quarantine as `author_deleted`, which does not count as broken input.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from etl.files import RawFiles, checked
from recsys.columns import CONTEXT, ITEM_ID, RATING, USER_ID
from recsys.errors import UnusableInput

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

DOMAIN = "social"
WANTED = "Pushshift comment dumps such as RC_2006-01.bz2"
NAME = "reddit"

COMMENTS = re.compile(r"^RC(_\d{4}-\d{2})?(\.ndjson|\.jsonl|\.json)?(\.gz|\.bz2)?$")
NOT_READ = re.compile(r"^RC_\d{4}-\d{2}\.(zst|xz)$")
FIELDS = ("author", "subreddit", "created_utc", "id", "parent_id", "link_id")
DELETED = "[deleted]"
NAMED = r"^[\w.:-]+$"


def discover(folder: Path) -> list[RawFiles] | None:
    """Return the comment dumps in this folder, or None.

    Raises:
        UnusableInput: a dump is compressed with zstd or xz, which Spark does not read without a native library.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if unread := [path for path in files if NOT_READ.match(path.name)]:
        raise UnusableInput("raw file", unread[0], "Its compression is not read; unpack it or pack it as .bz2")
    comments = tuple(path for path in files if COMMENTS.match(path.name))
    if not comments:
        return None
    return [checked(RawFiles(NAME, "interactions", "comments", comments))]


def read(spark: SparkSession, files: RawFiles) -> DataFrame:
    """Return the comments with every member still text, under Pushshift's names."""
    from etl import casts

    return casts.json(casts.lines(spark, files), FIELDS)


def cast(frame: DataFrame, files: RawFiles) -> DataFrame:
    """Return unified columns and the reason of refusal; `created_utc` is Unix seconds."""
    from pyspark.sql import functions as F

    from etl import casts as c

    typed = frame.withColumns(
        {
            USER_ID: c.text_id(NAME, "author", NAMED),
            ITEM_ID: c.text_id(NAME, "subreddit", NAMED),
            RATING: F.expr(c.NO_RATING),
            c.OCCURRED_MS: c.epoch_ms("created_utc"),
            CONTEXT: c.attributes(comment_id="id", parent_id="parent_id", link_id="link_id"),
        }
    )
    rules = [
        (F.col("author") == DELETED, c.AUTHOR_DELETED),
        *c.id_rules("author", USER_ID),
        *c.id_rules("subreddit", ITEM_ID),
        *c.instant_rules(),
    ]
    return typed.select(*c.interaction("share"), c.reason(rules))


def items_of(interactions: DataFrame) -> DataFrame:
    """Return one item a subreddit that these landed interactions name."""
    from pyspark.sql import functions as F

    from etl import casts as c

    subreddits = interactions.select(ITEM_ID, F.col(ITEM_ID).alias(c.RECORD)).distinct()
    name = F.concat(F.lit("r/"), F.expr(f"substring({ITEM_ID}, {len(NAME) + 2})"))
    return subreddits.select(*c.item(ITEM_ID, name), F.lit(None).cast("string").alias(c.REASON))
