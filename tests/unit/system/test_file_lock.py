"""Locks: by ``flock``, and by a second file as on Windows, with ``fcntl`` and with nothing but files."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from diarist import scratch
from diarist.system import file_lock
from diarist.system.file_lock import remove_unlocked

TESTS = Path(__file__).parents[2]
WAYS = ("flock", "file beside it", "without POSIX")

START = {
    "flock": "",
    "file beside it": "from diarist.system import file_lock; file_lock._HAS_FLOCK = False\n",
    "without POSIX": "from support.without_posix import install; install()\n",
}
HOLD = """
import sys
from pathlib import Path
from diarist import scratch
with scratch.locked_file(Path(sys.argv[1]), scratch.DOWNLOAD_PREFIX) as path:
    print(path, flush=True)
    command = sys.stdin.readline()
    if command == "move\\n":
        path.rename(path.with_name("moved"))
        print("moved", flush=True)
        sys.stdin.readline()
"""
REMOVE = """
import sys
from pathlib import Path
from diarist.system.file_lock import remove_unlocked
print(remove_unlocked(Path(sys.argv[1])))
"""


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    if request.param != "flock":
        monkeypatch.setattr(file_lock, "_HAS_FLOCK", False)
    return request.param


def command(way: str, program: str, argument: Path) -> list[str]:
    start = f"import sys; sys.path.append({str(TESTS)!r})\n" + START[way]
    return [sys.executable, "-W", "ignore:only soft file lock", "-c", start + program, str(argument)]


@pytest.fixture
def holder(way, tmp_path):
    """A process that holds the lock of a file, and the file."""
    process = subprocess.Popen(
        command(way, HOLD, tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        yield process, Path(process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()


def removed_elsewhere(way: str, path: Path) -> bool:
    """Return whether another process could remove the file."""
    output = subprocess.check_output(command(way, REMOVE, path), text=True)
    return output == "True\n"


def test_the_lock_excludes_other_processes(way, holder):
    _, path = holder
    assert not removed_elsewhere(way, path)
    assert path.exists()


def test_the_lock_ends_with_a_killed_process(way, holder, tmp_path):
    process, path = holder
    process.kill()
    process.wait()
    assert removed_elsewhere(way, path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_released_leaves_nothing(way, holder, tmp_path):
    process, _ = holder
    process.communicate("end\n")
    assert process.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_locked_file_can_be_moved_away(way, holder, tmp_path):
    process, path = holder
    process.stdin.write("move\n")
    assert process.stdout.readline() == "moved\n"
    process.communicate("end\n")
    assert list(tmp_path.iterdir()) == [tmp_path / "moved"]
    assert not path.exists()


def test_a_sweep_removes_the_lock_of_a_file_that_was_moved_away(way, holder, tmp_path):
    process, _ = holder
    process.stdin.write("move\n")
    assert process.stdout.readline() == "moved\n"
    process.kill()
    process.wait()
    for path in tmp_path.iterdir():
        os.utime(path, (1.0, 1.0))
    scratch.sweep(tmp_path, datetime.now(UTC), (scratch.DOWNLOAD_PREFIX,))
    assert list(tmp_path.iterdir()) == [tmp_path / "moved"]


def test_a_file_is_locked_against_its_own_process(way, tmp_path):
    with scratch.locked_file(tmp_path, scratch.DOWNLOAD_PREFIX) as path:
        path.write_bytes(b"spoken")
        for each in list(tmp_path.iterdir()):
            assert not remove_unlocked(each)
        assert path.read_bytes() == b"spoken"
    assert list(tmp_path.iterdir()) == []


def test_an_error_releases_the_lock(way, tmp_path):
    with pytest.raises(ValueError, match="spoken"), scratch.locked_file(tmp_path, scratch.DOWNLOAD_PREFIX):
        raise ValueError("spoken")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_does_not_exist_is_an_error(way, tmp_path):
    with pytest.raises(FileNotFoundError):
        remove_unlocked(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []
