"""Locks that let only one process upgrade a database at a time. Others that start meanwhile wait for it.

Transactions of the service are short and time out after seconds. An upgrade may take longer, so these limits do not
apply to the upgrade and to the processes that wait for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import OperationalError

from diarist.errors import StoreUnavailable
from diarist.jobs.db import sqlite

logger = logging.getLogger(__name__)

ADVISORY_LOCK = 0x64696172
"""The key of PostgreSQL's advisory lock on the schema. Schema version 3 used the same key."""

SQLITE_WAIT_S = 3_600.0
"""How long to wait for another process that has locked an SQLite database."""

POSTGRES_LIMITS = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    # Not 0: if a machine lost its power during an upgrade, the server would hold its locks for hours.
    "idle_in_transaction_session_timeout": "10min",
}
"""The settings of the transaction of an upgrade."""


@contextmanager
def reading_schema(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that only reads, and during which nobody upgrades the database."""
    with engine.connect().execution_options(**{sqlite.READ_ONLY: True}) as connection:
        if engine.dialect.name == "postgresql":
            _lock_postgres(connection, shared=True)
        yield connection


@contextmanager
def changing_schema(engine: Engine) -> Iterator[Connection]:
    """Open an exclusive transaction without time limits."""
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            _lift_limits(connection)
            _lock_postgres(connection, shared=False)
            yield connection
    else:
        with _sqlite(engine) as connection:
            yield connection


def _lock_postgres(connection: Connection, *, shared: bool) -> None:
    suffix = "_shared" if shared else ""
    if connection.execute(select(getattr(func, f"pg_try_advisory_xact_lock{suffix}")(ADVISORY_LOCK))).scalar_one():
        return
    _log_wait()
    _lift_limits(connection)
    connection.execute(select(getattr(func, f"pg_advisory_xact_lock{suffix}")(ADVISORY_LOCK)))


def _lift_limits(connection: Connection) -> None:
    connection.execute(select(*(func.set_config(name, value, True) for name, value in POSTGRES_LIMITS.items())))


@contextmanager
def _sqlite(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        # A migration may recreate a table, which would delete all rows that refer to it. Foreign keys cannot be
        # disabled within a transaction (https://www.sqlite.org/foreignkeys.html, 5.1).
        driver.execute("PRAGMA foreign_keys = OFF")
        try:
            try:
                transaction = connection.begin()
            except OperationalError as error:
                if not sqlite.is_busy(error):
                    raise
                _log_wait()
                driver.execute(f"PRAGMA busy_timeout = {SQLITE_WAIT_S * 1_000:.0f}")
                transaction = connection.begin()
            with transaction:
                yield connection
                if broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first():
                    raise StoreUnavailable(
                        f"The job store {engine.url.database} cannot be upgraded, because rows of {broken[0]} refer to "
                        "rows that do not exist. It is unchanged. Restore a backup, or use the earlier release."
                    )
        finally:
            driver.execute(f"PRAGMA busy_timeout = {sqlite.BUSY_TIMEOUT_S * 1_000:.0f}")
            driver.execute("PRAGMA foreign_keys = ON")


def _log_wait() -> None:
    logger.info("Waiting for another process that has locked the job store, probably to upgrade it")
