from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from diarist.errors import Cancelled, StoreUnavailable
from diarist.jobs.db.database import Database
from diarist.jobs.db.job_store import SqlJobStore
from diarist.jobs.db.outbox import FETCH, WEBHOOK, OutboxStore, OutboxTask
from diarist.jobs.db.sqlite import open_sqlite
from diarist.jobs.model import Job, JobKind, JobSpec, JobState, new_job_id
from diarist.jobs.outbox.runner import MAX_CRASHES, OutboxRunner


class Scripted:
    """Runs tasks as ``act`` says."""

    def __init__(self, outbox: OutboxStore, act: Callable[[OutboxTask, Callable[[], None]], None]) -> None:
        self.outbox = outbox
        self.act = act
        self.begun: list[OutboxTask] = []
        self.failures: list[tuple[Exception, bool]] = []

    def run(self, task: OutboxTask, check: Callable[[], None]) -> None:
        self.begun.append(task)
        self.act(task, check)

    def failed(self, task: OutboxTask, error: Exception, *, last: bool = False) -> None:
        self.failures.append((error, last))
        self.outbox.complete(task)


def wait_for(event: threading.Event, check: Callable[[], None]) -> None:
    while not event.wait(0.02):
        check()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(open_sqlite(tmp_path / "jobs.sqlite3"))
    yield database
    database.close()


@pytest.fixture
def store(database) -> SqlJobStore:
    return SqlJobStore(database)


@pytest.fixture
def outbox(database) -> OutboxStore:
    return OutboxStore(database)


@pytest.fixture
def start() -> Iterator[Callable[..., OutboxRunner]]:
    runners: list[OutboxRunner] = []
    before = set(threading.enumerate())

    def make(*args: object, **options: object) -> OutboxRunner:
        runner = OutboxRunner(*args, **{"poll_s": 0.05, **options})
        runners.append(runner)
        runner.start()
        return runner

    yield make
    for runner in runners:
        runner.stop()
    assert [thread for thread in set(threading.enumerate()) - before if thread.is_alive()] == []


def to_fetch(store: SqlJobStore, owner: str = "") -> Job:
    spec = JobSpec(kind=JobKind.JOB, source_url="https://example.com/x", owner=owner)
    return store.create(Job(new_job_id(), JobState.QUEUED, spec, datetime.now(UTC), ready=False, recording=False))


def to_tell(store: SqlJobStore) -> Job:
    spec = JobSpec(kind=JobKind.JOB, webhook_url="https://example.com/x")
    return store.cancel(store.create(Job(new_job_id(), JobState.QUEUED, spec, datetime.now(UTC))).id)


def test_each_kind_is_run_by_its_handler(store, outbox, start, until):
    fetch, tell = (Scripted(outbox, lambda task, _: outbox.complete(task)) for _ in range(2))
    start(outbox, {FETCH: fetch, WEBHOOK: tell})
    fetched, told = to_fetch(store), to_tell(store)
    until(lambda: fetch.begun and tell.begun)
    assert [task.job_id for task in fetch.begun] == [fetched.id]
    assert [task.job_id for task in tell.begun] == [told.id]
    until(lambda: outbox.release() == 0 and not outbox.any_due((FETCH, WEBHOOK)))


def test_whoever_wakes_it_need_not_wait_for_its_next_look(store, outbox, start, until):
    fetch = Scripted(outbox, lambda task, _: outbox.complete(task))
    looked = threading.Event()
    runner = start(outbox, {FETCH: fetch}, poll_s=3_600.0)
    real = outbox.any_due
    outbox.any_due = lambda kinds: (looked.set(), real(kinds))[1]  # type: ignore[method-assign]
    runner.wake()
    assert looked.wait(20)
    to_fetch(store)
    runner.wake()
    until(lambda: fetch.begun)


