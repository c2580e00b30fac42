from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from diarist.errors import Cancelled, ConfigurationError
from diarist.jobs.db.database import Database
from diarist.jobs.db.job_store import SqlJobStore
from diarist.jobs.db.outbox import WEBHOOK, OutboxStore
from diarist.jobs.db.sqlite import open_sqlite
from diarist.jobs.model import Job, JobError, JobKind, JobSpec, JobState, new_job_id
from diarist.jobs.outbox.webhook_delivery import WebhookHandler
from diarist.outbound.webhooks import RETRY_DELAYS_S, secret_for
from diarist.types import Diarization, Span, Transcript, Utterance, Word
from support import documents
from support.job_stores import Clock
from support.loopback_site import NETWORK, Answer, LoopbackSite, serving

MASTER = "a master of webhooks that nobody knows"
TRANSCRIPT = Transcript(
    utterances=(Utterance((Word("confidential", Span(0.0, 1.0), "SPEAKER_00", 1.0, 1.0),)),),
    diarization=Diarization(),
    duration=61.5,
    language="en",
    language_probability=1.0,
    engine="test",
    timings=(),
)


@dataclass
class Bench:
    clock: Clock
    store: SqlJobStore
    outbox: OutboxStore
    handler: WebhookHandler

    def job(self, url: str | None, **spec: object) -> Job:
        asked = JobSpec(kind=JobKind.JOB, request_id="r-1", webhook_url=url, **spec)
        return self.store.create(Job(new_job_id(), JobState.QUEUED, asked, self.clock.now))

    def succeeded(self, url: str | None, **spec: object) -> Job:
        job = self.job(url, **spec)
        self.clock.advance(1)
        assert self.store.claim("w", 30.0, 3).id == job.id
        self.clock.advance(1)
        assert self.store.finish(job.id, "w", TRANSCRIPT)
        return self.store.get(job.id)

    def attempt(self, check: Callable[[], None] = lambda: None) -> str | None:
        """The ID of the task that was run; None if none was due."""
        task = self.outbox.claim("runner", 30.0, (WEBHOOK,))
        if task is not None:
            self.handler.run(task, check)
        return None if task is None else task.id

    def statuses(self, job: Job) -> list[int | None]:
        return [delivery.status for delivery in self.outbox.list_deliveries(job.id)]


@pytest.fixture
def site() -> Iterator[LoopbackSite]:
    with serving() as site:
        yield site


@pytest.fixture
def make_bench(make_settings, tmp_path) -> Iterator[Callable[..., Bench]]:
    databases: list[Database] = []

    def make(delays_s=RETRY_DELAYS_S, **overrides: object) -> Bench:
        settings = make_settings(**{"allowed_networks": NETWORK, **overrides})
        clock = Clock()
        database = Database(open_sqlite(tmp_path / "jobs.sqlite3"), clock)
        databases.append(database)
        store, outbox = SqlJobStore(database), OutboxStore(database)
        return Bench(clock, store, outbox, WebhookHandler(settings, store, outbox, MASTER, delays_s=delays_s))

    yield make
    for database in databases:
        database.close()


@pytest.fixture
def bench(make_bench) -> Bench:
    return make_bench()


def test_the_receiver_hears_of_a_success_in_a_message_that_a_library_trusts(bench, site):
    job = bench.succeeded(site.url("/hook"), owner="anna", labels=(("case", "Zoë 7"),))
    task_id = bench.attempt()
    (asked,) = site.asked
    assert asked.path == "/hook"
    assert asked.headers["webhook-id"] == task_id
    assert asked.headers["content-type"] == "application/json"
    trusted = Webhook(secret_for(MASTER, "anna")).verify(asked.body, asked.headers)
    assert trusted == {
        "type": "job.succeeded",
        "timestamp": "2026-01-31T12:00:02.123456Z",
        "data": {
            "id": job.id,
            "state": "succeeded",
            "created_at": "2026-01-31T12:00:00.123456Z",
            "started_at": "2026-01-31T12:00:01.123456Z",
            "ended_at": "2026-01-31T12:00:02.123456Z",
            "duration": 61.5,
            "labels": {"case": "Zoë 7"},
            "error": None,
            "attempts": 1,
            "links": {"self": f"/v1/jobs/{job.id}", "result": f"/v1/jobs/{job.id}/result"},
        },
    }
    (delivery,) = bench.outbox.list_deliveries(job.id)
    assert (delivery.attempt, delivery.status, delivery.error, delivery.next_at) == (1, 200, None, None)
    assert bench.attempt() is None


def test_each_owner_has_a_secret_of_their_own(bench, site):
    bench.succeeded(site.url(), owner="anna")
    bench.attempt()
    with pytest.raises(Exception, match="signature"):
        Webhook(secret_for(MASTER, "bert")).verify(site.asked[0].body, site.asked[0].headers)


