"""Serving follows the registry: what is decided without a registry or a server."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.local import follow
from recsys.errors import ServiceUnavailable
from recsys.promotion import candidate_folder
from recsys.settings import Settings
from tests.ports import free_port

NOW = datetime(2026, 11, 29, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, var_dir=tmp_path, serving_url=f"http://127.0.0.1:{free_port()}")


def test_before_the_first_deployment_there_is_nothing_to_follow(settings):
    assert follow._stand_beside(settings, None, NOW) is False


def test_a_candidate_that_goes_is_gone_only_when_serving_says_so(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(follow, "READY_SECONDS", 0.1)
    link = candidate_folder(settings)
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path)
    with pytest.raises(ServiceUnavailable, match="serving"):
        follow._stand_beside(settings, None, NOW)
    assert link.is_symlink()
