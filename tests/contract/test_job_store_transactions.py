"""Every method of a job store is one transaction: a crash leaves either the whole change or none of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta

import pytest
from sqlalchemy import event

from diarist.errors import DiaristError, StoreUnavailable
from diarist.jobs.db import metrics_storage
from diarist.jobs.db.chunks import ChunkStore
from diarist.jobs.db.job_store import SqlJobStore
from diarist.jobs.model import Job, JobError, JobFilter, JobKind, JobState, Limits, WorkerReport
from diarist.jobs.store import JobStore
from diarist.protocols import Chunk
from support.job_stores import (
    ATTEMPTS,
    LEASE_S,
    START,
    TRANSCRIPT,
    metric_counts,
    new_job,
    recorded_states,
    rows_naming,
    tasks_of,
    utterance,
)

ERROR = JobError("storage_full", "No room.")
LIMITS = Limits(100, 100)
WEBHOOK = "https://receiver.example/hook"
NO_TRANSACTIONS = frozenset({"write_lock_is_held"})
"""Methods that ask about transactions, and are none themselves."""

METHODS = NO_TRANSACTIONS ^ {
    name for name, _ in inspect.getmembers(JobStore, inspect.isfunction) if not name.startswith("_")
}

CALLS: dict[str, tuple[Callable[[SqlJobStore, Job, Job], object], ...]] = {
    "create": (
        lambda s, *_: s.create(new_job(idempotency_key="k", labels=(("a", "b"),), webhook_url=WEBHOOK), LIMITS),
        lambda s, *_: s.create(new_job(idempotency_key="k", labels=(("a", "b"),), webhook_url=WEBHOOK), LIMITS),
        lambda s, *_: s.create(new_job(source_url="https://site.example/a.wav", ready=False)),
        lambda s, *_: s.create(new_job(kind=JobKind.REQUEST), caller_lease_s=60.0),
        lambda s, *_: s.create(new_job(), Limits(1, 1)),
    ),
    "check_limits": (lambda s, *_: s.check_limits("", LIMITS), lambda s, *_: s.check_limits("", Limits(1, 1))),
    "get": (lambda s, queued, _: s.get(queued.id), lambda s, *_: s.get("nobody")),
    "list_jobs": (lambda s, *_: s.list_jobs(JobFilter(owner=""), 1),),
    "find_by_idempotency_key": (lambda s, *_: s.find_by_idempotency_key("", "k"),),
    "attach_recording": (lambda s, queued, _: s.attach_recording(queued.id, 10, "talk.wav"),),
    "update_progress": (lambda s, queued, _: s.update_progress(queued.id, "download", 0.5),),
    "reject": (lambda s, *_: s.reject(s.create(new_job(ready=False)).id, ERROR),),
    "claim": (
        lambda s, *_: s.claim("v", LEASE_S, ATTEMPTS),
        lambda s, *_: s.claim("v", LEASE_S, ATTEMPTS, ("none",)),
        lambda s, *_: s.claim("v", LEASE_S, ATTEMPTS, requests_only=True),
    ),
    "renew": (lambda s, _, held: s.renew(held.id, "w", LEASE_S, "decode", 0.5),),
    "finalize": (
        lambda s, _, held: s.finalize(held.id, "w", 0, (utterance("one"),)),
        lambda s, _, held: s.finalize(held.id, "v", 0, (utterance("one"),)),
    ),
    "finish": (
        lambda s, _, held: s.finish(held.id, "w", TRANSCRIPT),
        lambda s, _, held: s.finish(held.id, "v", TRANSCRIPT),
    ),
    "fail": (lambda s, _, held: s.fail(held.id, "w", ERROR), lambda s, _, held: s.fail(held.id, "v", ERROR)),
    "retry": (
        lambda s, _, held: s.retry(held.id, "w", ERROR, 1, 10.0),
        lambda s, _, held: s.retry(held.id, "w", ERROR, ATTEMPTS, 10.0),
        lambda s, _, held: s.retry(held.id, "v", ERROR, ATTEMPTS, 10.0),
    ),
    "requeue": (lambda s, _, held: s.requeue(held.id, "w"),),
    "release": (
        lambda s, *_: s.release("w", 1),
        lambda s, *_: s.release("w", ATTEMPTS, service_crash=True),
        lambda s, *_: s.release(None, ATTEMPTS),
    ),
    "extend_caller_lease": (lambda s, queued, _: s.extend_caller_lease(queued.id, 60.0),),
    "cancel": (lambda s, queued, _: s.cancel(queued.id), lambda s, *_: s.cancel("nobody")),
    "delete": (lambda s, queued, _: s.delete(queued.id),),
    "get_transcript": (lambda s, queued, _: s.get_transcript(queued.id),),
    "list_events": (lambda s, queued, _: s.list_events(queued.id),),
    "count_unfinished": (lambda s, *_: s.count_unfinished(JobKind.JOB),),
    "list_waiting_queues": (lambda s, *_: s.list_waiting_queues(),),
    "fail_waiting": (lambda s, queued, _: s.fail_waiting(queued.spec.queue, -60.0, ERROR),),
    "queue_positions": (lambda s, *_: s.queue_positions(),),
    "count_by_state": (lambda s, *_: s.count_by_state(),),
    "list_unfinished": (lambda s, *_: s.list_unfinished(),),
    "list_requests": (lambda s, *_: s.list_requests(),),
    "filter_existing": (lambda s, *_: s.filter_existing([f"{number}" for number in range(2_000)]),),
    "list_abandoned_requests": (lambda s, *_: s.list_abandoned_requests(),),
    "list_ended_before": (lambda s, *_: s.list_ended_before(START + timedelta(days=1), with_recording=True),),
    "mark_recording_removed": (lambda s, queued, _: s.mark_recording_removed(queued.id),),
    "save_worker_report": (lambda s, *_: s.save_worker_report(WorkerReport("w", 1, "ready", (), (), START)),),
    "list_worker_reports": (lambda s, *_: s.list_worker_reports(60.0),),
    "increment_metric": (lambda s, *_: s.increment_metric(metrics_storage.WORKER_RESTARTS),),
    "observe_metric": (lambda s, *_: s.observe_metric(metrics_storage.MODEL_LOAD_SECONDS, 1.0),),
}
"""Ways to call each method of the protocol with a queued job and one that the worker ``w`` holds."""


@pytest.fixture
def jobs(store) -> tuple[Job, Job]:
    """One that is queued, and one that ``w`` holds; each has a webhook."""
    held = store.create(new_job(webhook_url=WEBHOOK))
    assert store.claim("w", LEASE_S, ATTEMPTS).id == held.id
    return store.create(new_job(webhook_url=WEBHOOK)), held


class Transactions:
    """Counts those that begin on the engine of a store, and fails them where they would be committed."""

    def __init__(self, store: SqlJobStore) -> None:
        self.begun = 0
        self.fail_at_commit = False
        self._engine = store.database._engine
        event.listen(self._engine, "begin", self._count)
        event.listen(self._engine, "commit", self._commit)

    def close(self) -> None:
        event.remove(self._engine, "begin", self._count)
        event.remove(self._engine, "commit", self._commit)

    def _count(self, _connection) -> None:
        self.begun += 1

    def _commit(self, _connection) -> None:
        if self.fail_at_commit:
            raise StoreUnavailable("The process was killed.")


@pytest.fixture
def transactions(store, jobs) -> Iterator[Transactions]:
    counting = Transactions(store)
    yield counting
    counting.close()


def test_every_method_is_tried():
    assert set(CALLS) == METHODS


@pytest.mark.parametrize(("name", "number"), [(name, number) for name in CALLS for number in range(len(CALLS[name]))])
def test_every_method_is_one_transaction(store, jobs, transactions, name, number):
    call = CALLS[name][number]
    extra = 1 if name == "reject" else 0  # its call makes the job that it rejects
    with suppress(DiaristError):
        call(store, *jobs)
    assert transactions.begun == 1 + extra


@pytest.mark.parametrize("attempts", [1, ATTEMPTS])
def test_a_retry_that_is_cut_short_leaves_everything_as_it_was(store, clock, jobs, transactions, attempts):
    chunks = ChunkStore(store.database)
    queued, held = jobs
    chunks.add(held.id, "signature", "any", 0, [Chunk("recognition", 0, 10, 10, b"{}")])
    assert chunks.claim("w", LEASE_S, "signature") is not None
    before = store.get(held.id), chunks.states(held.id), rows_naming(store, held.id), metric_counts(store)

    transactions.fail_at_commit = True
    with pytest.raises(StoreUnavailable):
        store.retry(held.id, "w", ERROR, attempts, 10.0)
    transactions.fail_at_commit = False
    assert (store.get(held.id), chunks.states(held.id), rows_naming(store, held.id), metric_counts(store)) == before

    assert store.retry(held.id, "w", ERROR, attempts, 10.0) is True
    assert store.retry(held.id, "w", ERROR, attempts, 10.0) is False
    failed = attempts == 1
    end = JobState.FAILED if failed else JobState.QUEUED
    assert store.get(held.id).state is end
    assert recorded_states(store, held.id) == ["queued", "running", end.value]
    assert (
        len(tasks_of(store, held.id))
        == metric_counts(store).get((metrics_storage.JOBS_ENDED, ("failed",)), 0)
        == int(failed)
    )
    store.cancel(queued.id)
    clock.advance(10.0)
    taken = store.claim("v", LEASE_S, ATTEMPTS)
    assert (taken is None) == failed
    assert (chunks.claim("v", LEASE_S, "signature") is None) == failed, "the chunk is free, or gone with its job"
