"""Which schema version a database has, and whether this release of Diarist can use it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, inspect, text

from diarist import __version__
from diarist.errors import StoreUnavailable
from diarist.jobs.db.schema import VERSION, schema_version

REVISION_TABLE = "diarist_alembic_version"
"""Alembic's record of the last migration. Not under Alembic's usual name, which another application that shares the
database may use."""

BASELINE = 3
"""The schema version of the first migration. Databases of this version, and of older ones, have no ``REVISION_TABLE``
yet."""

ELSEWHERE = "or set DATA_DIR or DATABASE_URL to another place"


@dataclass(frozen=True, slots=True)
class SchemaState:
    """What a database says of its own schema."""

    version: int | None = None
    """None where it has no tables of Diarist."""

    min_release: str | None = None
    """The oldest release of Diarist that can use this version; None where the database does not say it."""

    revision: str | None = None
    """The last migration that was applied, by Alembic's record; None where there is none."""

    @property
    def newer(self) -> bool:
        """Whether it was written by a newer release."""
        return self.version is not None and self.version > VERSION


def read_state(connection: Connection) -> SchemaState:
    """Return the state of a database without changing it.

    Only ``version`` is relied on: what else there is in ``schema_version`` is a matter of the schema version.
    """
    tables = inspect(connection)
    version, min_release, revision = None, None, None
    if tables.has_table(schema_version.name):
        row = connection.execute(text(f"SELECT * FROM {schema_version.name}")).mappings().one_or_none()  # noqa: S608
        if row is not None:
            version, min_release = row["version"], row.get("min_release")
    if tables.has_table(REVISION_TABLE):
        revision = connection.execute(text(f"SELECT version_num FROM {REVISION_TABLE}")).scalar()  # noqa: S608
    return SchemaState(version, min_release, revision)


def check_state(state: SchemaState, database: str | None) -> None:
    """Check that this release can use or upgrade a database.

    Args:
        state: of the database.
        database: its name or path, for the message.

    Raises:
        StoreUnavailable: it is of a newer release, or its two records of the schema version disagree.
    """
    if state.newer:
        raise StoreUnavailable(f"{newer_than_known(f'The job store {database}', state)}.")
    wanted = None if state.version is None or state.version < BASELINE else revision_of(state.version)
    adopted = state.version == BASELINE and state.revision is None
    if state.revision != wanted and not adopted:
        raise StoreUnavailable(
            f"The job store {database} contradicts itself: its table {schema_version.name} says schema version "
            f"{state.version or 'none'}, and {REVISION_TABLE} says {state.revision or 'none'}. Restore it from a "
            f"backup, {ELSEWHERE}."
        )


def newer_than_known(store: str, state: SchemaState) -> str:
    """Return what is wrong with a database of a newer release and what to do, without the full stop."""
    if state.min_release is None:
        reads, install = "", "the release that wrote it"
    else:
        reads, install = f", which Diarist {state.min_release} or newer reads", "that release"
    return (
        f"{store} has schema version {state.version}{reads}; this is Diarist {__version__}, which knows {VERSION}. "
        f"Install {install}, {ELSEWHERE}"
    )


def revision_of(version: int) -> str:
    """Return Alembic's revision of a schema version."""
    return f"{version:04d}"
