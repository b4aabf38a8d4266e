"""The batch's receipt: lists already computed, of the same marts with the same model, are not computed again."""

from importlib.util import find_spec
from typing import Any

from recsys import receipts
from recsys.artifacts import ITEM_FACTS_FILE, RANKER_FILES
from recsys.errors import MissingArtifact, RecsysError
from recsys.interval import Interval
from recsys.settings import Settings
from recsys.warehouse import connect
from serving.graph import graph_file

TASK = "serving.batch"
UPSTREAM = "dbt.build"
MAX_LENGTH = 1000


def run(settings: Settings, interval: Interval, length: int, with_files: bool = True) -> dict[str, Any]:
    """Replace the precomputed lists, in files too unless told not to; return counts.

    Unchanged inputs and model are recognised by the receipt.

    A run that died is gone on with, if nothing has changed since; a second one at the same time waits for the first.

    Raises:
        MissingArtifact: no model is deployed, or the marts were not built for this interval.
        RecsysError: the length is none, or files are wanted and this environment cannot write them.
        ServiceUnavailable: the online store does not answer.
    """
    if not 1 <= length <= MAX_LENGTH:
        raise RecsysError("--length", length, f"Choose 1 to {MAX_LENGTH}")
    if with_files:
        _check_that_files_can_be_written()
    with connect(settings) as connection:
        connection.execute("select pg_advisory_lock(hashtext('serving batch'))")  # ends with the connection
        upstream, _ = receipts.latest(connection, UPSTREAM, interval.key)
        wanted = receipts.fingerprint(
            receipts.code_fingerprint("serving", "recsys"), length, upstream, _deployed(settings)
        )
        known = receipts.recall(connection, TASK, interval.key, wanted)
        if known is not None and _has_files(settings, wanted, with_files):
            return {**known, "unchanged": True}
        from serving.precompute import replace_lists  # numpy and Redis, needed from here on

        with connect(settings) as reading:
            files = _files(settings, wanted) if with_files else None
            counts = replace_lists(connection, reading, settings, interval, length, wanted, files)
        # the table holds one interval's lists: what was recorded of another is no longer there
        connection.execute("delete from monitoring.receipts where task = %s", (TASK,))
        receipts.record(connection, TASK, interval.key, wanted, counts)
    return {**counts, "unchanged": False}


def _check_that_files_can_be_written() -> None:
    if find_spec("pyarrow") is None:
        raise RecsysError(
            "this environment",
            "has no pyarrow",
            "Use that of the platform, or `--without-files` for table and cache only",
        )


def _has_files(settings: Settings, wanted: str, with_files: bool) -> bool:
    if not with_files:
        return True
    from serving.list_files import are_there

    return are_there(settings, wanted)


def _files(settings: Settings, wanted: str) -> Any:
    from serving.list_files import ListFiles

    return ListFiles(settings, wanted)


def _deployed(settings: Settings) -> list[str]:
    """Return what identifies the deployed model, what lies beside it, and the serving graph.

    Raises:
        MissingArtifact: none is deployed.
    """
    folder = settings.served_model
    if not folder.exists():
        raise MissingArtifact("deployed model", folder, "Run `python -m infra.local deploy` first")
    beside = (*RANKER_FILES, ITEM_FACTS_FILE, "manifest.json", "deployment.json")
    described = [path for path in (*(folder / name for name in beside), graph_file(settings)) if path.exists()]
    return [receipts.file_fingerprint(path) for path in described]
