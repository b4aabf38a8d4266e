"""One fit and its judgement in a process of its own, which is ended when it takes too long or too much memory.

A model that crashes, hangs or swallows the machine costs its trial and nothing else.
"""

import math
import multiprocessing
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import psutil

from recsys.errors import RecsysError
from training.benchmark.protocol import Asked, answer, answer_times, measure_answers
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
    """Whether this is no trial: what it answers is kept unmeasured, and the model itself is looked at, how fast it
    answers and how large it is."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    metrics: dict[str, float] = field(default_factory=dict)
    """Of a trial."""
    answers: np.ndarray | None = None
    """Of a last fit, as `protocol.answer` gives them; what they are worth nobody has looked at."""
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
    latest, ending, watched = None, "", psutil.Process(child.pid)
    while not ending:
        if ours.poll(POLL_SECONDS):
            try:
                received = ours.recv()
                latest = received if latest is None or not received.failed else latest
            except EOFError:
                child.join()
                ending = f"its process ended with code {child.exitcode}; standard error tells more"
        elif perf_counter() - started > seconds:
            ending = f"abandoned after {seconds:.1f} s: the budget ends"
        elif _rss(watched) > memory_bytes:
            ending = f"abandoned above {memory_bytes / 2**30:.1f} GiB of memory"
    child.kill()
    child.join()
    return replace(latest or Outcome(failed=ending), wall_seconds=perf_counter() - started)


def _rss(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0


def _work(job: Job, connection: Connection) -> None:
    """Send what became of the job. A mistake of the model's code ends this process alone, with its traceback."""
    try:
        for outcome in do(job):
            connection.send(outcome)
    except RecsysError as error:
        connection.send(Outcome(failed=str(error)))
    except MemoryError:
        connection.send(Outcome(failed="out of memory"))


def do(job: Job) -> Iterator[Outcome]:
    """Fit and ask in this process. A last fit yields twice: the answers first, then what is told beside them."""
    module = module_of(job.model)
    config = module.Config(**job.config)
    begun = cpu_seconds()
    model = module.fit(job.data, config, job.seed, job.workplace)
    fitted, began_judging = cpu_seconds(), perf_counter()
    answers = answer(model, job.data, job.asked)
    metrics = {} if job.is_last else measure_answers(answers, job.data, job.asked).overall
    judged_at, judging = cpu_seconds(), perf_counter() - began_judging
    outcome = Outcome(
        metrics=metrics,
        answers=answers if job.is_last else None,
        hyper_parameters=config.model_dump(),
        fit_cpu_seconds=fitted - begun,
        judge_cpu_seconds=judged_at - fitted,
        judge_wall_seconds=judging,
        peak_rss_bytes=peak_rss_bytes(with_children=False),
    )
    yield outcome
    if job.is_last:
        timed = answer_times(model, job.data, job.asked)
        yield replace(outcome, answer_ms=timed, model_bytes=size_of(model))


def size_of(model: Any) -> int:
    """Return the bytes of the framework's own files of a model."""
    with TemporaryDirectory() as folder:
        model.save_native(Path(folder))
        return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
