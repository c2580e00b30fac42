"""A job store of each kind for every test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from diarist.jobs.db.job_store import SqlJobStore
from support.job_stores import OPENERS, Clock, WorkerSlot, clear
from support.servers import PostgresServer


@pytest.fixture(scope="session")
def postgres_store(postgres_server: PostgresServer) -> Iterator[tuple[WorkerSlot, SqlJobStore]]:
    """A store that tests share, since a database of PostgreSQL's takes a second to make."""
    place = WorkerSlot("postgres", postgres_server.fresh_database())
    opened = place.open(None)
    yield place, opened
    opened.close()


@pytest.fixture(
    params=[pytest.param(kind, marks=[] if kind == "sqlite" else [pytest.mark.servers]) for kind in OPENERS]
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> WorkerSlot:
    """Where an empty store lies."""
    if request.param == "sqlite":
        return WorkerSlot(request.param, str(tmp_path))
    shared: tuple[WorkerSlot, SqlJobStore] = request.getfixturevalue("postgres_store")
    clear(shared[1])
    return shared[0]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(place: WorkerSlot, clock: Clock) -> Iterator[SqlJobStore]:
    opened = place.open(clock)
    yield opened
    opened.close()