def test_slow_downloads_do_not_hold_webhooks_up(store, outbox, start, until):
    release = threading.Event()

    def wait(task: OutboxTask, check: Callable[[], None]) -> None:
        wait_for(release, check)
        outbox.complete(task)

    fetch = Scripted(outbox, wait)
    tell = Scripted(outbox, lambda task, _: outbox.complete(task))
    for _ in range(3):
        to_fetch(store)
    start(outbox, {FETCH: fetch, WEBHOOK: tell}, {FETCH: 2, WEBHOOK: 1})
    until(lambda: fetch.begun)
    to_tell(store)
    until(lambda: tell.begun)
    release.set()
    until(lambda: len(fetch.begun) == 3)


def test_what_is_under_way_for_a_job_that_is_gone_has_ended_when_it_is_dropped(store, outbox, start, until):
    ended: list[str] = []

    def wait(task: OutboxTask, check: Callable[[], None]) -> None:
        try:
            wait_for(threading.Event(), check)
        finally:
            ended.append(task.job_id)

    fetch = Scripted(outbox, wait)
    gone, other = to_fetch(store, "a"), to_fetch(store, "b")
    runner = start(outbox, {FETCH: fetch}, {FETCH: 2})
    until(lambda: len(fetch.begun) == 2)
    store.delete(gone.id)
    runner.cancel(gone.id, 20)
    assert ended == [gone.id]
    runner.cancel(other.id, 0.0)
    runner.cancel("nobody's", 20)


def test_no_more_are_run_at_once_than_may_be(store, outbox, start, until):
    release, now, most = threading.Event(), [0], [0]
    lock = threading.Lock()

    def wait(task: OutboxTask, check: Callable[[], None]) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        wait_for(release, check)
        with lock:
            now[0] -= 1
        outbox.complete(task)

    for number in range(6):
        to_fetch(store, owner=str(number))
    fetch = Scripted(outbox, wait)
    start(outbox, {FETCH: fetch}, {FETCH: 2})
    until(lambda: len(fetch.begun) == 2)
    release.set()
    until(lambda: len(fetch.begun) == 6)
    assert most[0] == 2


def test_one_owner_leaves_room_for_others(store, outbox, start, until):
    release = threading.Event()

    def wait(task: OutboxTask, check: Callable[[], None]) -> None:
        wait_for(release, check)
        outbox.complete(task)

    for _ in range(6):
        to_fetch(store, owner="anna")
    fetch = Scripted(outbox, wait)
    start(outbox, {FETCH: fetch}, {FETCH: 4})
    until(lambda: len(fetch.begun) == 3)
    to_fetch(store, owner="bert")
    until(lambda: len(fetch.begun) == 4)
    assert sorted(task.owner for task in fetch.begun) == ["anna", "anna", "anna", "bert"]
    release.set()
    until(lambda: len(fetch.begun) == 7)


@pytest.mark.slow
def test_what_is_in_hand_stays_ours_beyond_its_first_lease(store, outbox, start, until):
    release, renewals = threading.Event(), []

    def wait(task: OutboxTask, check: Callable[[], None]) -> None:
        wait_for(release, check)
        outbox.complete(task)

    real = outbox.renew

    def renew(task: OutboxTask, lease_s: float) -> bool:
        renewals.append(real(task, lease_s))
        return renewals[-1]

    outbox.renew = renew  # type: ignore[method-assign]
    to_fetch(store)
    fetch = Scripted(outbox, wait)
    start(outbox, {FETCH: fetch}, lease_s=0.8)
    until(lambda: len(renewals) >= 6)  # beyond 0.8 s, a quarter of it apart
    assert all(renewals)
    assert len(fetch.begun) == 1
    release.set()
    until(lambda: not fetch.outbox.any_due((FETCH,)))


def test_what_is_not_ours_any_more_is_left(store, outbox, start, until):
    stopped = threading.Event()

    def wait(task: OutboxTask, check: Callable[[], None]) -> None:
        try:
            wait_for(threading.Event(), check)
        except Cancelled:
            stopped.set()
            raise

    job = to_fetch(store)
    fetch = Scripted(outbox, wait)
    start(outbox, {FETCH: fetch}, lease_s=0.4)
    until(lambda: fetch.begun)
    store.delete(job.id)
    assert stopped.wait(20)
    assert fetch.failures == []


