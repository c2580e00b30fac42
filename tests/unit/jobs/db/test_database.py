from __future__ import annotations

import gc
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, insert, select, text, update

from diarist.errors import ConfigurationError, StoreUnavailable
from diarist.jobs.db import postgres, schema
from diarist.jobs.db.database import FILE_NAME, Database, open_database, upsert
from diarist.jobs.db.job_store import SqlJobStore
from diarist.jobs.db.schema import owners, schema_version
from diarist.jobs.db.sqlite import open_sqlite
from support.job_stores import START, Clock, new_job, open_postgres_store, open_sqlite_store


def test_what_opens_by_default_is_in_the_data_folder(settings):
    database = open_database(settings)
    assert (settings.data_dir / FILE_NAME).is_file()
    with database.reading() as connection:
        assert abs(database.now(connection) - datetime.now(UTC)) < timedelta(minutes=1)
    database.close()


@pytest.mark.parametrize("url", ["mysql://u:secret@h/n", "sqlite:///x", "nonsense secret"])
def test_another_kind_of_database_is_refused_without_its_password(make_settings, url):
    with pytest.raises(ConfigurationError, match="postgresql://user:password@host/name") as caught:
        open_database(make_settings(database_url=url))
    if "//" in url:
        assert "secret" not in str(caught.value)


def test_a_fleet_goes_by_the_clock_of_its_database(make_settings, postgres_server, monkeypatch):
    monkeypatch.setattr("diarist.jobs.db.database.utc_now", lambda: START)
    database = open_database(make_settings(database_url=postgres_server.fresh_database()))
    with database.writing() as connection:
        first, second = database.now(connection), database.now(connection)
    database.close()
    assert first.tzinfo is UTC
    assert first < second, "it goes on within a transaction"
    assert abs(first - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.servers)])
def open_again(request, tmp_path):
    """Opens the same database over and over."""
    opened: list[Database] = []
    url = request.getfixturevalue("postgres_server").fresh_database() if request.param == "postgres" else ""

    def make() -> Database:
        if url:
            opened.append(Database(postgres.open_postgres(url), Clock(), postgres.explain))
        else:
            opened.append(Database(open_sqlite(tmp_path / "jobs.sqlite3"), Clock()))
        return opened[-1]

    yield make
    for database in opened:
        database.close()


def test_a_store_of_a_newer_diarist_is_left_alone(open_again):
    with open_again().writing() as connection:
        connection.execute(update(schema_version).values(version=schema.VERSION + 1))
    with pytest.raises(StoreUnavailable, match=rf"version {schema.VERSION + 1}.*supports version {schema.VERSION}"):
        open_again()
    gc.collect()  # a connection that is left open says so


def test_what_is_interrupted_leaves_nothing(open_again):
    database = open_again()

    def interrupted() -> None:
        with database.writing() as connection:
            connection.execute(insert(owners).values(owner="a", turn=1))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    with database.reading() as connection:
        assert connection.execute(select(owners)).all() == []


def test_an_error_of_the_database_is_told_in_words(open_again):
    database = open_again()

    def wrong() -> None:
        with database.reading() as connection:
            connection.execute(text("SELECT * FROM nowhere"))

    with pytest.raises(StoreUnavailable, match="job store"):
        wrong()


def test_tables_of_the_first_diarist_make_way(tmp_path):
    """Nothing in them outlived a start: whoever had waited for it was gone."""
    path = tmp_path / "jobs.sqlite3"
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        for statement in (
            "CREATE TABLE schema_version (version INTEGER PRIMARY KEY)", "INSERT INTO schema_version VALUES (2)",
            "CREATE TABLE jobs (id TEXT PRIMARY KEY, state TEXT)", "INSERT INTO jobs VALUES ('old', 'queued')",
            "CREATE TABLE transcripts (job_id TEXT)", "CREATE TABLE workers (worker TEXT)",
        ):  # fmt: skip
            connection.execute(text(statement))
    engine.dispose()
    store = SqlJobStore(Database(open_sqlite(path), Clock()))
    assert store.list_unfinished() == ()
    job = store.create(new_job())
    assert store.get(job.id) == job
    with store.database.reading() as connection:
        assert connection.execute(select(schema_version.c.version)).scalars().all() == [schema.VERSION]
    store.close()


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
