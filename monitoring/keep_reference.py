"""At registration: the histograms of what the registered versions of this interval have learned from."""

from typing import Any

from monitoring.references import Histogram, write
from monitoring.windows import WATCHED, read_rows
from recsys.interval import Interval
from recsys.receipts import code_fingerprint, fingerprint, latest, recall, record
from recsys.settings import Settings
from recsys.warehouse import connect

TASK = "monitoring.reference"


def keep_reference(settings: Settings, interval: Interval) -> dict[str, Any]:
    """Keep the histogram of each watched column before the interval's end, by the cut of the registered versions.

    Raises:
        MissingArtifact: nothing was registered for this interval.
    """
    with connect(settings) as connection:
        upstream, registered = latest(connection, "training.register", interval.key)
        wanted = fingerprint(code_fingerprint("monitoring", "recsys"), upstream, settings.seed)
        done = recall(connection, TASK, interval.key, wanted)
        if done is not None:
            return {"unchanged": True, **done}
        kept = [
            Histogram.of(f"{watched.table}.{name}", kind, rows[name], rows[watched.unit], settings.seed)
            for watched in WATCHED
            for rows in [read_rows(connection, watched, interval, None, settings.seed)]
            for name, kind in watched.kinds().items()
        ]
        write(connection, registered["cut_id"], interval.end, kept)
        detail = {"cut_id": registered["cut_id"], "columns": len(kept)}
        record(connection, TASK, interval.key, wanted, detail)
    return {"unchanged": False, **detail}
