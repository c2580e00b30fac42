"""The contract of ``JobStore``: the order of claims, limits, and jobs whose workers crash."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from diarist.errors import IdempotencyConflict, QueueFull, QuotaExceeded
from diarist.jobs.db import schema
from diarist.jobs.db.api_keys import ApiKeyStore
from diarist.jobs.db.chunks import ChunkStore
from diarist.jobs.db.job_store import SqlJobStore
from diarist.jobs.db.leases import MAX_SERVICE_CRASHES, SERVICE_CRASHES_WITHOUT_DELAY
from diarist.jobs.db.outbox import FETCH, WEBHOOK
from diarist.jobs.model import Job, JobError, JobKind, JobState, Limits
from diarist.protocols import Chunk
from support.job_stores import (
    ATTEMPTS,
    LEASE_S,
    START,
    TRANSCRIPT,
    clear,
    job_count,
    new_job,
    recorded_states,
    tasks_of,
)

HIGH, LOW = 1, -1


def claimed_in_order(store: SqlJobStore, *queues: str, requests_only: bool = False) -> list[str]:
    """Return the IDs of all jobs in the order in which one worker claims them."""
    found: list[str] = []
    while (job := store.claim("w", 3_600.0, ATTEMPTS, queues, requests_only=requests_only)) is not None:
        found.append(job.id)
    return found


def created(store: SqlJobStore, *jobs: Job) -> list[str]:
    return [store.create(job).id for job in jobs]


def at_once(calls: list[Callable[[], object]]) -> list[object]:
    """Return what each call returns or raises, when all of them start together."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> object:
        barrier.wait(20)
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


