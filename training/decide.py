"""Reads the situation, decides whether to train anew, and says so in an outcome row; a yes names the pipeline's run."""

from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg

from recsys.artifacts import MODEL_EVALUATIONS, RAW_INTERACTIONS
from recsys.errors import RecsysError
from recsys.promotion import CHECK_LIVE_QUALITY, CHECK_RETRAINING
from recsys.registry import candidacies, champion_knows_until, champion_of, check_writable
from recsys.settings import Settings
from recsys.warehouse import Outcome, connect, write_outcomes
from training.landed import landed
from training.retraining import Decision, Policy, Situation, decide

STATION = "training"
LOCK = "select pg_try_advisory_xact_lock(hashtext('recsys retraining'))"


def policy_of(settings: Settings) -> Policy:
    return Policy(
        days=settings.retraining_days,
        cooldown_hours=settings.retraining_cooldown_hours,
        retry_hours=settings.retraining_retry_hours,
        new_share=settings.retraining_new_share,
        budget_cpu_hours=settings.retraining_budget_cpu_hours,
        cpu_hour_usd=settings.retraining_cpu_hour_usd,
        click_usd=settings.retraining_click_usd,
    )


def decide_retraining(settings: Settings, now: datetime) -> dict[str, Any]:
    """Decide and write the decision; `conf` holds the parameters of the pipeline's run.

    Raises:
        RecsysError: another process decides at this moment.
        ServiceUnavailable: the registry does not answer, or is read-only when a retraining is due: nothing is trained
            that could not be registered.
    """
    with connect(settings) as connection:
        if connection.execute(LOCK).fetchone() != (True,):
            raise RecsysError("retraining", "another process decides", "Run it again")
        cut = _last_cut(connection)
        seen = _situation(connection, settings, cut, now)
        decision = decide(seen, policy_of(settings))
        if decision.retrain:
            check_writable(settings.mlflow_url, now)
        waiting = landed(settings) if decision.retrain else None
        conf = _conf(connection, settings, cut, now) if decision.retrain and cut else {}
        write_outcomes(connection, [_outcome(decision, seen, conf, waiting)])
    return {"retrain": decision.retrain, "why": decision.why, "conf": conf, "unchanged": not decision.retrain}


def _outcome(decision: Decision, seen: Situation, conf: dict[str, Any], waiting: int | None) -> Outcome:
    at = seen.now.isoformat()
    told = {"at": at, **asdict(decision), "situation": asdict(seen), "conf": conf, "messages_waiting": waiting}
    return Outcome(
        STATION, seen.now.date(), CHECK_RETRAINING, decision.why, "one at a time, worth its cost", "pass",
        at if decision.retrain else "no", told,
    )  # fmt: skip


def _last_cut(connection: psycopg.Connection) -> dict[str, Any] | None:
    row = connection.execute(
        "select detail from monitoring.receipts where task = 'training.cut' order by detail ->> 'as_of' desc limit 1"
    ).fetchone()
    return row[0] if row else None


def _conf(connection: psycopg.Connection, settings: Settings, cut: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Return the run: the same domains and models as the last one, with what happened today, judged on what came since
    the champion's data."""
    models = connection.execute(
        f"select distinct model from {MODEL_EVALUATIONS} where cut_id = %s order by model", (cut["cut_id"],)
    ).fetchall()
    tomorrow = (now + timedelta(days=1)).date().isoformat()
    known_until = champion_knows_until(settings.mlflow_url)
    return {
        "as_of": tomorrow, "domains": cut["domains"], "models": [name for (name,) in models], "staged": True,
        "known_until": known_until and known_until.isoformat(),
    }  # fmt: skip


def _situation(
    connection: psycopg.Connection, settings: Settings, cut: dict[str, Any] | None, now: datetime
) -> Situation:
    (decided_at,) = connection.execute(
        "select max((detail ->> 'at')::timestamptz) from monitoring.outcomes"
        " where check_name = %s and detail ->> 'retrain' = 'true'",
        (CHECK_RETRAINING,),
    ).fetchone()
    as_of = datetime.fromisoformat(cut["as_of"]).replace(tzinfo=UTC) if cut else None
    since = max(filter(None, (decided_at, as_of and min(as_of, now))), default=None)
    known = candidacies(settings.mlflow_url)
    under_way = next((one.version for one in known if one.stage.is_under_way), None)
    gave_candidate = decided_at is None or any(one.entered_at >= decided_at for one in known)
    seen = {"since": decided_at or datetime(1970, 1, 1, tzinfo=UTC), "now": now}
    fall = connection.execute(
        "select max((detail ->> 'fall')::float8) from monitoring.outcomes where check_name = %(check)s"
        " and verdict = 'warn' and (detail ->> 'at')::timestamptz > %(since)s",
        {**seen, "check": CHECK_LIVE_QUALITY},
    ).fetchone()[0]
    drifted = connection.execute(
        "select distinct subject from monitoring.outcomes where station = 'monitoring' and verdict = 'warn'"
        " and check_name in ('drift', 'drift_since_training', 'concept_drift')"
        " and outcome_date > %(since)s::date and outcome_date > %(as_of)s"
        " and outcome_date > %(now)s::date - 30 order by subject",
        {**seen, "as_of": as_of.date() if as_of else date.min},  # the champion has learned from what drifted before
    ).fetchall()
    new_rows, clicks = connection.execute(
        f"""
        select
            count(*) filter (where occurred_at >= %(since)s),
            count(*) filter (where event_type = 'click' and occurred_at >= %(now)s - interval '7 days')
        from {RAW_INTERACTIONS} where source = 'stream' and occurred_at < %(now)s
        """,
        {**seen, "since": since or now},
    ).fetchone()
    spent, expected = connection.execute(
        f"""
        select
            coalesce(sum(value) filter (where as_of > %s::date - 30), 0),
            coalesce(sum(value) filter (where cut_id = %s), 0)
        from {MODEL_EVALUATIONS} where metric = 'cpu_seconds'
        """,
        (now, cut["cut_id"] if cut else ""),
    ).fetchone()
    return Situation(
        now=now, champion=champion_of(settings.mlflow_url), under_way=under_way, trained_at=since,
        decided_at=decided_at, gave_candidate=gave_candidate,
        fall=fall, drifted=tuple(subject for (subject,) in drifted), new_rows=new_rows,
        known_rows=int(cut["interactions_kept"]) if cut else 0, spent_cpu_seconds=spent, expected_cpu_seconds=expected,
        clicks_a_day=clicks / 7,
    )  # fmt: skip
