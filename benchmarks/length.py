"""Measure the time and the memory of the whole service, all its processes together, by length of recording.

    python benchmarks/length.py RECORDING --minutes 10,60,240 [--threads 2]

RECORDING needs an RTTM file of the same name in the same folder, and is repeated to each length. Use a recording of
several minutes with many speakers: a phrase that is repeated hundreds of times becomes a speaker of its own. Each
length gets a new service, started as users start it, with empty folders. The script needs the ``bench`` extra.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

import growth
from diarist.audio import DecodeLimits, decode
from diarist.formats import rttm
from diarist.jobs.db.job_store import open_store
from diarist.settings import Settings, load_settings
from diarist.types import Seconds, Span, Turn
from running import tree_bytes

SAMPLE_INTERVAL_S = 0.5
START_S = 120.0
BOUNDARY = "diarist-length"


@dataclass
class Measurements:
    """The measurements of one recording."""

    peak_mb: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """The peak memory of all processes together, with shared pages divided among them (PSS), by stage."""

    reports: list[tuple[Seconds, float]] = field(default_factory=list)
    """The seconds since processing began, and the fraction that was done by then."""

    wall: Seconds = 0.0
    cpu: Seconds = 0.0

    @property
    def eta_ratio(self) -> float:
        """The estimated remaining time at the first report from 50 % on, divided by the actual remaining time.

        1 is a correct estimate; the value is NaN if there was no such report.
        """
        for at, done in self.reports:
            if 0.5 <= done < 1.0:
                return at / done * (1 - done) / max(self.wall - at, 1e-9)
        return float("nan")

    @property
    def monotonic(self) -> bool:
        shares = [done for _, done in self.reports]
        return shares == sorted(shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument(
        "--minutes", default="10,60,240", help="lengths in minutes, comma-separated; default: %(default)s"
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU_THREADS of the service")
    arguments = parser.parse_args()
    samples = decode(arguments.recording, DecodeLimits(max_duration_s=50_000.0))[0].samples
    reference = rttm.parse(arguments.recording.with_suffix(".rttm").read_text(encoding="utf-8-sig"))
    print("| minutes | s | s per minute | CPU s per minute | peak MB | by stage | ETA at 50 % / actual | monotonic | "
          "speakers (found / reference) | labels kept |\n|---|---|---|---|---|---|---|---|---|---|",
          flush=True)  # fmt: skip
    for minutes in map(float, arguments.minutes.split(",")):
        with tempfile.TemporaryDirectory(prefix="diarist-length-") as scratch:
            path, turns = growth.write_repeated(samples, reference, minutes, Path(scratch))
            measured, response = process_recording(path, Path(scratch), arguments.threads)
        print(row(minutes, measured, response, turns), flush=True)


def row(minutes: float, measured: Measurements, response: dict[str, Any], turns: Sequence[Turn]) -> str:
    """Return one row of the table."""
    found = [Turn(Span(each["start_time"], each["end_time"]), each["speaker"]) for each in response["conversation"]]
    stages = ", ".join(f"{stage} {peak}" for stage, peak in measured.peak_mb.items())
    there = {turn.speaker for turn in turns}
    span = min(600.0, minutes * 30)
    first, last = (labels(turns, found, start, start + span) for start in (0.0, minutes * 60 - span))
    kept = sum(first[who] == last.get(who) for who in first)
    return (
        f"| {minutes:g} | {measured.wall:.0f} | {measured.wall / minutes:.2f} | {measured.cpu / minutes:.2f} "
        f"| {max(measured.peak_mb.values())} | {stages} | {measured.eta_ratio:.2f} "
        f"| {'yes' if measured.monotonic else 'NO'} "
        f"| {len(response['speakers'])} / {len(there)} | {kept} of {len(first)} |"
    )


def labels(truth: Sequence[Turn], found: Sequence[Turn], start: Seconds, end: Seconds) -> dict[str, str]:
    """Return for each speaker the label with the longest overlap in time, within the span from start to end."""
    shared: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    here = [turn for turn in found if turn.span.start < end and turn.span.end > start]
    for turn in truth:
        if turn.span.start >= start and turn.span.end <= end:
            for other in here:
                shared[turn.speaker][other.speaker] += turn.span.overlap(other.span)
    return {who: max(times, key=lambda label: times[label]) for who, times in shared.items() if any(times.values())}


def process_recording(path: Path, scratch: Path, threads: int) -> tuple[Measurements, dict[str, Any]]:
    """Send the recording to a new service, and monitor the service until it responds."""
    settings = load_settings(data_dir=scratch / "data", max_duration_s=50_000.0)
    environment = {
        "DATA_DIR": str(settings.data_dir), "LOG_FILE": str(scratch / "service.log"), "FLASK_PORT": "0",
        "FLASK_HOST": "127.0.0.1", "MAX_DURATION_S": "50000", "CPU_THREADS": str(threads), "LOG_FORMAT": "plain",
    }  # fmt: skip
    with running_service(environment) as (service, address), ThreadPoolExecutor(1) as sender:
        sent = sender.submit(post, address, path)
        return monitor(service, settings, sent), sent.result()


@contextmanager
def running_service(environment: dict[str, str]) -> Iterator[tuple[psutil.Process, str]]:
    """Start a service, and yield its process and its address when it is ready."""
    command = [sys.executable, "-m", "diarist.cli", "serve"]
    log = Path(environment["LOG_FILE"])
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=quiet, stderr=quiet, cwd=log.parent)
    try:
        until = time.monotonic() + START_S
        while True:
            log_text = log.read_text() if log.exists() else ""
            listening = re.search(r"Listening on http://(\S+:\d+)", log_text)
            if listening and "is ready on" in log_text:
                break
            if process.poll() is not None or time.monotonic() > until:
                sys.exit(f"The service did not start:\n{log_text}")
            time.sleep(SAMPLE_INTERVAL_S)
        yield psutil.Process(process.pid), listening[1]
    finally:
        process.terminate()
        process.wait()


def post(address: str, path: Path) -> dict[str, Any]:
    """Return the response to ``POST /diarize``; the file is streamed from disk."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="details"\r\n\r\ntrue\r\n'
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="language"\r\n\r\nen\r\n'
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="audio"; filename="{path.name}"\r\n\r\n'
    ).encode()
    tail = f"\r\n--{BOUNDARY}--\r\n".encode()

    def body() -> Iterator[bytes]:
        yield head
        with path.open("rb") as file:
            while chunk := file.read(2**20):
                yield chunk
        yield tail

    connection = http.client.HTTPConnection(address)
    headers = {
        "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
        "Content-Length": str(len(head) + path.stat().st_size + len(tail)),
    }
    connection.request("POST", "/diarize", body(), headers)
    response = connection.getresponse()
    found: dict[str, Any] = json.loads(response.read())
    if response.status != 200:
        sys.exit(f"The service responded with status {response.status}: {found}")
    return found


def monitor(service: psutil.Process, settings: Settings, sent: Future[dict[str, Any]]) -> Measurements:
    """Record memory, progress, and time until the service responds."""
    measured = Measurements()
    store = open_store(settings)
    cpu, began = cpu_seconds(service), time.monotonic()
    stage, working = "upload", False
    while not sent.done():
        for job in store.list_unfinished():
            if job.stage != "queued":
                if not working:
                    working, began = True, time.monotonic()
                stage = job.stage
                measured.reports.append((time.monotonic() - began, job.progress))
        measured.peak_mb[stage] = max(measured.peak_mb[stage], tree_bytes(service) >> 20)
        time.sleep(SAMPLE_INTERVAL_S)
    measured.wall, measured.cpu = time.monotonic() - began, cpu_seconds(service) - cpu
    store.close()
    return measured


def cpu_seconds(service: psutil.Process) -> Seconds:
    """Return the CPU time of all processes of the service, including those that have ended."""
    times = [each.cpu_times() for each in (service, *service.children(recursive=True))]
    return sum(each.user + each.system + each.children_user + each.children_system for each in times)


if __name__ == "__main__":
    main()