class TestWhoIsNext:
    def test_callers_who_wait_come_before_every_job_and_the_urgent_before_the_patient(self, store):
        low, normal, high, request = created(
            store, new_job(priority=LOW), new_job(), new_job(priority=HIGH), new_job(kind=JobKind.REQUEST, priority=LOW)
        )
        assert claimed_in_order(store) == [request, high, normal, low]

    def test_one_owner_with_a_hundred_does_not_starve_another_with_one(self, store):
        many = created(store, *(new_job(owner="many") for _ in range(100)))
        (one,) = created(store, new_job(owner="one"))
        assert claimed_in_order(store)[:3] == [many[0], one, many[1]]

    def test_owners_take_turns_and_each_is_served_in_the_order_of_arrival(self, store):
        a = created(store, *(new_job(owner="a") for _ in range(3)))
        b = created(store, *(new_job(owner="b") for _ in range(2)))
        c = created(store, new_job(owner="c"))
        assert claimed_in_order(store) == [a[0], b[0], c[0], a[1], b[1], a[2]]
        # Those who come later stand behind those who have waited since.
        b, a = created(store, new_job(owner="b")), created(store, new_job(owner="a"))
        (d,) = created(store, new_job(owner="d"))
        assert claimed_in_order(store) == [d, *b, *a]

    def test_a_turn_counts_wherever_it_was_had(self, store):
        """An owner whose urgent job was done has had a turn among the others, too."""
        created(store, new_job(owner="a", priority=HIGH))
        a, b = created(store, new_job(owner="a"), new_job(owner="b"))
        assert claimed_in_order(store)[1:] == [b, a]

    def test_a_worker_takes_from_its_queues_alone(self, store):
        anywhere, gpu, nemo = created(store, new_job(), new_job(queue="gpu", priority=HIGH), new_job(queue="nemo"))
        assert claimed_in_order(store, "cpu") == []
        assert claimed_in_order(store, "any", "nemo") == [anywhere, nemo]
        assert claimed_in_order(store) == [gpu]

    def test_requests_alone_where_no_more_is_wanted(self, store):
        job, request = created(store, new_job(priority=HIGH), new_job(kind=JobKind.REQUEST))
        assert claimed_in_order(store, requests_only=True) == [request]
        assert claimed_in_order(store) == [job]

    def test_one_whose_recording_is_not_there_is_passed_over(self, store):
        waits, next_one = created(store, new_job(ready=False), new_job())
        assert claimed_in_order(store) == [next_one]
        assert store.attach_recording(waits, 123, "from-the-url.wav") is True
        assert claimed_in_order(store) == [waits]
        assert (store.get(waits).size_bytes, store.get(waits).spec.filename) == (123, "talk.wav")

    def test_one_that_has_to_wait_is_passed_over_until_its_time(self, store, clock):
        (job,) = created(store, new_job())
        store.claim("w", LEASE_S, ATTEMPTS)
        assert store.retry(job, "w", JobError("storage_full", "No room."), ATTEMPTS, 10.0) is True
        assert store.get(job).not_before == clock.now + timedelta(seconds=10)
        (next_one,) = created(store, new_job())
        assert claimed_in_order(store) == [next_one]
        clock.advance(9.9)
        assert claimed_in_order(store) == []
        clock.advance(0.2)
        assert claimed_in_order(store) == [job]
        assert store.get(job).not_before is None

    def test_one_given_back_need_not_wait_where_the_clock_goes_back(self, store, clock):
        (job,) = created(store, new_job())
        store.claim("w", LEASE_S, ATTEMPTS)
        store.release("w", ATTEMPTS)
        clock.advance(-3_600)
        assert claimed_in_order(store) == [job]

    @pytest.mark.slow
    @settings(
        max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
    )
    @given(
        orders=st.lists(
            st.tuples(st.sampled_from("abc"), st.sampled_from([LOW, 0, HIGH]), st.sampled_from(list(JobKind))),
            min_size=1, max_size=12,
        ),
        before=st.integers(0, 6),
    )  # fmt: skip
    def test_places_in_the_line_are_as_jobs_are_taken(self, store, orders, before):
        clear(store)
        for owner, priority, kind in orders:
            store.create(new_job(owner=owner, priority=priority, kind=kind))
        for _ in range(before):
            store.claim("w", 3_600.0, ATTEMPTS)
        positions = store.queue_positions()
        assert sorted(positions, key=positions.__getitem__) == claimed_in_order(store)
        assert sorted(positions.values()) == list(range(1, len(positions) + 1))
        assert store.queue_positions() == {}

    def test_those_who_still_wait_for_their_recording_have_a_place_too(self, store):
        jobs = created(store, new_job(), new_job(ready=False), new_job())
        assert store.queue_positions() == {job: place for place, job in enumerate(jobs, 1)}


class TestLimits:
    def test_no_more_than_may_be_of_one_owner_and_of_all(self, store):
        created(store, new_job(owner="a"), new_job(kind=JobKind.REQUEST, owner="a"))
        with pytest.raises(QueueFull, match="1 of your jobs"):
            store.create(new_job(owner="a"), Limits(10, 1))
        store.create(new_job(owner="b"), Limits(10, 1))
        with pytest.raises(QueueFull, match="2 jobs"):
            store.create(new_job(owner="c"), Limits(2, 1))
        assert job_count(store) == 3

    def test_what_has_ended_makes_room(self, store):
        limits = Limits(1, 1)
        (first,) = created(store, new_job())
        with pytest.raises(QueueFull):
            store.create(new_job(), limits)
        store.claim("w", LEASE_S, ATTEMPTS)
        with pytest.raises(QueueFull):
            store.create(new_job(), limits)
        store.cancel(first)
        store.create(new_job(), limits)

    def test_eight_who_come_at_once_are_as_many_as_may_be(self, store):
        limits = Limits(all=10, owner=4)

        def come(owner: str) -> Callable[[], object]:
            return lambda: [_tried(lambda: store.create(new_job(owner=owner), limits)) for _ in range(6)]

        tries = at_once([come(owner) for owner in "aabbccdd"])
        results = [each for some in tries for each in some]
        assert all(isinstance(each, Job | QueueFull) for each in results), results
        taken = [each for each in results if isinstance(each, Job)]
        assert len(taken) == job_count(store) == 10
        assert max(Counter(job.spec.owner for job in taken).values()) <= 4


