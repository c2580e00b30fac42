"""A job store of each kind for the tests of its contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from diarist.jobs.db.job_store import SqlJobStore
from support.job_stores import OPENERS, Clock, StoreLocation, clear
from support.servers import PostgresServer


@pytest.fixture(scope="session")
def postgres_store(postgres_server: PostgresServer) -> Iterator[tuple[StoreLocation, SqlJobStore]]:
    """A store that tests share, since it takes a second to create a PostgreSQL database."""
    place = StoreLocation("postgres", postgres_server.fresh_database())
    opened = place.open(None)
    yield place, opened
    opened.close()


@pytest.fixture(
    params=[pytest.param(kind, marks=[] if kind == "sqlite" else [pytest.mark.servers]) for kind in OPENERS]
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> StoreLocation:
    """The location of an empty store."""
    if request.param == "sqlite":
        return StoreLocation(request.param, str(tmp_path))
    shared: tuple[StoreLocation, SqlJobStore] = request.getfixturevalue("postgres_store")
    clear(shared[1])
    return shared[0]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(place: StoreLocation, clock: Clock) -> Iterator[SqlJobStore]:
    opened = place.open(clock)
    yield opened
    opened.close()
