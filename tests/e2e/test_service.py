"""The service as users start it, with the real engine and real recordings: what it must bear while it works."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from statistics import median

import psutil
import pytest

from api.process import ServiceProcess, shared_service
from api.wire import FORM, Address, Answer, call, diarize, head, recording
from e2e.real_service import COMMAND, READY, READY_S, repeated, running, wait_until, worker_of

pytestmark = pytest.mark.models

ANSWER_S = 120.0


@pytest.fixture
def start(tmp_path: Path, model_store: object) -> Iterator[Callable[..., ServiceProcess]]:
    """``start(**settings)``: a service of the test's own; neither it nor its worker outlives the test."""
    started: list[ServiceProcess] = []

    def run(**options: object) -> ServiceProcess:
        options.setdefault("command", COMMAND)
        started.append(ServiceProcess(tmp_path / f"service{len(started)}", **options))
        return started[-1]

    yield run
    for service in started:
        if service.process.poll() is None:
            service.stop()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, model_store: object) -> Iterator[ServiceProcess]:
    """One service that the tests of this file share; it must be whole, and its folders empty, after all of them."""
    with shared_service(tmp_path_factory.mktemp("shared"), COMMAND, READY) as service:
        yield service


@pytest.fixture(scope="module")
def alone(service: ServiceProcess, sample_recording: Path) -> Answer:
    """What the sample gives when nothing else is going on."""
    return post(service.address, sample_recording.read_bytes())


@pytest.fixture(scope="module")
def long_recording(sample_recording: Path) -> bytes:
    """Eight minutes: more than any test waits for."""
    return repeated(sample_recording, 16)


def post(address: Address, content: bytes, **fields: object) -> Answer:
    return call(address, "POST", "/diarize", recording(content, **fields), FORM, ANSWER_S)


def test_a_telephone_call_in_every_container(service, alone, shared_data):
    assert alone.status == 200
    assert {segment["speaker"] for segment in alone.json["conversation"]} == {"SPEAKER_00", "SPEAKER_01"}
    for name in ("sample.m4a", "sample_8k.mp3", "sample.webm"):
        answer = post(service.address, (shared_data / "awkward" / "derived" / name).read_bytes())
        assert answer.status == 200, (name, answer.body)
        said: dict[str, str] = {}
        for segment in answer.json["conversation"]:
            said[segment["speaker"]] = said.get(segment["speaker"], "") + " " + segment["text"].lower()
        assert sorted(said) == ["SPEAKER_00", "SPEAKER_01"], name
        # One says that she is called Diane, the other that she is called Sheila.
        assert sorted(("diane" in text, "sheila" in text) for text in said.values()) == [(False, True), (True, False)]


@pytest.mark.parametrize(
    ("name", "status", "code", "says"),
    [
        ("awful.wav", 422, "unsupported_audio", "1,092,676 Hz"),
        ("bad.wav", 422, "corrupt_audio", "looks like WAV"),
        ("evil.wav", 422, "corrupt_audio", "looks like WAV"),
        ("goforward.raw", 415, "not_audio", "header"),
        ("missing_wav_header.wav", 415, "not_audio", "header"),
        ("null.wav", 400, "empty_audio", "no sound"),
    ],
)
def test_a_broken_recording_is_refused_with_a_reason(service, shared_data, name, status, code, says):
    answer = diarize(service.address, recording((shared_data / "awkward" / name).read_bytes()))
    assert (answer.status, answer.json["code"]) == (status, code)
    assert says in answer.json["error"]


@pytest.mark.parametrize("name", ["digital_silence.wav", "silence2sec.wav", "stereo.opus"])
def test_where_nobody_speaks_the_conversation_is_empty(service, shared_data, name):
    answer = diarize(service.address, recording((shared_data / "awkward" / name).read_bytes()))
    assert (answer.status, answer.json) == (200, {"conversation": []})