class TestStorageLimit:
    MB = 2**20
    DEFAULT = Limits(100, 100, stored_bytes=3 * MB)

    def test_the_recordings_of_a_key_take_no_more_than_they_may(self, store):
        first = store.create(new_job(owner="a", size_bytes=2 * self.MB), self.DEFAULT)
        store.create(new_job(owner="a", size_bytes=self.MB), self.DEFAULT)
        with pytest.raises(QuotaExceeded, match=r"take 3\.0 of 3 MB"):
            store.create(new_job(owner="a", size_bytes=1), self.DEFAULT)
        with pytest.raises(QuotaExceeded):
            store.check_limits("a", self.DEFAULT)
        store.create(new_job(owner="b", size_bytes=3 * self.MB), self.DEFAULT)
        store.delete(first.id)
        store.check_limits("a", self.DEFAULT, 2 * self.MB)
        store.create(new_job(owner="a", size_bytes=2 * self.MB), self.DEFAULT)

    def test_a_recording_that_was_removed_no_longer_counts(self, store):
        job = store.create(new_job(owner="a", size_bytes=3 * self.MB), self.DEFAULT)
        store.mark_recording_removed(job.id)
        store.create(new_job(owner="a", size_bytes=3 * self.MB), self.DEFAULT)

    def test_the_limit_of_a_key_replaces_that_of_the_settings(self, store):
        key, _ = ApiKeyStore(store.database).create("web", storage_limit_mb=5)
        store.create(new_job(owner=key.id, size_bytes=5 * self.MB), self.DEFAULT)
        with pytest.raises(QuotaExceeded, match="of 5 MB"):
            store.create(new_job(owner=key.id, size_bytes=1), Limits(100, 100))

    def test_there_is_no_limit_unless_one_is_set_or_without_keys(self, store):
        for owner, limits in (("a", Limits(100, 100)), ("", self.DEFAULT)):
            store.create(new_job(owner=owner, size_bytes=2**50), limits)

    def test_a_download_counts_when_it_is_stored(self, store):
        jobs = [
            store.create(new_job(owner="a", ready=False, recording=False, size_bytes=0), self.DEFAULT) for _ in "ab"
        ]
        assert store.attach_recording(jobs[0].id, 2 * self.MB, "a.wav", self.DEFAULT.stored_bytes)
        with pytest.raises(QuotaExceeded):
            store.attach_recording(jobs[1].id, 2 * self.MB, "b.wav", self.DEFAULT.stored_bytes)
        assert not store.get(jobs[1].id).recording

    def test_a_request_that_repeats_an_earlier_one_is_that_job(self, store):
        first = store.create(new_job(**ORDER, size_bytes=3 * self.MB), self.DEFAULT)
        assert store.create(new_job(**ORDER, size_bytes=3 * self.MB), self.DEFAULT).id == first.id

    def test_eight_who_come_at_once_take_no_more(self, store):
        def come() -> object:
            return _tried(lambda: store.create(new_job(owner="a", size_bytes=self.MB), self.DEFAULT))

        results = at_once([come] * 8)
        assert sum(isinstance(each, Job) for each in results) == 3


ORDER: Mapping[str, str] = {"owner": "a", "idempotency_key": "k-1", "fingerprint": "f"}


