"""Writes .env.example and docs/settings.md from the settings themselves: ``make settings``."""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import Literal, Union, get_args, get_origin

from annotated_types import Ge, Le
from pydantic.fields import FieldInfo

from diarist.settings import Settings

ROOT = Path(__file__).parent.parent
WRITTEN_BY = "Written by `make settings` from src/diarist/settings.py."
KINDS = {bool: "`true` or `false`", int: "whole number", float: "number", Path: "path", str: "text"}
HEAD = """# Settings

<!-- {written_by} -->

Read from the environment, then from `.env` in the folder that the service is started in; the environment wins.
A value that cannot be used stops the start with a line that names it. An empty value counts as unset.

| setting | default | takes | what it does |
|---|---|---|---|
"""


def default(field: FieldInfo) -> str:
    """The default as one would write it in ``.env``; nothing where it is worked out when the service starts."""
    if field.default_factory is not None or field.default is None:
        return ""
    if isinstance(field.default, float):
        return f"{field.default:g}" if field.default < 1e6 else repr(field.default)
    return str(field.default).lower() if isinstance(field.default, bool) else str(field.default)


def takes(field: FieldInfo) -> str:
    """What a setting takes, in words."""
    kind = field.annotation
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (part for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(kind))
    if kind not in KINDS:
        raise TypeError(f"say in KINDS of docs/describe_settings.py how {kind} is written in .env")
    bounds = [f"{m.ge:.12g}" for m in field.metadata if isinstance(m, Ge)]
    bounds += [f"{m.le:.12g}" for m in field.metadata if isinstance(m, Le)]
    return f"{KINDS[kind]}, {' to '.join(bounds)}" if len(bounds) == 2 else KINDS[kind]


def description(field: FieldInfo) -> str:
    """The docstring on one line."""
    if not field.description:
        raise ValueError(f"a setting has no docstring: {field!r}")
    return " ".join(field.description.split())


def env_example() -> str:
    """The text of ``.env.example``: every setting, commented out."""
    head = (
        "# Copy this file to .env and take the # away from what you change.\n# " + WRITTEN_BY.replace("`", "'") + "\n"
    )
    entries = [
        f"# {description(field)}\n# Takes: {takes(field).replace('`', '')}.\n# {name.upper()}={default(field)}\n"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join((head, *entries))


def table() -> str:
    """The text of ``docs/settings.md``."""
    rows = [
        (f"`{name.upper()}`", f"`{default(field)}`" if default(field) else "", takes(field), description(field))
        for name, field in Settings.model_fields.items()
    ]
    return HEAD.format(written_by=WRITTEN_BY) + "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows
    )


FILES = {ROOT / ".env.example": env_example, ROOT / "docs" / "settings.md": table}

if __name__ == "__main__":
    for path, text in FILES.items():
        path.write_text(text(), encoding="utf-8")
