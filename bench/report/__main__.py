"""`make report`: the final report, the slides and the models' page, into <var_dir>/reports/final/; and the models'
table, docs/results/models.md, anew from its figures.

Both are pages of their own: no script, nothing from elsewhere; the slides print as PDF, one a sheet.
"""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from bench import models
from bench.report import figures, results, warehouse
from recsys.errors import ServiceUnavailable
from recsys.settings import HOME, load_settings

log = logging.getLogger(__name__)
TEMPLATES = Path(__file__).with_name("templates")


def render(template: str, facts: dict[str, Any]) -> str:
    """Return a page; whatever is put into it is text, save for the charts that we have drawn ourselves."""
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return pages.get_template(template).render(facts)


def gather(told: list[results.Result], marts: dict[str, list[dict[str, Any]]], day: str) -> dict[str, Any]:
    """Return everything that the pages say."""
    by_name = {one.name: one for one in told}
    drawn = {"verdicts": figures.verdicts(told)}
    if "models" in by_name and (rows := results.trained(by_name["models"])):
        drawn |= {
            "front": figures.front(rows), "published": figures.beside_published(rows), "costs": figures.costs(rows),
        }  # fmt: skip
        if any(row.answer_p50_ms is not None for row in rows):
            drawn["answers"] = figures.answers(rows)
    if "diversity" in by_name:
        drawn["diversity"] = figures.trade_off(results.curves(by_name["diversity"]))
    if "serving" in by_name and (rows := results.latencies(by_name["serving"])):
        drawn["latency"] = figures.latency(rows)
    return {
        "day": day,
        "results": told,
        "missed": [(one, row) for one in told for row in one.rows if row.verdict == "missed"],
        "counts": {name: sum(one.count(name) for one in told) for name in figures.VERDICTS},
        "figures": {name: jinja2.utils.markupsafe.Markup(text) for name, text in drawn.items()},
        "marts": marts,
        "built": built((HOME / "README.md").read_text()),
        "learned": learned((HOME / "docs" / "decisions" / "README.md").read_text()),
    }


def built(readme: str) -> str:
    """Return the paragraph that opens the README."""
    return " ".join(readme.split("\n\n")[1].split())


def learned(index: str) -> list[str]:
    """Return the titles of the decisions."""
    return re.findall(r"\[([^\]]+)\]\(\d{4}-[^)]+\)", index)


def main() -> None:
    settings = load_settings()
    try:
        marts = warehouse.read(settings)
    except ServiceUnavailable as error:
        log.warning("The report is without the warehouse: %s", error)
        marts = {}
    models.write_page(HOME / "docs" / "results")
    told = gather(results.read(HOME / "docs" / "results"), marts, datetime.now(UTC).date().isoformat())
    folder = settings.var_dir / "reports" / "final"
    folder.mkdir(parents=True, exist_ok=True)
    pages = {}
    for name in ("report", "slides", "models"):
        path = folder / f"{name}.html"
        path.write_text(render(f"{name}.html.j2", told))
        pages[name] = str(path)
    json.dump(pages | {"results": len(told["results"]), "figures": len(told["figures"])}, sys.stdout)
    print()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    main()
