"""``POST /diarize``: the exact response, every format, and every error that a recording can cause."""

from __future__ import annotations

import json

import pysrt
import pytest
import webvtt

from diarist.formats import FORMATS


def script(**steps: object) -> str:
    return json.dumps(steps)


def test_segments_have_exactly_the_four_keys_in_order_of_start(post):
    answer = post(content=script())
    assert answer.status_code == 200
    assert answer.content_type == "application/json"
    assert answer.get_json() == {
        "conversation": [
            {"speaker": "SPEAKER_00", "start_time": 0.123, "end_time": 3.988, "text": "Hello, how are you?"},
            {"speaker": "SPEAKER_01", "start_time": 4.5, "end_time": 5.0, "text": "Fine."},
        ]
    }
    assert list(answer.get_json()["conversation"][0]) == ["speaker", "start_time", "end_time", "text"]


def test_silence_is_an_empty_conversation(post):
    answer = post(content=script(silence=True))
    assert answer.status_code == 200
    assert answer.get_json() == {"conversation": []}


def test_words_on_request(post):
    segment = post(content=script(), words="true").get_json()["conversation"][0]
    assert list(segment) == ["speaker", "start_time", "end_time", "text", "words"]
    assert segment["words"][1] == {
        "text": " how", "start_time": 1.123, "end_time": 1.988, "confidence": 0.912, "speaker_confidence": 0.877,
    }  # fmt: skip
    assert "".join(word["text"] for word in segment["words"]) == segment["text"]


def test_names_of_speakers(post):
    answer = post(content=script(), speaker_names='"Li, Wei",Ben,Carl', details="true").get_json()
    assert [segment["speaker"] for segment in answer["conversation"]] == ["Li, Wei", "Ben"]
    assert answer["speakers"] == ["Li, Wei", "Ben"]
    assert "speaker names are not used: Carl" in answer["warnings"][0]
    assert " Li,_Wei " in post(content=script(), speaker_names='"Li, Wei"', format="rttm").text


@pytest.mark.parametrize("names", ["Anna,", "Anna,Anna", '"Anna', "SPEAKER_01"])
def test_invalid_names_of_speakers(post, names):
    answer = post(content=script(), speaker_names=names)
    assert answer.status_code == 400
    assert answer.get_json()["code"] == "invalid_option"
    assert "speaker_names" in answer.get_json()["error"]


@pytest.mark.parametrize("value", ["false", "0", "no", ""])
def test_no_words_unless_asked_for(post, value):
    assert "words" not in post(content=script(), words=value).get_json()["conversation"][0]


def test_details_on_request(post):
    answer = post(content=script(), details="true").get_json()
    plain = post(content=script()).get_json()
    assert answer == plain | {
        "duration": 20.0,
        "language": "en",
        "language_probability": 0.988,
        "speakers": ["SPEAKER_00", "SPEAKER_01"],
        "speakers_confidence": None,
        "engine": "scripted",
        "diarizer": "by the script",
        "recognizer": "scripted",
        "device": "cpu",
        "channels": None,
        "audio_tracks": None,
        "truncation": None,
        "warnings": [],
        "timings": [{"stage": "decode", "seconds": 0.01}, {"stage": "recognition", "seconds": 0.333}],
    }
    assert next(iter(answer)) == "conversation"
    assert list(plain) == ["conversation"]


def test_details_of_silence(post):
    answer = post(content=script(silence=True), details="true", words="true").get_json()
    assert (answer["conversation"], answer["speakers"], answer["language"]) == ([], [], None)
    assert (answer["duration"], answer["diarizer"], answer["recognizer"]) == (3.0, None, None)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "json"])
def test_details_are_refused_where_there_is_no_place_for_them(post, name):
    answer = post(content=script(), details="true", format=name)
    assert (answer.status_code, answer.get_json()["code"]) == (400, "invalid_option")
    assert "details=true needs format=json" in answer.get_json()["error"]
    assert post(content=script(), details="false", format=name).status_code == 200


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "json"])
def test_formats_come_with_their_media_type(post, name):
    answer = post(content=script(), format=name)
    assert answer.status_code == 200
    assert answer.content_type == f"{FORMATS[name].media_type}; charset=utf-8"
    assert answer.headers["Content-Disposition"] == f'inline; filename="conversation.{FORMATS[name].extension}"'
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert ("SPEAKER_01" if name == "rttm" else "Fine.") in answer.text


