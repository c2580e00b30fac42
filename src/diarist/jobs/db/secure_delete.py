"""What was deleted from the job store leaves the disk, too."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from diarist.jobs.db.database import Database

logger = logging.getLogger(__name__)

PATIENCE_S = 2.0
"""How long to wait for others who read, or fold the log too: they take milliseconds, and nobody can write meanwhile."""

AGAIN_S = 0.02
"""Between two tries: SQLite does not wait for another one who folds the log."""

_ERASING = threading.Lock()


def erase_deleted(database: Database) -> bool:
    """Fold SQLite's write-ahead log into its file: there, what is deleted is overwritten; the log still has all of it.

    Other databases see to it themselves (PostgreSQL by autovacuum).

    Returns:
        False: others had the database in use, or it failed, so that it should be tried again later.
    """
    with database.reading() as connection:
        engine = connection.engine
    if engine.dialect.name != "sqlite":
        return True
    until = time.monotonic() + PATIENCE_S
    why: object = "others read or write"
    if _ERASING.acquire(timeout=PATIENCE_S):
        try:
            while not _fold(engine, until):
                if time.monotonic() >= until:
                    break
                time.sleep(AGAIN_S)
            else:
                return True
        except (sqlite3.Error, SQLAlchemyError) as error:
            why = error
        finally:
            _ERASING.release()
    logger.warning("What was deleted is not overwritten yet, the next sweep tries again: %s", why)
    return False


def _fold(engine: Engine, until: float) -> bool:
    """Whether all of the log is in the file now, and the log empty."""
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        before = cursor.execute("PRAGMA busy_timeout").fetchone()[0]
        try:
            cursor.execute(f"PRAGMA busy_timeout = {max(round((until - time.monotonic()) * 1_000), 1)}")
            busy, _, _ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {before}")
    finally:
        raw.close()
    return not busy
