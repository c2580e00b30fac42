"""What a check finds, and how many of them are run at once without one holding up the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Literal

from diarist.errors import DiaristError
from diarist.settings import Settings
from diarist.types import Seconds

Level = Literal["ok", "warning", "error"]

NETWORK_TIMEOUT_S = 5.0
"""How long another machine may take to answer."""

CHECK_TIMEOUT_S = 60.0
"""How long any check may take: reading gigabytes of models, or importing PyTorch, is slow on a slow disk."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found."""

    level: Level
    message: str
    """What is, and where that is not well, what to do."""


Check = Callable[[Settings], Finding]


def ok(message: str) -> Finding:
    """It is well."""
    return Finding("ok", message)


def warning(message: str) -> Finding:
    """It works, or is not needed now, but somebody should know."""
    return Finding("warning", message)


def error(message: str) -> Finding:
    """It does not work."""
    return Finding("error", message)


def run_concurrently(
    checks: Mapping[str, Check], settings: Settings, limit_s: Seconds = CHECK_TIMEOUT_S
) -> Iterator[tuple[str, Finding]]:
    """What each check finds, by name, in order. All run at once; those that are not done in time are left behind.

    A check that fails by an error of any kind is a finding.
    """
    deadline = monotonic() + limit_s
    results: dict[str, SimpleQueue[Finding]] = {name: SimpleQueue() for name in checks}
    for name, check in checks.items():
        threading.Thread(target=_run_check, args=(check, settings, results[name]), name=name, daemon=True).start()
    for name, result in results.items():
        try:
            yield name, result.get(timeout=max(deadline - monotonic(), 0.0))
        except Empty:
            yield name, error(f"not done within {limit_s:g} s: whatever it asks is too slow, or does not answer")


def _run_check(check: Check, settings: Settings, result: SimpleQueue[Finding]) -> None:
    try:
        result.put(check(settings))
    except DiaristError as exc:
        result.put(error(str(exc)))
    except Exception as exc:  # noqa: BLE001 - whatever it is, it must not end the examination
        result.put(error(f"this check failed itself, by {type(exc).__name__}: {exc}"))
