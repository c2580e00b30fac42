"""The database of an installation and its transactions, which all stores share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Table, func, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.exc import SQLAlchemyError

from diarist.errors import ConfigurationError, ServiceError
from diarist.jobs.db import sqlite
from diarist.jobs.db.migrations.locks import changing_schema, reading_schema
from diarist.jobs.db.migrations.state import SchemaState, check_state, read_state
from diarist.jobs.db.schema import VERSION, schema_version
from diarist.settings import Settings

logger = logging.getLogger(__name__)

FILE_NAME = "jobs.sqlite3"
"""The name of the database in DATA_DIR."""


def utc_now() -> datetime:
    """Return the current time, aware and in UTC."""
    return datetime.now(UTC)


def open_database(settings: Settings) -> Database:
    """Open the database of this installation, and create it if it does not exist.

    Raises:
        ConfigurationError: DATABASE_URL does not name a supported database.
        StoreUnavailable: The database cannot be read or written; the message says what to do.
    """
    if not settings.database_url:
        return Database(sqlite.open_sqlite(settings.data_dir / FILE_NAME))
    kind = settings.database_url.partition(":")[0].partition("+")[0]
    if kind not in ("postgresql", "postgres"):
        raise ConfigurationError(
            f"DATABASE_URL names a database of the unsupported kind {kind!r}. Set it to "
            "postgresql://user:password@host/name, or leave it empty for SQLite in DATA_DIR."
        )
    from diarist.jobs.db import postgres

    return Database(postgres.open_postgres(settings.database_url), explain=postgres.explain)


def serialize_writers(connection: Connection) -> None:
    """Block other transactions that call this until the current one ends, so that it can read and then insert safely.

    SQLite's own lock already ensures that.
    """
    connection.execute(select(schema_version.c.version).with_for_update())


def upsert(connection: Connection, table: Table, values: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """Insert a row, or apply ``changes`` to the row with the same primary key (none: leave it)."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite_dialect
    statement = dialect.insert(table).values(**values)
    key = list(table.primary_key.columns)
    if changes:
        connection.execute(statement.on_conflict_do_update(index_elements=key, set_=dict(changes)))
    else:
        connection.execute(statement.on_conflict_do_nothing(index_elements=key))


class Database:
    """Transactions in a database that SQLAlchemy supports.

    Args:
        engine: The opened database.
        clock: Returns aware times in UTC. None means the clock of the PostgreSQL server, so that the clocks of a fleet
            need not agree; with SQLite it means the clock of this machine.
        explain: Converts a database error to an error whose message says what to do.

    Raises:
        StoreUnavailable: The tables cannot be created or upgraded, or were written by a newer release of Diarist.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Callable[[], datetime] | None = None,
        explain: Callable[[SQLAlchemyError, Engine], ServiceError] = sqlite.explain,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._explain = explain
        self._remote_clock = clock is None and engine.dialect.name != "sqlite"
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._engine.dispose()

    def now(self, connection: Connection) -> datetime:
        """Return the time by the clock that all leases are measured with."""
        if self._remote_clock:
            moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
            return moment.astimezone(UTC)
        return (self._clock or utc_now)()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that may change the database."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise self._explain(error, self._engine) from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that only reads."""
        try:
            with self._engine.connect().execution_options(**{sqlite.READ_ONLY: True}) as connection:
                yield connection
        except SQLAlchemyError as error:
            raise self._explain(error, self._engine) from error

    def write_lock_is_held(self) -> bool:
        """Return whether anyone holds the only lock for writing, as SQLite has it, for longer than a transaction takes.

        PostgreSQL locks rows, and ends transactions that do nothing (``postgres.IDLE_TIMEOUT_MS``).
        """
        if self._engine.dialect.name != "sqlite":
            return False
        try:
            return sqlite.write_lock_is_held(self._engine)
        except SQLAlchemyError as error:
            raise self._explain(error, self._engine) from error

    def _prepare(self) -> None:
        """Upgrade the tables. If they are up to date, nothing is locked, and Alembic is not imported."""
        try:
            with reading_schema(self._engine) as connection:
                if self._checked_state(connection).version == VERSION:
                    return
            # At INFO it logs each of its own plugins.
            logging.getLogger("alembic").setLevel(logging.WARNING)
            from diarist.jobs.db.migrations.upgrading import upgrade

            with changing_schema(self._engine) as connection:
                # Another process may have upgraded the database in the meantime.
                state = self._checked_state(connection)
                if state.version == VERSION:
                    return
                logger.info("Upgrading the job store from schema version %s to %d", state.version or "none", VERSION)
                upgrade(connection, state)
        except SQLAlchemyError as error:
            raise self._explain(error, self._engine) from error
        logger.info("The job store was upgraded to schema version %d", VERSION)

    def _checked_state(self, connection: Connection) -> SchemaState:
        state = read_state(connection)
        check_state(state, self._engine.url.database)
        return state
