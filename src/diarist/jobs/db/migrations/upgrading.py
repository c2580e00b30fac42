"""Upgrades of the tables: the migration scripts are applied in order, in the caller's transaction."""

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
"""Protects ``alembic.op``, which the scripts use and which is global in a process."""


def scripts() -> ScriptDirectory:
    """Return the migration scripts in the form that Alembic's own tools use."""
    return ScriptDirectory(str(FOLDER), version_locations=[str(FOLDER / "versions")])


def upgrade(connection: Connection, state: SchemaState, target: int = VERSION) -> None:
    """Apply the migrations that a database lacks.

    The caller's transaction must be the only one that changes the schema (``locks.changing_schema``). Nothing is
    committed here: a failed migration or a crash of the process leaves the database as it was.

    Args:
        connection: The connection with the transaction.
        state: The state of the database, read and checked in this transaction.
        target: The schema version to upgrade to.

    Raises:
        SQLAlchemyError: A migration failed.
    """
    with _LOCK:
        directory = scripts()
        context = MigrationContext.configure(connection, opts={"version_table": REVISION_TABLE})
        version = state.version
        for script in _missing(directory, state, target):
            with Operations.context(context):
                script.module.upgrade()
            context.stamp(directory, script.revision)
            next_version = int(script.revision)
            if next_version > BASELINE:
                connection.execute(
                    text("UPDATE schema_version SET version = :version, min_release = :min_release"),
                    {"version": next_version, "min_release": script.module.min_release},
                )
            if version != next_version:
                logger.info("Applied the migration from schema version %s to %d", version or "none", next_version)
            version = next_version


def _missing(directory: ScriptDirectory, state: SchemaState, target: int) -> list[Script]:
    """Return the migrations from the state of a database to a version, in the order in which they are applied.

    A database of version ``BASELINE`` without Alembic's record also passes through the migration of the baseline, which
    creates only the missing tables.
    """
    return [*directory.iterate_revisions(revision_of(target), state.revision or "base")][::-1]
