"""PostgreSQL on a real server: the settings of connections, and the messages for errors."""

from __future__ import annotations

import socket
import sys
import traceback
from collections.abc import Callable, Iterator

import psycopg
import pytest
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from diarist.errors import ConfigurationError, ServiceError, StorageFull, StoreUnavailable
from diarist.jobs.db.postgres import explain, open_postgres
from support.servers import PostgresServer

GUEST_PASSWORD = "hush-hush-hush"


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    return postgres_server.fresh_database()


@pytest.fixture
def opened() -> Iterator[Callable[[str], Engine]]:
    engines: list[Engine] = []

    def open_it(url: str) -> Engine:
        engines.append(open_postgres(url))
        return engines[-1]

    yield open_it
    for engine in engines:
        engine.dispose()


def changed(url: str, **parts: object) -> str:
    return make_url(url).set(**parts).render_as_string(hide_password=False)


def do(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@pytest.fixture
def guest(url) -> Iterator[str]:
    """URL of the database for somebody who owns nothing."""
    name = f"guest_{make_url(url).database}"
    do(url, f"CREATE ROLE {name} LOGIN PASSWORD '{GUEST_PASSWORD}'")
    yield changed(url, username=name, password=GUEST_PASSWORD)
    do(url, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def refused(url: str, kind: type[ServiceError] = StoreUnavailable) -> str:
    """What is said where it cannot be opened; the password is not, anywhere."""
    with pytest.raises(kind) as caught:
        open_postgres(url)
    secret = url.partition("//")[2].partition("@")[0].partition(":")[2]
    assert secret
    assert secret not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


def failing(engine: Engine, *statements: str) -> ServiceError:
    """What a statement's failure is explained as."""
    with pytest.raises(SQLAlchemyError) as caught, engine.begin() as connection:  # noqa: PT012
        for statement in statements:
            connection.exec_driver_sql(statement)
    return explain(caught.value, engine)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_a_connection_waits_for_nothing_for_long(url, opened, scheme):
    engine = opened(changed(url, drivername=scheme))
    with engine.connect() as connection:
        shown = {
            name: connection.exec_driver_sql(f"SHOW {name}").scalar_one()
            for name in (
                "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "application_name",
                "transaction_isolation", "server_encoding", "tcp_user_timeout",
            )
        }  # fmt: skip
        info = connection.connection.driver_connection.info.get_parameters()
    assert shown == {
        "statement_timeout": "30s", "lock_timeout": "10s", "idle_in_transaction_session_timeout": "10s",
        "application_name": "diarist", "transaction_isolation": "read committed", "server_encoding": "UTF8",
        "tcp_user_timeout": "0",
    }  # fmt: skip
    assert (info["connect_timeout"], info["tcp_user_timeout"], info["keepalives_idle"]) == ("5", "10000", "5")


def test_what_the_address_says_comes_first(url, opened):
    engine = opened(f"{url}?application_name=mine&connect_timeout=7")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW application_name").scalar_one() == "mine"
        assert connection.connection.driver_connection.info.get_parameters()["connect_timeout"] == "7"


def test_limits_outlive_a_transaction_that_was_rolled_back(url, opened):
    engine = opened(url)
    failing(engine, "SELECT 1/0")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar_one() == "10s"


def test_a_password_that_is_wrong(url):
    assert "does not accept the user or the password" in refused(changed(url, password="wrong-wrong-wrong"))
    assert "pg_hba.conf" in refused(changed(url, username="nobody"))


def test_a_database_that_is_not_there(url):
    said = refused(changed(url, database="nowhere"))
    assert "nowhere at 127.0.0.1 does not exist" in said
    assert "createdb" in said


def test_a_server_that_is_not_there(url):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        said = refused(changed(url, port=nobody.getsockname()[1]))
    assert "cannot be reached" in said
    assert "refused" in said
    assert "cannot be reached" in refused(f"{changed(url, host=None, port=None)}?host=/nowhere")


@pytest.mark.slow
def test_a_server_that_says_nothing(url):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        said = refused(f"{changed(url, port=silent.getsockname()[1])}?connect_timeout=2")
    assert "cannot be reached" in said
    assert "timeout" in said


def test_a_server_without_encryption_where_it_is_asked_for(url):
    assert "SSL" in refused(f"{url}?sslmode=require")


def test_a_parameter_that_there_is_not(url):
    assert "libpq parameters" in refused(f"{url}?nonsense=1")
    assert "libpq parameters" in refused(f"{url}?sslmode=nonsense")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("mysql://diarist:secret-secret@localhost/diarist", "mysql://"),
        ("postgresql+psycopg2://diarist:secret-secret@localhost/diarist", "psycopg2"),
        ("postgresql://diarist:secret-secret@localhost:port/diarist", "%2F"),
        ("diarist:secret-secret@localhost", "cannot be read"),
        ("postgresql://diarist:secret-secret@localhost", "does not name a database"),
    ],
)
def test_an_address_that_is_none(address, said):
    with pytest.raises(ConfigurationError) as caught:
        open_postgres(address)
    assert said in str(caught.value)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_a_library_that_is_missing(url, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert "diarist[distributed]" in refused(url, ConfigurationError)


def test_a_database_that_cannot_hold_every_language(url):
    database = f"{make_url(url).database}_latin"
    do(url, f"CREATE DATABASE {database} ENCODING 'LATIN1' TEMPLATE template0")
    assert "encoding LATIN1" in refused(changed(url, database=database))


def test_a_database_that_is_full_of_connections(url, guest, opened):
    do(url, f"ALTER DATABASE {make_url(url).database} CONNECTION LIMIT 1")
    with opened(guest).connect():
        assert "max_connections" in refused(guest)


def test_a_user_who_may_not(url, guest, opened):
    error = failing(opened(guest), "CREATE TABLE jobs (id int)")
    assert isinstance(error, StoreUnavailable)
    assert "grant it CREATE" in str(error)


def test_a_standby(url, opened):
    do(url, f"ALTER DATABASE {make_url(url).database} SET default_transaction_read_only = on")
    error = failing(opened(url), "CREATE TABLE jobs (id int)")
    assert isinstance(error, StoreUnavailable)
    assert "not a standby" in str(error)


def test_somebody_elses_lock(url, opened):
    engine = opened(url)
    do(url, "CREATE TABLE jobs (id int)")
    with engine.connect() as other:
        other.exec_driver_sql("LOCK TABLE jobs")
        error = failing(engine, "SET LOCAL lock_timeout = '50ms'", "INSERT INTO jobs VALUES (1)")
    assert isinstance(error, StoreUnavailable)
    assert "blocked by another transaction" in str(error)


def test_a_statement_that_takes_too_long(url, opened):
    error = failing(opened(url), "SET LOCAL statement_timeout = '50ms'", "SELECT pg_sleep(60)")
    assert isinstance(error, StoreUnavailable)
    assert "for one statement" in str(error)


def test_tables_that_are_not_there(url, opened):
    error = failing(opened(url), "SELECT * FROM jobs")
    assert isinstance(error, StoreUnavailable)
    assert "lacks tables" in str(error)


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        ("53100", StorageFull, "Free some space"),
        ("53200", StoreUnavailable, "memory"),
        ("58030", StoreUnavailable, "its disk"),
        ("XX001", StoreUnavailable, "damaged"),
        ("40P01", StoreUnavailable, "Try again"),
        ("57P03", StoreUnavailable, "Check that the server runs"),
    ],
)
def test_what_else_a_server_may_answer(url, opened, code, kind, said):
    """The server's own answer, with a code that it is told to give."""
    error = failing(opened(url), f"DO $$ BEGIN RAISE 'words of it' USING ERRCODE = '{code}', DETAIL = 'a row'; END $$")
    assert type(error) is kind
    assert said in str(error)
    assert "words of it" in str(error)
    assert "a row" not in str(error)
    assert "words of it" not in error.public_message


