"""The shell around a station: one line of JSON, one sentence on failure, a traceback for our own mistakes."""

import json

import pytest

from recsys import station
from recsys.errors import UnusableInput


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
