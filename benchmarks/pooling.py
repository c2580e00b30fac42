"""Select the recordings of a comparison that are pooled, and compute figures from their sums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diarist.evaluation.scoring import Score, pool

Result = Mapping[str, Any]
"""The JSON object that ``compare.py`` writes."""

System = Mapping[str, Any]
"""An entry of ``systems`` in a ``Result``."""


@dataclass(frozen=True, slots=True)
class Spent:
    """The time that a system took for some recordings."""

    audio: float
    """The total length of the recordings in seconds."""

    wall: float
    cpu: float


def speaking(result: Result) -> list[System]:
    """Return the systems that diarize, including those that finished no recording."""
    return [system for system in result["systems"].values() if system["speakers"]]


def common(systems: Iterable[System], names: Iterable[str]) -> tuple[str, ...]:
    """Return the recordings that all systems finished, which are the only ones that can be compared.

    Systems that finished no recording are ignored.
    """
    took_part = [system["recordings"] for system in systems if system["recordings"]]
    return tuple(name for name in names if took_part and all(name in finished for finished in took_part))


def left_out(systems: Iterable[System], names: Iterable[str]) -> dict[str, list[str]]:
    """Return the titles of the systems that did not finish a recording, by recording."""
    took_part = [system for system in systems if system["recordings"]]
    missing = {name: [each["title"] for each in took_part if name not in each["recordings"]] for name in names}
    return {name: titles for name, titles in missing.items() if titles}


def members(result: Result) -> dict[str, tuple[str, ...]]:
    """Return the recordings that every diarizing system finished, by set, and all of them under ``all``."""
    names = common(speaking(result), result["sets"])
    sets = dict.fromkeys(result["sets"].values())
    return {each: tuple(name for name in names if result["sets"][name] == each) for each in sets} | {"all": names}


def pooled(system: System, names: Sequence[str]) -> Score:
    """Return the pooled score of these recordings; it is empty if the system finished none of them."""
    scores = system["recordings"]
    return pool(Score(**scores[name]["score"]) for name in names if name in scores)


def spent(result: Result, system: System, names: Sequence[str]) -> Spent:
    """Return the total time of these recordings."""
    took = [system["recordings"][name] for name in names]
    return Spent(
        sum(result["lengths"][name] for name in names),
        sum(one["wall_s"] for one in took),
        sum(one["cpu_s"] for one in took),
    )


def stage_seconds(system: System, names: Sequence[str]) -> dict[str, float]:
    """Return the total wall time in seconds by stage over these recordings; ``rest`` belongs to no stage."""
    total: dict[str, float] = {}
    for one in (system["recordings"][name] for name in names):
        for stage, seconds in one["stages_s"].items():
            total[stage] = total.get(stage, 0.0) + seconds
    rest = sum(system["recordings"][name]["wall_s"] for name in names) - sum(total.values())
    return {**total, "rest": max(0.0, rest)}


def ratio(one: float | None, other: float | None) -> float | None:
    """Return ``one / other``, or None if either is None or ``other`` is 0."""
    return None if one is None or not other else one / other
