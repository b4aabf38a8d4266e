"""The table of docs/settings.md as `recsys/settings.py` has it; `make docs` writes it there."""

import json
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from recsys.settings import HOME, Settings

PAGE = HOME / "docs" / "settings.md"
HEADER = ["| variable | type | default | meaning |", "| --- | --- | --- | --- |"]


def variable(name: str, field: FieldInfo) -> str:
    """Return the environment variable that sets a field."""
    return str(field.validation_alias) if field.validation_alias else f"RECSYS_{name.upper()}"


def table() -> list[str]:
    """Return the lines of the table, in the order of the settings."""
    return HEADER + [
        f"| `{variable(name, field)}` | {_type(field.annotation)} | {_default(field.default)} | {_meaning(field)} |"
        for name, field in Settings.model_fields.items()
    ]


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(f"`{value}`" for value in get_args(annotation))
    names = [_name(part) for part in get_args(annotation) if part is not type(None)]
    return names[0] if len(names) == 1 else _name(annotation)


def _meaning(field: FieldInfo) -> str:
    return re.sub(r"(<\S+)", r"`\1`", field.description or "")


def _name(annotation: Any) -> str:
    return {
        str: "text", int: "whole number", float: "number", Path: "path", dict[str, float]: "JSON object",
        dict[str, str]: "JSON object",
    }.get(annotation, getattr(annotation, "__name__", str(annotation)))  # fmt: skip


def _default(value: Any) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, Path):
        value = f"<repository>/{value.relative_to(HOME).as_posix()}"
    return f"`{json.dumps(value)}`" if isinstance(value, dict) else f"`{value}`"


def written(page: str) -> str:
    """Return the page with its table replaced by this one."""
    lines = page.splitlines()
    rows = [number for number, line in enumerate(lines) if line.startswith("|")]
    return "\n".join([*lines[: rows[0]], *table(), *lines[rows[-1] + 1 :]]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
