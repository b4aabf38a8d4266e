"""One fit and its judgement in a process of its own, which is ended when it takes too long or too much memory.

A model that crashes, hangs or swallows the machine costs its trial and nothing else.
"""

import math
import multiprocessing
import sys
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import psutil

from recsys.errors import RecsysError
from training.benchmark.protocol import Asked, answer_times, judge
from training.cost import cpu_seconds, peak_rss_bytes
from training.dataset import TrainingData
from training.model import Workplace, module_of

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Job:
    """What to fit and on what to judge it."""

    model: str
    config: dict[str, Any]
    """Overrides of the model's Config."""
    data: TrainingData
    asked: Asked
    seed: int
    workplace: Workplace
    is_last: bool = False
    """Whether the model itself is looked at, too: how fast it answers and how large it is."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    metrics: dict[str, float] = field(default_factory=dict)
    per_user: dict[str, Any] = field(default_factory=dict)
    hyper_parameters: dict[str, Any] = field(default_factory=dict)
    fit_cpu_seconds: float = math.nan
    judge_cpu_seconds: float = math.nan
    wall_seconds: float = 0.0
    judge_wall_seconds: float = 0.0
    peak_rss_bytes: int = 0
    answer_ms: dict[str, float] = field(default_factory=dict)
    """`p50` and `p99` of the milliseconds that one user's list takes, in the model's own framework, one at a time."""
    model_bytes: int = 0
    """Of the framework's own file of weights."""
    failed: str = ""
    """Why there is no result, in a sentence."""


def run(job: Job, seconds: float, memory_bytes: float) -> Outcome:
    """Do a job within these wall seconds and this memory, or say why not. Never raises for what the model does."""
    started = perf_counter()
    # Forked, the child shares the data instead of copying it; elsewhere than on Linux forking is not safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(job, theirs), daemon=True)
    child.start()
    theirs.close()
    outcome, watched = None, psutil.Process(child.pid)
    while outcome is None:
        if ours.poll(POLL_SECONDS):
            outcome = _received(ours, child)
        elif perf_counter() - started > seconds:
            outcome = Outcome(failed=f"abandoned after {seconds:.1f} s: the budget ends")
        elif _rss(watched) > memory_bytes:
            outcome = Outcome(failed=f"abandoned above {memory_bytes / 2**30:.1f} GiB of memory")
    if outcome.failed:
        child.kill()
    child.join()
    return Outcome(**{**vars(outcome), "wall_seconds": perf_counter() - started})


def _received(connection: Connection, child: multiprocessing.Process) -> Outcome:
    try:
        return connection.recv()
    except EOFError:
        child.join()
        return Outcome(failed=f"its process ended with code {child.exitcode}; standard error tells more")


def _rss(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0


def _work(job: Job, connection: Connection) -> None:
    """Send what became of the job. A mistake of the model's code ends this process alone, with its traceback."""
    try:
        outcome = do(job)
    except RecsysError as error:
        outcome = Outcome(failed=str(error))
    except MemoryError:
        outcome = Outcome(failed="out of memory")
    connection.send(outcome)


def do(job: Job) -> Outcome:
    """Fit and judge in this process."""
    module = module_of(job.model)
    config = module.Config(**job.config)
    begun = cpu_seconds()
    model = module.fit(job.data, config, job.seed, job.workplace)
    fitted, began_judging = cpu_seconds(), perf_counter()
    judged = judge(model, job.data, job.asked)
    judged_at, judging = cpu_seconds(), perf_counter() - began_judging
    return Outcome(
        metrics=judged.overall,
        per_user=judged.per_user,
        hyper_parameters=config.model_dump(),
        fit_cpu_seconds=fitted - begun,
        judge_cpu_seconds=judged_at - fitted,
        judge_wall_seconds=judging,
        answer_ms=answer_times(model, job.data, job.asked) if job.is_last else {},
        model_bytes=size_of(model) if job.is_last else 0,
        peak_rss_bytes=peak_rss_bytes(with_children=False),
    )


def size_of(model: Any) -> int:
    """Return the bytes of the framework's own files of a model."""
    with TemporaryDirectory() as folder:
        model.save_native(Path(folder))
        return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
