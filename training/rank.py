"""`python -m training rank`: what the platform saw people like becomes a ranker in the registry.

The examples are impressions and whether they were clicked, where enough of them were; ratings before that: 4 and more
is liked, 2 and less is not, what lies between says neither. Each is joined with `ranking_v1`, or with another service
of features, as it was known at its own instant. Training ends where the cut's training part ends; the latest part of it
stops the training and calibrates; what came after is the test, read once a run.

The gate compares users: the area under the curve of each user who liked some and not others. A ranker must order them
better than the item's own share of likes in training does, and better than the champion, each with the whole interval
above zero. Where none does, serving has no ranker and keeps the order of retrieval. A ranker of features that serving
does not read is judged and stays challenger.
"""

import itertools
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pyarrow as pa

from recsys import columns, receipts
from recsys.artifacts import (
    ALIAS_CHALLENGER,
    ALIAS_CHAMPION,
    FCT_IMPRESSIONS,
    FCT_INTERACTIONS,
    FEATURE_SERVICE_RANKING,
    RANKER,
    RANKER_MODELS,
)
from recsys.errors import RecsysError, UnusableInput
from recsys.interval import Interval
from recsys.metrics import paired_bootstrap
from recsys.settings import Settings
from recsys.warehouse import Outcome, connect, write_outcomes
from training import point_in_time, tasks
from training.cost import cpu_seconds
from training.ranker import MODEL_FILE, Examples, auc, calibration_error, log_loss, module_of, write_ranker

TASK, CHECK = "training.rank", "ranker_gate"
SERVED = FEATURE_SERVICE_RANKING
"""The service whose features serving has of every user and item."""
MAX_TRAINING, MAX_TEST = 40_000, 20_000
VALIDATION_SHARE = 0.15
FEWEST_CLICKS = 500
"""With fewer clicked impressions in training, ratings teach."""
SMOOTHING = 5.0
log = logging.getLogger(__name__)

CLICKS_SQL = f"""
    select user_id, item_id, shown_at as at, is_clicked::integer as label from {FCT_IMPRESSIONS}
    where domain = any(%(domains)s) and shown_at >= %(since)s and shown_at < %(until)s
    order by hashtextextended(user_id, %(seed)s), user_id, shown_at, item_id limit %(most)s
"""
RATINGS_SQL = f"""
    select user_id, item_id, occurred_at as at, (rating >= 4)::integer as label from {FCT_INTERACTIONS}
    where domain = any(%(domains)s) and occurred_at >= %(since)s and occurred_at < %(until)s
        and (rating >= 4 or rating <= 2)
    order by hashtextextended(user_id, %(seed)s), user_id, occurred_at, item_id limit %(most)s
"""
"""Whole users in a random order that the seed names, so that each has several events."""


@dataclass(frozen=True)
class Events:
    """What users did, user by user. n events."""

    kind: str
    """clicks or ratings"""
    rows: pd.DataFrame
    """user_id, item_id, at, label, is_test"""


def read_events(connection: psycopg.Connection, interval: Interval, cut_at: str, seed: int) -> Events:
    """Return labelled events before and after the cut.

    Raises:
        UnusableInput: one of the two parts lacks likes or dislikes.
    """

    def read(query: str, since: Any, until: Any, most: int) -> pd.DataFrame:
        given = {"domains": list(interval.domains), "since": since, "until": until, "seed": seed, "most": most}
        names = [columns.USER_ID, columns.ITEM_ID, "at", "label"]
        return pd.DataFrame(connection.execute(query, given).fetchall(), columns=names)

    kind, query = "clicks", CLICKS_SQL
    train = read(query, "-infinity", cut_at, MAX_TRAINING)
    if train["label"].sum() < FEWEST_CLICKS:
        kind, query = "ratings", RATINGS_SQL
        train = read(query, "-infinity", cut_at, MAX_TRAINING)
    test = read(query, cut_at, interval.end, MAX_TEST)
    for part, rows in (("before", train), ("after", test)):
        if rows["label"].nunique() < 2:
            counts = rows["label"].value_counts().to_dict()
            raise UnusableInput(f"{kind} {part} {cut_at}", counts, "A ranker needs likes and dislikes: land more")
    return Events(kind, pd.concat([train.assign(is_test=False), test.assign(is_test=True)], ignore_index=True))


def features_of(settings: Settings, events: Events, service: str) -> np.ndarray:
    """Return the features of user and item as they were known at each event. float32 (n, U + I)"""
    asked = pa.table({
        columns.USER_ID: events.rows[columns.USER_ID].tolist(),
        columns.ITEM_ID: events.rows[columns.ITEM_ID].tolist(),
        columns.EVENT_TIMESTAMP: pa.array(pd.to_datetime(events.rows["at"], utc=True), pa.timestamp("ms", tz="UTC")),
    })  # fmt: skip
    return point_in_time.look_up(settings, asked, service)


