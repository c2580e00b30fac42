"""One process upgrades a database at a time; those that start meanwhile wait until it is done.

Transactions of the service are short and give up after seconds. An upgrade may take longer, so these limits are lifted
for the upgrade, and for those that wait for it, and for nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import IntegrityError, OperationalError

from diarist.jobs.db import sqlite

logger = logging.getLogger(__name__)

ADVISORY_LOCK = 0x64696172
"""Key of PostgreSQL's advisory lock on the schema. Schema version 3 used the same."""

SQLITE_WAIT_S = 3_600.0
"""How long to wait for another process that has an SQLite database locked."""

POSTGRES_LIMITS = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    # Not 0: of a machine that lost its power in mid-upgrade the server would hold the locks for hours.
    "idle_in_transaction_session_timeout": "10min",
}
"""Of the transaction of an upgrade."""


@contextmanager
def reading_schema(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads, and during which nobody upgrades the database."""
    with engine.connect().execution_options(**{sqlite.READ_ONLY: True}) as connection:
        if engine.dialect.name == "postgresql":
            _lock_postgres(connection, shared=True)
        yield connection


@contextmanager
def changing_schema(engine: Engine) -> Iterator[Connection]:
    """A transaction that nobody else has at the same time, and that may take as long as it has to."""
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
    _tell_that_it_waits()
    _lift_limits(connection)
    connection.execute(select(getattr(func, f"pg_advisory_xact_lock{suffix}")(ADVISORY_LOCK)))


def _lift_limits(connection: Connection) -> None:
    connection.execute(select(*(func.set_config(name, value, True) for name, value in POSTGRES_LIMITS.items())))


@contextmanager
def _sqlite(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        # A migration may make a table anew under its name, which would delete all rows that refer to it. Within a
        # transaction this cannot be switched (https://www.sqlite.org/foreignkeys.html, 5.1).
        driver.execute("PRAGMA foreign_keys = OFF")
        try:
            try:
                transaction = connection.begin()
            except OperationalError as error:
                if not sqlite.is_busy(error):
                    raise
                _tell_that_it_waits()
                driver.execute(f"PRAGMA busy_timeout = {SQLITE_WAIT_S * 1_000:.0f}")
                transaction = connection.begin()
            with transaction:
                yield connection
                if broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first():
                    raise IntegrityError(None, None, ValueError(f"rows of {broken[0]} refer to rows that are gone"))
        finally:
            driver.execute(f"PRAGMA busy_timeout = {sqlite.BUSY_TIMEOUT_S * 1_000:.0f}")
            driver.execute("PRAGMA foreign_keys = ON")


def _tell_that_it_waits() -> None:
    logger.info("Waiting for another process that has the job store locked, probably to upgrade it")
