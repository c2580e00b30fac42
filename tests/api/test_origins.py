"""What web pages of other origins are answered, and what all others still are, over real connections."""

from __future__ import annotations

import pytest

from api.test_server import error_message
from api.wire import Answer, call, diarize, head, raw, recording
from diarist.api.security_headers import SECURITY_HEADERS

pytestmark = pytest.mark.slow

KEY = "the-key-of-the-environment"
EVIL = {"Origin": "https://evil.example"}
CROSS_SITE = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}
PAGE_VISIT = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
A_JOB = "/v1/jobs/" + "A" * 22

EVERY_ROUTE = [
    ("GET", "/"), ("GET", "/status"), ("GET", "/health/live"), ("GET", "/health/ready"), ("GET", "/openapi.json"),
    ("GET", "/metrics"), ("GET", "/v1/jobs"), ("GET", A_JOB), ("GET", A_JOB + "/result"), ("GET", A_JOB + "/events"),
    ("GET", A_JOB + "/deliveries"), ("POST", A_JOB + "/cancel"), ("DELETE", A_JOB), ("OPTIONS", "/v1/jobs"),
    ("POST", "/v1/jobs"), ("POST", "/diarize"), ("GET", "/no/such/path"),
]  # fmt: skip


def refused(answer: Answer, status: int, code: str, path: str) -> str:
    assert answer.status == status, answer
    if not path.startswith("/v1/"):
        return error_message(answer, status, code)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["error"]["code"] == code
    message: str = answer.json["error"]["message"]
    return message


def jobs_of(server) -> list[object]:
    jobs: list[object] = call(server.address, "GET", "/v1/jobs").json["data"]
    return jobs


@pytest.mark.parametrize(("method", "path"), EVERY_ROUTE)
def test_nothing_is_answered_by_a_strange_name(server, method, path):
    answer = call(server.address, method, path, headers={"Host": "evil.example:5000"})
    message = refused(answer, 421, "host_not_allowed", path)
    assert "'evil.example:5000'" in message
    assert "ALLOWED_HOSTS" in message


@pytest.mark.parametrize(("method", "path"), EVERY_ROUTE)
@pytest.mark.parametrize("headers", [EVIL, {"Origin": "null"}, CROSS_SITE], ids=["origin", "null", "fetch metadata"])
def test_nothing_is_answered_to_a_page_of_another_origin(server, method, path, headers):
    message = refused(call(server.address, method, path, headers=headers), 403, "cross_origin_request", path)
    assert "ALLOWED_HOSTS" in message


@pytest.mark.parametrize("path", ["/diarize", "/v1/jobs"])
@pytest.mark.parametrize(
    ("lines", "status", "code"),
    [
        (("Host: evil.example",), 421, "host_not_allowed"),
        (("Host: localhost", "Host: evil.example"), 421, "host_not_allowed"),
        (("Host: localhost", "X-Forwarded-Host: evil.example"), 421, "host_not_allowed"),
        (("Host: localhost", "Origin: https://evil.example"), 403, "cross_origin_request"),
        (("Host: localhost", "Sec-Fetch-Site: cross-site"), 403, "cross_origin_request"),
        (("Host: localhost", "Sec-Fetch-Site: same-site"), 403, "cross_origin_request"),
    ],
)
def test_an_upload_of_a_page_is_refused_at_its_headers(server, path, lines, status, code):
    for framing in ("Content-Length: 500000", "Transfer-Encoding: chunked"):
        asked = head(None, *lines, framing, "Expect: 100-continue").replace(b"Host: localhost\r\n", b"", 1)
        answer = raw(server.address, asked.replace(b"/diarize", path.encode()))
        refused(answer, status, code, path)
        assert answer.headers["connection"] == "close"
    assert jobs_of(server) == []


@pytest.mark.parametrize("path", ["/v1/jobs", A_JOB + "/events", "/status"])
def test_a_websocket_of_a_page_is_refused(server, path):
    upgrade = {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "A" * 24,
    }  # fmt: skip
    refused(call(server.address, "GET", path, headers=upgrade | EVIL), 403, "cross_origin_request", path)
    assert call(server.address, "GET", path, headers=upgrade).status != 101


def test_a_link_of_a_page_leads_to_what_is_harmless_alone(server):
    assert call(server.address, "GET", "/status", headers=PAGE_VISIT).status == 200
    assert call(server.address, "GET", "/", headers=PAGE_VISIT).status == 200
    for method, path in (("GET", "/v1/jobs"), ("GET", A_JOB + "/result"), ("POST", "/status")):
        assert call(server.address, method, path, headers=PAGE_VISIT).status == 403
    assert call(server.address, "GET", "/status", headers=PAGE_VISIT | {"Sec-Fetch-Dest": "iframe"}).status == 403


