"""Runs all systems in turn, once or several times, and keeps of each the run that was disturbed least."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from diarist.types import Seconds
from running import Run
from systems import System

Start = Callable[[System], Run]


@dataclass(frozen=True, slots=True)
class Rounds:
    """What a system did in all rounds."""

    best: Run
    """The round of the most recordings, and of those the fastest: time, memory and answers are of one process."""

    wall: tuple[Seconds, ...]
    """Of all its recordings, round by round."""

    cpu: tuple[Seconds, ...]
    others: tuple[float, ...]
    """Cores that others kept busy, round by round."""

    steady: bool
    """Every round gave the same answers, for the recordings that it finished."""


def run_all(systems: Sequence[System], rounds: int, start: Start) -> dict[str, Rounds]:
    """Run each system once a round, every other round in reverse order: a busy minute hits no system in all of them.

    Args:
        systems: other readings of what a system finds are not run, but taken from its run.
        rounds: how many.
        start: runs a system.

    Returns:
        By the system's name, in the order of ``systems``.
    """
    running = [each for each in systems if each.reading_of is None]
    runs: dict[str, list[Run]] = {each.name: [] for each in running}
    for number in range(rounds):
        for system in reversed(running) if number % 2 else running:
            runs[system.name].append(start(system))
    found: dict[str, Rounds] = {}
    for system in systems:
        source = system.reading_of or system.name
        if source in runs:
            found[system.name] = summed([_reading(run, system) for run in runs[source]])
    return found


def summed(runs: Sequence[Run]) -> Rounds:
    """One or more rounds of a system."""
    wall, cpu = (
        tuple(sum(getattr(each, kind) for each in run.outputs.values()) for run in runs) for kind in ("wall", "cpu")
    )
    best = max(range(len(runs)), key=lambda number: (len(runs[number].outputs), -wall[number]))
    return Rounds(runs[best], wall, cpu, tuple(run.others for run in runs), _steady(runs))


def _reading(run: Run, system: System) -> Run:
    """The run with the turns of another reading, where ``system`` is one."""
    if system.reading_of is None:
        return run
    outputs = {
        name: replace(output, turns=output.readings[system.name])
        for name, output in run.outputs.items()
        if system.name in output.readings
    }
    return replace(run, outputs=outputs)


def _steady(runs: Sequence[Run]) -> bool:
    answers: dict[str, Mapping[str, object]] = {}
    for run in runs:
        for name, output in run.outputs.items():
            said = {"turns": output.turns, "words": output.words}
            if answers.setdefault(name, said) != said:
                return False
    return True
