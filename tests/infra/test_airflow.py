"""Airflow's configuration: one private file, the same secrets in every start, addresses that fit together."""

import base64
import configparser
from datetime import date

import pytest

from infra.local import airflow
from recsys.settings import HOME, Settings


@pytest.fixture
def settings(tmp_path):
    return Settings(
        _env_file=None,
        var_dir=tmp_path,
        postgres_url="postgresql://recsys:p%40ss@127.0.0.1:5555/recsys",
        airflow_url="http://127.0.0.1:9999",
        airflow_user="ada",
        schedule_from=date(2026, 11, 22),
    )


def read(path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()  # with interpolation, as Airflow reads it
    parser.read(path)
    return parser


def test_the_file_says_what_airflow_needs(settings, tmp_path):
    path = tmp_path / "airflow.cfg"
    path.write_text(airflow.configuration(settings, tmp_path, airflow.kept_or_new_secrets(path)))
    found = read(path)
    assert found["core"]["dags_folder"] == str(HOME / "dags")
    assert found["core"]["execution_api_server_url"] == "http://127.0.0.1:9999/execution/"
    assert found["api"]["port"] == "9999"
    assert found["api"]["host"] == "127.0.0.1"
    assert found["database"]["sql_alchemy_conn"] == "postgresql+psycopg2://recsys:p%40ss@127.0.0.1:5555/airflow"
    assert found["core"]["simple_auth_manager_users"] == "ada:admin"
    assert found["recsys"]["schedule_from"] == "2026-11-22"


def test_secrets_are_drawn_once_and_kept(settings, tmp_path):
    path = tmp_path / "airflow.cfg"
    drawn = airflow.kept_or_new_secrets(path)
    assert len(set(drawn.values())) == len(airflow.SECRETS) == 3
    assert all(len(base64.urlsafe_b64decode(value)) == 32 for value in drawn.values())
    path.write_text(airflow.configuration(settings, tmp_path, drawn))
    assert airflow.kept_or_new_secrets(path) == drawn
    assert airflow.kept_or_new_secrets(tmp_path / "other.cfg") != drawn


def test_the_components_share_one_preparation():
    calls = []
    prepare = airflow.once(lambda: calls.append("prepared"))
    prepare()
    prepare()
    assert calls == ["prepared"]


def test_a_failed_preparation_is_tried_again_by_the_next_component():
    calls = []

    def prepare():
        calls.append("tried")
        if len(calls) == 1:
            raise OSError("database is away")

    shared = airflow.once(prepare)
    with pytest.raises(OSError, match="away"):
        shared()
    shared()
    shared()
    assert calls == ["tried", "tried"]
