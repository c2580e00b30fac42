"""``GET /v1/jobs/{id}/result``."""

from __future__ import annotations

import json

import pytest

from api.conftest import eventually
from api.test_jobs import error_message, script
from diarist.formats import FORMATS


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_format_is_that_of_diarize(client, make, done, post, name):
    job = make()
    assert done(job["id"]) == "succeeded"
    result = client.get(job["links"]["result"], query_string={"format": name})
    assert result.status_code == 200
    assert "Diarist-Partial" not in result.headers
    client.delete(job["links"]["self"])
    same = post(content="{}", format=name)
    assert (result.data, result.content_type) == (same.data, same.content_type)
    if name != "json":
        extension = FORMATS[name].extension
        assert result.headers["Content-Disposition"] == f'inline; filename="{job["id"]}.{extension}"'


def test_words_and_details(client, make, done):
    job = make()
    assert done(job["id"]) == "succeeded"
    result = client.get(job["links"]["result"] + "?words=true&details=true&partial=true").get_json()
    assert (result["duration"], result["engine"]) == (20.0, "scripted")
    assert result["conversation"][0]["words"][1]["text"] == " how"


@pytest.mark.parametrize(
    ("query", "param"),
    [("format=mp3", "format"), ("words=maybe", "words"), ("format=srt&details=true", None), ("stream=true", None)],
)
def test_parameters_that_cannot_be(client, make, query, param):
    error_message(client.get(f"{make()['links']['result']}?{query}"), 400, "invalid_option", param)


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("NotAudio", 415, "not_audio"),
        ("EmptyAudio", 400, "empty_audio"),
        ("CorruptAudio", 422, "corrupt_audio"),
        ("AudioTooLong", 413, "audio_too_long"),
    ],
)
def test_what_a_job_failed_with(client, make, done, kind, status, code):
    job = make(script(fail=kind, message="Do this instead."))
    assert done(job["id"]) == "failed"
    seen = client.get(job["links"]["self"]).get_json()
    assert seen["error"] == {"code": code, "message": "Do this instead."}
    for query in ("", "?partial=true"):
        result = client.get(job["links"]["result"] + query)
        assert error_message(result, status, code) == "Do this instead."
        assert result.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(("kind", "code"), [("JobFailed", "job_failed"), ("StorageFull", "storage_full")])
def test_a_fault_of_ours_is_500_and_not_to_be_asked_again(client, make, jobs, kind, code):
    from diarist.jobs.model import JobError

    job = make(script(until="/never"))
    eventually(lambda: jobs.store.get(job["id"]).worker)
    held = jobs.store.get(job["id"])
    assert jobs.store.fail(held.id, held.worker, JobError(code, "It broke."))
    result = client.get(job["links"]["result"])
    assert error_message(result, 500, code) == "It broke."
    assert "Retry-After" not in result.headers
    assert result.headers["x-should-retry"] == "false"


def test_before_the_end(client, make, tmp_path):
    job = make(script(finalize=True, until=str(tmp_path / "go")))
    eventually(lambda: client.get(job["links"]["self"]).get_json()["utterances"] == 1)
    refused = client.get(job["links"]["result"])
    assert "running" in error_message(refused, 409, "job_not_done")
    assert 1 <= int(refused.headers["Retry-After"]) <= 30
    partial = client.get(job["links"]["result"] + "?partial=true&words=true")
    assert (partial.status_code, partial.headers["Diarist-Partial"]) == (200, "true")
    (segment,) = partial.get_json()["conversation"]
    assert segment["text"] == "Hello, how are you?"
    assert len(segment["words"]) == 4
    assert "SPEAKER_00" in client.get(job["links"]["result"] + "?partial=true&format=rttm").text
    error_message(client.get(job["links"]["result"] + "?partial=true&details=true"), 400, "invalid_option")
    (tmp_path / "go").touch()
    eventually(lambda: client.get(job["links"]["result"]).status_code == 200)
    whole = client.get(job["links"]["result"] + "?partial=true&words=true")
    assert "Diarist-Partial" not in whole.headers
    assert whole.get_json()["conversation"][0] == json.loads(partial.data)["conversation"][0]


def test_nothing_is_final_yet(client, make, tmp_path):
    make(script(until=str(tmp_path / "never")))
    job = make()
    answer = client.get(job["links"]["result"] + "?partial=true")
    assert (answer.get_json(), answer.headers["Diarist-Partial"]) == ({"conversation": []}, "true")
    assert "queued" in error_message(client.get(job["links"]["result"]), 409, "job_not_done")
