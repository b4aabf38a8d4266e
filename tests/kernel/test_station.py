"""The shell around a station: one line of JSON, one sentence on failure, a traceback for our own mistakes."""

import json

import pytest

from recsys import station
from recsys.errors import RecsysError, UnusableInput
from recsys.settings import load_settings


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
