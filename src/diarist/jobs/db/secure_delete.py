"""Secure deletion: data that was deleted from the job store is also overwritten on the disk."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from diarist.jobs.db.database import Database

logger = logging.getLogger(__name__)

MAX_WAIT_S = 2.0
"""How long to wait for readers and other checkpoints. These take milliseconds, and nobody can write meanwhile."""

RETRY_S = 0.02
"""The time between two attempts, because SQLite does not wait for another checkpoint."""

_CHECKPOINT_LOCK = threading.Lock()


def erase_deleted(database: Database) -> bool:
    """Checkpoint SQLite's write-ahead log: deleted data is overwritten in the file, but still present in the log.

    Other databases do this themselves (PostgreSQL with autovacuum).

    Returns:
        False if the database was in use or failed, so that the caller should try again later.
    """
    with database.reading() as connection:
        engine = connection.engine
    if engine.dialect.name != "sqlite":
        return True
    deadline = time.monotonic() + MAX_WAIT_S
    reason = "the database is in use"
    if _CHECKPOINT_LOCK.acquire(timeout=MAX_WAIT_S):
        try:
            while not _checkpoint(engine, deadline):
                if time.monotonic() >= deadline:
                    break
                time.sleep(RETRY_S)
            else:
                return True
        except (sqlite3.Error, SQLAlchemyError) as error:
            reason = type(getattr(error, "orig", None) or error).__name__  # its message may quote the statement
        finally:
            _CHECKPOINT_LOCK.release()
    logger.warning("Deleted data has not been overwritten yet; the next sweep tries again: %s", reason)
    return False


def _checkpoint(engine: Engine, deadline: float) -> bool:
    """Return whether the whole log has been transferred to the file, and is empty."""
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        before = cursor.execute("PRAGMA busy_timeout").fetchone()[0]
        try:
            cursor.execute(f"PRAGMA busy_timeout = {max(round((deadline - time.monotonic()) * 1_000), 1)}")
            busy, _, _ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {before}")
    finally:
        raw.close()
    return not busy
