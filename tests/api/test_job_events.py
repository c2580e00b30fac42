"""``GET /v1/jobs/{id}/events`` on a real socket."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from api.conftest import eventually
from api.listener import NotificationListener
from api.test_jobs import script
from api.wire import FORM, call, recording
from diarist.api import job_events

pytestmark = pytest.mark.slow


@pytest.fixture
def create_job(server):
    """``create_job(**steps)``: creates a job of the shared service, which is deleted after the test."""
    made = []

    def send(**steps: object) -> dict:
        answer = call(server.address, "POST", "/v1/jobs", recording(script(**steps)), FORM)
        assert answer.status == 202, answer
        made.append(answer.json["links"]["self"])
        return answer.json

    yield send
    for address in made:
        call(server.address, "DELETE", address)


@pytest.fixture
def listen(server):
    """``listen(job, after=None, query="")``: connects a listener, which is closed after the test."""
    opened = []

    def connect(job: dict, last: str | None = None, query: str = "") -> NotificationListener:
        headers = {} if last is None else {"Last-Event-ID": last}
        listener = connect_when_free(server, job, headers, query)
        opened.append(listener)
        return listener

    yield connect
    for each in opened:
        each.__exit__()


def connect_when_free(
    server, job: dict, headers: dict[str, str] | None = None, query: str = ""
) -> NotificationListener:
    """Connect a listener as soon as a slot is free. A closed stream releases its slot within half a second."""
    listeners: list[NotificationListener] = []

    def connected() -> bool:
        listeners.append(NotificationListener(server.address, job["links"]["events"] + query, headers))
        if listeners[-1].response.status != 429:
            return True
        listeners[-1].__exit__()
        return False

    eventually(connected, 10)
    return listeners[-1]


def stored_events(events) -> list[tuple[str, object]]:
    return [(e.id, e.data.get("state", e.data.get("index"))) for e in events if e.kind != "progress"]


def test_a_job_is_followed_to_its_end(create_job, listen, tmp_path):
    job = create_job(finalize=True, until=str(tmp_path / "go"))
    listener = listen(job)
    response = listener.response
    assert response.status == 200
    assert response.getheader("Content-Type") == "text/event-stream"
    assert response.getheader("Cache-Control") == "no-store"
    assert response.getheader("X-Accel-Buffering") == "no"
    seen = listener.events()
    events = [next(seen)]
    while events[-1].kind != "utterance":
        events.append(next(seen))
    assert events[-1].data.items() >= {
        "index": 0, "speaker": "SPEAKER_00", "start_time": 0.123, "end_time": 3.988, "text": "Hello, how are you?",
    }.items()  # fmt: skip
    assert "words" not in events[-1].data
    while not any(event.kind == "progress" and event.data["progress"] > 0 for event in events):
        events.append(next(seen))
    (tmp_path / "go").touch()
    events += seen
    numbers = [int(e.id) for e in events if e.id]
    assert numbers == sorted(set(numbers))
    assert all((e.id is None) == (e.kind == "progress") for e in events)
    assert [e.data["state"] for e in events if e.kind == "state"] == ["queued", "running", "succeeded"]
    assert [e.data["text"] for e in events if e.kind == "utterance"] == ["Hello, how are you?", "Fine."]
    assert events[-1].data["state"] == "succeeded"
    progress = [e.data for e in events if e.kind == "progress"]
    assert all(list(p) == ["stage", "progress", "eta_s", "queue_position"] for p in progress)
    assert all(a != b for a, b in pairwise(progress))
    assert listener.retry_ms == 3_000


def test_a_listener_who_comes_back_misses_nothing_and_hears_nothing_twice(create_job, listen, tmp_path):
    job = create_job(finalize=True, until=str(tmp_path / "go"))
    first = listen(job)
    last_event = first.until("utterance", index=0)
    first.__exit__()
    (tmp_path / "go").touch()
    rest = stored_events(listen(job, last_event.id).events())
    assert [value for _, value in rest] == [1, "succeeded"]
    everything = stored_events(listen(job).events())
    assert [value for _, value in everything] == ["queued", "running", 0, 1, "succeeded"]
    assert everything[-2:] == rest
    assert stored_events(listen(job, query=f"?after={last_event.id}").events()) == rest
    assert stored_events(listen(job, last_event.id, query="?after=0").events()) == rest


def test_after_the_last_event_there_is_nothing_to_come_back_for(create_job, listen):
    job = create_job()
    last = list(listen(job).events())[-1]
    assert last.data["state"] == "succeeded"
    again = listen(job, last.id)
    assert (again.response.status, again.response.read()) == (204, b"")


def test_words_on_request(create_job, listen):
    event = listen(create_job(), query="?words=true").until("utterance", index=0)
    assert "".join(word["text"] for word in event.data["words"]) == event.data["text"]


def test_why_it_failed(create_job, listen):
    event = listen(create_job(fail="NotAudio", message="Send\na recording. 🎉\u2028")).until("state", state="failed")
    assert event.data["error"] == {"code": "not_audio", "message": "Send\na recording. 🎉\u2028"}


def test_a_job_that_waits_tells_its_place(server, create_job, listen, tmp_path):
    create_job(until=str(tmp_path / "go"))
    listener = listen(create_job())
    assert listener.until("progress", queue_position=1).data["stage"] == "queued"
    (tmp_path / "go").touch()
    assert listener.until("state", state="succeeded")


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_cancel_and_delete_end_the_stream(server, create_job, listen, tmp_path, method):
    job = create_job(until=str(tmp_path / "never"))
    listener = listen(job)
    assert listener.until("state", state="running")
    call(server.address, method, job["links"]["cancel" if method == "POST" else "self"])
    last = list(listener.events())[-1]
    assert (last.kind, last.data.get("state")) == (("state", "canceled") if method == "POST" else ("deleted", None))


@pytest.mark.parametrize(("last", "query"), [("x", ""), ("-1", ""), ("1" * 30, ""), ("１", ""), (None, "?after=x"),
                                             (None, "?after=-1"), (None, "?before=1")])  # fmt: skip
def test_places_to_begin_that_cannot_be(server, create_job, last, query):
    headers = {} if last is None else {"Last-Event-ID": last.encode()}
    answer = call(server.address, "GET", create_job()["links"]["events"] + query, headers=headers)
    assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_option")


def test_listeners_beyond_the_number_are_refused_and_those_who_hang_up_make_room(server, create_job, listen, tmp_path):
    job = create_job(until=str(tmp_path / "never"))
    first, second = listen(job), listen(job)
    assert first.until("state", state="running")
    assert second.until("state", state="running")
    refused = call(server.address, "GET", job["links"]["events"])
    assert (refused.status, refused.json["error"]["code"]) == (429, "queue_full")
    assert int(refused.headers["retry-after"]) > 0
    first.__exit__()
    assert listen(job).response.status == 200
    assert call(server.address, "GET", "/status").status == 200


def test_the_log_has_a_line_when_the_stream_ends_and_none_before(server, create_job, tmp_path):
    job = create_job(until=str(tmp_path / "go"))
    with connect_when_free(server, job, {"X-Request-ID": "listens"}) as listener:
        assert listener.response.getheader("X-Request-ID") == "listens"
        assert listener.until("state", state="running")
        assert not any("request=listens" in line and "/events 200" in line for line in server.log)
        (tmp_path / "go").touch()
        assert listener.until("state", state="succeeded")
    server.wait_for(rf"request=listens\b.*GET {job['links']['events']} 200 \d+ ms")


def test_a_stop_of_the_service_ends_streams(start, tmp_path):
    service = start()
    service.wait_for("is ready")
    job = call(service.address, "POST", "/v1/jobs", recording(script(until=str(tmp_path / "never"))), FORM).json
    with NotificationListener(service.address, job["links"]["events"]) as listener:
        assert listener.until("state", state="running")
        assert service.stop() == 0
        assert all(event.kind == "progress" or event.data["state"] == "queued" for event in listener.events())
    assert not [line for line in service.log if "Traceback" in line]


def test_a_silent_stream_is_kept_alive_and_does_not_last_for_ever(app, make, monkeypatch, tmp_path):
    monkeypatch.setattr(job_events, "POLL_S", 0.01)
    monkeypatch.setattr(job_events, "KEEP_ALIVE_S", 0.02)
    monkeypatch.setattr(job_events, "MAX_STREAM_S", 1.0)
    monkeypatch.setattr(job_events, "estimate_eta_s", lambda job: None)
    job = make(script(until=str(tmp_path / "never")))
    answer = app.test_client().get(job["links"]["events"])
    assert b"\n\n: keep-alive\n\n" in answer.data
    assert b"succeeded" not in answer.data
    answer.close()
    slots = app.extensions["diarist"].stream_slots
    first, second, third = (slots.acquire("") for _ in range(3))
    assert first is not None
    assert second is not None
    assert third is None
    first.close()
    second.close()


def test_asking_for_the_head_alone_holds_no_place(app, client, make):
    for _ in range(3):
        answer = client.head(make()["links"]["events"])
        assert (answer.status_code, answer.data) == (200, b"")
        answer.close()
    slots = app.extensions["diarist"].stream_slots
    first, second = (slots.acquire("") for _ in range(2))
    assert first is not None
    assert second is not None
    first.close()
    second.close()


def test_what_is_said_cannot_forge_an_event(create_job, listen):
    forged = "\n\nid: 9\nevent: state\ndata: {}\r\n\u2028\u2029 -->"
    event = listen(create_job(words=[forged])).until("utterance", index=0)
    assert json.dumps(event.data["text"]) == json.dumps(forged.strip())
