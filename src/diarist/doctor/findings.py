"""Findings of checks, and running checks concurrently so that a slow one does not delay the others."""

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
"""The maximum time that another machine may take to respond."""

CHECK_TIMEOUT_S = 60.0
"""The maximum time of any check. Reading gigabytes of models, or importing PyTorch, takes long on a slow disk."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check."""

    level: Level
    message: str
    """The state, and what to do about it if it is not ok."""


Check = Callable[[Settings], Finding]


def ok(message: str) -> Finding:
    """Return a finding without a problem."""
    return Finding("ok", message)


def warning(message: str) -> Finding:
    """Return a finding that does not prevent anything from working now."""
    return Finding("warning", message)


def error(message: str) -> Finding:
    """Return a finding about something that does not work."""
    return Finding("error", message)


def run_concurrently(
    checks: Mapping[str, Check], settings: Settings, limit_s: Seconds = CHECK_TIMEOUT_S
) -> Iterator[tuple[str, Finding]]:
    """Yield the finding of each check, by name, in order. All checks run at the same time.

    A check that raises an exception results in an error finding. A check that exceeds ``limit_s`` is abandoned.
    """
    deadline = monotonic() + limit_s
    results: dict[str, SimpleQueue[Finding]] = {name: SimpleQueue() for name in checks}
    for name, check in checks.items():
        threading.Thread(target=_run_check, args=(check, settings, results[name]), name=name, daemon=True).start()
    for name, result in results.items():
        try:
            yield name, result.get(timeout=max(deadline - monotonic(), 0.0))
        except Empty:
            yield (
                name,
                error(f"not finished after {limit_s:g} s: something that it depends on is slow or does not respond"),
            )


def _run_check(check: Check, settings: Settings, result: SimpleQueue[Finding]) -> None:
    try:
        result.put(check(settings))
    except DiaristError as exc:
        result.put(error(str(exc)))
    except Exception as exc:  # noqa: BLE001 - no exception may stop the other checks
        result.put(error(f"the check itself failed with {type(exc).__name__}: {exc}"))
