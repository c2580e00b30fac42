"""The contract of the store of chunks, with every kind of database."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from diarist.jobs.db.chunks import ChunkState, ChunkStore
from diarist.jobs.model import JobError, JobState
from diarist.protocols import Chunk
from support.job_stores import ATTEMPTS, LEASE_S, TRANSCRIPT, new_job, rows_naming

ENGINE = "engine"
WANTED = tuple(Chunk("recognition", 100 * n, 100 * n + 100, 1_000, b'{"n":%d}' % n) for n in range(3))


@pytest.fixture
def chunks(store) -> ChunkStore:
    return ChunkStore(store.database)


@pytest.fixture
def job(store):
    made = store.create(new_job(request_id="r-7"))
    assert store.claim("holder", LEASE_S, ATTEMPTS).id == made.id
    return made


def test_chunks_come_as_they_were_posted_and_in_order(chunks, job):
    digests = chunks.add(job.id, ENGINE, "any", 1, WANTED)
    tasks = [chunks.claim("w", LEASE_S, ENGINE) for _ in WANTED]
    assert [task.chunk for task in tasks] == list(WANTED)
    assert [task.digest for task in tasks] == list(digests)
    assert {(task.job_id, task.channel, task.request_id) for task in tasks} == {(job.id, 1, "r-7")}
    assert chunks.claim("w", LEASE_S, ENGINE) is None
    assert chunks.states(job.id) == dict.fromkeys(digests, ChunkState(done=False, worker_crashes=0))


def test_only_the_same_engine_and_queues_are_offered_them(chunks, job):
    chunks.add(job.id, ENGINE, "gpu", 0, WANTED)
    assert chunks.claim("w", LEASE_S, "another engine") is None
    assert chunks.claim("w", LEASE_S, ENGINE, ("any", "cpu")) is None
    assert chunks.claim("w", LEASE_S, ENGINE, ("any", "gpu")) is not None


def test_the_holder_takes_those_of_its_own_stage(chunks, job):
    other = replace(WANTED[0], stage="embedding")
    chunks.add(job.id, ENGINE, "any", 0, (other, *WANTED))
    taken = chunks.claim("holder", LEASE_S, ENGINE, only=(job.id, 0, "recognition"))
    assert taken.chunk == WANTED[0]
    assert chunks.claim("holder", LEASE_S, ENGINE, only=(job.id, 1, "recognition")) is None
    assert chunks.claim("holder", LEASE_S, ENGINE, only=("another", 0, "recognition")) is None


def test_what_is_done_stays_done_when_it_is_posted_again(chunks, job):
    digests = chunks.add(job.id, ENGINE, "any", 0, WANTED)
    assert chunks.complete(chunks.claim("w", LEASE_S, ENGINE), "w") is True
    assert chunks.add(job.id, ENGINE, "any", 0, WANTED) == digests
    assert [state.done for state in map(chunks.states(job.id).get, digests)] == [True, False, False]


def test_a_chunk_whose_worker_is_silent_is_offered_again_and_counted_as_a_crash(chunks, store, job, clock):
    (digest, *_) = chunks.add(job.id, ENGINE, "any", 0, WANTED[:1])
    lost = chunks.claim("dead", LEASE_S, ENGINE)
    clock.advance(LEASE_S - 1)
    store.renew(job.id, "holder", LEASE_S, "recognition", 0.5)
    assert chunks.claim("w", LEASE_S, ENGINE) is None
    clock.advance(2)
    taken = chunks.claim("w", LEASE_S, ENGINE)
    assert taken.digest == digest
    assert chunks.states(job.id)[digest].worker_crashes == 1
    assert chunks.renew(lost, "dead", LEASE_S) is False
    assert chunks.complete(lost, "dead") is False
    assert chunks.renew(taken, "w", LEASE_S) is True


def test_the_crash_of_a_worker_frees_its_chunks_at_once(chunks, store, job):
    (digest, *_) = chunks.add(job.id, ENGINE, "any", 0, WANTED[:1])
    chunks.claim("w", LEASE_S, ENGINE)
    assert store.release("w", ATTEMPTS) == ()
    assert chunks.states(job.id)[digest] == ChunkState(done=False, worker_crashes=1)
    chunks.claim("v", LEASE_S, ENGINE)
    chunks.release("v")
    assert chunks.states(job.id)[digest].worker_crashes == 1
    assert chunks.claim("u", LEASE_S, ENGINE) is not None


def test_when_the_holder_dies_others_wait_for_the_next_one_and_keep_what_is_done(chunks, store, job):
    digests = chunks.add(job.id, ENGINE, "any", 0, WANTED)
    chunks.complete(chunks.claim("w", LEASE_S, ENGINE), "w")
    held = chunks.claim("holder", 3_600, ENGINE, only=(job.id, 0, "recognition"))
    assert store.release("holder", ATTEMPTS) == (job.id,)
    assert chunks.claim("w", LEASE_S, ENGINE) is None, "nobody waits for it now"
    assert store.claim("next", LEASE_S, ATTEMPTS).id == job.id
    assert chunks.add(job.id, ENGINE, "any", 0, WANTED) == digests
    assert chunks.claim("next", LEASE_S, ENGINE).digest == held.digest
    assert [state.worker_crashes for state in chunks.states(job.id).values()] == [0, 0, 0], "the death is the job's"


@pytest.mark.parametrize("end", ["finish", "cancel", "delete", "fail"])
def test_chunks_go_with_the_job(chunks, store, job, end):
    chunks.add(job.id, ENGINE, "any", 0, WANTED)
    task = chunks.claim("w", LEASE_S, ENGINE)
    if end == "finish":
        store.finish(job.id, "holder", TRANSCRIPT)
    elif end == "fail":
        store.retry(job.id, "holder", _error(), 1, 0.0)
    else:
        getattr(store, end)(job.id)
    assert chunks.claim("w", LEASE_S, ENGINE) is None
    assert chunks.renew(task, "w", LEASE_S) is False
    assert "chunks" not in rows_naming(store, job.id)


def test_many_workers_never_take_one_chunk_twice(chunks, job):
    many = tuple(replace(WANTED[0], work=b"%d" % n) for n in range(60))
    chunks.add(job.id, ENGINE, "any", 0, many)
    taken: list[str] = []
    barrier = threading.Barrier(6)

    def work(name: str) -> None:
        barrier.wait(10)
        while (task := chunks.claim(name, 3_600, ENGINE)) is not None:
            taken.append(task.digest)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(taken) == len(set(taken)) == len(many)


def _error():
    from diarist.jobs.model import JobError

    return JobError("job_failed", "why")


def test_who_lost_the_job_takes_no_chunk_of_it_in_the_holders_name(chunks, job, store, clock):
    chunks.add(job.id, ENGINE, "any", 0, WANTED)
    clock.advance(LEASE_S + 1)
    assert store.claim("next", LEASE_S, ATTEMPTS).id == job.id
    assert chunks.claim("holder", LEASE_S, ENGINE, only=(job.id, 0, "recognition")) is None
    assert chunks.claim("next", LEASE_S, ENGINE, only=(job.id, 0, "recognition")) is not None


def test_helpers_go_on_while_the_job_changes_hands(chunks, job, store):
    chunks.add(job.id, ENGINE, "any", 0, WANTED)
    task = chunks.claim("helper", LEASE_S, ENGINE)
    store.release("holder", ATTEMPTS)
    assert store.get(job.id).state is JobState.QUEUED
    assert chunks.renew(task, "helper", LEASE_S) is True
    assert store.claim("next", LEASE_S, ATTEMPTS).id == job.id
    assert chunks.renew(task, "helper", LEASE_S) is True
    store.cancel(job.id)
    assert chunks.renew(task, "helper", LEASE_S) is False


def test_a_retry_waits_for_no_chunk_that_the_last_attempt_had_in_hand(chunks, job, store):
    chunks.add(job.id, ENGINE, "any", 0, WANTED)
    assert chunks.claim("holder", 3_600.0, ENGINE, only=(job.id, 0, "recognition")) is not None
    other = store.create(new_job())
    assert store.claim("holder", LEASE_S, ATTEMPTS).id == other.id
    chunks.add(other.id, ENGINE, "any", 0, WANTED[:1])
    assert chunks.claim("holder", 3_600.0, ENGINE, only=(other.id, 0, "recognition")) is not None
    assert store.retry(job.id, "holder", JobError("media_unavailable", "Away."), ATTEMPTS, 0.0)
    assert store.claim("holder", LEASE_S, ATTEMPTS).id == job.id
    again = [chunks.claim("holder", LEASE_S, ENGINE, only=(job.id, 0, "recognition")) for _ in WANTED]
    assert [task.chunk for task in again] == list(WANTED)
    assert {state.worker_crashes for state in chunks.states(job.id).values()} == {0}
    assert chunks.claim("another", LEASE_S, ENGINE) is None, "that of the other job is still in hand"


def test_of_a_job_that_nobody_works_on_none_are_posted(chunks, job, store):
    store.cancel(job.id)
    assert len(chunks.add(job.id, ENGINE, "any", 0, WANTED)) == len(WANTED)
    assert chunks.states(job.id) == {}
