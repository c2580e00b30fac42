"""Workers under failures around them: unavailable stores, suspended machines, no threads, unreadable jobs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from diarist.jobs.db.chunks import ChunkStore
from diarist.jobs.db.schema import jobs
from diarist.jobs.media.directory import DirectoryMedia
from diarist.jobs.model import JobKind, JobState
from diarist.jobs.workers.scatter import engine_signature, samples_part
from diarist.jobs.workers.supervisor import STOPPED_S, Supervisor
from diarist.jobs.workers.worker_placement import WorkerSlot
from diarist.protocols import Chunk, Engine
from diarist.types import ModelInfo

pytestmark = pytest.mark.slow

ENTRIES = Path(__file__).parents[1]
WAIT_S = 20.0
LONGER_THAN_THE_TEST_S = 3_600.0


@contextmanager
def fleet_worker(bench) -> Iterator[None]:
    """A worker of a fleet, which has no job of its own."""
    slot = WorkerSlot(0, bench.settings.model_copy(update={"queue_url": "redis://of-a-fleet"}))
    command = (sys.executable, str(ENTRIES / "worker_entry.py"), str(bench.folder))
    supervisor = Supervisor(slot, bench.store, lambda: None, lambda: None, command)
    supervisor.start()
    try:
        yield
    finally:
        supervisor.stop(10.0)


def test_a_failed_chunk_is_released_and_its_worker_continues(make_bench, until, caplog):
    bench = make_bench(start=False)
    store, media, chunks = bench.store, DirectoryMedia(bench.settings.media_dir), ChunkStore(bench.store.database)
    bench.submit("a long recording", kind=JobKind.JOB)
    job = store.claim("holder", 600.0, 3)
    media.store_part(job.id, samples_part(0), b"")
    engine = Engine("scripted", None, None, (ModelInfo("model", "recognition", "MIT"),))
    chunk = Chunk("recognition", 0, 0, 0, b"not a chunk")
    chunks.add(job.id, engine_signature(engine), "any", 0, [chunk])

    def failures() -> int:
        return sum(record.getMessage() == "Chunk failed" for record in caplog.records)

    with fleet_worker(bench):
        until(lambda: failures() > 1)
    assert len(bench.lines("loads")) == 1
    assert [state.worker_crashes for state in chunks.states(job.id).values()] == [0]


def test_a_worker_survives_a_database_that_is_silent_for_longer_than_a_lease(make_bench, postgres_server, until):
    bench = make_bench(database_url=postgres_server.fresh_database(), job_lease_s=2.0)
    job = bench.submit("wait go", kind=JobKind.JOB)
    bench.until_begun()
    with postgres_server.frozen():
        stopped_at = time.monotonic()
        until(lambda: time.monotonic() - stopped_at > 3 * bench.settings.job_lease_s)
    bench.tell("go")
    done = bench.service.wait(job.id, 60)
    assert (done.state, done.attempts, done.worker_crashes) == (JobState.SUCCEEDED, 1, 0)
    assert len(bench.lines("loads")) == 1


def test_a_worker_survives_a_machine_that_is_suspended_for_longer_than_a_lease(make_bench):
    """As when a container is paused, or a laptop sleeps: all processes stop, and continue."""
    bench = make_bench(job_lease_s=2.0)
    job = bench.submit("wait go", kind=JobKind.JOB)
    bench.until_begun()
    stop_and_continue = (
        "import os, signal, sys, time\n"
        "for number in (signal.SIGSTOP, signal.SIGCONT):\n"
        "    for pid in sys.argv[1:]: os.kill(int(pid), number)\n"
        "    time.sleep(5)"
    )
    subprocess.run([sys.executable, "-c", stop_and_continue, str(os.getpid()), str(bench.pid)], check=True)
    bench.tell("go")
    done = bench.service.wait(job.id, WAIT_S)
    assert (done.state, done.worker_crashes) == (JobState.SUCCEEDED, 0)
    assert len(bench.lines("loads")) == 1


def test_a_worker_that_hangs_while_it_drains_is_killed(make_bench):
    bench = make_bench(job_lease_s=1.0)
    job = bench.submit("freeze 1", kind=JobKind.JOB)
    bench.until_begun()
    bench.service._pool.drain(LONGER_THAN_THE_TEST_S)
    assert bench.store.get(job.id).state is JobState.QUEUED


def test_a_worker_that_was_stopped_with_the_lock_of_the_store_does_not_stop_the_others(make_bench, until, caplog):
    bench = make_bench(job_lease_s=600.0)
    job = bench.submit("freeze-with-lock 1", kind=JobKind.JOB)
    bench.until_begun()
    # This has to write, and waits for at most ten seconds.
    other = bench.submit("say on", kind=JobKind.JOB)
    done = bench.service.wait(job.id, WAIT_S)
    assert (done.state, done.worker_crashes) == (JobState.SUCCEEDED, 1)
    assert bench.service.wait(other.id, WAIT_S).state is JobState.SUCCEEDED
    assert "was stopped while it had locked the job store" in caplog.text


def test_a_worker_that_was_stopped_without_the_lock_may_continue(make_bench, until):
    bench = make_bench(job_lease_s=600.0)
    job = bench.submit("wait go", kind=JobKind.JOB)
    bench.until_begun()
    pid = bench.pid
    os.kill(pid, signal.SIGSTOP)
    while bench.store.write_lock_is_held():  # it was renewing its lease
        os.kill(pid, signal.SIGCONT)
        os.kill(pid, signal.SIGSTOP)
    until(lambda: bench.service._pool._supervisors[0]._process.silent_s > 2 * STOPPED_S)
    os.kill(pid, signal.SIGCONT)
    bench.tell("go")
    done = bench.service.wait(job.id, WAIT_S)
    assert (done.state, done.worker_crashes, bench.pid) == (JobState.SUCCEEDED, 0, pid)


def test_the_service_survives_a_system_that_allows_no_more_threads(make_bench, until, monkeypatch, caplog):
    bench = make_bench()
    bench.until_ready()
    start, refused = threading.Thread.start, ["worker-messages", "worker-log"]

    def refuse_some(thread: threading.Thread) -> None:
        if thread.name in refused:
            refused.remove(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_some)
    os.kill(bench.pid, signal.SIGKILL)
    until(lambda: len(bench.lines("loads")) == 2)
    bench.until_ready()
    job = bench.submit("say on", kind=JobKind.JOB)
    assert bench.service.wait(job.id, WAIT_S).state is JobState.SUCCEEDED
    assert "can't start new thread" in caplog.text


def test_a_worker_survives_a_job_that_cannot_be_read(make_bench, until, caplog):
    """A newer version may have written it."""
    bench = make_bench()
    bench.until_ready()
    job = bench.submit("say on", kind=JobKind.JOB)
    bench.service.wait(job.id, WAIT_S)
    with bench.store.database.writing() as connection:
        unreadable = {"options": '{"unheard": "of"}', "state": JobState.QUEUED, "ended_at": None}
        connection.execute(update(jobs).where(jobs.c.id == job.id).values(**unreadable))
    until(lambda: sum("unexpected error" in record.getMessage() for record in caplog.records) > 1)
    with bench.store.database.writing() as connection:
        connection.execute(delete(jobs))
    after = bench.submit("say on", kind=JobKind.JOB)
    assert bench.service.wait(after.id, WAIT_S).state is JobState.SUCCEEDED
    assert len(bench.lines("loads")) == 1


def test_a_worker_waits_between_chunks_whose_samples_are_missing(make_bench, until, caplog):
    """This happens if MEDIA_URL is not the same place on all machines."""
    bench = make_bench(start=False)
    store, chunks = bench.store, ChunkStore(bench.store.database)
    bench.submit("a long recording", kind=JobKind.JOB)
    job = store.claim("holder", 600.0, 3)
    engine = Engine("scripted", None, None, (ModelInfo("model", "recognition", "MIT"),))
    chunks.add(job.id, engine_signature(engine), "any", 0, [Chunk("recognition", 0, 1, 1, b"{}")])

    def dropped() -> int:
        return sum("the same place on all machines" in record.getMessage() for record in caplog.records)

    with fleet_worker(bench):
        until(lambda: dropped() > 0)
        began_at = time.monotonic()
        until(lambda: time.monotonic() - began_at > 3)
    assert dropped() <= 4
