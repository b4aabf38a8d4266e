"""Names of artifacts: each is spelled in `recsys/artifacts.py`, and every other spelling must agree (R7)."""

import ast
import re
from pathlib import Path
from typing import Any

import yaml

from recsys import artifacts
from tests.architecture.rules import python_files, top_level_packages

ARTIFACTS = {name: value for name, value in vars(artifacts).items() if name.isupper()}
TABLES = {value for value in ARTIFACTS.values() if isinstance(value, str) and re.fullmatch(r"[a-z]+\.[a-z_]+", value)}
EXCLUSIVE = (
    {value for value in TABLES if value.split(".")[0] in (artifacts.RAW, artifacts.MARTS, artifacts.MONITORING)}
    | {value for name, value in ARTIFACTS.items() if name.startswith(("TOPIC_", "FEATURE_SERVICE_", "PUSH_", "DAG_"))}
    | {value for name, value in ARTIFACTS.items() if name.startswith("FEATURE_VIEW_")}
    | {name for name in artifacts.MODEL_NAMES if "_" in name}
    | {artifacts.PRECOMPUTED_LISTS, artifacts.EXPERIMENT_SALT, artifacts.CONSUMER_GROUP}
)
"""Names that are nobody's everyday word: a literal equal to one of them is a second spelling."""

PARTITIONS = {"raw.interactions_stream", "raw.interactions_files"}
"""Partitions of raw.interactions, made by `recsys/schema.sql`."""

TABLE_IN_SQL = re.compile(
    r"\b(?:from|join|into|update|table|truncate|copy|index\s+on)\s+(?:if\s+(?:not\s+)?exists\s+)?(?:only\s+)?"
    r"((?:raw|marts|monitoring|serving)\.[a-z_]+)\b",
    re.IGNORECASE,
)
JUDGED_ELSEWHERE = {"tests"}


def second_spellings(root: Path) -> list[str]:
    """Find string literals outside `recsys/artifacts.py` that spell an artifact's name again.

    Docstrings are free, and a model's own file may say its name: a test compares the two.
    """
    return [
        f"{path.relative_to(root)}:{node.lineno} spells {node.value!r} again"
        for path, tree in _modules(root)
        for node in _strings(tree)
        if node.value in EXCLUSIVE and node.value != path.stem
    ]


def unknown_tables(root: Path) -> list[str]:
    """Find tables that SQL inside Python or a .sql file names and `recsys/artifacts.py` does not know."""
    texts = [
        (f"{path.relative_to(root)}:{node.lineno}", node.value)
        for path, tree in _modules(root)
        for node in _strings(tree)
    ]
    texts += [
        (str(path.relative_to(root)), path.read_text())
        for folder in ("recsys", "dbt")
        for path in sorted((root / folder).rglob("*.sql"))
    ]
    return [
        f"{place} names the table {table}, which is no artifact"
        for place, text in texts
        for table in TABLE_IN_SQL.findall(text)
        if table.lower() not in TABLES | PARTITIONS
    ]


def dbt_marts(root: Path) -> set[str]:
    """Return the names of the tables that dbt's marts become."""
    return {f"{artifacts.MARTS}.{path.stem}" for path in (root / "dbt" / "models" / "marts").rglob("*.sql")}


def dbt_sources(root: Path) -> set[str]:
    """Return the `schema.table` names that dbt declares as sources."""
    return {
        f"{source.get('schema', source['name'])}.{table.get('identifier', table['name'])}"
        for properties in dbt_properties(root)
        for source in properties.get("sources", [])
        for table in source["tables"]
    }


def dbt_columns(root: Path, model: str) -> list[str]:
    """Return the columns that dbt's YAML declares for a model."""
    return [
        column["name"]
        for properties in dbt_properties(root)
        for declared in properties.get("models", [])
        if declared["name"] == model
        for column in declared.get("columns", [])
    ]


def dbt_properties(root: Path) -> list[dict[str, Any]]:
    """Return the parsed property files of dbt's models."""
    files = sorted(path for suffix in ("yml", "yaml") for path in (root / "dbt" / "models").rglob(f"*.{suffix}"))
    return [yaml.safe_load(path.read_text()) or {} for path in files]


def schema_tables(root: Path) -> set[str]:
    """Return the tables that `recsys/schema.sql` creates, partitions included."""
    return set(
        re.findall(r"create table if not exists ([a-z]+\.[a-z_]+)", (root / "recsys" / "schema.sql").read_text())
    )


def _modules(root: Path) -> list[tuple[Path, ast.Module]]:
    kept = sorted(top_level_packages(root) - JUDGED_ELSEWHERE)
    files = [path for folder in kept for path in python_files(root / folder)]
    return [(p, ast.parse(p.read_text())) for p in files if p != root / "recsys" / "artifacts.py"]


def _strings(tree: ast.Module) -> list[ast.Constant]:
    """Return the string literals of a module without its docstrings and other bare strings."""
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare
    ]
