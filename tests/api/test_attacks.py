"""Hostile requests in ``docs/security.md``: what the running service answers to each."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import quote

import pytest

from api.process import ServiceProcess
from api.wire import FORM, Address, Answer, call, form, head, part, raw, recording
from support import attacks

Send = Callable[[Address], Answer]


def upload(body: bytes, path: str = "/diarize", content_type: str = FORM["Content-Type"]) -> Send:
    return lambda address: call(address, "POST", path, body, {"Content-Type": content_type})


def named(filename: str) -> Send:
    return upload(form(part("audio", "{}", filename)))


def field(name: str, value: object) -> Send:
    return upload(recording("{}", **{name: value}))


def fetched(url: str) -> Send:
    """Return the answer to a job by URL, or what the job failed with if it was accepted."""

    def send(address: Address) -> Answer:
        answer = upload(form(part("url", url)), "/v1/jobs")(address)
        if answer.status != HTTPStatus.ACCEPTED:
            return answer
        links = answer.json["links"]
        call(address, "GET", links["events"])  # until the job has ended
        result = call(address, "GET", links["result"])
        call(address, "DELETE", links["self"])
        return result

    return send


def notified(url: str) -> Send:
    return upload(recording("{}", webhook_url=url), "/v1/jobs")


def got(path: str) -> Send:
    return lambda address: call(address, "GET", path)


SOUND = part("audio", "{}", "a.wav")
JOB = "/v1/jobs/" + "0" * 32

REQUESTS: dict[str, Send] = {
    "No file part": upload(form(part("language", "en"))),
    "An empty file name": upload(form(part("audio", "{}", ""))),
    "A file in a field of another name": upload(form(part("recording", "{}", "a.wav"))),
    "An upload in chunks, without `Content-Length`": lambda address: call(
        address, "POST", "/diarize", iter([recording("{}")]), FORM
    ),
    "A `Content-Length` that is too small": lambda address: raw(address, head(100), recording("{}")[:100]),
    "A body that is too large by one byte": upload(form(part("audio", b"x" * (2**20 + 1), "a.wav"))),
    "1,001 parts in a form": upload(form(*[part(f"field{i}", "x") for i in range(1_001)], SOUND)),
    "A text field of 600 kB": upload(form(part("language", "x" * 600_000), SOUND)),
    "A text field of 20 MB": upload(form(part("language", "x" * 20_000_000), SOUND)),
    "The file twice": upload(form(SOUND, SOUND)),
    "No boundary": upload(recording("{}"), content_type="multipart/form-data"),
    "A boundary that does not occur in the body": upload(
        recording("{}"), content_type="multipart/form-data; boundary=another"
    ),
    "A file name with folders (`../../etc/passwd`, `..\\..\\x`, `/abs`)": named("../../etc/passwd"),
    "A file name with NUL (`a\\x00b.wav`)": named("a\x00b.wav"),
    "A file name with a line break": named("a\r\nb.wav"),
    "A file name of 4,096 characters": named("a" * 4_096),
    "A file name that changes the direction of text": named("\u202egpj.wav"),
    "File names that programs take for options, protocols or devices (`-i.wav`, `concat:a|b`, `CON.wav`)": named(
        "concat:a|b"
    ),
    "A URL as the file (`url=http://...` beside it)": upload(form(SOUND, part("url", "http://192.0.2.1/")), "/v1/jobs"),
    "A file name that is a URL (`http://h/x.wav`)": named("http://h/x.wav"),
    "File names with `%2e%2e%2f`, and with emoji": named("%2e%2e%2f\U0001f389.wav"),
    "`http://127.0.0.1`": fetched("http://127.0.0.1/a.wav"),
    "`localhost`": fetched("http://localhost/a.wav"),
    "`[::1]`": fetched("http://[::1]/a.wav"),
    "`0.0.0.0`": fetched("http://0.0.0.0/a.wav"),
    "`169.254.169.254`": fetched("http://169.254.169.254/latest"),
    "`10.0.0.0/8`, `172.16.0.0/12`, `192.168.0.0/16`": fetched("http://192.168.1.1/a.wav"),
    "`100.64.0.0/10`": fetched("http://100.64.0.1/a.wav"),
    "`[::ffff:127.0.0.1]`": fetched("http://[::ffff:127.0.0.1]/a.wav"),
    "`2130706433`, `0x7f.1`, `127.1`": fetched("http://2130706433/a.wav"),
    "`127.0.0.1.` with a final dot": fetched("http://127.0.0.1./a.wav"),
    "A user name before the address (`http://good@127.0.0.1`)": fetched("http://good@127.0.0.1/a.wav"),
    "Ports of other services (22, 6379)": fetched("http://127.0.0.1:6379/"),
    "`file://`, `gopher://`, `ftp://`, `dict://`": fetched("file:///etc/passwd"),
    "A private address with the name of a known site in the query": fetched("http://169.254.169.254/?youtube.com"),
    "A webhook to a private address": notified("http://169.254.169.254/hook"),
    "A job ID that was guessed": got(JOB),
    "The result of a job ID that was guessed": got(f"{JOB}/result"),
    "`num_speakers` of 0": field("num_speakers", 0),
    "`num_speakers` of -1": field("num_speakers", -1),
    "`num_speakers` of 1": field("num_speakers", 1),
    "`num_speakers` of 10^9": field("num_speakers", 10**9),
    "`num_speakers` of 1.5 or `two`": field("num_speakers", "two"),
    "`min_speakers` above `max_speakers`": upload(recording("{}", min_speakers=3, max_speakers=2)),
    "Hints that contradict each other": upload(recording("{}", num_speakers=5, max_speakers=2)),
    "An unknown model, as a field": field("model", "x"),
    "An unknown `format`": field("format", "exe"),
    "`stream`, `temperature`, `hotwords` and other unknown fields": field("hotwords", "a," * 10_000),
    "A language with a line break and a forged log line": field("language", "\n2026-01-01 ERROR forged"),
    "Speaker names with markup (`<img src=x onerror=...>`)": upload(
        recording("{}", speaker_names="<img src=x onerror=alert(1)>,B")
    ),
    "A speaker name equal to `SPEAKER_00`": field("speaker_names", "SPEAKER_01"),
    "Duplicate speaker names": field("speaker_names", "Anna,Anna"),
    "References of known speakers": field("known_speaker_references", "data:audio/wav;base64,AAAA"),
    "A `Content-Length` of 2^64": lambda address: raw(address, head(2**64)),
    "Two `Content-Length` headers that differ": lambda address: raw(address, head(5, "Content-Length: 6"), b"123456"),
    "A path with `../` (`/../../etc/passwd`)": got("/" + quote("../../etc/passwd", safe="")),
}  # fmt: skip


def outcome(answer: Answer) -> str:
    if answer.status < HTTPStatus.BAD_REQUEST:
        return str(answer.status)
    error = answer.json
    return f"{answer.status} {error['code'] if 'code' in error else error['error']['code']}"


@pytest.mark.parametrize("attack", REQUESTS)
def test_what_the_service_answers(server: ServiceProcess, attack: str) -> None:
    assert outcome(REQUESTS[attack](server.address)) == attacks.of_service()[attack]
    assert call(server.address, "GET", "/status").status == HTTPStatus.OK


def test_every_request_of_the_table_is_sent_here() -> None:
    assert attacks.of_service().keys() == REQUESTS.keys()
