"""Foreign commands under a receipt: done once for each state of what they read, red with the culprit's name."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import date

import pytest
import tenacity

from recsys import receipts
from recsys.errors import MissingArtifact, RecsysError, ServiceUnavailable
from recsys.interval import Interval
from recsys.settings import HOME, Settings
from recsys.task import Task, command_environment, culprit, parse, run_command, run_task
from recsys.warehouse import connect

INTERVAL = Interval(("movies",), date(2020, 3, 1))
HELLO = Task("greet", INTERVAL, (sys.executable, "-c", "print('hello')"), after=("etl.load",))
STREAM = ("raw.interactions_stream", "occurred_at")
INSERT = "insert into raw.interactions values (%s, 'u', 'i', null, %s, 'movies', 'view', '{}', 'stream', 'stream')"


@pytest.fixture(scope="module")
def settings(world) -> Settings:
    return world("postgres", "redis")


@pytest.fixture
def loaded(settings):
    with connect(settings) as connection:
        connection.execute("truncate monitoring.receipts, raw.interactions")
        receipts.record(connection, "etl.load", "history/movies@2020-03-01", "first", {})
    return settings


def test_a_task_runs_once_for_each_state_of_its_upstream(loaded):
    first = run_task(loaded, HELLO)
    assert (first["unchanged"], first["last_line"]) == (False, "hello")
    assert run_task(loaded, HELLO) == {"task": "greet", "unchanged": True}
    with connect(loaded) as connection:
        receipts.record(connection, "etl.load", "2020-02-29/movies@2020-03-01", "another partition", {})
    assert run_task(loaded, HELLO)["unchanged"] is False
    assert run_task(loaded, HELLO)["unchanged"] is True


def test_another_command_interval_or_code_is_other_work(loaded, monkeypatch):
    run_task(loaded, HELLO)
    assert run_task(loaded, replace(HELLO, command=(*HELLO.command, "--loudly")))["unchanged"] is False
    run_task(loaded, HELLO)
    assert run_task(loaded, replace(HELLO, interval=replace(INTERVAL, since=date(2020, 2, 29))))["unchanged"] is False
    run_task(loaded, HELLO)
    monkeypatch.setattr(receipts, "code_fingerprint", lambda *folders: f"edited {folders}")
    assert run_task(loaded, HELLO)["unchanged"] is False


def test_rows_that_no_receipt_covers_count_if_they_lie_before_the_end(loaded):
    task = replace(HELLO, reads=(STREAM,))
    run_task(loaded, task)
    with connect(loaded) as connection:
        connection.execute(INSERT, ("at as_of", INTERVAL.end))
    assert run_task(loaded, task)["unchanged"] is True
    with connect(loaded) as connection:
        connection.execute(INSERT, ("late", "2020-01-01T00:00:00Z"))
    assert run_task(loaded, task)["unchanged"] is False


def test_without_its_upstream_a_task_does_not_run(loaded):
    with pytest.raises(MissingArtifact, match=r"dbt\.build"):
        run_task(loaded, replace(HELLO, after=("dbt.build",)))


@pytest.mark.parametrize("reads", [("raw.nothing", "occurred_at"), ("raw.users", "occurred_at"), ("users", "x")])
def test_what_it_reads_must_exist(loaded, reads):
    with pytest.raises(RecsysError, match="--reads"):
        run_task(loaded, replace(HELLO, reads=(reads,)))


def test_a_timeless_command_is_not_run_again_for_another_interval(loaded):
    task = replace(HELLO, name="feast.apply")
    later = replace(task, interval=Interval(("books",), date(2024, 1, 1)))
    assert [run_task(loaded, task)["unchanged"], run_task(loaded, later)["unchanged"]] == [False, True]
    assert run_task(loaded, replace(later, command=(*task.command, "again")))["unchanged"] is False


def test_an_output_that_the_online_store_lost_is_made_again(loaded):
    import redis

    task = replace(HELLO, is_online=True)
    assert run_task(loaded, task)["unchanged"] is False
    assert run_task(loaded, task)["unchanged"] is True
    with redis.Redis.from_url(loaded.redis_url) as client:
        client.flushdb()
    assert run_task(loaded, task)["unchanged"] is False


def test_a_dead_online_store_is_named(loaded):
    dead = loaded.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    with pytest.raises(ServiceUnavailable, match="online store"):
        run_task(dead, replace(HELLO, is_online=True))


def test_a_failed_command_leaves_no_receipt(loaded):
    task = replace(HELLO, command=(sys.executable, "-c", "raise ValueError('no such mart')"))
    with pytest.raises(RecsysError, match=r"exit code 1: ValueError: no such mart\."):
        run_task(loaded, task)
    with pytest.raises(MissingArtifact), connect(loaded) as connection:
        receipts.latest(connection, task.name, INTERVAL.key)


def test_the_shell_prints_one_line_of_json_and_the_log_goes_to_stderr(loaded):
    arguments = ["greet", "--as-of", "2020-03-01", "--after", "etl.load", "--", sys.executable, "-c", "print('hello')"]
    for unchanged in (False, True):
        ended = subprocess.run(
            [sys.executable, "-m", "recsys.task", *arguments], cwd=HOME, capture_output=True, text=True, check=True
        )
        assert json.loads(ended.stdout)["unchanged"] is unchanged
        assert ("hello" in ended.stderr) is not unchanged


def test_a_command_does_not_outlive_its_interrupted_task(loaded, tmp_path):
    born = tmp_path / "pid"
    sleep = f"import os, pathlib, signal; pathlib.Path({str(born)!r}).write_text(str(os.getpid())); signal.pause()"
    shell = subprocess.Popen(
        [sys.executable, "-m", "recsys.task", "sleep", "--as-of", "2020-03-01", "--", sys.executable, "-c", sleep],
        cwd=HOME, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip

    @tenacity.retry(stop=tenacity.stop_after_delay(60), wait=tenacity.wait_fixed(0.05))
    def child_pid() -> int:
        return int(born.read_text())

    child = child_pid()
    shell.send_signal(signal.SIGTERM)
    assert shell.wait(60) != 0

    @tenacity.retry(
        stop=tenacity.stop_after_delay(60), wait=tenacity.wait_fixed(0.05), retry=tenacity.retry_if_result(bool)
    )
    def is_alive() -> bool:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return False
        return True

    assert is_alive() is False


def test_a_command_that_is_no_program_says_so(settings):
    with pytest.raises(RecsysError, match="no-such-program"):
        run_command(["no-such-program"], command_environment(settings))


def test_the_environment_finds_our_programs_and_packages_first(settings):
    environment = command_environment(settings)
    assert environment["PATH"].split(os.pathsep)[0] == os.path.dirname(sys.executable)
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(HOME)
    assert environment["PGDATABASE"] == settings.postgres_url.rpartition("/")[2]


def test_culprit_names_what_dbt_names():
    log = [
        "02:53:12  33 of 72 FAIL 1 unique_fct_interactions_event_id  [FAIL 1 in 0.27s]",
        "02:53:14  [ERROR]: in test unique_fct_interactions_event_id (models/marts/core/_core.yml)",
        "02:53:14    Got 1 result, configured to fail if != 0",
        "02:53:14  [ERROR]: in model dim_users (models/marts/core/dim_users.sql)",
        "02:53:14    Database Error in model dim_users (models/marts/core/dim_users.sql)",
        '  column "x" does not exist',
    ]
    assert culprit(log).split("; ") == [
        "test unique_fct_interactions_event_id (models/marts/core/_core.yml): Got 1 result, configured to fail if != 0",
        'Database Error in model dim_users (models/marts/core/dim_users.sql): column "x" does not exist',
    ]
    assert culprit(["Traceback …", "ValueError: x"]) == "ValueError: x"
    assert culprit(["\x1b[1m\x1b[31mred\x1b[0m: no"]) == "red: no"
    assert culprit([]) == "no output"


def test_parse_takes_everything_after_the_dashes_as_the_command():
    line = "t --as-of 2020-03-01 --domains movies,books --code dbt,recsys --reads a.b:c --online -- dbt build --vars x"
    task = parse(line.split())
    assert task.command == ("dbt", "build", "--vars", "x")
    assert task.code == ("dbt", "recsys")
    assert task.reads == (("a.b", "c"),)
    assert task.is_online
    assert task.interval.domains == ("books", "movies")


def test_parse_refuses_a_table_without_a_column():
    with pytest.raises(RecsysError, match="--reads"):
        parse(["t", "--as-of", "2020-03-01", "--reads", "raw.users", "--", "true"])
