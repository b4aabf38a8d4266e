"""The five tasks of the station, each under a receipt: cut, fit, evaluate, register, promote.

An unchanged task returns before anything heavy is imported.
"""

import logging
import shutil
import time
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from recsys import receipts
from recsys.artifacts import (
    ALIAS_CHALLENGER,
    ALIAS_CHAMPION,
    BASELINE_MODEL,
    MODEL_EVALUATIONS,
    MODEL_ZOO,
    MODELS_WITH_USER_FEATURES,
    REGISTERED_MODEL,
)
from recsys.errors import MissingArtifact, RecsysError
from recsys.interval import Interval
from recsys.settings import Settings
from recsys.warehouse import Outcome, connect, write_outcomes
from training.cost import cpu_seconds, peak_rss_bytes

CUT, FIT, EVALUATE, REGISTER, PROMOTE = (
    f"training.{name}" for name in ("cut", "fit", "evaluate", "register", "promote")
)
TUNE = "training.tune"
"""What training/tune.py found for a model and these domains, on whatever cut."""
log = logging.getLogger(__name__)


def code() -> str:
    return receipts.code_fingerprint("training", "recsys")


def cut(settings: Settings, interval: Interval, known_until: datetime | None = None) -> dict[str, Any]:
    """Freeze the marts into a cut; a retraining says until when the champion knew the data (`CutManifest`)."""
    with connect(settings) as connection:
        upstream = receipts.upstream(connection, ["dbt.build"], interval.key)
        wanted = receipts.fingerprint(code(), interval.key, settings.seed, upstream, known_until)
        known = receipts.recall(connection, CUT, interval.key, wanted)
    cut_id = f"{interval.as_of.isoformat()}-{wanted[:12]}"
    folder = settings.var_dir / "training" / cut_id
    is_written = (folder / "manifest.json").is_file()
    if known and is_written:
        return {**known, "unchanged": True}

    from training import dataset

    if is_written:  # by a run that was killed before its receipt
        manifest = dataset.Cut(folder).manifest
    else:
        interactions, items = dataset.read_marts(settings, interval)
        manifest = dataset.write_cut(
            folder, interactions, items, cut_id=cut_id, interval=interval, seed=settings.seed, known_until=known_until
        )
    detail = manifest.model_dump()
    with connect(settings) as connection:
        receipts.record(connection, CUT, interval.key, wanted, detail)
        in_use = connection.execute(
            "select detail ->> 'cut_id' from monitoring.receipts where task = %s", (CUT,)
        ).fetchall()
    _remove_replaced(folder.parent, interval, {row[0] for row in in_use})
    return {**detail, "unchanged": False}


def _remove_replaced(cuts: Path, interval: Interval, in_use: set[str]) -> None:
    """Remove this day's cuts that no receipt names; the registry keeps their bundles."""
    for folder in cuts.glob(f"{interval.as_of.isoformat()}-*"):
        if folder.name not in in_use:
            shutil.rmtree(folder)


def cut_folder(settings: Settings, cut_id: str) -> Path:
    return settings.var_dir / "training" / cut_id


def fit(settings: Settings, interval: Interval, name: str, is_warm: bool = False) -> dict[str, Any]:
    """Train one model on the cut, write its bundle and log it as an MLflow run; `is_warm`: from where the served one
    is (training/warm_start.py)."""
    if name not in MODEL_ZOO:
        raise RecsysError("--model", name, f"Choose among {', '.join(MODEL_ZOO)}")
    task, begins = f"{FIT}.{name}", None
    if is_warm:
        from training import warm_start

        begins = warm_start.served_cut(settings.served_model, name)
    with connect(settings) as connection:
        upstream, made = receipts.latest(connection, CUT, interval.key)
        more = receipts.upstream(connection, ["feast.apply"], interval.key) if name in MODELS_WITH_USER_FEATURES else []
        tuned = receipts.known(connection, f"{TUNE}.{name}", ",".join(interval.domains))
        wanted = receipts.fingerprint(code(), upstream, more, name, settings.seed, tuned and tuned["settings"], begins)
        known = receipts.recall(connection, task, interval.key, wanted)
    folder = cut_folder(settings, made["cut_id"]) / "models" / name
    if known and (folder / "bundle" / "manifest.json").is_file():
        return {**known, "unchanged": True}

    from threadpoolctl import threadpool_limits

    from training import mirror, tracking

    with threadpool_limits(settings.threads), tracking.reaching(settings) as client:
        run = tracking.finished_run(client, wanted)
        if run is None or not (folder / "bundle" / "manifest.json").is_file():
            if run is not None:
                client.delete_run(run.info.run_id)
            cut_at = cut_folder(settings, made["cut_id"])
            measured, manifest = _fit_and_write(settings, cut_at, folder, name, tuned, begins is not None)
            tags = tracking.lineage(settings, made, manifest.framework, name) | {tracking.FINGERPRINT_TAG: wanted}
            more_told = {"seed": settings.seed, "threads": settings.threads, "warm_start": begins or "none"}
            parameters = {**manifest.hyper_parameters, **more_told}
            run_id = tracking.log_fit(client, folder, name, tags, parameters, measured)
            mirror.mirror_run(client, run_id, settings)
        else:  # of a process that was killed before its receipt
            run_id, measured = run.info.run_id, dict(run.data.metrics)
    detail = {"model": name, "cut_id": made["cut_id"], "run_id": run_id, **measured}
    with connect(settings) as connection:
        receipts.record(connection, task, interval.key, wanted, detail)
    return {**detail, "unchanged": False}


