"""``/v1/jobs``: jobs are created, read, listed, canceled and deleted."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from api.conftest import eventually
from api.wire import FORM, form, part, recording
from diarist.api import job_schemas
from diarist.api.upload import MAX_PARTS
from diarist.errors import QueueFull
from diarist.jobs.model import PRIORITIES, QUEUES, JobState

URL = "https://example.com/meeting.wav"


def script(**steps: object) -> str:
    return json.dumps(steps)


def error_message(answer, status: int, code: str, param: str | None = None) -> str:
    """Check the format of an error response, and return its message."""
    assert (answer.status_code, answer.content_type) == (status, "application/json"), answer.text
    error = answer.get_json()["error"]
    assert list(answer.get_json()) == ["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert (error["code"], error["param"]) == (code, param)
    assert answer.headers["X-Request-ID"]
    return error["message"]


@pytest.fixture
def post(client):
    def send(*parts: bytes, headers: dict[str, str] | None = None):
        return client.post("/v1/jobs", data=form(*parts), headers=FORM | (headers or {}))

    return send


AUDIO = part("audio", "{}", "meeting.wav")


def test_names_are_those_of_the_core():
    assert get_args(job_schemas.StateName) == tuple(JobState)
    assert get_args(job_schemas.PriorityName) == tuple(PRIORITIES)
    assert get_args(job_schemas.QueueName) == QUEUES
    assert len(job_schemas.NewJob.model_fields) < MAX_PARTS


class TestCreate:
    def test_a_job_is_made_and_can_be_asked_for(self, client, make, done):
        sent = client.post("/v1/jobs", data=recording("{}", num_speakers=2, language="EN"), headers=FORM)
        assert sent.status_code == 202
        job = sent.get_json()
        assert sent.headers["Location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
        assert re.fullmatch(r"[A-Za-z0-9_-]{22}", job["id"])
        assert (job["object"], job["filename"], job["size_bytes"]) == ("job", "meeting.wav", 2)
        assert (job["priority"], job["queue"], job["labels"]) == ("normal", "any", {})
        assert job["options"] == {
            "num_speakers": 2, "min_speakers": None, "max_speakers": None, "language": "en", "channels": "mix",
            "track": None, "partial": "refuse",
        }  # fmt: skip
        created = datetime.fromisoformat(job["created_at"])
        assert abs(datetime.now(UTC) - created) < timedelta(minutes=1)
        assert job["created_at"].endswith("Z")
        assert done(job["id"]) == "succeeded"
        job = client.get(sent.headers["Location"]).get_json()
        assert (job["state"], job["stage"], job["progress"], job["attempts"]) == ("succeeded", "done", 1.0, 1)
        assert (job["error"], job["eta_s"], job["queue_position"]) == (None, None, None)
        assert (job["duration"], job["utterances"]) == (20.0, 2)
        assert job["timings"] == {"decode": 0.01, "recognition": 0.333}
        assert job["created_at"] <= job["started_at"] <= job["ended_at"]
        assert client.delete(sent.headers["Location"]).status_code == 204

    @pytest.mark.parametrize("field", ["audio", "file"])
    def test_either_field_takes_the_recording(self, post, client, field):
        answer = post(part(field, "{}", "a.wav"))
        assert answer.status_code == 202
        assert client.delete(answer.headers["Location"]).status_code == 204

    def test_labels_priority_queue_and_webhook(self, make):
        labels = {"team": "sales", "a.b-c_1": "Grüße, 東京 <b>'\"", "empty": ""}
        job = make(
            labels=json.dumps(labels), priority="high", queue="embedded", webhook_url="https://example.com/h?a=1"
        )
        assert job["labels"] == labels
        assert (job["priority"], job["queue"], job["webhook_url"]) == ("high", "embedded", "https://example.com/h?a=1")

    def test_options_reach_the_work(self, client, make, done):
        job = make(script(options=True), channels="separate", language="DE")
        assert done(job["id"]) == "succeeded"
        assert "language='de', channels='separate'" in client.get(job["links"]["result"]).text
        job = make(script(options=True), channels="auto")
        assert job["options"]["channels"] == "auto"
        assert done(job["id"]) == "succeeded"
        assert "channels='auto'" in client.get(job["links"]["result"]).text
        job = make(script(options=True), track="3", partial="accept")
        assert (job["options"]["track"], job["options"]["partial"]) == (3, "accept")
        assert done(job["id"]) == "succeeded"
        assert "track=3, partial='accept'" in client.get(job["links"]["result"]).text

    @pytest.mark.parametrize(
        ("language", "code"), [("auto", None), ("en-US", "en"), ("zh-Hant", "zh"), ("German", "de")]
    )
    def test_languages_by_tag_and_name(self, make, language, code):
        assert make(language=language)["options"]["language"] == code

    def test_tracks_by_url_as_json_and_in_the_query(self, client):
        answers = [
            (client.post("/v1/jobs", json={"url": URL, "track": 2, "partial": "accept"}), 2),
            (client.post("/v1/jobs?partial=accept", json={"url": URL, "track": "all"}), "all"),
            (client.post("/v1/jobs?track=best&partial=accept", json={"url": URL}), "best"),
        ]
        for answer, track in answers:
            assert answer.status_code == 202, answer.text
            assert answer.get_json()["options"]["track"] == track
            assert answer.get_json()["options"]["partial"] == "accept"
            assert client.delete(answer.headers["Location"]).status_code == 204
        for value in (0, -1, 1.5, "two", True, "", [1], 10**9):
            answer = client.post("/v1/jobs", json={"url": URL, "track": value})
            if value == "":  # as an empty field of a form
                assert answer.status_code == 202, answer.text
                assert client.delete(answer.headers["Location"]).status_code == 204
            else:
                error_message(answer, 400, "invalid_option", "track")

    def test_by_url_as_a_form_and_as_json(self, client, post):
        made = [
            post(part("url", URL), part("num_speakers", "2")),
            client.post("/v1/jobs", json={"url": URL, "num_speakers": 2, "labels": {"a": "b"}}),
        ]
        for answer in made:
            assert answer.status_code == 202, answer.text
            job = answer.get_json()
            assert (job["source_url"], job["state"], job["size_bytes"]) == (URL, "queued", 0)
            assert job["options"]["num_speakers"] == 2
            assert client.delete(answer.headers["Location"]).status_code == 204

    def test_fields_may_come_in_the_query(self, client):
        answers = [
            client.post(f"/v1/jobs?priority=low&num_speakers=2&url={URL}&labels=%7B%22a%22:%22b%22%7D", data=form(part(
                "language", "en")), headers=FORM),
            client.post("/v1/jobs?priority=low&num_speakers=2", json={"url": URL, "labels": {"a": "b"}}),
        ]  # fmt: skip
        for answer in answers:
            assert answer.status_code == 202, answer.text
            job = answer.get_json()
            assert (job["priority"], job["source_url"], job["labels"]) == ("low", URL, {"a": "b"})
            assert job["options"]["num_speakers"] == 2
            assert client.delete(answer.headers["Location"]).status_code == 204

    @pytest.mark.parametrize(
        ("query", "expected", "param"),
        [
            ("stream=1", "There is no field 'stream'. The fields are num_speakers, ", None),
            ("words=true", "There is no field 'words'.", None),
            ("labels=team", "labels cannot be 'team'", "labels"),
            ("priority=low&priority=low", "given more often: 'priority'", None),
            ("queue=any", "given in both the query and the body: 'queue'", "queue"),
            (f"url={URL}", "both a file and the field 'url'", None),
            ("webhook_url=ftp://example.com/", "webhook_url", "webhook_url"),
        ],
    )
    def test_queries_that_cannot_be(self, client, query, expected, param):
        answer = client.post(f"/v1/jobs?{query}", data=form(AUDIO, part("queue", "any")), headers=FORM)
        assert expected in error_message(answer, 400, "invalid_option", param)

    @pytest.mark.parametrize(
        ("parts", "expected"),
        [
            ((), "no file in the field 'audio'"),
            ((part("url", " "),), "no file in the field 'audio'"),
            ((part("other", "{}", "a.wav"),), "no file in the field 'audio'"),
            ((AUDIO, part("url", URL)), "one of the two"),
            ((AUDIO, part("file", "{}", "b.wav")), "2 files"),
            ((part("audio", "text"), part("url", URL)), "came as text"),
            ((part("url", URL), part("url", URL)), "'url'"),
            ((part("url", URL), part("webhook_url", "{}", "a")), "takes a file"),
            ((part("audio", "{}", ""),), "no file was chosen"),
        ],
    )
    def test_not_one_recording(self, post, parts, expected):
        assert expected in error_message(post(*parts), 400, "invalid_option")

    def test_a_file_without_bytes(self, post):
        assert "is empty" in error_message(post(part("audio", "", "a.wav")), 400, "empty_audio")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("priority", "urgent"), ("queue", "../any"), ("num_speakers", "0"), ("language", "klingon"),
            ("labels", "team=sales"), ("labels", "[]"), ("labels", '"a"'), ("labels", "null"), ("labels", "{"),
            ("labels", '{"a": 1}'), ("labels", '{"a": null}'), ("labels", '{"a b": "c"}'), ("labels", '{"": "c"}'),
            ("labels", '{"a\\n": "c"}'), ("labels", '{"a": "b\\nc"}'), ("labels", '{"a": "\\u0000"}'),
            ("labels", '{"a": "\\ud800"}'), ("labels", '{"' + "a" * 65 + '": "b"}'),
            ("labels", '{"a": "' + "b" * 256 + '"}'), ("labels", "[" * 100_000),
            ("labels", json.dumps({f"n{i}": "v" for i in range(17)})),
            ("webhook_url", "ftp://example.com/"), ("webhook_url", "https://user:pass@example.com/"),
            ("webhook_url", "https://example.com/\n"), ("webhook_url", "https://" + "a" * 5000),
            ("stream", "true"), ("words", "true"), ("<img src=x onerror=alert(1)>", "1"),
        ],
    )  # fmt: skip
    def test_values_that_cannot_be(self, post, field, value):
        answer = post(AUDIO, part(field, value))
        assert answer.status_code == 400, answer.text
        error = answer.get_json()["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_option")
        assert field in error["message"]
        assert error["param"] == (field if field in job_schemas.NewJob.model_fields else None)

    @pytest.mark.parametrize(
        "url",
        ["http://127.0.0.1/a", "http://2130706433/", "http://0x7f.1/", "http://[::1]/", "http://169.254.169.254/",
         "http://[::ffff:127.0.0.1]/", "http://10.0.0.1:22/", "http://0.0.0.0/"],
    )  # fmt: skip
    @pytest.mark.parametrize("field", ["url", "webhook_url"])
    def test_no_way_into_private_networks(self, post, field, url):
        parts = (part("url", url),) if field == "url" else (AUDIO, part("webhook_url", url))
        assert "not public" in error_message(post(*parts), 400, "url_refused")

    @pytest.mark.parametrize(
        "url", ["file:///etc/passwd", "gopher://a/", "data:audio/wav;base64,", "//a", "x", "http://"]
    )
    def test_what_is_no_url_of_the_web(self, client, url):
        assert "url" in error_message(client.post("/v1/jobs", json={"url": url}), 400, "invalid_option", "url")

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            (b"", "body"), (b"{", "body"), (b"[]", "JSON object"), (b'"x"', "JSON object"), (b"\xff", "body"),
            (b"[" * 60_000, "body"), (b"{}", "url"), (b'{"url": 1}', "url"), (b'{"url": ""}', "url"),
            (b'{"url": "https://a.example/", "audio": "x"}', "audio"),
            (b'{"url": "https://a.example/", "labels": []}', "labels"),
            (b'{"url": "https://a.example/", "num_speakers": "two"}', "num_speakers"),
        ],
    )  # fmt: skip
    def test_json_that_is_not_a_new_job(self, client, body, expected):
        answer = client.post("/v1/jobs", data=body, content_type="application/json")
        assert answer.status_code == 400, answer.text
        assert expected in answer.get_json()["error"]["message"]

    def test_a_long_body_of_json(self, client):
        answer = client.post("/v1/jobs", json={"url": URL, "labels": {"a": "b" * 2**17}})
        assert "64 kB" in error_message(answer, 413, "upload_too_large")

    def test_what_is_missing_is_said(self, client):
        message = error_message(client.post("/v1/jobs", json={"num_speakers": 2}), 400, "invalid_option", "url")
        assert message.startswith("url is missing.")
        message = error_message(
            client.post("/v1/jobs", data=form(part("language", "en")), headers=FORM), 400, "invalid_option"
        )
        assert message.startswith("There is no file in the field 'audio' or 'file', and no 'url' in its place.")

    @pytest.mark.parametrize("content_type", ["audio/wav", "application/x-www-form-urlencoded", "text/plain", None])
    def test_other_bodies(self, client, content_type):
        answer = client.post("/v1/jobs", data=b"url=x", headers={"Content-Type": content_type} if content_type else {})
        assert "curl -F audio=@meeting.wav" in error_message(answer, 400, "invalid_option")

    def test_a_body_that_is_too_large_by_its_declared_length(self, client):
        declared = {"CONTENT_TYPE": "multipart/form-data; boundary=b", "CONTENT_LENGTH": str(2**40)}
        error_message(client.post("/v1/jobs", environ_overrides=declared), 413, "upload_too_large")

    @pytest.mark.parametrize(
        ("filename", "shown"),
        [
            ("../../etc/passwd", "passwd"),
            ("..\\\\..\\\\x.wav", "x.wav"),
            ("a/..", ""),
            ("\u202egpj.\u2067exe\u200f.wav", "gpj.exe.wav"),
            ("a\x1b[31m\x07b.wav", "a[31mb.wav"),
            ("\x1b]0;title\x07/../b.wav", "b.wav"),
        ],
    )
    def test_file_names_are_shown_without_folders_and_hidden_characters(self, client, post, done, filename, shown):
        job = post(part("audio", "{}", filename)).get_json()
        assert job["filename"] == shown
        done(job["id"])
        assert client.get(job["links"]["self"]).get_json()["filename"] == shown
        listed = client.get("/v1/jobs").get_json()["data"]
        assert next(each["filename"] for each in listed if each["id"] == job["id"]) == shown
        rttm = client.get(job["links"]["result"] + "?format=rttm").text
        assert all(line.split()[1] == (shown.removesuffix(".wav") or "_") for line in rttm.splitlines())
        client.delete(job["links"]["self"])

    @pytest.mark.parametrize(
        "filename",
        ["../../etc/passwd", "/abs/p.wav", "a\x00b.wav", "a" * 4096 + ".wav", "\u202egpj.wav", "concat:a|b", "🎉.wav",
         "<img src=x onerror=alert(1)>.wav", "{{7*7}}.wav", "=HYPERLINK(1)", " "],
    )  # fmt: skip
    def test_file_names_are_for_people_alone(self, client, post, done, filename):
        answer = post(part("audio", "{}", filename))
        job = answer.get_json()
        assert answer.status_code == 202
        assert len(job["filename"]) <= 255
        assert done(job["id"]) == "succeeded"
        result = client.get(job["links"]["result"] + "?format=rttm")
        assert result.headers["Content-Disposition"] == f'inline; filename="{job["id"]}.rttm"'
        assert all(len(line.split()) == 10 for line in result.text.splitlines())
        assert client.delete(job["links"]["self"]).status_code == 204

    @pytest.mark.parametrize(
        ("sent", "name"),
        [
            ("Café.wav".encode("latin-1"), "Café.wav"),
            ("Café.wav".encode(), "Café.wav"),
            (b'a \\"b\\" \\\\ c.wav', " c.wav"),
            (b"C:\\Users\\x\\meeting 1.wav", "meeting 1.wav"),
            (b"C:\\\\Users\\\\x\\\\meeting 1.wav", "meeting 1.wav"),
            (b"calls/1:1.wav", "1:1.wav"),
        ],
    )
    def test_names_arrive_however_clients_encode_them(self, client, post, sent, name):
        answer = post(part("audio", "{}", "NAME").replace(b"NAME", sent), part("language", "de"))
        assert answer.status_code == 202, answer.text
        job = answer.get_json()
        assert (job["filename"], job["options"]["language"]) == (name, "de")
        assert client.delete(job["links"]["self"]).status_code == 204

    def test_when_the_queue_is_full(self, client, make, jobs, monkeypatch):
        def full(*_: object, **__: object) -> None:
            raise QueueFull("Too many wait.")

        first = make(headers={"Idempotency-Key": "made-before"})
        monkeypatch.setattr(jobs, "check_capacity", full)
        answer = client.post("/v1/jobs", data=recording("{}"), headers=FORM)
        error_message(answer, 429, "queue_full")
        assert answer.get_json()["error"]["type"] == "rate_limit_error"
        assert int(answer.headers["Retry-After"]) > 0
        again = client.post("/v1/jobs", data=recording("{}"), headers=FORM | {"Idempotency-Key": "made-before"})
        assert (again.status_code, again.get_json()["id"]) == (200, first["id"])
        new = client.post("/v1/jobs", data=recording("{}"), headers=FORM | {"Idempotency-Key": "not-made-before"})
        error_message(new, 429, "queue_full")

    def test_the_queue_is_full_for_real(self, app, settings, jobs, client, make, tmp_path, monkeypatch):
        monkeypatch.setattr(jobs, "_settings", settings.model_copy(update={"max_queued": 2}))
        for _ in range(2):
            make(script(until=str(tmp_path / "never")))
        error_message(client.post("/v1/jobs", data=recording("{}"), headers=FORM), 429, "queue_full")
        error_message(client.post("/v1/jobs", json={"url": URL}), 429, "queue_full")


KEY = {"Idempotency-Key": "8f14e45f!~"}


class TestIdempotency:
    def send(self, client, content="{}", key=KEY, **fields):
        return client.post("/v1/jobs", data=recording(content, **fields), headers=FORM | key)

    def test_a_repeat_is_the_same_job(self, client, make):
        first = make(headers=KEY, num_speakers=2, labels='{"a": "1", "b": "2"}')
        again = self.send(client, num_speakers=2, labels='{"b":"2","a":"1"}')
        assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
        assert again.get_json()["id"] == first["id"]
        assert again.headers["Location"] == first["links"]["self"]

    def test_repeats_that_come_together_are_told_apart_from_the_first(self, client):
        """Also where a client sends all of them with one id."""

        def send(_: int):
            headers = FORM | KEY | {"X-Request-ID": "same"}
            return client.application.test_client().post("/v1/jobs", data=recording("{}"), headers=headers)

        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(send, range(6)))
        assert client.delete(answers[0].headers["Location"]).status_code == 204
        assert sorted(answer.status_code for answer in answers) == [200] * 5 + [202]
        assert {answer.get_json()["id"] for answer in answers} == {answers[0].get_json()["id"]}
        assert all((answer.status_code == 200) == ("Idempotent-Replayed" in answer.headers) for answer in answers)

    @pytest.mark.parametrize(
        ("content", "fields"),
        [("other", {}), ("{}", {"num_speakers": 3}), ("{}", {"labels": '{"a": "b"}'}), ("{}", {"priority": "low"}),
         ("{}", {"queue": "cpu"}), ("{}", {"webhook_url": "https://example.com/"}), ("{}", {"language": "de"}),
         ("{}", {"track": "1"}), ("{}", {"partial": "accept"})],
    )  # fmt: skip
    def test_another_order_with_the_same_key_is_a_mistake(self, client, make, content, fields):
        make(headers=KEY)
        error_message(self.send(client, content, **fields), 422, "idempotency_conflict")

    def test_the_name_of_the_file_does_not_count(self, client, make):
        first = make(headers=KEY)
        again = client.post("/v1/jobs", data=form(part("audio", "{}", "tmp8f.wav")), headers=FORM | KEY)
        assert (again.status_code, again.get_json()["id"]) == (200, first["id"])

    def test_by_url(self, client):
        first, again = (client.post("/v1/jobs", json={"url": URL}, headers=KEY) for _ in range(2))
        other = client.post("/v1/jobs", json={"url": URL + "?"}, headers=KEY)
        assert (first.status_code, again.status_code) == (202, 200)
        assert first.get_json()["id"] == again.get_json()["id"]
        assert other.status_code in (200, 422)
        assert client.post("/v1/jobs", json={"url": URL + "x"}, headers=KEY).status_code == 422
        assert client.delete(first.headers["Location"]).status_code == 204

    @pytest.mark.parametrize("key", ["", " ", "a b", "ä", "a" * 256, "a\tb"])
    def test_keys_that_cannot_be(self, client, key):
        error_message(self.send(client, key={"Idempotency-Key": key}), 400, "invalid_option", "Idempotency-Key")

    def test_once_deleted_the_key_is_free(self, client, make):
        first = make(headers=KEY)
        assert client.delete(first["links"]["self"]).status_code == 204
        assert make("other", headers=KEY)["id"] != first["id"]


class TestList:
    @pytest.fixture
    def three(self, make, done):
        made = [make(labels=json.dumps({"n": str(i), "who": "list"})) for i in range(3)]
        assert {done(job["id"]) for job in made} == {"succeeded"}
        return [job["id"] for job in made]

    def ids(self, client, **query):
        answer = client.get("/v1/jobs", query_string=query)
        assert answer.status_code == 200, answer.text
        assert answer.get_json()["object"] == "list"
        return [job["id"] for job in answer.get_json()["data"]]

    def test_newest_first(self, client, three):
        assert self.ids(client) == three[::-1]

    def test_pages_follow_one_another(self, client, three):
        address, seen = "/v1/jobs?limit=2&label=who:list&state=succeeded", []
        while address:
            page = client.get(address)
            seen += [job["id"] for job in page.get_json()["data"]]
            link = re.fullmatch(r'<([^>]*)>; rel="next"', page.headers.get("Link", ""))
            assert bool(link) == (page.get_json()["next_cursor"] is not None)
            address = link and link[1]
        assert seen == three[::-1]

    @pytest.mark.parametrize(
        ("query", "param"), [({"label": ",".join(["a:b"] * 17)}, "label"), ({"state": "queued,"}, "state")]
    )
    def test_filters_that_cannot_be(self, client, query, param):
        error_message(client.get("/v1/jobs", query_string=query), 400, "invalid_option", param)

    def test_filters(self, client, three, make, tmp_path):
        waits = make(script(until=str(tmp_path / "never")))
        assert self.ids(client, label="n:1") == [three[1]]
        assert self.ids(client, label="n:1,who:list") == [three[1]]
        assert self.ids(client, label="n:1,n:2") == []
        assert self.ids(client, state="succeeded") == three[::-1]
        assert self.ids(client, state="queued,running") == [waits["id"]]
        assert self.ids(client, state="failed, canceled") == []
        assert self.ids(client, created_after=waits["created_at"]) == []
        assert self.ids(client, created_before=waits["created_at"]) == three[::-1]
        assert self.ids(client, created_after="2020-01-01T00:00:00+02:00", limit=1) == [waits["id"]]

    @pytest.mark.parametrize(
        ("name", "value"),
        [("limit", "0"), ("limit", "101"), ("limit", "x"), ("state", "done"), ("state", "queued;running"),
         ("label", "n"), ("label", "a b:c"), ("created_after", "yesterday"), ("created_after", "2026-01-01T00:00:00"),
         ("created_before", "2026-13-01T00:00:00Z"), ("created_before", "79"), ("created_after", "1.7e9"),
         ("cursor", "x" * 600), ("page", "2")],
    )  # fmt: skip
    def test_parameters_that_cannot_be(self, client, name, value):
        message = error_message(
            client.get("/v1/jobs", query_string={name: value}), 400, "invalid_option", name if name != "page" else None
        )
        assert name in message

    @pytest.mark.parametrize("cursor", ["x", "-1", "99999999999999999999", "0; DROP TABLE jobs", "ä", "1.5", "\x00"])
    def test_cursors_that_are_none(self, client, cursor):
        answer = client.get("/v1/jobs", query_string={"cursor": cursor})
        assert answer.status_code == 400, answer.text
        assert "cursor" in answer.get_json()["error"]["message"].lower()


class TestEnds:
    def test_cancel_stops_the_work_and_can_be_repeated(self, client, make, jobs, tmp_path):
        job = make(script(until=str(tmp_path / "never")))
        eventually(lambda: client.get(job["links"]["self"]).get_json()["state"] == "running")
        for _ in range(2):
            answer = client.post(job["links"]["cancel"])
            assert (answer.status_code, answer.get_json()["state"]) == (200, "canceled")
        error_message(client.get(job["links"]["result"]), 410, "job_canceled")
        after = make()
        eventually(lambda: client.get(after["links"]["self"]).get_json()["state"] == "succeeded")

    def test_a_job_that_waits_has_its_place(self, client, make, tmp_path):
        first = make(script(until=str(tmp_path / "go")))
        eventually(lambda: client.get(first["links"]["self"]).get_json()["state"] == "running")
        second, third = make(), make()
        eventually(lambda: client.get(third["links"]["self"]).get_json()["queue_position"] == 2)
        assert client.get(second["links"]["self"]).get_json()["queue_position"] == 1
        assert client.get(first["links"]["self"]).get_json()["queue_position"] is None
        (tmp_path / "go").touch()

    def test_what_has_ended_cannot_be_canceled(self, client, make, done):
        job = make()
        assert done(job["id"]) == "succeeded"
        assert "succeeded" in error_message(client.post(job["links"]["cancel"]), 409, "job_ended")

    def test_delete_leaves_nothing(self, client, make, done, settings, tmp_path):
        ended, running = make(), make(script(until=str(tmp_path / "never")))
        assert done(ended["id"]) == "succeeded"
        for job in (ended, running):
            answer = client.delete(job["links"]["self"])
            assert (answer.status_code, answer.data) == (204, b"")
            assert not (settings.data_dir / "jobs" / job["id"]).exists()
            error_message(client.delete(job["links"]["self"]), 404, "job_not_found")
            error_message(client.get(job["links"]["result"]), 404, "job_not_found")

    def test_there_is_a_log_of_deliveries(self, client, make):
        job = make()
        assert client.get(f"/v1/jobs/{job['id']}/deliveries").get_json() == {"object": "list", "data": []}


class TestWhose:
    def operations(self, app):
        """Each method of each address with the id of a job in it."""
        rules = [rule for rule in app.url_map.iter_rules() if "job_id" in rule.arguments]
        assert len(rules) >= 6
        return [(method, rule.rule) for rule in rules for method in rule.methods - {"OPTIONS"}]

    def test_another_owners_job_is_not_there(self, app, client, make, jobs, monkeypatch):
        job = make()
        monkeypatch.setattr("diarist.api.access.owner", lambda: "somebody")
        for method, rule in self.operations(app):
            answer = client.open(rule.replace("<job_id>", job["id"]), method=method)
            assert answer.status_code == 404, (method, rule)
            if method != "HEAD":
                error_message(answer, 404, "job_not_found")
        assert client.get("/v1/jobs").get_json()["data"] == []
        monkeypatch.undo()
        assert jobs.store.get(job["id"]).state is not JobState.CANCELED

    @pytest.mark.parametrize("job_id", ["x", "A" * 22, "..", "%2e%2e", "a%00b", "%ff", "'; DROP TABLE jobs; --", "🎉"])
    def test_ids_that_were_never_given(self, app, client, job_id):
        for method, rule in self.operations(app):
            answer = client.open(rule.replace("<job_id>", job_id), method=method)
            assert answer.status_code == 404, (method, rule, answer.status_code)
            if method != "HEAD" and ".." not in job_id and "%2e" not in job_id:
                error_message(answer, 404, "job_not_found")

    def test_a_waiting_request_is_no_job(self, app, client, jobs, settings, tmp_path):
        path = settings.temp_dir / "upload"
        path.write_text(script(until=str(tmp_path / "never")))
        from diarist.jobs.model import JobSpec

        job = jobs.submit(path, JobSpec())
        try:
            for method, rule in self.operations(app):
                assert client.open(rule.replace("<job_id>", job.id), method=method).status_code == 404
        finally:
            jobs.delete(job.id)


def test_addresses_below_v1_that_are_not_there(client):
    error_message(client.get("/v1/nothing"), 404, "not_found")
    error_message(client.put("/v1/jobs"), 405, "method_not_allowed")
