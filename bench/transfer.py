"""What Beauty teaches Toys and the other way round; writes docs/results/transfer.md.

    python -m bench.transfer FOLDER [--seed 1] [--cache FOLDER]

FOLDER holds `amazon2014-beauty` and `amazon2014-toys`, each with `user_sequence.txt.gz` (a line a user: the reviewer,
then the items in the order of time) and `items.jsonl.gz` (asin, title, categories). 2 073 reviewers are in both.

Of each user and domain the last item is the test, and the model learns from what stands before it. The files tell the
order within a domain and no times, so the events of a user of both are merged by their places, and some of what the
model is told of the source happened later than what is asked for: a platform that knows the times would not have it.
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
from training.benchmark.trial import cpu_seconds, peak_rss_bytes
from training.dataset import TrainingData
from training.model import Workplace
from training.models import content_ials

NAME, TITLE = "transfer", "Transfer between Amazon Beauty and Toys: ndcg@10 alone and with the other domain"
DOMAINS = {"beauty": "amazon2014-beauty", "toys": "amazon2014-toys"}
CONFIG = {"unobserved_ratio": 20.0, "reg": 0.01, "half_life_days": 1e6}
"""As in bench/cold_start.py."""
NOTES = """\
**Protocol.** Of each user and domain the last item is asked for, the rest is learnt from; only the target's items are
ranked, without the user's own. The files tell no times, so a user's two histories are merged by the places in them:
part of the source's events happened later than what is asked for, and the help for users of both domains is an upper
bound. Verdicts as training/transfer.py defines them; `share` is the share of the target's users that is learnt from.

**Not proved by this.** The two arms differ in more than the source: without it the target's items start from noise,
with it from what their texts say, and one seed was run. A control, the same adaptation to a source whose users and
texts are shuffled, was not run; until it is, "helps" is an upper bound of what Toys knows of Beauty and the other
way round. The helped are far more than the 2 073 common users, so texts or the start carry most of it.

Nobody is in bucket 0: everybody has at least four items in the target's training part. Settings are those of
docs/results/cold_start.md, not tuned for this. Films → books by text was not measured."""


def world(folder: Path) -> tuple[TrainingData, transfer.Asked]:
    """Return both domains' training events under common users, and who is asked about what."""
    described, sequences = [], []
    for domain, name in DOMAINS.items():
        with gzip.open(folder / name / "items.jsonl.gz", "rt") as lines:
            for row in map(json.loads, lines):
                categories = list(dict.fromkeys(html.unescape(part) for path in row["categories"] for part in path[1:]))
                title = html.unescape(row.get("title") or "")
                described.append((f"{domain}:{row['asin']}", domain, title, categories))
        with gzip.open(folder / name / "user_sequence.txt.gz", "rt") as lines:
            sequences += [
                (line.split()[0], domain, [f"{domain}:{asin}" for asin in line.split()[1:]]) for line in lines
            ]
    described.sort()
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


def row_of(row: dict[str, Any], cost: str) -> dict[str, Any]:
    key = f"{row['source_domain']} → {row['target_domain']}, share {row['target_share']:g}, known {row['bucket']}"
    return {
        "measure": key,
        "target": "a verdict with its interval; positive at ≤ 10 % of the target",
        "measured": f"{row['verdict']}: {row['alone']:.4f} → {row['transferred']:.4f}, "
        f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}], {row['users']} users, "
        f"similarity {row['embedding_similarity']:.3f}{cost}",
        "command": "python -m bench.transfer FOLDER",
        **row,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.transfer", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="folder of encoded texts")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    data, asked = world(arguments.folder)
    begun = cpu_seconds()
    with TemporaryDirectory() as scratch:
        place = Workplace(1, arguments.cache or Path(scratch))
        config = content_ials.Config(**CONFIG)
        verdicts = transfer.compare(data, asked, tuple(DOMAINS), config, arguments.seed, place)
    cost = f"; {cpu_seconds() - begun:.0f} CPU-s in all, {peak_rss_bytes() / 2**20:.0f} MiB, seed {arguments.seed}"
    rows = [row_of(row, "" if number else cost) for number, row in enumerate(verdicts.to_dict("records"))]
    results.publish(NAME, TITLE, rows, NOTES)
    print(verdicts.to_string())


if __name__ == "__main__":
    main()