def test_nothing_of_what_was_said_is_sent(bench, site):
    bench.succeeded(site.url(), filename="confidential.mp3")
    bench.attempt()
    assert b"confidential" not in site.asked[0].body


@pytest.mark.parametrize("end", ["failed", "canceled"])
def test_other_ends_are_told_too(bench, site, end):
    job = bench.job(site.url())
    if end == "failed":
        bench.store.claim("w", 30.0, 3)
        bench.store.fail(job.id, "w", JobError("not_audio", "Send audio."))
    else:
        bench.store.cancel(job.id)
    bench.attempt()
    told = json.loads(site.asked[0].body)
    assert told["type"] == f"job.{end}"
    assert told["data"]["state"] == end
    assert told["data"]["error"] == ({"code": "not_audio", "message": "Send audio."} if end == "failed" else None)
    assert told["data"]["links"]["result"] is None
    assert told["data"]["duration"] is None


def test_a_receiver_that_fails_is_tried_again_in_growing_steps_and_then_given_up(bench, site):
    site.plan = [Answer(500), Answer(302, headers={"Location": "http://127.0.0.1/"}), Answer(404)]
    job = bench.succeeded(site.url())
    ids = {bench.attempt()}
    assert RETRY_DELAYS_S == (0, 30, 120, 600, 3_600)
    for number, delay_s in enumerate(RETRY_DELAYS_S[1:], start=1):
        assert bench.outbox.list_deliveries(job.id)[-1].next_at == bench.clock.now + timedelta(seconds=delay_s)
        bench.clock.advance(delay_s - 0.1)
        assert bench.attempt() is None
        assert len(site.asked) == number
        bench.clock.advance(0.2)
        ids.add(bench.attempt())
    bench.clock.advance(100_000)
    assert bench.attempt() is None, "five attempts are all"
    assert bench.statuses(job) == [500, 302, 404, 404, 404]
    assert [delivery.attempt for delivery in bench.outbox.list_deliveries(job.id)] == [1, 2, 3, 4, 5]
    assert bench.outbox.list_deliveries(job.id)[-1].next_at is None
    assert len(ids) == 1
    assert {asked.headers["webhook-id"] for asked in site.asked} == ids
    assert len({asked.body for asked in site.asked}) == 1, "the same message each time"


def test_a_later_attempt_that_is_taken_is_the_last(make_bench, site):
    bench = make_bench(delays_s=(0, 0.0, 0.0))
    site.plan = [Answer(500), Answer(204)]
    job = bench.succeeded(site.url())
    bench.attempt()
    bench.attempt()
    assert bench.attempt() is None
    assert bench.statuses(job) == [500, 204]


def test_a_receiver_that_says_gone_is_not_asked_again(bench, site):
    site.plan = [Answer(410)]
    job = bench.succeeded(site.url())
    bench.attempt()
    bench.clock.advance(100_000)
    assert bench.attempt() is None
    (delivery,) = bench.outbox.list_deliveries(job.id)
    assert (delivery.status, delivery.next_at) == (410, None)


def test_each_attempt_is_stamped_with_its_own_time(make_bench, site, monkeypatch):
    bench = make_bench(delays_s=(0, 0.0))
    site.plan = [Answer(500), Answer()]
    bench.succeeded(site.url())
    monkeypatch.setattr("diarist.outbound.webhooks.time.time", lambda: 1_000.0)
    bench.attempt()
    monkeypatch.setattr("diarist.outbound.webhooks.time.time", lambda: 5_000.9)
    bench.attempt()
    assert [asked.headers["webhook-timestamp"] for asked in site.asked] == ["1000", "5000"]


def test_no_private_network_is_told(make_bench, site):
    bench = make_bench(allowed_networks="")
    job = bench.succeeded(site.url())
    bench.attempt()
    assert site.asked == []
    (delivery,) = bench.outbox.list_deliveries(job.id)
    assert delivery.status is None
    assert "not public" in delivery.error
    assert delivery.next_at is not None


def test_a_receiver_that_hangs_is_left_after_its_time(make_bench, site):
    bench = make_bench(webhook_timeout_s=0.3)
    site.plan = [Answer(gate=threading.Event(), silent=True)]
    job = bench.succeeded(site.url())
    bench.attempt()
    (delivery,) = bench.outbox.list_deliveries(job.id)
    assert delivery.status is None
    assert delivery.error
    assert delivery.took_s >= 0.3
    assert delivery.next_at is not None


def test_whoever_runs_it_can_stop_it(make_bench, site):
    bench = make_bench(webhook_timeout_s=60.0)
    site.plan = [Answer(gate=threading.Event(), silent=True)]
    job = bench.succeeded(site.url())

    def stop() -> None:
        raise Cancelled("The service is stopping.")

    with pytest.raises(Cancelled):
        bench.attempt(stop)
    assert len(site.asked) == 1
    assert bench.outbox.list_deliveries(job.id) == ()


