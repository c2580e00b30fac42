from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from diarist.errors import Cancelled, StoreUnavailable
from diarist.jobs.workers.heartbeat import STOP_S, Heartbeat
from support.job_stores import new_job

pytestmark = pytest.mark.slow


class Leases:
    """The part of a job store that renews leases; ``answer`` is what ``renew`` returns or raises."""

    def __init__(self) -> None:
        self.answer: bool | Exception = True
        self.renewed: list[tuple[str, str, float, str, float]] = []
        self.lost = ""
        self.answers = threading.Event()
        self.answers.set()

    def renew(self, job_id: str, worker: str, lease_s: float, stage: str, progress: float) -> bool:
        self.renewed.append((job_id, worker, lease_s, stage, progress))
        assert self.answers.wait(30)
        if self.lost == job_id:
            return False
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Bench:
    def __init__(self, settings) -> None:
        self.store = Leases()
        self.heartbeats = 0
        self.reported: Exception | None = None
        self.shutdown = threading.Event()
        self.overdue = threading.Event()
        self.heartbeat = Heartbeat(
            self.store, "w", settings, self._send_alive, self._report, self.shutdown, self.overdue.set
        )

    def _send_alive(self) -> None:
        self.heartbeats += 1

    def _report(self) -> None:
        if self.reported is not None:
            raise self.reported

    def renewals(self, job_id: str) -> int:
        return sum(renewed[0] == job_id for renewed in self.store.renewed)


@pytest.fixture
def make_bench(make_settings) -> Callable[..., Bench]:
    return lambda **settings: Bench(make_settings(**{"job_lease_s": 0.5, **settings}))


def test_heartbeats_are_sent_without_a_job(make_bench, until):
    bench = make_bench()
    until(lambda: bench.heartbeats > 3)
    assert bench.store.renewed == []
    assert (bench.heartbeat.held_jobs, bench.heartbeat.depth) == ((), 0)
    assert bench.heartbeat.still_held() is False


def test_the_lease_of_a_job_is_renewed_with_its_latest_progress(make_bench, until):
    bench, job = make_bench(), new_job()
    with bench.heartbeat.hold_job(job):
        assert bench.heartbeat.held_jobs == (job,)
        until(lambda: bench.renewals(job.id) > 2)
        for done in (0.25, 0.1, 7.0):
            bench.heartbeat.progress("recognition", done)
        until(lambda: bench.store.renewed[-1] == (job.id, "w", 0.5, "recognition", 1.0))
    count = bench.renewals(job.id)
    until(lambda: (heartbeats := bench.heartbeats) and heartbeats > count + 2)
    assert bench.renewals(job.id) <= count + 1


def test_the_lease_of_an_interrupted_job_is_renewed_too(make_bench, until):
    bench, first, second = make_bench(), new_job(), new_job()
    with bench.heartbeat.hold_job(first):
        bench.heartbeat.progress("recognition", 0.4)
        with bench.heartbeat.hold_job(second):
            bench.heartbeat.progress("decode", 0.1)
            assert (bench.heartbeat.held_jobs, bench.heartbeat.depth) == ((first, second), 2)
            before = bench.renewals(first.id)
            until(lambda: bench.renewals(first.id) > before + 1 and bench.renewals(second.id) > 1)
        assert bench.heartbeat.held_jobs == (first,)
        until(lambda: bench.store.renewed[-1][3:] == ("recognition", 0.4))


def test_work_on_a_lost_job_stops_at_its_next_step(make_bench, until):
    bench, job = make_bench(), new_job()
    with bench.heartbeat.hold_job(job), bench.heartbeat.executing():
        bench.heartbeat.progress("recognition", 0.4)
        bench.store.answer = False
        until(lambda: bench.heartbeat.held_jobs == ())
        with pytest.raises(Cancelled, match="canceled"):
            bench.heartbeat.progress("recognition", 0.5)
        assert bench.heartbeat.still_held() is False
    assert not bench.overdue.is_set()


def test_work_that_does_not_stop_is_overdue(make_bench):
    bench = make_bench()
    bench.store.answer = False
    with bench.heartbeat.hold_job(new_job()), bench.heartbeat.executing():
        assert bench.overdue.wait(20)


def test_nothing_is_overdue_while_the_outcome_is_being_stored(make_bench, until):
    bench, job = make_bench(), new_job()
    with bench.heartbeat.hold_job(job):
        with bench.heartbeat.executing():
            bench.heartbeat.progress("recognition", 1.0)
        bench.store.answer = False
        until(lambda: bench.heartbeat.held_jobs == ())
        assert not bench.overdue.wait(2 * STOP_S)
        heartbeats = bench.heartbeats
        until(lambda: bench.heartbeats > heartbeats)


