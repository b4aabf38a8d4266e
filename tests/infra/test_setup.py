"""Setup before anything is installed: what it says about a machine, and what it takes from pip's configuration."""

import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from infra.local import java, setup
from recsys.settings import HOME


def test_it_needs_nothing_that_is_not_in_the_standard_library():
    code = "import sys, infra.local.setup; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    bare = subprocess.run([sys.executable, "-S", "-c", code], cwd=HOME, capture_output=True, text=True, check=True)
    loaded = set(bare.stdout.split()) - {"__main__", "infra"}
    assert "argparse" in loaded
    assert loaded <= set(sys.stdlib_module_names)


def test_this_machine_is_ready():
    assert setup.complaints() == []


def test_everything_that_is_missing_is_said_at_once_with_the_way_out(monkeypatch, tmp_path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setattr(setup, "VENVS", tmp_path)
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(2**30))
    version = namedtuple("Version", "major minor micro releaselevel serial")(3, 13, 0, "final", 0)
    monkeypatch.setattr(setup.sys, "version_info", version)
    said = setup.complaints()
    assert [sentence.split(":")[0] for sentence in said] == ["Python", "Java", "Disk"]
    assert "JAVA_HOME" in said[1]
    assert "1.0 GiB are free" in said[2]


@pytest.mark.parametrize(
    ("answer", "code", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 0, 17),
        ('openjdk version "21" 2023-09-19', 0, 21),
        ('java version "1.8.0_402"', 0, 8),
    ],
)
def test_the_version_of_java_is_read(tmp_path, answer, code, version):
    assert java.java_version(fake_java(tmp_path, answer, code)) == version


def test_a_java_without_the_module_that_spark_asks_for_is_none(tmp_path):
    broken = fake_java(tmp_path, "Error occurred: Module jdk.incubator.vector not found", 1)
    with pytest.raises(java.NoJava, match=r"jdk\.incubator\.vector"):
        java.java_version(broken)


def test_an_old_java_is_refused_by_its_version(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    fake_java(tmp_path / "bin", 'openjdk version "11.0.2"', 0)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(java.NoJava, match="version 11"):
        java.check_java()


def fake_java(folder, answer, code):
    path = folder / "java"
    path.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{answer}\nEND\nexit {code}\n")
    path.chmod(0o755)
    return str(path)


def test_pips_configuration_reaches_uv(monkeypatch, tmp_path):
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nfind-links = /from/the/file\ncert = /certificates.pem\nindex-url = https://mirror.invalid/simple\n"
    )
    for name in ("PIP_CERT", "PIP_INDEX_URL", "PIP_DEFAULT_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    monkeypatch.setenv("PIP_FIND_LINKS", "/one /two")
    monkeypatch.setenv("PIP_TIMEOUT", "77")
    configuration = setup.pip_configuration(str(Path(sys.base_prefix, "bin", "python3.11")))  # ours carries no pip
    assert configuration["find-links"] == ["/one", "/two"]
    command = setup.uv_command(configuration)
    assert "SSL_CERT_FILE=/certificates.pem" in command
    assert "UV_HTTP_TIMEOUT=77" in command
    assert "UV_PYTHON_DOWNLOADS=never" in command
    assert setup.uv_sources(configuration) == [
        "--find-links", "/one", "--find-links", "/two", "--default-index", "https://mirror.invalid/simple",
    ]  # fmt: skip


def test_an_environment_with_the_wanted_stamp_costs_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(setup, "VENVS", tmp_path)
    commands = []
    monkeypatch.setattr(
        setup, "run", lambda command, log: commands.append(command) or (tmp_path / "serving").mkdir(exist_ok=True)
    )
    steps = setup.Setup(setup.Progress())
    steps.environment("serving", "serving")
    assert [command[-1] for command in commands[:1]] == [str(tmp_path / "serving")]
    assert {"--require-hashes", "sync"} <= set(commands[1])
    done = len(commands)
    steps.environment("serving", "serving")
    assert len(commands) == done
    steps.environment("serving", "serving", "test")
    assert len(commands) > done, "more locks are another content"
    done = len(commands)
    steps.environment("serving", "serving", or_more=("test",))
    assert len(commands) == done, "what holds more is left alone"


def test_what_judges_manifests_is_built_once_where_there_is_go(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(setup, "VENVS", tmp_path)
    commands, there = [], {"go": "/usr/bin/go", "kubectl": "/usr/bin/kubectl", "env": "/usr/bin/env"}
    monkeypatch.setattr(setup, "run", lambda command, log: commands.append(command))
    monkeypatch.setattr(setup.shutil, "which", there.get)
    (tmp_path / "cloud" / "bin").mkdir(parents=True)
    steps = setup.Setup(setup.Progress())
    steps.go_tools()
    steps.go_tools()
    (built,) = commands
    assert built[1:4] == [f"GOBIN={tmp_path / 'cloud' / 'bin'}", "go", "install"]
    assert built[4].startswith("github.com/yannh/kubeconform/"), "kubectl renders as kustomize does"
    del there["go"], there["kubectl"]
    steps.go_tools()
    assert len(commands) == 1
    assert "kustomize: left out, this machine has no Go" in capsys.readouterr().out


def test_a_failed_command_ends_in_one_sentence_with_its_last_lines(tmp_path):
    script = "print('boring'); raise SystemExit('no space left')"
    with pytest.raises(setup.SetupFailed, match=r"ended with 1.*no space left.*The whole log is"):
        setup.run([sys.executable, "-c", script], tmp_path / "logs" / "step.log")
