"""Reddit comments and submissions (Pushshift dumps): newline-delimited JSON, plain, gzip, bzip2 or Zstandard.

    RC_YYYY-MM, <subreddit>_comments      author, subreddit, created_utc (seconds), id, parent_id, link_id
    RS_YYYY-MM, <subreddit>_submissions   author, subreddit, created_utc, id

Each is one interaction of its author with its subreddit, `share`, without a rating; the context tells a `submission`
from a `comment` on one and from a `reply` to a comment. Comment, parent and link ids carry the reply graph, and
`parent_user_id` names the author of what was answered, where that is in the files, whatever its month. Subreddits
become items. An author who has deleted the account is nobody: the row is kept in the quarantine as `author_deleted`,
which does not count as broken input.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from etl.files import RawFiles, checked
from recsys.columns import CONTEXT, ITEM_ID, RATING, USER_ID
from recsys.errors import UnusableInput

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

DOMAIN = "social"
WANTED = "Pushshift dumps of comments and submissions such as RC_2006-01.bz2 and RS_2006-01.zst"
NAME = "reddit"

ENDING = r"(\.ndjson|\.jsonl|\.json)?(\.gz|\.bz2|\.zst)?$"
LAYOUTS = {
    "comments": (
        re.compile(rf"^(RC(_\d{{4}}-\d{{2}})?|\w+_comments){ENDING}"),
        ("author", "subreddit", "created_utc", "id", "parent_id", "link_id"),
    ),
    "submissions": (
        re.compile(rf"^(RS(_\d{{4}}-\d{{2}})?|\w+_submissions){ENDING}"),
        ("author", "subreddit", "created_utc", "id"),
    ),
}
NOT_READ = re.compile(r"^R[CS]_\d{4}-\d{2}\.xz$")
COMMENT, SUBMISSION = "t1_", "t3_"  # what stands before an id, by Reddit's kind of thing
PARENT = "parent"
DELETED = "[deleted]"
NAMED = r"[\w.:-]+"
OPENED_AT = datetime(2005, 6, 1, tzinfo=UTC)


def discover(folder: Path) -> list[RawFiles] | None:
    """Return the dumps in this folder, or None where it has no comments.

    Raises:
        UnusableInput: a dump is compressed with xz, which Spark does not read.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if unread := [path for path in files if NOT_READ.match(path.name)]:
        raise UnusableInput("raw file", unread[0], "Its compression is not read; unpack it or pack it as .zst")
    found = {
        layout: tuple(path for path in files if pattern.match(path.name)) for layout, (pattern, _) in LAYOUTS.items()
    }
    if not found["comments"]:
        return None
    return [checked(RawFiles(NAME, "interactions", layout, paths)) for layout, paths in found.items() if paths]


def read(spark: SparkSession, files: RawFiles) -> DataFrame:
    """Return the records with every member still text, under Pushshift's names."""
    from etl import casts

    return casts.json(casts.lines(spark, files), LAYOUTS[files.layout][1])


def cast(frame: DataFrame, files: RawFiles) -> DataFrame:
    """Return unified columns, the id of what was answered as `parent`, and the reason of refusal."""
    from pyspark.sql import functions as F

    from etl import casts as c

    is_comment = files.layout == "comments"
    parent = c.words("parent_id") if is_comment else F.lit(None).cast("string")
    if is_comment:
        action = F.when(parent.startswith(COMMENT), "reply").otherwise("comment")
        context = c.attributes(action=action, comment_id="id", parent_id="parent_id", link_id="link_id")
    else:
        context = c.attributes(action=F.lit("submission"), submission_id="id")
    typed = frame.withColumns(
        {
            USER_ID: c.text_id(NAME, "author", NAMED),
            ITEM_ID: c.text_id(NAME, "subreddit", NAMED),
            RATING: F.expr(c.NO_RATING),
            c.OCCURRED_MS: c.epoch_ms("created_utc"),
            CONTEXT: context,
            PARENT: parent,
        }
    )
    rules = [
        (F.col("author") == DELETED, c.AUTHOR_DELETED),
        *c.id_rules("author", USER_ID),
        *c.id_rules("subreddit", ITEM_ID),
        *c.instant_rules(OPENED_AT),
    ]
    own_id = F.concat(F.lit(COMMENT if is_comment else SUBMISSION), c.words("id"))
    return typed.select(*c.interaction("share", own_id), PARENT, c.reason(rules))


def resolve(interactions: DataFrame) -> DataFrame:
    """Return the interactions with the author of the parent in their context, where the files have the parent."""
    from pyspark.sql import functions as F

    from etl import casts as c

    known = interactions.filter(F.col(c.REASON).isNull() & F.col(c.OWN_ID).isNotNull())
    authors = known.groupBy(F.col(c.OWN_ID).alias(PARENT)).agg(F.min(USER_ID).alias("answered"))
    # An id holds nothing that JSON would have to escape, and the context has a member before it.
    member = F.concat(F.lit(',"parent_user_id":"'), F.col("answered"), F.lit('"}'))
    context = F.when(
        F.col("answered").isNotNull(), F.concat(F.expr(f"substring({CONTEXT}, 1, length({CONTEXT}) - 1)"), member)
    ).otherwise(F.col(CONTEXT))
    return interactions.join(authors, PARENT, "left").withColumn(CONTEXT, context).drop(PARENT, "answered")


def items_of(interactions: DataFrame) -> DataFrame:
    """Return one item a subreddit that these landed interactions name."""
    from pyspark.sql import functions as F

    from etl import casts as c

    subreddits = interactions.select(ITEM_ID, F.col(ITEM_ID).alias(c.RECORD)).distinct()
    name = F.concat(F.lit("r/"), F.expr(f"substring({ITEM_ID}, {len(NAME) + 2})"))
    return subreddits.select(*c.item(ITEM_ID, name), F.lit(None).cast("string").alias(c.REASON))
