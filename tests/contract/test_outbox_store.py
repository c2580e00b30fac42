"""The contract of the outbox, with every kind of database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from diarist.errors import JobNotFound
from diarist.jobs.db import metrics_storage
from diarist.jobs.db.database import Database
from diarist.jobs.db.job_store import SqlJobStore
from diarist.jobs.db.outbox import FETCH, WEBHOOK, Delivery, OutboxStore, OutboxTask
from diarist.jobs.db.schema import deliveries, jobs, outbox_tasks
from diarist.jobs.db.sqlite import open_sqlite
from diarist.jobs.model import Job, JobError, JobKind, JobSpec, JobState, new_job_id
from diarist.outbound.webhooks import DeliveryResult
from support.job_stores import START, Clock

LEASE_S = 30.0
BOTH = (FETCH, WEBHOOK)
HOOK = "https://example.com/hook"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.servers)])
def open_again(request, tmp_path: Path) -> Iterator[Callable[[Clock], Database]]:
    """Opens the same database, as another process would."""
    opened: list[Database] = []
    if request.param == "postgres":
        from diarist.jobs.db import postgres

        url = request.getfixturevalue("postgres_server").fresh_database()

        def make(clock: Clock) -> Database:
            return Database(postgres.open_postgres(url), clock, postgres.explain)
    else:

        def make(clock: Clock) -> Database:
            return Database(open_sqlite(tmp_path / "jobs.sqlite3"), clock)

    def open_one(clock: Clock) -> Database:
        opened.append(make(clock))
        return opened[-1]

    yield open_one
    for database in opened:
        database.close()


@pytest.fixture
def database(open_again, clock) -> Database:
    return open_again(clock)


@pytest.fixture
def store(database) -> SqlJobStore:
    return SqlJobStore(database)


@pytest.fixture
def task_store(database) -> OutboxStore:
    return OutboxStore(database)


def new_job(**spec: object) -> Job:
    asked = JobSpec(filename="talk.wav", request_id="r-1", kind=JobKind.JOB, **spec)
    return Job(id=new_job_id(), state=JobState.QUEUED, spec=asked, created_at=START)


def to_fetch(store: SqlJobStore, **spec: object) -> Job:
    job = replace(new_job(source_url="https://example.com/talk.mp3", **spec), ready=False, recording=False)
    return store.create(job)


def ended(store: SqlJobStore, **spec: object) -> Job:
    job = store.create(new_job(webhook_url=HOOK, **spec))
    return store.cancel(job.id)


def count(database: Database, table) -> int:
    with database.reading() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def outcomes(database: Database) -> dict[str, float]:
    with database.reading() as connection:
        found = metrics_storage.read(connection)
    return {
        dict(each.labels)["outcome"]: each.count for each in found if each.metric == metrics_storage.WEBHOOK_DELIVERIES
    }


TAKEN = DeliveryResult(204, 0.5)
REFUSED = DeliveryResult(500, 0.25, "The receiver answered 500.")
SILENT = DeliveryResult(0, 10.0, "The server took longer than 10 s in all.")


def test_a_job_with_a_url_has_an_task_at_once_and_others_have_none(store, task_store, clock):
    store.create(new_job(webhook_url=HOOK))
    assert not task_store.any_due(BOTH)
    assert task_store.claim("r", LEASE_S, BOTH) is None
    job = to_fetch(store, owner="anna")
    assert task_store.any_due(BOTH)
    task = task_store.claim("r", LEASE_S, BOTH)
    assert task == OutboxTask(task.id, job.id, FETCH, 1, 0, "r", "anna")
    assert len(task.id) >= 22


@pytest.mark.parametrize("end", ["canceled", "failed", "refused"])
def test_the_end_of_a_job_leaves_one_webhook_to_send(store, task_store, database, end):
    job = store.create(new_job(webhook_url=HOOK))
    if end == "failed":
        store.claim("w", LEASE_S, 3)
        store.fail(job.id, "w", JobError("not_audio", "Send audio."))
    elif end == "refused":
        store.reject(job.id, JobError("url_refused", "Not there."))
    else:
        store.cancel(job.id)
    store.cancel(job.id)
    assert count(database, outbox_tasks) == 1
    assert task_store.claim("r", LEASE_S, BOTH).kind == WEBHOOK


def test_only_the_kinds_that_are_wanted_are_claimed(store, task_store):
    to_fetch(store)
    ended(store)
    assert task_store.claim("a", LEASE_S, (WEBHOOK,)).kind == WEBHOOK
    assert task_store.claim("b", LEASE_S, (WEBHOOK,)) is None
    assert not task_store.any_due((WEBHOOK,))
    assert task_store.claim("c", LEASE_S, (FETCH,)).kind == FETCH


def test_the_one_that_is_due_longest_comes_first(store, task_store, clock):
    first = to_fetch(store)
    clock.advance(1)
    second = to_fetch(store)
    taken = [task_store.claim(name, LEASE_S, BOTH).job_id for name in ("a", "b")]
    assert taken == [first.id, second.id]
    assert task_store.claim("c", LEASE_S, BOTH) is None


def test_owners_can_be_passed_over(store, task_store):
    to_fetch(store, owner="anna")
    bert = to_fetch(store, owner="bert")
    assert task_store.claim("a", LEASE_S, BOTH, exclude_owners=("anna",)).job_id == bert.id
    assert task_store.claim("b", LEASE_S, BOTH, exclude_owners=("anna", "carl")) is None
    assert task_store.claim("c", LEASE_S, BOTH).owner == "anna"


def test_many_callers_never_get_the_same_one(store, task_store, open_again, clock):
    made = {to_fetch(store).id for _ in range(24)}
    stores = [OutboxStore(open_again(clock)) for _ in range(4)]
    taken: list[str] = []
    gate = threading.Barrier(len(stores))

    def take(number: int) -> None:
        gate.wait(30)
        while task := stores[number].claim(f"r{number}", LEASE_S, BOTH):
            taken.append(task.job_id)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(made)
    assert set(taken) == made


def test_a_lease_that_ran_out_is_taken_over_and_counts_as_a_crash_and_not_as_an_attempt(store, task_store, clock):
    to_fetch(store)
    first = task_store.claim("a", LEASE_S, BOTH)
    clock.advance(LEASE_S - 1)
    assert not task_store.any_due(BOTH)
    assert task_store.claim("b", LEASE_S, BOTH) is None
    clock.advance(2)
    assert task_store.any_due(BOTH)
    second = task_store.claim("b", LEASE_S, BOTH)
    assert (second.id, second.attempts, second.worker_crashes) == (first.id, 1, 1)
    for lost in (task_store.renew(first, LEASE_S), task_store.complete(first), task_store.reschedule(first, 0.0),
                 task_store.requeue(first), task_store.record_delivery(first, TAKEN)):  # fmt: skip
        assert lost is False
    clock.advance(LEASE_S + 1)
    assert task_store.claim("c", LEASE_S, BOTH).worker_crashes == 2


def test_a_lease_that_is_renewed_is_not_taken_over(store, task_store, clock):
    to_fetch(store)
    task = task_store.claim("a", LEASE_S, BOTH)
    for _ in range(5):
        clock.advance(LEASE_S - 1)
        assert task_store.renew(task, LEASE_S)
        assert task_store.claim("b", LEASE_S, BOTH) is None


def test_what_is_done_is_gone(store, task_store, database, clock):
    to_fetch(store)
    task = task_store.claim("a", LEASE_S, BOTH)
    assert task_store.complete(task)
    assert count(database, outbox_tasks) == 0
    assert task_store.complete(task) is False
    assert task_store.renew(task, LEASE_S) is False


def test_again_waits_and_counts_the_attempt(store, task_store, clock):
    to_fetch(store)
    assert task_store.reschedule(task_store.claim("a", LEASE_S, BOTH), 10.0)
    clock.advance(9)
    assert not task_store.any_due(BOTH)
    assert task_store.claim("b", LEASE_S, BOTH) is None
    clock.advance(1)
    assert task_store.claim("b", LEASE_S, BOTH).attempts == 2


def test_what_is_handed_back_is_there_at_once_as_if_it_had_not_been_begun(store, task_store):
    to_fetch(store)
    assert task_store.requeue(task_store.claim("a", LEASE_S, BOTH))
    task = task_store.claim("b", LEASE_S, BOTH)
    assert (task.attempts, task.worker_crashes) == (1, 0)


def test_a_service_that_is_alone_can_take_everything_back_when_it_starts(store, task_store):
    to_fetch(store)
    to_fetch(store)
    task_store.claim("a", LEASE_S, BOTH)
    assert task_store.release() == 1
    taken = [task_store.claim(name, LEASE_S, BOTH) for name in ("b", "c")]
    assert sorted(task.worker_crashes for task in taken) == [0, 1]


def test_a_delivery_that_was_taken_is_kept_and_the_task_is_gone(store, task_store, database, clock):
    job = ended(store)
    task = task_store.claim("a", LEASE_S, BOTH)
    clock.advance(2)
    assert task_store.record_delivery(task, TAKEN)
    at = clock.now - timedelta(seconds=0.5)
    assert task_store.list_deliveries(job.id) == (Delivery(1, at, 204, None, 0.5, None),)
    assert count(database, outbox_tasks) == 0
    assert outcomes(database) == {"delivered": 1}
    assert task_store.record_delivery(task, TAKEN) is False
    assert len(task_store.list_deliveries(job.id)) == 1


def test_each_attempt_is_kept_and_the_last_says_when_the_next_is(store, task_store, database, clock):
    job = ended(store)
    task_store.record_delivery(task_store.claim("a", LEASE_S, BOTH), SILENT, 30.0)
    assert [(each.attempt, each.status, each.error) for each in task_store.list_deliveries(job.id)] == [
        (1, None, SILENT.error)
    ]
    assert task_store.list_deliveries(job.id)[-1].next_at == clock.now + timedelta(seconds=30)
    clock.advance(30)
    task = task_store.claim("b", LEASE_S, BOTH)
    assert task.attempts == 2
    task_store.record_delivery(task, REFUSED)
    log = task_store.list_deliveries(job.id)
    assert [(each.attempt, each.status, each.next_at) for each in log] == [(1, None, None), (2, 500, None)]
    assert outcomes(database) == {"retried": 1, "given_up": 1}


def test_a_webhook_can_be_sent_once_more_under_its_id(store, task_store, clock):
    job = ended(store)
    first = task_store.claim("a", LEASE_S, BOTH)
    assert task_store.redeliver(job.id), "it is under way"
    task_store.record_delivery(first, TAKEN)
    assert task_store.redeliver(job.id)
    assert task_store.redeliver(job.id), "twice is once"
    again = task_store.claim("b", LEASE_S, BOTH)
    assert (again.id, again.attempts) == (first.id, 1)
    assert task_store.claim("c", LEASE_S, BOTH) is None
    task_store.record_delivery(again, REFUSED, 3_600.0)
    assert [each.attempt for each in task_store.list_deliveries(job.id)] == [1, 2]
    assert task_store.redeliver(job.id), "it waits for its next attempt"
    assert task_store.claim("d", LEASE_S, BOTH).attempts == 2


def test_nothing_is_sent_once_more_where_nobody_is_to_be_told(store, task_store):
    assert task_store.redeliver(store.create(new_job(webhook_url=HOOK)).id) is False
    silent = store.create(new_job())
    store.cancel(silent.id)
    assert task_store.redeliver(silent.id) is False
    with pytest.raises(JobNotFound):
        task_store.redeliver("nowhere")
    assert not task_store.any_due(BOTH)


def test_with_a_job_all_of_it_is_deleted_also_while_it_is_run(store, task_store, database):
    job = ended(store)
    task_store.record_delivery(task_store.claim("a", LEASE_S, BOTH), REFUSED, 0.0)
    task = task_store.claim("b", LEASE_S, BOTH)
    store.delete(job.id)
    assert task_store.renew(task, LEASE_S) is False
    assert task_store.record_delivery(task, TAKEN) is False
    assert (count(database, outbox_tasks), count(database, deliveries)) == (0, 0)
    assert task_store.list_deliveries(job.id) == ()


def test_an_task_can_end_after_its_job(store, task_store, database):
    """One may be made while its job is deleted."""
    job = ended(store)
    task = task_store.claim("a", LEASE_S, BOTH)
    with database.writing() as connection:
        connection.execute(jobs.delete().where(jobs.c.id == job.id))
    assert task_store.renew(task, LEASE_S)
    assert task_store.record_delivery(task, REFUSED, 0.0)
    late = task_store.claim("b", LEASE_S, BOTH)
    assert late.owner == ""
    assert task_store.record_delivery(late, TAKEN)
    assert (count(database, outbox_tasks), count(database, deliveries)) == (0, 0)


def test_a_job_can_be_forgotten_before_anything_is_done(store, task_store):
    kept, dropped = to_fetch(store), to_fetch(store)
    task_store.delete_tasks(dropped.id)
    assert task_store.claim("a", LEASE_S, BOTH).job_id == kept.id
    assert task_store.claim("b", LEASE_S, BOTH) is None


def test_no_two_wait_for_each_other(store, task_store, open_again, clock):
    """Deleting, redelivering and noting lock the same rows from several processes at once."""
    made = [ended(store).id for _ in range(12)]
    others = [open_again(clock) for _ in range(3)]
    gate = threading.Barrier(3)
    faults: list[Exception] = []

    def guarded(work: Callable[[], None]) -> None:
        gate.wait(30)
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a deadlock has many names
            faults.append(error)

    def note() -> None:
        mine = OutboxStore(others[0])
        while task := mine.claim("r", LEASE_S, BOTH):
            mine.record_delivery(task, REFUSED, 60.0)

    def redeliver() -> None:
        mine = OutboxStore(others[1])
        for job_id in made * 3:
            try:
                mine.redeliver(job_id)
            except JobNotFound:
                continue

    def remove() -> None:
        mine = SqlJobStore(others[2])
        for job_id in made:
            mine.delete(job_id)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in (note, redeliver, remove)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert all(task_store.list_deliveries(job_id) == () for job_id in made)
