"""Upgrades of the job store: every row is kept, and an upgraded store works like a new one."""

from __future__ import annotations

import json
import logging
import re
from contextlib import closing
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Text, select, text

from diarist import __version__
from diarist.jobs.db import schema
from diarist.jobs.db.api_keys import ApiKeyStore
from diarist.jobs.db.chunks import ChunkStore
from diarist.jobs.db.job_store import SqlJobStore
from diarist.jobs.db.migrations.locks import changing_schema
from diarist.jobs.db.migrations.state import REVISION_TABLE, SchemaState, revision_of
from diarist.jobs.db.migrations.upgrading import scripts, upgrade
from diarist.jobs.db.outbox import FETCH, WEBHOOK, OutboxStore
from diarist.jobs.model import JobKind, JobState
from diarist.outbound.webhooks import DeliveryResult
from support.job_stores import ATTEMPTS, LEASE_S, TRANSCRIPT, Clock, new_job, rows_naming
from support.old_job_stores import EXPECTED, NOW, OldStore, described

IDS = EXPECTED["ids"]
TABLES = {"errands": "outbox_tasks", "portions": "chunks", "tallies": "metrics"}
COLUMNS = {
    "jobs": {
        "settled": "finalized",
        "deaths": "worker_crashes",
        "interruptions": "service_crashes",
        "attended_until": "caller_lease_until",
    },
    "chunks": {"deaths": "worker_crashes"},
    "deliveries": {"errand_id": "task_id"},
}
RELEASE = re.escape(__version__)


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.now = NOW
    return clock


@pytest.fixture
def store(old_database, clock):
    """The store on a database of schema version 3 that was upgraded."""
    store = SqlJobStore(old_database.open(clock))
    yield store
    store.close()


