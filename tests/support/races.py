"""Races that tests provoke on purpose."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any


class Rendezvous:
    """Wraps a function so that two callers who can both be in it return from it together.

    Where callers take turns, the first one waits for nobody: it goes on after half a second.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._barrier = threading.Barrier(2)

    def __call__(self, *arguments: Any) -> Any:
        result = self._function(*arguments)
        with contextlib.suppress(threading.BrokenBarrierError):
            self._barrier.wait(0.5)
        return result
