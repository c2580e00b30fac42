"""Forms, HTTP requests and raw sockets, so that tests can send what no client library would send."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

BOUNDARY = b"boundary-of-the-test"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}
Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def part(name: str, content: bytes | str, filename: str | None = None) -> bytes:
    """Return one part of a form, which is a file if it has a file name. Nothing is escaped."""
    disposition = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename is not None else "")
    content = content.encode() if isinstance(content, str) else content
    return b"\r\n".join((b"--" + BOUNDARY, f"Content-Disposition: {disposition}".encode(), b"", content, b""))


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"


def recording(content: bytes | str = b"RIFF", **fields: object) -> bytes:
    """Return the form of a valid request."""
    texts = [part(name, str(value)) for name, value in fields.items()]
    return form(*texts, part("audio", content, "meeting.wav"))


def call(
    address: Address,
    method: str,
    path: str,
    body: bytes | Iterable[bytes] | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 20,
) -> Answer:
    connection = http.client.HTTPConnection(*address, timeout=timeout)
    try:
        connection.request(method, path, body, headers or {})
        return read(connection.getresponse())
    finally:
        connection.close()


def read(response: http.client.HTTPResponse) -> Answer:
    body = response.read()
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


def diarize(
    address: Address, body: bytes | None = None, headers: dict[str, str] | None = None, **fields: Any
) -> Answer:
    return call(address, "POST", "/diarize", body or recording(**fields), FORM | (headers or {}))


def raw(address: Address, *parts: bytes, timeout: float = 20) -> Answer:
    """Send bytes as they are, and read one response; its status is 0 if the connection is closed without one."""
    with socket.create_connection(address, timeout=timeout) as connection:
        for data in parts:
            connection.sendall(data)
        return answer_on(connection)


def answer_on(connection: socket.socket) -> Answer:
    response = http.client.HTTPResponse(connection)
    try:
        response.begin()
    except http.client.BadStatusLine:
        return Answer(0)
    return read(response)


def head(length: int | str | None = None, *lines: str) -> bytes:
    """Return the head of a ``POST /diarize`` request, whose body the test sends itself."""
    headers = [f"Content-Type: {FORM['Content-Type']}", *lines]
    if length is not None:
        headers.append(f"Content-Length: {length}")
    return "\r\n".join(("POST /diarize HTTP/1.1", "Host: localhost", *headers, "", "")).encode()
