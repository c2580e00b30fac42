"""Jobs of the real server in a process of its own: large uploads, and the log."""

from __future__ import annotations

import concurrent.futures
import hashlib
import socket
from collections.abc import Iterator

import psutil
import pytest

from api.conftest import eventually
from api.test_jobs import script
from api.wire import BOUNDARY, FORM, answer_on, call, form, head, part, raw, recording

pytestmark = pytest.mark.slow

LARGE_BYTES = 300 * 2**20


def blocks(number: int) -> Iterator[bytes]:
    for i in range(number):
        yield i.to_bytes(8, "big") * (2**20 // 8)


def upload(address, size_bytes: int, **headers: str):
    """Send a recording of this size that is made on the way; the answer."""
    before = b"\r\n".join(
        (b"--" + BOUNDARY, b'Content-Disposition: form-data; name="audio"; filename="long.wav"', b"", b"")
    )
    after = b"\r\n--" + BOUNDARY + b"--\r\n"
    lines = [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection(address, timeout=120) as connection:
        connection.sendall(
            head(len(before) + size_bytes + len(after), *lines).replace(b"POST /diarize", b"POST /v1/jobs") + before
        )
        for block in blocks(size_bytes // 2**20):
            connection.sendall(block)
        connection.sendall(after)
        return answer_on(connection)


def test_a_large_upload_is_never_in_memory(start):
    service = start(MAX_UPLOAD_MB=512, MIN_FREE_MB=0)
    service.wait_for("is ready")
    process = psutil.Process(service.process.pid)
    call(service.address, "POST", "/v1/jobs", recording("{}"), FORM)
    before = process.memory_info().rss
    answer = upload(service.address, LARGE_BYTES, **{"Idempotency-Key": "large"})
    assert answer.status == 202, answer
    assert answer.json["size_bytes"] == LARGE_BYTES
    assert process.memory_info().rss - before < 50 * 2**20
    digest = hashlib.sha256()
    for block in blocks(LARGE_BYTES // 2**20):
        digest.update(block)
    address = answer.json["links"]["self"]
    eventually(lambda: call(service.address, "GET", address).json["state"] == "succeeded", 60)
    result = call(service.address, "GET", address + "/result").json
    assert result["conversation"][0]["text"] == digest.hexdigest()
    assert call(service.address, "DELETE", address).status == 204
    assert not (service.data / "jobs" / answer.json["id"]).exists()


def test_many_who_write_at_once_leave_room_for_those_who_read(start):
    service = start(MAX_WAITING=4, MAX_LISTENERS=2, HTTP_THREADS=8, MIN_FREE_MB=0)
    service.wait_for("is ready")
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        sent = [
            pool.submit(call, service.address, "POST", "/v1/jobs", recording(f"number {i}"), FORM) for i in range(24)
        ]
        assert call(service.address, "GET", "/status").status == 200
        answers = [each.result() for each in sent]
    assert [answer.status for answer in answers] == [202] * 24
    assert len({answer.json["id"] for answer in answers}) == 24
    for answer in answers:
        assert call(service.address, "DELETE", answer.json["links"]["self"]).status == 204


def test_one_key_sent_many_times_at_once_makes_one_job(start):
    service = start(MIN_FREE_MB=0)
    service.wait_for("is ready")
    headers = FORM | {"Idempotency-Key": "at-once"}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(call, service.address, "POST", "/v1/jobs", recording("{}"), headers) for _ in range(8)]
        answers = [each.result() for each in sent]
    assert sorted(answer.status for answer in answers) == [200] * 7 + [202]
    (job_id,) = {answer.json["id"] for answer in answers}
    jobs = call(service.address, "GET", "/v1/jobs").json["data"]
    assert [job["id"] for job in jobs] == [job_id]
    assert all(("idempotent-replayed" in answer.headers) == (answer.status == 200) for answer in answers)
    assert call(service.address, "DELETE", jobs[0]["links"]["self"]).status == 204
    assert service.left_behind() == []


@pytest.mark.parametrize(
    ("pieces", "status", "code", "kind"),
    [
        ([head(2**40)], 413, "upload_too_large", "invalid_request_error"),
        ([head("-1")], 400, "bad_request", "invalid_request_error"),
        ([head(None, "Transfer-Encoding: gzip")], 501, "not_implemented", "server_error"),
    ],
)
def test_refusals_before_the_body_have_the_shape_of_the_address(server, pieces, status, code, kind):
    answer = raw(server.address, *(piece.replace(b"/diarize", b"/v1/jobs") for piece in pieces))
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    error = answer.json["error"]
    assert (error["code"], error["type"], error["param"]) == (code, kind, None)
    assert list(answer.json) == ["error"]


def test_polls_of_jobs_that_go_well_do_not_fill_the_log(server):
    job = call(server.address, "POST", "/v1/jobs", recording("{}"), FORM).json["links"]["self"]
    for _ in range(3):
        assert call(server.address, "GET", job).status == 200
    eventually(lambda: call(server.address, "GET", job + "/result").status == 200)
    assert call(server.address, "DELETE", job).status == 204
    assert call(server.address, "GET", job).status == 404
    server.wait_for(rf"GET {job} 404")
    assert not [line for line in server.log if f"GET {job} 200" in line]
    assert server.wait_for(rf"DELETE {job} 204")


@pytest.mark.parametrize("where", ["label", "filename", "key", "id"])
def test_nobody_writes_lines_of_the_log(server, where):
    forged = "\n2026-01-01T00:00:00.000+00:00 ERROR diarist forged \x1b[31m"
    if where == "label":
        answer = call(server.address, "POST", "/v1/jobs", recording("{}", labels=f'{{"{forged}": "{forged}"}}'), FORM)
        assert answer.status == 400
    elif where == "filename":
        body = form(part("audio", script(fail="Boom", message=forged), forged + ".wav"))
        answer = call(server.address, "POST", "/v1/jobs", body, FORM)
        if answer.status == 202:
            job = answer.json["links"]["self"]
            eventually(lambda: call(server.address, "GET", job).json["state"] != "queued")
            call(server.address, "DELETE", job)
    elif where == "key":
        line = "Idempotency-Key: a\x1b[31mforged"
        body = recording("{}")
        answer = raw(server.address, head(len(body), line).replace(b"/diarize", b"/v1/jobs"), body)
        assert answer.status == 400
    else:
        call(server.address, "GET", "/v1/jobs/a%0a2026-01-01T00:00:00.000+00:00%20ERROR%20diarist%20forged%1b[31m")
    marker = f"job-after-{where}"
    call(server.address, "GET", "/", headers={"X-Request-ID": marker})
    server.wait_for(marker)
    assert not [line for line in server.log if line.startswith("2026-01-01") or "\x1b" in line]