def test_an_answer_that_is_not_known_is_told_by_its_code(url, opened):
    error = failing(opened(url), "DO $$ BEGIN RAISE 'the words of a caller'; END $$")
    assert type(error) is StoreUnavailable
    assert "RaiseException, SQLSTATE P0001" in str(error)
    assert "words" not in str(error)


def test_errors_of_statements_do_not_quote_their_parameters(url, opened):
    with opened(url).connect() as connection, pytest.raises(DBAPIError) as caught:
        connection.execute(text("SELECT CAST(:value AS integer)"), {"value": "what somebody said"})
    assert "[SQL parameters hidden" in str(caught.value)


def test_a_connection_that_is_cut_is_told_and_the_next_one_works(url, opened):
    engine = opened(url)
    with engine.connect() as idle:
        idle.exec_driver_sql("SELECT 1")
    with pytest.raises(SQLAlchemyError) as caught, engine.begin() as connection:  # noqa: PT012
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        do(url, f"SELECT pg_terminate_backend({pid}, 10000)")
        connection.exec_driver_sql("SELECT 1")
    assert "closed the connection" in str(explain(caught.value, engine))
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1


def test_connections_in_the_pool_outlive_a_restart_of_the_server(url, opened, postgres_server):
    engine = opened(url)
    with engine.connect() as connection:
        before = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    postgres_server.restart()
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one() != before
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar_one() == "10s"


def test_a_pool_that_is_exhausted(url, opened):
    engine = opened(url)
    engine.pool._timeout = 0.01
    held = [engine.connect() for _ in range(15)]
    try:
        with pytest.raises(SQLAlchemyError) as caught:
            engine.connect()
    finally:
        for connection in held:
            connection.close()
    error = explain(caught.value, engine)
    assert isinstance(error, StoreUnavailable)
    assert "All 15 connections" in str(error)
