"""The clouds' instance shapes beside each other: `python -m infra.shapes` writes `monitoring.cloud_shapes`.

Reads docs/results/clouds.json, which `make cloud-report` measured, and replaces all rows of the table. What a cell is
stands in `kinds`: measured, list price, estimate, or computed from these (then it is no better than the worst of them).
"""

import json
import math
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from infra import configuration
from infra.autoscaling import ScalingPolicy
from infra.prices import Price
from infra.targets import Frozen
from recsys import artifacts, station
from recsys.errors import MissingArtifact
from recsys.settings import HOME, Settings, load_settings
from recsys.warehouse import connect

RESULTS = HOME / "docs" / "results" / "clouds.json"
KINDS = {"measured": "ᵐ", "list price": "ˡ", "estimate": "ᵉ", "measured and list price": "ᵐˡ", "counted": "ᶜ"}
"""What a cell may be, and its mark in a table of text."""
SCALE_OUT_S = {"aws": 300, "gcp": 240, "azure": 420, "k8s": 45}
"""From asking for one more replica to its first answer: a machine and its image on the managed three, a pod on a node
that is there; a target that is not here does not scale. Estimates of the maintainers from the vendors' words ("several
minutes"); no account was used."""

LIMITS = {
    "aws": "bodies of 6 MB, 60 s a request, pings answered within 2 s",
    "gcp": "bodies of 1.5 MB, 60 s a request",
    "azure": "bodies of 1.5 MB, 5 s a request unless set higher (at most 180 s)",
    "aci": "the serving process's own: bodies of 1.5 MB, 60 s a request",
    "k8s": "the gateway's",
}
"""Of one request, by the vendors' documents. The container keeps the strictest of them, which is measured."""


class Measured(NamedTuple):
    """What the serving process did at a shape's limits."""

    p50_ms: float
    p99_ms: float
    requests_per_s: float
    batch_users_per_s: float
    startup_s: float
    resident_mib: int
    measured_on: str = ""
    """Day, as ISO says it."""
    load_before: float = 0.0
    """Load average of the machine before it: who else used it."""


class Shape(Frozen):
    """A row of the table: a target and one of its instance shapes."""

    target: str
    shape: str
    vcpus: float
    memory_gib: float
    p50_ms: float | None
    p99_ms: float | None
    requests_per_s: float | None
    usd_per_hour: float
    usd_per_1000_requests: float | None
    usd_per_million_batch_users: float | None
    startup_s: float | None
    scale_out_s: float | None
    configuration_lines: int
    kinds: dict[str, str]


COLUMNS = tuple(name for name in Shape.model_fields if name != "kinds")
PLACES = {"usd_per_hour": 4, "usd_per_1000_requests": 6, "usd_per_million_batch_users": 3, "startup_s": 2}


def limits(cores: int, memory_gib: float) -> list[tuple[int, float]]:
    """Return the different limits of the priced shapes that a machine of this size can give, smallest first."""
    from infra.prices import PRICES

    there = {(row.cores, row.memory_gib) for row in PRICES.values() if row.cores}
    return sorted((c, m) for c, m in there if c <= cores and m <= memory_gib)


def shapes(prices: Mapping[str, Price], found: Mapping[tuple[int, float], Measured]) -> list[Shape]:
    """Return a row for each priced machine.

    Args:
        found: limits → what was measured there. Limits that are missing are estimated from the nearest smaller ones: a
            process for each time that they fit, the same latency.
    """
    return list(_shapes(prices, found))


def _shapes(prices: Mapping[str, Price], found: Mapping[tuple[int, float], Measured]) -> Iterator[Shape]:
    use = ScalingPolicy().utilisation
    for name, row in prices.items():
        target, _, shape = name.partition(" ")
        if not row.cores:
            continue
        seen = found.get((row.cores, row.memory_gib))
        kind = "measured" if seen else "estimate"
        if seen is None:
            base = max((each for each in found if each[0] <= row.cores and each[1] <= row.memory_gib), default=None)
            if base is None:
                continue
            seen = _times(found[base], row.cores // base[0])
        listed = "list price" if row.kind == "LIST" else "estimate"
        both = "measured and list price" if (kind, listed) == ("measured", "list price") else "estimate"
        yield Shape(
            target=target, shape=shape, vcpus=row.cores, memory_gib=row.memory_gib,
            p50_ms=seen.p50_ms, p99_ms=seen.p99_ms, requests_per_s=round(seen.requests_per_s, 1),
            usd_per_hour=row.usd_per_hour,
            usd_per_1000_requests=_significant(row.usd_per_hour / 3600 / (seen.requests_per_s * use) * 1000),
            usd_per_million_batch_users=_significant(row.usd_per_hour / 3600 / seen.batch_users_per_s * 1e6),
            startup_s=seen.startup_s, scale_out_s=SCALE_OUT_S.get(target),
            configuration_lines=configuration_lines(target),
            kinds={
                "vcpus": "list price", "memory_gib": "list price", "p50_ms": kind, "p99_ms": kind,
                "requests_per_s": kind, "usd_per_hour": listed, "usd_per_1000_requests": both,
                "usd_per_million_batch_users": both, "startup_s": kind,
                **({"scale_out_s": "estimate"} if target in SCALE_OUT_S else {}),
                "configuration_lines": "counted",
            },
        )  # fmt: skip


def _times(one: Measured, count: int) -> Measured:
    return one._replace(requests_per_s=one.requests_per_s * count, batch_users_per_s=one.batch_users_per_s * count)


def _significant(value: float) -> float:
    """Return the value with four significant digits."""
    return round(value, 3 - math.floor(math.log10(abs(value))))


def configuration_lines(target: str) -> int:
    """Return how many lines a user writes for a target: its fields without a default, and the two around them."""
    fields = configuration.module(target).Config.model_fields.values()
    return 2 + sum(field.is_required() for field in fields)


def told(row: Shape, name: str, marked: bool = True) -> str:
    """Return a cell in words; with its kind's mark."""
    value = getattr(row, name)
    if value is None:
        return "—"
    text = f"{value:.{PLACES[name]}f}" if name in PLACES else f"{value:g}" if isinstance(value, float) else str(value)
    mark = KINDS[row.kinds[name]] if marked and name in row.kinds else ""
    return f"{text}{mark}"


def write(settings: Settings, path: Path = RESULTS) -> Mapping[str, Any]:
    """Replace the table's rows by those of the last report; the platform does so at each start.

    Raises:
        MissingArtifact: nobody has measured yet.
    """
    if not path.is_file():
        raise MissingArtifact("the clouds' comparison", str(path), "Run `make cloud-report`")
    document = json.loads(path.read_bytes())
    rows = [Shape.model_validate(row) for row in document["shapes"]]
    dates = (date.fromisoformat(document["date"]), date.fromisoformat(document["prices_of"]))
    columns = (*COLUMNS, "kinds", "measured_on", "prices_of")
    values = [(*(getattr(row, name) for name in COLUMNS), json.dumps(row.kinds), *dates) for row in rows]
    with connect(settings) as connection, connection.cursor() as cursor:
        cursor.execute(f"delete from {artifacts.CLOUD_SHAPES}")
        cursor.executemany(
            f"insert into {artifacts.CLOUD_SHAPES} ({', '.join(columns)}) values ({', '.join(['%s'] * len(columns))})",
            values,
        )
    return {"rows": len(rows), "measured_on": document["date"]}


if __name__ == "__main__":
    station.run(lambda: write(load_settings()))