def test_subtitles_can_be_read_again(post, tmp_path):
    (tmp_path / "a.vtt").write_text(post(content=script(), format="vtt").text)
    assert "Fine." in webvtt.read(tmp_path / "a.vtt")[-1].text
    assert "Fine." in pysrt.from_string(post(content=script(), format="srt").text)[-1].text


def test_text_beyond_ascii_arrives_as_it_was_said(post):
    text = "Grüße, 東京 🎉 <b>&amp;"
    assert post(content=script(words=[text])).get_json()["conversation"][0]["text"] == text


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("NotAudio", 415, "not_audio"),
        ("EmptyAudio", 400, "empty_audio"),
        ("CorruptAudio", 422, "corrupt_audio"),
        ("UnsupportedAudio", 422, "unsupported_audio"),
        ("TrackNotFound", 422, "track_not_found"),
        ("AudioTooLong", 413, "audio_too_long"),
        ("UploadTooLarge", 413, "upload_too_large"),
        ("InvalidOption", 400, "invalid_option"),
        ("DecoderFailed", 500, "decoder_failed"),
        ("JobFailed", 500, "job_failed"),
        ("EngineUnavailable", 503, "engine_unavailable"),
        ("ModelCorrupt", 503, "model_corrupt"),
        ("StorageFull", 507, "storage_full"),
    ],
)
def test_failures_keep_their_code_and_words(post, kind, status, code):
    answer = post(content=script(fail=kind, message="Do this instead."))
    assert answer.status_code == status
    assert answer.get_json() == {
        "error": "Do this instead.", "code": code, "request_id": answer.headers["X-Request-ID"],
    }  # fmt: skip
    assert ("Retry-After" in answer.headers) == (status == 503)


def test_a_fault_shows_nothing_of_the_inside(post):
    answer = post(content=script(fail="no such error", message="/secret/path"))
    assert answer.status_code == 500
    assert answer.get_json()["code"] == "job_failed"
    assert "secret" not in answer.text
    assert answer.headers["X-Request-ID"] in answer.get_json()["error"]


@pytest.mark.slow
def test_a_recording_that_kills_the_worker_is_an_error_and_the_next_one_works(post):
    answer = post(content=script(crash=True))
    assert (answer.status_code, answer.get_json()["code"]) == (500, "job_failed")
    assert "crashed" in answer.get_json()["error"]
    assert post(content=script()).status_code == 200


def test_the_job_is_forgotten_after_the_answer(post, jobs):
    post(content=script())
    post(content=script(fail="NotAudio"))
    assert not jobs.store.list_unfinished()
    assert not jobs.store.list_requests()


def test_options_reach_the_work(post):
    answer = post(content=script(options=True), min_speakers=2, max_speakers=3, language="DE")
    text = answer.get_json()["conversation"][0]["text"]
    assert "min_speakers=2, max_speakers=3" in text
    assert "language='de', channels='mix'" in text
    answer = post(content=script(options=True), channels="separate")
    assert "channels='separate'" in answer.get_json()["conversation"][0]["text"]
    answer = post(content=script(options=True), channels="auto", num_speakers=2)
    assert "channels='auto'" in answer.get_json()["conversation"][0]["text"]
    answer = post(content=script(options=True), track="2", partial="accept")
    assert "track=2, partial='accept'" in answer.get_json()["conversation"][0]["text"]


def test_the_callers_request_id_comes_back(post):
    answer = post(content=script(fail="NotAudio"), headers={"X-Request-ID": "my-id_1.2"})
    assert answer.headers["X-Request-ID"] == "my-id_1.2"
    assert answer.get_json()["request_id"] == "my-id_1.2"


@pytest.mark.parametrize("offered", ["", "a" * 65, "with space", "<script>", "a;b", "ä"])
def test_an_odd_request_id_is_replaced(post, offered):
    answer = post(content=script(fail="NotAudio"), headers={"X-Request-ID": offered})
    assert answer.headers["X-Request-ID"] != offered
    assert len(answer.get_json()["request_id"]) == 16