def test_interrupted_work_can_be_overdue_only_once_it_resumes(make_bench, until):
    bench, first, second = make_bench(), new_job(), new_job()
    with bench.heartbeat.hold_job(first), bench.heartbeat.executing():
        with bench.heartbeat.hold_job(second):
            with bench.heartbeat.executing():
                pass
            bench.store.answer = False
            until(lambda: bench.heartbeat.held_jobs == ())
            assert not bench.overdue.wait(2 * STOP_S)
        assert bench.overdue.wait(20)


def test_a_lease_survives_an_unavailable_store(make_bench, until):
    bench, job = make_bench(), new_job()
    bench.store.answer = StoreUnavailable("Away.")
    with bench.heartbeat.hold_job(job):
        until(lambda: bench.renewals(job.id) > 2)
        bench.heartbeat.progress("recognition", 0.5)
        assert bench.heartbeat.held_jobs == (job,)
        assert bench.heartbeat.still_held() is True
        bench.store.answer = True
        before = bench.heartbeats
        until(lambda: bench.heartbeats > before + 1)


def test_work_stops_when_the_worker_must_exit(make_bench):
    bench = make_bench()
    bench.shutdown.set()
    with bench.heartbeat.hold_job(new_job()), pytest.raises(Cancelled, match="stop"):
        bench.heartbeat.progress("recognition", 0.5)


def test_stalled_work_stops_heartbeats_until_it_continues(make_bench, until):
    bench, job = make_bench(job_stall_s=1.0), new_job()
    with bench.heartbeat.hold_job(job):
        until(lambda: bench.heartbeats > 1)
        quiet = threading.Event()

        def is_quiet() -> bool:
            before = bench.heartbeats
            quiet.wait(0.6)  # several beats
            return bench.heartbeats == before

        until(is_quiet)
        heartbeats = bench.heartbeats
        bench.heartbeat.progress("recognition", 0.5)
        until(lambda: bench.heartbeats > heartbeats)


def test_a_requested_renewal_happens_soon(make_bench, until):
    bench, job = make_bench(job_lease_s=3_600.0), new_job()
    with bench.heartbeat.hold_job(job):
        until(lambda: bench.renewals(job.id) > 0)
        bench.store.answer = False
        bench.heartbeat.renew_soon()
        until(lambda: bench.heartbeat.held_jobs == (), 5)


def test_a_job_that_is_lost_while_interrupted_gets_time_to_stop_when_it_resumes(make_bench, until):
    bench, first, second = make_bench(), new_job(), new_job()
    with bench.heartbeat.hold_job(first), bench.heartbeat.executing():
        with bench.heartbeat.hold_job(second), bench.heartbeat.executing():
            bench.store.lost = first.id
            until(lambda: bench.heartbeat.held_jobs == (second,))
            assert not bench.overdue.wait(2 * STOP_S)
        back_at = time.monotonic()
        assert bench.overdue.wait(20)
        assert time.monotonic() - back_at >= 0.9 * STOP_S


def test_heartbeats_continue_while_the_store_does_not_answer(make_bench, until):
    bench, job = make_bench(), new_job()
    bench.store.answers.clear()
    with bench.heartbeat.hold_job(job), bench.heartbeat.executing():
        until(lambda: bench.renewals(job.id) > 0)
        heartbeats = bench.heartbeats
        until(lambda: bench.heartbeats > heartbeats + 5)
        assert bench.renewals(job.id) == 1
        bench.store.answers.set()
        until(lambda: bench.renewals(job.id) > 1)


@pytest.mark.parametrize("error", [StoreUnavailable("Away."), RuntimeError("nobody thought of it")])
def test_a_failed_report_does_not_stop_renewals(make_bench, until, error, caplog):
    bench, job = make_bench(), new_job()
    bench.reported = error
    with bench.heartbeat.hold_job(job):
        until(lambda: bench.renewals(job.id) > 3)
    bench.reported = None  # its thread goes on in other tests
    assert str(error) in caplog.text


def test_touched_work_is_not_stalled(make_bench, until):
    bench = make_bench(job_stall_s=1.0)
    with bench.heartbeat.hold_job(new_job()):
        began_at = time.monotonic()
        while time.monotonic() - began_at < 2.0:
            bench.heartbeat.touch()
        heartbeats = bench.heartbeats
        until(lambda: bench.heartbeats > heartbeats)
        assert bench.heartbeat.store_answered_at > began_at
