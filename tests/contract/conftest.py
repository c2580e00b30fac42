"""A job store of each kind for every test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from contract.job_stores import OPENERS, Clock, Place
from diarist.jobs.store import SqlJobStore


@pytest.fixture(params=OPENERS)
def place(request, tmp_path) -> Place:
    """Where an empty store lies."""
    if request.param == "sqlite":
        return Place(request.param, str(tmp_path))
    return Place(request.param, request.getfixturevalue("postgres_server").fresh_database())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(place, clock) -> Iterator[SqlJobStore]:
    opened = place.open(clock)
    yield opened
    opened.close()
