"""The tables of hostile inputs in ``docs/security.md``.

``PYTHONPATH=src:tests python -m support.attacks`` writes them into the page.
"""

from __future__ import annotations

from pathlib import Path

from support.attack_rows import Row
from support.attack_tables import TABLES

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
BEGIN, END = "<!-- attacks: {} -->\n", "<!-- end -->\n"


def rows() -> tuple[Row, ...]:
    return tuple(row for table in TABLES.values() for row in table)


def of_decoder() -> dict[str, str]:
    """Return the answer of the decoder to each file."""
    return {row.attack: row.decoder for row in rows() if row.decoder is not None}


def of_service() -> dict[str, str]:
    """Return the answer of the service to each request."""
    return {row.attack: row.service for row in rows() if row.service is not None}


def table(name: str) -> str:
    """Return a table in Markdown."""
    cells = [[text.replace("|", "\\|") for text in (row.attack, row.shown)] for row in TABLES[name]]
    lines = [f"| {attack} | {answer} |" for attack, answer in cells]
    return "\n".join(["| Input | What happens |", "| --- | --- |", *lines, ""])


def with_tables(page: str) -> str:
    """Return the page with its tables written anew."""
    for name in TABLES:
        before, begin, rest = page.partition(BEGIN.format(name))
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise ValueError(f"{PAGE.name} has no place for the table {name!r}")
        page = f"{before}{begin}{table(name)}{end}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
