"""What one domain teaches another, on public data; writes docs/results/transfer.md.

    python -m bench.transfer FOLDER [--seed 1] [--cache FOLDER] [--only products|control|books]

FOLDER holds `products`, `movies` and `books`. `products`: Beauty and Toys teach each other; `amazon2014-beauty` and
`amazon2014-toys` have `user_sequence.txt.gz` (a line a user: the reviewer, then the items in the order of time) and
`items.jsonl.gz` (asin, title, categories), and 2 073 reviewers are in both. `control`: the same adaptation to a source
that knows nothing, since its histories are dealt to other reviewers and its texts to other items. `books`: the films of
MovieLens latest-small teach goodbooks-10k, by texts alone, since no user is in both.

Of each user and domain the last item is the test, and the model learns from what stands before it; goodbooks tells no
order, so there a random book is. The product files tell the order within a domain and no times, so the events of a user
of both are merged by their places, and some of what the model is told of the source happened later than what is asked
for: a platform that knows the times would not have it.
"""

import argparse
import gzip
import html
import json
import logging
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from bench import results
from recsys.bundle import Catalogue
from training import transfer
from training.cost import cpu_seconds, peak_rss_bytes
from training.dataset import TrainingData
from training.model import Workplace
from training.models import content_ials

NAME, TITLE = "transfer", "What one domain teaches another: ndcg@10 alone and with the other domain"
DOMAINS = {"beauty": "amazon2014-beauty", "toys": "amazon2014-toys"}
COMMAND = "python -m bench.transfer FOLDER"
CONFIG = {"unobserved_ratio": 20.0, "reg": 0.01, "half_life_days": 1e6}
"""As in bench/cold_start.py."""
NOTES = """\
**Protocol.** Of each user and domain the last item is asked for, the rest is learnt from; only the target's items are
ranked, without the user's own. The product files tell no times, so a user's two histories are merged by the places in
them: part of the source's events happened later than what is asked for, and the help for users of both domains is an
upper bound. Of goodbooks, which tells no order, a random book is asked for. Verdicts as training/transfer.py defines
them; `share` is the share of the target's users that is learnt from.

**Control** (`shuffled`): the same adaptation to a source whose histories belong to other reviewers and whose texts to
other items. It helps nearly as much where all of the target is learnt from (Beauty for Toys +.0014 of +.0018, Toys for
Beauty +.0021 of +.0029): most of the help there is the way of learning (items that begin at what texts say, more
events to learn from), not the source. With a tenth of the target's users the control's intervals span 0 (-.0007 and
+.0009) beside +.0010 and, above 0, +.0016 of the true source. The differences between source and control were not
tested. Films teach books nothing that these 2 672 readers would show, with all of them or with a tenth; nor do they
harm.

Nobody is in bucket 0: everybody has at least four items in the target's training part. Settings are those of
docs/results/cold_start.md, not tuned for this; one seed."""

Described = tuple[str, str, str, list[str]]
"""Item id, domain, title, categories."""
Sequence = tuple[str, str, list[str]]
"""User id, domain, item ids in order."""


def products(folder: Path) -> tuple[list[Described], list[Sequence]]:
    """Read Beauty and Toys."""
    described, sequences = [], []
    for domain, name in DOMAINS.items():
        with gzip.open(folder / "products" / name / "items.jsonl.gz", "rt") as lines:
            for row in map(json.loads, lines):
                categories = list(dict.fromkeys(html.unescape(part) for path in row["categories"] for part in path[1:]))
                title = html.unescape(row.get("title") or "")
                described.append((f"{domain}:{row['asin']}", domain, title, categories))
        with gzip.open(folder / "products" / name / "user_sequence.txt.gz", "rt") as lines:
            sequences += [
                (line.split()[0], domain, [f"{domain}:{asin}" for asin in line.split()[1:]]) for line in lines
            ]
    return described, sequences


def shuffled(
    described: list[Described], sequences: list[Sequence], source: str, seed: int
) -> tuple[list[Described], list[Sequence]]:
    """Deal the source's histories to other users and its texts to other items."""
    rng = np.random.default_rng([seed, 47])
    items, others = ([row for row in described if (row[1] == source) is own] for own in (True, False))
    texts = [items[place][2:] for place in rng.permutation(len(items))]
    dealt = [(*row[:2], *text) for row, text in zip(items, texts, strict=True)]
    own, rest = ([row for row in sequences if (row[1] == source) is mine] for mine in (True, False))
    users = [own[place][0] for place in rng.permutation(len(own))]
    return dealt + others, rest + [(user, source, row[2]) for user, row in zip(users, own, strict=True)]


