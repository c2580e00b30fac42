"""Plot a comparison as PNG files, without a display: DER by recording, time by stage, and growth with length."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import pooling
import tables
from diarist.evaluation.scoring import Score

COLORS = ("#1f6f8b", "#e07a1f", "#6a8d3f", "#8e5ea2", "#777777", "#c2a83e", "#b5485d", "#4b5fa5")
DPI = 90
ORDER = (
    "decode", "decode and speech", "speech", "features", "segmentation", "embedding", "clustering", "turns",
    "recognition", "attribution",
)  # fmt: skip
"""The stages in order of execution; other stages are drawn after them, and time that belongs to no stage last."""


def draw(result: pooling.Result, folder: Path, name: str) -> list[str]:
    """Write ``NAME-der.png``, ``NAME-time.png``, and ``NAME-growth.png``, and return their file names.

    A plot without data is not written.
    """
    figures: dict[str, Callable[[pooling.Result], Figure]] = {}
    if any(system["recordings"] for system in pooling.speaking(result)):
        figures["der"] = _der
    if tables.timed(result)[1]:
        figures["time"] = _time
    if any("wall_s" in row for row in result["growth"]):
        figures["growth"] = _growth
    names = []
    for kind, make in figures.items():
        picture = f"{name}-{kind}.png"
        make(result).savefig(folder / picture, dpi=DPI, bbox_inches="tight")
        names.append(picture)
    return names


def _der(result: pooling.Result) -> Figure:
    systems = [system for system in pooling.speaking(result) if system["recordings"]]
    names = list(result["sets"])
    figure, axes = _figure(max(6.0, 0.55 * len(names)), 3.6)
    width = 0.8 / max(1, len(systems))
    for index, system in enumerate(systems):
        scores = {name: Score(**one["score"]) for name, one in system["recordings"].items()}
        heights = [100 * (scores[name].der or 0.0) if name in scores else 0.0 for name in names]
        positions = [place + (index - (len(systems) - 1) / 2) * width for place in range(len(names))]
        axes.bar(positions, heights, width, label=system["title"], color=COLORS[index % len(COLORS)])
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axes.set_ylabel("DER, strict (%)")
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _time(result: pooling.Result) -> Figure:
    systems, names = tables.timed(result)
    minutes = sum(result["lengths"][name] for name in names) / 60
    spent = [pooling.stage_seconds(system, names) for system in systems]
    figure, axes = _figure(7.0, 0.8 + 0.4 * len(systems))
    left = [0.0] * len(systems)
    for index, stage in enumerate(sorted({stage for each in spent for stage in each}, key=_slot)):
        widths = [each.get(stage, 0.0) / minutes for each in spent]
        color = colormaps["tab20"](index % 20)
        axes.barh([system["title"] for system in systems], widths, left=left, label=stage, color=color)
        left = [at + width for at, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    busy = " (busy machine)" if result["machine"]["busy"] else ""
    axes.set_xlabel(f"wall seconds per minute of audio{busy}")
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _slot(stage: str) -> tuple[int, str]:
    return ORDER.index(stage) if stage in ORDER else len(ORDER) + (stage == "rest"), stage


def _growth(result: pooling.Result) -> Figure:
    figure = Figure(figsize=(8.0, 3.2), layout="constrained")
    time, memory = figure.subplots(1, 2)
    for index, (name, system) in enumerate(result["systems"].items()):
        rows = [row for row in result["growth"] if row["system"] == name and "wall_s" in row]
        if not rows:
            continue
        lengths = [row["minutes"] for row in rows]
        style = {"marker": "o", "label": system["title"], "color": COLORS[index % len(COLORS)]}
        time.plot(lengths, [row["cpu_s"] / row["minutes"] for row in rows], **style)
        memory.plot(lengths, [row["peak_mb"] for row in rows], **style)
    for axes, label in ((time, "CPU seconds per minute of audio"), (memory, "peak memory (MB)")):
        axes.set_xscale("log")
        measured = sorted({row["minutes"] for row in result["growth"]})
        axes.set_xticks(measured, [f"{minutes:g}" for minutes in measured])
        axes.minorticks_off()
        axes.set_xlabel("minutes of audio")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        _plain(axes)
    time.legend(frameon=False, fontsize=8)
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    axes = figure.subplots()
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
