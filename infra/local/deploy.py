"""Deploys the registry's champion to the serving process of this machine: a folder a version, one link that moves.

    <var_dir>/serving/bundles/v3/   the bundle of version 3 and deployment.json; complete, or not there
    <var_dir>/serving/current       link to the served one; serving watches it

The champion among the rankers, where there is one, lies in the served folder too: ranker.onnx and ranker.json. So do
the interval's facts of items, item_facts.npz, which the ranker and the rules of the serving graph read.
A version that serving does not take in time is taken back: the link returns to where it was.
"""

import json
import shutil
import tempfile
import urllib.request
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import psycopg
from psycopg import sql

from infra.local.beside import place_beside
from infra.local.service import NotHealthyYet, poll
from infra.registry import Version, champion
from recsys.approximate import INDEX, TUNED, build
from recsys.artifacts import (
    DIM_ITEMS,
    FCT_INTERACTIONS,
    FEAT_ITEM_POPULARITY,
    ITEM_FACTS_FILE,
    ITEM_FEATURES,
    RANKER,
    RANKER_FILES,
    REGISTERED_MODEL,
)
from recsys.bundle import read_catalogue, read_manifest
from recsys.columns import PRICE
from recsys.errors import MissingArtifact, ServiceUnavailable
from recsys.interval import Interval
from recsys.promotion import candidate_folder
from recsys.receipts import code_fingerprint, fingerprint, latest, recall, record
from recsys.retriever import BY_PRODUCT, Retriever
from recsys.settings import Settings
from recsys.warehouse import connect

TASK = "infra.deploy"
DEPLOYMENT = "deployment.json"
BUNDLE_IN_MODEL = Path("artifacts") / "bundle"
READY_SECONDS = 60
KEPT_VERSIONS = 5
INDEX_USERS, FEWEST_INDEX_USERS, INDEX_RECALL = 400, 20, 0.972
"""Users for whom an approximate index is tuned, the fewest that say anything, and the recall at 100 that it must reach
on half of them."""


def deploy(settings: Settings, interval: Interval) -> dict[str, Any]:
    """Serve the champion, and return when serving says so itself. Unchanged when it is served already.

    Raises:
        MissingArtifact: there is no champion, or its model holds no bundle.
        UnusableInput: its bundle is none that this version of the code reads.
        ServiceUnavailable: the registry or serving does not answer as it should; the former model stays.
    """
    version = champion(settings.mlflow_url)
    ranker = ranker_champion(settings.mlflow_url)
    with connect(settings) as connection:
        try:
            marts, _ = latest(connection, "dbt.build", interval.key)
        except MissingArtifact:  # a registry of elsewhere: nothing is known of items
            marts = ""
        code = code_fingerprint("infra/local", "recsys")
        wanted = fingerprint(code, version, ranker, marts, settings.approximate_from, str(settings.served_model))
        earlier = recall(connection, TASK, interval.key, wanted)
    if earlier and deployed(settings.served_model) == version:
        return {**earlier, "unchanged": True}

    detail = swap(settings, version, ranker, interval.end)
    with connect(settings) as connection:
        record(connection, TASK, interval.key, wanted, detail)
    return {**detail, "unchanged": False}


def swap(settings: Settings, version: Version, ranker: Version | None, end: datetime) -> dict[str, Any]:
    """Serve this version with this ranker and the facts of items at `end`; return what was done when serving says so.

    Raises:
        ServiceUnavailable: serving did not take it; the former model stays.
    """
    began = perf_counter()
    folder = place(settings, version)
    indexed = place_index(settings, folder)
    place_facts(settings, folder, end)
    place_ranker(settings, folder, ranker)
    before = flip(settings.served_model, folder)
    try:
        poll(lambda: serves(settings.serving_url, version), READY_SECONDS)
    except NotHealthyYet as error:
        take_back(settings.served_model, before)
        raise ServiceUnavailable(
            "serving",
            f"version {version.number} was not taken in {READY_SECONDS} s ({error})",
            "The former model stays; see `make status` and serving's log",
        ) from error
    prune(folder.parent, {folder, before, candidate_folder(settings).resolve()})

    def furnish(other: Version, home: Path) -> Path:
        placed = place(settings, other, home)
        place_index(settings, placed)
        place_facts(settings, placed, end)
        place_ranker(settings, placed, ranker)
        return placed

    compared = place_beside(settings, version, furnish)
    return {
        "model": read_manifest(folder).model,
        "model_version": version.number,
        "run_id": version.run_id,
        "ranker_version": ranker.number if ranker else None,
        "index_recall": indexed,
        "former_version": before.name.removeprefix("v") if before else None,
        **compared,
        "seconds": round(perf_counter() - began, 2),
    }


