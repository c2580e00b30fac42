from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

import pytest

from diarist.jobs.workers.ipc import ALIVE, DRAIN, EXIT, JOB_ENDED, READY, WorkerConfig

WORKER = """
import os, sys
from diarist.jobs.workers.ipc import WorkerChannel
channel = WorkerChannel()
config = channel.config()
print("output of a library")
os.system("echo output of a program")
assert sys.stdin.read() == ""
channel.listen()
channel.send("configured " + config.worker + " " + str(config.settings.job_lease_s))
exiting = False
while not exiting:
    channel.wake.wait()
    channel.wake.clear()
    exiting = channel.shutdown.is_set()
    channel.send("exiting" if exiting else "drain" if channel.drain.is_set() else "woken")
"""

BUSY = """
import hashlib, threading
from diarist.jobs.workers.ipc import WorkerChannel
channel = WorkerChannel()
channel.config()
channel.listen()
threading.Thread(target=lambda: (channel.shutdown.wait(), channel.send("exiting")), daemon=True).start()
channel.send("busy")
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
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def received(process: subprocess.Popen) -> str:
    timer = threading.Timer(30, process.kill)
    timer.start()
    try:
        return process.stdout.readline().decode().strip()
    finally:
        timer.cancel()


def send(process: subprocess.Popen, message: str = "") -> None:
    process.stdin.write(message.encode() + b"\n")
    process.stdin.flush()


def test_a_config_survives_a_round_trip_in_one_line(make_settings):
    settings = make_settings(database_url="postgresql://u:p@h/n", s3_secret_key="s\n", queues="any,gpu", workers=3)
    for config in (WorkerConfig("w-1", settings, "A fault,\nof two lines.", "GPU-7"), WorkerConfig("w-2", settings)):
        line = config.dump()
        assert line.count(b"\n") == 1
        assert WorkerConfig.load(line) == config


@pytest.mark.parametrize("line", [b"", b"{", b"\xff\n"])
def test_a_line_that_is_not_a_config_is_rejected(line):
    with pytest.raises(ValueError, match=r"."):
        WorkerConfig.load(line)


def test_only_messages_reach_the_supervisor_and_other_output_goes_to_stderr(start):
    process = start(WORKER, job_lease_s=7.5)
    assert received(process) == "configured w-1 7.5"
    send(process)
    assert received(process) == "woken"
    send(process, DRAIN)
    assert received(process) == "drain"
    process.stdin.close()
    assert received(process) == "exiting"
    assert process.wait(30) == 0
    assert process.stdout.read() == b""
    errors = process.stderr.read()
    assert b"output of a library" in errors
    assert b"output of a program" in errors


def test_sigterm_is_received(start):
    process = start(WORKER)
    assert received(process).startswith("configured")
    os.kill(process.pid, signal.SIGTERM)
    assert received(process) == "exiting"
    assert process.wait(30) == 0


def test_sigterm_is_received_while_the_main_thread_is_in_native_code(start):
    process = start(BUSY)
    assert received(process) == "busy"
    os.kill(process.pid, signal.SIGTERM)
    assert received(process) == "exiting"
    assert process.poll() is None, "the main thread is still in native code"


def test_a_message_asks_to_exit_where_signals_cannot(start):
    process = start(WORKER)
    assert received(process).startswith("configured")
    send(process, EXIT)
    assert received(process) == "exiting"
    assert process.wait(30) == 0


def test_messages_are_distinct_single_words():
    messages = (ALIVE, READY, JOB_ENDED, DRAIN, EXIT)
    assert len(set(messages)) == len(messages)
    assert all(message.split() == [message] for message in messages)


def test_the_configuration_has_the_secrets_that_a_worker_needs_and_no_other(make_settings):
    secrets = {"api_key": "a" * 24, "webhook_secret": "w" * 24, "database_url": "postgresql://u:p@h/n"}
    line = WorkerConfig("w-1", make_settings(**secrets)).dump()
    assert b"a" * 24 not in line
    assert b"w" * 24 not in line
    loaded = WorkerConfig.load(line).settings
    assert (loaded.api_key, loaded.webhook_secret, loaded.database_url) == ("", "", "postgresql://u:p@h/n")


def test_a_worker_does_not_take_the_key_of_the_service_from_its_own_settings(make_settings, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("API_KEY=" + "a" * 24)
    assert WorkerConfig.load(WorkerConfig("w-1", make_settings()).dump()).settings.api_key == ""