def test_two_at_once_give_what_each_gives_alone(service, alone, sample_recording, shared_data):
    contents = [sample_recording.read_bytes(), (shared_data / "awkward" / "jfk_441khz.m4a").read_bytes()]
    other = post(service.address, contents[1])
    assert (alone.status, other.status) == (200, 200)
    assert "your country" in other.body.decode()
    with ThreadPoolExecutor(2) as threads:
        assert [each.body for each in threads.map(lambda content: post(service.address, content), contents)] == [
            alone.body,
            other.body,
        ]


@pytest.mark.timing
def test_status_costs_little_while_a_long_recording_is_worked_on(service, long_recording):
    with ThreadPoolExecutor(1) as thread:
        body = recording(long_recording)
        waiting = thread.submit(hang_up_when_told, service.address, body, hang_up := [])
        try:
            wait_until(lambda: running(service.address))
            took_s: dict[str, list[float]] = {"/status": [], "/health/live": []}
            for path in list(took_s) * 100:
                started = time.perf_counter()
                assert call(service.address, "GET", path).status == 200
                took_s[path].append(time.perf_counter() - started)
            assert running(service.address)
        finally:
            hang_up.append(True)
            waiting.result(30)
        wait_until(lambda: not running(service.address))
    assert median(took_s["/status"]) < 3 * median(took_s["/health/live"])
    assert service.left_behind() == []


def hang_up_when_told(address: Address, body: bytes, told: list[bool]) -> None:
    """Send a recording and wait for no answer."""
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(head(len(body)) + body)
        wait_until(lambda: told, 60)


def test_a_worker_killed_in_mid_recording_costs_time_alone(service, alone, sample_recording):
    with ThreadPoolExecutor(1) as thread:
        waiting: Future[Answer] = thread.submit(post, service.address, sample_recording.read_bytes())
        wait_until(lambda: running(service.address))
        first = worker_of(service)
        first.kill()
        answer = waiting.result(ANSWER_S)
    assert (answer.status, answer.body) == (200, alone.body)
    assert not first.is_running()
    assert worker_of(service).pid != first.pid
    assert service.left_behind() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_in_mid_recording_ends_all_within_seconds(start, long_recording, number):
    service = start()
    service.wait_for(READY, READY_S)
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(post, service.address, long_recording) for _ in range(2)]
        wait_until(lambda: call(service.address, "GET", "/status").json["jobs"] == {"running": 1, "waiting": 1})
        processes = psutil.Process(service.process.pid).children(recursive=True)
        assert processes
        assert service.stop(number) == 0
        for answer in (each.result(10) for each in waiting):
            assert (answer.status, answer.json["code"]) == (503, "engine_unavailable")
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert alive == []
    assert service.left_behind() == []


@pytest.fixture(scope="module")
def cut_off() -> tuple[str, ...]:
    """Before a command: runs it with no network but loopback, as a user of no privileges."""
    prefix = ("unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
    if not (shutil.which("unshare") and shutil.which("ip")):
        pytest.skip("there is no unshare or no ip here")
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("network namespaces cannot be made here")
    return prefix


def test_it_works_without_a_network_and_asks_for_none(cut_off, model_store, alone, sample_recording, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(NOTES_ADDRESSES)
    addresses = tmp_path / "addresses"
    own = {
        "PYTHONPATH": os.pathsep.join((str(tmp_path), str(Path(__file__).parents[1]))),
        "ADDRESSES": str(addresses),
        "MODEL_DIR": str(model_store.root),
    }
    script = Path(__file__).with_name("offline.py")
    done = subprocess.run(
        [*cut_off, sys.executable, str(script), str(sample_recording), str(tmp_path / "service")],
        env=os.environ | own, capture_output=True, timeout=ANSWER_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == alone.body
    # The caller's own connection shows that the notes are taken; waitress looks at its default of 0.0.0.0 and drops it.
    assert set(addresses.read_text().split()) - {"0.0.0.0"} == {"127.0.0.1"}


NOTES_ADDRESSES = """
import os, sys

def note(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        where = arguments[1][0] if isinstance(arguments[1], tuple) else None
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        where = arguments[0]
    else:
        return
    if where is not None:
        with open(os.environ["ADDRESSES"], "a") as file:
            print(where, file=file)

sys.addaudithook(note)
"""
"""Python imports it at its start: all of the service's processes note each address that they look up or send to."""
