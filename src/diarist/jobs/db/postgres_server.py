"""What a PostgreSQL server reports about itself, read without opening the job store in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from time import monotonic

from sqlalchemy import Connection, Engine, func, select

from diarist.jobs.db.migrations.state import SchemaState, read_state
from diarist.jobs.db.postgres import open_postgres
from diarist.types import Seconds


class PostgresServer:
    """A PostgreSQL server and the database that DATABASE_URL names. Nothing here changes it."""

    def __init__(self, engine: Engine, connection: Connection) -> None:
        self._engine = engine
        self._connection = connection

    def schema_state(self) -> SchemaState:
        """Return which schema version the database has."""
        return read_state(self._connection)

    def version(self) -> str:
        """Return the version of the server as it writes it."""
        version: str = self._connection.exec_driver_sql("SHOW server_version").scalar_one()
        return version

    def time(self) -> datetime:
        """Return the time of the server's clock, aware."""
        moment: datetime = self._connection.execute(select(func.clock_timestamp())).scalar_one()
        return moment

    def round_trip_s(self) -> Seconds:
        """Return how long the simplest query takes on a pooled connection of its own."""
        with self._engine.connect() as connection:
            started = monotonic()
            connection.exec_driver_sql("SELECT 1")
            return monotonic() - started


@contextmanager
def postgres_server(url: str) -> Iterator[PostgresServer]:
    """Connect to the server of a database URL for the time of the context.

    Raises:
        ConfigurationError: The URL is not that of a PostgreSQL database, or psycopg is not installed.
        StoreUnavailable: The server cannot be reached or used.
    """
    engine = open_postgres(url)
    try:
        with engine.connect() as connection:
            yield PostgresServer(engine, connection)
    finally:
        engine.dispose()
