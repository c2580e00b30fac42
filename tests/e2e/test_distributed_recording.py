"""One real recording that two real workers process together, connected by PostgreSQL and Redis."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import soundfile

from diarist.audio import DecodeLimits
from diarist.engines.registry import load_engine
from diarist.jobs.db.job_store import open_store
from diarist.jobs.model import JobKind, JobSpec, JobState
from diarist.jobs.service import JobService
from diarist.pipeline.transcription import transcribe
from diarist.settings import load_settings
from diarist.types import SAMPLE_RATE, TranscribeOptions, Transcript

pytestmark = pytest.mark.models

READY_TIMEOUT_S = 120.0
JOB_TIMEOUT_S = 300.0


class Worker:
    """``diarist worker`` as users start it, with its own folder."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        folder.mkdir()
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "diarist.cli", "worker"],
                env=os.environ | environment | {"DATA_DIR": str(folder / "data")},
                cwd=folder, stdout=log, stderr=log,
            )  # fmt: skip

    def logged(self, text: str) -> int:
        """The number of lines in its log that contain a text."""
        return sum(text in line for line in self.log.read_text(encoding="utf-8").splitlines())

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)


def until(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def meeting(recordings_folder, voices, tmp_path_factory) -> Path:
    """A recording of a minute and a half, longer than the smallest value that SPREAD_MIN_S may have."""
    from support import recordings

    folder = tmp_path_factory.mktemp("meeting")
    parts = [recordings.assemble(dict(list(voices.items())[:3]), folder, seed=seed, name=f"{seed}") for seed in (1, 2)]
    samples = np.concatenate([soundfile.read(part.path, dtype="float32")[0] for part in parts])
    assert len(samples) > 65 * SAMPLE_RATE
    path = folder / "meeting.wav"
    soundfile.write(path, samples, SAMPLE_RATE)
    return path


@pytest.fixture(scope="module")
def alone(meeting, model_store) -> Transcript:
    """The transcript that one machine makes of the recording."""
    engine = load_engine(load_settings(engine="embedded", cpu_threads=1))
    return transcribe(meeting, engine, TranscribeOptions(), lambda *_: None, DecodeLimits())


@pytest.fixture
def fleet(tmp_path, redis_server, postgres_server) -> Iterator[tuple[JobService, list[Worker]]]:
    shared = {
        "DATABASE_URL": postgres_server.fresh_database(), "QUEUE_URL": redis_server.fresh_url(),
        "MEDIA_URL": str(tmp_path / "media"), "SPREAD_MIN_S": "60", "CPU_THREADS": "1", "JOB_LEASE_S": "5",
        "MIN_FREE_MB": "0",
    }  # fmt: skip
    own = {name.lower(): value for name, value in shared.items()}
    settings = load_settings(**own, data_dir=tmp_path / "api")
    with ExitStack() as stack:
        workers = [Worker(tmp_path / f"worker{number}", shared) for number in range(2)]
        for worker in workers:
            stack.callback(worker.stop)
        store = open_store(settings)
        stack.callback(store.close)
        service = JobService(settings, store)
        service.start()
        stack.callback(service.stop)
        until(lambda: len([w for w in service.pool_status().workers if w.state == "ready"]) == 2, READY_TIMEOUT_S)
        yield service, workers


def check_same(actual: Transcript, expected: Transcript) -> None:
    assert actual.utterances == expected.utterances
    assert actual.diarization.turns == expected.diarization.turns
    assert np.array_equal(actual.diarization.embeddings, expected.diarization.embeddings)
    assert (actual.language, actual.duration) == (expected.language, expected.duration)


def test_two_workers_produce_the_transcript_of_one_machine(fleet, meeting, alone, tmp_path):
    service, workers = fleet
    with meeting.open("rb") as recording:
        job = service.submit(recording, JobSpec(kind=JobKind.JOB))
    assert service.wait(job.id, JOB_TIMEOUT_S).state is JobState.SUCCEEDED
    check_same(service.result(job.id), alone)
    assert service.final_utterances(job.id) == alone.utterances
    assert sum(worker.logged("Chunk processed") for worker in workers) > 0, "the other worker processed chunks"
    until(lambda: [path.name for path in (tmp_path / "media").rglob("*") if path.is_file()] == ["recording"], 5)
    service.delete(job.id)
    assert [path for path in (tmp_path / "media").rglob("*") if path.is_file()] == []


def test_another_worker_continues_when_the_holder_is_killed(fleet, meeting, alone):
    service, workers = fleet
    with meeting.open("rb") as recording:
        job = service.submit(recording, JobSpec(kind=JobKind.JOB))
    until(lambda: service.store.get(job.id).stage in ("embedding", "recognition"), JOB_TIMEOUT_S)
    holder = next(worker for worker in workers if worker.logged("Job claimed"))
    _kill_all(holder.process)
    done = service.wait(job.id, JOB_TIMEOUT_S)
    assert (done.state, done.attempts, done.worker_crashes) == (JobState.SUCCEEDED, 2, 1)
    check_same(service.result(job.id), alone)


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill all processes of a worker, as if its machine lost power."""
    import psutil

    tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in tree:
        member.kill()
    process.wait(10)
