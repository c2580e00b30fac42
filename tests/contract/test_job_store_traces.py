"""The contract of ``JobStore``: events, utterances, pages, tasks, and metrics; deleted jobs leave no rows."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Table, insert, select

from diarist.errors import InvalidOption, JobNotFound
from diarist.jobs.db import metrics_storage, schema, transitions
from diarist.jobs.db.job_store import SqlJobStore
from diarist.jobs.db.outbox import WEBHOOK
from diarist.jobs.model import JobError, JobFilter, JobKind, JobState, WorkerReport
from diarist.types import ModelInfo
from support.job_stores import (
    ATTEMPTS,
    LEASE_S,
    START,
    TRANSCRIPT,
    StoreLocation,
    job_count,
    metric_counts,
    new_job,
    recorded_states,
    rows_naming,
    tasks_of,
    utterance,
)

HOOK = "https://example.com/hook"


def texts(store: SqlJobStore, job_id: str) -> list[tuple[int, str]]:
    found = (event for event in store.list_events(job_id) if event.utterance is not None)
    return [(event.index, event.utterance.text) for event in found]


def numbers(store: SqlJobStore, job_id: str) -> list[int]:
    return [event.number for event in store.list_events(job_id)]


@pytest.fixture
def running(store):
    """A job that worker ``w`` holds."""
    job = store.create(new_job())
    store.claim("w", LEASE_S, ATTEMPTS)
    return job.id


class TestUtterances:
    def test_what_is_final_is_kept_once_over_two_attempts(self, store, running, clock):
        assert store.finalize(running, "w", 0, [utterance("one"), utterance("two")]) is True
        clock.advance(LEASE_S + 1)
        assert store.claim("v", LEASE_S, ATTEMPTS).id == running
        assert store.finalize(running, "v", 0, [utterance("one")]) is True
        assert store.finalize(running, "v", 1, [utterance("two"), utterance("three")]) is True
        assert store.finalize(running, "v", 3, []) is True
        assert texts(store, running) == [(0, "one"), (1, "two"), (2, "three")]
        assert store.get(running).finalized == 3
        assert numbers(store, running) == list(range(1, 8))
        assert recorded_states(store, running) == ["queued", "running", "queued", "running"]

    def test_only_of_the_worker_that_holds_the_job(self, store, running):
        assert store.finalize(running, "v", 0, [utterance("stolen")]) is False
        store.cancel(running)
        assert store.finalize(running, "w", 0, [utterance("late")]) is False
        store.delete(running)
        assert store.finalize(running, "w", 0, [utterance("later")]) is False
        assert texts(store, running) == []

    def test_of_a_request_nothing_is_kept_for_nobody_listens(self, store):
        request = store.create(new_job(kind=JobKind.REQUEST))
        store.claim("w", LEASE_S, ATTEMPTS)
        assert store.finalize(request.id, "w", 0, [utterance("one")]) is True
        store.finish(request.id, "w", TRANSCRIPT)
        assert store.list_events(request.id) == ()

    def test_they_come_back_as_they_were_given(self, store, running):
        store.finalize(running, "w", 0, TRANSCRIPT.utterances)
        assert tuple(event.utterance for event in store.list_events(running, 2)) == TRANSCRIPT.utterances


class TestEvents:
    def test_they_go_on_from_a_number_and_in_chunks(self, store, running, clock):
        clock.advance(2)
        store.finalize(running, "w", 0, [utterance(f"u{number}") for number in range(7)])
        store.finish(running, "w", TRANSCRIPT)
        assert numbers(store, running) == list(range(1, 11))
        assert [event.number for event in store.list_events(running, 4)] == [5, 6, 7, 8, 9, 10]
        assert [event.number for event in store.list_events(running, 4, 3)] == [5, 6, 7]
        assert store.list_events(running, 10) == store.list_events("nowhere") == ()
        assert store.list_events(running)[0].at == START
        assert (store.list_events(running)[-1].state, store.list_events(running)[-1].at) == (
            JobState.SUCCEEDED,
            clock.now,
        )

    def test_numbers_have_no_holes_whoever_writes_at_once(self, store):
        """One thread finalizes utterances of a job while others renew and cancel it and list its events."""
        job = store.create(new_job())
        store.claim("w", LEASE_S, ATTEMPTS)
        barrier = threading.Barrier(5)

        def finalize(step: int) -> None:
            barrier.wait(20)
            for index in range(12):
                store.finalize(job.id, "w", 0, [utterance(str(each)) for each in range(index + 1)])
                if step == 3 and index == 8:
                    store.cancel(job.id)

        def renew(_: int) -> None:
            barrier.wait(20)
            for step in range(12):
                store.renew(job.id, "w", LEASE_S, "recognition", step / 12)

        with ThreadPoolExecutor(5) as pool:
            for future in [pool.submit(finalize, number) for number in range(4)] + [pool.submit(renew, 0)]:
                future.result(60)
        assert store.get(job.id).state is JobState.CANCELED
        kept = store.get(job.id).finalized
        assert kept >= 9
        assert texts(store, job.id) == [(index, str(index)) for index in range(kept)]
        assert numbers(store, job.id) == list(range(1, kept + 4))
        assert recorded_states(store, job.id) == ["queued", "running", "canceled"]

    def test_one_end_alone_is_told_whoever_ends_it_at_once(self, store):
        for _ in range(5):
            job = store.create(new_job(webhook_url=HOOK))
            store.claim("w", LEASE_S, ATTEMPTS)
            barrier = threading.Barrier(3)
            ends = (
                lambda job=job: store.finish(job.id, "w", TRANSCRIPT),
                lambda job=job: store.cancel(job.id),
                lambda job=job: store.fail(job.id, "w", JobError("not_audio", "No.")),
            )
            with ThreadPoolExecutor(3) as pool:
                for future in [pool.submit(lambda end=end, b=barrier: (b.wait(20), end())) for end in ends]:
                    future.result(60)
            told = recorded_states(store, job.id)
            assert len(told) == 3, told
            assert told[-1] == store.get(job.id).state.value
            assert tasks_of(store, job.id) == [(WEBHOOK, f'{{"event": "job.{told[-1]}"}}')]


class TestOutboxTasks:
    def test_whoever_asked_is_told_of_the_end_once(self, store, running, clock):
        job = store.create(new_job(webhook_url=HOOK))
        assert tasks_of(store, job.id) == []
        store.claim("w", LEASE_S, ATTEMPTS)
        store.requeue(job.id, "w")
        store.claim("w", LEASE_S, ATTEMPTS)
        assert tasks_of(store, job.id) == []
        assert store.finish(job.id, "w", TRANSCRIPT) is True
        for end in (
            lambda: store.finish(job.id, "w", TRANSCRIPT),
            lambda: store.fail(job.id, "w", JobError("not_audio", "No.")),
            lambda: store.cancel(job.id),
            lambda: store.release("w", 1),
        ):
            end()
        assert tasks_of(store, job.id) == [(WEBHOOK, '{"event": "job.succeeded"}')]
        assert tasks_of(store, running) == []

    def test_also_of_a_job_that_took_its_workers_down(self, store, clock):
        job = store.create(new_job(webhook_url=HOOK))
        store.claim("w", LEASE_S, 1)
        clock.advance(LEASE_S + 1)
        assert store.claim("v", LEASE_S, 1) is None
        assert tasks_of(store, job.id) == [(WEBHOOK, '{"event": "job.failed"}')]


class TestPages:
    def ids(self, page) -> list[str]:
        return [job.id for job in page.jobs]

    def test_newest_first_with_no_job_twice_or_lost_where_times_are_equal(self, store):
        jobs = [store.create(new_job(created_at=START + timedelta(seconds=n // 4))).id for n in range(11)]
        store.create(new_job(kind=JobKind.REQUEST))
        whole = self.ids(store.list_jobs(JobFilter(), 100))
        assert sorted(whole) == sorted(jobs)
        assert [jobs.index(each) // 4 for each in whole] == [2] * 3 + [1] * 4 + [0] * 4
        found, cursor = [], None
        while True:
            page = store.list_jobs(JobFilter(), 3, cursor)
            assert len(page.jobs) <= 3
            found += self.ids(page)
            cursor = page.cursor
            if cursor is None:
                break
        assert found == whole
        assert store.list_jobs(JobFilter(), 11).cursor is None

    def test_a_page_goes_on_where_jobs_were_deleted_or_came(self, store):
        for number in range(6):
            store.create(new_job(created_at=START + timedelta(seconds=number // 2)))
        whole = self.ids(store.list_jobs(JobFilter(), 100))
        first = store.list_jobs(JobFilter(), 3)
        store.delete(whole[2])
        store.delete(whole[3])
        store.create(new_job(created_at=START + timedelta(minutes=1)))
        assert self.ids(store.list_jobs(JobFilter(), 100, first.cursor)) == whole[4:]

    def test_filters(self, store):
        a = store.create(new_job(owner="a", labels=(("team", "sales"), ("week", "1")))).id
        b = store.create(new_job(owner="b", labels=(("team", "sales"),))).id
        c = store.create(new_job(owner="a", labels=(("week", "sales"),), created_at=START + timedelta(hours=1))).id
        store.cancel(b)
        for wanted, found in (
            (JobFilter(), {a, b, c}),
            (JobFilter(owner="a"), {a, c}),
            (JobFilter(owner=""), set()),
            (JobFilter(states=(JobState.CANCELED, JobState.RUNNING)), {b}),
            (JobFilter(labels=(("team", "sales"),)), {a, b}),
            (JobFilter(labels=(("team", "sales"), ("week", "1"))), {a}),
            (JobFilter(labels=(("team", "1"),)), set()),
            (JobFilter(created_after=START), {c}),
            (JobFilter(created_before=START + timedelta(hours=1)), {a, b}),
            (JobFilter(owner="a", labels=(("team", "sales"),), created_before=START), set()),
        ):
            assert set(self.ids(store.list_jobs(wanted, 100))) == found, wanted
        assert store.list_jobs(JobFilter(owner="a"), 1).jobs[0].spec.labels == (("week", "sales"),)
        assert store.get(a).spec.labels == (("team", "sales"), ("week", "1"))

    @pytest.mark.parametrize(
        "cursor", ["", "x", "ÿ", "bm9uZQ", "aW5mIGE", "bmFuIGE", "MSAA", "MSBhAGI", "=", "A" * 9_999, "\0"]
    )
    def test_a_cursor_that_is_none(self, store, cursor):
        with pytest.raises(InvalidOption, match="next_cursor"):
            store.list_jobs(JobFilter(), 10, cursor)


class TestDeletion:
    def test_no_row_of_any_table_names_the_job(self, store, clock):
        job = store.create(
            new_job(
                webhook_url=HOOK, source_url=HOOK, labels=(("a", "b"),), owner="a", idempotency_key="k", fingerprint="f"
            )
        )
        store.claim("w", LEASE_S, ATTEMPTS)
        store.finalize(job.id, "w", 0, TRANSCRIPT.utterances)
        store.finish(job.id, "w", TRANSCRIPT)
        with store.database.writing() as connection:
            connection.execute(
                insert(schema.deliveries).values(
                    job_id=job.id, task_id="e", attempt=1, at=clock.now, status=200, took_s=0.1
                )
            )
            connection.execute(insert(schema.chunks).values(some_row(schema.chunks, job.id)))
        own = {"jobs", "labels", "transcripts", "events", "outbox_tasks", "deliveries", "chunks"}
        foreign = {table.name for table in schema.metadata.sorted_tables if "job_id" in table.columns}
        assert rows_naming(store, job.id).keys() == own == {"jobs", *foreign}
        other = store.create(new_job(webhook_url=HOOK, labels=(("a", "b"),)))
        store.delete(job.id)
        assert rows_naming(store, job.id) == {}
        assert rows_naming(store, other.id).keys() == {"jobs", "labels", "events"}

    def test_no_task_is_left_of_a_job_that_ends_while_it_is_deleted(self, store, place):
        if place.kind == "sqlite":
            pytest.skip("SQLite has one writer at a time")
        job = store.create(new_job(webhook_url=HOOK))
        with ThreadPoolExecutor(1) as pool:
            with store.database.writing() as connection:
                moment = store.database.now(connection)
                transitions.apply_transition(connection, moment, transitions.CANCEL, schema.jobs.c.id == job.id)
                deleting = pool.submit(store.delete, job.id)
                waits_for_a_lock(store)
            deleting.result(20)
        assert rows_naming(store, job.id) == {}

    def test_ids_that_no_job_can_have(self, store):
        for job_id in ("", "a\0b", "\ud800", "x" * 10_000, "'; DROP TABLE jobs; --"):
            with pytest.raises(JobNotFound):
                store.get(job_id)

    def test_what_ended_before_is_found_by_its_end(self, store, clock):
        first, second, third = (store.create(new_job()).id for _ in range(3))
        store.cancel(second)
        clock.advance(10)
        store.cancel(first)
        assert store.list_ended_before(clock.now) == (second,)
        clock.advance(1)
        assert store.list_ended_before(clock.now) == (first, second)
        everyone = {first, second, third, "of nobody"}
        assert store.filter_existing(everyone) == {first, second, third}
        assert store.filter_existing(everyone, ended=True) == {first, second}
        assert [job.id for job in store.list_unfinished()] == [third]


class TestMetrics:
    def test_ends_waits_and_stages_are_counted(self, store, clock):
        done, refused, canceled, lost = (store.create(new_job()).id for _ in range(4))
        clock.advance(5)
        store.claim("w", LEASE_S, ATTEMPTS)
        store.finish(done, "w", replace(TRANSCRIPT, duration=60.0))
        store.claim("w", LEASE_S, ATTEMPTS)
        store.fail(refused, "w", JobError("not_audio", "No."))
        store.cancel(canceled)
        for _ in range(ATTEMPTS):
            store.claim("w", LEASE_S, ATTEMPTS)
            store.release("w", ATTEMPTS)
        assert store.get(lost).state is JobState.FAILED
        assert metric_counts(store) == {
            (metrics_storage.JOBS_ENDED, ("succeeded",)): 1.0,
            (metrics_storage.JOBS_ENDED, ("failed",)): 2.0,
            (metrics_storage.JOBS_ENDED, ("canceled",)): 1.0,
            # The first attempt of each: what comes again has waited before.
            (metrics_storage.JOB_WAIT_SECONDS, ()): 3.0,
            (metrics_storage.STAGE_SECONDS, ("decode",)): 1.0,
            (metrics_storage.STAGE_SECONDS, ("diarization",)): 1.0,
            (metrics_storage.REAL_TIME_FACTOR, ()): 1.0,
        }

    def test_what_others_count(self, store):
        for _ in range(3):
            store.increment_metric(metrics_storage.WORKER_RESTARTS)
        store.observe_metric(metrics_storage.MODEL_LOAD_SECONDS, 2.5)
        assert metric_counts(store) == {
            (metrics_storage.WORKER_RESTARTS, ()): 3.0,
            (metrics_storage.MODEL_LOAD_SECONDS, ()): 1.0,
        }

    def test_none_is_lost_where_eight_count_at_once(self, store):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: store.increment_metric(metrics_storage.WORKER_RESTARTS), range(80)))
        assert metric_counts(store) == {(metrics_storage.WORKER_RESTARTS, ()): 80.0}


def test_a_job_and_what_it_was_asked_for_come_back_whole(store):
    job = new_job(
        owner="key-1", kind=JobKind.JOB, queue="gpu", priority=-1, labels=(("a", "ü 東京 \U0001f600"), ("b", "")),
        webhook_url=HOOK, source_url="https://example.com/a?b=c", idempotency_key="k", fingerprint="f",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", ready=False, recording=False,
        size_bytes=0, stage="download",
    )  # fmt: skip
    store.create(job)
    assert store.get(job.id) == job
    assert job_count(store) == 1


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.servers)])
def test_four_who_open_at_once_make_one_store(kind, tmp_path, clock, request):
    address = str(tmp_path) if kind == "sqlite" else request.getfixturevalue("postgres_server").fresh_database()
    place = StoreLocation(kind, address)
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: place.open(clock), range(4)))
    job = opened[0].create(new_job())
    with opened[3].database.reading() as connection:
        assert connection.execute(select(schema.schema_version.c.version)).scalars().all() == [schema.VERSION]
    assert [each.get(job.id).id for each in opened] == [job.id] * 4
    for each in opened:
        each.close()


def test_the_models_of_workers_come_back(store, clock):
    report = WorkerReport(
        "w", 7, "ready", (ModelInfo("campplus", "embedding", "Apache-2.0", "ready"),), ("ü",), clock.now, "cuda:0",
        ("any", "gpu"),
    )  # fmt: skip
    store.save_worker_report(report)
    assert store.list_worker_reports() == (report,)


def some_row(table: Table, job_id: str) -> dict[str, object]:
    """A row with something in each column that must have something."""
    something = {int: 1, str: "x", bytes: b"x", bool: False, float: 0.5}
    needed = (column for column in table.columns if not column.nullable and column.name != "job_id")
    return {column.name: something[column.type.python_type] for column in needed} | {"job_id": job_id}


def waits_for_a_lock(store: SqlJobStore, seconds: float = 10.0) -> None:
    """Until a transaction of this PostgreSQL database waits for another one's."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    deadline = time.monotonic() + seconds
    turn = threading.Event()
    while True:
        with store.database.reading() as connection:
            if connection.exec_driver_sql(waiting).scalar_one():
                return
        assert time.monotonic() < deadline, "nobody waits for a lock"
        turn.wait(0.02)


def test_utterances_that_were_not_settled_before_the_end_are_told_with_it(store):
    job = store.create(new_job())
    store.claim("w", LEASE_S, ATTEMPTS)
    store.finalize(job.id, "w", 0, TRANSCRIPT.utterances[:1])
    store.finish(job.id, "w", TRANSCRIPT)
    events = store.list_events(job.id)
    assert [event.kind for event in events] == ["state", "state", "utterance", "utterance", "state"]
    assert tuple(event.utterance for event in events if event.utterance is not None) == TRANSCRIPT.utterances
    assert store.get(job.id).finalized == 2
