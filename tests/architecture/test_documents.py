"""The documents say what the code says (R11)."""

import ast
import re

import pytest

from bench import results
from bench.report import index
from recsys import artifacts, columns
from recsys.settings import HOME
from tests.architecture import rules, settings_table

DOCS = HOME / "docs"


def test_the_settings_page_is_the_settings():
    """To mend: `make docs`."""
    page = settings_table.PAGE.read_text()

    assert [line for line in page.splitlines() if line.startswith("|")] == settings_table.table()
    assert settings_table.written(page) == page


def test_a_settings_page_that_lags_is_mended():
    page = settings_table.PAGE.read_text()
    lagging = page.replace("| `RECSYS_SEED` |", "| `RECSYS_SEEDS` |")

    assert lagging != page
    assert settings_table.written(lagging) == page


def test_design_names_every_artifact():
    text = (DOCS / "design.md").read_text()
    names = {value for name, value in vars(artifacts).items() if name.isupper() and isinstance(value, str)}
    wanted = {name for name in names if "." in name.strip(".") or name.endswith("_v1")}

    assert len(wanted) > 15
    assert {name for name in wanted if f"`{name}`" not in text} == set()


def test_the_glossary_knows_every_domain_and_event_type():
    text = (DOCS / "glossary.md").read_text()

    assert {word for word in (*columns.DOMAINS, *columns.EVENT_TYPES) if f"`{word}`" not in text} == set()


def test_links_between_documents_lead_somewhere():
    pages = [path for path in rules.tracked_files(HOME) if path.suffix == ".md"]
    links = [
        (page, target)
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in target
    ]

    assert links
    assert [f"{page.relative_to(HOME)} → {to}" for page, to in links if not (page.parent / to).exists()] == []


def test_named_commands_of_runbooks_exist():
    """A runbook that names `python -m X` or `make X` names something that is there."""
    makefile = (HOME / "Makefile").read_text()
    faults, seen = [], 0
    for page in sorted((DOCS / "runbooks").glob("*.md")):
        text = page.read_text()
        for module in re.findall(r"python -m ([a-z_.]+)", text):
            seen += 1
            base = HOME.joinpath(*module.split("."))
            if not (base / "__main__.py").is_file() and not base.with_suffix(".py").is_file():
                faults.append(f"{page.name}: python -m {module}")
        for target in re.findall(r"`make ([a-z-]+)", text):
            seen += 1
            if not re.search(rf"^{target}\s*:", makefile, re.MULTILINE):
                faults.append(f"{page.name}: make {target}")

    assert seen > 20
    assert faults == []


def test_the_index_of_the_results_is_that_of_their_pages():
    """To mend: `python -m bench.report.index`, as `make docs` does."""
    assert (results.FOLDER / index.NAME).read_text() == index.text(results.FOLDER)


def test_the_benches_page_names_every_script():
    scripts = {path.stem for path in (HOME / "bench").glob("[a-z]*.py")}
    told = (HOME / "bench" / "README.md").read_text()

    assert len(scripts) > 20
    assert sorted(name for name in scripts if f"`{name}`" not in told) == []


def test_decisions_are_numbered_and_indexed():
    pages = sorted(path.name for path in (DOCS / "decisions").glob("*.md") if path.name != "README.md")
    numbers = [int(name[:4]) for name in pages]
    index = (DOCS / "decisions" / "README.md").read_text()

    assert numbers == list(range(1, len(pages) + 1))
    assert [name for name in pages if f"({name})" not in index] == []
    for name in pages:
        text = (DOCS / "decisions" / name).read_text()
        assert {"## Context", "## Decision", "## Consequences"} <= set(text.splitlines()), name


@pytest.mark.parametrize(
    "path",
    [path for room in ("models", "rankers") for path in sorted((HOME / "training" / room).glob("[a-z]*.py"))],
    ids=lambda path: path.stem,
)
def test_a_model_names_its_paper(path):
    said = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert re.search(r"[\w.] (19|20)\d\d,\s+\"[A-Z]", said), "authors, the year, and the title in quotation marks"
