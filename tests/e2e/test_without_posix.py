"""The embedded way, where Python has nothing that only POSIX systems have, in every process.

On Linux and macOS these are taken away, so that the fallbacks are used; what is specific to Windows is not run there.
On Windows, the tests run as they are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from api.process import CTRL_C, ServiceProcess
from api.wire import FORM, Answer, call, recording
from e2e.real_service import COMMAND, READY, READY_S, repeated, running, wait_until, worker_of
from support.python_without_posix import ENVIRONMENT, HANGING_DECODER

pytestmark = [pytest.mark.models, pytest.mark.slow]

ANSWER_S = 180.0
STOP_S = 10.0

ABSENT = """
import importlib.util, os, select, signal, sys
for name in ("fcntl", "resource", "termios"):
    try:
        __import__(name)
    except ImportError:
        continue
    sys.exit(f"{name} can be imported")
for module, names in {
    os: ("pread", "readv", "killpg", "setsid", "getpgrp"), select: ("poll", "epoll", "POLLIN"),
    signal: ("SIGHUP", "SIGKILL", "SIGPIPE", "SIGUSR1", "SIGALRM", "pthread_kill"),
}.items():
    for name in names:
        if hasattr(module, name):
            sys.exit(f"{module.__name__}.{name} exists")
"""


@pytest.fixture
def start(tmp_path: Path, model_store: object) -> Iterator[Callable[..., ServiceProcess]]:
    """``start(**settings)``: starts ``python app.py``; each one has the same DATA_DIR."""
    started: list[ServiceProcess] = []

    def run(**options: object) -> ServiceProcess:
        options = dict(ENVIRONMENT) | {"command": COMMAND} | options
        started.append(ServiceProcess(tmp_path / "service", **options))
        return started[-1]

    yield run
    for service in started:
        if service.process.poll() is None:
            service.stop(CTRL_C)


def transcribed(recording: Path, environment: dict[str, str], folder: Path) -> bytes:
    """Return what ``diarist transcribe`` prints."""
    command = [sys.executable, "-m", "diarist.cli", "transcribe", str(recording), "--format", "json"]
    return subprocess.run(
        command, env=os.environ | environment, cwd=folder, check=True, capture_output=True, timeout=ANSWER_S
    ).stdout


@pytest.fixture(scope="module")
def expected(
    sample_recording: Path, model_store: object, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, object]]:
    """The conversation that the command line prints where nothing is missing."""
    conversation: list[dict[str, object]] = json.loads(
        transcribed(sample_recording, {}, tmp_path_factory.mktemp("cli"))
    )["conversation"]
    assert {each["speaker"] for each in conversation} == {"SPEAKER_00", "SPEAKER_01"}
    return conversation


def post(service: ServiceProcess, content: bytes, path: str = "/diarize") -> Answer:
    return call(service.address, "POST", path, recording(content), FORM, ANSWER_S)


def job_of(service: ServiceProcess, answer: Answer) -> dict[str, object]:
    job: dict[str, object] = call(service.address, "GET", f"/v1/jobs/{answer.json['id']}").json
    return job


def test_the_names_are_missing():
    subprocess.run([sys.executable, "-c", ABSENT], env=os.environ | ENVIRONMENT, check=True, timeout=60)


def test_the_command_line_prints_the_same(sample_recording, expected, tmp_path):
    assert json.loads(transcribed(sample_recording, dict(ENVIRONMENT), tmp_path))["conversation"] == expected


def test_the_service_answers_and_a_job_survives_the_death_of_its_worker(start, sample_recording, expected):
    service = start()
    service.wait_for("At most 384 connections")
    service.wait_for(READY, READY_S)
    answer = post(service, sample_recording.read_bytes())
    assert (answer.status, answer.json["conversation"]) == (200, expected)

    created = post(service, sample_recording.read_bytes(), "/v1/jobs")
    assert created.status == 202
    wait_until(lambda: running(service.address))
    killed = worker_of(service)
    with killed.oneshot():
        processes = [killed, *killed.children(recursive=True)]
    killed.kill()
    wait_until(lambda: job_of(service, created)["state"] == "succeeded", ANSWER_S)
    assert job_of(service, created)["attempts"] == 2
    result = call(service.address, "GET", f"/v1/jobs/{created.json['id']}/result")
    assert result.json["conversation"] == expected
    assert psutil.wait_procs(processes, timeout=STOP_S)[1] == []

    assert call(service.address, "DELETE", f"/v1/jobs/{created.json['id']}").status == 204
    processes = psutil.Process(service.process.pid).children(recursive=True)
    assert service.stop(CTRL_C) == 0
    assert psutil.wait_procs(processes, timeout=STOP_S)[1] == []
    assert service.left_behind() == []


def test_a_decoder_that_hangs_is_ended_with_what_it_started(start, sample_recording, tmp_path, expected):
    folder = tmp_path / "hanging"
    folder.mkdir()
    service = start(DECODE_TIMEOUT_S=3, **{HANGING_DECODER: folder})
    service.wait_for(READY, READY_S)
    worker = worker_of(service)
    answer = post(service, sample_recording.read_bytes())
    assert (answer.status, answer.json["code"]) == (500, "decoder_failed")
    assert "DECODE_TIMEOUT_S" in answer.body.decode()
    decoder, child = map(int, (folder / "pids").read_text().split())
    wait_until(lambda: not psutil.pid_exists(decoder) and not psutil.pid_exists(child), STOP_S)
    (folder / "pids").unlink()
    folder.rmdir()
    answer = post(service, sample_recording.read_bytes())
    assert (answer.status, answer.json["conversation"]) == (200, expected)
    assert worker_of(service) == worker, "the worker went on"


def test_a_killed_service_leaves_nothing_running_and_the_next_one_continues(start, sample_recording):
    first = start()
    first.wait_for(READY, READY_S)
    created = post(first, repeated(sample_recording, 4), "/v1/jobs")
    wait_until(lambda: running(first.address))
    refused = start()
    assert refused.wait() != 0
    owner = "" if sys.platform == "win32" else f" (process {first.process.pid})"  # Windows does not tell
    assert f"in use by another Diarist service{owner}." in "\n".join(refused.log)

    processes = psutil.Process(first.process.pid).children(recursive=True)
    assert processes
    first.process.kill()
    first.wait()
    assert psutil.wait_procs(processes, timeout=STOP_S)[1] == []

    second = start()
    wait_until(lambda: job_of(second, created)["state"] == "succeeded", ANSWER_S)


def test_ctrl_c_ends_all_within_seconds(start, sample_recording):
    service = start()
    service.wait_for(READY, READY_S)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(post, service, repeated(sample_recording, 16))
        wait_until(lambda: running(service.address))
        processes = psutil.Process(service.process.pid).children(recursive=True)
        asked = time.monotonic()
        assert service.stop(CTRL_C) == 0
        assert time.monotonic() - asked < STOP_S
        answer = waiting.result(STOP_S)
        assert (answer.status, answer.json["code"]) == (503, "engine_unavailable")
    assert psutil.wait_procs(processes, timeout=STOP_S)[1] == []
    assert "is killed" not in "\n".join(service.log)
    assert service.left_behind() == []
