"""One step of the version on its way: reads its tags and what was seen of it, moves it, and says why in an outcome row.

May run at any time and as often as one likes: a step that was taken is not due again (training/promotion.py). The tags
are written in the transaction of the outcome row; a row that a killed process left out is written by the next one.
"""

from datetime import datetime
from typing import Any

import psycopg

from recsys.errors import MissingArtifact, RecsysError
from recsys.promotion import CHECK_EVIDENCE, CHECK_MOVE, Candidacy, Evidence, Stage, as_detail
from recsys.registry import candidacies, champion_of, point_champion, under_way, write_candidacy
from recsys.settings import Settings
from recsys.warehouse import Outcome, connect, write_outcomes
from training.promotion import Move, Rules, next_move

STATION = "training"
LOCK = "select pg_try_advisory_xact_lock(hashtext('recsys promotion'))"


def rules_of(settings: Settings) -> Rules:
    return Rules(
        planned_users=settings.promotion_planned_users,
        min_users=settings.promotion_min_users,
        margin=settings.promotion_margin,
        days=settings.promotion_days,
    )


def move(settings: Settings, now: datetime, back: str | None = None, why: str = "") -> dict[str, Any]:
    """Take the step that is due, if one is.

    Args:
        back: a version that a person takes back, whatever was seen of it.

    Raises:
        RecsysError: another process moves at this moment; MissingArtifact: the version to take back is not under way.
        ServiceUnavailable: the registry does not answer or cannot be written to; nothing has moved.
        UnusableInput: a version's tags cannot be used.
    """
    with connect(settings) as connection:
        if connection.execute(LOCK).fetchone() != (True,):
            raise RecsysError("promotion", "another process moves a version", "Run it again")
        known = candidacies(settings.mlflow_url)
        _complete_the_audit(connection, known)
        _retire(settings, connection, known, now)
        candidacy = under_way(known) or _waiting(known)
        if back is not None:
            candidacy = next((one for one in known if one.version == back and one.stage.is_under_way), None)
            if candidacy is None:
                raise MissingArtifact("version under way", back, "Only such a one is taken back; else `make rollback`")
        if candidacy is None:
            return {"candidate": None, "moved": False, "unchanged": True}
        champion = champion_of(settings.mlflow_url)
        evidence = _latest_evidence(connection, candidacy)
        due = next_move(candidacy, evidence, champion, now, rules_of(settings))
        if back is not None:
            due = Move(Stage.ROLLED_BACK, f"taken back by hand: {why or 'no reason given'}")
        if due is None:
            said = {"candidate": candidacy.version, "stage": candidacy.stage, "moved": False}
            return {**said, "waits": _waits(candidacy), "unchanged": True}
        moved = _take(settings, connection, candidacy, due, champion, evidence, now)
    return {"candidate": moved.version, "from": candidacy.stage, "stage": moved.stage, "moved": True, "why": moved.why,
            "unchanged": False}  # fmt: skip


def enter(settings: Settings, version: str, run_id: str, why: str, now: datetime) -> Candidacy:
    """Let a version that passed the gate on past data wait for its turn; one that is or was on its way stays there.

    Raises:
        ServiceUnavailable: the registry does not answer or cannot be written to.
    """
    known = next((one for one in candidacies(settings.mlflow_url) if one.version == version), None)
    if known is not None:
        return known
    candidacy = Candidacy(version=version, run_id=run_id, stage=Stage.CANDIDATE, entered_at=now, why=why)
    write_candidacy(settings.mlflow_url, candidacy)
    return candidacy


def _waiting(known: list[Candidacy]) -> Candidacy | None:
    """Return the latest version that waits for its turn."""
    return next((one for one in known if one.stage is Stage.CANDIDATE), None)


def _retire(settings: Settings, connection: psycopg.Connection, known: list[Candidacy], now: datetime) -> None:
    """Take back the versions that wait behind a later one: what they would show, that one shows with more data."""
    latest, *older = [one for one in known if one.stage is Stage.CANDIDATE] or [None]
    for one in older:
        _take(settings, connection, one, Move(Stage.ROLLED_BACK, f"version {latest.version} is later"), None, None, now)


def _latest_evidence(connection: psycopg.Connection, candidacy: Candidacy) -> Evidence | None:
    row = connection.execute(
        "select detail from monitoring.outcomes where check_name = %s and subject = %s"
        " order by outcome_date desc limit 1",
        (CHECK_EVIDENCE, f"{candidacy.version}/{candidacy.stage}"),
    ).fetchone()
    return Evidence.model_validate(row[0]) if row else None


def _take(
    settings: Settings,
    connection: psycopg.Connection,
    candidacy: Candidacy,
    due: Move,
    champion: str | None,
    evidence: Evidence | None,
    now: datetime,
) -> Candidacy:
    """Move the alias if it is the last step, then the tags, and write the row."""
    against = (champion or "") if candidacy.stage is Stage.CANDIDATE else candidacy.against
    moved = candidacy.model_copy(
        update={"stage": due.to, "against": against, "entered_at": now, "live_at": None, "why": due.why}
    )
    seen = evidence if evidence is not None and evidence.is_about(candidacy) else None
    write_outcomes(connection, [_outcome(moved, candidacy.stage, seen)])
    if due.to is Stage.CHAMPION:
        point_champion(settings.mlflow_url, candidacy.version)
    write_candidacy(settings.mlflow_url, moved)
    return moved


def _complete_the_audit(connection: psycopg.Connection, known: list[Candidacy]) -> None:
    """Write the rows of moves whose process died between the tags and the row."""
    moved = [one for one in known if one.stage is not Stage.CANDIDATE]
    subjects = [f"{one.version}/{one.stage}" for one in moved]
    written = connection.execute(
        "select subject from monitoring.outcomes where station = %s and check_name = %s and subject = any(%s)",
        (STATION, CHECK_MOVE, subjects),
    ).fetchall()
    left = [one for one, subject in zip(moved, subjects, strict=True) if (subject,) not in written]
    write_outcomes(connection, [_outcome(one, None, None) for one in left])


def _outcome(moved: Candidacy, stage: Stage | None, evidence: Evidence | None) -> Outcome:
    return Outcome(
        STATION,
        moved.entered_at.date(),
        CHECK_MOVE,
        f"version {moved.version}: {stage or 'a stage whose row is lost'} → {moved.stage}: {moved.why}",
        "moved by what holds at every look",
        "warn" if moved.stage is Stage.ROLLED_BACK else "pass",
        f"{moved.version}/{moved.stage}",
        {"candidacy": as_detail(moved), "from": stage, "evidence": evidence and as_detail(evidence)},
    )


def _waits(candidacy: Candidacy) -> str:
    if candidacy.stage is Stage.CANDIDATE:
        return "for its turn"
    return "for evidence" if candidacy.live_at else "until serving confirms the stage"
