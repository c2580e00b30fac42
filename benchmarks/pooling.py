"""Which recordings of a comparison are added up, and what is made of the sums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diarist.evaluation.scoring import Score, pool

Result = Mapping[str, Any]
"""What ``compare.py`` writes as JSON."""

System = Mapping[str, Any]
"""One of its ``systems``."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a system took for some recordings."""

    audio: float
    """Seconds of recording."""

    wall: float
    cpu: float


def speaking(result: Result) -> list[System]:
    """The systems that tell speakers apart, those that finished nothing among them."""
    return [system for system in result["systems"].values() if system["speakers"]]


def common(systems: Iterable[System], names: Iterable[str]) -> tuple[str, ...]:
    """The recordings that all systems finished, but for systems that finished none: nothing else can be compared."""
    took_part = [system["recordings"] for system in systems if system["recordings"]]
    return tuple(name for name in names if took_part and all(name in finished for finished in took_part))


def left_out(systems: Iterable[System], names: Iterable[str]) -> dict[str, list[str]]:
    """The recordings that some system did not finish, with the titles of those systems."""
    took_part = [system for system in systems if system["recordings"]]
    missing = {name: [each["title"] for each in took_part if name not in each["recordings"]] for name in names}
    return {name: titles for name, titles in missing.items() if titles}


def members(result: Result) -> dict[str, tuple[str, ...]]:
    """By set, and under ``all``: the recordings that every system which tells speakers apart finished."""
    names = common(speaking(result), result["sets"])
    sets = dict.fromkeys(result["sets"].values())
    return {each: tuple(name for name in names if result["sets"][name] == each) for each in sets} | {"all": names}


def pooled(system: System, names: Sequence[str]) -> Score:
    """The scores of these recordings added up; of a system that finished none: nothing."""
    scores = system["recordings"]
    return pool(Score(**scores[name]["score"]) for name in names if name in scores)


def spent(result: Result, system: System, names: Sequence[str]) -> Spent:
    """The time of these recordings added up."""
    took = [system["recordings"][name] for name in names]
    return Spent(
        sum(result["lengths"][name] for name in names),
        sum(one["wall_s"] for one in took),
        sum(one["cpu_s"] for one in took),
    )


def stage_seconds(system: System, names: Sequence[str]) -> dict[str, float]:
    """Wall seconds of each stage over these recordings; what belongs to none is ``rest``."""
    total: dict[str, float] = {}
    for one in (system["recordings"][name] for name in names):
        for stage, seconds in one["stages_s"].items():
            total[stage] = total.get(stage, 0.0) + seconds
    rest = sum(system["recordings"][name]["wall_s"] for name in names) - sum(total.values())
    return {**total, "rest": max(0.0, rest)}


def ratio(one: float | None, other: float | None) -> float | None:
    """How many times the other the first is; None where one is not known, or the other is 0."""
    return None if one is None or not other else one / other