def deployed(link: Path) -> Version | None:
    """Return the version behind the link, None when there is none."""
    try:
        deployment = json.loads((link / DEPLOYMENT).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Version(deployment["model_version"], deployment["run_id"])


def place(settings: Settings, version: Version, home: Path | None = None) -> Path:
    """Bring a version's bundle to its folder and return that; a folder that has it already is left alone."""
    folder = (home or settings.var_dir.resolve() / "serving" / "bundles") / f"v{version.number}"
    if deployed(folder) == version:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unfinished-") as work:
        bundle = download(settings.mlflow_url, version, Path(work)) / BUNDLE_IN_MODEL
        if not bundle.is_dir():
            raise MissingArtifact(
                f"models:/{REGISTERED_MODEL}/{version.number}", f"no {BUNDLE_IN_MODEL}", "Register the model again"
            )
        return put(bundle, folder, version)


def ranker_champion(mlflow_url: str) -> Version | None:
    """Return the ranker that has passed its gate, or None where none has."""
    try:
        return champion(mlflow_url, RANKER)
    except MissingArtifact:
        return None


def place_ranker(settings: Settings, folder: Path, ranker: Version | None) -> None:
    """Bring the ranker's two files into a bundle's folder, or take them out where there is none.

    ranker.json comes last and goes first: while it is missing there is no ranker. It says the version.
    """
    graph, signature = (folder / name for name in RANKER_FILES)
    with suppress(FileNotFoundError, ValueError):
        if ranker and json.loads(signature.read_text()).get("version") == ranker.number:
            return
    signature.unlink(missing_ok=True)
    if ranker is None:
        graph.unlink(missing_ok=True)
        return
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unfinished-") as work:
        found = download(settings.mlflow_url, ranker, Path(work), RANKER)
        said = json.loads((found / "extra_files" / RANKER_FILES[1]).read_text())
        draft = found / RANKER_FILES[1]
        draft.write_text(json.dumps({**said, "version": ranker.number, "run_id": ranker.run_id}, indent=2))
        (found / "model.onnx").replace(graph)
        draft.replace(signature)


HISTORIES_SQL = """
    select array_agg(item_id order by occurred_at, item_id) from {interactions}
    where user_id in (
        select user_id from {interactions} group by user_id
        order by hashtextextended(user_id, %(seed)s), user_id limit %(users)s
    )
    group by user_id order by user_id
"""


def place_index(settings: Settings, folder: Path) -> float | None:
    """Build the approximate index of a large catalogue beside its bundle, tuned for users of the warehouse.

    Returns:
        its recall; None, and no index, where the catalogue is small or nobody is known.

    Raises:
        CheckFailed: the recall that is wanted is not reached.
    """
    retriever = Retriever(folder, settings.threads)
    is_large = 0 < settings.approximate_from <= retriever.n_items and retriever.manifest.kind in BY_PRODUCT
    if not is_large:
        (folder / TUNED).unlink(missing_ok=True)
        (folder / INDEX).unlink(missing_ok=True)
        return None
    if retriever.index_recall is not None:
        return retriever.index_recall
    query = sql.SQL(HISTORIES_SQL).format(interactions=sql.Identifier(*FCT_INTERACTIONS.split(".")))
    try:
        with connect(settings) as connection:
            rows = connection.execute(query, {"users": INDEX_USERS, "seed": settings.seed}).fetchall()
    except psycopg.errors.UndefinedTable:
        rows = []
    histories = [known for (items,) in rows if len(known := retriever.indices(items))]
    if len(histories) < FEWEST_INDEX_USERS:
        return None
    users = np.concatenate([retriever.encode([history]) for history in histories])
    return build(folder, retriever.item_vectors, retriever.item_bias, users, INDEX_RECALL, settings.seed).recall


FACTS_SQL = """
    select items.item_id, items.price, {names}
    from {items} as items
    left join lateral (
        select {names} from {popularity} as known
        where known.item_id = items.item_id and known.event_timestamp <= %s
        order by known.event_timestamp desc limit 1
    ) as latest on true
"""


def place_facts(settings: Settings, folder: Path, end: datetime) -> None:
    """Write what is known of the bundle's items at this instant: the price, and the features that Feast offers.

    It stands beside the bundle in one step; the ranker, which needs it, comes later. Without marts nothing is known.
    """
    names = sql.SQL(", ").join(map(sql.Identifier, ITEM_FEATURES))
    items, popularity = (sql.Identifier(*table.split(".")) for table in (DIM_ITEMS, FEAT_ITEM_POPULARITY))
    query = sql.SQL(FACTS_SQL).format(names=names, items=items, popularity=popularity)
    try:
        with connect(settings) as connection:
            known = {item_id: values for item_id, *values in connection.execute(query, (end,))}
    except psycopg.errors.UndefinedTable:  # a warehouse that was never built: a registry of elsewhere
        (folder / ITEM_FACTS_FILE).unlink(missing_ok=True)
        return
    catalogue = read_catalogue(folder).item_id
    unknown = [None] * (1 + len(ITEM_FEATURES))
    table = np.array([known.get(item_id, unknown) for item_id in catalogue], dtype=float)  # None becomes NaN
    draft = folder / f".unfinished-{ITEM_FACTS_FILE}"
    columns = dict(zip((PRICE, *ITEM_FEATURES), table.T.astype(np.float32), strict=True))
    with draft.open("wb") as file:
        np.savez(file, **columns)
    draft.replace(folder / ITEM_FACTS_FILE)


def download(mlflow_url: str, version: Version, work: Path, registered: str = REGISTERED_MODEL) -> Path:
    """Return the local folder of a registered model's artifacts."""
    import mlflow  # seconds: only when something is to be deployed

    mlflow.set_tracking_uri(mlflow_url)
    uri = f"models:/{registered}/{version.number}"
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(work)))