def films_and_books(folder: Path, seed: int) -> tuple[list[Described], list[Sequence]]:
    """Read MovieLens latest-small in the order of time, and goodbooks-10k, each user's last book a random one."""
    films = pd.read_csv(folder / "movies" / "ml-latest-small" / "movies.csv.gz")
    described: list[Described] = [
        (f"movies:{film}", "movies", title, genres.split("|")) for film, title, genres in films.itertuples(index=False)
    ]
    path = folder / "books" / "goodbooks-10k"
    books = pd.read_csv(path / "books.csv.gz", usecols=["book_id", "authors", "title"])
    shelves = pd.read_csv(path / "book_genres.csv.gz").set_index("book_id")["genres"].fillna("")
    described += [
        (f"books:{row.book_id}", "books", f"{row.title} by {row.authors}", shelves.get(row.book_id, "").split(",")[:8])
        for row in books.itertuples()
    ]
    watched = pd.read_csv(folder / "movies" / "ml-latest-small" / "ratings.csv.gz")
    watched = watched.sort_values(["userId", "timestamp"], kind="stable")
    read = pd.read_csv(path / "ratings_v2_sample.csv.gz").sample(frac=1, random_state=seed)
    sequences = [
        (f"{domain}:{user}", domain, [f"{domain}:{item}" for item in own])
        for domain, table, columns in (
            ("movies", watched, ("userId", "movieId")),
            ("books", read.drop_duplicates(["user_id", "book_id"]), ("user_id", "book_id")),
        )
        for user, own in table.groupby(columns[0])[columns[1]]
    ]
    return described, sequences


def world(described: list[Described], sequences: list[Sequence]) -> tuple[TrainingData, transfer.Asked]:
    """Return both domains' training events under common users, and who is asked about what."""
    described = sorted(described)
    code = {item_id: place for place, (item_id, *_) in enumerate(described)}
    users = {reviewer: place for place, reviewer in enumerate(sorted({reviewer for reviewer, _, _ in sequences}))}
    rows, targets = [], [[] for _ in users]
    for reviewer, _, items in sequences:
        user, codes = users[reviewer], [code[item] for item in items]
        rows += [(user, item, place) for place, item in enumerate(codes[:-1])]
        if codes[-1] not in codes[:-1]:
            targets[user].append(codes[-1])
    table = pd.DataFrame(rows, columns=["user", "item", "instant"]).sort_values(["user", "instant"], kind="stable")
    ids, domains, titles, categories = (list(column) for column in zip(*described, strict=True))
    texts = tuple(". ".join(filter(None, (title, ", ".join(names)))) for _, _, title, names in described)
    data = TrainingData(
        table["user"].to_numpy(np.int32),
        table["item"].to_numpy(np.int32),
        table["instant"].to_numpy(np.int64),
        int(table["instant"].max()) + 1,
        Catalogue(item_id=ids, domain=domains, title=titles, categories=categories, published_year=[None] * len(ids)),
        texts,
    )
    starts = np.searchsorted(data.users, np.arange(len(users) + 1))
    histories = [data.items[start:end] for start, end in pairwise(starts)]
    return data, transfer.Asked(histories, [np.array(wanted, int) for wanted in targets])


def row_of(row: dict[str, Any], part: str, cost: str) -> dict[str, Any]:
    source = f"shuffled {row['source_domain']}" if part == "control" else row["source_domain"]
    return {
        "measure": f"{source} → {row['target_domain']}, share {row['target_share']:g}, known {row['bucket']}",
        "target": "what is not the source's doing"
        if part == "control"
        else "a verdict with its interval; positive at ≤ 10 % of the target",
        "measured": f"{row['verdict']}: {row['alone']:.4f} → {row['transferred']:.4f}, "
        f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}], {row['users']} users, "
        f"similarity {row['embedding_similarity']:.3f}{cost}",
        "command": COMMAND if part == "products" else f"{COMMAND} --only {part}",
        "part": part,
        **row,
    }


def verdicts_of(part: str, folder: Path, seed: int, place: Workplace) -> pd.DataFrame:
    """Return the verdicts of one part."""
    config = content_ials.Config(**CONFIG)
    if part == "books":
        data, asked = world(*films_and_books(folder, seed))
        return transfer.compare(data, asked, ("movies", "books"), config, seed, place, sources=("movies",))
    if part == "products":
        return transfer.compare(*world(*products(folder)), tuple(DOMAINS), config, seed, place)
    found = []
    for source in DOMAINS:
        data, asked = world(*shuffled(*products(folder), source, seed))
        found.append(transfer.compare(data, asked, tuple(DOMAINS), config, seed, place, sources=(source,)))
    return pd.concat(found, ignore_index=True)


PARTS = ("products", "control", "books")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.transfer", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="folder of encoded texts")
    parser.add_argument("--only", choices=PARTS)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    written = results.FOLDER / f"{NAME}.json"
    with TemporaryDirectory() as scratch:
        place = Workplace(1, arguments.cache or Path(scratch))
        for part in [arguments.only] if arguments.only else PARTS:
            begun = cpu_seconds()
            verdicts = verdicts_of(part, arguments.folder, arguments.seed, place)
            cost = f"; {cpu_seconds() - begun:.0f} CPU-s in all, {peak_rss_bytes() / 2**20:.0f} MiB"
            cost += f", seed {arguments.seed}"
            rows = [row_of(row, part, "" if number else cost) for number, row in enumerate(verdicts.to_dict("records"))]
            kept = json.loads(written.read_text())["rows"] if written.exists() else []
            rows += [old for old in kept if old.get("part", "products") != part]
            results.publish(NAME, TITLE, sorted(rows, key=lambda row: PARTS.index(row.get("part", PARTS[0]))), NOTES)
            print(verdicts.to_string(), flush=True)


if __name__ == "__main__":
    main()
