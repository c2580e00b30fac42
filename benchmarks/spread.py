"""Measure the speedup of one long recording with several workers, and check that the transcript is the same.

    python benchmarks/spread.py RECORDING [--workers 1,2]

Each number of workers gets a new fleet: PostgreSQL, Redis, and `diarist worker` as users start it, each worker on its
own core with one thread. The script prints one line of JSON per fleet, and then the speedup of each fleet over the
first one. It needs what `make test` sets up.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from diarist.jobs.db.job_store import open_store
from diarist.jobs.model import JobKind, JobSpec, JobState
from diarist.jobs.service import JobService
from diarist.settings import load_settings
from diarist.types import Transcript
from machine import machine

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support import servers

START_S = 120.0


def run(recording: Path, count: int, folder: Path) -> tuple[dict[str, Any], Transcript]:
    """Process the recording with a fleet of ``count`` workers, and return the figures and the transcript."""
    cores = sorted(os.sched_getaffinity(0))
    if count > len(cores):
        raise SystemExit(f"{count} workers need one core each, but only {len(cores)} are available")
    with ExitStack() as stack:
        redis, postgres = servers.RedisServer(), servers.PostgresServer()
        stack.callback(redis.close)
        stack.callback(postgres.close)
        shared = {
            "DATABASE_URL": postgres.fresh_database(), "QUEUE_URL": redis.url, "MEDIA_URL": str(folder / "media"),
            "CPU_THREADS": "1",
        }  # fmt: skip
        for number in range(count):
            place = folder / f"worker-{number}"
            place.mkdir(parents=True)
            with (place / "log").open("wb") as log:
                worker = subprocess.Popen(
                    ["taskset", "-c", str(cores[number]), sys.executable, "-m", "diarist.cli", "worker"],
                    env={**os.environ, **shared, "DATA_DIR": str(place / "data")}, cwd=place, stdout=log, stderr=log,
                )  # fmt: skip
            stack.callback(worker.wait, 60)
            stack.callback(worker.send_signal, signal.SIGTERM)
        settings = load_settings(**{name.lower(): value for name, value in shared.items()}, data_dir=folder / "api")
        store = open_store(settings)
        stack.callback(store.close)
        service = JobService(settings, store)
        service.start()
        stack.callback(service.stop)
        until = time.monotonic() + START_S
        while sum(worker.state == "ready" for worker in service.pool_status().workers) < count:
            if time.monotonic() > until:
                raise SystemExit(f"The workers were not ready within {START_S:.0f} s")
            time.sleep(0.1)
        with recording.open("rb") as file:
            job = service.submit(file, JobSpec(kind=JobKind.JOB))
        started = time.monotonic()
        first_s: float | None = None
        while not (job := service.store.get(job.id)).state.ended:
            if job.finalized and first_s is None:
                first_s = time.monotonic() - started
            time.sleep(0.1)
        took_s = time.monotonic() - started
        if job.state is not JobState.SUCCEEDED:
            raise SystemExit(f"The job ended in state {job.state}: {job.error}")
        transcript = service.result(job.id)
        return {
            "workers": count,
            "wall_s": round(took_s, 1),
            "first_utterances_s": round(first_s or took_s, 1),
            "stages": {timing.stage: round(timing.seconds, 1) for timing in transcript.timings},
            "duration_s": round(transcript.duration),
        }, transcript


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--workers", default="1,2")
    args = parser.parse_args()
    print(json.dumps(machine()))
    results: list[tuple[dict[str, Any], Transcript]] = []
    for count in (int(number) for number in args.workers.split(",")):
        with tempfile.TemporaryDirectory(prefix="spread-") as name:
            results.append(run(args.recording, count, Path(name)))
        print(json.dumps(results[-1][0]), flush=True)
    base, expected = results[0]
    same = True
    for figures, transcript in results[1:]:
        equal = transcript.utterances == expected.utterances and (
            transcript.diarization.turns == expected.diarization.turns
        )
        same = same and equal
        ratio = round(base["wall_s"] / figures["wall_s"], 2)
        print(json.dumps({"workers": figures["workers"], "times_faster": ratio, "same_transcript": equal}))
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
