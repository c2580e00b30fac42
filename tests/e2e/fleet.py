"""A fleet of real processes: services and workers that share a database, a queue and the media."""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from api.process import ServiceProcess
from api.wire import FORM, Address, Answer, call, recording

ENTRY = Path(__file__).with_name("fleet_entry.py")
LEASE_S = 3.0
TIMEOUT_S = 60.0


def until(condition: Callable[[], object], what: str = "the condition", timeout: float = TIMEOUT_S) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout:.0f} s"
        time.sleep(0.05)


class Fleet:
    """Starts and stops the processes. ``prefix`` is a command that runs a process on a host: ``ip netns exec NAME``."""

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        self.folder = folder
        self.settings = {"JOB_LEASE_S": LEASE_S, "MIN_FREE_MB": 0, "JOB_RETRY_S": 0.2, **settings}
        self.markers = folder / "markers"
        self.markers.mkdir(parents=True)
        self.processes: list[ServiceProcess] = []
        self._submitted = 0

    def start(self, role: str, host: str, prefix: Sequence[str] = (), **settings: object) -> ServiceProcess:
        command = (*prefix, sys.executable, str(ENTRY), role)
        own = {"FLEET_HOST": host, "FLEET_FOLDER": self.markers} | self.settings | settings
        self.processes.append(ServiceProcess(self.folder / host, command, **own))
        return self.processes[-1]

    def start_worker(self, host: str, prefix: Sequence[str] = (), **settings: object) -> ServiceProcess:
        """Start a machine with one worker, and wait until it is ready."""
        started = self.start("worker", host, prefix, **settings)
        started.wait_for("is ready on")
        return started

    def kill(self, process: ServiceProcess) -> None:
        """Kill all processes of a machine at once, as if it lost power."""
        processes = [psutil.Process(process.process.pid), *psutil.Process(process.process.pid).children(recursive=True)]
        for each in processes:
            each.suspend()  # so that none of them reacts to the end of another one
        for each in processes:
            each.kill()
        process.wait()

    def submit(self, address: Address, name: str = "", *, wait: bool = False, **fields: Any) -> FleetJob:
        """Submit a job with this name; with ``wait``, its work continues until ``go``."""
        self._submitted += 1
        name = name or f"job{self._submitted}"
        content = json.dumps({"name": name} | ({"wait": True} if wait else {}) | fields.pop("script", {}))
        answer = call(address, "POST", "/v1/jobs", recording(content, **fields), FORM)
        assert answer.status == 202, answer.body
        return FleetJob(self, name, answer.json["id"], hashlib.sha256(content.encode()).hexdigest())

    def close(self) -> None:
        for each in self.processes:
            if each.process.poll() is None:
                each.process.send_signal(signal.SIGTERM)
        for each in self.processes:
            try:
                each.wait(20)
            except Exception:  # noqa: BLE001 - it has been killed by then, and the others must end as well
                continue


class FleetJob:
    """One job, as a client sees it."""

    def __init__(self, fleet: Fleet, name: str, job_id: str, digest: str) -> None:
        self.marker = fleet.markers / name
        self.id = job_id
        self.digest = digest

    def go(self, host: str = "") -> None:
        """Let the work on it end: on this host only, or on any host."""
        self.marker.with_suffix(f".go.{host}" if host else ".go").touch()

    @property
    def begun(self) -> list[str]:
        """The hosts that began it, in order."""
        path = self.marker.with_suffix(".begun")
        return path.read_text("ascii").split() if path.exists() else []

    def until_begun(self, times: int = 1) -> None:
        until(lambda: len(self.begun) >= times, f"{self.marker.name} begun {times} times")

    def status(self, address: Address) -> Answer:
        return call(address, "GET", f"/v1/jobs/{self.id}")

    def state(self, address: Address) -> str:
        answer = self.status(address)
        return answer.json["state"] if answer.status == 200 else f"{answer.status}"

    def wait(self, address: Address, state: str = "succeeded") -> dict[str, Any]:
        """Wait for its end; check its state and, if it succeeded, its result. Return its status."""
        until(lambda: self.state(address) in ("succeeded", "failed", "canceled"), f"the end of {self.marker.name}")
        status: dict[str, Any] = self.status(address).json
        assert status["state"] == state, status
        if state == "succeeded":
            result = call(address, "GET", f"/v1/jobs/{self.id}/result?format=json")
            assert (result.status, result.body.count(self.digest.encode()) > 0) == (200, True), result.body
            assert status["utterances"] == 1
        return status

    def delete(self, address: Address) -> None:
        assert call(address, "DELETE", f"/v1/jobs/{self.id}").status == 204
