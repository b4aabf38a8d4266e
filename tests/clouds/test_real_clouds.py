"""The conformance suite against real clouds, with real credentials and real money; deselected by default.

    RECSYS_CLOUDS=clouds.json .venv/cloud/bin/python -m pytest -m cloud --confcutdir=tests/clouds \\
        tests/clouds/test_real_clouds.py

The file names where, with an `endpoint` (on Kubernetes a `namespace`) that nobody uses; the images of the versions 1
and 2 have to be in the registry, made of the bundles of `tests.worlds.served`. Everything is removed afterwards.
"""

import json
import subprocess
import sys

import pytest

from infra import configuration
from recsys.settings import HOME, load_settings
from tests.clouds.conformance import check_the_whole_way


@pytest.mark.cloud
@pytest.mark.parametrize("name", configuration.names())
def test_a_real_cloud_conforms(name, tmp_path):
    settings = load_settings()
    if not settings.clouds:
        pytest.skip("RECSYS_CLOUDS names no file: there is no account to use")
    clouds = configuration.read(settings)
    if name not in clouds.targets:
        pytest.skip(f"{settings.clouds} has no part {name}")
    target = configuration.target(name, settings.model_copy(update={"var_dir": tmp_path}), clouds)
    assert target.shares() == {}, "something serves there: give the test an endpoint of its own"
    first, second = (configuration.release(name, clouds, each) for each in ("1", "2"))
    try:
        check_the_whole_way(target, first, second)
    finally:
        target.teardown()


def test_without_an_account_it_is_skipped_and_says_so(tmp_path):
    """And not even tried by default."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--confcutdir=tests/clouds", __file__]
    done = subprocess.run(
        [*command, "-m", "cloud", f"--junitxml={tmp_path / 'said.xml'}"], cwd=HOME, capture_output=True, text=True,
        check=False, env={"PATH": "/usr/bin:/bin", "RECSYS_CLOUDS": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert f"{len(configuration.names())} skipped" in done.stdout
    assert "there is no account to use" in done.stdout
    addopts = (HOME / "pyproject.toml").read_text()
    assert json.dumps("-m 'not soak and not cloud'")[1:-1] in addopts
