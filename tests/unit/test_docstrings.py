"""Docstrings name what is there: every argument that one describes is a parameter."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
MODULES = sorted(SOURCE.rglob("*.py"))

Function = ast.FunctionDef | ast.AsyncFunctionDef


def described(docstring: str) -> tuple[str, ...]:
    """The names in the section ``Args`` of a cleaned docstring."""
    section = re.search(r"^Args:\n((?:(?:    .*)?\n?)*)", docstring, re.MULTILINE)
    return () if section is None else tuple(re.findall(r"^    \**(\w+)(?:, \w+)*:", section[1], re.MULTILINE))


def parameters(node: Function | ast.ClassDef) -> set[str]:
    """Of a function, or of what makes an object of a class: its ``__init__`` and its fields."""
    if isinstance(node, ast.ClassDef):
        fields = {
            part.target.id
            for part in node.body
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
        }
        made = [part for part in node.body if isinstance(part, Function) and part.name in ("__init__", "__new__")]
        return fields.union(*map(parameters, made))
    named = node.args
    rest = (each for each in (named.vararg, named.kwarg) if each is not None)
    return {each.arg for each in (*named.posonlyargs, *named.args, *named.kwonlyargs, *rest)}


def wrong(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, Function | ast.ClassDef):
            known = parameters(node)
            yield from (
                f"{node.name}: {name}" for name in described(ast.get_docstring(node) or "") if name not in known
            )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_argument_that_is_described_is_there(path):
    assert list(wrong(ast.parse(path.read_text("utf-8")))) == []


def test_one_that_is_not_there_is_found():
    arguments = "a: one,\n            or more.\n        c: gone."
    source = f'def f(a, *, b):\n    """Do it.\n\n    Args:\n        {arguments}\n    """\n'
    assert list(wrong(ast.parse(source))) == ["f: c"]
