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
    rows = [HEAD, *(_row(name, score) for name, score in scores.items())]
    if len(scores) > 1:
        rows.append(_row("pooled", pool(scores.values())))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    rule = "|" + "|".join("-" * (width + 1) + ("-" if i == 0 else ":") for i, width in enumerate(widths)) + "|"
    lines = ["| " + " | ".join(_aligned(row, widths)) + " |" for row in rows]
    text = "\n".join([lines[0], rule, *lines[1:]])
    return text + "".join(f"\n{line}" for line in ("", *_worst(scores)) if len(scores) > 1) + "\n"


def document(scores: Mapping[str, Score], *, language: str | None) -> str:
    """Return JSON with ``recordings`` (by name) and ``pooled``, each with counts and rates (0..1 or null)."""
    report = {
        "language": language,
        "recordings": {name: _members(score) for name, score in scores.items()},
        "pooled": _members(pool(scores.values())),
    }
    return json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


RATES = ("der", "der_collar", "jer", "wer", "cpwer", "tcpwer", "boundary_error", "speed")


def _aligned(row: tuple[str, ...], widths: list[int]) -> list[str]:
    """Align names to the left and numbers to the right."""
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]


def _members(score: Score) -> dict[str, float | None]:
    counts = {name: round(value, 3) for name, value in asdict(score).items()}
    rates = {name: None if (rate := getattr(score, name)) is None else round(rate, 4) for name in RATES}
    return counts | rates


def _row(name: str, score: Score) -> tuple[str, ...]:
    speakers = (
        f"{score.found} of {score.speakers}" if score.recordings == 1 else f"{score.exact} right of {score.recordings}"
    )
    parts = [
        part / score.speech if score.speech else None for part in (score.missed, score.false_alarm, score.confusion)
    ]
    return (
        name.replace("|", "/"), _percent(score.der), _percent(score.der_collar), *map(_percent, parts),
        _percent(score.jer), speakers, _percent(score.wer), _percent(score.cpwer), _percent(score.tcpwer),
        _percent(score.boundary_error), "-" if score.speed is None else f"{score.speed:.1f}",
    )  # fmt: skip


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f}"


def _worst(scores: Mapping[str, Score]) -> list[str]:
    """Return one line for the recording with the highest DER, and one for that with the highest cpWER."""
    lines = []
    for label, rate in (("DER", "der"), ("cpWER", "cpwer")):
        rated = {name: value for name, score in scores.items() if (value := getattr(score, rate)) is not None}
        if rated:
            name = max(rated, key=lambda each: rated[each])
            lines.append(f"worst by {label}: {name} ({_percent(rated[name])})")
    return lines