def _fit_and_write(
    settings: Settings, cut_at: Path, folder: Path, name: str, tuned: dict[str, Any] | None, is_warm: bool
):
    """Fit a model and publish its folder. Returns what it cost, and its manifest."""
    from training import dataset, model, warm_start

    started, cpu_before = time.perf_counter(), cpu_seconds()
    frozen = dataset.Cut(cut_at)
    module = model.module_of(name)
    features = None
    if module.FEATURES:
        from training import point_in_time

        features, _ = point_in_time.user_features(settings, frozen)
    data, config = frozen.training_data(features), model.config_of(module, tuned)
    warm = warm_start.of_served(settings.served_model, name) if is_warm else None
    place = model.Workplace(settings.threads, settings.var_dir / "training" / "cache", warm=warm)
    fitted = module.fit(data, config, settings.seed, place)
    draft = dataset.begin_folder(folder)
    manifest = model.write_model(
        draft,
        name,
        fitted,
        data,
        {
            "framework": module.FRAMEWORK,
            "cut_id": frozen.manifest.cut_id,
            "as_of": frozen.manifest.cut_at,
            "hyper_parameters": config.model_dump(),
            "seed": settings.seed,
        },
    )
    dataset.publish_folder(draft, folder)
    measured = {
        "training_seconds": time.perf_counter() - started,
        "cpu_seconds": cpu_seconds() - cpu_before,
        "peak_rss_mb": peak_rss_bytes(with_children=False) / 2**20,
        "bundle_mb": sum(path.stat().st_size for path in (folder / "bundle").iterdir()) / 1e6,
    }
    measured["cost_usd"] = measured["cpu_seconds"] / 3600 * settings.retraining_cpu_hour_usd
    return {key: round(value, 9) for key, value in measured.items()}, manifest


def _fits(connection, interval: Interval, made: dict[str, Any], names: tuple[str, ...]) -> dict[str, tuple[str, dict]]:
    """Return fingerprint and detail of each model's fit on this cut."""
    found = {}
    for name in names:
        fingerprint, detail = receipts.latest(connection, f"{FIT}.{name}", interval.key)
        if detail["cut_id"] != made["cut_id"]:
            raise MissingArtifact(
                f"fit of {name}", f"of cut {made['cut_id']}", f"Run `python -m training fit --model {name}`"
            )
        found[name] = (fingerprint, detail)
    return found


