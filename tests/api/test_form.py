"""Validation of the form: each error explains what to send instead, and no file remains on the disk."""

from __future__ import annotations

import hashlib
import random

import pytest

from api.wire import BOUNDARY, FORM, form, part, recording

AUDIO = part("audio", "{}", "meeting.wav")


def error_message(answer, status: int = 400, code: str = "invalid_option") -> str:
    """Check the format of an error response, and return its message."""
    assert (answer.status_code, answer.content_type) == (status, "application/json"), answer.text
    body = answer.get_json()
    assert list(body) == ["error", "code", "request_id"]
    assert body["code"] == code
    assert body["request_id"] == answer.headers["X-Request-ID"]
    return body["error"]


@pytest.mark.parametrize("field", ["num_speakers", "min_speakers", "max_speakers"])
@pytest.mark.parametrize("value", ["0", "-1", "101", str(10**9), "9" * 5000, "1.5", "two", "1e3", "NaN", "٣x", "1;2"])
def test_numbers_of_speakers_out_of_range(post, field, value):
    message = error_message(post(**{field: value}))
    assert field in message
    assert "from 1 to 100" in message


@pytest.mark.parametrize("field", ["num_speakers", "min_speakers", "max_speakers"])
@pytest.mark.parametrize("value", ["1", "100", " 2 ", ""])
def test_numbers_of_speakers_in_range(post, field, value):
    assert post(content="{}", **{field: value}).status_code == 200


@pytest.mark.parametrize(
    "value", ["0", "-1", "1.5", "two", "1e3", "BEST", "all,1", "1 2", "٣x", "9" * 5000, str(10**9)]
)
def test_tracks_that_cannot_be(post, value):
    message = error_message(post(track=value))
    assert message.startswith("track cannot be ")
    assert "its number, from 1; `default`" in message
    assert len(message) < 1_000


@pytest.mark.parametrize("value", ["1", " 2 ", "999999999", "default", "best", "all", ""])
def test_tracks_that_may_be(post, value):
    assert post(content="{}", track=value).status_code == 200


def test_a_track_is_given_once(client):
    body = form(AUDIO, part("track", "1"), part("track", "2"))
    assert "more often: 'track'" in error_message(client.post("/diarize", data=body, headers=FORM))
    body = form(AUDIO, part("track", "1"))
    assert "'track'" in error_message(client.post("/diarize?track=1", data=body, headers=FORM))
    assert "'track'" in error_message(client.post("/diarize?track=1&track=1", data=form(AUDIO), headers=FORM))


@pytest.mark.parametrize("fields", [{"channels": "separate"}, {"num_speakers": 2}, {"max_speakers": 2}])
def test_all_tracks_exclude_what_contradicts_them(post, fields):
    assert "track=all" in error_message(post(track="all", **fields))


@pytest.mark.parametrize(
    "hints",
    [
        {"min_speakers": 3, "max_speakers": 2},
        {"num_speakers": 1, "min_speakers": 2},
        {"num_speakers": 5, "max_speakers": 4},
        {"num_speakers": 2, "channels": "separate"},
    ],
)
def test_contradictory_hints(post, hints):
    assert "speakers" in error_message(post(**hints))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "mp3"), ("format", "JSON "), ("format", "../json"), ("words", "maybe"), ("words", "2"),
        ("details", "maybe"),
        ("partial", "true"), ("partial", "Accept"),
        ("channels", "left"), ("language", "klingon"), ("language", "e"), ("language", "e\n"), ("language", "../"),
        ("language", "{{7*7}}"), ("language", "\x1b[31m"),
    ],
)  # fmt: skip
def test_values_that_are_not_known(post, field, value):
    assert field in error_message(post(**{field: value}))


