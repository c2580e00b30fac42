from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from diarist.jobs.db.database import Database, open_database
from diarist.settings import load_settings


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.servers)])
def shared_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database that threads and processes may use at the same time."""
    url = request.getfixturevalue("postgres_server").fresh_database() if request.param == "postgresql" else ""
    with contextlib.closing(open_database(load_settings(data_dir=tmp_path, database_url=url))) as database:
        yield database
