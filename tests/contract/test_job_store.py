"""The contract of ``JobStore``: the life of one job, with any number of threads and processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from diarist.errors import JobNotFound
from diarist.jobs.model import JobError, JobKind, JobState, WorkerReport
from diarist.jobs.store import JobStore
from diarist.types import Diarization, ModelInfo, SpeakerHints, TranscribeOptions
from support.job_stores import ATTEMPTS, LEASE_S, START, TRANSCRIPT, Clock, StoreLocation, new_job


def test_a_job_comes_back_as_it_was_given(store):
    options = TranscribeOptions(SpeakerHints(min_speakers=2, max_speakers=4), "de")
    job = new_job(options=options, filename="a\r\n'; DROP TABLE jobs; --.wav", size_bytes=3 * 2**40)
    store.create(job)
    assert store.get(job.id) == job
    assert sum(store.count_unfinished(JobKind.JOB).values()) == 1


def test_an_unknown_job_is_not_found(store):
    for call in (store.get, store.cancel, store.get_transcript):
        with pytest.raises(JobNotFound):
            call("nowhere")
    store.delete("nowhere")
    assert store.renew("nowhere", "w", LEASE_S, "x", 0.5) is False


def test_the_oldest_job_is_claimed_first_even_where_the_clock_went_back(store, clock):
    first, second = new_job(), new_job(created_at=START - timedelta(hours=1))
    store.create(first)
    store.create(second)
    claimed = store.claim("w", LEASE_S, ATTEMPTS)
    assert claimed is not None
    assert claimed.id == first.id
    assert (claimed.state, claimed.worker, claimed.attempts) == (JobState.RUNNING, "w", 1)
    assert claimed.lease_until == clock.now + timedelta(seconds=LEASE_S)
    assert claimed.started_at == clock.now
    assert store.claim("v", LEASE_S, ATTEMPTS).id == second.id
    assert store.claim("w", LEASE_S, ATTEMPTS) is None
    assert [job.id for job in store.list_unfinished()] == [first.id, second.id]


def test_a_lease_that_ran_out_lets_another_worker_take_the_job(store, clock):
    job = new_job()
    store.create(job)
    store.claim("dead", LEASE_S, ATTEMPTS)
    clock.advance(LEASE_S - 1)
    assert store.claim("next", LEASE_S, ATTEMPTS) is None
    clock.advance(2)
    taken = store.claim("next", LEASE_S, ATTEMPTS)
    assert (taken.worker, taken.attempts) == ("next", 2)
    assert store.renew(job.id, "dead", LEASE_S, "late", 0.9) is False
    assert store.finish(job.id, "dead", TRANSCRIPT) is False
    assert store.fail(job.id, "dead", JobError("job_failed", "late")) is False
    assert store.requeue(job.id, "dead") is False
    assert store.get(job.id).stage == "starting"


def test_a_renewed_lease_holds(store, clock):
    job = new_job()
    store.create(job)
    store.claim("w", LEASE_S, ATTEMPTS)
    for step in range(4):
        clock.advance(LEASE_S - 1)
        assert store.renew(job.id, "w", LEASE_S, "diarize", step / 4) is True
    assert store.claim("other", LEASE_S, ATTEMPTS) is None
    assert (store.get(job.id).stage, store.get(job.id).progress) == ("diarize", 0.75)


def test_progress_never_falls_while_one_worker_holds_the_job(store):
    job = new_job()
    store.create(job)
    store.claim("w", LEASE_S, ATTEMPTS)
    store.renew(job.id, "w", LEASE_S, "recognise", 0.6)
    store.renew(job.id, "w", LEASE_S, "recognise", 0.4)
    assert store.get(job.id).progress == 0.6


def test_a_transcript_comes_back_as_it_was_given_but_for_frame_activity(store, clock):
    job = new_job()
    store.create(job)
    store.claim("w", LEASE_S, ATTEMPTS)
    clock.advance(5)
    assert store.finish(job.id, "w", TRANSCRIPT) is True
    done = store.get(job.id)
    assert (done.state, done.progress, done.ended_at, done.worker) == (JobState.SUCCEEDED, 1.0, clock.now, None)
    kept = store.get_transcript(job.id)
    assert kept.utterances == TRANSCRIPT.utterances
    assert kept.diarization.turns == TRANSCRIPT.diarization.turns
    assert kept.diarization.embeddings.dtype == np.float32
    assert np.array_equal(kept.diarization.embeddings, TRANSCRIPT.diarization.embeddings)
    assert kept.diarization.activity is None
    for name in ("duration", "language", "language_probability", "engine", "timings"):
        assert getattr(kept, name) == getattr(TRANSCRIPT, name)
    assert sum(store.count_unfinished(JobKind.JOB).values()) == 0
    assert store.finish(job.id, "w", TRANSCRIPT) is False


def test_silence_comes_back_as_silence(store):
    job = new_job()
    store.create(job)
    store.claim("w", LEASE_S, ATTEMPTS)
    empty = replace(TRANSCRIPT, utterances=(), diarization=Diarization(), language=None, language_probability=None)
    store.finish(job.id, "w", empty)
    kept = store.get_transcript(job.id)
    assert (kept.utterances, kept.speakers, kept.language) == ((), (), None)
    assert kept.diarization.embeddings.shape == (0, 0)


def test_a_transcript_with_a_number_that_is_none_is_refused_and_the_job_stays(store):
    job = new_job()
    store.create(job)
    store.claim("w", LEASE_S, ATTEMPTS)
    with pytest.raises(ValueError, match="JSON"):
        store.finish(job.id, "w", replace(TRANSCRIPT, duration=float("nan")))
    assert store.get(job.id).state is JobState.RUNNING


def test_a_failed_job_says_why(store, clock):
    job = new_job()
    store.create(job)
    store.claim("w", LEASE_S, ATTEMPTS)
    assert store.fail(job.id, "w", JobError("not_audio", "Send a recording.")) is True
    failed = store.get(job.id)
    assert (failed.state, failed.error, failed.ended_at) == (
        JobState.FAILED, JobError("not_audio", "Send a recording."), clock.now,
    )  # fmt: skip
    with pytest.raises(JobNotFound):
        store.get_transcript(job.id)


def test_a_job_handed_back_was_not_tried(store):
    job = new_job()
    store.create(job)
    store.claim("w", LEASE_S, ATTEMPTS)
    store.renew(job.id, "w", LEASE_S, "diarize", 0.5)
    assert store.requeue(job.id, "w") is True
    back = store.get(job.id)
    assert (back.state, back.attempts, back.progress, back.worker, back.lease_until) == (
        JobState.QUEUED, 0, 0.0, None, None,
    )  # fmt: skip


def test_what_a_dead_worker_held_is_queued_until_the_attempts_are_used_up(store):
    job, other = new_job(), new_job()
    store.create(job)
    store.create(other)
    for attempt in range(1, ATTEMPTS + 1):
        name = f"worker-{attempt}"
        assert store.claim(name, LEASE_S, ATTEMPTS).attempts == attempt
        assert store.release("somebody else", ATTEMPTS) == ()
        assert store.release(name, ATTEMPTS) == (job.id,)
    failed = store.get(job.id)
    assert (failed.state, failed.error.code) == (JobState.FAILED, "job_failed")
    assert "3 times" in failed.error.message
    assert store.get(other.id).state is JobState.QUEUED


def test_a_lapsed_lease_with_no_attempts_left_is_not_claimed_and_fails_on_release(store, clock):
    job = new_job()
    store.create(job)
    for _ in range(ATTEMPTS):
        assert store.claim("w", LEASE_S, ATTEMPTS) is not None
        assert store.release(None, ATTEMPTS) == ()
        clock.advance(LEASE_S + 1)
    assert store.release(None, ATTEMPTS) == (job.id,)
    assert store.claim("w", LEASE_S, ATTEMPTS) is None
    assert store.get(job.id).state is JobState.FAILED


def test_a_clock_that_goes_back_does_not_free_a_job_and_release_does_not_care(store, clock):
    job = new_job()
    store.create(job)
    store.claim("w", LEASE_S, ATTEMPTS)
    clock.advance(-3_600)
    assert store.claim("v", LEASE_S, ATTEMPTS) is None
    assert store.renew(job.id, "w", LEASE_S, "diarize", 0.1) is True
    assert store.release("w", ATTEMPTS) == (job.id,)


def test_cancel_ends_a_job_once(store):
    waiting, running, done = new_job(), new_job(), new_job()
    for job in (done, running, waiting):
        store.create(job)
    store.claim("w", LEASE_S, ATTEMPTS)
    store.finish(done.id, "w", TRANSCRIPT)
    store.claim("w", LEASE_S, ATTEMPTS)
    assert store.cancel(running.id).state is JobState.CANCELED
    assert store.cancel(waiting.id).state is JobState.CANCELED
    assert store.cancel(done.id).state is JobState.SUCCEEDED
    assert store.renew(running.id, "w", LEASE_S, "x", 0.5) is False
    assert store.finish(running.id, "w", TRANSCRIPT) is False
    assert store.claim("w", LEASE_S, ATTEMPTS) is None
    everyone = {waiting.id, running.id, done.id}
    assert store.filter_existing(everyone, ended=True) == everyone


def test_delete_forgets_the_job_and_its_transcript(store):
    job = new_job()
    store.create(job)
    store.claim("w", LEASE_S, ATTEMPTS)
    store.finish(job.id, "w", TRANSCRIPT)
    store.delete(job.id)
    for call in (store.get, store.get_transcript):
        with pytest.raises(JobNotFound):
            call(job.id)
    assert store.filter_existing({job.id}) == frozenset()


def test_a_running_job_that_is_deleted_is_no_longer_its_workers(store):
    job = new_job()
    store.create(job)
    store.claim("w", LEASE_S, ATTEMPTS)
    store.delete(job.id)
    assert store.renew(job.id, "w", LEASE_S, "x", 0.5) is False
    assert store.finish(job.id, "w", TRANSCRIPT) is False


def test_reports_are_kept_per_worker_newest_first_and_go_with_release(store, clock):
    models = (ModelInfo("campplus", "embedding", "Apache-2.0", "missing"),)
    old = WorkerReport("a", 1, "loading", models, ("no network",), clock.now)
    store.save_worker_report(old)
    clock.advance(1)
    store.save_worker_report(WorkerReport("b", 2, "loading", (), (), clock.now))
    clock.advance(1)
    new = WorkerReport("b", 2, "ready", (), (), clock.now, "cuda:0 (NVIDIA H200)")
    store.save_worker_report(new)
    assert store.list_worker_reports() == (new, old)
    store.release("b", ATTEMPTS)
    assert store.list_worker_reports() == (old,)


def test_two_stores_on_one_place_see_the_same(place, store, clock):
    other = place.open(clock)
    job = new_job()
    store.create(job)
    assert other.claim("w", LEASE_S, ATTEMPTS).id == job.id
    assert store.get(job.id).state is JobState.RUNNING
    other.close()


def claim_all(store: JobStore, worker: str) -> list[str]:
    claimed = []
    while (job := store.claim(worker, 3_600.0, 1)) is not None:
        claimed.append(job.id)
    return claimed


@pytest.mark.slow
def test_eight_threads_never_claim_one_job_twice(store):
    jobs = [new_job() for _ in range(200)]
    for job in jobs:
        store.create(job)
    claimed: list[str] = []
    barrier = threading.Barrier(8)

    def work(name: str) -> None:
        barrier.wait(10)
        claimed.extend(claim_all(store, name))

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(claimed) == sorted(job.id for job in jobs)


@pytest.mark.slow
def test_two_processes_never_claim_one_job_twice(place, store):
    jobs = [new_job() for _ in range(100)]
    for job in jobs:
        store.create(job)
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, place.kind, place.address, f"p{number}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join((str(Path(__file__).parents[1]), *sys.path))},
        )
        for number in range(2)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout.readline() == "open\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    claimed = [job_id for process in processes for job_id in json.loads(process.communicate(timeout=60)[0])]
    assert sorted(claimed) == sorted(job.id for job in jobs)


if __name__ == "__main__":
    mine = StoreLocation(sys.argv[1], sys.argv[2]).open(Clock())
    print("open", flush=True)  # noqa: T201
    sys.stdin.readline()
    print(json.dumps(claim_all(mine, sys.argv[3])))  # noqa: T201