@pytest.mark.parametrize("field", ["num_speaker", "Audio2", "stream", "x" * 200, "<img src=x>", "a.b"])
def test_a_field_that_is_not_known_is_named_with_those_that_are(post, field):
    message = error_message(post(form(AUDIO, part(field, "1"))))
    assert field[:60] in message
    assert "num_speakers" in message


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (form(), "no file in the field 'audio'"),
        (form(part("words", "true")), "no file in the field 'audio'"),
        (form(part("recording", "{}", "a.wav")), "no file in the field 'audio' or 'file'"),
        (form(AUDIO, part("file", "{}", "b.wav")), "2 files"),
        (form(part("file", "", "")), "The file in the field 'file' has no name"),
        (form(part("audio", "@meeting.wav")), "came as text"),
        (form(AUDIO, part("audio", "text")), "came as text"),
        (form(part("audio", "", "")), "no file was chosen"),
        (form(part("audio", "{}", "")), "no file was chosen"),
        (form(AUDIO, AUDIO), "2 files"),
        (form(AUDIO, part("extra", "{}", "b.wav")), "'extra'"),
        (form(AUDIO, part("words", "true"), part("words", "false")), "'words'"),
        (form(AUDIO)[:-20], "not well-formed"),
        (b"nothing like a form", "not well-formed"),
    ],
)
def test_forms_without_one_recording(post, body, expected):
    assert expected in error_message(post(body))


@pytest.mark.parametrize("body", [form(), form(part("recording", "{}", "a.wav")), form(part("audio", "", ""))])
def test_what_to_send_is_shown(post, body):
    assert "curl -F audio=@meeting.wav" in error_message(post(body))


def test_file_is_another_name_of_audio(post):
    answer = post(form(part("file", "{}", "meeting.wav"), part("format", "rttm")))
    assert answer.status_code == 200, answer.text
    assert answer.text.split()[1] == "meeting"


def test_an_empty_file(post):
    assert "is empty" in error_message(post(form(part("audio", "", "a.wav"))), code="empty_audio")


@pytest.mark.parametrize(
    "content_type",
    [None, "", "audio/wav", "application/json", "application/x-www-form-urlencoded", "multipart/form-data",
     "multipart/form-data; boundary=", "multipart/form-data; boundary=ä", "multipart/mixed; boundary=b", "\x7f"],
)  # fmt: skip
def test_bodies_that_are_no_form(client, content_type):
    answer = client.post("/diarize", data=recording(), headers={"Content-Type": content_type} if content_type else {})
    assert "curl -F audio=@meeting.wav" in error_message(answer)


def test_a_request_without_a_body(client):
    assert "without a body" in error_message(client.post("/diarize"))


@pytest.mark.parametrize(
    "filename",
    ["../../etc/passwd", "..\\\\..\\\\x", "/abs/p.wav", "a\x00b.wav", "a" * 4096 + ".wav", "\u202egpj.wav", "-i.wav",
     "concat:a|b", "http://h/x.wav", "%2e%2e%2f", "CON.wav", "🎉.wav", "<img src=x onerror=alert(1)>.wav", "'; drop",
     "{{7*7}}.wav", "a%0d%0ab.wav", "=HYPERLINK(1)", " ", "."],
)  # fmt: skip
@pytest.mark.parametrize("name", ["json", "rttm"])
def test_file_names_are_never_paths(post, filename, name):
    answer = post(form(part("audio", "{}", filename), part("format", name)))
    assert answer.status_code == 200
    assert "passwd" not in answer.headers.get("Content-Disposition", "")
    if name == "rttm":
        assert all(len(line.split()) == 10 for line in answer.text.splitlines())


@pytest.mark.parametrize(
    ("filename", "recording"),
    [
        ("board.meeting.wav", "board.meeting"),
        ("meeting", "meeting"),
        ("/calls/meeting 1.wav", "meeting_1"),
        ("C:\\Users\\x\\meeting 1.wav", "meeting_1"),
        ("/", "_"),
    ],
)
def test_rttm_names_the_recording_without_folder_and_extension(post, filename, recording):
    answer = post(form(part("audio", "{}", filename), part("format", "rttm")))
    assert {line.split()[1] for line in answer.text.splitlines()} == {recording}


