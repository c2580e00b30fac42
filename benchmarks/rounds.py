"""Run all systems in turn, once or several times, and keep the least disturbed run of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from diarist.types import Seconds
from running import Run
from systems import System

Start = Callable[[System], Run]


@dataclass(frozen=True, slots=True)
class Rounds:
    """The runs of a system in all rounds."""

    best: Run
    """The fastest of the runs that finished the most recordings; time, memory, and output are of one process."""

    wall: tuple[Seconds, ...]
    """The total wall time of all recordings in each round."""

    cpu: tuple[Seconds, ...]
    others: tuple[float, ...]
    """The average number of cores that other processes kept busy in each round."""

    steady: bool
    """Whether every round had the same output for the recordings that it finished."""


def run_all(systems: Sequence[System], rounds: int, start: Start) -> dict[str, Rounds]:
    """Run each system once per round.

    Every other round is in reverse order, so that a busy period does not affect the same system in all rounds.

    Args:
        systems: The systems; those that are another reading of a system's output are not run, but use its run.
        rounds: The number of rounds.
        start: A function that runs a system.

    Returns:
        The rounds by the system's name, in the order of ``systems``.
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
            found[system.name] = summarize([_reading(run, system) for run in runs[source]])
    return found


def summarize(runs: Sequence[Run]) -> Rounds:
    """Summarize one or more runs of a system."""
    wall, cpu = (
        tuple(sum(getattr(each, kind) for each in run.outputs.values()) for run in runs) for kind in ("wall", "cpu")
    )
    best = max(range(len(runs)), key=lambda number: (len(runs[number].outputs), -wall[number]))
    return Rounds(runs[best], wall, cpu, tuple(run.others for run in runs), _steady(runs))


def _reading(run: Run, system: System) -> Run:
    """Return the run with the turns of the other reading if ``system`` is one, and unchanged otherwise."""
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
            answer = {"turns": output.turns, "words": output.words}
            if answers.setdefault(name, answer) != answer:
                return False
    return True
