"""What was deleted from the job store leaves the disk, too."""

from __future__ import annotations

import logging
import sqlite3

from diarist.jobs.database import Database

logger = logging.getLogger(__name__)

PATIENCE_MS = 2_000
"""How long to wait for others who read: they take milliseconds, and nobody can write meanwhile."""


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
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        before = cursor.execute("PRAGMA busy_timeout").fetchone()[0]
        try:
            cursor.execute(f"PRAGMA busy_timeout = {PATIENCE_MS}")
            busy, _, _ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {before}")
    except sqlite3.Error as error:
        logger.warning("What was deleted is not overwritten yet, since the job store is in use or fails: %s", error)
        return False
    finally:
        raw.close()
    return not busy
