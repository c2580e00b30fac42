"""All that is particular to PostgreSQL: how it is connected to, how long anything may take, what its errors mean."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from diarist.errors import ConfigurationError, ServiceError, StorageFull, StoreUnavailable

CONNECT_TIMEOUT_S = 5
SILENCE_TIMEOUT_MS = 10_000
"""How long what was sent may go without an acknowledgement before the connection is given up: a machine that is cut off
must notice before its leases run out, while TCP by itself goes on for a quarter of an hour."""
STATEMENT_TIMEOUT_MS = 30_000
LOCK_TIMEOUT_MS = 10_000
"""Transactions here take milliseconds."""
IDLE_TIMEOUT_MS = 10_000
"""Of a connection in mid-transaction: a process that was stopped would hold its locks for as long, and nobody's lease
may run out for that."""

POOL = 5
POOL_MORE = 10
"""Connections of a process, and how many more in a rush: PostgreSQL gives 100 to all processes together by default."""
POOL_WAIT_S = 10.0


def open_postgres(url: str) -> Engine:
    """The database at ``postgresql://user:password@host/name``, which has to be there and to speak UTF-8.

    Parameters of libpq in the URL (``?sslmode=require``) come before those that are chosen here. The connections are
    fit for a pooler such as PgBouncer.

    Raises:
        ConfigurationError: DATABASE_URL is no such address, or psycopg is not installed.
        StoreUnavailable: there is no connection to be had; the message says what to do, and never has the password.
    """
    address = _address(url)
    try:
        engine = create_engine(
            address,
            connect_args=_arguments(address),
            isolation_level="READ COMMITTED",
            pool_size=POOL,
            max_overflow=POOL_MORE,
            pool_timeout=POOL_WAIT_S,
            pool_pre_ping=True,
            pool_recycle=1_800,
        )
    except ImportError as error:
        raise ConfigurationError(
            f"DATABASE_URL names PostgreSQL, which takes more libraries ({error}). "
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
            "Make another one: CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0."
        )
    return engine


def explain(error: SQLAlchemyError, engine: Engine) -> ServiceError:
    """What an error of the database, or of the pool of connections to it, means, in words that say what to do."""
    name = _name(engine)
    if isinstance(error, PoolTimeoutError):
        return StoreUnavailable(
            f"All {POOL + POOL_MORE} connections to the job store {name} are in use for more than {POOL_WAIT_S:.0f} s. "
            "See whether the database is slow, then try again."
        )
    original = error.orig if isinstance(error, DBAPIError) else None
    said = _without_password(_words(original or error), engine.url)
    code = getattr(original, "sqlstate", None) or _code_of_refusal(said)
    if code == "53100":
        return StorageFull(f"The disk of the job store {name} is full ({said}). Free some space, then try again.")
    for codes, what, advice in MEANINGS:
        if code.startswith(codes):
            return StoreUnavailable(f"The job store {name} {what} ({said}). {advice}")
    return StoreUnavailable(f"The job store {name} failed ({said}). The log has the details.")


MEANINGS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("28",), "does not accept the user or the password", "Check both in DATABASE_URL, and the server's pg_hba.conf."),
    (("3D000",), "does not exist", "Make it (createdb), or name another one in DATABASE_URL."),
    (
        ("42501",),
        "does not let this user work in it",
        "Let the user own the database and its tables, or grant it CREATE and USAGE on the schema public.",
    ),
    (
        ("42P01", "42703", "3F000"),
        "lacks tables",
        "Start the service again, which makes those that are missing, or name another database in DATABASE_URL.",
    ),
    (
        ("42P07",),
        "has tables of something else that are named like Diarist's",
        "Make a database for Diarist alone, and name that one in DATABASE_URL.",
    ),
    (("25006",), "can only be read", "Name the primary server in DATABASE_URL, not a standby."),
    (
        ("53300",),
        "has no connection left to give",
        "Raise its max_connections, or run fewer processes or a pooler such as PgBouncer.",
    ),
    (("53",), "lacks memory or another resource", "Give the database more of it, then try again."),
    (
        ("57014",),
        f"took more than {STATEMENT_TIMEOUT_MS // 1_000} s for one statement",
        "See whether the database is overloaded, then try again.",
    ),
    (
        ("55P03", "40"),
        "is held up by another transaction",
        "Try again; if it goes on, stop whatever else has the tables locked.",
    ),
    (("58", "XX00"), "is damaged, or its disk is", "See the log of the database server; it may take a backup."),
    (
        ("22023",),
        "cannot be connected to as DATABASE_URL says",
        "Write it as postgresql://user:password@host/name, with parameters of libpq behind a question mark.",
    ),
    (
        ("08", "57", "25P"),
        "cannot be reached, or cut the connection",
        "See that the server runs, and check host and port in DATABASE_URL and the network between.",
    ),
)
"""Beginnings of SQLSTATE codes (PostgreSQL's manual, appendix A), what they mean, what to do. The first that fits."""

REFUSALS: tuple[tuple[str, str], ...] = (
    (r"authentication failed|no password supplied|pg_hba\.conf|role \".*\" does not exist", "28P01"),
    (r"database \".*\" does not exist", "3D000"),
    (r"too many (clients|connections)|connection slots", "53300"),
    (r"No space left on device", "53100"),
    (r"invalid connection option|connection is bad: invalid", "22023"),
    (r"connection|resolve host|server closed|timeout|timed out|starting up|shutting down", "08006"),
)
"""The same code for what is said in English where a connection does not come about: libpq passes on no code then."""


def _code_of_refusal(said: str) -> str:
    return next((code for pattern, code in REFUSALS if re.search(pattern, said)), "")


def _words(error: BaseException) -> str:
    """The message alone: what PostgreSQL adds to it may quote rows, which are private."""
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
        # What SQLAlchemy says of it may quote the password.
        raise ConfigurationError(
            "DATABASE_URL cannot be read. Write it as postgresql://user:password@host/name; in the password, "
            "write %40 for @, %2F for / and %3A for a colon."
        ) from None
    if address.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise ConfigurationError(
            f"DATABASE_URL begins with {address.drivername}://, which is no job store that Diarist knows. Write it as "
            "postgresql://user:password@host/name, or leave it unset for SQLite."
        )
    if not address.database:
        raise ConfigurationError("DATABASE_URL names no database. Write it as postgresql://user:password@host/name.")
    return address.set(drivername="postgresql+psycopg")


def _arguments(address: URL) -> dict[str, Any]:
    chosen = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "application_name": "diarist",
        "tcp_user_timeout": SILENCE_TIMEOUT_MS,
        "keepalives_idle": 5,
        "keepalives_interval": 5,
        "keepalives_count": 2,
    }
    # None: statements that a connection remembers are unknown to the next one behind a pooler.
    return {"prepare_threshold": None} | {name: value for name, value in chosen.items() if name not in address.query}


def _prepare(connection: Any, _record: object) -> None:
    # Not as options of the connection, which a pooler would refuse.
    limits = {
        "statement_timeout": STATEMENT_TIMEOUT_MS,
        "lock_timeout": LOCK_TIMEOUT_MS,
        "idle_in_transaction_session_timeout": IDLE_TIMEOUT_MS,
    }
    with connection.cursor() as cursor:
        for name, value in limits.items():
            cursor.execute("SELECT set_config(%s, %s, false)", (name, str(value)))
    connection.commit()