def test_programs_and_pages_of_its_own_are_answered_as_ever(server):
    port = server.address[1]
    for headers in (
        {}, {"Host": f"localhost:{port}"}, {"Host": "LOCALHOST"}, {"Host": "x.localhost"}, {"Host": "[::1]:80"},
        {"Host": f"localhost:{port}", "Origin": f"http://localhost:{port}", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
    ):  # fmt: skip
        assert diarize(server.address, recording("{}"), headers).status == 200
        assert call(server.address, "GET", "/v1/jobs", headers=headers).status == 200
    assert raw(server.address, b"GET /v1/jobs HTTP/1.0\r\n\r\n").status == 200


def test_pages_behind_a_proxy_are_answered_by_the_names_of_the_settings(start):
    service = start(ALLOWED_HOSTS="diarist.example, app.example:8443")
    service.wait_for("is ready")
    for headers in (
        {"Host": "diarist.example", "Origin": "https://diarist.example", "Sec-Fetch-Site": "same-origin"},
        {"Host": "diarist.example", "X-Forwarded-Host": "diarist.example", "Origin": "https://app.example:8443"},
        {"X-Forwarded-Host": "diarist.example", "Origin": "https://diarist.example"},
    ):
        assert diarize(service.address, recording("{}"), headers).status == 200
        assert call(service.address, "GET", "/v1/jobs", headers=headers).status == 200
    for headers, status in (
        ({"Host": "evil.example"}, 421),
        ({"X-Forwarded-Host": "evil.example"}, 421),
        ({"Host": "diarist.example", "Origin": "https://evil.example"}, 403),
        ({"Host": "diarist.example", "Origin": "https://app.example"}, 403),
    ):
        assert diarize(service.address, recording("{}"), headers).status == status
        assert call(service.address, "GET", "/v1/jobs", headers=headers).status == status


def test_with_a_key_any_name_is_answered_unless_the_settings_name_some(start, tmp_path):
    strange = {"Host": "evil.example", "Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"}
    key = {"Authorization": f"Bearer {KEY}"}
    service = start(folder=tmp_path / "any", API_KEY=KEY)
    service.wait_for("is ready")
    assert diarize(service.address, recording("{}"), strange | key).status == 200
    assert diarize(service.address, recording("{}"), strange).status == 401
    named = start(folder=tmp_path / "named", API_KEY=KEY, ALLOWED_HOSTS="diarist.example")
    named.wait_for("is ready")
    own = {"Host": "diarist.example", "Origin": "https://diarist.example"}
    assert diarize(named.address, recording("{}"), own | key).status == 200
    assert diarize(named.address, recording("{}"), own | EVIL | key).status == 403
    assert diarize(named.address, recording("{}"), {"Host": "evil.example"} | key).status == 421
    assert call(named.address, "GET", "/v1/jobs", headers={"Host": "evil.example"} | key).status == 421
    for path in ("/health/live", "/health/ready", "/metrics"):  # orchestrators read them by the address of a container
        assert call(named.address, "GET", path, headers={"Host": "10.1.2.3:5000"}).status == 200


def test_a_setting_that_is_no_name_keeps_it_from_starting(start):
    service = start(ALLOWED_HOSTS="https://diarist.example/")
    assert service.wait() == 1
    assert "ALLOWED_HOSTS" in service.log[-1]
    assert "write 'diarist.example'" in service.log[-1]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200), ("GET", "/openapi.json", 200), ("GET", "/v1/jobs", 200), ("HEAD", "/status", 200),
        ("GET", "/metrics", 200), ("OPTIONS", "/diarize", 200), ("GET", A_JOB, 404), ("GET", "/nothing", 404),
        ("POST", "/status", 405), ("POST", "/diarize", 400),
    ],
)  # fmt: skip
def test_every_answer_has_the_security_headers(server, method, path, status):
    answer = call(server.address, method, path)
    assert answer.status == status
    has_security_headers(answer)


def test_answers_of_the_server_below_have_them_too(server):
    has_security_headers(raw(server.address, b"get / HTTP/1.1\r\n\r\n"))
    has_security_headers(raw(server.address, head(2**40)))
    has_security_headers(diarize(server.address, recording("{}")))


def has_security_headers(answer: Answer) -> None:
    assert {name: answer.headers.get(name.lower()) for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not [name for name in answer.headers if name.startswith("access-control")]
