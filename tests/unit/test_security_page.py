"""``docs/security.md``: its tables are those of the tests, and each row is checked by a test."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from support import attacks

TESTS = Path(__file__).parents[1]


@cache
def functions(path: Path) -> frozenset[str]:
    """Return the names of the functions of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_the_page_shows_what_is_tested():
    page = attacks.PAGE.read_text(encoding="utf-8")
    assert attacks.with_tables(page) == page, "run `PYTHONPATH=src:tests python -m support.attacks`"


@pytest.mark.parametrize("row", attacks.rows(), ids=lambda row: row.attack)
def test_each_row_is_checked_by_a_test(row):
    assert row.tests or row.decoder or row.service
    for test in row.tests:
        path, _, name = test.partition("::")
        assert name in functions(TESTS / path), f"there is no {test}"


def test_no_row_is_there_twice():
    inputs = [row.attack for row in attacks.rows()]
    assert len(inputs) == len(set(inputs))