class TestQuery:
    """The fields of the form may come in the query."""

    @pytest.fixture
    def ask(self, client):
        def send(query: str, *parts: bytes):
            return client.post(f"/diarize?{query}", data=form(AUDIO, *parts), headers=FORM)

        return send

    def test_fields_of_the_query_are_those_of_the_form(self, ask):
        answer = ask("format=json&words=true&details=&num_speakers=2&track=best&partial=accept", part("language", "en"))
        assert answer.status_code == 200, answer.text
        assert all(segment["words"] for segment in answer.get_json()["conversation"])
        assert ask("format=srt").content_type.startswith("application/x-subrip")

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("num_speaker=2", "There is no field 'num_speaker'. The fields are num_speakers, "),
            ("audio=meeting.wav", "There is no field 'audio'."),
            ("words=maybe", "words cannot be 'maybe'"),
            ("words=true&words=true", "given more often: 'words'"),
            ("min_speakers=3&max_speakers=2", "min_speakers"),
            ("format=srt&details=true", "details=true needs format=json"),
        ],
    )
    def test_what_cannot_be_is_refused(self, ask, query, expected):
        assert expected in error_message(ask(query))

    def test_a_field_is_given_once(self, ask):
        message = error_message(ask("words=true", part("words", "true")))
        assert message == "Each field may be given once; given in both the query and the body: 'words'."

    def test_both_together_must_agree(self, ask):
        assert "details=true needs format=json" in error_message(ask("details=true", part("format", "srt")))


def test_a_file_of_the_limit_is_taken_and_one_byte_more_is_not(post, settings):
    assert post(content=b" " * (settings.upload_limit_bytes - 2) + b"{}").status_code == 200
    message = error_message(post(content=b" " * (settings.upload_limit_bytes - 1) + b"{}"), 413, "upload_too_large")
    assert "1 MB" in message


@pytest.mark.parametrize(
    "pattern",
    [
        b"\0",
        b"\n",
        b"\r",
        b"\r\n",
        b"\r\n--",
        b"\r\n--" + BOUNDARY[:-1],
        b"x--" + BOUNDARY,
        random.Random(7).randbytes(99_991),
    ],
)
def test_any_bytes_arrive_as_they_were_sent(post, settings, pattern):
    content = (pattern * (settings.upload_limit_bytes // len(pattern) + 1))[: settings.upload_limit_bytes]
    answer = post(content=content)
    assert answer.status_code == 200, answer.text
    assert answer.get_json()["conversation"][0]["text"] == hashlib.sha256(content).hexdigest()


def test_many_parts(post):
    error_message(post(form(AUDIO, *(part(f"f{i}", "1") for i in range(1_001)))), 413, "form_too_large")


def test_many_files(post):
    error_message(post(form(*(part("audio", "x", "a.wav") for _ in range(100)))), 413, "form_too_large")


def test_a_long_text_field(post):
    error_message(post(form(part("language", b"x" * 600_000), AUDIO)), 413, "form_too_large")


def test_a_body_beyond_the_limit_is_refused_by_its_declared_length(client):
    declared = {"CONTENT_TYPE": "multipart/form-data; boundary=b", "CONTENT_LENGTH": str(2**40)}
    error_message(client.post("/diarize", environ_overrides=declared), 413, "upload_too_large")


def test_too_many_at_once(post, app):
    slots = app.extensions["diarist"].waiting_slots
    acquired = [slots.acquire("") for _ in range(8)]
    assert all(acquired)
    try:
        answer = post(content="{}")
        assert "8 requests" in error_message(answer, 429, "queue_full")
        assert int(answer.headers["Retry-After"]) > 0
    finally:
        for slot in acquired:
            slot.close()
    assert post(content="{}").status_code == 200
