"""platform.env and the ports: written once, private, and never in the way of another program."""

import socket
import stat
from datetime import date

import pytest

from infra.local import environment, stores
from infra.local.service import Service
from recsys.errors import RecsysError
from recsys.settings import load_settings

TODAY = date(2026, 11, 22)


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Settings of a new installation in a folder of its own, with nothing set in the environment."""
    for name in environment.URL_OF_SERVICE.values():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RECSYS_VAR_DIR", str(tmp_path / "var"))
    load_settings.cache_clear()
    yield load_settings
    load_settings.cache_clear()


def test_the_first_call_draws_passwords_that_only_we_can_read(fresh, tmp_path):
    settings = environment.ensure(fresh(), TODAY)
    path = tmp_path / "var" / "platform.env"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    passwords = {
        settings.postgres_url.split(":")[2].split("@")[0],
        settings.redis_url.split(":")[2].split("@")[0],
        settings.airflow_password,
    }
    assert len(passwords) == 3
    assert all(len(password) >= 16 for password in passwords)
    assert settings.schedule_from == TODAY


def test_the_second_call_changes_nothing(fresh, tmp_path):
    environment.ensure(fresh(), TODAY)
    path = tmp_path / "var" / "platform.env"
    before = path.read_bytes()
    fresh.cache_clear()
    environment.ensure(fresh(), date(2027, 1, 1))
    assert path.read_bytes() == before


def test_the_environment_is_stronger_than_the_file_and_is_taken_over_by_a_new_one(fresh, monkeypatch):
    monkeypatch.setenv("RECSYS_SERVING_URL", "http://127.0.0.1:7777")
    fresh.cache_clear()
    environment.ensure(fresh(), TODAY)
    monkeypatch.delenv("RECSYS_SERVING_URL")
    fresh.cache_clear()
    assert fresh().serving_url == "http://127.0.0.1:7777"
    monkeypatch.setenv("RECSYS_SERVING_URL", "http://127.0.0.1:8888")
    fresh.cache_clear()
    assert fresh().serving_url == "http://127.0.0.1:8888"


def test_an_address_that_hides_the_password_is_refused(fresh, monkeypatch):
    environment.ensure(fresh(), TODAY)
    monkeypatch.setenv("RECSYS_POSTGRES_URL", "postgresql://recsys@127.0.0.1:5555/recsys")
    fresh.cache_clear()
    with pytest.raises(RecsysError, match=r"RECSYS_POSTGRES_URL.*hides the address with its password"):
        environment.ensure(fresh(), TODAY)


def test_another_machines_service_is_not_started_here(fresh, monkeypatch):
    monkeypatch.setenv("RECSYS_REDIS_URL", "redis://:secret@cache.invalid:6379/0")
    fresh.cache_clear()
    with pytest.raises(RecsysError, match=r"RECSYS_REDIS_URL: cache\.invalid"):
        environment.ensure(fresh(), TODAY)


def test_the_users_own_files_are_told_to_every_task_and_forgotten_again(fresh, tmp_path):
    settings = environment.ensure(fresh(), TODAY)
    assert settings.data_dir is None
    assert environment.configure(settings, tmp_path).data_dir == tmp_path
    assert environment.configure(settings, None).data_dir is None
    with pytest.raises(RecsysError, match="DATA_DIR"):
        environment.configure(settings, tmp_path / "nothing")


def test_a_taken_port_is_said_with_its_owner_and_the_setting_that_moves_it(tmp_path):
    with socket.socket() as taken:
        taken.bind((stores.LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        service = Service("valkey", ("valkey",), "", (port,), check=lambda: None)
        with pytest.raises(RecsysError, match=f"{port} for valkey is taken by .*pid.*RECSYS_REDIS_URL"):
            environment.refuse_taken_ports([service], tmp_path / "platform.env")
    environment.refuse_taken_ports([service], tmp_path / "platform.env")


def test_every_service_with_a_port_has_a_setting_that_moves_it(fresh):
    from infra.local.platform import definitions

    services = [service for service in definitions(environment.ensure(fresh(), TODAY)) if service.ports]
    assert len(services) >= 7
    assert {service.name for service in services} <= environment.URL_OF_SERVICE.keys()
