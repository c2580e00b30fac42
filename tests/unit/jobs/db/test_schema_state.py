"""Job stores that cannot be used, or need no upgrade: their messages, and that nothing is changed."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from contextlib import closing

import pytest
from sqlalchemy import select

from diarist import __version__
from diarist.errors import StoreUnavailable
from diarist.jobs.db import schema
from diarist.jobs.db.job_store import SqlJobStore
from diarist.jobs.db.migrations.locks import POSTGRES_LIMITS, changing_schema
from diarist.jobs.db.migrations.state import REVISION_TABLE, SchemaState, read_state, revision_of
from diarist.jobs.db.migrations.upgrading import upgrade
from support.job_stores import new_job
from support.old_job_stores import OldStore

RELEASE = re.escape(__version__)


def set_version(store: OldStore, version: int, more: str = "") -> None:
    store.execute(f"UPDATE schema_version SET version = {version}{more}")


def refused(store: OldStore) -> str:
    """What is said where the store cannot be opened. Nothing is changed then."""
    before = store.rows()
    with pytest.raises(StoreUnavailable) as caught:
        store.open()
    gc.collect()  # a connection that is left open says so
    assert store.rows() == before
    return str(caught.value)


class TestRefusal:
    def test_a_newer_one_says_which_release_reads_it(self, empty_database):
        empty_database.open().close()
        set_version(empty_database, 7, ", min_release = '0.4.0'")
        said = refused(empty_database)
        assert re.search(
            r"has schema version 7, which requires Diarist 0\.4\.0 or newer; "
            rf"this is Diarist {RELEASE}, which supports version {schema.VERSION}\. "
            r"Install that release, or set DATA_DIR or DATABASE_URL to another place\.$",
            said,
        ), said

    def test_a_much_newer_one_needs_to_say_no_more_than_its_version(self, empty_database):
        empty_database.execute("CREATE TABLE schema_version (version INT); INSERT INTO schema_version VALUES (99);")
        said = refused(empty_database)
        assert "has schema version 99; this is Diarist" in said
        assert "Install the release that wrote it, or set DATA_DIR" in said

    @pytest.mark.parametrize(
        ("statement", "said"),
        [
            (f"UPDATE {REVISION_TABLE} SET version_num = '0003'", "says schema version 5, but .* says 0003"),
            (f"UPDATE {REVISION_TABLE} SET version_num = '0006'", "says schema version 5, but .* says 0006"),
            (f"DROP TABLE {REVISION_TABLE}", "says schema version 5, but .* says none"),
            ("DELETE FROM schema_version", "says schema version none, but .* says 0005"),
            ("UPDATE schema_version SET version = 3", "says schema version 3, but .* says 0005"),
            ("UPDATE schema_version SET version = 1", "says schema version 1, but .* says 0005"),
        ],
    )
    def test_records_that_disagree(self, empty_database, statement, said):
        empty_database.open().close()
        empty_database.execute(statement)
        message = refused(empty_database)
        assert re.search(said, message), message
        assert "Restore it from a backup" in message

    def test_a_user_who_may_not_alter_tables(self, postgres_server):
        old_database = OldStore("postgres", postgres_server.fresh_database()).fill()
        name = f"guest_{old_database.address.rpartition('/')[2]}"
        old_database.execute(
            f"CREATE ROLE {name} LOGIN PASSWORD 'hush-hush-hush';"
            f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}; GRANT ALL ON SCHEMA public TO {name};"
        )
        address = re.sub(r"//.*@", f"//{name}:hush-hush-hush@", old_database.address)
        said = refused(OldStore("postgres", address))
        assert "does not give this user enough privileges (must be owner of table" in said
        assert "own the database and its tables" in said
        old_database.execute(f"DROP OWNED BY {name}; DROP ROLE {name};")

    def test_a_user_who_may_not_alter_tables_that_are_up_to_date_may_work(self, postgres_server):
        store = OldStore("postgres", postgres_server.fresh_database())
        store.open().close()
        name = f"guest_{store.address.rpartition('/')[2]}"
        store.execute(
            f"CREATE ROLE {name} LOGIN PASSWORD 'hush-hush-hush'; GRANT ALL ON ALL TABLES IN SCHEMA public TO {name};"
            f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {name};"
        )
        address = re.sub(r"//.*@", f"//{name}:hush-hush-hush@", store.address)
        with closing(OldStore("postgres", address).open()) as database:
            SqlJobStore(database).create(new_job())
        store.execute(f"DROP OWNED BY {name}; DROP ROLE {name};")

    def test_a_file_that_cannot_be_written(self, tmp_path, monkeypatch):
        old_database = OldStore("sqlite", str(tmp_path / "jobs.sqlite3")).fill()
        monkeypatch.setattr("diarist.jobs.db.sqlite._prepare", _only_reads)
        assert "cannot be read or written" in refused(old_database)


def _only_reads(connection, _record) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA query_only = ON")


class TestForeignTables:
    def test_they_are_left_as_they_are(self, empty_database):
        empty_database.execute(
            "CREATE TABLE alembic_version (version_num VARCHAR(32)); INSERT INTO alembic_version VALUES ('ab12');"
            "CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO customers VALUES (1, 'x');"
        )
        before = empty_database.rows()
        empty_database.open().close()
        after = empty_database.rows()
        assert before.items() <= after.items()
        assert before.keys() == {"alembic_version", "customers"}

    def test_they_are_left_as_they_are_by_an_upgrade(self, old_database):
        old_database.execute("CREATE TABLE customers (id INT, name TEXT); INSERT INTO customers VALUES (1, 'x');")
        old_database.open().close()
        assert old_database.rows()["customers"] == [{"id": 1, "name": "x"}]

    def test_one_that_is_in_the_way_is_not_taken_for_ours(self, empty_database):
        empty_database.execute("CREATE TABLE jobs (id INT, title TEXT); INSERT INTO jobs VALUES (1, 'baker');")
        said = refused(empty_database)
        assert "jobs" in said
        if empty_database.kind == "postgres":
            assert "Create a database for Diarist alone" in said


class TestCost:
    def test_a_database_that_is_up_to_date_is_opened_without_alembic(self, empty_database):
        empty_database.open().close()
        program = (
            "import sys; from pathlib import Path; from diarist.jobs.db import postgres, sqlite\n"
            "from diarist.jobs.db.database import Database\n"
            "kind, address = sys.argv[1:]\n"
            "engine = sqlite.open_sqlite(Path(address)) if kind == 'sqlite' else postgres.open_postgres(address)\n"
            "Database(engine).close(); print('alembic' in sys.modules)"
        )
        command = [sys.executable, "-c", program, empty_database.kind, empty_database.address]
        said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        assert said.stdout.split() == ["False"]

    def test_a_database_that_is_up_to_date_is_opened_while_others_write(self, empty_database):
        with closing(empty_database.open()) as database, database.writing() as connection:
            connection.execute(select(schema.schema_version).with_for_update())
            empty_database.open().close()

    def test_limits_are_lifted_for_an_upgrade(self, postgres_server):
        database = OldStore("postgres", postgres_server.fresh_database()).open()
        with closing(database), changing_schema(database._engine) as connection:
            found = [connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in POSTGRES_LIMITS]
        assert found == ["0", "0", "10min"]

    def test_limits_are_back_after_an_upgrade(self, old_database):
        with closing(old_database.open()) as database, database.reading() as connection:
            asked = (
                ["SHOW statement_timeout", "SHOW lock_timeout", "SHOW idle_in_transaction_session_timeout"]
                if old_database.kind == "postgres"
                else ["PRAGMA busy_timeout", "PRAGMA foreign_keys"]
            )
            found = [connection.exec_driver_sql(each).scalar_one() for each in asked]
        assert found == (["30s", "10s", "10s"] if old_database.kind == "postgres" else [10_000, 1])


def test_a_state_is_read_from_the_database_that_it_is_of(empty_database):
    with closing(empty_database.open()) as database, database.reading() as connection:
        assert read_state(connection) == SchemaState(schema.VERSION, "0.2.0", revision_of(schema.VERSION))


def test_a_migration_that_would_leave_rows_without_their_job_is_undone(tmp_path, monkeypatch):
    """SQLite checks references at the end alone, because a migration may make a table anew."""
    old_database = OldStore("sqlite", str(tmp_path / "jobs.sqlite3")).fill()

    def lose_jobs(connection, state) -> None:
        upgrade(connection, state)
        connection.exec_driver_sql("DELETE FROM jobs")

    monkeypatch.setattr("diarist.jobs.db.migrations.upgrading.upgrade", lose_jobs)
    assert "refer to rows that do not exist" in refused(old_database)
