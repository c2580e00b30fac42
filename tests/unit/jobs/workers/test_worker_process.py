"""A real worker process under its supervisor: how it runs jobs, and how it ends."""

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


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_recording_becomes_a_transcript_and_no_file_remains(bench):
    job = bench.submit("say hello")
    assert (bench.settings.media_dir / job.id / "recording").read_text() == "say hello"
    done = bench.service.wait(job.id, WAIT_S)
    assert (done.state, done.attempts, done.progress) == (JobState.SUCCEEDED, 1, 1.0)
    assert bench.service.result(job.id).utterances[0].text == "say hello"
    bench.service.delete(job.id)
    assert list(bench.settings.media_dir.iterdir()) == []
    with pytest.raises(JobNotFound):
        bench.service.store.get(job.id)


def test_the_engine_is_loaded_once_for_many_jobs(bench):
    jobs = [bench.submit(f"say {number}") for number in range(5)]
    for number, job in enumerate(jobs):
        bench.service.wait(job.id, WAIT_S)
        assert bench.service.result(job.id).utterances[0].text == f"say {number}"
    assert len(bench.lines("loads")) == 1
    report = bench.service.pool_status()
    assert (report.models[0].state, report.device, len(report.workers)) == ("ready", "cpu", 1)


def test_progress_is_visible_during_a_job(bench, until):
    job = bench.submit("wait go")
    until(lambda: bench.service.store.get(job.id).stage == "wait")
    assert bench.service.store.get(job.id).progress == 0.5
    assert bench.counts() == (0, 1)
    bench.tell("go")
    assert bench.service.wait(job.id, WAIT_S).state is JobState.SUCCEEDED


def test_an_error_of_the_recording_is_reported_unchanged(bench):
    job = bench.submit("not-audio")
    assert bench.service.wait(job.id, WAIT_S).state is JobState.FAILED
    with pytest.raises(NotAudio, match="Send a recording"):
        bench.service.result(job.id)


@pytest.mark.parametrize("script", ["bug", "nan"])
def test_an_internal_error_is_not_disclosed_and_the_worker_continues(bench, script, caplog, until):
    job = bench.submit(script)
    bench.service.wait(job.id, WAIT_S)
    with pytest.raises(JobFailed, match="r-1") as caught:
        bench.service.result(job.id)
    assert "secret" not in str(caught.value)
    after = bench.submit("say on")
    assert bench.service.wait(after.id, WAIT_S).state is JobState.SUCCEEDED
    assert len(bench.lines("loads")) == 1
    told = "Job failed at attempt 1"
    until(lambda: told in caplog.messages)  # the worker's log comes by another way than the end of the job
    record = next(record for record in caplog.records if record.getMessage() == told)
    assert (record.request_id, record.job_id) == ("r-1", job.id)
    assert "Traceback" in record.details


def test_the_log_shows_the_steps_of_a_job(bench, caplog):
    caplog.set_level(logging.INFO)
    job = bench.submit("say hello", filename="secret name.wav")
    bench.service.wait(job.id, WAIT_S)
    bench.service.stop()
    messages = [record.getMessage() for record in caplog.records if getattr(record, "job_id", None) == job.id]
    for text in ("Job queued", "Job claimed: 9 bytes, attempt 1", "Job finished: 1.0 s of audio",
                  "by scripted and model on cpu: decode 0.10 s"):  # fmt: skip
        assert any(text in line for line in messages), text
    assert "a library's own output on stdout" in caplog.text
    assert "secret name" not in caplog.text


def test_a_worker_killed_during_a_job_is_replaced_and_the_job_succeeds(make_bench, until):
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
    until(lambda: has_ended(first))


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


def test_a_job_deleted_while_it_runs_stops_and_its_waiting_caller_is_told(bench):
    job = bench.submit("wait never")
    after = bench.submit("say on")
    bench.until_begun()
    bench.service.delete(job.id)
    with pytest.raises(JobNotFound):
        bench.service.wait(job.id, WAIT_S)
    assert bench.service.wait(after.id, WAIT_S).state is JobState.SUCCEEDED
    bench.service.delete(after.id)
    assert list(bench.settings.media_dir.iterdir()) == []


