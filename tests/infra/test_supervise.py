"""The supervisor: what it is told, and that it does it, on real processes."""

import configparser
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
import redis

from infra.local import platform, stores
from infra.local.service import BEHIND_ANSWERS, NotHealthyYet, Service, poll, stand_back
from infra.local.supervise import LONGEST_SOCKET_PATH, Supervisor, render, socket_path
from recsys.errors import RecsysError, ServiceUnavailable
from recsys.settings import Settings
from tests.conftest import POSTGRES_TEST_OPTIONS
from tests.ports import free_port

LOOPBACK = stores.LOOPBACK


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    """An installation of its own: nothing is shared with the session's services, so that a test may kill."""
    var_dir = Path(tempfile.mkdtemp(prefix="recsys-tests-"))
    var_dir.chmod(0o711)
    yield Settings(
        _env_file=None,
        var_dir=var_dir,
        postgres_url=f"postgresql://recsys:secret@{LOOPBACK}:{free_port()}/recsys",
        redis_url=f"redis://:secret@{LOOPBACK}:{free_port()}/0",
        records_url=f"redis://:secret@{LOOPBACK}:{free_port()}/0",
    )
    Supervisor(var_dir).stop()
    shutil.rmtree(var_dir)


def parsed(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    return parser


def test_every_service_is_a_program_that_is_restarted_and_stopped_with_its_group(settings):
    services = platform.definitions(settings)
    configuration = parsed(render(services, settings.var_dir))
    programs = [name for name in configuration.sections() if name.startswith("program:")]
    assert programs == [f"program:{service.name}" for service in services]
    assert len(programs) == 12
    for name in programs:
        program = configuration[name]
        assert program["autostart"] == "false"
        assert program["autorestart"] == program["stopasgroup"] == program["killasgroup"] == "true"
    assert configuration["program:postgres"]["stopsignal"] == "INT"
    assert configuration["program:mlflow"]["environment"].count("RECSYS_VAR_DIR=") == 1
    assert "secret" not in configuration["program:mlflow"]["command"]


def test_what_nobody_waits_for_stands_back_behind_answers(settings):
    services = {service.name: service for service in platform.definitions(settings)}
    program = parsed(render(services.values(), settings.var_dir))["program:airflow-scheduler"]
    assert program["command"].startswith("nice -n 10 ")
    for before, behind in (("serving", "streaming"), ("streaming", "mlflow"), ("streaming", "dashboard")):
        assert services[before].niceness < services[behind].niceness, (before, behind)
    for name in ("postgres", "kafka", "streaming"):  # an event goes through all three
        assert services[name].niceness == BEHIND_ANSWERS, name
    for name in ("serving", "valkey", "records"):  # an answer waits for them, or its reader does
        assert services[name].line == services[name].command, name


def test_a_session_of_its_own_stands_back_as_a_whole():
    sleeper = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        stand_back(sleeper.pid, 7)
        group = Path(f"/proc/{sleeper.pid}/autogroup")
        if not group.exists():
            pytest.skip("this kernel does not divide the processors among sessions (no /proc/PID/autogroup)")
        assert group.read_text().split()[-1] == "7"
    finally:
        sleeper.kill()
        sleeper.wait()


def test_nothing_listens_beyond_this_machine(settings):
    services = {service.name: service for service in platform.definitions(settings)}
    assert f"--listen_addresses={LOOPBACK}" in services["postgres"].command
    assert services["mlflow"].command[4:6] == ("--host", LOOPBACK)
    assert "--skip-serve-logs" in services["airflow-scheduler"].command
    assert urlsplit(services["dashboard"].environment["RECSYS_DASHBOARD_URL"]).hostname == LOOPBACK


@pytest.mark.parametrize("odd", ['a%(b)s "c" \\ d, e=f;g', "it's 100%"])
def test_special_characters_reach_the_process(tmp_path, odd):
    out = tmp_path / "a folder" / "out.txt"
    out.parent.mkdir()
    script = "import os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(os.environ['ODD'] + '|' + sys.argv[2])"
    service = Service(
        "odd", (sys.executable, "-c", script, str(out), "100% of it"), "", (), lambda: None, environment={"ODD": odd}
    )
    text = render([service], tmp_path)
    assert shlex.split(parsed(text)["program:odd"]["command"].replace("%%", "%"))[3] == str(out)
    supervisor = Supervisor(tmp_path)
    supervisor.start([service])
    try:
        supervisor.start_process("odd")

        def written() -> None:
            if not out.exists() or out.read_text() != f"{odd}|100% of it":
                raise NotHealthyYet(out.read_text() if out.exists() else supervisor.log_tail("odd"))

        poll(written, 20)
    finally:
        supervisor.stop()


def test_a_deep_folder_gets_a_socket_that_fits(tmp_path):
    deep = tmp_path / ("x" * 120)
    near, far = socket_path(tmp_path), socket_path(deep)
    assert near.parent == tmp_path
    assert len(os.fsencode(far)) <= LONGEST_SOCKET_PATH
    assert far == socket_path(deep)
    assert far != socket_path(tmp_path / ("y" * 120))


def test_a_supervisor_in_a_deep_folder_starts_and_stops(tmp_path):
    supervisor = Supervisor(tmp_path / ("x" * 120))
    supervisor.start([])
    pid = supervisor.pid()
    assert pid is not None
    assert supervisor.stop() == 2, "itself and the listener"
    assert not psutil.pid_exists(pid)
    assert supervisor.pid() is None
    assert not socket_path(supervisor.var_dir).parent.exists()


@pytest.fixture(scope="module")
def stores_running(settings) -> Supervisor:
    """PostgreSQL and both Valkeys under a supervisor, healthy."""
    services = [stores.postgres(settings, POSTGRES_TEST_OPTIONS), stores.valkey(settings), stores.records(settings)]
    supervisor = Supervisor(settings.var_dir)
    supervisor.start(services)
    assert platform.Start(supervisor, services).run(), "they were not there before"
    assert not platform.Start(supervisor, services).run(), "a second start finds all of them"
    return supervisor


@pytest.mark.services
@pytest.mark.parametrize("name", ["postgres", "valkey"])
def test_a_killed_service_comes_back_with_its_data(settings, stores_running, name):
    with psycopg.connect(settings.postgres_url, autocommit=True) as connection:
        connection.execute("create table if not exists kept as select 42 as answer")
        connection.execute("checkpoint")
    with redis.Redis.from_url(settings.redis_url) as client:
        client.set("kept", 42)
        client.waitaof(1, 0, 5000)

    pid = stores_running.processes()[name]["pid"]
    os.kill(pid, signal.SIGKILL)
    service = {"postgres": stores.postgres, "valkey": stores.valkey}[name](settings)

    def is_back() -> None:
        info = stores_running.processes()[name]
        if info["pid"] in (0, pid):
            raise NotHealthyYet(info["description"])
        service.check()

    poll(is_back, 60)
    with psycopg.connect(settings.postgres_url) as connection:
        assert connection.execute("select answer from kept").fetchone() == (42,)
    with redis.Redis.from_url(settings.redis_url) as client:
        assert client.get("kept") == b"42"


@pytest.mark.services
def test_nothing_of_the_requests_records_reaches_the_disk_and_the_oldest_go_when_they_are_full(
    settings, stores_running
):
    with redis.Redis.from_url(settings.records_url) as client:
        assert client.config_get("appendonly", "save") == {"appendonly": "no", "save": ""}
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 2_000_000)
        for number in range(1000):
            client.set(f"request:{number}", b"r" * 4000, px=1_000_000 + 1000 * number)
        assert client.info("stats")["evicted_keys"] > 0
        newest, oldest = (sum(client.exists(f"request:{n}") for n in some) for some in (range(900, 1000), range(100)))
        assert newest == 100
        assert oldest < 20  # of 100; 0 to 5 in sixty stores
    with redis.Redis.from_url(settings.redis_url) as client:
        assert client.config_get("appendonly") == {"appendonly": "yes"}
    assert [path.name for path in (settings.var_dir / "records").iterdir()] == ["valkey.conf"]


