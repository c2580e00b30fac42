from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from diarist.jobs.db.job_store import SqlJobStore, open_store
from diarist.jobs.model import Job, JobSpec, JobState
from diarist.jobs.service import JobService
from diarist.settings import Settings, load_settings
from support.old_job_stores import OldStore

ENTRIES = Path(__file__).parent


def _until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    turn = threading.Event()
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        turn.wait(0.02)


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait for a condition, with a deadline."""
    return _until


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    def make(**overrides: object) -> Settings:
        return load_settings(**{"data_dir": tmp_path / "data", "min_free_mb": 0, "job_lease_s": 30.0, **overrides})

    return make


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    made: Settings = make_settings()
    return made


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> OldStore:
    """A database that nobody has opened yet."""
    if request.param == "sqlite":
        return OldStore("sqlite", str(tmp_path / "jobs.sqlite3"))
    return OldStore("postgres", request.getfixturevalue("postgres_server").fresh_database())


@pytest.fixture
def old_database(empty_database: OldStore) -> OldStore:
    """A database of schema version 3."""
    empty_database.fill()
    return empty_database


@dataclass(frozen=True, slots=True)
class Bench:
    """A service with a real worker process, and the folder where test and worker leave each other files."""

    service: JobService
    store: SqlJobStore
    settings: Settings
    folder: Path

    def submit(self, orders: str, filename: str = "talk.wav", **asked: Any) -> Job:
        """A request, unless ``kind`` says otherwise."""
        return self.service.submit(io.BytesIO(orders.encode()), JobSpec(filename=filename, request_id="r-1", **asked))

    def tell(self, name: str) -> None:
        (self.folder / name).touch()

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text(encoding="ascii").splitlines() if path.exists() else []

    def counts(self) -> tuple[int, int]:
        """How many jobs are queued and how many are running."""
        states = self.store.count_by_state()
        return states[JobState.QUEUED], states[JobState.RUNNING]

    @property
    def pid(self) -> int:
        """Of the only worker."""
        (pid,) = self.pids
        return pid

    @property
    def pids(self) -> tuple[int, ...]:
        assert self.service._pool is not None
        return self.service._pool.pids

    def until_begun(self, times: int = 1) -> None:
        _until(lambda: len(self.lines("begun")) >= times)

    def until_ready(self) -> None:
        _until(lambda: self.service.pool_status().state == "ready")


@pytest.fixture
def make_bench(tmp_path: Path, make_settings: Callable[..., Settings]) -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []
    before = {child.pid for child in psutil.Process().children(recursive=True)}

    def make(*, start: bool = True, files: tuple[str, ...] = (), **overrides: object) -> Bench:
        settings = make_settings(**overrides)
        folder = tmp_path / "orders"
        folder.mkdir()
        for name in files:
            (folder / name).touch()
        store = open_store(settings)
        command = (sys.executable, str(ENTRIES / "worker_entry.py"), str(folder))
        bench = Bench(JobService(settings, store, command), store, settings, folder)
        benches.append(bench)
        if start:
            bench.service.start()
        return bench

    yield make
    for bench in benches:
        bench.service.stop()
        bench.store.close()
    now = psutil.Process().children(recursive=True)
    left = [child for child in now if child.pid not in before and child.name() != "postgres"]
    assert left == [], "processes or zombies are left"


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    made: Bench = make_bench()
    return made