@pytest.mark.parametrize("script", ["wait never", "block never"])
def test_sigterm_requeues_the_job_as_untried_and_ends_the_worker_soon(bench, script, until, caplog):
    job = bench.submit(script)
    bench.until_begun()
    first = bench.pid
    os.kill(first, signal.SIGTERM)
    until(lambda: has_ended(first) or bench.pids != (first,))
    bench.until_begun(2)
    assert bench.service.store.get(job.id).attempts == 1
    assert "SIGKILL" not in caplog.text


@pytest.mark.parametrize("script", ["wait never", "block never", "child pids\nblock never"])
def test_stop_ends_every_process_and_requeues_the_job(bench, script):
    job = bench.submit(script)
    bench.until_begun()
    pid = bench.pid
    bench.service.stop(timeout=LONGER_THAN_THE_TEST_S)
    assert has_ended(pid)
    assert all(has_ended(int(child)) for child in bench.lines("pids"))
    back = bench.store.get(job.id)
    assert (back.state, back.attempts) == (JobState.QUEUED, 0)
    with pytest.raises(EngineUnavailable, match="stopping"):
        bench.service.wait(job.id, WAIT_S)


@pytest.mark.parametrize("script", ["wait never", "block never"])
def test_stop_requeues_the_job_on_a_system_without_process_groups(make_bench, script, monkeypatch, caplog):
    monkeypatch.delattr(os, "killpg")
    bench = make_bench()
    job = bench.submit(script)
    bench.until_begun()
    pid = bench.pid
    bench.service.stop(timeout=LONGER_THAN_THE_TEST_S)
    assert has_ended(pid)
    back = bench.store.get(job.id)
    assert (back.state, back.attempts) == (JobState.QUEUED, 0)
    assert "is killed" not in caplog.text


def test_a_worker_that_hangs_is_killed_on_a_system_without_process_groups(make_bench, monkeypatch):
    monkeypatch.delattr(os, "killpg")
    bench = make_bench(job_lease_s=2.0)
    job = bench.submit("freeze 1")
    done = bench.service.wait(job.id, WAIT_S)
    assert (done.state, done.attempts) == (JobState.SUCCEEDED, 2)


def test_a_worker_that_hangs_is_killed_and_the_next_one_runs_its_job(make_bench):
    bench = make_bench(job_lease_s=2.0)
    job = bench.submit("freeze 1")
    done = bench.service.wait(job.id, WAIT_S)
    assert (done.state, done.attempts) == (JobState.SUCCEEDED, 2)
    assert len(bench.lines("loads")) == 2


def test_a_worker_that_hangs_while_it_loads_is_reported(make_bench, until):
    bench = make_bench(files=("freeze-while-loading",), job_lease_s=1.0)
    until(lambda: bench.service.pool_status().state == "error")
    assert "no heartbeat" in bench.service.pool_status().errors[0]
    (bench.folder / "freeze-while-loading").unlink()
    bench.until_ready()


def test_loading_may_take_longer_than_the_lease(make_bench, until):
    bench = make_bench(files=("long-loading",), job_lease_s=0.6)
    until(lambda: bench.lines("loads"))
    loads_since = time.monotonic()
    until(lambda: time.monotonic() - loads_since > 4 * bench.settings.job_lease_s)
    report = bench.service.pool_status()
    assert (report.state, report.errors, report.device) == ("loading", (), None)
    assert [model.state for model in report.models] == ["loading"]
    bench.tell("loaded")
    bench.until_ready()
    assert len(bench.lines("loads")) == 1
    assert bench.service.pool_status().device == "cpu"


def test_work_without_progress_is_considered_stalled(make_bench):
    bench = make_bench(job_lease_s=1.0, job_stall_s=1.0)
    job = bench.submit("stall 1")
    done = bench.service.wait(job.id, WAIT_S)
    assert (done.state, done.attempts) == (JobState.SUCCEEDED, 2)


