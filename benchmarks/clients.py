"""Measure the response time of ``/status`` while many clients upload and poll, and the memory that an upload needs.

    python benchmarks/clients.py --clients 50 --seconds 20
    python benchmarks/clients.py --upload-mb 2048

The script starts the real service with a worker that follows the instructions in each recording
(``tests/api/scripted_worker.py``), so that it measures the service and not the models. The clients run in separate
processes; each client repeatedly creates a job, polls the job and ``/status`` until the job has ended, fetches the
result, and deletes the job.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from api.process import ServiceProcess
from api.wire import BOUNDARY, FORM, Address, recording

PROCESSES = 5
POLL_S = 0.1
RECORDING_BYTES = 2**18
BLOCK = bytes(2**20)


@dataclass(slots=True)
class Measurements:
    """The response times in seconds by kind of request, and how often each HTTP status was returned."""

    took_s: dict[str, list[float]] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)

    def add(self, other: Measurements) -> None:
        for kind, took in other.took_s.items():
            self.took_s.setdefault(kind, []).extend(took)
        self.statuses += other.statuses


class Client:
    """A client with one persistent connection."""

    def __init__(self, address: Address, number: int) -> None:
        self.measurements = Measurements()
        self._connection = http.client.HTTPConnection(*address, timeout=60)
        self._random = random.Random(number)

    def run(self, until: float) -> None:
        while time.monotonic() < until:
            self._one_job()
        self._connection.close()

    def _one_job(self) -> None:
        body = recording(self._random.randbytes(RECORDING_BYTES))
        status, answer = self._send_request("upload", "POST", "/v1/jobs", body, FORM)
        if status != 202:
            time.sleep(POLL_S)
            return
        links = json.loads(answer)["links"]
        while True:
            self._send_request("status", "GET", "/status")
            _, answer = self._send_request("poll", "GET", links["self"])
            if json.loads(answer)["state"] not in ("queued", "running"):
                break
            time.sleep(POLL_S)
        self._send_request("result", "GET", links["result"])
        self._send_request("delete", "DELETE", links["self"])

    def _send_request(
        self, kind: str, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        started = time.perf_counter()
        self._connection.request(method, path, body, headers or {})
        response = self._connection.getresponse()
        answer = response.read()
        self.measurements.took_s.setdefault(kind, []).append(time.perf_counter() - started)
        self.measurements.statuses[response.status] += 1
        return response.status, answer


def run_client_group(
    address: Address, numbers: range, seconds: float, results: multiprocessing.Queue[Measurements]
) -> None:
    """Run some of the clients; this is the target of a separate process."""
    clients = [Client(address, number) for number in numbers]
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=client.run, args=(until,)) for client in clients]
    for thread in threads:
        thread.start()
    measurements = Measurements()
    for thread, client in zip(threads, clients, strict=True):
        thread.join()
        measurements.add(client.measurements)
    results.put(measurements)


def run_clients(address: Address, clients: int, seconds: float) -> Measurements:
    results: multiprocessing.Queue[Measurements] = multiprocessing.Queue()
    processes = [
        multiprocessing.Process(
            target=run_client_group, args=(address, range(first, clients, PROCESSES), seconds, results)
        )
        for first in range(min(PROCESSES, clients))
    ]
    for process in processes:
        process.start()
    measurements = Measurements()
    for _ in processes:
        measurements.add(results.get())
    for process in processes:
        process.join()
    return measurements


def print_table(measurements: Measurements) -> None:
    print("| request | responses | p50 ms | p99 ms | max ms |\n|---|---|---|---|---|")
    for kind, took_s in sorted(measurements.took_s.items()):
        ordered = sorted(took_s)
        p50, p99 = (ordered[min(int(len(ordered) * share), len(ordered) - 1)] for share in (0.5, 0.99))
        print(f"| {kind} | {len(ordered)} | {p50 * 1e3:.0f} | {p99 * 1e3:.0f} | {ordered[-1] * 1e3:.0f} |")
    print("statuses:", dict(sorted(measurements.statuses.items())))


def upload(address: Address, process: psutil.Process, megabytes: int) -> None:
    """Upload one large recording, which is generated while it is sent.

    The job goes to a queue that no worker serves, so that it stays queued.
    """
    before = b"\r\n".join(
        (b"--" + BOUNDARY, b'Content-Disposition: form-data; name="queue"', b"", b"gpu",
         b"--" + BOUNDARY, b'Content-Disposition: form-data; name="audio"; filename="long.wav"', b"", b"")
    )  # fmt: skip
    after = b"\r\n--" + BOUNDARY + b"--\r\n"

    def body() -> Iterator[bytes]:
        yield before
        for _ in range(megabytes):
            yield BLOCK
        yield after

    at_first = peak = process.memory_info().rss
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.02):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    connection = http.client.HTTPConnection(*address, timeout=600)
    length = {"Content-Length": str(len(before) + megabytes * len(BLOCK) + len(after))}
    started = time.monotonic()
    connection.request("POST", "/v1/jobs", body(), FORM | length)
    sent_s = time.monotonic() - started
    response = connection.getresponse()
    job = json.loads(response.read())
    took_s = time.monotonic() - started
    ended.set()
    watcher.join()
    print(
        f"{megabytes} MB: {response.status} after {took_s:.1f} s ({sent_s:.1f} s to send); the process grew from "
        f"{at_first / 2**20:.0f} MB by at most {(peak - at_first) / 2**20:.1f} MB"
    )
    connection.request("DELETE", job["links"]["self"])
    connection.getresponse().read()
    connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--upload-mb", type=int, help="measure one upload of this size instead")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        service = ServiceProcess(Path(folder), MIN_FREE_MB=0, MAX_UPLOAD_MB=4096)
        try:
            service.wait_for("is ready")
            if arguments.upload_mb:
                run_clients(service.address, 1, 1.0)
                upload(service.address, psutil.Process(service.process.pid), arguments.upload_mb)
            else:
                print_table(run_clients(service.address, arguments.clients, arguments.seconds))
                print("tracebacks in the log:", sum("Traceback" in line for line in service.log))
        finally:
            service.stop()


if __name__ == "__main__":
    main()
