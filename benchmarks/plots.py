"""Pictures of a comparison: DER by recording, time by stage, growth with length. SVG, without a display."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import tables
from diarist.evaluation.scoring import Score

COLOURS = ("#1f6f8b", "#e07a1f", "#6a8d3f", "#8e5ea2", "#777777")


def draw(result: Mapping[str, Any], folder: Path, name: str) -> list[str]:
    """Write ``NAME-der.svg``, ``NAME-time.svg`` and, for growth, ``NAME-growth.svg``; their file names."""
    mpl.rcParams["svg.hashsalt"] = "diarist"  # the same figures give the same file
    wanted: dict[str, Callable[[Mapping[str, Any]], Figure]] = {"der": _der, "time": _time}
    if any("wall_s" in row for row in result["growth"]):
        wanted["growth"] = _growth
    names = []
    for kind, make in wanted.items():
        picture = f"{name}-{kind}.svg"
        make(result).savefig(folder / picture, format="svg", bbox_inches="tight", metadata={"Date": None})
        names.append(picture)
    return names


def _der(result: Mapping[str, Any]) -> Figure:
    systems = tables.speaking(result)
    names = list(result["sets"])
    figure, axes = _figure(max(6.0, 0.55 * len(names)), 3.6)
    width = 0.8 / max(1, len(systems))
    for index, system in enumerate(systems):
        scores = {name: Score(**one["score"]) for name, one in system["recordings"].items()}
        heights = [100 * (scores[name].der or 0.0) if name in scores else 0.0 for name in names]
        places = [place + (index - (len(systems) - 1) / 2) * width for place in range(len(names))]
        axes.bar(places, heights, width, label=system["title"], color=COLOURS[index % len(COLOURS)])
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axes.set_ylabel("DER, strict (%)")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _time(result: Mapping[str, Any]) -> Figure:
    systems = list(result["systems"].values())
    minutes = [sum(result["lengths"][name] for name in system["recordings"]) / 60 or 1.0 for system in systems]
    spent = [tables.stage_seconds(system) for system in systems]
    figure, axes = _figure(7.0, 0.6 + 0.45 * len(systems))
    left = [0.0] * len(systems)
    for index, stage in enumerate(dict.fromkeys(stage for each in spent for stage in each)):
        widths = [each.get(stage, 0.0) / length for each, length in zip(spent, minutes, strict=True)]
        axes.barh([system["title"] for system in systems], widths, left=left, label=stage, color=f"C{index}")
        left = [at + width for at, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    busy = " (busy machine)" if result["machine"]["busy"] else ""
    axes.set_xlabel(f"wall seconds for a minute of audio{busy}")
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _growth(result: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(8.0, 3.2))
    time, memory = figure.subplots(1, 2)
    for index, (name, system) in enumerate(result["systems"].items()):
        rows = [row for row in result["growth"] if row["system"] == name and "wall_s" in row]
        lengths = [row["minutes"] for row in rows]
        style = {"marker": "o", "label": system["title"], "color": COLOURS[index % len(COLOURS)]}
        time.plot(lengths, [row["cpu_s"] / row["minutes"] for row in rows], **style)
        memory.plot(lengths, [row["peak_mb"] for row in rows], **style)
    for axes, label in ((time, "CPU seconds for a minute of audio"), (memory, "peak memory (MB)")):
        axes.set_xscale("log")
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