class TestIdempotency:
    def test_the_same_order_again_is_the_first_job(self, store, clock):
        first = store.create(new_job(**ORDER, labels=(("a", "b"),)))
        clock.advance(60)
        again = store.create(new_job(**ORDER), Limits(1, 1))
        assert again == store.get(first.id) == store.find_by_idempotency_key("a", "k-1")
        assert job_count(store) == 1
        store.cancel(first.id)
        assert store.create(new_job(**ORDER)).state is JobState.CANCELED

    def test_another_order_under_the_same_key_is_refused(self, store):
        store.create(new_job(**ORDER))
        with pytest.raises(IdempotencyConflict, match="new key"):
            store.create(new_job(**{**ORDER, "fingerprint": "g"}))
        assert job_count(store) == 1

    def test_keys_are_their_owners(self, store):
        first = store.create(new_job(**ORDER))
        other = store.create(new_job(**{**ORDER, "owner": "b", "fingerprint": "g"}))
        assert first.id != other.id
        assert store.find_by_idempotency_key("c", "k-1") is None

    def test_a_key_is_free_again_when_its_job_is_deleted(self, store):
        first = store.create(new_job(**ORDER))
        store.delete(first.id)
        assert store.find_by_idempotency_key("a", "k-1") is None
        assert store.create(new_job(**{**ORDER, "fingerprint": "g"})).id != first.id

    def test_eight_who_send_the_same_at_once_get_one_job(self, store):
        results = at_once([lambda: store.create(new_job(**ORDER), Limits(5, 5))] * 8)
        assert {getattr(result, "id", result) for result in results} == {store.find_by_idempotency_key("a", "k-1").id}
        assert job_count(store) == 1

    def test_eight_who_send_different_things_at_once_under_one_key_get_one_job(self, store):
        orders = [{**ORDER, "fingerprint": f"f-{number}"} for number in range(8)]
        results = at_once([lambda order=order: store.create(new_job(**order)) for order in orders])
        assert sorted(type(result).__name__ for result in results) == ["IdempotencyConflict"] * 7 + ["Job"]


class TestRecordings:
    def test_a_recording_to_be_fetched_is_an_task_from_the_beginning(self, store):
        job = store.create(new_job(source_url="https://example.com/a.mp3", ready=False, recording=False, filename=""))
        assert [kind for kind, _ in tasks_of(store, job.id)] == [FETCH]
        assert store.attach_recording(job.id, 77, "a.mp3") is True
        there = store.get(job.id)
        assert (there.ready, there.recording, there.size_bytes, there.spec.filename) == (True, True, 77, "a.mp3")
        assert (there.stage, there.state) == ("queued", JobState.QUEUED)

    def test_nobody_waits_for_one_that_is_canceled_or_gone(self, store):
        canceled, deleted = created(store, new_job(ready=False), new_job(ready=False))
        store.cancel(canceled)
        store.delete(deleted)
        for job in (canceled, deleted, "nowhere"):
            assert store.attach_recording(job, 1, "a") is False
            assert store.reject(job, JobError("url_unusable", "No.")) is False
        assert store.get(canceled).state is JobState.CANCELED
        assert claimed_in_order(store) == []

    def test_one_that_cannot_be_had_fails_its_job(self, store, clock):
        job = store.create(new_job(ready=False, webhook_url="https://example.com/hook"))
        clock.advance(3)
        assert store.reject(job.id, JobError("url_unusable", "It answers 404.")) is True
        failed = store.get(job.id)
        assert (failed.state, failed.error) == (JobState.FAILED, JobError("url_unusable", "It answers 404."))
        assert failed.ended_at == clock.now
        assert recorded_states(store, job.id) == ["queued", "failed"]
        assert [kind for kind, _ in tasks_of(store, job.id)] == [WEBHOOK]
        assert store.reject(job.id, JobError("url_unusable", "Again.")) is False

    def test_what_was_removed_is_noted(self, store, clock):
        (job,) = created(store, new_job())
        store.cancel(job)
        clock.advance(10)
        assert store.list_ended_before(clock.now, with_recording=True) == (job,)
        store.mark_recording_removed(job)
        assert store.get(job).recording is False
        assert store.list_ended_before(clock.now, with_recording=True) == ()
        assert store.list_ended_before(clock.now) == (job,)