@pytest.mark.services
def test_passwords_are_wanted_and_the_ports_are_on_the_loopback_only(settings, stores_running):
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(settings.postgres_url.replace(":secret@", "@"))
    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url(settings.redis_url.replace(":secret@", "")).ping()
    roots = [stores_running.processes()[name]["pid"] for name in ("postgres", "valkey", "records")]
    addresses = {
        connection.laddr.ip
        for pid in roots
        for connection in psutil.Process(pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {LOOPBACK}


def test_a_service_that_dies_at_its_start_is_reported_with_its_last_words(tmp_path):
    dying = Service("dying", (sys.executable, "-c", "raise SystemExit('no such table')"), "", (), check=lambda: None)
    supervisor = Supervisor(tmp_path)
    supervisor.start([dying])
    try:
        with pytest.raises(ServiceUnavailable, match=r"dying: it ends at its start: .*no such table"):
            platform.Start(supervisor, [dying]).run()
    finally:
        supervisor.stop()


def test_a_killed_service_leaves_no_child_that_holds_its_port(tmp_path):
    port = free_port()
    child = (
        f"import socket; server = socket.create_server(({LOOPBACK!r}, {port}));\nwhile True: server.accept()[0].close()"
    )
    parent = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {child!r}]).returncode)"

    def listening() -> psutil.Process:
        (process,) = psutil.Process(supervisor.processes()["parent"]["pid"]).children()
        if not any(socket.laddr.port == port for socket in process.net_connections("tcp")):
            raise NotHealthyYet(supervisor.log_tail("parent"))
        return process

    def check() -> None:
        try:
            listening()
        except (ValueError, psutil.Error) as error:
            raise NotHealthyYet(f"{error} {supervisor.log_tail('parent')}") from error

    service = Service("parent", (sys.executable, "-c", parent), "", (), check=check)
    supervisor = Supervisor(tmp_path)
    supervisor.start([service])
    try:
        platform.Start(supervisor, [service]).run()
        left, pid = listening(), supervisor.processes()["parent"]["pid"]
        os.kill(pid, signal.SIGKILL)

        def is_back() -> None:
            if supervisor.processes()["parent"]["pid"] in {0, pid}:
                raise NotHealthyYet("not started again yet")
            check()

        poll(is_back, 20)
        assert not left.is_running()
    finally:
        supervisor.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to a subreaper")
