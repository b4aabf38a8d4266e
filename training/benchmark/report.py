"""From arguments to the result: read, choose, and say what was done."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from recsys.errors import RecsysError
from training.benchmark.choice import candidates, choose
from training.benchmark.formats import read
from training.benchmark.pace import Budget
from training.benchmark.protocol import DECIDING, Split, measure_answers
from training.cost import cpu_seconds, peak_rss_bytes
from training.model import module_of


def benchmark(arguments: argparse.Namespace, started: float, cache: Path, memory_bytes: float) -> dict[str, Any]:
    """Run the benchmark that the arguments describe; see docs/benchmark.md for the result."""
    budget = Budget(arguments.budget_s, arguments.threads, started)
    given = given_settings(arguments.config, arguments.model)
    with threadpool_limits(arguments.threads):
        split = read(arguments.train, arguments.test, arguments.format)
        names = candidates(split.train) if arguments.model == "best" else (arguments.model,)
        verdict = choose(split, names, budget, arguments.seed, cache, memory_bytes, given)
        judged = measure_answers(verdict.final.answers, split.train, split.asked)
    if arguments.per_user:
        ids = [split.user_ids[user] for user in split.asked.users]
        pq.write_table(pa.table({"user_id": ids, **judged.per_user}), arguments.per_user)
    return {
        "model": verdict.model,
        "asked_for": arguments.model,
        "framework": module_of(verdict.model).FRAMEWORK,
        "metrics": judged.overall,
        **_described(split),
        "hyper_parameters": verdict.final.hyper_parameters,
        "seed": arguments.seed,
        "threads": arguments.threads,
        "budget_s": arguments.budget_s,
        "cpu_seconds": round(cpu_seconds(), 3),
        "wall_seconds": round(budget.clock() - started, 3),
        "peak_rss_bytes": peak_rss_bytes(),
        "fit_cpu_seconds": round(verdict.final.fit_cpu_seconds, 3),
        "judge_cpu_seconds": round(verdict.final.judge_cpu_seconds, 3),
        "answer_ms": {name: round(taken, 3) for name, taken in verdict.final.answer_ms.items()},
        "model_bytes": verdict.final.model_bytes,
        "validation": {"metric": DECIDING[split.form], "trials": verdict.validation, "notes": verdict.notes},
    }


def _described(split: Split) -> dict[str, Any]:
    """Return what was asked of the model, and of how much data."""
    sampled = split.asked.candidates is not None
    protocol = {
        "lightgcn": "full ranking over the items that the user has not used in training",
        "ncf": "leave-one-out, the test item among the split's negatives: SAMPLED metrics, not those of a full ranking",
        "sequence": "leave-one-out in the order of time, full ranking over the items that the user has not used before",
    }
    return {
        "format": split.form,
        "protocol": protocol[split.form],
        "sampled": sampled,
        "users": len(np.unique(split.train.users)),
        "items": split.train.n_items,
        "train_interactions": len(split.train.users),
        "test_users": len(split.asked.users),
        "test_users_without_training": split.strangers(),
        "test_interactions": len(split.asked.items),
    }


def given_settings(text: str, model: str) -> dict[str, Any] | None:
    """Return the settings that the caller gives, None where there are none.

    Raises:
        RecsysError: they are no JSON object, or not what the model's Config takes.
    """
    if not text:
        return None
    try:
        given = json.loads(text)
        module_of(model).Config(**given)
    except (ValueError, TypeError) as error:
        raise RecsysError("CONFIG", text, f"It must be a JSON object of settings of {model} ({error})") from error
    return given
