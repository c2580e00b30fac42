"""Requests that a proxy and the service, or a browser and the service, could understand differently."""

from __future__ import annotations

import pytest

from api.test_server import error_message
from api.wire import call, head, raw

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "path",
    ["//evil.example", "//evil.example/..", "//v1//jobs", "/v1//jobs", "/status//", "/status/", "/%2f/evil.example/x"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_a_path_with_two_slashes_leads_nowhere(server, method, path):
    answer = call(server.address, method, path, headers={"Host": "localhost"})
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/json"
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    ("version", "lines"),
    [
        ("1.1", ("Transfer-Encoding: chunked", "Content-Length: 5")),
        ("1.1", ("Content-Length: 5", "Transfer-Encoding: chunked")),
        ("1.1", ("Content-Length: 0", "transfer-encoding: Chunked")),
        ("1.0", ("Transfer-Encoding: chunked", "Content-Length: 5")),
        ("1.0", ("Transfer-Encoding: chunked",)),
    ],
)
def test_a_body_of_two_lengths_is_refused_and_hides_no_request(server, version, lines):
    marker = f"smuggled-{version}-{len(lines)}-{lines[0][0]}"
    asked = head(None, *lines, "Connection: keep-alive").replace(b"HTTP/1.1", f"HTTP/{version}".encode())
    hidden = f"GET /no/such HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: {marker}\r\n\r\n".encode()
    answer = raw(server.address, asked + b"0\r\n\r\n" + hidden)
    error_message(answer, 400, "bad_request")
    assert answer.headers["connection"] == "close"
    assert "Transfer-Encoding" in answer.json["error"]
    call(server.address, "GET", "/", headers={"X-Request-ID": f"after-{marker}"})
    server.wait_for(f"after-{marker}")
    assert not [line for line in server.log if f"={marker}" in line]
