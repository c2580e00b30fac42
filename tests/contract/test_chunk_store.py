"""Portions of long recordings, over every kind of database that keeps jobs."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from diarist.jobs.db.chunks import PortionState, PortionStore
from diarist.jobs.model import JobError, JobState
from diarist.protocols import Portion
from support.job_stores import ATTEMPTS, LEASE_S, TRANSCRIPT, new_job, rows_naming

ENGINE = "engine"
WANTED = tuple(Portion("recognition", 100 * n, 100 * n + 100, 1_000, b'{"n":%d}' % n) for n in range(3))


@pytest.fixture
def portions(store) -> PortionStore:
    return PortionStore(store.database)


@pytest.fixture
def job(store):
    made = store.create(new_job(request_id="r-7"))
    assert store.claim("holder", LEASE_S, ATTEMPTS).id == made.id
    return made


def test_portions_come_as_they_were_posted_and_in_order(portions, job):
    digests = portions.post(job.id, ENGINE, "any", 1, WANTED)
    tasks = [portions.claim("w", LEASE_S, ENGINE) for _ in WANTED]
    assert [task.portion for task in tasks] == list(WANTED)
    assert [task.digest for task in tasks] == list(digests)
    assert {(task.job_id, task.channel, task.request_id) for task in tasks} == {(job.id, 1, "r-7")}
    assert portions.claim("w", LEASE_S, ENGINE) is None
    assert portions.states(job.id) == dict.fromkeys(digests, PortionState(done=False, deaths=0))


def test_only_the_same_engine_and_queues_are_offered_them(portions, job):
    portions.post(job.id, ENGINE, "gpu", 0, WANTED)
    assert portions.claim("w", LEASE_S, "another engine") is None
    assert portions.claim("w", LEASE_S, ENGINE, ("any", "cpu")) is None
    assert portions.claim("w", LEASE_S, ENGINE, ("any", "gpu")) is not None


def test_the_holder_takes_those_of_its_own_stage(portions, job):
    other = replace(WANTED[0], stage="embedding")
    portions.post(job.id, ENGINE, "any", 0, (other, *WANTED))
    taken = portions.claim("holder", LEASE_S, ENGINE, only=(job.id, 0, "recognition"))
    assert taken.portion == WANTED[0]
    assert portions.claim("holder", LEASE_S, ENGINE, only=(job.id, 1, "recognition")) is None
    assert portions.claim("holder", LEASE_S, ENGINE, only=("another", 0, "recognition")) is None


def test_what_is_done_stays_done_when_it_is_posted_again(portions, job):
    digests = portions.post(job.id, ENGINE, "any", 0, WANTED)
    assert portions.done(portions.claim("w", LEASE_S, ENGINE), "w") is True
    assert portions.post(job.id, ENGINE, "any", 0, WANTED) == digests
    assert [state.done for state in map(portions.states(job.id).get, digests)] == [True, False, False]


def test_a_portion_whose_worker_is_silent_is_offered_again_and_counted_as_a_death(portions, store, job, clock):
    (digest, *_) = portions.post(job.id, ENGINE, "any", 0, WANTED[:1])
    lost = portions.claim("dead", LEASE_S, ENGINE)
    clock.advance(LEASE_S - 1)
    store.renew(job.id, "holder", LEASE_S, "recognition", 0.5)
    assert portions.claim("w", LEASE_S, ENGINE) is None
    clock.advance(2)
    taken = portions.claim("w", LEASE_S, ENGINE)
    assert taken.digest == digest
    assert portions.states(job.id)[digest].deaths == 1
    assert portions.renew(lost, "dead", LEASE_S) is False
    assert portions.done(lost, "dead") is False
    assert portions.renew(taken, "w", LEASE_S) is True


def test_the_death_of_a_worker_frees_its_portions_at_once(portions, store, job):
    (digest, *_) = portions.post(job.id, ENGINE, "any", 0, WANTED[:1])
    portions.claim("w", LEASE_S, ENGINE)
    assert store.release("w", ATTEMPTS) == ()
    assert portions.states(job.id)[digest] == PortionState(done=False, deaths=1)
    portions.claim("v", LEASE_S, ENGINE)
    portions.give_back("v")
    assert portions.states(job.id)[digest].deaths == 1
    assert portions.claim("u", LEASE_S, ENGINE) is not None


def test_when_the_holder_dies_others_wait_for_the_next_one_and_keep_what_is_done(portions, store, job):
    digests = portions.post(job.id, ENGINE, "any", 0, WANTED)
    portions.done(portions.claim("w", LEASE_S, ENGINE), "w")
    held = portions.claim("holder", 3_600, ENGINE, only=(job.id, 0, "recognition"))
    assert store.release("holder", ATTEMPTS) == (job.id,)
    assert portions.claim("w", LEASE_S, ENGINE) is None, "nobody waits for it now"
    assert store.claim("next", LEASE_S, ATTEMPTS).id == job.id
    assert portions.post(job.id, ENGINE, "any", 0, WANTED) == digests
    assert portions.claim("next", LEASE_S, ENGINE).digest == held.digest
    assert [state.deaths for state in portions.states(job.id).values()] == [0, 0, 0], "the death is the job's"


@pytest.mark.parametrize("end", ["finish", "cancel", "delete", "fail"])
def test_portions_go_with_the_job(portions, store, job, end):
    portions.post(job.id, ENGINE, "any", 0, WANTED)
    task = portions.claim("w", LEASE_S, ENGINE)
    if end == "finish":
        store.finish(job.id, "holder", TRANSCRIPT)
    elif end == "fail":
        store.retry(job.id, "holder", _error(), 1, 0.0)
    else:
        getattr(store, end)(job.id)
    assert portions.claim("w", LEASE_S, ENGINE) is None
    assert portions.renew(task, "w", LEASE_S) is False
    assert "chunks" not in rows_naming(store, job.id)


def test_many_workers_never_take_one_portion_twice(portions, job):
    many = tuple(replace(WANTED[0], work=b"%d" % n) for n in range(60))
    portions.post(job.id, ENGINE, "any", 0, many)
    taken: list[str] = []
    barrier = threading.Barrier(6)

    def work(name: str) -> None:
        barrier.wait(10)
        while (task := portions.claim(name, 3_600, ENGINE)) is not None:
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


def test_who_lost_the_job_takes_no_portion_of_it_in_the_holders_name(portions, job, store, clock):
    portions.post(job.id, ENGINE, "any", 0, WANTED)
    clock.advance(LEASE_S + 1)
    assert store.claim("next", LEASE_S, ATTEMPTS).id == job.id
    assert portions.claim("holder", LEASE_S, ENGINE, only=(job.id, 0, "recognition")) is None
    assert portions.claim("next", LEASE_S, ENGINE, only=(job.id, 0, "recognition")) is not None


def test_helpers_go_on_while_the_job_changes_hands(portions, job, store):
    portions.post(job.id, ENGINE, "any", 0, WANTED)
    task = portions.claim("helper", LEASE_S, ENGINE)
    store.release("holder", ATTEMPTS)
    assert store.get(job.id).state is JobState.QUEUED
    assert portions.renew(task, "helper", LEASE_S) is True
    assert store.claim("next", LEASE_S, ATTEMPTS).id == job.id
    assert portions.renew(task, "helper", LEASE_S) is True
    store.cancel(job.id)
    assert portions.renew(task, "helper", LEASE_S) is False


def test_a_retry_waits_for_no_portion_that_the_last_attempt_had_in_hand(portions, job, store):
    portions.post(job.id, ENGINE, "any", 0, WANTED)
    assert portions.claim("holder", 3_600.0, ENGINE, only=(job.id, 0, "recognition")) is not None
    other = store.create(new_job())
    assert store.claim("holder", LEASE_S, ATTEMPTS).id == other.id
    portions.post(other.id, ENGINE, "any", 0, WANTED[:1])
    assert portions.claim("holder", 3_600.0, ENGINE, only=(other.id, 0, "recognition")) is not None
    assert store.retry(job.id, "holder", JobError("media_unavailable", "Away."), ATTEMPTS, 0.0)
    assert store.claim("holder", LEASE_S, ATTEMPTS).id == job.id
    again = [portions.claim("holder", LEASE_S, ENGINE, only=(job.id, 0, "recognition")) for _ in WANTED]
    assert [task.portion for task in again] == list(WANTED)
    assert {state.deaths for state in portions.states(job.id).values()} == {0}
    assert portions.claim("another", LEASE_S, ENGINE) is None, "that of the other job is still in hand"


def test_of_a_job_that_nobody_works_on_none_are_posted(portions, job, store):
    store.cancel(job.id)
    assert len(portions.post(job.id, ENGINE, "any", 0, WANTED)) == len(WANTED)
    assert portions.states(job.id) == {}