def test_long_native_work_keeps_its_lease(make_bench, until):
    bench = make_bench(job_lease_s=0.5)
    job = bench.submit("block go")
    bench.until_begun()
    first_lease = bench.service.store.get(job.id).lease_until
    until(lambda: (bench.service.store.get(job.id).lease_until - first_lease).total_seconds() > 1.5)
    bench.tell("go")
    done = bench.service.wait(job.id, WAIT_S)
    assert (done.state, done.attempts) == (JobState.SUCCEEDED, 1)


def test_child_processes_of_a_killed_worker_are_killed(bench, until):
    bench.submit("child pids\nwait never")
    until(lambda: bench.lines("pids"))
    bench.until_begun()
    os.kill(bench.pid, signal.SIGKILL)
    until(lambda: has_ended(int(bench.lines("pids")[0])))


def test_an_engine_that_cannot_be_loaded_is_reported_and_retried(make_bench, until):
    bench = make_bench(files=("no-network",))
    until(lambda: bench.service.pool_status().state == "error")
    assert bench.service.pool_status().errors == (
        "No source of models can be reached. Connect, or run `diarist models pull`.",
    )
    job = bench.submit("say hello")
    with pytest.raises(EngineUnavailable, match="models pull"):
        bench.service.wait(job.id, WAIT_S)
    (bench.folder / "no-network").unlink()
    bench.until_ready()
    assert bench.service.pool_status().errors == ()
    assert bench.service.wait(job.id, WAIT_S).state is JobState.SUCCEEDED


def test_an_unexpected_error_while_loading_is_not_disclosed(make_bench, until):
    bench = make_bench(files=("fault-while-loading",))
    until(lambda: bench.service.pool_status().state == "error")
    assert "secret" not in " ".join(bench.service.pool_status().errors)


def test_a_worker_that_dies_while_it_loads_is_reported_until_one_is_ready(make_bench, until):
    bench = make_bench(files=("die-while-loading",))
    until(lambda: len(bench.lines("loads")) >= 2 and bench.service.pool_status().state == "error")
    assert "SIGKILL" in bench.service.pool_status().errors[0]
    (bench.folder / "die-while-loading").unlink()
    bench.until_ready()
    assert bench.service.pool_status().errors == ()
    assert len(bench.store.list_worker_reports()) == 1


def test_a_worker_that_cannot_be_started_is_reported(settings, until):
    store = open_store(settings)
    service = JobService(settings, store, ("/nowhere/python",))
    service.start()
    try:
        errors: list[str] = []
        until(lambda: errors.extend(service.pool_status().errors) or errors)
        assert "could not be started" in errors[0]
        assert "nowhere" not in errors[0]
    finally:
        service.stop()
        store.close()


def test_a_worker_whose_service_is_killed_ends_by_itself(make_settings, tmp_path, until):
    settings = make_settings()
    folder = tmp_path / "exchange"
    folder.mkdir()
    service = subprocess.Popen(
        [
            sys.executable,
            str(ENTRIES / "service_entry.py"),
            str(settings.data_dir),
            str(folder),
            "child pids\nblock never",
        ]
    )
    try:
        until(lambda: (folder / "pids").exists() and (folder / "pids").read_text().endswith("\n"))
        worker, child = int((folder / "begun").read_text()), int((folder / "pids").read_text())
    finally:
        service.kill()
        service.wait(WAIT_S)
    until(lambda: has_ended(worker) and has_ended(child), 5)


def test_a_worker_exits_when_its_stdin_ends(settings, tmp_path):
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
    assert b"library" not in process.stdout.read()
    process.stdout.close()


def test_settings_of_the_command_line_reach_the_worker(settings):
    config = WorkerConfig("w", settings.model_copy(update={"job_attempts": 7}), "a fault", "GPU-7")
    assert WorkerConfig.load(config.dump()) == config
