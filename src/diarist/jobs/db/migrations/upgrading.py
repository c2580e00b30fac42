"""Upgrades of the tables: the migration scripts, applied in order within the caller's transaction."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, text

from diarist.jobs.db.migrations.state import BASELINE, REVISION_TABLE, SchemaState, revision_of
from diarist.jobs.db.schema import VERSION

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent

_LOCK = threading.Lock()
"""The scripts call ``alembic.op``, of which a process has one."""


def scripts() -> ScriptDirectory:
    """Return the migration scripts as Alembic's own tools take them."""
    return ScriptDirectory(str(FOLDER), version_locations=[str(FOLDER / "versions")])


def upgrade(connection: Connection, state: SchemaState, target: int = VERSION) -> None:
    """Apply the migrations that a database lacks.

    The caller's transaction has to be the only one that changes the schema (``locks.changing_schema``). Nothing is
    committed here: a failure of any migration, or the death of the process, leaves the database as it was.

    Args:
        connection: with the transaction.
        state: of the database, read in this transaction, and checked.
        target: the schema version to upgrade to.

    Raises:
        SQLAlchemyError: a migration failed.
    """
    with _LOCK:
        directory = scripts()
        context = MigrationContext.configure(connection, opts={"version_table": REVISION_TABLE})
        version = state.version
        for script in _missing(directory, state, target):
            with Operations.context(context):
                script.module.upgrade()
            context.stamp(directory, script.revision)
            following = int(script.revision)
            if following > BASELINE:
                connection.execute(
                    text("UPDATE schema_version SET version = :version, min_release = :min_release"),
                    {"version": following, "min_release": script.module.min_release},
                )
            if version != following:
                logger.info("Applied the migration from schema version %s to %d", version or "none", following)
            version = following


def _missing(directory: ScriptDirectory, state: SchemaState, target: int) -> list[Script]:
    """Return the migrations from the state of a database to a version, in the order in which they are applied.

    A database of ``BASELINE`` that has no record of Alembic's passes through the baseline's migration too, which makes
    only the tables that are missing.
    """
    return [*directory.iterate_revisions(revision_of(target), state.revision or "base")][::-1]
