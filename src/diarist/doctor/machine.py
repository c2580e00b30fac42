"""Checks of Python, the installed packages, cores, memory, and the folders of the settings."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import psutil

from diarist.doctor.findings import Finding, error, ok, warning
from diarist.models import select_recognizer
from diarist.scratch import check_writable
from diarist.settings import Settings

MIN_MEMORY_MB = 1_500
"""The peak memory of a worker of the embedded engine with a recording of one hour."""

MIN_FREE_MODEL_MB = 500
"""The disk space that the models of the embedded engine need while they are fetched."""


REPLACEMENTS: Mapping[str, str] = {"onnxruntime": "onnxruntime-gpu"}
"""Packages that contain what a required one does. Both cannot be installed at the same time."""


def check_python(settings: Settings) -> Finding:  # noqa: ARG001
    """Check the Python interpreter and the platform."""
    summary = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.implementation.name != "cpython":
        return warning(f"{summary}, {sys.implementation.name}: Diarist is only tested on CPython")
    return ok(summary)


def check_packages(settings: Settings) -> Finding:
    """Check that the requirements of Diarist, and of the extras that the settings need, are installed."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return error("the package `packaging` is not installed: run `pip install diarist` again")
    extras = tuple(_required_extras(settings))
    problems, count = [], 0
    for line in distribution("diarist").requires or ():
        needed = Requirement(line)
        if needed.marker and not any(needed.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        count += 1
        try:
            installed = version(needed.name)
        except PackageNotFoundError:
            replacement = _installed(REPLACEMENTS.get(needed.name, ""))
            if replacement is None:
                problems.append(f"{needed.name} is not installed")
                continue
            installed = replacement
        if not needed.specifier.contains(installed, prereleases=True):
            problems.append(f"{needed.name} is version {installed}, not {needed.specifier}")
    if problems:
        extras_option = f"[{','.join(extras)}]" if extras else ""
        return error(f"{'; '.join(problems)}: run `pip install 'diarist{extras_option}'`")
    extras_text = f", including the extras {' and '.join(extras)}" if extras else ""
    return ok(f"Diarist {version('diarist')} and its {count} required packages{extras_text}")


def check_resources(settings: Settings) -> Finding:
    """Check the cores that this process may use, and the memory."""
    cores = usable_cores()
    memory = memory_mb()
    summary = f"{cores} core{'s' * (cores > 1)}" + (f", {memory} MB of memory" if memory else "")
    workers = max(settings.workers, 1)
    if memory and memory < workers * MIN_MEMORY_MB:
        return warning(
            f"{summary}: {workers} worker{'s' * (workers > 1)} may need {workers * MIN_MEMORY_MB} MB for recordings of "
            "one hour. Add memory, or lower WORKERS or MAX_DURATION_S"
        )
    if settings.cpu_threads * workers > cores:
        return warning(
            f"{summary}: all workers together use more threads (CPU_THREADS is {settings.cpu_threads}) than there "
            "are cores"
        )
    return ok(summary)


def check_data_dir(settings: Settings) -> Finding:
    """Check the folder that the service stores its data in."""
    return _check_folder(settings.data_dir, "DATA_DIR", settings.min_free_mb, "MIN_FREE_MB")


def check_temp_dir(settings: Settings) -> Finding:
    """Check the folder for uploads that are being received."""
    return _check_folder(settings.temp_dir, "TEMP_AUDIO_DIR", settings.min_free_mb, "MIN_FREE_MB")


def check_log_file(settings: Settings) -> Finding:
    """Check the log file and its folder."""
    path = settings.log_file
    if path.exists() and not (path.is_file() and os.access(path, os.W_OK)):
        return error(f"{path} cannot be written. Make this user its owner, or set LOG_FILE to another path")
    return _check_folder(path.parent, "the folder of LOG_FILE", 0, "")


def check_model_dir(settings: Settings) -> Finding:
    """Check the folder of the models, which need not be writable if they are already there."""
    summary = _check_folder(settings.model_dir, "MODEL_DIR", MIN_FREE_MODEL_MB, "")
    if summary.level == "error" and settings.model_dir.is_dir() and os.access(settings.model_dir, os.R_OK | os.X_OK):
        return warning(f"{summary.message}; this only matters if models have to be fetched")
    return summary


def _installed(package: str) -> str | None:
    """Return the version of a package, or None if it is not installed."""
    try:
        return version(package) if package else None
    except PackageNotFoundError:
        return None


def _required_extras(settings: Settings) -> Iterator[str]:
    if settings.database_url or settings.queue_url or settings.in_s3:
        yield "distributed"
    if settings.traces != "none":
        yield "tracing"
    if select_recognizer(settings).name == "nemo" or settings.diarizer_name in ("clustering", "sortformer", "auto"):
        yield "nemo"


def _check_folder(path: Path, setting: str, min_free_mb: int, limit: str) -> Finding:
    """Check that files can be created in a folder, or that the folder can be created, and the free space."""
    existing = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    advice = f"Make this user its owner, or set {setting} to a writable folder"
    try:
        check_writable(existing, 4_096)
    except OSError as exc:
        return error(f"{existing} cannot be written ({exc.strerror}). {advice}")
    free_mb = shutil.disk_usage(existing).free // 2**20
    summary = f"{path}{'' if existing == path.absolute() else ' (will be created)'}, {free_mb} MB free"
    if free_mb < min_free_mb:
        requirement = f"{min_free_mb} MB must stay free ({limit})" if limit else f"about {min_free_mb} MB are needed"
        return error(f"{summary}, and {requirement}. Free some space, or set {setting} to another disk")
    return ok(summary)


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_mb() -> int | None:
    """Return the memory of the machine, or of the container if that has less; None if it is unknown."""
    try:
        memory_bytes = psutil.virtual_memory().total
    except (psutil.Error, OSError, RuntimeError):
        return None
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        try:
            memory_bytes = min(memory_bytes, int(limit.read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return memory_bytes // 2**20
