"""The real server in a process of its own: what it does on connections before and after the application runs."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import re
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from api.conftest import eventually
from api.process import ServiceProcess
from api.wire import FORM, answer_on, call, diarize, form, head, part, raw, recording
from diarist.api.upload import FORM_BYTES
from support.ratios import ratio

pytestmark = pytest.mark.slow

LIMIT_BYTES = 2**20
ROOT = Path(__file__).parents[2]


def script(**steps: object) -> str:
    return json.dumps(steps)


def counts(service: ServiceProcess) -> dict[str, int]:
    return call(service.address, "GET", "/status").json["jobs"]


def send_gigabytes(connection: socket.socket, number: int) -> None:
    for _ in range(number * 2**10):
        connection.sendall(b"x" * 2**20)


def error_message(answer, status: int, code: str) -> str:
    """Check the format of an error response, and return its message."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json) == ["error", "code", "request_id"]
    assert answer.json["code"] == code
    assert answer.json["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    return answer.json["error"]


def test_an_answer_says_nothing_of_the_server(server):
    answer = diarize(server.address)
    assert answer.status == 200
    assert "server" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_chunked_upload_without_content_length(server):
    body = recording(b"x" * 700_000)
    pieces = (body[i : i + 65_000] for i in range(0, len(body), 65_000))
    answer = call(server.address, "POST", "/diarize", pieces, FORM)
    assert answer.status == 200
    assert answer.json["conversation"][0]["text"] == hashlib.sha256(b"x" * 700_000).hexdigest()


def test_a_file_of_the_limit_is_taken_and_one_byte_more_is_not(server):
    assert diarize(server.address, recording(b"x" * LIMIT_BYTES)).status == 200
    assert "1 MB" in error_message(
        diarize(server.address, recording(b"x" * (LIMIT_BYTES + 1))), 413, "upload_too_large"
    )


def test_a_body_over_the_limit_by_a_byte_is_refused_before_it_is_read(server):
    answer = raw(server.address, head(LIMIT_BYTES + FORM_BYTES + 1))
    assert "1 MB" in error_message(answer, 413, "upload_too_large")
    assert answer.headers["connection"] == "close"


def test_a_sender_who_asks_before_an_upload_that_is_too_large_is_not_told_to_go_on(server):
    error_message(raw(server.address, head(2**40, "Expect: 100-continue")), 413, "upload_too_large")


def test_a_sender_who_does_not_stop_still_reads_the_refusal_and_is_then_cut_off(server):
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(head(2**33))
        connection.sendall(b"x" * 2**20)
        error_message(answer_on(connection), 413, "upload_too_large")
        with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe, as it comes
            send_gigabytes(connection, 1_000)


def test_a_chunked_upload_is_cut_off_at_the_limit(server):
    def endless(connection: socket.socket) -> None:
        for _ in range(100):
            connection.sendall(b"10000\r\n" + b"x" * 2**16 + b"\r\n")

    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(head(None, "Transfer-Encoding: chunked"))
        endless(connection)
        error_message(answer_on(connection), 413, "upload_too_large")


@pytest.mark.parametrize("piece", [b"1\r\nx\r\n", b"\r\n", b"0", b"1;" + b"x" * 60_000])
def test_chunks_that_are_no_body_are_cut_off_before_they_hold_others_up(server, piece):
    sent_bytes = 0
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(head(None, "Transfer-Encoding: chunked"))
        block = piece * (65_536 // len(piece))
        with suppress(ConnectionError):
            while sent_bytes < 2**20 and not select.select([connection], [], [], 0)[0]:
                connection.sendall(block)
                sent_bytes += len(block)
        error_message(answer_on(connection), 400, "bad_request")


def test_what_follows_the_last_chunk_has_an_end(server):
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(head(None, "Transfer-Encoding: chunked") + b"0\r\n" + b"x: y\r\n" * 20_000)
        error_message(answer_on(connection), 400, "bad_request")


def test_small_chunks_are_taken(server):
    body = recording(b"x" * 100_000)
    pieces = (body[i : i + 32] for i in range(0, len(body), 32))
    assert call(server.address, "POST", "/diarize", pieces, FORM).status == 200


@pytest.mark.parametrize(
    ("pieces", "status", "code"),
    [
        ([b"GET http://[::/status HTTP/1.1\r\n\r\n"], 400, "bad_request"),
        ([head("9" * 5_000)], 400, "bad_request"),
        ([head("-1")], 400, "bad_request"),
        ([head("1x")], 400, "bad_request"),
        ([head(None, "Content-Length: 1", "Content-Length: 2")], 400, "bad_request"),
        ([head(None, "Transfer-Encoding: gzip")], 501, "not_implemented"),
        ([head(None, "Transfer-Encoding: chunked"), b"zz\r\n"], 400, "bad_request"),
        ([b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n"], 431, "headers_too_large"),
        ([b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"], 431, "headers_too_large"),
        ([b"get / HTTP/1.1\r\n\r\n"], 400, "bad_request"),
        ([b"\x16\x03\x01\x02\x00\r\n\r\n"], 400, "bad_request"),
        ([b"GET / HTTP/1.1\r\nA\rB: c\r\n\r\n"], 400, "bad_request"),
    ],
)
def test_requests_that_are_no_http_are_refused_in_json(server, pieces, status, code):
    error_message(raw(server.address, *pieces), status, code)


def test_a_lying_content_length_that_is_too_small_is_a_malformed_form(server):
    body = recording("{}")
    error_message(raw(server.address, head(len(body) - 10, "Connection: close"), body[:-10]), 400, "invalid_option")


def test_a_lying_content_length_that_is_too_large_leaves_nothing(server):
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(head(900_000) + recording("{}"))
    assert diarize(server.address, recording("{}")).status == 200
    eventually(lambda: server.left_behind() == [])


def test_no_second_request_hides_in_a_refused_body(server):
    hidden = b"GET /status HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: hidden-one\r\n\r\n"
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(head(2**40) + hidden + hidden)
        error_message(answer_on(connection), 413, "upload_too_large")
        assert connection.recv(1) == b""
    assert not any("hidden-one" in line for line in server.log)


def test_one_connection_serves_many_requests(server):
    one = b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(server.address, timeout=20) as connection:
        for _ in range(5):
            connection.sendall(one)
            assert answer_on(connection).status == 200


def test_slow_senders_are_shown_out_with_a_reason(start):
    service = start(SCRIPTED_REQUEST_TIMEOUT_S=0.3, HEADER_TIMEOUT_S=1)
    with socket.create_connection(service.address, timeout=20) as connection:
        connection.sendall(b"POST /diarize HT")
        error_message(answer_on(connection), 408, "upload_too_slow")
    with socket.create_connection(service.address, timeout=20) as connection:
        connection.sendall(head(500_000) + b"x" * 100)
        error_message(answer_on(connection), 408, "upload_too_slow")
    assert service.stop() == 0


def test_a_caller_who_hangs_up_stops_the_work(server, tmp_path):
    with socket.create_connection(server.address, timeout=20) as connection:
        body = recording(script(until=str(tmp_path / "never")))
        connection.sendall(head(len(body), "X-Request-ID: hangs-up") + body)
        eventually(lambda: counts(server)["running"] == 1)
    eventually(lambda: counts(server) == {"waiting": 0, "running": 0})
    server.wait_for(r"request=hangs-up\] POST /diarize 499")
    assert diarize(server.address, recording("{}")).status == 200


def test_a_caller_who_hangs_up_while_sending_leaves_nothing(server):
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(head(1_000_000) + recording(b"x" * 800_000)[:700_000])
    assert diarize(server.address, recording("{}")).status == 200
    eventually(lambda: server.left_behind() == [])


def test_more_than_may_wait_are_refused_and_status_goes_on(server, tmp_path):
    body = recording(script(until=str(tmp_path / "go")))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(diarize, server.address, body) for _ in range(4)]
        try:
            eventually(lambda: sum(counts(server).values()) == 4)
            refused = diarize(server.address, body)
            error_message(refused, 429, "queue_full")
            assert int(refused.headers["retry-after"]) > 0
        finally:
            (tmp_path / "go").touch()
        assert [caller.result().status for caller in callers] == [200] * 4


def test_answers_do_not_mix(server):
    contents = [f"recording {i}".encode() * (i + 1) for i in range(24)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda content: diarize(server.address, recording(content)), contents))
    assert [answer.status for answer in answers] == [200] * 24
    texts = [answer.json["conversation"][0]["text"] for answer in answers]
    assert texts == [hashlib.sha256(content).hexdigest() for content in contents]


@pytest.mark.timing
def test_status_costs_fifty_pollers_little_more_than_an_answer_that_says_nothing(start, tmp_path):
    server = start(MAX_WAITING=4, MAX_LISTENERS=2, HTTP_THREADS=8, MIN_FREE_MB=0)
    server.wait_for("is ready")
    body = recording(script(until=str(tmp_path / "go")))

    with concurrent.futures.ThreadPoolExecutor(54) as pool:

        def crowd(path: str) -> None:
            assert set(pool.map(lambda _: call(server.address, "GET", path).status, range(50))) == {200}

        busy = [pool.submit(diarize, server.address, body) for _ in range(4)]
        try:
            eventually(lambda: sum(counts(server).values()) == 4)
            times = ratio(lambda: crowd("/status"), lambda: crowd("/health/live"))
        finally:
            (tmp_path / "go").touch()
        assert [caller.result().status for caller in busy] == [200] * 4
    assert times < 3


def test_the_same_id_is_in_header_body_and_log(server):
    answer = diarize(server.address, recording(script(fail="NotAudio", message="Nothing to hear.")))
    request_id = answer.json["request_id"]
    assert answer.headers["x-request-id"] == request_id
    server.wait_for(rf"diarist.access \[request={request_id}[ \]].*POST /diarize 415 \d+ ms")
    server.wait_for(
        rf"diarist.jobs.workers.job_runner \[request={request_id} job=\S+ worker=\S+\] Job refused: not_audio"
    )


@pytest.mark.parametrize("where", ["path", "filename", "field", "request id"])
def test_nobody_writes_lines_of_the_log(server, where):
    forged = "\n2026-01-01T00:00:00.000+00:00 ERROR diarist forged \x1b[31m"
    if where == "path":
        call(server.address, "GET", "/a%0a2026-01-01T00:00:00.000+00:00%20ERROR%20diarist%20forged%1b[31m")
    elif where == "filename":
        diarize(server.address, form(part("audio", script(fail="Boom", message=forged), forged + ".wav")))
    elif where == "field":
        diarize(server.address, recording("{}", language=forged))
    else:
        raw(server.address, b"GET / HTTP/1.1\r\nConnection: close\r\nX-Request-ID: a\x1b[31mforged\r\n\r\n")
    marker = f"after-{where.replace(' ', '-')}"
    call(server.address, "GET", "/", headers={"X-Request-ID": marker})
    server.wait_for(marker)
    assert not [line for line in server.log if line.startswith("2026-01-01") or "\x1b" in line]
    written = (server.folder / "logs" / "service.log").read_text()
    assert "\x1b" not in written
    assert "\n2026-01-01" not in written


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_answers_who_waits_and_ends_everything(start, tmp_path, number):
    service = start()
    service.wait_for("is ready")
    body = recording(script(until=str(tmp_path / "never")))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        callers = [pool.submit(diarize, service.address, body) for _ in range(2)]
        eventually(lambda: sum(counts(service).values()) == 2)
        children = psutil.Process(service.process.pid).children(recursive=True)
        assert children
        assert service.stop(number) == 0
        for caller in callers:
            assert "stopping" in error_message(caller.result(), 503, "engine_unavailable")
            assert "retry-after" in caller.result().headers
    assert not any(child.is_running() for child in children)
    assert service.left_behind() == []
    assert not [line for line in service.log if "Traceback" in line]


def test_a_recording_sent_while_the_engine_loads_is_answered_when_it_has(start, tmp_path):
    engine = tmp_path / "engine"
    engine.write_text("loading")
    service = start()
    eventually(lambda: call(service.address, "GET", "/status").json["models"])
    status = call(service.address, "GET", "/status").json
    assert (status["status"], status["nemo_components_loaded"]) == ("loading", False)
    assert status["models"][0]["state"] == "loading"
    assert call(service.address, "GET", "/health/ready").status == 503
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        caller = pool.submit(diarize, service.address, recording("{}"))
        eventually(lambda: counts(service)["waiting"] == 1)
        engine.write_text("ready")
        assert caller.result().status == 200
    eventually(lambda: call(service.address, "GET", "/status").json["nemo_components_loaded"] is True)
    assert call(service.address, "GET", "/health/ready").status == 200


def test_an_engine_that_fails_is_shown_and_mends(start, tmp_path):
    engine = tmp_path / "engine"
    engine.write_text("error")
    service = start()
    eventually(lambda: call(service.address, "GET", "/status").json["status"] == "error")
    assert any("diarist models pull" in error for error in call(service.address, "GET", "/status").json["errors"])
    refused = diarize(service.address, recording("{}"))
    assert "diarist models pull" in error_message(refused, 503, "engine_unavailable")
    engine.write_text("ready")
    eventually(lambda: call(service.address, "GET", "/status").json["status"] == "ready")
    assert diarize(service.address, recording("{}")).status == 200


def test_a_port_in_use_is_one_clear_line(start, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = start(command=(sys.executable, str(ROOT / "app.py")), FLASK_PORT=port)
        assert service.wait() == 2
    assert [line for line in service.log if "in use" in line] == [
        f"diarist: Port {port} on 127.0.0.1 is in use. Stop the program that uses it, or set FLASK_PORT to a free port."
    ]
    assert not any("Traceback" in line for line in service.log)


def test_a_second_service_on_the_same_data_is_refused(start, tmp_path):
    first = start(folder=tmp_path / "first")
    assert first.address
    second = start(folder=tmp_path / "second", DATA_DIR=first.data)
    assert second.wait() == 1
    assert any(f"in use by another Diarist service (process {first.process.pid})" in line for line in second.log)
    assert diarize(first.address, recording("{}")).status == 200
    assert first.stop() == 0
    third = start(folder=tmp_path / "third", DATA_DIR=first.data)
    assert diarize(third.address, recording("{}")).status == 200


def test_a_killed_service_leaves_nothing_to_the_next_one(start, tmp_path):
    first = start(folder=tmp_path / "first")
    first.wait_for("is ready")
    body = recording(script(until=str(tmp_path / "never")))
    with socket.create_connection(first.address, timeout=20) as connection:
        connection.sendall(head(len(body)) + body)
        eventually(lambda: counts(first)["running"] == 1)
        first.stop(signal.SIGKILL)
    second = start(folder=tmp_path / "second", DATA_DIR=first.data)
    assert diarize(second.address, recording("{}")).status == 200
    assert second.left_behind() == []
    assert counts(second) == {"waiting": 0, "running": 0}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"MAX_WAITING": 32, "HTTP_THREADS": 32}, "MAX_WAITING"),
        ({"MAX_LISTENERS": 15}, "MAX_LISTENERS"),
        ({"FLASK_HOST": "no.such.host.invalid"}, "FLASK_HOST"),
        ({"FLASK_HOST": "192.0.2.1", "FLASK_PORT": 5999, "API_KEY": "k" * 20}, "FLASK_HOST"),
        ({"DATA_DIR": "/dev/null/data"}, "DATA_DIR"),
        ({"TEMP_AUDIO_DIR": "/dev/null/tmp"}, "TEMP_AUDIO_DIR"),
    ],
)
def test_settings_that_cannot_be_used_are_named(start, settings, expected):
    service = start(**settings)
    assert service.wait() == 1
    assert expected in service.log[-1]
    assert not any("Traceback" in line for line in service.log)


def test_a_log_file_that_cannot_be_written_costs_a_warning(start):
    service = start(LOG_FILE="/dev/null/x/log")
    assert call(service.address, "GET", "/status").status == 200
    service.wait_for(r"WARNING.*LOG_FILE")


def test_localhost_is_every_address_of_that_name(start):
    service = start(FLASK_HOST="localhost")
    port = int(service.wait_for(r"Listening on http://\S+:(\d+)")[1])
    for family, _, _, _, address in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM):
        if family == socket.AF_INET or any(f"[{address[0]}]" in line for line in service.log):
            assert call((address[0], port), "GET", "/status").status == 200


