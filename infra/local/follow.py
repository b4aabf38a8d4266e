"""Makes the serving process of this machine follow the registry's promotion: the version beside the champion with its
share, and the champion once a version has come the whole way.

    <var_dir>/serving/candidate     link to the bundle beside the champion's
    <var_dir>/serving/rollout.json  its version, stage and share; taken by serving within half a second

The bundle stands before the file names it, and the new champion answers before the file goes: no request finds nothing.
When serving confirms a stage, that instant is written into the version's tags; evidence begins there.
"""

import json
import urllib.request
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from infra.local.deploy import (
    READY_SECONDS,
    TASK,
    deployed,
    flip,
    place,
    place_facts,
    place_index,
    place_ranker,
    ranker_champion,
    swap,
)
from infra.local.service import NotHealthyYet, poll
from infra.registry import Version
from recsys.artifacts import ITEM_FACTS_FILE
from recsys.errors import ServiceUnavailable
from recsys.promotion import (
    CHECK_SHADOW,
    Candidacy,
    Rollout,
    ShadowCount,
    Stage,
    as_detail,
    candidate_folder,
    read_rollout,
    rollout_file,
    write_rollout,
)
from recsys.receipts import fingerprint, record
from recsys.registry import candidacies, champion_of, under_way, write_candidacy
from recsys.settings import Settings
from recsys.warehouse import Outcome, connect, write_outcomes

STATION = "infra"


def follow(settings: Settings, clock: Callable[[], datetime]) -> dict[str, Any]:
    """Bring serving to what the registry says, and return when it answers so itself.

    Raises:
        MissingArtifact, UnusableInput: the version's bundle is none that can be served; nothing has changed.
        ServiceUnavailable: the registry or serving does not answer; no version stands beside the champion then.
    """
    began = perf_counter()
    known = candidacies(settings.mlflow_url)
    promoted = _serve_promoted(settings, known, clock())
    candidacy = under_way(known)
    changed = _stand_beside(settings, candidacy, clock())
    if candidacy is not None and candidacy.live_at is None:
        write_candidacy(settings.mlflow_url, candidacy.model_copy(update={"live_at": clock()}))
    if candidacy is not None and candidacy.stage is Stage.SHADOW:
        _count_shadow(settings, candidacy, clock())
    return {
        "promoted": promoted,
        "candidate": candidacy and candidacy.version,
        "stage": candidacy and candidacy.stage,
        "seconds": round(perf_counter() - began, 2),
        "unchanged": not (promoted or changed),
    }


def _serve_promoted(settings: Settings, known: list[Candidacy], now: datetime) -> str | None:
    """Serve the champion if it came by this way; one that another way chose is deployed by that way."""
    number = champion_of(settings.mlflow_url)
    came = next((one for one in known if one.version == number and one.stage is Stage.CHAMPION), None)
    served = deployed(settings.served_model)
    if came is None or (served is not None and served.number == number):
        return None
    version = Version(came.version, came.run_id)
    detail = swap(settings, version, ranker_champion(settings.mlflow_url), now)
    with connect(settings) as connection:
        record(connection, TASK, f"promotion/{version.number}", fingerprint(version), detail)
    return version.number


def _stand_beside(settings: Settings, candidacy: Candidacy | None, now: datetime) -> bool:
    """Let this version stand beside the champion, or none; return whether that is a change."""
    file, link = rollout_file(settings), candidate_folder(settings)
    wanted = None if candidacy is None else Rollout.of(candidacy)
    before = read_rollout(file)
    if candidacy is None and before is None and not link.is_symlink():
        return False  # the link goes last: serving confirmed long ago, or has never answered yet
    if candidacy is not None:
        folder = _furnished(settings, Version(candidacy.version, candidacy.run_id), now)
        if not link.is_symlink() or link.resolve() != folder:
            if before is not None and before.version != candidacy.version:
                write_rollout(file, None)  # never a file that names another version than the link holds
            flip(link, folder)
    if wanted != before:
        write_rollout(file, wanted)
    try:
        poll(lambda: _confirms(settings.serving_url, wanted), READY_SECONDS)
    except NotHealthyYet as error:
        write_rollout(file, None)
        raise ServiceUnavailable(
            "serving",
            f"the stage was not taken in {READY_SECONDS} s ({error})",
            "The champion answers all; see its log",
        ) from error
    if candidacy is None:
        link.unlink(missing_ok=True)
    return wanted != before


def _furnished(settings: Settings, version: Version, now: datetime) -> Path:
    """Return the version's bundle with what stands beside the champion's too: facts of items and the ranker."""
    folder = place(settings, version)
    if not (folder / ITEM_FACTS_FILE).exists():
        place_index(settings, folder)
        place_facts(settings, folder, now)
        place_ranker(settings, folder, ranker_champion(settings.mlflow_url))
    return folder


def _confirms(serving_url: str, wanted: Rollout | None) -> None:
    """Return when serving says that this stands beside the champion, raise `NotHealthyYet` otherwise."""
    url = f"{serving_url}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            said = json.load(answer).get("candidate")
    except (OSError, ValueError) as error:
        raise NotHealthyYet(f"{url}: {error}") from error
    if said != (wanted and {"model_version": wanted.version, "stage": wanted.stage.value, "share": wanted.share}):
        raise NotHealthyYet(f"{url}: candidate {said}")


def _count_shadow(settings: Settings, candidacy: Candidacy, now: datetime) -> None:
    """Write what the version did with copies of requests since serving was started."""
    try:
        with urllib.request.urlopen(f"{settings.serving_url}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError as error:
        raise ServiceUnavailable("serving", error, "See `make status`") from error
    found = {
        (sample.name, sample.labels.get("outcome") or sample.labels.get("placed")): int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("recsys_shadow_") and sample.labels.get("model_version") == candidacy.version
    }
    answers, items = "recsys_shadow_answers_total", "recsys_shadow_items_total"
    counted = ShadowCount(
        version=candidacy.version,
        **{name: found.get((answers, name), 0) for name in ("answered", "failed", "dropped")},
        shared_items=found.get((items, "shared"), 0),
        items=found.get((items, "shared"), 0) + found.get((items, "other"), 0),
    )
    asked = counted.answered + counted.failed
    row = Outcome(
        STATION, now.date(), CHECK_SHADOW, f"{counted.failed} of {asked} copies failed", "told, not judged", "pass",
        candidacy.version, as_detail(counted),
    )  # fmt: skip
    with connect(settings) as connection:
        write_outcomes(connection, [row])
