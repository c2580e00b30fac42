from __future__ import annotations

import pytest
from sqlalchemy import select

from diarist.jobs.db.schema import owners
from diarist.jobs.db.upsert import upsert
from support.job_stores import Clock, open_postgres_store, open_sqlite_store


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.servers)])
def connection(request, tmp_path):
    if request.param == "sqlite":
        store = open_sqlite_store(str(tmp_path), Clock())
    else:
        store = open_postgres_store(request.getfixturevalue("postgres_server").fresh_database(), Clock())
    with store.database.writing() as opened:
        yield opened
    store.close()


def test_a_row_is_made_then_changed_or_left_alone(connection):
    def turn() -> int:
        return connection.execute(select(owners.c.turn).where(owners.c.owner == "a")).scalar_one()

    row = {"owner": "a", "turn": 3}
    upsert(connection, owners, {"owner": "b", "turn": 0}, {})
    upsert(connection, owners, row, {"turn": 7})
    assert turn() == 3
    upsert(connection, owners, row, {"turn": owners.c.turn + 4})
    assert turn() == 7
    upsert(connection, owners, row, {})
    assert turn() == 7
    assert connection.execute(select(owners.c.turn).where(owners.c.owner == "b")).scalar_one() == 0
