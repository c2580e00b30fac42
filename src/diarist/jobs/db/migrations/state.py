"""The schema version of a database, and whether this release of Diarist can use it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, inspect, text

from diarist import __version__
from diarist.errors import StoreUnavailable
from diarist.jobs.db.schema import VERSION, schema_version

REVISION_TABLE = "diarist_alembic_version"
"""The table in which Alembic records the last migration. It does not have Alembic's default name, which another
application in the same database may use."""

BASELINE = 3
"""The schema version of the first migration. Databases of this and older versions have no ``REVISION_TABLE``."""

OTHER_DATABASE_ADVICE = "or set DATA_DIR or DATABASE_URL to another place"


@dataclass(frozen=True, slots=True)
class SchemaState:
    """What a database records about its own schema."""

    version: int | None = None
    """The schema version; None if there are no tables of Diarist."""

    min_release: str | None = None
    """The oldest release of Diarist that can use this version; None if the database does not record it."""

    revision: str | None = None
    """The last migration according to Alembic's record; None if there is none."""

    @property
    def newer(self) -> bool:
        """Whether the database was written by a newer release."""
        return self.version is not None and self.version > VERSION


def read_state(connection: Connection) -> SchemaState:
    """Return the state of a database without changing it.

    Every schema version has the column ``version`` in ``schema_version``; the other columns depend on the version.
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
        state: The state of the database.
        database: The name or path of the database, for the message.

    Raises:
        StoreUnavailable: A newer release wrote the database, or its two records of the schema version disagree.
    """
    if state.newer:
        raise StoreUnavailable(f"{newer_than_known(f'The job store {database}', state)}.")
    expected = None if state.version is None or state.version < BASELINE else revision_of(state.version)
    is_unrecorded_baseline = state.version == BASELINE and state.revision is None
    if state.revision != expected and not is_unrecorded_baseline:
        raise StoreUnavailable(
            f"The job store {database} is inconsistent: its table {schema_version.name} says schema version "
            f"{state.version or 'none'}, but {REVISION_TABLE} says {state.revision or 'none'}. Restore it from a "
            f"backup, {OTHER_DATABASE_ADVICE}."
        )


def newer_than_known(store: str, state: SchemaState) -> str:
    """Return the message that a newer release wrote the database, with advice, without the final period."""
    if state.min_release is None:
        requirement, release = "", "the release that wrote it"
    else:
        requirement, release = f", which requires Diarist {state.min_release} or newer", "that release"
    return (
        f"{store} has schema version {state.version}{requirement}; this is Diarist {__version__}, which "
        f"supports version {VERSION}. Install {release}, {OTHER_DATABASE_ADVICE}"
    )


def revision_of(version: int) -> str:
    """Return the Alembic revision of a schema version."""
    return f"{version:04d}"
