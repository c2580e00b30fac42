"""The worker as a real process under its supervisor: what it does, and all the ways in which it ends."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from diarist.errors import Cancelled, EngineUnavailable, JobFailed, JobNotFound, NotAudio
from diarist.jobs.db.job_store import open_store
from diarist.jobs.model import JobState
from diarist.jobs.service import JobService
from diarist.jobs.workers.ipc import WorkerConfig

pytestmark = pytest.mark.slow

ENTRIES = Path(__file__).parents[1]
WAIT_S = 20.0
LONGER_THAN_THE_TEST_S = 3_600.0


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_recording_becomes_a_transcript_and_nothing_is_left(bench):
    job = bench.submit("say hello")
    assert (bench.settings.media_dir / job.id / "recording").read_text() == "say hello"
    done = bench.service.wait(job.id, WAIT_S)
    assert (done.state, done.attempts, done.progress) == (JobState.SUCCEEDED, 1, 1.0)
    assert bench.service.result(job.id).utterances[0].text == "say hello"
    bench.service.discard(job.id)
    assert list(bench.settings.media_dir.iterdir()) == []
    with pytest.raises(JobNotFound):
        bench.service.get(job.id)


def test_the_engine_is_loaded_once_for_many_jobs(bench):
    jobs = [bench.submit(f"say {number}") for number in range(5)]
    for number, job in enumerate(jobs):
        bench.service.wait(job.id, WAIT_S)
        assert bench.service.result(job.id).utterances[0].text == f"say {number}"
    assert len(bench.lines("loads")) == 1
    report = bench.service.report()
    assert (report.models[0].state, report.device, len(report.workers)) == ("ready", "cpu", 1)


def test_progress_is_seen_while_the_work_goes_on(bench, until):
    job = bench.submit("wait go")
    until(lambda: bench.service.get(job.id).stage == "wait")
    assert bench.service.get(job.id).progress == 0.5
    assert bench.service.counts() == (0, 1)
    bench.tell("go")
    assert bench.service.wait(job.id, WAIT_S).state is JobState.SUCCEEDED


def test_a_fault_of_the_recording_reaches_the_caller_as_it_is(bench):
    job = bench.submit("not-audio")
    assert bench.service.wait(job.id, WAIT_S).state is JobState.FAILED
    with pytest.raises(NotAudio, match="Send a recording"):
        bench.service.result(job.id)


@pytest.mark.parametrize("order", ["bug", "nan"])
def test_a_fault_of_the_service_gives_nothing_away_and_the_worker_goes_on(bench, order, caplog):
    job = bench.submit(order)
    bench.service.wait(job.id, WAIT_S)
    with pytest.raises(JobFailed, match="r-1") as caught:
        bench.service.result(job.id)
    assert "secret" not in str(caught.value)
    after = bench.submit("say on")
    assert bench.service.wait(after.id, WAIT_S).state is JobState.SUCCEEDED
    assert len(bench.lines("loads")) == 1
    record = next(record for record in caplog.records if record.getMessage() == "Job failed at attempt 1")
    assert (record.request_id, record.job_id) == ("r-1", job.id)
    assert "Traceback" in record.details


def test_the_log_tells_the_way_of_a_job(bench, caplog):
    caplog.set_level(logging.INFO)
    job = bench.submit("say hello", filename="secret name.wav")
    bench.service.wait(job.id, WAIT_S)
    bench.service.stop()
    said = [record.getMessage() for record in caplog.records if getattr(record, "job_id", None) == job.id]
    for words in ("Job queued", "Job claimed: 9 bytes, attempt 1", "Job finished: 1.0 s of audio",
                  "by by ear and model on cpu: decode 0.10 s"):  # fmt: skip
        assert any(words in line for line in said), words
    assert "a library's own chatter on stdout" in caplog.text
    assert "secret name" not in caplog.text


def test_a_worker_killed_in_mid_job_is_replaced_and_the_job_is_done(make_bench, until):
    bench = make_bench(job_lease_s=3_600.0)  # which nobody waits for
    bench.until_ready()
    job = bench.submit("wait go")
    bench.until_begun()
    first = bench.pid
    os.kill(first, signal.SIGKILL)
    bench.until_begun(2)
    assert bench.pid != first
    bench.tell("go")
    done = bench.service.wait(job.id, WAIT_S)
    assert (done.state, done.attempts) == (JobState.SUCCEEDED, 2)
    until(lambda: gone(first))


def test_a_recording_that_kills_every_worker_fails_with_the_reason(bench):
    job = bench.submit("die 100")
    failed = bench.service.wait(job.id, WAIT_S)
    assert (failed.state, failed.attempts) == (JobState.FAILED, 3)
    with pytest.raises(JobFailed, match="crashed 3 times"):
        bench.service.result(job.id)
    after = bench.submit("say on")
    assert bench.service.wait(after.id, WAIT_S).state is JobState.SUCCEEDED


def test_a_canceled_job_stops_and_the_next_one_begins(bench, until):
    job = bench.submit("wait never")
    after = bench.submit("say on")
    bench.until_begun()
    assert bench.service.cancel(job.id).state is JobState.CANCELED
    with pytest.raises(Cancelled):
        bench.service.result(job.id)
    bench.until_begun(2)
    assert bench.service.wait(after.id, WAIT_S).state is JobState.SUCCEEDED
    assert len(bench.lines("loads")) == 1


def test_a_job_that_is_deleted_in_mid_work_stops_and_its_waiter_hears_of_it(bench):
    job = bench.submit("wait never")
    after = bench.submit("say on")
    bench.until_begun()
    bench.service.discard(job.id)
    with pytest.raises(JobNotFound):
        bench.service.wait(job.id, WAIT_S)
    assert bench.service.wait(after.id, WAIT_S).state is JobState.SUCCEEDED
    bench.service.discard(after.id)
    assert list(bench.settings.media_dir.iterdir()) == []


@pytest.mark.parametrize("order", ["wait never", "deaf never"])
def test_sigterm_gives_the_job_back_untried_and_ends_the_worker_soon(bench, order, until):
    job = bench.submit(order)
    bench.until_begun()
    first = bench.pid
    os.kill(first, signal.SIGTERM)
    until(lambda: gone(first) or bench.pids != (first,))
    bench.until_begun(2)
    assert bench.service.get(job.id).attempts == 1


@pytest.mark.parametrize("order", ["wait never", "deaf never", "child pids\ndeaf never"])
def test_stop_ends_every_process_and_queues_the_job_again(bench, order):
    job = bench.submit(order)
    bench.until_begun()
    pid = bench.pid
    bench.service.stop(timeout=LONGER_THAN_THE_TEST_S)
    assert gone(pid)
    assert all(gone(int(child)) for child in bench.lines("pids"))
    back = bench.store.get(job.id)
    assert (back.state, back.attempts) == (JobState.QUEUED, 0)
    with pytest.raises(EngineUnavailable, match="stopping"):
        bench.service.wait(job.id, WAIT_S)


def test_a_worker_that_hangs_is_killed_and_its_job_done_by_the_next(make_bench):
    bench = make_bench(job_lease_s=2.0)
    job = bench.submit("freeze 1")
    done = bench.service.wait(job.id, WAIT_S)
    assert (done.state, done.attempts) == (JobState.SUCCEEDED, 2)
    assert len(bench.lines("loads")) == 2


def test_a_worker_that_hangs_while_it_loads_is_shown(make_bench, until):
    bench = make_bench(files=("freeze-while-loading",), job_lease_s=1.0)
    until(lambda: bench.service.report().state == "error")
    assert "no sign of life" in bench.service.report().errors[0]
    (bench.folder / "freeze-while-loading").unlink()
    bench.until_ready()


def test_loading_may_take_longer_than_the_lease(make_bench, until):
    bench = make_bench(files=("long-loading",), job_lease_s=0.6)
    until(lambda: bench.lines("loads"))
    loads_since = time.monotonic()
    until(lambda: time.monotonic() - loads_since > 4 * bench.settings.job_lease_s)
    report = bench.service.report()
    assert (report.state, report.errors, report.device) == ("loading", (), None)
    assert [model.state for model in report.models] == ["loading"]
    bench.tell("loaded")
    bench.until_ready()
    assert len(bench.lines("loads")) == 1
    assert bench.service.report().device == "cpu"


def test_work_that_shows_no_progress_is_taken_for_stuck(make_bench):
    bench = make_bench(job_lease_s=1.0, job_stall_s=1.0)
    job = bench.submit("stall 1")
    done = bench.service.wait(job.id, WAIT_S)
    assert (done.state, done.attempts) == (JobState.SUCCEEDED, 2)


def test_long_native_work_keeps_its_lease(make_bench, until):
    bench = make_bench(job_lease_s=0.5)
    job = bench.submit("deaf go")
    bench.until_begun()
    first_lease = bench.service.get(job.id).lease_until
    until(lambda: (bench.service.get(job.id).lease_until - first_lease).total_seconds() > 1.5)
    bench.tell("go")
    done = bench.service.wait(job.id, WAIT_S)
    assert (done.state, done.attempts) == (JobState.SUCCEEDED, 1)


def test_what_a_killed_worker_started_goes_with_it(bench, until):
    bench.submit("child pids\nwait never")
    until(lambda: bench.lines("pids"))
    bench.until_begun()
    os.kill(bench.pid, signal.SIGKILL)
    until(lambda: gone(int(bench.lines("pids")[0])))


def test_an_engine_that_cannot_be_loaded_is_shown_and_tried_again(make_bench, until):
    bench = make_bench(files=("no-network",))
    until(lambda: bench.service.report().state == "error")
    assert bench.service.report().errors == (
        "No source of models can be reached. Connect, or run `diarist models pull`.",
    )
    job = bench.submit("say hello")
    with pytest.raises(EngineUnavailable, match="models pull"):
        bench.service.wait(job.id, WAIT_S)
    (bench.folder / "no-network").unlink()
    bench.until_ready()
    assert bench.service.report().errors == ()
    assert bench.service.wait(job.id, WAIT_S).state is JobState.SUCCEEDED


def test_an_unforeseen_fault_while_loading_gives_nothing_away(make_bench, until):
    bench = make_bench(files=("fault-while-loading",))
    until(lambda: bench.service.report().state == "error")
    assert "secret" not in " ".join(bench.service.report().errors)


def test_a_worker_that_dies_while_it_loads_is_shown_until_one_is_ready(make_bench, until):
    bench = make_bench(files=("die-while-loading",))
    until(lambda: len(bench.lines("loads")) >= 2 and bench.service.report().state == "error")
    assert "SIGKILL" in bench.service.report().errors[0]
    (bench.folder / "die-while-loading").unlink()
    bench.until_ready()
    assert bench.service.report().errors == ()
    assert len(bench.store.list_worker_reports()) == 1


def test_a_worker_that_cannot_be_started_is_shown(settings, until):
    store = open_store(settings)
    service = JobService(settings, store, ("/nowhere/python",))
    service.start()
    try:
        told: list[str] = []
        until(lambda: told.extend(service.report().errors) or told)
        assert "could not be started" in told[0]
        assert "nowhere" not in told[0]
    finally:
        service.stop()
        store.close()


def test_a_worker_whose_service_is_killed_ends_by_itself(make_settings, tmp_path, until):
    settings = make_settings()
    folder = tmp_path / "orders"
    folder.mkdir()
    service = subprocess.Popen(
        [
            sys.executable,
            str(ENTRIES / "service_entry.py"),
            str(settings.data_dir),
            str(folder),
            "child pids\ndeaf never",
        ]
    )
    try:
        until(lambda: (folder / "pids").exists() and (folder / "pids").read_text().endswith("\n"))
        worker, child = int((folder / "begun").read_text()), int((folder / "pids").read_text())
    finally:
        service.kill()
        service.wait(WAIT_S)
    until(lambda: gone(worker) and gone(child), 5)


def test_a_worker_ends_when_its_stdin_does(settings, tmp_path):
    process = subprocess.Popen(
        [sys.executable, str(ENTRIES / "worker_entry.py"), str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0,
    )  # fmt: skip
    process.stdin.write(WorkerConfig("w", settings).dump())
    process.stdin.flush()
    events = iter(process.stdout.readline, b"")
    assert any(event == b"ready\n" for event in events)
    process.stdin.close()
    assert process.wait(3) == 0
    assert b"chatter" not in process.stdout.read()
    process.stdout.close()


def test_settings_of_the_command_line_reach_the_worker(settings):
    config = WorkerConfig("w", settings.model_copy(update={"job_attempts": 7}), "a fault", "GPU-7")
    assert WorkerConfig.load(config.dump()) == config
