"""SQLite: how the file is opened, how a transaction begins, and what its errors mean."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from diarist.errors import ServiceError, StorageFull, StoreUnavailable

BUSY_TIMEOUT_S = 10.0
"""How long a transaction waits for a lock. Transactions here take milliseconds."""

HELD_S = 0.5
"""A lock for writing that is held for longer than this is held by a process that does not run."""

LOCK_RETRY_INTERVAL_S = 0.01
"""How long to wait before a change that SQLite itself does not wait for is tried again."""

STORE_FULL = "The disk of the service is full. Try again later; the operator of the service can free space in DATA_DIR."
"""What callers read when the database cannot grow."""

LOST = (
    "The job store of the service was removed or replaced while it was in use. The log of the service says what to do."
)
"""What callers read when the file of the database is no longer the one that was opened."""

READ_ONLY = "diarist_read_only"
"""The execution option of a connection that only reads: it neither waits for writers nor blocks them."""


def open_sqlite(path: Path) -> Engine:
    """Open the database at ``path``, and create it and its folder if they do not exist. Only this user can read it.

    The database uses a write-ahead log, so that readers and the one writer do not wait for each other. With
    ``synchronous=NORMAL`` a process that is killed loses nothing, and the file is never damaged. A power cut may undo
    the last few commits, which costs the last step of a recording, whereas FULL would wait for the disk at every update
    of the progress. Deleted data is overwritten, since transcripts are private.

    Raises:
        StoreUnavailable: The folder or the file cannot be read or written, is locked, or is not such a database.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # SQLite gives its log files the permissions of the database.
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        identity = _identity(os.fstat(file))
        os.close(file)
    except OSError as error:
        raise StoreUnavailable(
            f"The job store {path} cannot be written ({error.strerror}). Let this user own its folder, "
            "or set DATA_DIR to one that can be written."
        ) from error
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": BUSY_TIMEOUT_S},
        pool_size=4,
        max_overflow=-1,
        hide_parameters=True,
    )
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", lambda _: _check_present(path, identity))
    event.listen(engine, "begin", _begin)
    try:
        with engine.connect():
            pass
    except DBAPIError as error:
        engine.dispose()
        raise explain(error, engine) from error
    return engine


def is_busy(error: DBAPIError) -> bool:
    """Return whether another process has locked the database."""
    return _primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def write_lock_is_held(engine: Engine) -> bool:
    """Return whether anyone holds the lock for writing for longer than ``HELD_S``."""
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.execute(f"PRAGMA busy_timeout = {HELD_S * 1_000:.0f}")
        try:
            driver.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise StoreUnavailable(
                    f"The job store {engine.url.database} failed ({error.sqlite_errorname})."
                ) from error
            return True
        else:
            driver.execute("ROLLBACK")
            return False
        finally:
            driver.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1_000:.0f}")


def explain(error: SQLAlchemyError, engine: Engine) -> ServiceError:
    """Return the error that a database error means, with a message that says what to do."""
    path = engine.url.database
    if not isinstance(error, DBAPIError):
        # Its message may quote the statement.
        return StoreUnavailable(f"The job store {path} cannot be used ({type(error).__name__}).")
    primary = _primary_code(error)
    if primary == sqlite3.SQLITE_FULL:
        return StorageFull(
            f"The disk that holds the job store {path} is full. Free some space, then try again.", public=STORE_FULL
        )
    return StoreUnavailable(f"The job store {path} {_meaning(error, primary)}")


def _meaning(error: DBAPIError, primary: int | None) -> str:
    """Return what an error means and what to do, as the rest of a sentence about the job store."""
    name = _error_name(error)
    if is_busy(error):
        return (
            f"has been locked by another process for more than {BUSY_TIMEOUT_S:.0f} s. "
            "Stop any other program that has it open, then try again."
        )
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return f"is damaged ({name}). Stop the service, move the file away and start again: a new one is created."
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR):
        return f"cannot be read or written ({name}). Check its disk, and that this user owns the file and its folder."
    if str(error.orig).startswith(("no such table", "no such column")):
        return (
            "lacks tables: the file was truncated or replaced. Stop the service, restore the file from a backup, and "
            "start again; without a backup, a new job store is created."
        )
    return f"failed ({name})."


def _error_name(error: DBAPIError) -> str:
    """Return SQLite's name of an error. Its message may quote what is stored."""
    name: str = getattr(error.orig, "sqlite_errorname", None) or type(error.orig).__name__
    return name


def _primary_code(error: DBAPIError) -> int | None:
    code: int | None = getattr(error.orig, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    # By default the driver begins transactions late, and only for statements that write. _begin does it instead.
    connection.isolation_level = None
    _use_write_ahead_log(connection)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA secure_delete = ON")


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    # SQLite upgrades a lock to make this change. It does not wait for another process that does the same, since each
    # would wait for the other, but reports at once that the database is locked.
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(LOCK_RETRY_INTERVAL_S)
        else:
            return


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _check_present(path: Path, identity: tuple[int, int]) -> None:
    """Check that the file is still the one that was opened: in one that was removed, everything would be lost.

    SQLite compares the same numbers (``fileHasMoved`` in os_unix.c), but not with a write-ahead log.
    """
    try:
        present = _identity(path.stat())
    except OSError as error:
        raise StoreUnavailable(
            f"The job store {path} was removed while it was in use ({error.strerror}). Restore the file, or start the "
            "service again, which creates a new one.",
            public=LOST,
        ) from error
    if present != identity:
        raise StoreUnavailable(
            f"The job store {path} was replaced by another file while it was in use. Start the service again, so that "
            "it uses the new file.",
            public=LOST,
        )


def _begin(connection: Connection) -> None:
    # A transaction that reads before it writes would fail if another one wrote in between, so it locks first.
    mode = "DEFERRED" if connection.get_execution_options().get(READ_ONLY) else "IMMEDIATE"
    connection.exec_driver_sql(f"BEGIN {mode}")
