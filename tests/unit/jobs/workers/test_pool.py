"""Several real worker processes under one service."""

from __future__ import annotations

import logging
import os
import signal
from datetime import UTC, datetime

import pytest

from diarist.jobs.model import JobState, PoolStatus, WorkerReport
from diarist.types import ModelInfo

pytestmark = pytest.mark.slow

WAIT_S = 20.0
LONGER_THAN_THE_TEST_S = 3_600.0


@pytest.fixture
def pair(make_bench, until):
    """``pair(**settings)``: two workers, both ready."""

    def make(**settings: object):
        bench = make_bench(workers=2, **settings)
        until(lambda: [worker.state for worker in bench.service.pool_status().workers] == ["ready", "ready"])
        return bench

    return make


def test_jobs_run_in_parallel_and_each_one_once(pair):
    bench = pair()
    jobs = [bench.submit("wait go") for _ in range(2)]
    bench.until_begun(2)
    assert bench.counts() == (0, 2)
    assert sorted(map(int, bench.lines("begun"))) == sorted(bench.pids)
    bench.tell("go")
    jobs += [bench.submit(f"say {number}") for number in range(10)]
    done = [bench.service.wait(job.id, WAIT_S) for job in jobs]
    assert {(job.state, job.attempts) for job in done} == {(JobState.SUCCEEDED, 1)}
    assert len(bench.lines("begun")) == len(jobs)
    said = [bench.service.result(job.id).utterances[0].text for job in jobs[2:]]
    assert said == [f"say {number}" for number in range(10)]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_another_worker_runs_the_job_of_one_that_dies_or_hangs(pair, until, end):
    bench = pair(job_lease_s=3.0)
    job = bench.submit("wait go")
    bench.until_begun()
    (first,) = map(int, bench.lines("begun"))
    (other,) = set(bench.pids) - {first}
    bench.tell("no-network")  # whoever takes the place of the first one has no engine
    os.kill(first, end)
    bench.until_begun(2)
    assert int(bench.lines("begun")[1]) == other
    until(lambda: "error" in {worker.state for worker in bench.service.pool_status().workers})
    report = bench.service.pool_status()
    assert (report.state, len(report.errors)) == ("ready", 1)
    assert "models pull" in report.errors[0]
    bench.tell("go")
    done = bench.service.wait(job.id, WAIT_S)
    assert (done.state, done.attempts) == (JobState.SUCCEEDED, 2)
    assert other in bench.pids
    after = bench.submit("say on")
    assert bench.service.wait(after.id, WAIT_S).state is JobState.SUCCEEDED


def test_a_recording_that_kills_every_worker_fails_in_the_end(pair):
    bench = pair()
    job = bench.submit("die 100")
    failed = bench.service.wait(job.id, WAIT_S)
    assert (failed.state, failed.attempts) == (JobState.FAILED, 3)


def test_stop_ends_all_workers_at_once(pair):
    bench = pair()
    jobs = [bench.submit("block never") for _ in range(2)]
    bench.until_begun(2)
    bench.service.stop(timeout=LONGER_THAN_THE_TEST_S)
    assert bench.pids == ()
    assert [bench.store.get(job.id).state for job in jobs] == [JobState.QUEUED] * 2


def test_each_worker_sees_only_the_gpu_of_its_slot(make_bench, until, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7")
    bench = make_bench(engine="nemo", cpu_threads=3, files=("cuda",))
    until(lambda: [worker.state for worker in bench.service.pool_status().workers] == ["ready", "ready"])
    assert sorted(bench.lines("slots")) == ["5 3", "GPU-7 3"]
    devices = [worker.device for worker in bench.service.pool_status().workers]
    assert devices == ["cuda:5 (a card)", "GPU-7 (a card)"]
    assert bench.service.pool_status().device == "cuda:5 (a card), GPU-7 (a card)"
    job = bench.submit("say hello")
    bench.service.wait(job.id, WAIT_S)
    assert bench.service.result(job.id).device in devices
    assert "2 workers on GPUs 5, GPU-7 with 3 threads each" in caplog.text
    assert "on GPU GPU-7 started as process" in caplog.text


MODELS = (ModelInfo("parakeet", "recognition", "CC-BY-4.0"),)


def report(name: str, state: str, *errors: str, models=(), device: str = "") -> WorkerReport:
    return WorkerReport(name, 1, state, models, errors, datetime.now(UTC), device)


@pytest.mark.parametrize(
    ("states", "state"),
    [
        ((), "loading"),
        (("loading",), "loading"),
        (("error", "ready", "loading"), "ready"),
        (("error", "loading"), "loading"),
        (("error", "error"), "error"),
    ],
)
def test_a_pool_has_the_state_of_its_best_worker(states, state):
    assert PoolStatus.from_reports(report(str(n), each) for n, each in enumerate(states)).state == state


def test_a_pool_shows_the_models_of_its_best_and_the_errors_of_all():
    b = report("b", "error", "No disk.", "No network.")
    a = report("a", "ready", models=MODELS, device="cpu")
    c = report("c", "error", "No network.")
    pool = PoolStatus.from_reports((c, b, a))
    assert pool == PoolStatus("ready", MODELS, ("No disk.", "No network."), (a, b, c))
    assert pool.device == "cpu"
    assert PoolStatus.from_reports((b, c)).device is None


def test_a_loading_pool_shows_the_models_of_any_worker_that_reports_them():
    assert PoolStatus.from_reports((report("a", "loading"), report("b", "loading", models=MODELS))).models == MODELS
