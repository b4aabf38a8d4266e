"""Great Expectations in a worker of the test run."""

import importlib
import sys

import pytest


@pytest.fixture(scope="session", autouse=True)
def great_expectations() -> None:
    """Import it while the main module has a file: it imports Spark Connect, which takes a process whose main module has
    none, as a worker of pytest-xdist is, for a run of Spark's own doctests and ends it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
        importlib.import_module("great_expectations")
