"""A target of the Makefile that lacks something says in one sentence what, before anything runs."""

import subprocess

import pytest

from recsys.settings import HOME

SAYS = {
    "benchmark": "make benchmark TRAIN=FILE",
    "benchmark TRAIN=a FORMAT=ncf OUT=b": "make benchmark TRAIN=FILE",
    "lineage": "make lineage ID=",
    "bench": "make bench DATA_DIR=",
    "bench DATA_DIR=/nowhere": "make bench DATA_DIR=",
    **{f"{target} RUN=/nowhere": "run make setup" for target in ("status", "rollback", "lint", "eda", "report")},
}


@pytest.mark.parametrize("words", SAYS)
def test_a_target_says_what_it_lacks(words):
    made = subprocess.run(["make", "-s", "PYTHON=/nowhere", *words.split()], cwd=HOME, capture_output=True, text=True)

    assert made.returncode == 2
    assert SAYS[words] in made.stderr.splitlines()[0]
    assert made.stdout == ""
