from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from diarist.jobs.workers.ipc import ALIVE, DRAIN, WorkerConfig

WORKER = """
import os, sys
from diarist.jobs.workers.ipc import WorkerChannel
line = WorkerChannel()
config = line.config()
print("chatter of a library")
os.system("echo chatter of a program")
assert sys.stdin.read() == ""
line.listen()
line.say("told " + config.worker + " " + str(config.settings.job_lease_s))
leaves = False
while not leaves:
    line.wake.wait()
    line.wake.clear()
    leaves = line.leave.is_set()
    line.say("left" if leaves else "drain" if line.drain.is_set() else "woken")
"""

BUSY = """
import hashlib, threading
from diarist.jobs.workers.ipc import WorkerChannel
line = WorkerChannel()
line.config()
line.listen()
threading.Thread(target=lambda: (line.leave.wait(), line.say("left")), daemon=True).start()
line.say("busy")
hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes without a step of the interpreter
"""


@pytest.fixture
def start(make_settings):
    started: list[subprocess.Popen] = []

    def run(program: str, **settings: object) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        started.append(process)
        process.stdin.write(WorkerConfig("w-1", make_settings(**settings)).dump())
        process.stdin.flush()
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen) -> str:
    timer = threading.Timer(30, process.kill)
    timer.start()
    try:
        return process.stdout.readline().decode().strip()
    finally:
        timer.cancel()


def send(process: subprocess.Popen, message: str = "") -> None:
    process.stdin.write(message.encode() + b"\n")
    process.stdin.flush()


def test_a_config_comes_back_whole_in_one_line(make_settings):
    settings = make_settings(
        database_url="postgresql://u:p@h/n", s3_secret_key="s\n", webhook_secret="x" * 20, queues="any,gpu", workers=3
    )
    for config in (WorkerConfig("w-1", settings, "A fault,\nof two lines.", "GPU-7"), WorkerConfig("w-2", settings)):
        line = config.dump()
        assert line.count(b"\n") == 1
        assert WorkerConfig.load(line) == config


@pytest.mark.parametrize("line", [b"", b"{", b"\xff\n"])
def test_no_config(line):
    with pytest.raises(ValueError, match=r"."):
        WorkerConfig.load(line)


def test_the_line_is_the_supervisors_alone_and_chatter_goes_to_stderr(start):
    process = start(WORKER, job_lease_s=7.5)
    assert said(process) == "told w-1 7.5"
    send(process)
    assert said(process) == "woken"
    send(process, DRAIN)
    assert said(process) == "drain"
    process.stdin.close()
    assert said(process) == "left"
    assert process.wait(30) == 0
    assert process.stdout.read() == b""
    errors = process.stderr.read()
    assert b"chatter of a library" in errors
    assert b"chatter of a program" in errors
    process.stdin = None


def test_sigterm_is_heard(start):
    process = start(WORKER)
    assert said(process).startswith("told")
    os.kill(process.pid, signal.SIGTERM)
    assert said(process) == "left"
    assert process.wait(30) == 0


def test_sigterm_is_heard_while_the_main_thread_is_in_native_code(start):
    process = start(BUSY)
    assert said(process) == "busy"
    os.kill(process.pid, signal.SIGTERM)
    assert said(process) == "left"
    assert process.poll() is None, "it was in the middle of it"


def test_words_are_one_each():
    assert len({ALIVE, DRAIN}) == 2
    assert all(word == word.strip() and " " not in word for word in (ALIVE, DRAIN))
