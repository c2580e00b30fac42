"""A client that requests transcripts from a running service for scoring."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

from diarist.errors import InvalidOption, JobFailed, ServiceError
from diarist.evaluation.hypotheses import Hypothesis, from_texts

CHUNK_BYTES = 1 << 20


def ask(address: str, recording: Path, fields: Mapping[str, str]) -> Hypothesis:
    """Return the service's transcript of a recording, with its turns and its words.

    The two come in different formats, so the recording is transcribed twice. The processing time is that of the second
    request.

    Args:
        address: The URL of the service, such as ``http://localhost:5000``.
        recording: The recording.
        fields: The form fields besides the recording: ``language``, ``num_speakers``.

    Raises:
        InvalidOption: The URL is invalid, or the service rejects the recording or a field.
        ServiceError: The service cannot be reached, or fails.
    """
    rttm_text = _post(address, recording, {**fields, "format": "rttm"})
    started = time.perf_counter()
    json_text = _post(address, recording, {**fields, "format": "json", "words": "true", "details": "true"})
    return from_texts(rttm_text, json_text, address, address, time.perf_counter() - started)


def _post(address: str, recording: Path, fields: Mapping[str, str]) -> str:
    url = urlsplit(address)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise InvalidOption(f"--service must be a URL such as http://localhost:5000, not {address!r}")
    boundary = secrets.token_hex(16)
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    # The service only needs the extension of the name. Other characters of it could break the header line.
    head += (
        f'--{boundary}\r\nContent-Disposition: form-data; name="audio"; filename="recording{recording.suffix}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    tail = f"\r\n--{boundary}--\r\n"
    headers = {
        "Content-Type": f"multipart/form-data; boundary={boundary}",
        "Content-Length": str(len(head.encode()) + recording.stat().st_size + len(tail)),
    }
    connection_class = HTTPSConnection if url.scheme == "https" else HTTPConnection
    try:
        connection = connection_class(url.hostname, url.port)
        try:
            connection.request("POST", f"{url.path.rstrip('/')}/diarize", _body(head, recording, tail), headers)
            response = connection.getresponse()
            text = response.read().decode("utf-8", "replace")
        finally:
            connection.close()
    except (OSError, HTTPException, ValueError) as error:
        raise ServiceError(f"{address} does not respond ({error}): is `diarist serve` running there?") from error
    if response.status == 200:
        return text
    message = f"the service rejected the request with status {response.status}: {_error_message(text)}"
    raise InvalidOption(message) if 400 <= response.status < 500 else JobFailed(message)


def _body(head: str, recording: Path, tail: str) -> Iterator[bytes]:
    yield head.encode()
    with recording.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
    yield tail.encode()


def _error_message(text: str) -> str:
    """Return the message of the service's error document."""
    try:
        document = json.loads(text)
        message = document["error"]["message"] if isinstance(document["error"], dict) else document["error"]
        return str(message)
    except (KeyError, TypeError, ValueError):
        return text[:200] or "without a message"