def evaluate(settings: Settings, interval: Interval, names: tuple[str, ...]) -> dict[str, Any]:
    """Judge the models' bundles on the same test users."""
    with connect(settings) as connection:
        _, made = receipts.latest(connection, CUT, interval.key)
        fits = _fits(connection, interval, made, names)
        wanted = receipts.fingerprint(code(), settings.seed, {name: fit[0] for name, fit in fits.items()})
        known = receipts.recall(connection, EVALUATE, interval.key, wanted)
    if known:
        return {**known, "unchanged": True}

    from threadpoolctl import threadpool_limits

    from training import dataset, drawings, point_in_time, tracking
    from training import evaluate as evaluation

    started, cpu_before = time.perf_counter(), cpu_seconds()
    frozen = dataset.Cut(cut_folder(settings, made["cut_id"]))
    features = point_in_time.test_features(frozen)
    with threadpool_limits(settings.threads):
        qualities, against = evaluation.evaluate_models(
            frozen, list(names), features, threads=settings.threads, seed=settings.seed
        )
    runs = {name: fits[name][1]["run_id"] for name in qualities}
    with tracking.reaching(settings) as client:
        _log_qualities(settings, client, frozen, interval, qualities, runs)
        spent = cpu_seconds() - cpu_before
        took = {"seconds": time.perf_counter() - started, "cpu_seconds": spent,
                "cost_usd": spent / 3600 * settings.retraining_cpu_hour_usd}  # fmt: skip
        about = tracking.lineage(settings, made, "", ",".join(qualities))
        told = {name: quality.overall for name, quality in qualities.items()}
        tracking.log_evaluation(client, about, wanted, told, took, drawings.of_models(told))
    cost_names = ("training_seconds", "cpu_seconds", "peak_rss_mb")
    costs = {name: {key: detail[key] for key in cost_names} for name, (_, detail) in fits.items()}
    detail = {
        "cut_id": made["cut_id"],
        "test_users": made["test_users"],
        "table": evaluation.table(qualities, against, costs),
        "against_popularity": against,
        "differences": {
            name: evaluation.differences(quality, qualities[BASELINE_MODEL], settings.seed)
            for name, quality in qualities.items()
            if name in against
        },
    }
    rows = [
        (made["cut_id"], interval.as_of, name, runs[name], metric, value, evaluation.framework_of(frozen, name))
        for name, quality in qualities.items()
        for metric, value in {**quality.overall, **costs[name]}.items()
    ]
    with connect(settings) as connection:
        _write_evaluations(connection, made["cut_id"], interval, rows)
        receipts.record(connection, EVALUATE, interval.key, wanted, detail)
    return {**detail, "unchanged": False}


def _log_qualities(
    settings: Settings, client, frozen, interval: Interval, qualities: dict[str, Any], runs: dict[str, str]
) -> None:
    """Put each model's metrics, its values of every test user and their drawing beside its fit in MLflow."""
    from training import drawings, mirror, tracking
    from training import evaluate as evaluation

    user_ids = frozen.user_ids()[frozen.split["test_users"]]
    for name, quality in qualities.items():
        path = evaluation.model_folder(frozen, name) / "per_user.parquet"
        evaluation.write_per_user(path, user_ids, quality)
        tracking.log_metrics(client, runs[name], quality.overall, int(interval.end.timestamp() * 1000))
        client.log_artifact(runs[name], str(path), "evaluation")
        client.log_figure(runs[name], drawings.of_users(name, quality.per_user), "evaluation/users.png")
        mirror.mirror_run(client, runs[name], settings)


