"""Reports of scores: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

from diarist.evaluation.scoring import Score, pool

HEAD = (
    "recording", "DER", "collar", "missed", "false", "confused", "JER", "speakers", "WER", "cpWER", "tcpWER",
    "at changes", "speed",
)  # fmt: skip
"""The headings of the columns, which docs/evaluation.md describes."""


def table(scores: Mapping[str, Score]) -> str:
    """Return a Markdown table with a row for each recording and for all of them pooled, and the worst recordings.

    Args:
        scores: The scores by name, at least one.
    """
    rows = [HEAD, *(_row(name, one) for name, one in scores.items())]
    if len(scores) > 1:
        rows.append(_row("pooled", pool(scores.values())))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    rule = "|" + "|".join("-" * (width + 1) + ("-" if i == 0 else ":") for i, width in enumerate(widths)) + "|"
    lines = ["| " + " | ".join(_aligned(row, widths)) + " |" for row in rows]
    text = "\n".join([lines[0], rule, *lines[1:]])
    return text + "".join(f"\n{line}" for line in ("", *_worst(scores)) if len(scores) > 1) + "\n"


def document(scores: Mapping[str, Score], *, language: str | None) -> str:
    """Return JSON with ``recordings`` (by name) and ``pooled``, each with counts and rates (0..1 or null)."""
    told = {
        "language": language,
        "recordings": {name: _members(one) for name, one in scores.items()},
        "pooled": _members(pool(scores.values())),
    }
    return json.dumps(told, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


RATES = ("der", "der_collar", "jer", "wer", "cpwer", "tcpwer", "boundary_error", "speed")


def _aligned(row: tuple[str, ...], widths: list[int]) -> list[str]:
    """Align names to the left and numbers to the right."""
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]


def _members(one: Score) -> dict[str, float | None]:
    counts = {name: round(value, 3) for name, value in asdict(one).items()}
    rates = {name: None if (rate := getattr(one, name)) is None else round(rate, 4) for name in RATES}
    return counts | rates


def _row(name: str, one: Score) -> tuple[str, ...]:
    speakers = f"{one.found} of {one.speakers}" if one.recordings == 1 else f"{one.exact} right of {one.recordings}"
    parts = [part / one.speech if one.speech else None for part in (one.missed, one.false_alarm, one.confusion)]
    return (
        name.replace("|", "/"), _percent(one.der), _percent(one.der_collar), *map(_percent, parts), _percent(one.jer),
        speakers, _percent(one.wer), _percent(one.cpwer), _percent(one.tcpwer), _percent(one.boundary_error),
        "-" if one.speed is None else f"{one.speed:.1f}",
    )  # fmt: skip


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f}"


def _worst(scores: Mapping[str, Score]) -> list[str]:
    """A line each for the recording with the highest DER and that with the highest cpWER."""
    lines = []
    for label, rate in (("DER", "der"), ("cpWER", "cpwer")):
        rated = {name: value for name, one in scores.items() if (value := getattr(one, rate)) is not None}
        if rated:
            name = max(rated, key=lambda each: rated[each])
            lines.append(f"worst by {label}: {name} ({_percent(rated[name])})")
    return lines
