"""What a file takes from another of ours is there. Nothing is imported, so scripts of all environments are read."""

import ast
from functools import cache
from pathlib import Path

import pytest

from recsys.settings import HOME

ROOMS = sorted(path.parent.name for path in HOME.glob("*/__init__.py"))


@cache
def names_of(module: Path) -> set[str]:
    """Return what may be taken from a module: all that it binds at its top level, whatever the branch."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom | ast.Import):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def missing(file: Path, root: Path) -> list[str]:
    """Return what a file takes from our modules and is not there."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.ImportFrom) or node.level or (node.module or "").split(".")[0] not in ROOMS:
            continue
        place = root.joinpath(*node.module.split("."))
        module = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        there = names_of(module) if module.exists() else set()
        there |= {path.stem for path in place.glob("*") if path.is_dir() or path.suffix == ".py"}
        found += [f"{node.module}.{alias.name}" for alias in node.names if alias.name not in {"*", *there}]
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_what_is_imported_is_there(room):
    files = list((HOME / room).rglob("*.py"))
    assert files
    assert not {str(file.relative_to(HOME)): gone for file in files if (gone := missing(file, HOME))}


def test_a_name_that_has_moved_is_found(tmp_path):
    (tmp_path / "recsys").mkdir()
    (tmp_path / "recsys" / "columns.py").write_text("USER = 'user_id'\n")
    file = tmp_path / "script.py"
    file.write_text("from recsys import columns\nfrom recsys.columns import ITEM, USER\nfrom recsys.gone import A\n")
    assert missing(file, tmp_path) == ["recsys.columns.ITEM", "recsys.gone.A"]
