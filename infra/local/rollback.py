"""`make rollback`: back to the version that served before, in the registry and on this machine, in one step.

The registry's alias moves first, so that no later deployment brings the bad version back; then the link that serving
watches. Where serving does not take the former version both return to where they were. An outcome row says who went
from where to where, when and why.
"""

from datetime import datetime
from time import perf_counter
from typing import Any

from infra.local.deploy import READY_SECONDS, TASK, deployed, flip, serves, take_back
from infra.local.service import NotHealthyYet, poll
from infra.registry import Version, champion
from recsys.errors import MissingArtifact, RecsysError, ServiceUnavailable
from recsys.registry import point_champion
from recsys.settings import Settings
from recsys.warehouse import Outcome, connect, write_outcomes

STATION, CHECK = "infra", "rollback"
LOCK = "select pg_try_advisory_xact_lock(hashtext('recsys rollback'))"


def rollback(settings: Settings, who: str, at: datetime, to: str | None = None, why: str = "") -> dict[str, Any]:
    """Serve an earlier version again and make it champion.

    Args:
        who: the account that asks, for the audit.
        to: the version to go back to; None: the one that the served version replaced.

    Raises:
        MissingArtifact: nothing is served, nothing served before, or that version's bundle is not on this machine.
        RecsysError: somebody else is rolling back, or `to` is what serves.
        ServiceUnavailable: the registry cannot be written to, or serving does not take the version; all is as before.
    """
    began = perf_counter()
    with connect(settings) as connection:
        if connection.execute(LOCK).fetchone() != (True,):
            raise RecsysError("rollback", "another one is under way", "Wait for it; `make status` shows what serves")
        served = deployed(settings.served_model)
        if served is None:
            raise MissingArtifact("served model", settings.served_model, "Deploy first; the pipeline does")
        target = to or _former(connection, served)
        if target == served.number:
            raise RecsysError("rollback", f"version {target} serves already", "Name an earlier one")
        folder = settings.var_dir.resolve() / "serving" / "bundles" / f"v{target}"
        version = deployed(folder)
        if version is None:
            kept = ", ".join(sorted(path.name for path in folder.parent.glob("v*")))
            raise MissingArtifact(f"bundle of version {target}", folder, f"On this machine are {kept}")
        was_champion = champion(settings.mlflow_url)
        point_champion(settings.mlflow_url, target)
        _serve(settings, version, was_champion)
        seconds = round(perf_counter() - began, 2)
        detail = {"who": who, "at": at.isoformat(), "from": served.number, "to": target, "why": why, "seconds": seconds}
        write_outcomes(
            connection,
            [
                Outcome(
                    STATION, at.date(), CHECK, f"version {served.number} → {target} by {who}", "in 5 s",
                    "pass" if seconds <= 5 else "warn", at.isoformat(), detail,
                )
            ],
        )  # fmt: skip
    return {**detail, "unchanged": False}


def _former(connection, served: Version) -> str:
    """Return the version that the served one replaced, as its deployment's receipt tells."""
    row = connection.execute(
        """
        select detail ->> 'former_version' from monitoring.receipts
        where task = %s and detail ->> 'model_version' = %s and detail ->> 'run_id' = %s
            and detail ->> 'former_version' is not null
        order by key desc limit 1
        """,
        (TASK, served.number, served.run_id),
    ).fetchone()
    if row is None:
        raise MissingArtifact(
            "former version", f"none served before version {served.number}", "Name one: make rollback TO=VERSION"
        )
    return row[0]


def _serve(settings: Settings, version: Version, was_champion: Version) -> None:
    before = flip(settings.served_model, settings.var_dir.resolve() / "serving" / "bundles" / f"v{version.number}")
    try:
        poll(lambda: serves(settings.serving_url, version), READY_SECONDS)
    except NotHealthyYet as error:
        take_back(settings.served_model, before)
        point_champion(settings.mlflow_url, was_champion.number)
        raise ServiceUnavailable(
            "serving", f"version {version.number} was not taken ({error})", "All is as before; see serving's log"
        ) from error
