"""Only one service uses a DATA_DIR, whether or not the system has ``flock``."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from diarist.api.data_dir_lock import LOCK_FILE
from support.python_without_posix import ENVIRONMENT

pytestmark = pytest.mark.slow

PROGRAM = """
import sys
from pathlib import Path
from diarist.api.data_dir_lock import lock_data_dir
from diarist.errors import ConfigurationError
try:
    with lock_data_dir(Path(sys.argv[1])):
        print("locked", flush=True)
        sys.stdin.read()
except ConfigurationError as error:
    print(error)
"""


@pytest.fixture(params=["flock", "without flock"])
def start(request, tmp_path):
    """Return a function that starts a process that locks the folder until its standard input ends."""
    environment = os.environ | (ENVIRONMENT if request.param == "without flock" else {})
    started: list[subprocess.Popen] = []

    def run(folder=tmp_path / "data") -> subprocess.Popen:
        command = [sys.executable, "-c", PROGRAM, str(folder)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        started.append(subprocess.Popen(command, env=environment, text=True, **pipes))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait(20)
        process.stdin.close()
        process.stdout.close()


def test_a_second_service_is_refused_and_told_who_has_it(start):
    first = start()
    assert first.stdout.readline() == "locked\n"
    for _ in range(2):
        message = start().stdout.readline()
        assert re.search(rf"is in use by another Diarist service \(process {first.pid}\)\. Stop", message)


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_the_next_service_can_start_however_the_first_one_ended(start, end):
    first = start()
    assert first.stdout.readline() == "locked\n"
    first.stdin.close() if end == "exit" else first.kill()
    first.wait(20)
    second = start()
    assert second.stdout.readline() == "locked\n"
    assert f"(process {second.pid})" in start().stdout.readline()


def test_a_folder_that_cannot_be_written_is_reported(start, tmp_path):
    (tmp_path / "file").touch()
    assert "is not writable" in start(tmp_path / "file" / "data").stdout.readline()


def test_the_lock_file_names_the_process(start, tmp_path):
    first = start()
    first.stdout.readline()
    assert (tmp_path / "data" / LOCK_FILE).read_text().split()[0] == str(first.pid)