@pytest.mark.parametrize("how", ["deleted", "without"])
def test_nothing_is_sent_where_nobody_is_to_be_told(bench, site, how):
    job = bench.succeeded(site.url())
    task = bench.outbox.claim("runner", 30.0, (WEBHOOK,))
    with bench.store.database.writing() as connection:
        statement = "DELETE FROM jobs" if how == "deleted" else "UPDATE jobs SET webhook_url = NULL"
        connection.exec_driver_sql(statement)
    bench.handler.run(task, lambda: None)
    assert site.asked == []
    assert bench.outbox.complete(task) is False, "it is done"
    assert bench.outbox.list_deliveries(job.id) == ()


def test_a_fault_that_nobody_thought_of_is_kept_and_tried_again(bench):
    job = bench.succeeded("https://example.com/")
    task = bench.outbox.claim("runner", 30.0, (WEBHOOK,))
    bench.handler.failed(task, RuntimeError("a secret path"))
    (delivery,) = bench.outbox.list_deliveries(job.id)
    assert delivery.next_at is not None
    assert "secret" not in delivery.error
    bench.clock.advance(3_600)
    bench.handler.failed(bench.outbox.claim("runner", 30.0, (WEBHOOK,)), RuntimeError(), last=True)
    assert bench.outbox.list_deliveries(job.id)[-1].next_at is None


def test_the_log_names_the_host_alone(bench, site, caplog):
    bench.succeeded(site.url("/a-secret-path?token=hidden"))
    with caplog.at_level(logging.DEBUG, logger="diarist"):
        bench.attempt()
    assert "Webhook accepted by 127.0.0.1" in caplog.text
    assert "secret-path" not in caplog.text
    assert "hidden" not in caplog.text


def test_a_master_that_is_too_short_is_told_at_the_start(make_settings, bench):
    with pytest.raises(ConfigurationError, match="WEBHOOK_SECRET"):
        WebhookHandler(make_settings(), bench.store, bench.outbox, "short")


PAGE = Path(__file__).parents[4] / "docs" / "webhooks.md"


@pytest.fixture
def shown(monkeypatch) -> list[dict[str, Any]]:
    """What each block of Python in the documentation defines."""
    monkeypatch.setenv("DIARIST_WEBHOOK_SECRET", secret_for(MASTER, "anna"))
    names: list[dict[str, Any]] = []
    for block in documents.blocks(PAGE.read_text("utf-8")):
        if block.language == "python":
            names.append({"__name__": "shown"})
            exec(compile(block.text, f"{PAGE}:{block.line}", "exec"), names[-1])
    return names


def test_the_receiver_in_the_documentation_receives(bench, shown, capsys):
    with ThreadingHTTPServer(("127.0.0.1", 0), shown[0]["Receiver"]) as server:
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/"
            job, foreign = bench.succeeded(url, owner="anna"), bench.succeeded(url, owner="bert")
            bench.attempt()
            bench.attempt()
            assert bench.outbox.redeliver(job.id)
            bench.attempt()
        finally:
            server.shutdown()
            thread.join()
    assert bench.statuses(job) == [204, 204]
    assert bench.statuses(foreign) == [401]
    assert capsys.readouterr().out == f"job.succeeded {job.id}\n", "once, although it came twice"


def test_the_check_by_hand_in_the_documentation_checks(bench, site, shown, monkeypatch):
    is_genuine = shown[1]["is_genuine"]
    bench.succeeded(site.url(), owner="anna")
    bench.attempt()
    headers, body, secret = site.asked[0].headers, site.asked[0].body, secret_for(MASTER, "anna")
    assert is_genuine(secret, headers, body)
    assert not is_genuine(secret_for(MASTER, "bert"), headers, body)
    assert not is_genuine(secret, headers, body + b" ")
    assert not is_genuine(secret, {**headers, "webhook-id": "another"}, body)
    assert not is_genuine(secret, {}, body)
    assert not is_genuine(secret, {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) - 1)}, body)
    now = time.time()
    for replayed_s in (301, -302):
        monkeypatch.setattr("time.time", lambda replayed_s=replayed_s: now + replayed_s)
        assert not is_genuine(secret, headers, body)


def test_the_message_in_the_documentation_is_like_those_that_are_sent(bench, site):
    bench.succeeded(site.url(), labels=(("case", "7"),))
    bench.attempt()
    (shown,) = (each for each in documents.blocks(PAGE.read_text("utf-8")) if each.language == "json")
    assert _kinds(json.loads(shown.text)) == _kinds(json.loads(site.asked[0].body))


def _kinds(value: object) -> object:
    return {name: _kinds(each) for name, each in value.items()} if isinstance(value, dict) else type(value)
