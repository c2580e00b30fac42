"""PostgreSQL: how connections are made, how long operations may take, and what errors mean."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from diarist.errors import ConfigurationError, ServiceError, StorageFull, StoreUnavailable

CONNECT_TIMEOUT_S = 5
TCP_USER_TIMEOUT_MS = 10_000
"""How long sent data may remain unacknowledged before the connection is closed. A machine that is cut off must notice
this before its leases expire, whereas TCP itself goes on for a quarter of an hour."""
STATEMENT_TIMEOUT_MS = 30_000
LOCK_TIMEOUT_MS = 10_000
"""Transactions here take milliseconds."""
IDLE_TIMEOUT_MS = 10_000
"""How long a connection may be idle in a transaction. A process that was stopped holds its locks for this time, and no
lease may expire because of that."""

POOL = 5
POOL_MAX_OVERFLOW = 10
"""How many connections a process keeps, and how many more it opens under load. By default PostgreSQL allows 100 for all
processes together."""
POOL_TIMEOUT_S = 10.0


def open_postgres(url: str) -> Engine:
    """Open the database at ``postgresql://user:password@host/name``, which must exist and use UTF-8.

    libpq parameters in the URL (``?sslmode=require``) take precedence over those that are set here. The connections
    also work with a pooler such as PgBouncer.

    Raises:
        ConfigurationError: DATABASE_URL is not such an address, or psycopg is not installed.
        StoreUnavailable: No connection is possible; the message says what to do, and never contains the password.
    """
    address = _address(url)
    try:
        engine = create_engine(
            address,
            connect_args=_arguments(address),
            isolation_level="READ COMMITTED",
            pool_size=POOL,
            max_overflow=POOL_MAX_OVERFLOW,
            pool_timeout=POOL_TIMEOUT_S,
            pool_pre_ping=True,
            pool_recycle=1_800,
            hide_parameters=True,
        )
    except ImportError as error:
        raise ConfigurationError(
            f"DATABASE_URL names PostgreSQL, which needs additional libraries ({error}). "
            "Run `pip install 'diarist[distributed]'`."
        ) from error
    event.listen(engine, "connect", _prepare)
    try:
        with engine.connect() as connection:
            encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    except SQLAlchemyError as error:
        engine.dispose()
        raise explain(error, engine) from error
    if encoding != "UTF8":
        engine.dispose()
        raise StoreUnavailable(
            f"The job store {_name(engine)} has the encoding {encoding}, which cannot hold every language. "
            "Create another one: CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0."
        )
    return engine


def explain(error: SQLAlchemyError, engine: Engine) -> ServiceError:
    """Return the error that an error of the database or of its connection pool means, with advice in its message."""
    name = _name(engine)
    if isinstance(error, PoolTimeoutError):
        return StoreUnavailable(
            f"All {POOL + POOL_MAX_OVERFLOW} connections to the job store {name} have been in use for more than "
            f"{POOL_TIMEOUT_S:.0f} s. Check whether the database is slow, then try again."
        )
    original = error.orig if isinstance(error, DBAPIError) else None
    message = _without_password(_message(original or error), engine.url)
    code = getattr(original, "sqlstate", None) or _code_of_connection_error(message)
    if code == "53100":
        return StorageFull(
            f"The disk of the job store {name} is full ({message}). Free some space, then try again.",
            public="The disk of the job store is full. Try again later; the operator of the service can free space.",
        )
    for codes, meaning, advice in EXPLANATIONS:
        if code.startswith(codes):
            return StoreUnavailable(f"The job store {name} {meaning} ({message}). {advice}")
    # The message of an unknown error may quote what is stored, or the statement.
    known = f"{type(original or error).__name__}{f', SQLSTATE {code}' if code else ''}"
    return StoreUnavailable(f"The job store {name} failed ({known}).")


EXPLANATIONS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("28",), "does not accept the user or the password", "Check both in DATABASE_URL, and the server's pg_hba.conf."),
    (("3D000",), "does not exist", "Create it (createdb), or name another one in DATABASE_URL."),
    (
        ("42501",),
        "does not give this user enough privileges",
        "Let the user own the database and its tables, or grant it CREATE and USAGE on the schema public.",
    ),
    (
        ("42P01", "42703", "3F000"),
        "lacks tables",
        "Restart the service, which creates the missing ones, or name another database in DATABASE_URL.",
    ),
    (
        ("42P07",),
        "contains tables of another application with the same names as Diarist's",
        "Create a database for Diarist alone, and name it in DATABASE_URL.",
    ),
    (("25006",), "is read-only", "Name the primary server in DATABASE_URL, not a standby."),
    (
        ("53300",),
        "has no free connections",
        "Raise its max_connections, or run fewer processes or a pooler such as PgBouncer.",
    ),
    (("53",), "lacks memory or another resource", "Give the database more of it, then try again."),
    (
        ("57014",),
        f"took more than {STATEMENT_TIMEOUT_MS // 1_000} s for one statement",
        "Check whether the database is overloaded, then try again.",
    ),
    (
        ("55P03", "40"),
        "is blocked by another transaction",
        "Try again; if the problem persists, stop any other program that has locked the tables.",
    ),
    (
        ("58", "XX00"),
        "is damaged, or its disk is",
        "See the log of the database server; you may need to restore a backup.",
    ),
    (
        ("22023",),
        "rejects the parameters in DATABASE_URL",
        "Write it as postgresql://user:password@host/name, with libpq parameters after a question mark.",
    ),
    (
        ("08", "57", "25P"),
        "cannot be reached, or closed the connection",
        "Check that the server runs, the host and port in DATABASE_URL, and the network in between.",
    ),
)
"""Prefixes of SQLSTATE codes (PostgreSQL manual, appendix A), their meaning, and advice. The first match counts."""

CONNECTION_ERRORS: tuple[tuple[str, str], ...] = (
    (r"authentication failed|no password supplied|pg_hba\.conf|role \".*\" does not exist", "28P01"),
    (r"database \".*\" does not exist", "3D000"),
    (r"too many (clients|connections)|connection slots", "53300"),
    (r"No space left on device", "53100"),
    (r"invalid connection option|connection is bad: invalid", "22023"),
    (r"connection|resolve host|server closed|timeout|timed out|starting up|shutting down", "08006"),
)
"""Patterns for the English message of a failed connection, and the codes that apply: libpq does not report one."""


def _code_of_connection_error(message: str) -> str:
    return next((code for pattern, code in CONNECTION_ERRORS if re.search(pattern, message)), "")


def _message(error: BaseException) -> str:
    """Return only the primary message: the details may quote rows, which are private."""
    diagnosis = getattr(error, "diag", None)
    return " ".join(str(getattr(diagnosis, "message_primary", None) or error).split())


def _without_password(text: str, url: URL) -> str:
    for secret in (url.password, url.query.get("password")):
        if isinstance(secret, str) and secret:
            text = text.replace(secret, "***")
    return text


def _name(engine: Engine) -> str:
    host = engine.url.host or engine.url.query.get("host", "this machine")
    return f"{engine.url.database} at {host if isinstance(host, str) else ', '.join(host)}"


def _address(url: str) -> URL:
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):
        # The message of SQLAlchemy may quote the password.
        raise ConfigurationError(
            "DATABASE_URL cannot be read. Write it as postgresql://user:password@host/name; in the password, "
            "write %40 for @, %2F for / and %3A for a colon."
        ) from None
    if address.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise ConfigurationError(
            f"DATABASE_URL begins with {address.drivername}://, which Diarist does not support. Write it as "
            "postgresql://user:password@host/name, or leave it unset for SQLite."
        )
    if not address.database:
        raise ConfigurationError(
            "DATABASE_URL does not name a database. Write it as postgresql://user:password@host/name."
        )
    return address.set(drivername="postgresql+psycopg")


def _arguments(address: URL) -> dict[str, Any]:
    chosen = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "application_name": "diarist",
        "tcp_user_timeout": TCP_USER_TIMEOUT_MS,
        "keepalives_idle": 5,
        "keepalives_interval": 5,
        "keepalives_count": 2,
    }
    # None: behind a pooler, the next connection does not have the prepared statements of the previous one.
    return {"prepare_threshold": None} | {name: value for name, value in chosen.items() if name not in address.query}


def _prepare(connection: Any, _record: object) -> None:
    # These are not options of the connection, because a pooler would reject those.
    limits = {
        "statement_timeout": STATEMENT_TIMEOUT_MS,
        "lock_timeout": LOCK_TIMEOUT_MS,
        "idle_in_transaction_session_timeout": IDLE_TIMEOUT_MS,
    }
    with connection.cursor() as cursor:
        for name, value in limits.items():
            cursor.execute("SELECT set_config(%s, %s, false)", (name, str(value)))
    connection.commit()