def _write_evaluations(connection, cut_id: str, interval: Interval, rows: list[tuple[Any, ...]]) -> None:
    """Write (cut_id, as_of, model, run_id, metric, value, framework), instead of all that this cut had, and of what
    other cuts of the day had of these models."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"delete from {MODEL_EVALUATIONS} where cut_id = %s or (as_of = %s and model = any(%s))",
            (cut_id, interval.as_of, sorted({model for _, _, model, *_ in rows})),
        )
        cursor.executemany(
            f"insert into {MODEL_EVALUATIONS} (cut_id, as_of, model, run_id, metric, value, framework)"
            " values (%s, %s, %s, %s, %s, %s, %s)",
            rows,
        )


def register(settings: Settings, interval: Interval, names: tuple[str, ...]) -> dict[str, Any]:
    """Make each evaluated model a version of the registered model; the best is the challenger."""
    with connect(settings) as connection:
        upstream, evaluated = receipts.latest(connection, EVALUATE, interval.key)
        _, made = receipts.latest(connection, CUT, interval.key)
        fits = _fits(connection, interval, made, names)
        wanted = receipts.fingerprint(code(), upstream, sorted(names))
        known = receipts.recall(connection, REGISTER, interval.key, wanted)
    if known:
        return {**known, "unchanged": True}
    measured = {row["model"]: row for row in evaluated["table"]}
    if missing := [name for name in names if name not in measured]:
        raise MissingArtifact("evaluation of", ", ".join(missing), "Run `python -m training evaluate` for them first")

    from training import tracking

    versions = {}
    with tracking.reaching(settings) as client:
        for name in names:
            run_id = fits[name][1]["run_id"]
            row = {key: str(value) for key, value in measured[name].items() if key != "model"}
            tags = {key: client.get_run(run_id).data.tags[key] for key in tracking.lineage(settings, made, "", name)}
            versions[name] = str(tracking.register(client, run_id, {**tags, **row}).version)
        best = min(names, key=lambda name: (-measured[name]["ndcg_at_10"], name))
        client.set_registered_model_alias(REGISTERED_MODEL, ALIAS_CHALLENGER, versions[best])
    detail = {"cut_id": made["cut_id"], "versions": versions, "challenger": best, "version": versions[best]}
    with connect(settings) as connection:
        receipts.record(connection, REGISTER, interval.key, wanted, detail)
    return {**detail, "unchanged": False}


def promote(settings: Settings, interval: Interval, staged_at: datetime | None = None) -> dict[str, Any]:
    """Let the challenger become champion if it has earned it.

    Args:
        staged_at: beside a champion it becomes a candidate as of this instant (training/move.py), not champion at once.
    """
    with connect(settings) as connection:
        upstream, registered = receipts.latest(connection, REGISTER, interval.key)
        _, evaluated = receipts.latest(connection, EVALUATE, interval.key)
        least = settings.promotion_least_equality
        wanted = receipts.fingerprint(code(), upstream, settings.seed, staged_at is not None, least)
        known = receipts.recall(connection, PROMOTE, interval.key, wanted)
    if known:
        return {**known, "unchanged": True}

    from threadpoolctl import threadpool_limits

    from training import dataset, tracking
    from training import evaluate as evaluation
    from training.move import enter
    from training.promote import Contender, decide

    name, cut_at = registered["challenger"], cut_folder(settings, registered["cut_id"])
    with tracking.reaching(settings) as client:

        def contender(version: str | None) -> Contender | None:
            return Contender(**tracking.describe(client, version)) if version else None

        challenger = contender(registered["version"])
        champion = contender(tracking.aliased_version(client, ALIAS_CHAMPION))
        baseline = contender(registered["versions"].get(BASELINE_MODEL))
        over_champion = None
        if champion and champion.run_id != challenger.run_id:
            with TemporaryDirectory() as scratch, threadpool_limits(settings.threads):
                bundle, frozen = tracking.fetch_bundle(champion.version, Path(scratch)), dataset.Cut(cut_at)
                over_champion = evaluation.over_bundle(frozen, name, bundle, settings.threads, settings.seed)
        over_baseline = evaluated["against_popularity"].get(name)
        equality = next(
            (row.get("worst_over_best_by_history") for row in evaluated["table"] if row["model"] == name), None
        )
        decision = decide(challenger, champion, baseline, over_baseline, over_champion, equality, least)
        is_staged = decision.promoted and champion is not None and staged_at is not None
        if is_staged:
            enter(settings, decision.champion.version, decision.champion.run_id, decision.reason, staged_at)
        elif decision.promoted:
            client.set_registered_model_alias(REGISTERED_MODEL, ALIAS_CHAMPION, decision.champion.version)
    chosen = champion if is_staged else decision.champion
    detail = {
        "champion": f"{REGISTERED_MODEL}/{chosen.version}" if chosen else None,
        "model": chosen.model if chosen else None,
        "version": chosen.version if chosen else None,
        "run_id": chosen.run_id if chosen else None,
        "promoted": decision.promoted and not is_staged,
        "candidate": decision.champion.version if is_staged else None,
        "reason": decision.reason,
        "challenger": {"model": name, "version": challenger.version},
        "over_popularity": over_baseline,
        "over_champion": over_champion,
    }
    with connect(settings) as connection:
        write_outcomes(connection, [_gate(interval, detail)])
        receipts.record(connection, PROMOTE, interval.key, wanted, detail)
    return {**detail, "unchanged": False}


def _gate(interval: Interval, detail: dict[str, Any]) -> Outcome:
    """Return what the gate of promotion says to those who watch: a pass, or a warning that nobody is champion."""
    return Outcome(
        station="training",
        outcome_date=interval.as_of,
        check_name="promotion_gate",
        subject=",".join(interval.domains),
        observed=detail["reason"],
        expected="challenger's ndcg@10 above champion's and popularity's, interval above zero",
        verdict="pass" if detail["champion"] else "warn",
        detail=detail,
    )
