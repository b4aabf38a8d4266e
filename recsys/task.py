"""Run a foreign command (dbt, feast) as a task of the pipeline: once for each state of its inputs, with our addresses.

    python -m recsys.task dbt.build --as-of 2020-01-01 --domains movies --code dbt --after etl.load \
        --reads raw.interactions_stream:occurred_at -- dbt build --project-dir dbt …

The command's output goes to standard error. The task's receipt covers the command line, the interval, the code of the
named folders and of the kernel, the receipts of the tasks it comes after, and the rows it reads that no receipt covers.
"""

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import psycopg
from psycopg import sql

from recsys import interval as intervals
from recsys import receipts, station
from recsys.errors import RecsysError, ServiceUnavailable
from recsys.interval import Interval
from recsys.settings import HOME, Settings, load_settings
from recsys.warehouse import connect

KEPT_LINES = 400
CODE_VARIABLE = "RECSYS_TASK_CODE"
"""Tells the command the digest of its code: what dbt has built with other code it builds anew."""
AS_OF_VARIABLE, DOMAINS_VARIABLE = "RECSYS_TASK_AS_OF", "RECSYS_TASK_DOMAINS"
"""Tell the command the interval: by --vars, which say another day each time, dbt would parse the whole project anew."""
_DECORATION = re.compile(r"\x1b\[[0-9;]*m|^\d\d:\d\d:\d\d\s+")  # colours, and the clock before dbt's lines
_NAMES_A_CULPRIT = re.compile(r"(\[ERROR\]:|Failure|Error) in (test|model|unit_test|seed|snapshot|hook) ")


@dataclass(frozen=True)
class Task:
    """A command and everything that decides whether it has to run again."""

    name: str
    interval: Interval
    command: tuple[str, ...]
    code: tuple[str, ...] = ()
    """Folders of the repository whose files the command reads."""
    after: tuple[str, ...] = ()
    """Tasks whose output it reads."""
    reads: tuple[tuple[str, str], ...] = ()
    """Tables that no receipt covers, each with the column of instants: rows before the end of the interval count."""
    is_online: bool = False
    """Its output is in the online store, which may lose it; the store then keeps a mark beside it."""

    @property
    def key(self) -> str:
        return receipts.key_of(self.name, self.interval.key)

    @property
    def mark(self) -> str:
        return f"receipt:{self.name}:{self.key}"


def wanted_fingerprint(connection: psycopg.Connection, task: Task) -> str:
    """Return the fingerprint of this task on the present state of its inputs.

    Raises:
        MissingArtifact: a task that it comes after has not completed for this interval.
        RecsysError: a table or column that it reads does not exist.
    """
    return receipts.fingerprint(
        task.name,
        task.command,
        None if task.key == receipts.ALWAYS else task.interval,
        receipts.code_fingerprint(*task.code, "recsys"),
        receipts.upstream(connection, task.after, task.interval.key),
        [_rows_before(connection, table, column, task.interval) for table, column in task.reads],
    )


def _rows_before(connection: psycopg.Connection, table: str, column: str, interval: Interval) -> tuple[int, Any]:
    query = sql.SQL("select count(*), max({column}) from {table} where {column} < %s").format(
        column=sql.Identifier(column), table=sql.Identifier(*table.split("."))
    )
    try:
        count, latest = connection.execute(query, (interval.end,)).fetchone() or (0, None)
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise RecsysError("--reads", f"{table}:{column}", "Name an existing table and a column of it") from error
    return count, latest


def run_task(settings: Settings, task: Task) -> dict[str, Any]:
    """Run the command unless its receipt says that it has done this very work; return what the shell prints.

    Raises:
        RecsysError: the command ended with another exit code than zero.
    """
    with connect(settings) as connection:
        wanted = wanted_fingerprint(connection, task)
        is_done = receipts.recall(connection, task.name, task.key, wanted) is not None
    if is_done and task.is_online:
        with _online_store(settings) as store:
            is_done = store.get(task.mark) == wanted
    if is_done:
        return {"task": task.name, "unchanged": True}

    started = perf_counter()
    environment = {
        **command_environment(settings),
        CODE_VARIABLE: receipts.code_fingerprint(*task.code, "recsys"),
        AS_OF_VARIABLE: task.interval.as_of.isoformat(),
        DOMAINS_VARIABLE: ",".join(task.interval.domains),
    }
    lines = run_command(task.command, environment)
    seconds = round(perf_counter() - started, 2)

    if task.is_online:
        with _online_store(settings) as store:
            store.set(task.mark, wanted)
    with connect(settings) as connection:
        receipts.record(connection, task.name, task.key, wanted, {"command": task.command, "seconds": seconds})
    return {"task": task.name, "unchanged": False, "seconds": seconds, "last_line": _plain(lines[-1]) if lines else ""}