class TestFaults:
    def test_three_crashes_fail_a_job_with_a_message(self, store):
        (job,) = created(store, new_job())
        for crash in range(1, ATTEMPTS + 1):
            assert store.claim(f"w{crash}", LEASE_S, ATTEMPTS) is not None
            assert store.release(f"w{crash}", ATTEMPTS) == (job,)
            assert store.get(job).worker_crashes == crash
        failed = store.get(job)
        assert (failed.state, failed.error.code) == (JobState.FAILED, "job_failed")
        assert "crashed 3 times" in failed.error.message
        assert "log" in failed.error.message

    def test_a_service_that_crashes_fails_a_job_only_after_many_times(self, store, clock):
        (job,) = created(store, new_job())
        for times in range(1, MAX_SERVICE_CRASHES + 1):
            assert store.claim("w", LEASE_S, ATTEMPTS) is not None, times
            assert store.release("w", ATTEMPTS, service_crash=True) == (job,)
            back = store.get(job)
            assert (back.worker_crashes, back.service_crashes) == (0, times)
            if SERVICE_CRASHES_WITHOUT_DELAY < times < MAX_SERVICE_CRASHES:
                assert store.claim("w", LEASE_S, ATTEMPTS) is None, "others come first"
            clock.advance(60.1)
        assert back.state is JobState.FAILED
        assert f"{MAX_SERVICE_CRASHES} times" in back.error.message

    def test_crashes_of_workers_and_of_the_service_are_counted_separately(self, store, clock):
        (job,) = created(store, new_job())
        for service_crash in (False, True, False, True):
            assert store.claim("w", LEASE_S, ATTEMPTS) is not None
            store.release("w", ATTEMPTS, service_crash=service_crash)
        assert (store.get(job).state, store.get(job).worker_crashes, store.get(job).service_crashes) == (
            JobState.QUEUED,
            2,
            2,
        )

    def test_attempts_are_tried_again_and_the_last_one_fails_with_what_went_wrong(self, store, clock):
        (job,) = created(store, new_job())
        fault = JobError("storage_full", "No room.")
        for attempt in range(1, ATTEMPTS):
            assert store.claim("w", LEASE_S, ATTEMPTS).attempts == attempt
            assert store.retry(job, "w", fault, ATTEMPTS, 30.0) is True
            assert (store.get(job).state, store.get(job).error) == (JobState.QUEUED, None)
            clock.advance(30.1)
        store.claim("w", LEASE_S, ATTEMPTS)
        assert store.retry(job, "w", fault, ATTEMPTS, 30.0) is True
        assert (store.get(job).state, store.get(job).error) == (JobState.FAILED, fault)
        assert store.retry(job, "w", fault, ATTEMPTS, 30.0) is False

    def test_a_request_is_not_tried_again(self, store):
        (request,) = created(store, new_job(kind=JobKind.REQUEST))
        store.claim("w", LEASE_S, ATTEMPTS)
        assert store.retry(request, "w", JobError("storage_full", "No room."), ATTEMPTS, 30.0) is True
        assert store.get(request).state is JobState.FAILED

    def test_another_worker_cannot_have_it_tried_again(self, store):
        (job,) = created(store, new_job())
        store.claim("w", LEASE_S, ATTEMPTS)
        assert store.retry(job, "v", JobError("storage_full", "No room."), ATTEMPTS, 30.0) is False
        assert store.get(job).worker == "w"

    def test_a_job_handed_back_is_not_charged_however_often(self, store):
        (job,) = created(store, new_job())
        for _ in range(2 * ATTEMPTS):
            assert store.claim("w", LEASE_S, ATTEMPTS).attempts == 1
            assert store.requeue(job, "w") is True
        assert store.get(job).attempts == store.get(job).worker_crashes == 0

    def test_claiming_gives_back_what_the_dead_held_first(self, store, clock):
        jobs = created(store, new_job(), new_job())
        for job in jobs:
            assert store.claim(f"dead-{job}", LEASE_S, ATTEMPTS).id == job
        clock.advance(LEASE_S + 1)
        taken = store.claim("w", LEASE_S, ATTEMPTS)
        assert (taken.id, taken.worker_crashes, taken.attempts) == (jobs[0], 1, 2)
        assert (store.get(jobs[1]).state, store.get(jobs[1]).worker_crashes) == (JobState.QUEUED, 1)


