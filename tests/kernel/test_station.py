"""The shell around a station: one line of JSON, one sentence on failure, a traceback for our own mistakes."""

import json
import os
import subprocess
import sys

import pytest

from recsys import station
from recsys.errors import RecsysError, UnusableInput
from recsys.settings import HOME, load_settings


def test_success_is_the_last_line_of_standard_output(capsys):
    station.run(lambda: print("on the way") or {"rows": 3, "unchanged": False})
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"rows": 3, "unchanged": False}


def test_a_fault_that_a_person_can_act_on_is_one_sentence_and_exit_1(capsys):
    def fail():
        raise UnusableInput("ratings.csv", "no column `rating`", "Give the official file")

    with pytest.raises(SystemExit) as ended:
        station.run(fail)
    output = capsys.readouterr()
    assert ended.value.code == station.FAILED == 1
    assert output.out == ""
    assert output.err.splitlines()[-1] == (
        "FAILED UnusableInput: ratings.csv: no column `rating`. Give the official file"
    )


def test_a_mistake_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        station.run(lambda: {"rows": 1 // 0})


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("RECSYS_SEED", "many", "RECSYS_SEED: Input should be a valid integer"),
        ("RECSYS_VARIANT_WEIGHTS", "{half", "variant_weights"),
        ("WANDB_MODE", "maybe", "WANDB_MODE: Input should be 'disabled'"),
    ],
)
def test_a_setting_of_the_wrong_type_is_one_sentence_without_its_value(monkeypatch, tmp_path, name, value, says):
    monkeypatch.setenv("RECSYS_VAR_DIR", str(tmp_path))
    monkeypatch.setenv(name, value)
    with pytest.raises(RecsysError, match=says) as fault:
        load_settings.__wrapped__()
    assert value not in str(fault.value)


def test_an_unknown_name_in_the_installations_file_is_named(monkeypatch, tmp_path):
    (tmp_path / "platform.env").write_text("RECSYS_SEEED=1\n")
    monkeypatch.setenv("RECSYS_VAR_DIR", str(tmp_path))
    with pytest.raises(RecsysError, match=r"RECSYS_SEEED: Extra inputs are not permitted\. See docs/settings\.md"):
        load_settings.__wrapped__()


THREADS = """
from recsys import station

def main():
    import numpy, threadpoolctl
    return {"threads": [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]}

station.run(main)
"""


@pytest.mark.parametrize(
    ("said", "threads"), [({}, 1), ({"RECSYS_THREADS": "2"}, 2), ({"RECSYS_THREADS": "2", "OMP_NUM_THREADS": "1"}, 1)]
)
def test_numeric_libraries_have_as_many_threads_as_the_settings_or_the_environment_say(said, threads, tmp_path):
    others = {name: value for name, value in os.environ.items() if not name.endswith(("_THREADS", "RECSYS_VAR_DIR"))}
    environment = {**others, "RECSYS_VAR_DIR": str(tmp_path), **said}
    ended = subprocess.run(
        [sys.executable, "-c", THREADS], env=environment, capture_output=True, text=True, check=True, cwd=HOME
    )
    assert json.loads(ended.stdout)["threads"] == [min(threads, len(os.sched_getaffinity(0)))]
