"""The database of an installation: opened, asked and changed in transactions, by whichever store keeps things in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from diarist.errors import ConfigurationError, ServiceError, StoreUnavailable
from diarist.jobs import schema, sqlite
from diarist.settings import Settings

FILE_NAME = "jobs.sqlite3"
"""Of the database in DATA_DIR."""


def utc_now() -> datetime:
    """The time of day, aware."""
    return datetime.now(UTC)


def open_database(settings: Settings) -> Database:
    """The database of this installation, made where it is missing.

    Raises:
        ConfigurationError: DATABASE_URL names none that is known.
        StoreUnavailable: it cannot be read or written; the message says what to do.
    """
    if not settings.database_url:
        return Database(sqlite.open_sqlite(settings.data_dir / FILE_NAME))
    kind = settings.database_url.partition(":")[0].partition("+")[0]
    if kind not in ("postgresql", "postgres"):
        raise ConfigurationError(
            f"DATABASE_URL names a database of the kind {kind!r}. Set it to postgresql://user:password@host/name, or "
            "leave it empty for SQLite in DATA_DIR."
        )
    from diarist.jobs import postgres

    return Database(postgres.open_postgres(settings.database_url), explain=postgres.explain)


class Database:
    """Transactions on a database that SQLAlchemy speaks to.

    Args:
        engine: opened.
        clock: gives aware times in UTC; None asks a PostgreSQL server, so that the clocks of a fleet need not agree,
            and this machine elsewhere.
        explain: what a database error means, in words that say what to do.

    Raises:
        StoreUnavailable: the tables cannot be made, or are of a newer Diarist.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Callable[[], datetime] | None = None,
        explain: Callable[[SQLAlchemyError, Engine], ServiceError] = sqlite.explain,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._explain = explain
        self._remote_clock = clock is None and engine.dialect.name != "sqlite"
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._engine.dispose()

    def now(self, connection: Connection) -> datetime:
        """The time that leases are measured in."""
        if self._remote_clock:
            moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
            return moment.astimezone(UTC)
        return (self._clock or utc_now)()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that may change things."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise self._explain(error, self._engine) from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads."""
        try:
            with self._engine.connect().execution_options(**{sqlite.READ_ONLY: True}) as connection:
                yield connection
        except SQLAlchemyError as error:
            raise self._explain(error, self._engine) from error

    def _prepare(self) -> None:
        with self.writing() as connection:
            if self._engine.dialect.name == "postgresql":
                # Two processes that start at once would make the same tables.
                connection.execute(select(func.pg_advisory_xact_lock(0x64696172)))
            version = schema.upgrade(connection)
        if version != schema.VERSION:
            raise StoreUnavailable(
                f"The job store {self._engine.url.database} has version {version}, and this Diarist knows "
                f"{schema.VERSION}. Start the version that wrote it, or set DATA_DIR or DATABASE_URL to another place."
            )