class TestWhoIsThere:
    def test_requests_whose_callers_have_gone(self, store, clock):
        soon = clock.now + timedelta(seconds=60)
        attended, gone, job = created(
            store,
            new_job(kind=JobKind.REQUEST, caller_lease_until=soon),
            new_job(kind=JobKind.REQUEST, caller_lease_until=soon),
            new_job(),
        )
        clock.advance(30)
        assert store.list_abandoned_requests() == ()
        store.extend_caller_lease(attended, 60.0)
        clock.advance(31)
        assert store.list_abandoned_requests() == (gone,)
        store.cancel(gone)
        assert store.list_abandoned_requests() == (gone,), "one that has ended has to go as well"
        clock.advance(60)
        assert set(store.list_abandoned_requests()) == {attended, gone}
        assert store.get(job).state is JobState.QUEUED

    def test_counts_by_state_and_kind(self, store):
        created(store, *(new_job() for _ in range(4)), new_job(kind=JobKind.REQUEST))
        assert store.claim("w", LEASE_S, ATTEMPTS).spec.kind is JobKind.REQUEST
        done = store.claim("w", LEASE_S, ATTEMPTS)
        store.finish(done.id, "w", TRANSCRIPT)
        store.cancel(store.claim("w", LEASE_S, ATTEMPTS).id)
        store.fail(store.claim("w", LEASE_S, ATTEMPTS).id, "w", JobError("not_audio", "No."))
        assert store.count_by_state() == {
            JobState.QUEUED: 1, JobState.RUNNING: 1, JobState.SUCCEEDED: 1, JobState.FAILED: 1, JobState.CANCELED: 1,
        }  # fmt: skip
        assert [sum(store.count_unfinished(kind).values()) for kind in (JobKind.JOB, JobKind.REQUEST)] == [1, 1]


def _tried(call: Callable[[], Job]) -> Job | QueueFull:
    try:
        return call()
    except QueueFull as error:
        return error


def test_who_looks_for_a_request_in_the_middle_of_a_job_does_not_take_itself_for_dead(store, clock):
    """After the machine slept, or the store was away, for longer than the lease."""
    (job_id,) = created(store, new_job())
    store.claim("w", LEASE_S, ATTEMPTS)
    clock.advance(LEASE_S + 1)
    assert store.claim("w", LEASE_S, ATTEMPTS, requests_only=True) is None
    assert store.renew(job_id, "w", LEASE_S, "recognition", 0.5) is True
    clock.advance(LEASE_S + 1)
    assert store.claim("another", LEASE_S, ATTEMPTS, requests_only=True) is None
    assert (store.get(job_id).state, store.get(job_id).worker_crashes) == (JobState.QUEUED, 1)


def test_crashes_use_up_no_retries(store, clock):
    """Each of them is counted by itself: workers, the service, and faults."""
    (job_id,) = created(store, new_job())
    for number in range(ATTEMPTS + 2):
        assert store.claim(f"w{number}", LEASE_S, ATTEMPTS).id == job_id
        store.release(f"w{number}", ATTEMPTS, service_crash=number > 0)
        clock.advance(100)
    fault = JobError("media_unavailable", "Away.")
    for _ in range(ATTEMPTS - 1):
        assert store.claim("w", LEASE_S, ATTEMPTS).id == job_id
        assert store.retry(job_id, "w", fault, ATTEMPTS, 0.0)
        assert store.get(job_id).state is JobState.QUEUED
    assert store.claim("w", LEASE_S, ATTEMPTS).id == job_id
    assert store.retry(job_id, "w", fault, ATTEMPTS, 0.0)
    assert (store.get(job_id).state, store.get(job_id).error) == (JobState.FAILED, fault)