def test_stopping_ends_orphans_too(tmp_path):
    """A parent that is killed leaves a child in a session of its own, as a task's command is."""
    note = tmp_path / "pid"
    child = "import signal; signal.pause()"
    parent = (
        "import pathlib, subprocess, sys, signal;"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True);"
        f"pathlib.Path({str(note)!r} + '.part').write_text(str(child.pid));"
        f"pathlib.Path({str(note)!r} + '.part').rename({str(note)!r});"
        "signal.pause()"
    )

    def check() -> None:
        if not note.exists():
            raise NotHealthyYet("no child yet")

    service = Service("parent", (sys.executable, "-c", parent), "", (), check=check)
    supervisor = Supervisor(tmp_path)
    supervisor.start([service])
    try:
        platform.Start(supervisor, [service]).run()
        orphan = psutil.Process(int(note.read_text()))
        parent_process = psutil.Process(supervisor.processes()["parent"]["pid"])
        supervisor.rpc().stopProcess("parent")
        assert not parent_process.is_running()
        assert orphan.is_running()
        assert orphan.ppid() == supervisor.pid()
    finally:
        supervisor.stop()
    assert not orphan.is_running()


def test_a_changed_definition_replaces_the_running_service(tmp_path):
    def waiting(word: str) -> Service:
        command = (sys.executable, "-c", f"import signal; print({word!r}); signal.pause()")
        return Service("waiting", command, "", (), check=lambda: None)

    supervisor = Supervisor(tmp_path)
    try:
        for word in ("one", "two"):
            supervisor.start([waiting(word)])
            assert platform.Start(supervisor, [waiting(word)]).run()
            command = psutil.Process(supervisor.processes()["waiting"]["pid"]).cmdline()
            assert word in command[-1]
    finally:
        supervisor.stop()


def test_the_platform_is_not_removed_while_it_runs(tmp_path):
    settings = Settings(_env_file=None, var_dir=tmp_path / "var")
    supervisor = Supervisor(settings.var_dir)
    supervisor.start([])
    try:
        with pytest.raises(RecsysError, match=r"still runs.*make down"):
            platform.clean(settings, with_environments=False)
    finally:
        supervisor.stop()
    with pytest.raises(RecsysError, match=r"holds no platform\.env"):
        platform.clean(settings, with_environments=False)
    (settings.var_dir / "platform.env").touch()
    assert platform.clean(settings, with_environments=False)["removed"] == [str(settings.var_dir)]
    assert not settings.var_dir.exists()