def named_anew(rows: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Rows of schema version 3 as version 5 has them."""
    rows = rows | {"api_keys": [row | {"storage_limit_mb": None} for row in rows["api_keys"]]}
    renamed = {TABLES.get(table, table): found for table, found in rows.items()}
    return {
        table: sorted(
            ({COLUMNS.get(table, {}).get(name, name): value for name, value in row.items()} for row in found), key=repr
        )
        for table, found in renamed.items()
    }


class TestScripts:
    def test_the_last_one_is_the_version_of_the_tables(self):
        assert scripts().get_heads() == [revision_of(schema.VERSION)]

    def test_they_are_numbered_without_a_gap_and_say_what_they_need(self):
        found = list(scripts().walk_revisions())[::-1]
        assert [script.revision for script in found] == [revision_of(n) for n in range(3, schema.VERSION + 1)]
        for script in found[1:]:
            assert re.fullmatch(r"\d+\.\d+\.\d+", script.module.min_release)
            assert script.doc

    def test_they_make_the_tables_of_the_code(self, empty_database):
        with closing(empty_database.open()) as database, database.reading() as connection:
            context = MigrationContext.configure(connection, opts={"version_table": REVISION_TABLE})
            assert compare_metadata(context, schema.metadata) == []

    def test_the_comparison_sees_what_differs(self, empty_database):
        with closing(empty_database.open()) as database:
            empty_database.execute("DROP INDEX jobs_by_end; ALTER TABLE workers RENAME COLUMN device TO machine;")
            with database.reading() as connection:
                context = MigrationContext.configure(connection, opts={"version_table": REVISION_TABLE})
                assert len(compare_metadata(context, schema.metadata)) == 3

    def test_the_baseline_makes_the_tables_of_version_3(self, empty_database, other_database):
        with closing(empty_database.open()) as database:
            cascade = " CASCADE" if empty_database.kind == "postgres" else ""
            empty_database.execute("; ".join(f'DROP TABLE "{name}"{cascade}' for name in empty_database.rows()))
            with changing_schema(database._engine) as connection:
                upgrade(connection, SchemaState(), target=3)
        assert shape(empty_database) == shape(other_database.fill())

    def test_new_and_upgraded_databases_are_the_same(self, empty_database, other_database):
        other_database.fill()
        for each in (empty_database, other_database):
            each.open().close()
        assert shape(empty_database) == shape(other_database)


@pytest.fixture
def other_database(empty_database, tmp_path, request) -> OldStore:
    """A second one of the same kind."""
    if empty_database.kind == "sqlite":
        return OldStore("sqlite", str(tmp_path / "other.sqlite3"))
    return OldStore("postgres", request.getfixturevalue("postgres_server").fresh_database())


def shape(store: OldStore) -> list[tuple[object, ...]]:
    """Everything that the database itself knows of tables, columns, indexes, constraints and sequences."""
    asked = (
        ["SELECT type, name, tbl_name, sql FROM sqlite_master"]
        if store.kind == "sqlite"
        else [
            """
            SELECT table_name, column_name, ordinal_position, data_type, character_maximum_length, is_nullable,
                column_default
            FROM information_schema.columns WHERE table_schema = 'public'
            """,
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace",
            "SELECT sequencename, data_type::text, start_value, increment_by FROM pg_sequences",
        ]
    )
    with store.reading() as connection:
        found = [tuple(row) for query in asked for row in connection.execute(text(query))]
    assert len(found) > 30
    return sorted((row for row in found if REVISION_TABLE not in repr(row)), key=repr)


class TestUpgrade:
    def test_every_answer_is_what_it_was(self, old_database):
        with closing(old_database.open()) as database:
            answers = described(database)
            for topic, expected in EXPECTED.items():
                assert answers[topic] == expected, topic

    def test_every_row_is_what_it_was(self, old_database):
        before = named_anew(old_database.rows())
        old_database.open().close()
        after = old_database.rows()
        assert after.pop(REVISION_TABLE) == [{"version_num": revision_of(schema.VERSION)}]
        assert after.pop("schema_version") == [{"version": schema.VERSION, "min_release": "0.2.0"}]
        assert before.pop("schema_version") == [{"version": 3}]
        assert after == before

    def test_the_log_tells_of_each_step_once_and_in_words_of_ours(self, old_database, caplog):
        with caplog.at_level(logging.INFO):
            old_database.open().close()
            old_database.open().close()
        assert [record.getMessage() for record in caplog.records] == [
            "Upgrading the job store from schema version 3 to 5",
            "Applied the migration from schema version 3 to 4",
            "Applied the migration from schema version 4 to 5",
            "The job store was upgraded to schema version 5",
        ]

    def test_a_table_that_a_store_of_version_3_lacks_is_made(self, old_database):
        """Early ones were without some tables, which a start made."""
        old_database.execute("DROP TABLE portions; DROP TABLE deliveries;")
        with closing(old_database.open()) as database:
            assert described(database)["jobs"] == EXPECTED["jobs"]
        assert old_database.rows()["chunks"] == old_database.rows()["deliveries"] == []

    def test_what_is_done_to_jobs_goes_on(self, store, clock):
        for _ in range(2):
            job = store.claim("new", LEASE_S, ATTEMPTS)
            assert store.finalize(job.id, "new", 0, TRANSCRIPT.utterances[:1])
            assert store.renew(job.id, "new", LEASE_S, "recognition", 0.5)
            assert store.finish(job.id, "new", TRANSCRIPT)
            assert store.get_transcript(job.id).utterances == TRANSCRIPT.utterances
            assert store.get(job.id).finalized == len(TRANSCRIPT.utterances)
        assert job.id == IDS["high"], "after the request"
        events = store.list_events(IDS["high"], after=len(EXPECTED["events"]["high"]))
        assert [event.number for event in events] == [2, 3, 4, 5]
        assert [event.state for event in events if event.state] == [JobState.RUNNING, JobState.SUCCEEDED]

    def test_a_running_job_goes_on_where_it_was(self, store):
        worker = EXPECTED["jobs"]["long"]["worker"]
        assert store.finish(IDS["long"], worker, TRANSCRIPT)
        assert store.get(IDS["long"]).state is JobState.SUCCEEDED

    def test_a_lease_lapses_as_if_nothing_had_been(self, store, clock):
        assert IDS["lapsing"] not in store.release(None, ATTEMPTS)
        clock.advance(60.0)
        assert store.release(None, ATTEMPTS) == (IDS["lapsing"],)
        job = store.get(IDS["lapsing"])
        assert (job.state, job.worker_crashes, job.service_crashes) == (JobState.QUEUED, 2, 1)
        claimed = set()
        while (taken := store.claim("new", 3_600.0, ATTEMPTS)) is not None:
            claimed.add(taken.id)
        assert claimed == {IDS[name] for name in ("request", "low", "normal", "second", "high", "lapsing")}
        clock.advance(600.0)
        assert store.claim("new", LEASE_S, ATTEMPTS).id == IDS["later"]

    def test_chunks_that_were_done_stay_done(self, store, clock):
        chunks = ChunkStore(store.database)
        states = chunks.states(IDS["long"])
        assert sorted((state.done, state.worker_crashes) for state in states.values()) == [
            (False, 0), (False, 0), (False, 1), (True, 0),
        ]  # fmt: skip
        for _ in range(2):
            free = chunks.claim("new", LEASE_S, "embedded whisper-base", ("gpu",))
            assert free.job_id == IDS["long"]
            assert chunks.complete(free, "new")
        assert chunks.claim("new", LEASE_S, "embedded whisper-base") is None, "the last one is in hand"

    def test_idempotency_keys_are_known(self, store):
        owner = EXPECTED["jobs"]["high"]["owner"]
        again = new_job(owner=owner, idempotency_key="schlüssel 1", fingerprint="0123456789abcdef" * 4)
        assert store.create(again).id == IDS["high"]

    def test_new_rows_get_numbers_of_their_own(self, store, clock):
        job = store.create(new_job(webhook_url="https://example.com/"))
        store.cancel(job.id)
        with store.database.reading() as connection:
            numbers = connection.execute(select(schema.jobs.c.number)).scalars().all()
            tasks = connection.execute(select(schema.outbox_tasks.c.number)).scalars().all()
        assert len(set(numbers)) == len(IDS) + 1
        assert len(set(tasks)) == len(EXPECTED["outbox_tasks"]) + 1

    def test_keys_are_checked(self, store):
        keys = ApiKeyStore(store.database)
        assert keys.check(EXPECTED["tokens"]["web"]).name == "web"
        assert keys.check(EXPECTED["tokens"]["batch jobs"]).name == "batch jobs"
        assert keys.check(EXPECTED["tokens"]["old"]) is None, "it was revoked"

    def test_tasks_are_picked_up(self, store, clock):
        tasks = OutboxStore(store.database)
        fetch = tasks.claim("new", LEASE_S, (FETCH,))
        assert (fetch.job_id, fetch.owner) == (IDS["to fetch"], EXPECTED["jobs"]["to fetch"]["owner"])
        assert tasks.claim("new", LEASE_S, (FETCH,)) is None, "the other one is in hand"
        webhook = tasks.claim("new", LEASE_S, (WEBHOOK,))
        assert webhook.job_id == IDS["canceled"]
        assert tasks.record_delivery(webhook, DeliveryResult(200, 0.5))
        assert [each.status for each in tasks.list_deliveries(IDS["canceled"])] == [200]
        clock.advance(3_600.0)
        assert tasks.claim("new", LEASE_S, (WEBHOOK,)).job_id == IDS["failed"]
        lapsed = tasks.claim("new", LEASE_S, (FETCH,))
        assert {lapsed.job_id, tasks.claim("new", LEASE_S, (FETCH,)).job_id} == {IDS["fetching"], IDS["to fetch"]}

    def test_a_webhook_is_sent_again_under_its_old_id(self, store):
        tasks = OutboxStore(store.database)
        (first, *_) = [row for row in _delivery_rows(store) if row.job_id == IDS["german"]]
        assert tasks.redeliver(IDS["german"])
        tasks.claim("new", LEASE_S, (WEBHOOK,))
        with store.database.reading() as connection:
            of_job = schema.outbox_tasks.c.job_id == IDS["german"]
            assert connection.execute(select(schema.outbox_tasks.c.id).where(of_job)).scalar_one() == first.task_id

    def test_what_is_deleted_leaves_no_row(self, store):
        for job_id in IDS.values():
            assert rows_naming(store, job_id)
            store.delete(job_id)
            assert rows_naming(store, job_id) == {}
        assert sum(store.count_unfinished(JobKind.JOB).values()) == 0


def _delivery_rows(store: SqlJobStore):
    with store.database.reading() as connection:
        return connection.execute(select(schema.deliveries).order_by(schema.deliveries.c.number)).all()


def test_the_crashes_of_runners_stay_counted(old_database, clock):
    other = """'{"event": "job.failed", "note": "deaths"}'"""
    old_database.execute(
        f"""UPDATE errands SET body = '{{"event": "job.canceled", "deaths": 2}}' WHERE job_id = '{IDS["canceled"]}';"""
        f"""UPDATE errands SET body = {other} WHERE job_id = '{IDS["failed"]}'"""
    )
    with closing(old_database.open(clock)) as database:
        tasks = OutboxStore(database)
        assert tasks.claim("first", LEASE_S, (WEBHOOK,)).worker_crashes == 2
        clock.advance(LEASE_S + 1)
        assert tasks.claim("second", LEASE_S, (WEBHOOK,)).worker_crashes == 3
    bodies = {row["job_id"]: json.loads(row["body"]) for row in old_database.rows()["outbox_tasks"]}
    assert bodies[IDS["canceled"]] == {"event": "job.canceled", "crashes": 3}
    assert bodies[IDS["failed"]] == {"event": "job.failed", "note": "deaths"}


class TestOlder:
    @pytest.mark.parametrize("version", [1, 2])
    def test_tables_of_requests_alone_make_way(self, empty_database, version, caplog):
        empty_database.execute(
            "CREATE TABLE schema_version (version INTEGER PRIMARY KEY);"
            f"INSERT INTO schema_version VALUES ({version});"
            "CREATE TABLE jobs (number INTEGER PRIMARY KEY, id VARCHAR(64) UNIQUE, state VARCHAR(16));"
            "INSERT INTO jobs VALUES (1, 'of a caller who is gone', 'running');"
            "CREATE TABLE transcripts (job_id VARCHAR(64) PRIMARY KEY REFERENCES jobs(id), transcript TEXT);"
            "INSERT INTO transcripts VALUES ('of a caller who is gone', '{}');"
            "CREATE TABLE workers (worker VARCHAR(128) PRIMARY KEY, pid INTEGER);"
        )
        with caplog.at_level(logging.INFO):
            store = SqlJobStore(empty_database.open())
        assert f"from schema version {version} to 3" in caplog.text
        assert store.list_unfinished() == store.list_worker_reports() == ()
        job = store.create(new_job())
        store.close()
        with closing(empty_database.open()) as database:
            assert SqlJobStore(database).get(job.id) == job

    def test_version_3_is_never_dropped(self, old_database):
        old_database.open().close()
        assert len(old_database.rows()["jobs"]) == len(IDS)


def test_a_table_that_is_made_anew_takes_no_row_of_others_with_it(old_database):
    """What ``op.batch_alter_table`` does on SQLite: new table, copy, drop, rename."""
    with closing(old_database.open()) as database:
        with changing_schema(database._engine) as connection:
            context = MigrationContext.configure(connection)
            with Operations.context(context) as op, op.batch_alter_table("jobs", recreate="auto") as batch:
                batch.alter_column("stage", type_=Text)
        assert described(database) == EXPECTED
        SqlJobStore(database).delete(IDS["long"])
        assert rows_naming(SqlJobStore(database), IDS["long"]) == {}