def test_a_job_whose_recording_is_there_is_refused_by_nobody(store):
    (job_id,) = created(store, new_job(ready=False, recording=False))
    assert store.attach_recording(job_id, 7, "a.wav")
    assert store.reject(job_id, JobError("url_unreachable", "Away.")) is False
    assert store.get(job_id).state is JobState.QUEUED


def test_as_many_jobs_as_there_are_can_be_asked_for_at_once(store, monkeypatch):
    monkeypatch.setattr("diarist.jobs.db.rows.MAX_IDS_PER_QUERY", 2)
    ids = created(store, *(new_job(labels=(("number", str(number)),)) for number in range(5)))
    assert [job.spec.labels for job in store.list_unfinished()] == [(("number", str(number)),) for number in range(5)]
    assert store.filter_existing([*ids, "of nobody"]) == frozenset(ids)
    assert store.filter_existing(ids, ended=True) == frozenset()
    assert store.list_requests() == ()


def test_whoever_has_as_many_as_may_be_is_told_so_before_sending_more(store):
    created(store, new_job(owner="a"), new_job(owner="a"), new_job(owner="b"))
    store.check_limits("a", Limits(all=4, owner=3))
    for owner, limits in (("a", Limits(all=9, owner=2)), ("b", Limits(all=3, owner=2))):
        with pytest.raises(QueueFull):
            store.check_limits(owner, limits)


def test_the_caller_of_a_new_request_is_attended_by_the_clock_of_the_store(store, clock):
    behind = new_job(kind=JobKind.REQUEST, created_at=START - timedelta(days=1))
    request = store.create(behind, caller_lease_s=60.0)
    assert store.get(request.id).caller_lease_until == clock.now + timedelta(seconds=60)
    assert store.list_abandoned_requests() == ()
    clock.advance(61)
    assert store.list_abandoned_requests() == (request.id,)
    assert store.list_requests() == (request.id,)


class TestLocks:
    """What others have locked, or lock in another order, holds nobody up for long."""

    @pytest.fixture
    def second(self, place) -> Iterator[SqlJobStore]:
        if place.kind == "sqlite":
            pytest.skip("SQLite has one writer at a time")
        opened = place.open(None)
        yield opened
        opened.close()

    def test_a_lapsed_job_that_somebody_has_locked(self, store, clock, second):
        first, following = created(store, new_job(), new_job())
        store.claim("w", LEASE_S, ATTEMPTS)
        clock.advance(LEASE_S + 1)
        with second.database.writing() as connection:
            connection.execute(update(schema.jobs).where(schema.jobs.c.id == first).values(progress=0.5))
            claimed = store.claim("another", LEASE_S, ATTEMPTS)
        assert claimed is not None
        assert claimed.id == following

    @pytest.mark.slow
    def test_handing_back_while_others_cancel(self, store, second):
        chunks = ChunkStore(store.database)
        many = [Chunk("recognition", n, n + 1, 1_000, b"x" * 200) for n in range(300)]
        for _ in range(30):
            (job_id,) = created(store, new_job())
            assert store.claim("w", LEASE_S, ATTEMPTS).id == job_id
            chunks.add(job_id, "e", "any", 0, many)
            assert chunks.claim("w", LEASE_S, "e", only=(job_id, 0, "recognition")) is not None
            said = at_once([partial(store.requeue, job_id, "w"), partial(second.cancel, job_id)])
            assert [each for each in said if isinstance(each, Exception)] == []
            store.delete(job_id)
