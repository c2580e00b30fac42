"""Send jobs over HTTP while processes are killed at random with ``kill -9``, and compare every result.

    python benchmarks/chaos.py fleet RECORDING... [--jobs 200] [--workers 2] [--kill-every 5]
    python benchmarks/chaos.py service RECORDING... [--jobs 60] [--kills 20]

``fleet`` starts one service and several workers with their own PostgreSQL and Redis; every few seconds, one worker and
all its processes are killed and started again. ``service`` starts the service as users do, with its worker; all its
processes are killed at random moments while jobs are sent, and started again. Each recording is cut into chunks of ten
seconds; the expected result of a chunk is what the pipeline returns when no process is killed. The script prints one
line of JSON. It exits with status 1 if a job was lost, duplicated, or had a different result, or if a file is left
behind. It needs what `make test` sets up.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import soundfile

from diarist.audio import DecodeLimits, decode
from diarist.types import SAMPLE_RATE

CHUNK_S = 10
TIMEOUT_S = 1_200.0


def cut_chunks(recordings: Sequence[Path], folder: Path) -> list[Path]:
    """Cut the recordings into consecutive chunks of ten seconds, and return the paths of the chunks."""
    found: list[Path] = []
    for recording in recordings:
        (audio,) = decode(recording, DecodeLimits(), lambda _: None)
        length = CHUNK_S * SAMPLE_RATE
        for first in range(0, len(audio.samples) - length + 1, length):
            path = folder / f"chunk-{len(found):03d}.wav"
            soundfile.write(path, audio.samples[first : first + length], SAMPLE_RATE)
            found.append(path)
    return found


@dataclass(slots=True)
class Service:
    """A process that is killed and started again."""

    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0

    def start(self) -> None:
        self.starts += 1
        with (self.folder / f"log-{self.starts:03d}").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "diarist.cli", *self.command],
                env={**os.environ, **self.environment}, cwd=self.folder, stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self) -> None:
        """Kill the process and all its children at once, as when the machine loses power."""
        assert self.process is not None
        tree = [self.process.pid]
        with suppress(psutil.NoSuchProcess):
            tree += [child.pid for child in psutil.Process(self.process.pid).children(recursive=True)]
        for pid in tree:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()


@dataclass(slots=True)
class Client:
    """An HTTP client that retries failed requests; an idempotency key prevents duplicate jobs."""

    url: str
    accepted: dict[str, str] = field(default_factory=dict)
    """The file name of the chunk by job ID."""

    def send(self, number: int, chunk: Path) -> None:
        boundary = "chunk"
        body = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="audio"; filename="{chunk.name}"\r\n\r\n'.encode()
            + chunk.read_bytes()
            + f"\r\n--{boundary}--\r\n".encode()
        )
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Idempotency-Key": f"job-{number}"}
        job = self._request_with_retry("/v1/jobs", body, headers)
        self.accepted[job["id"]] = chunk.name

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self._request_with_retry(f"/v1/jobs/{job_id}")
        return found

    def result(self, job_id: str) -> Any:
        return self._request_with_retry(f"/v1/jobs/{job_id}/result")

    def all_jobs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = self._request_with_retry(f"/v1/jobs?limit=100{cursor}")
            found += page["data"]
            if not page["next_cursor"]:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    def delete(self, job_id: str) -> None:
        self._request_with_retry(f"/v1/jobs/{job_id}", method="DELETE")

    def _request_with_retry(
        self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, method: str | None = None
    ) -> Any:
        until = time.monotonic() + TIMEOUT_S
        while True:
            try:
                request = urllib.request.Request(self.url + path, body, dict(headers or {}), method=method)
                with urllib.request.urlopen(request, timeout=30) as answer:
                    content = answer.read()
                    return json.loads(content) if content else None
            except urllib.error.HTTPError as error:
                body_start = error.read()[:300]
                if error.code not in (429, 503) or time.monotonic() > until:
                    raise SystemExit(f"{path}: {error.code} {body_start!r}") from error
            except (OSError, http.client.HTTPException) as error:
                if time.monotonic() > until:
                    raise SystemExit(f"{path}: {error}") from error
            time.sleep(0.2)


def transcribe_chunks(work: Sequence[Path]) -> dict[str, Any]:
    """Return the conversation in each chunk, by file name, as transcribed while no process is killed."""
    result = subprocess.run(
        [sys.executable, "-m", "diarist.cli", "transcribe", *map(str, work), "--format", "json", "--output",
         str(work[0].parent / "expected")],
        check=True, capture_output=True,
    )  # fmt: skip
    del result
    folder = work[0].parent / "expected"
    return {chunk.name: json.loads((folder / f"{chunk.stem}.json").read_text())["conversation"] for chunk in work}


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_results(
    client: Client, expected_results: Mapping[str, Any], sent: int, folders: Sequence[Path]
) -> dict[str, Any]:
    """Wait for every job, compare its result, delete all jobs, and list the files that are left."""
    outcome: Counter[str] = Counter()
    attempts: Counter[int] = Counter()
    for job_id, chunk in client.accepted.items():
        until = time.monotonic() + TIMEOUT_S
        while (job := client.job(job_id))["state"] in ("queued", "running") and time.monotonic() < until:
            time.sleep(0.2)
        outcome[job["state"]] += 1
        attempts[job["attempts"]] += 1
        if job["state"] == "succeeded" and client.result(job_id)["conversation"] != expected_results[chunk]:
            outcome["answered otherwise"] += 1
    known = client.all_jobs()
    outcome["lost"] = sent - len(client.accepted)
    outcome["doubled"] = len(known) - len(client.accepted)
    for job in known:
        client.delete(job["id"])
    own = ("jobs.sqlite3", "jobs.sqlite3-wal", "jobs.sqlite3-shm", "service.lock")
    left = [str(path) for folder in folders for path in folder.rglob("*") if path.is_file() and path.name not in own]
    return {"jobs": sent, **outcome, "attempts": dict(sorted(attempts.items())), "left": left}


@contextmanager
def kill_randomly(
    victims: Sequence[Service], every_s: float | None, kills: int, rng: random.Random
) -> Iterator[list[float]]:
    """Kill a randomly chosen service every ``every_s`` seconds (None: at random intervals), and start it again.

    Yields the times at which a service was killed.
    """
    over = threading.Event()
    killed: list[float] = []

    def kill() -> None:
        while len(killed) < kills and not over.wait(every_s if every_s is not None else rng.uniform(0.5, 15.0)):
            victim = rng.choice(victims)
            victim.kill()
            killed.append(time.monotonic())
            victim.start()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def fleet(args: argparse.Namespace, folder: Path, work: list[Path], rng: random.Random) -> dict[str, Any]:
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from support import servers

    expected_results = transcribe_chunks(work)
    with ExitStack() as stack:
        redis, postgres = servers.RedisServer(), servers.PostgresServer()
        stack.callback(redis.close)
        stack.callback(postgres.close)
        port = free_port()
        shared = {
            "DATABASE_URL": postgres.fresh_database(), "QUEUE_URL": redis.url, "MEDIA_URL": str(folder / "media"),
            "JOB_LEASE_S": "5", "CPU_THREADS": "1", "MIN_FREE_MB": "0", "FLASK_PORT": str(port), "JOB_ATTEMPTS": "3",
        }  # fmt: skip
        folders = [folder / "api", *(folder / f"worker-{number}" for number in range(args.workers))]
        services = []
        for place in folders:
            place.mkdir()
            own = {**shared, "DATA_DIR": str(place / "data"), "LOG_FILE": "/dev/null"}
            services.append(Service(["serve"] if place == folders[0] else ["worker"], own, place))
            stack.callback(services[-1].stop)
            services[-1].start()
        client = Client(f"http://127.0.0.1:{port}")
        started = time.monotonic()
        with kill_randomly(services[1:], args.kill_every, args.kills or 10_000, rng) as killed:
            for number in range(args.jobs):
                client.send(number, work[number % len(work)])
            result = check_results(
                client, expected_results, args.jobs, [folder / "media", *(place / "data" for place in folders)]
            )
        return {**result, "kills": len(killed), "wall_s": round(time.monotonic() - started, 1)}


def service(args: argparse.Namespace, folder: Path, work: list[Path], rng: random.Random) -> dict[str, Any]:
    expected_results = transcribe_chunks(work)
    port = free_port()
    place = folder / "service"
    place.mkdir()
    own = {"DATA_DIR": str(place / "data"), "LOG_FILE": "/dev/null", "FLASK_PORT": str(port), "MIN_FREE_MB": "0"}
    only = Service(["serve"], own, place)
    only.start()
    client = Client(f"http://127.0.0.1:{port}")
    started = time.monotonic()
    try:
        with kill_randomly([only], None, args.kills or 20, rng) as killed:
            number = 0
            while number < args.jobs or len(killed) < (args.kills or 20):
                client.send(number, work[number % len(work)])
                number += 1
                while len(killed) < (args.kills or 20) and number - _count_ended(client) > 8:
                    time.sleep(0.2)
        result = check_results(client, expected_results, number, [place / "data"])
    finally:
        only.stop()
    return {**result, "kills": len(killed), "wall_s": round(time.monotonic() - started, 1)}


def _count_ended(client: Client) -> int:
    return sum(job["state"] not in ("queued", "running") for job in client.all_jobs())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fleet", "service"))
    parser.add_argument("recordings", nargs="+", type=Path)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kill-every", type=float, default=5.0)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        chunk_folder = folder / "chunks"
        chunk_folder.mkdir()
        work = cut_chunks(args.recordings, chunk_folder)
        result = (fleet if args.what == "fleet" else service)(args, folder, work, random.Random(args.seed))
    print(json.dumps(result))
    bad = ("failed", "canceled", "answered otherwise", "lost", "doubled")
    return int(any(result.get(name) for name in bad) or bool(result["left"]))


if __name__ == "__main__":
    sys.exit(main())