def test_after_a_stop_another_takes_the_task_at_once(store, outbox, start, until):
    fetch = Scripted(outbox, lambda _, check: wait_for(threading.Event(), check))
    to_fetch(store)
    first = start(outbox, {FETCH: fetch})
    until(lambda: fetch.begun)
    first.stop()
    assert fetch.failures == []
    second = outbox.claim("other", 30.0, (FETCH,))
    assert (second.attempts, second.worker_crashes) == (1, 0)


def test_a_handler_that_does_not_stop_is_told_of(store, outbox, start, until, caplog):
    release = threading.Event()
    fetch = Scripted(outbox, lambda task, _: release.wait(20))
    to_fetch(store)
    runner = start(outbox, {FETCH: fetch})
    until(lambda: fetch.begun)
    with caplog.at_level(logging.WARNING, logger="diarist"):
        runner.stop(0.05)
    assert "1 tasks did not stop" in caplog.text
    release.set()


def test_a_fault_is_logged_and_given_to_the_handler(store, outbox, start, until, caplog):
    def fail(task: OutboxTask, _: Callable[[], None]) -> None:
        raise RuntimeError("nobody thought of it")

    job = to_fetch(store)
    fetch = Scripted(outbox, fail)
    with caplog.at_level(logging.WARNING, logger="diarist"):
        start(outbox, {FETCH: fetch})
        until(lambda: fetch.failures)
    ((error, last),) = fetch.failures
    assert (str(error), last) == ("nobody thought of it", False)
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.job_id == job.id


def test_stopping_that_nobody_asked_for_is_a_fault(store, outbox, start, until):
    """Handed back instead, it would be taken again at once, for ever."""

    def fail(task: OutboxTask, _: Callable[[], None]) -> None:
        raise Cancelled("for no reason")

    to_fetch(store)
    fetch = Scripted(outbox, fail)
    start(outbox, {FETCH: fetch})
    until(lambda: fetch.failures)
    assert len(fetch.begun) == 1


def test_one_that_takes_the_service_down_again_and_again_is_given_up(store, outbox, start, until):
    to_fetch(store)
    for _ in range(MAX_CRASHES):
        assert outbox.claim("doomed", 30.0, (FETCH,))
        assert outbox.release() == 1
    fetch = Scripted(outbox, lambda *_: None)
    start(outbox, {FETCH: fetch})
    until(lambda: fetch.failures)
    ((error, last),) = fetch.failures
    assert last
    assert str(MAX_CRASHES) in str(error)
    assert fetch.begun == []


def test_a_store_that_fails_is_told_of_once_and_outlived(store, outbox, start, until, caplog):
    failures: list[int] = []
    real = outbox.any_due

    def any_due(kinds: object) -> bool:
        if len(failures) < 4:
            failures.append(1)
            raise StoreUnavailable("The job store is locked.")
        return real(kinds)

    outbox.any_due = any_due  # type: ignore[method-assign]
    to_fetch(store)
    fetch = Scripted(outbox, lambda task, _: outbox.complete(task))
    with caplog.at_level(logging.WARNING, logger="diarist"):
        start(outbox, {FETCH: fetch})
        until(lambda: fetch.begun)
    assert caplog.text.count("The job store is locked.") == 1


def test_an_end_that_cannot_be_kept_is_told_of_and_the_task_is_tried_again(store, outbox, start, until, caplog):
    tries: list[OutboxTask] = []

    def fail_once(task: OutboxTask, _: Callable[[], None]) -> None:
        tries.append(task)
        if len(tries) == 1:
            raise StoreUnavailable("The job store is locked.")
        outbox.complete(task)

    class Forgetful(Scripted):
        def failed(self, task: OutboxTask, error: Exception, *, last: bool = False) -> None:
            raise StoreUnavailable("It is locked still.")

    to_fetch(store)
    with caplog.at_level(logging.WARNING, logger="diarist"):
        start(outbox, {FETCH: Forgetful(outbox, fail_once)}, lease_s=0.4)
        until(lambda: len(tries) == 2)
    assert "It is locked still." in caplog.text
    assert tries[1].worker_crashes == 1


def test_one_that_was_never_started_can_be_stopped(outbox):
    OutboxRunner(outbox, {}).stop()