def put(bundle: Path, folder: Path, version: Version) -> Path:
    """Make `folder` this bundle with its deployment.json, in one step; a folder of another run gives way."""
    read_manifest(bundle)
    deployment = {"model_version": version.number, "run_id": version.run_id, "registered_model": REGISTERED_MODEL}
    (bundle / DEPLOYMENT).write_text(json.dumps(deployment))
    if folder.exists():
        folder.rename(bundle.parent / "former")
    bundle.rename(folder)
    return folder


def flip(link: Path, folder: Path) -> Path | None:
    """Point the link at the folder, atomically, and return where it pointed before."""
    before = link.resolve() if link.is_symlink() else None
    link.parent.mkdir(parents=True, exist_ok=True)
    unfinished = link.with_name(f".{link.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    unfinished.symlink_to(folder)
    unfinished.replace(link)
    return before


def take_back(link: Path, before: Path | None) -> None:
    """Undo a flip."""
    if before is None:
        link.unlink()
    else:
        flip(link, before)


def serves(serving_url: str, version: Version) -> None:
    """Return when serving says that it answers with this version, raise `NotHealthyYet` otherwise."""
    url = f"{serving_url}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            served = json.load(answer)["model_version"]
    except (OSError, ValueError, KeyError) as error:
        raise NotHealthyYet(f"{url}: {error}") from error
    if served != version.number:
        raise NotHealthyYet(f"{url}: version {served}")


def prune(bundles: Path, kept: set[Path | None]) -> None:
    """Remove all but the latest versions; the served and the former one always stay."""
    found = sorted(bundles.glob("v*"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for folder in found[KEPT_VERSIONS:]:
        if folder not in kept:
            shutil.rmtree(folder)
