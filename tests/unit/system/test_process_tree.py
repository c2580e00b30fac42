"""Child processes end together with those that they started, with and without process groups."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from diarist.system.process_tree import group_options, is_suspended, kill_tree, request_exit

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
"""
WAIT_S = 20.0


@pytest.fixture(params=["groups", "no groups"])
def groups(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the system has process groups."""
    if request.param == "no groups":
        monkeypatch.delattr(os, "killpg")
    return request.param == "groups"


@pytest.fixture
def start() -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """``start(program)``: starts a program that starts another one and then does what ``program`` says."""
    started: list[subprocess.Popen[bytes]] = []

    def run(program: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", PARENT + program]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **group_options()))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def ends(pid: int) -> bool:
    deadline = time.monotonic() + WAIT_S
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_a_process_is_killed_with_its_descendants(start, groups):
    process = start("input()")
    grandchild = int(process.stdout.readline())
    kill_tree(process)
    assert process.wait(WAIT_S) == -signal.SIGKILL
    assert ends(grandchild)


def test_the_descendants_of_a_process_that_has_ended_are_killed(start):
    process = start("")
    grandchild = int(process.stdout.readline())
    process.stdin.close()
    assert process.wait(WAIT_S) == 0
    kill_tree(process)
    assert ends(grandchild)


def test_without_groups_nothing_is_killed_for_a_process_that_has_ended(start, monkeypatch):
    monkeypatch.delattr(os, "killpg")
    process = start("child.kill()")
    process.stdout.readline()
    process.stdin.close()
    process.wait(WAIT_S)
    monkeypatch.setattr(psutil.Process, "kill", lambda each: pytest.fail(f"killed {each.pid}"))
    kill_tree(process)


def test_a_process_leads_a_group_where_there_are_groups(start, groups):
    process = start("input()")
    process.stdout.readline()
    assert (os.getpgid(process.pid) == process.pid) is groups


@pytest.mark.parametrize("prepare", ["import os", "import os; del os.killpg"])
def test_a_process_kills_itself_with_its_descendants(start, prepare):
    process = start(f"{prepare}\nfrom diarist.system.process_tree import kill_own_tree\nkill_own_tree()")
    grandchild = int(process.stdout.readline())
    assert process.wait(WAIT_S) == (1 if "del" in prepare else -signal.SIGKILL)
    assert ends(grandchild)


def test_a_process_is_asked_to_exit_where_that_is_possible(start, groups):
    process = start("input()")
    process.stdout.readline()
    assert request_exit(process) is groups
    if groups:
        assert process.wait(WAIT_S) == -signal.SIGTERM
    else:
        assert process.poll() is None


def test_a_suspended_process_is_recognized(start):
    process = start("input()")
    process.stdout.readline()
    assert not is_suspended(process.pid)
    process.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + WAIT_S
    while not is_suspended(process.pid):
        assert time.monotonic() < deadline
    process.kill()
    process.wait()
    assert not is_suspended(process.pid)