def command_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a foreign command: its programs and our packages are found first."""
    environment = settings.child_environment()
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HOME), environment.get("PYTHONPATH")]))
    return environment


def run_command(command: Sequence[str], environment: dict[str, str]) -> list[str]:
    """Run a command in the repository root, its output copied to standard error; return its last lines.

    The command does not outlive this process's orderly end: it is terminated when this one is interrupted.

    Raises:
        RecsysError: it cannot be started, or ended with another exit code than zero.
    """
    last_lines: deque[str] = deque(maxlen=KEPT_LINES)
    try:
        child = subprocess.Popen(
            command, cwd=HOME, env=environment, text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except (FileNotFoundError, PermissionError) as error:
        raise RecsysError(
            "command", command[0], "It must be a program of this environment; run `make setup`"
        ) from error
    with child:
        try:
            for line in child.stdout or ():
                sys.stderr.write(line)
                if line.strip():
                    last_lines.append(line.rstrip())
            code = child.wait()
        finally:
            if child.poll() is None:
                child.terminate()
    if code:
        raise RecsysError(
            f"`{shlex.join(command)}` ended with exit code {code}", culprit(last_lines), "The log is above"
        )
    return list(last_lines)


def culprit(lines: Iterable[str]) -> str:
    """Return the words of a failed command's output that name what failed.

    Those are dbt's `[ERROR]: in test …` with the line that follows, at most three; of another command, the last line,
    where Python puts the exception.
    """
    plain = [_plain(line) for line in lines]
    named = [
        f"{line.removeprefix('[ERROR]: in ')}: {following}".removesuffix(": ")
        for line, following in pairwise([*plain, ""])
        if _NAMES_A_CULPRIT.search(line) and not _NAMES_A_CULPRIT.search(following)
    ]
    if named:
        return "; ".join(named[:3]) + (f"; and {len(named) - 3} more" if len(named) > 3 else "")
    return plain[-1] if plain else "no output"


def _plain(line: str) -> str:
    return _DECORATION.sub("", line).strip()


@contextmanager
def _online_store(settings: Settings) -> Iterator[Any]:
    import redis

    with redis.Redis.from_url(settings.redis_url, decode_responses=True) as client:
        try:
            yield client
        except redis.ConnectionError as error:
            raise ServiceUnavailable(
                "online store", error, "Start the platform with `make up`, or set RECSYS_REDIS_URL"
            ) from error


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def parse(arguments: Sequence[str]) -> Task:
    """Return the task that a command line describes; what stands after `--` is the command."""
    parser = argparse.ArgumentParser(prog="python -m recsys.task", description=__doc__.split("\n")[0])
    parser.add_argument("name", help="name of the task, e.g. dbt.build")
    intervals.add_arguments(parser)
    parser.add_argument("--code", default="", help="folders of the repository that the command reads, comma-separated")
    parser.add_argument("--after", default="", help="tasks whose output it reads, comma-separated")
    parser.add_argument("--reads", default="", help="tables that no receipt covers: schema.table:instant_column,…")
    parser.add_argument("--online", action="store_true", help="the output is in the online store")
    parser.add_argument("command", nargs="+", help="the command and its arguments, after --")
    given = parser.parse_args(arguments)
    reads = [entry.partition(":") for entry in _words(given.reads)]
    for table, _, column in reads:
        if not (table and column):
            raise RecsysError("--reads", given.reads, "Write schema.table:column, comma-separated")
    return Task(
        name=given.name,
        interval=intervals.from_arguments(given),
        command=tuple(given.command),
        code=_words(given.code),
        after=_words(given.after),
        reads=tuple((table, column) for table, _, column in reads),
        is_online=given.online,
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    station.run(lambda: run_task(load_settings(), parse(sys.argv[1:])))