def parts(events: Events, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the row numbers of training, validation (the latest before the cut) and test."""
    before = np.flatnonzero(~events.rows["is_test"])
    by_time = before[np.argsort(events.rows["at"].to_numpy()[before], kind="stable")]
    later = max(1, round(VALIDATION_SHARE * len(by_time)))
    return by_time[:-later], by_time[-later:], np.flatnonzero(events.rows["is_test"])


def by_item(train: pd.DataFrame, asked: pd.DataFrame) -> np.ndarray:
    """Return the baseline: each item's smoothed share of likes in training. (n,)"""
    mean = train["label"].mean()
    liked = train.groupby(columns.ITEM_ID)["label"].agg(["sum", "count"])
    share = (liked["sum"] + SMOOTHING * mean) / (liked["count"] + SMOOTHING)
    return asked[columns.ITEM_ID].map(share).fillna(mean).to_numpy(float)


def auc_per_user(rows: pd.DataFrame, scores: np.ndarray) -> np.ndarray:
    """Return each user's area under the curve, NaN for who liked all or nothing; by user id. (B,)"""
    labels = rows["label"].to_numpy(float)
    return np.array([auc(scores[at], labels[at]) for _, at in sorted(rows.groupby(columns.USER_ID).indices.items())])


def columns_of(service: str, among: str) -> list[int]:
    """Return where the features of one service lie among those of another.

    Raises:
        UnusableInput: the other service lacks one.
    """
    offered = list(itertools.chain(*point_in_time.SIDES[among]))
    missing = [name for name in itertools.chain(*point_in_time.SIDES[service]) if name not in offered]
    if missing:
        raise UnusableInput(among, f"lacks {', '.join(missing)}", f"The champion reads them: rank with {service}")
    return [offered.index(name) for name in itertools.chain(*point_in_time.SIDES[service])]


def answers(graph: Path, numbers: np.ndarray, threads: int, n_user: int) -> np.ndarray:
    """Return what an exported ranker says, as serving asks it: once for each state of a user. float32 (n,)

    Args:
        n_user: how many of the numbers are the user's.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    states, state = np.unique(np.nan_to_num(numbers[:, :n_user], nan=-1.0), axis=0, return_inverse=True)
    scores = np.empty(len(numbers), np.float32)
    order = np.argsort(state.reshape(-1), kind="stable")
    for rows in np.split(order, np.cumsum(np.bincount(state.reshape(-1), minlength=len(states)))[:-1]):
        given = {"user_features": numbers[rows[:1], :n_user], "item_features": numbers[rows, n_user:]}
        (scores[rows],) = session.run(["scores"], given)
    return scores


def compared(ours: np.ndarray, theirs: np.ndarray, seed: int, against: str) -> dict[str, float]:
    """Return the mean difference per user with its 95 % interval, as metrics; nothing where no user can be judged."""
    if np.isnan(ours - theirs).all():
        return {}
    found = paired_bootstrap(ours, theirs, seed)
    return {f"over_{against}_{name}": value for name, value in zip(("difference", "low", "high"), found, strict=True)}


def decide(measured: dict[str, float], has_champion: bool) -> tuple[bool, str]:
    """Say whether the ranker becomes champion, and why. Pure.

    Args:
        measured: with `over_baseline_…` and, if there is a champion, `over_champion_…`.
    """
    for against in ("baseline", "champion") if has_champion else ("baseline",):
        low = measured.get(f"over_{against}_low")
        if low is None:
            return False, f"no test user liked some items and not others, so nothing is proved against the {against}"
        values = (measured[f"over_{against}_{name}"] for name in ("difference", "low", "high"))
        shown = "AUC per user {:+.4f} [{:+.4f}, {:+.4f}]".format(*values)
        if low <= 0:
            return False, f"it does not beat the {against} with certainty: {shown}"
    return True, f"it beats the {against}: {shown}"


def run(settings: Settings, interval: Interval, name: str, service: str = FEATURE_SERVICE_RANKING) -> dict[str, Any]:
    """Train, judge, log and register a ranker; make it champion if it has earned it and serving has its features.

    Raises:
        RecsysError: there is no such ranker or service.
        UnusableInput: too few events to learn from or to judge by.
        CheckFailed: the training diverged.
    """
    if name not in RANKER_MODELS:
        raise RecsysError("--model", name, f"Choose among {', '.join(RANKER_MODELS)}")
    if service not in point_in_time.SIDES:
        raise RecsysError("--service", service, f"Choose among {', '.join(point_in_time.SIDES)}")
    with connect(settings) as connection:
        upstream, made = receipts.latest(connection, tasks.CUT, interval.key)
        applied = receipts.upstream(connection, ["feast.apply"], interval.key)
        wanted = receipts.fingerprint(tasks.code(), upstream, applied, name, service, settings.seed)
        known = receipts.recall(connection, TASK, interval.key, wanted)
    if known:
        return {**known, "unchanged": True}

    from threadpoolctl import threadpool_limits

    from training import tracking

    with threadpool_limits(settings.threads), tracking.reaching(settings) as client:
        champion = tracking.aliased_version(client, ALIAS_CHAMPION, RANKER)
        finished = tracking.finished_run(client, wanted)
        if finished is None:
            run_id, measured = _fit_and_log(settings, interval, name, service, made, wanted, champion)
        else:  # of a process that was killed before its receipt
            run_id, measured = finished.info.run_id, dict(finished.data.metrics)
        tags = _tags(client, run_id, measured)
        version = tracking.register(client, run_id, tags, RANKER)
        client.set_registered_model_alias(RANKER, ALIAS_CHALLENGER, version.version)
        promoted, reason = decide(measured, champion not in (None, str(version.version)))
        if promoted and service != SERVED:
            promoted, reason = False, f"{reason}; it stays challenger, as serving does not read {service}"
        if promoted:
            client.set_registered_model_alias(RANKER, ALIAS_CHAMPION, version.version)
    detail = {
        "model": name,
        "feature_service": service,
        "cut_id": made["cut_id"],
        "run_id": run_id,
        "version": str(version.version),
        "promoted": promoted,
        "reason": reason,
        "events_kind": tags["events"],
        "champion": f"{RANKER}/{version.version}" if promoted else champion and f"{RANKER}/{champion}",
        **{key: round(value, 4) for key, value in measured.items()},
    }
    outcome = Outcome(
        station="training",
        outcome_date=interval.as_of,
        check_name=CHECK,
        subject=",".join(interval.domains),
        observed=reason,
        expected="AUC per user above the item's share of likes and above the champion's, interval above zero",
        verdict="pass" if detail["champion"] else "warn",
        detail=detail,
    )
    with connect(settings) as connection:
        write_outcomes(connection, [outcome])
        receipts.record(connection, TASK, interval.key, wanted, detail)
    return {**detail, "unchanged": False}


def _tags(client, run_id: str, measured: dict[str, float]) -> dict[str, str]:
    kept = ("model", "framework", "cut_id", "as_of", "domains", "feature_service", "git_commit", "seed", "events")
    tags = client.get_run(run_id).data.tags
    return {key: tags[key] for key in kept} | {key: f"{value:.4f}" for key, value in measured.items()}


def _fit_and_log(
    settings: Settings, interval: Interval, name: str, service: str, made: dict, wanted: str, champion: str | None
) -> tuple[str, dict[str, float]]:
    """Return the run's id and what was measured."""
    from training import mirror, tracking

    module, began = module_of(name), cpu_seconds()
    folder = tasks.cut_folder(settings, made["cut_id"]) / RANKER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with connect(settings) as connection:
        events = read_events(connection, interval, made["cut_at"], settings.seed)
    user_features, item_features = point_in_time.SIDES[service]
    numbers = features_of(settings, events, service)
    labels = events.rows["label"].to_numpy(np.float32)
    train, tried, tested = (Examples(numbers[rows], labels[rows]) for rows in parts(events, numbers))
    config = module.Config()
    model = module.fit(train, tried, config, settings.seed, settings.threads)
    said = {"model": name, "framework": module.FRAMEWORK, "cut_id": made["cut_id"], "events": events.kind}
    write_ranker(folder, model, {"user_features": user_features, "item_features": item_features}, said)

    training_rows, _, test_rows = (events.rows.iloc[rows] for rows in parts(events, numbers))
    scores = answers(folder / MODEL_FILE, tested.numbers, settings.threads, len(user_features))
    ours = auc_per_user(test_rows, scores)
    baseline = by_item(training_rows, test_rows)
    measured = {
        "auc": auc(scores, tested.labels),
        "auc_baseline": auc(baseline, tested.labels),
        "auc_per_user": float(np.nanmean(ours)) if not np.isnan(ours).all() else float("nan"),
        "log_loss": log_loss(scores, tested.labels),
        "calibration_error": calibration_error(scores, tested.labels),
        "training_events": float(len(train)),
        "test_events": float(len(tested)),
        "test_users_judged": float((~np.isnan(ours)).sum()),
    }
    measured |= compared(ours, auc_per_user(test_rows, baseline), settings.seed, "baseline")
    if champion:
        with TemporaryDirectory() as scratch:
            graph, reads = tracking.fetch_ranker(champion, Path(scratch))
            known = tested.numbers[:, columns_of(reads, service)]
            theirs = auc_per_user(
                test_rows, answers(graph, known, settings.threads, len(point_in_time.SIDES[reads][0]))
            )
        measured |= compared(ours, theirs, settings.seed, "champion")
    measured["cpu_seconds"] = cpu_seconds() - began
    with tracking.reaching(settings) as client:
        tags = tracking.lineage(settings, made, module.FRAMEWORK, name) | {
            "feature_service": service,
            "events": events.kind,
            tracking.FINGERPRINT_TAG: wanted,
        }
        parameters = {**config.model_dump(), "seed": settings.seed, "threads": settings.threads}
        run_id = tracking.log_ranker(client, folder, name, tags, parameters, measured)
        mirror.mirror_run(client, run_id, settings)
        return run_id, measured