def test_an_upload_that_the_disk_has_no_room_for_is_refused_when_it_is_declared(start):
    service = start(MIN_FREE_MB=1_048_576)
    error_message(raw(service.address, head(500_000, "Expect: 100-continue")), 507, "storage_full")
    service.wait_for(r"WARNING .* storage_full: TEMP_AUDIO_DIR has \d+ MB free, .* 1048576 MB must stay free")
    error_message(
        raw(service.address, head(None, "Transfer-Encoding: chunked"), b"5\r\nhello\r\n"), 507, "storage_full"
    )
    assert call(service.address, "GET", "/status").status == 200


@pytest.mark.skipif(not hasattr(psutil, "RLIMIT_FSIZE"), reason="this system cannot limit a process's files")
@pytest.mark.parametrize("size_bytes", [450_000, 900_000], ids=["while it is stored", "while it arrives"])
def test_a_disk_that_runs_full_is_said_and_leaves_nothing(start, size_bytes):
    service = start()
    service.wait_for("is ready")
    process = psutil.Process(service.process.pid)
    before = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (400_000, before[1]))
    error_message(diarize(service.address, recording(b"x" * size_bytes)), 507, "storage_full")
    assert service.left_behind() == []
    process.rlimit(psutil.RLIMIT_FSIZE, before)
    assert diarize(service.address, recording(b"x" * size_bytes)).status == 200


def test_polls_that_go_well_do_not_fill_the_log(server):
    for path in ("/status", "/health/live", "/health/ready"):
        assert call(server.address, "GET", path).status == 200
    assert call(server.address, "GET", "/").status == 200
    server.wait_for("GET / 200")
    assert not [line for line in server.log if re.search("GET (/status|/health/[a-z]+) 200", line)]


def test_debug_logs_each_request_in_detail(start):
    service = start(FLASK_DEBUG="true")
    call(service.address, "GET", "/status", headers={"User-Agent": "the-agent"})
    assert "127.0.0.1" in service.wait_for("DEBUG diarist.access .*the-agent")[0]


def test_uploads_are_held_where_the_settings_say(start, tmp_path):
    service = start(TEMP_AUDIO_DIR=tmp_path / "uploads")
    with socket.create_connection(service.address, timeout=20) as connection:
        connection.sendall(head(10_000_000) + b"x" * 1_000_000)
        descriptors = Path(f"/proc/{service.process.pid}/fd")
        if descriptors.is_dir():
            eventually(lambda: any(str(tmp_path / "uploads") in str(fd.readlink()) for fd in descriptors.iterdir()))
    assert list((tmp_path / "uploads").iterdir()) == []
