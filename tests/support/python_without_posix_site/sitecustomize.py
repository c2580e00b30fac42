"""Loaded by each Python process that has this folder in PYTHONPATH: it makes the process resemble one on Windows.

The libraries that have functions of their own for Windows keep those for Linux, which cannot be replaced here.
"""

from __future__ import annotations

import asyncio.base_events  # noqa: F401 - it needs what is removed
import os
import selectors
import subprocess
import sys
from pathlib import Path
from typing import Any

import posix_removal  # type: ignore[import-not-found]  # it is beside this file
import psutil  # noqa: F401 - the same

HERE = Path(__file__).parent
DECODER = os.path.join("decoder_program", "__main__.py")  # noqa: PTH118
KEEPERS = ("asyncio.base_events", "psutil", "psutil._psposix", "subprocess")

_start = subprocess.Popen.__init__


def _start_as_on_windows(self: Any, args: Any, *others: Any, **options: Any) -> None:
    """Start a process, and a decoder process, which loads no ``sitecustomize``, through ``decoder_entry.py``."""
    absent = {"preexec_fn", "process_group", "start_new_session"}
    if used := [name for name in absent if options.get(name) not in (None, False, -1)]:
        raise RuntimeError(f"Windows has no {used}")
    if not isinstance(args, str | bytes):
        args = [os.fspath(each) for each in args]
        entry = next((at for at, each in enumerate(args) if each.endswith(DECODER)), None)
        if entry is not None:
            args[entry:entry] = _entry()
    _start(self, args, *others, **options)


def _entry() -> tuple[str, ...]:
    """Return the program of a decoder process, before the one that it is to run."""
    folder = os.environ.get("HANGING_DECODER")
    if folder is not None and Path(folder).is_dir():
        return (str(HERE / "hanging_decoder.py"), folder)
    return (str(HERE / "decoder_entry.py"),)


def _customize() -> None:
    kept = posix_removal.copies()
    for library in (sys.modules[name] for name in KEEPERS if name in sys.modules):
        for name, module in kept.items():
            if name in vars(library):
                setattr(library, name, module)
    subprocess.Popen.__init__ = _start_as_on_windows  # type: ignore[method-assign]
    posix_removal.remove()
    selectors.DefaultSelector = selectors.SelectSelector  # type: ignore[assignment,misc]  # as chosen on Windows


_customize()
