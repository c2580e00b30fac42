"""A stateful model of jobs: whatever workers and callers do, in any order, the store agrees with the model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from diarist.errors import JobNotFound
from diarist.jobs.db.job_store import SqlJobStore
from diarist.jobs.db.leases import MAX_SERVICE_CRASHES, SERVICE_CRASHES_WITHOUT_DELAY
from diarist.jobs.db.outbox import WEBHOOK
from diarist.jobs.model import JobError, JobKind, JobState
from support.job_stores import (
    ATTEMPTS,
    LEASE_S,
    TRANSCRIPT,
    Clock,
    StoreLocation,
    clear,
    new_job,
    rows_naming,
    tasks_of,
    utterance,
)

WORKERS = ("w1", "w2", "w3")
OWNERS = ("a", "b")
FAULT = JobError("job_failed", "It went wrong. Try again.")
RETRY_S = 20.0
HOOK = "https://example.com/hook"

workers = st.sampled_from(WORKERS)
picks = st.integers(0, 63)
DEEDS = (
    "finalize",
    "finalize",
    "finalize",
    "retry",
    "retry",
    "die",
    "die",
    "all die",
    "hand back",
    "renew",
    "finish",
    "fail",
)
"""What workers do; the more often named, the more often tried."""
whose = st.sampled_from((None, None, None, *WORKERS))
"""A worker that says something of a job: mostly the one that holds it (None), now and then any."""

orders = st.tuples(
    st.sampled_from(OWNERS), st.sampled_from((JobKind.JOB, JobKind.JOB, JobKind.REQUEST)), st.integers(-1, 1),
    st.sampled_from((True, True, False)), st.booleans(),
)  # fmt: skip
"""Owner, kind, priority, whether the recording is there, whether somebody is told of the end."""


@dataclass
class Known:
    """What the model holds to be true of one job."""

    number: int
    owner: str
    kind: JobKind
    priority: int
    ready: bool
    webhook: bool
    state: JobState = JobState.QUEUED
    worker: str | None = None
    lease_until: float = 0.0
    not_before: float | None = None
    attempts: int = 0
    worker_crashes: int = 0
    service_crashes: int = 0
    finalized: int = 0
    told: list[str] = field(default_factory=lambda: ["queued"])

    def become(self, state: JobState) -> None:
        self.state = state
        if state is not JobState.RUNNING:
            self.worker = None
        self.told.append(state.value)


def somebody_works(machine: LifeOfJobs) -> bool:
    return any(known.state is JobState.RUNNING for known in machine.jobs.values())


class LifeOfJobs(RuleBasedStateMachine):
    """Against an empty store; seconds are those since the beginning."""

    store: SqlJobStore
    clock: Clock

    @initialize(first=st.lists(orders, min_size=2, max_size=4))
    def begin(self, first: list[tuple[str, JobKind, int, bool, bool]]) -> None:
        clear(self.store)
        self.began = self.clock.now
        self.jobs: dict[str, Known] = {}
        self.turns = dict.fromkeys(OWNERS, 0)
        self.turn = 0
        self.created = 0
        for order in first:
            self.put(*order)

    @property
    def now(self) -> float:
        return (self.clock.now - self.began).total_seconds()

    def pick(self, number: int) -> tuple[str, Known]:
        names = list(self.jobs)
        name = names[number % len(names)]
        return name, self.jobs[name]

    def pick_held(self, number: int, worker: str | None) -> tuple[str, Known, str]:
        """A job and who speaks of it: one that is held, by the one that holds it, unless ``worker`` says who."""
        held = [name for name, known in self.jobs.items() if known.state is JobState.RUNNING]
        if worker is None and held:
            name = held[number % len(held)]
            return name, self.jobs[name], self.jobs[name].worker or ""
        name, known = self.pick(number)
        return name, known, worker or WORKERS[0]

    def held(self, known: Known, worker: str) -> bool:
        return known.state is JobState.RUNNING and known.worker == worker

    @rule(order=orders)
    def create(self, order: tuple[str, JobKind, int, bool, bool]) -> None:
        self.put(*order)

    def put(self, owner: str, kind: JobKind, priority: int, ready: bool, webhook: bool) -> None:
        job = new_job(owner=owner, kind=kind, priority=priority, ready=ready, webhook_url=HOOK if webhook else None)
        self.store.create(job)
        self.created += 1
        self.jobs[job.id] = Known(self.created, owner, kind, priority, ready, webhook)

    @rule(seconds=st.sampled_from([1.0, 10.0, LEASE_S + 1, 120.0]))
    def time_goes_on(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(worker=workers, requests_only=st.sampled_from((False, False, False, True)))
    def claim(self, worker: str, requests_only: bool) -> None:
        self.give_back_lapsed(but_of=worker if requests_only else None)
        expected = self.next_one(requests_only=requests_only)
        taken = self.store.claim(worker, LEASE_S, ATTEMPTS, requests_only=requests_only)
        assert (taken and taken.id) == expected
        if taken is None:
            return
        known = self.jobs[taken.id]
        known.become(JobState.RUNNING)
        known.worker, known.lease_until, known.not_before = worker, self.now + LEASE_S, None
        known.attempts += 1
        self.turn += 1
        self.turns[known.owner] = self.turn

    @precondition(lambda self: self.jobs)
    @rule(
        deed=st.sampled_from(DEEDS),
        number=picks, worker=whose, seconds=st.sampled_from((0.0, RETRY_S + 1.0)), count=st.integers(0, 3),
    )  # fmt: skip
    def a_worker_does_its_part(self, deed: str, number: int, worker: str | None, seconds: float, count: int) -> None:
        """One rule for all that workers do, or most of it would hardly ever be tried on a job that somebody holds."""
        self.clock.advance(seconds)
        if not somebody_works(self):
            self.claim(WORKERS[number % len(WORKERS)], requests_only=False)
        match deed:
            case "renew":
                self.renew(number, worker, count / 3)
            case "finalize":
                self.finalize(number, worker, number % 3, count)
            case "finish":
                self.finish(number, worker)
            case "fail":
                self.fail(number, worker)
            case "retry":
                self.retry(number, worker)
            case "hand back":
                self.requeue(number, worker)
            case _:
                self.worker_dies(number, service_crash=deed == "all die")

    @precondition(lambda self: self.jobs)
    @rule(deed=st.sampled_from(("supply", "refuse", "cancel", "delete")), number=picks)
    def somebody_else_does_something(self, deed: str, number: int) -> None:
        match deed:
            case "supply":
                self.recording_comes(number)
            case "refuse":
                self.recording_cannot_be_had(number)
            case "cancel":
                self.cancel(number)
            case _:
                self.delete(number)

    def next_one(self, *, requests_only: bool) -> str | None:
        def fits(known: Known) -> bool:
            waits = known.not_before is not None and known.not_before > self.now
            wanted = known.kind is JobKind.REQUEST or not requests_only
            return known.state is JobState.QUEUED and known.ready and not waits and wanted

        def order(name: str) -> tuple[bool, int, int, int]:
            known = self.jobs[name]
            return known.kind is JobKind.JOB, -known.priority, self.turns[known.owner], known.number

        return min((name for name, known in self.jobs.items() if fits(known)), key=order, default=None)

    def give_back_lapsed(self, but_of: str | None = None) -> list[str]:
        """Whoever looks for requests while it works does not take itself for dead."""
        lapsed = [
            name for name, known in self.jobs.items()
            if known.state is JobState.RUNNING and known.lease_until < self.now and known.worker != but_of
        ]  # fmt: skip
        for name in lapsed:
            self.die(self.jobs[name], service_crash=False)
        return lapsed

    def die(self, known: Known, *, service_crash: bool) -> None:
        known.not_before = None
        if service_crash:
            known.service_crashes += 1
            gives_up = known.service_crashes >= MAX_SERVICE_CRASHES
            excess = known.service_crashes - SERVICE_CRASHES_WITHOUT_DELAY
            if excess > 0:
                known.not_before = self.now + min(2.0**excess, 60.0)
        else:
            known.worker_crashes += 1
            gives_up = known.worker_crashes >= ATTEMPTS
        known.become(JobState.FAILED if gives_up else JobState.QUEUED)

    def renew(self, number: int, worker: str | None, progress: float) -> None:
        name, known, worker = self.pick_held(number, worker)
        ours = self.held(known, worker)
        assert self.store.renew(name, worker, LEASE_S, "recognition", progress) is ours
        if ours:
            known.lease_until = self.now + LEASE_S

    def finalize(self, number: int, worker: str | None, first: int, count: int) -> None:
        name, known, worker = self.pick_held(number, worker)
        ours = self.held(known, worker)
        first = min(first, known.finalized)
        said = [utterance(str(index)) for index in range(first, first + count)]
        assert self.store.finalize(name, worker, first, said) is ours
        if ours and known.kind is JobKind.JOB:
            known.told += [str(index) for index in range(known.finalized, first + count)]
            known.finalized = max(known.finalized, first + count)

    def finish(self, number: int, worker: str | None) -> None:
        name, known, worker = self.pick_held(number, worker)
        ours = self.held(known, worker)
        assert self.store.finish(name, worker, TRANSCRIPT) is ours
        if ours:
            known.told += [str(index) for index in range(known.finalized, len(TRANSCRIPT.utterances))]
            known.finalized = len(TRANSCRIPT.utterances)
            known.become(JobState.SUCCEEDED)

    def fail(self, number: int, worker: str | None) -> None:
        name, known, worker = self.pick_held(number, worker)
        ours = self.held(known, worker)
        assert self.store.fail(name, worker, FAULT) is ours
        if ours:
            known.become(JobState.FAILED)

    def retry(self, number: int, worker: str | None) -> None:
        name, known, worker = self.pick_held(number, worker)
        ours = self.held(known, worker)
        assert self.store.retry(name, worker, FAULT, ATTEMPTS, RETRY_S) is ours
        faults = known.attempts - known.worker_crashes - known.service_crashes
        if ours and known.kind is JobKind.JOB and faults < ATTEMPTS:
            known.not_before = self.now + RETRY_S
            known.become(JobState.QUEUED)
        elif ours:
            known.become(JobState.FAILED)

    def requeue(self, number: int, worker: str | None) -> None:
        name, known, worker = self.pick_held(number, worker)
        ours = self.held(known, worker)
        assert self.store.requeue(name, worker) is ours
        if ours:
            known.attempts -= 1
            known.become(JobState.QUEUED)

    def worker_dies(self, number: int, service_crash: bool) -> None:
        _, _, worker = self.pick_held(number, None)
        lost = [name for name, known in self.jobs.items() if self.held(known, worker)]
        assert self.store.release(worker, ATTEMPTS, service_crash=service_crash) == tuple(lost)
        for name in lost:
            self.die(self.jobs[name], service_crash=service_crash)

    @precondition(somebody_works)
    @rule()
    def leases_run_out(self) -> None:
        assert self.store.release(None, ATTEMPTS) == tuple(self.give_back_lapsed())

    def recording_comes(self, number: int) -> None:
        name, known = self.pick(number)
        waits = known.state is JobState.QUEUED
        assert self.store.attach_recording(name, 7, "a.wav") is waits
        known.ready = known.ready or waits

    def recording_cannot_be_had(self, number: int) -> None:
        name, known = self.pick(number)
        waits = known.state is JobState.QUEUED and not known.ready
        assert self.store.reject(name, FAULT) is waits
        if waits:
            known.become(JobState.FAILED)

    def cancel(self, number: int) -> None:
        name, known = self.pick(number)
        if not known.state.ended:
            known.become(JobState.CANCELED)
        assert self.store.cancel(name).state is known.state

    def delete(self, number: int) -> None:
        name, _ = self.pick(number)
        self.store.delete(name)
        del self.jobs[name]
        assert rows_naming(self.store, name) == {}
        with pytest.raises(JobNotFound):
            self.store.get(name)

    @invariant()
    def jobs_are_as_the_model_says(self) -> None:
        for name, known in self.jobs.items():
            job = self.store.get(name)
            assert (job.state, job.worker, job.finalized, job.ready) == (
                known.state, known.worker, known.finalized, known.ready,
            )  # fmt: skip
            assert (job.attempts, job.worker_crashes, job.service_crashes) == (
                known.attempts, known.worker_crashes, known.service_crashes,
            )  # fmt: skip
            assert 0 <= job.worker_crashes <= ATTEMPTS
            assert 0 <= job.service_crashes <= MAX_SERVICE_CRASHES
            assert (job.ended_at is not None) == job.state.ended
            assert (job.error is not None) == (job.state is JobState.FAILED)
            assert job.error is None or job.error.message.endswith(".")
            assert (job.lease_until is not None) == (job.state is JobState.RUNNING)

    @invariant()
    def events_tell_what_the_model_saw(self) -> None:
        for name, known in self.jobs.items():
            events = self.store.list_events(name)
            assert [event.number for event in events] == list(range(1, len(events) + 1))
            told = [event.state.value if event.state is not None else str(event.index) for event in events]
            assert told == (known.told if known.kind is JobKind.JOB else [])
            assert sum(event.state is not None and event.state.ended for event in events) <= 1

    @invariant()
    def whoever_asked_is_told_of_the_end_once(self) -> None:
        for name, known in self.jobs.items():
            told = [(WEBHOOK, f'{{"event": "job.{known.state}"}}')] if known.webhook and known.state.ended else []
            assert tasks_of(self.store, name) == told

    def teardown(self) -> None:
        """No dead ends: with time, and recordings, and one worker that does its work, every job comes to an end."""
        if not hasattr(self, "jobs"):
            return
        for name, known in self.jobs.items():
            if known.state is JobState.QUEUED and not known.ready:
                assert self.store.attach_recording(name, 7, "a.wav")
        self.clock.advance(LEASE_S + 120.0)
        for _ in range(len(self.jobs) + 1):
            job = self.store.claim("last", LEASE_S, ATTEMPTS)
            if job is None:
                break
            assert self.store.finish(job.id, "last", TRANSCRIPT)
        for name, known in self.jobs.items():
            job = self.store.get(name)
            assert job.state.ended, f"{name} waits for ever: {job}"
            assert not known.state.ended or job.state is known.state, "what has ended has changed"
            if job.spec.kind is JobKind.JOB:
                ends = [
                    event for event in self.store.list_events(name) if event.state is not None and event.state.ended
                ]
                assert len(ends) == 1


@contextmanager
def machine(place: StoreLocation) -> Iterator[type[LifeOfJobs]]:
    shared_clock = Clock()
    opened = place.open(shared_clock)

    class Life(LifeOfJobs):
        store = opened
        clock = shared_clock

    try:
        yield Life
    finally:
        opened.close()


@pytest.mark.slow
def test_the_life_of_jobs_in_sqlite():
    with tempfile.TemporaryDirectory() as folder, machine(StoreLocation("sqlite", folder)) as life:
        run_state_machine_as_test(
            life, settings=settings(max_examples=40, stateful_step_count=50, deadline=None, database=None)
        )


@pytest.mark.slow
def test_the_life_of_jobs_in_postgresql(postgres_server):
    with machine(StoreLocation("postgres", postgres_server.fresh_database())) as life:
        run_state_machine_as_test(
            life, settings=settings(max_examples=10, stateful_step_count=40, deadline=None, database=None)
        )
