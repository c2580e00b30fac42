"""What keeps things: job store, queue, recordings, and the keys and secrets in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic
from urllib.parse import quote, urlsplit

from diarist.auth.keys import checked_secret, configured_key
from diarist.doctor.findings import NETWORK_S, Finding, error, ok, warning
from diarist.errors import StoreUnavailable
from diarist.jobs.db.api_keys import ApiKeyStore
from diarist.jobs.db.database import FILE_NAME, Database, open_database, utc_now
from diarist.jobs.db.migrations.state import SchemaState, newer_than_known
from diarist.jobs.db.postgres_server import postgres_server
from diarist.jobs.db.schema import VERSION
from diarist.loopback import on_this_machine
from diarist.settings import Settings

SLOW_S = 0.1
"""A store that takes longer for one question is far away or busy."""

CLOCK_S = 2.0
WRONG_CLOCK_S = 120.0
"""Signatures of webhooks and of S3 are refused where clocks differ by minutes."""

TRIES = 3


def check_job_store(settings: Settings) -> Finding:
    """Whether it opens, is whole, of a version that is known, and near."""
    if not settings.database_url:
        return _check_sqlite(settings.data_dir / FILE_NAME)
    with postgres_server(settings.database_url) as server:
        state = server.schema_state()
        took_s = min(server.round_trip_s() for _ in range(TRIES))
        release = server.version()
        found = f"PostgreSQL {release}, {took_s * 1_000:.1f} ms away"
    if state.newer:
        return error(newer_than_known(found, state))
    if took_s > SLOW_S:
        return warning(f"{found}: every step of every job waits for it. Put it nearer, or see what keeps it busy")
    return ok(found + _what_a_start_does(state))


def check_clock(settings: Settings) -> Finding:
    """This machine's clock against that of the job store, which counts."""
    if not settings.database_url:
        return ok("the job store goes by this machine's")
    with postgres_server(settings.database_url) as server:
        before = utc_now()
        theirs = server.time()
        ours = before + (utc_now() - before) / 2
    apart_s = abs((theirs - ours).total_seconds())
    found = f"{apart_s:.1f} s from the job store's"
    if apart_s > CLOCK_S:
        say = error if apart_s > WRONG_CLOCK_S else warning
        return say(f"{found}: webhooks and S3 refuse times that are minutes off. Let NTP set both clocks")
    return ok(found)


def check_queue(settings: Settings) -> Finding:
    """Whether Redis answers, and keeps what it is told."""
    if not settings.queue_url:
        return ok("none: the service wakes workers of its own")
    address = urlsplit(settings.queue_url)
    name = f"Redis at {address.hostname or address.path}"
    try:
        release, policy = _ask_redis(settings.queue_url.replace("redis+socket://", "unix://", 1))
    except Exception as fault:  # noqa: BLE001 - the classes are the library's, which may not be there to name them
        if isinstance(fault, ImportError):
            return error(f"QUEUE_URL takes more libraries ({fault}). Run `pip install 'diarist[distributed]'`")
        said = str(fault).replace(address.password, "***") if address.password else str(fault)
        return error(
            f"{name} does not answer as it should ({said}). See that the server runs, and check host, port and "
            "password in QUEUE_URL"
        )
    if policy == "noeviction":
        return ok(f"{name} ({release}) answers")
    if policy is None:
        return warning(f"{name} ({release}) answers, but does not tell its maxmemory-policy: see that it is noeviction")
    return error(
        f"{name} may drop what it is told (maxmemory-policy {policy}), so that workers sleep on. Set it to "
        "noeviction: `redis-cli config set maxmemory-policy noeviction`, and the same in redis.conf"
    )


def check_media(settings: Settings) -> Finding:
    """Write, read back and delete something where recordings lie."""
    from diarist.jobs.media.directory import open_media

    place = settings.media_url if settings.in_s3 else str(settings.media_dir)
    if not settings.in_s3 and not settings.media_dir.exists() and not settings.media_url:
        return ok(f"{place} (will be made)")
    with closing(open_media(settings)) as media:
        started = monotonic()
        media.probe()
        took_s = monotonic() - started
    return ok(f"{place}: written, read and deleted in {took_s * 1_000:.0f} ms")


def check_keys(settings: Settings) -> Finding:
    """Who is let in, and from where."""
    by_setting = configured_key(settings) is not None
    with kept(settings) as database:
        keys = ApiKeyStore(database).list() if database else ()
    valid = sum(key.revoked_at is None for key in keys) + by_setting
    local = on_this_machine(settings.flask_host)
    if keys and not valid:
        return warning("all were revoked, so nobody is let in. Make one: `diarist keys create NAME`, or set API_KEY")
    if not valid and not local:
        return warning(
            f"there are none, so the service listens on this machine's own address and not on FLASK_HOST "
            f"{settings.flask_host}. Make one: `diarist keys create NAME`, or set API_KEY"
        )
    if not valid:
        return ok("there are none: the service takes requests from this machine alone, and from everyone on it")
    where = "this machine alone" if local else f"FLASK_HOST {settings.flask_host}"
    return ok(f"{valid} valid; the service listens on {where}")


def check_webhooks(settings: Settings) -> Finding:
    """What webhooks are signed with, and where they may go."""
    from diarist.outbound.networks import parse_networks

    networks = parse_networks(settings.allowed_networks)
    checked_secret("WEBHOOK_SECRET", settings.webhook_secret)
    signed = "signed by WEBHOOK_SECRET" if settings.webhook_secret else "signed by a secret that the job store keeps"
    return ok(f"{signed}; sent to public addresses{f' and {settings.allowed_networks}' if networks else ''}")


@contextmanager
def kept(settings: Settings) -> Iterator[Database | None]:
    """The job store; None where it has not been made yet, or is an older Diarist's: to open it would change it.

    Raises:
        StoreUnavailable: it cannot be read, or is a newer Diarist's.
    """
    if settings.database_url:
        with postgres_server(settings.database_url) as server:
            state = server.schema_state()
    else:
        path = settings.data_dir / FILE_NAME
        state = _sqlite_state(path) if path.exists() else SchemaState()
    if state.version != VERSION and not state.newer:
        yield None
        return
    with closing(open_database(settings)) as database:
        yield database


def _check_sqlite(path: Path) -> Finding:
    if not path.exists():
        return ok(f"SQLite in {path} (will be made)")
    state = _sqlite_state(path)
    with closing(_open_sqlite(path)) as connection:
        faults = [row[0] for row in connection.execute("PRAGMA quick_check(3)") if row[0] != "ok"]
    found = f"SQLite {sqlite3.sqlite_version} in {path}"
    if faults:
        return error(
            f"{found} is damaged ({'; '.join(faults)}). Stop the service, move the file away and start again: an empty "
            "one is made"
        )
    if state.newer:
        return error(newer_than_known(found, state))
    return ok(found + _what_a_start_does(state))


def _what_a_start_does(state: SchemaState) -> str:
    if state.version is None:
        return "; its tables will be made"
    return "" if state.version == VERSION else "; its tables will be brought up to date"


def _sqlite_state(path: Path) -> SchemaState:
    try:
        with closing(_open_sqlite(path)) as connection:
            connection.row_factory = sqlite3.Row
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_version'").fetchone():
                return SchemaState()
            row = connection.execute("SELECT * FROM schema_version").fetchone()
            known = {} if row is None else dict(row)
            return SchemaState(known.get("version"), known.get("min_release"))
    except sqlite3.Error as fault:
        raise StoreUnavailable(
            f"The job store {path} cannot be read ({fault}). See that this user owns it; where it is damaged, stop the "
            "service, move the file away and start again: an empty one is made."
        ) from fault


def _open_sqlite(path: Path) -> sqlite3.Connection:
    # Not as the service does, which would make it, and bring its tables up to date.
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=NETWORK_S)


def _ask_redis(url: str) -> tuple[str, str | None]:
    """Its version, and what it does when its memory is full; None where it does not let us ask."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    client = redis.Redis.from_url(
        url,
        socket_timeout=NETWORK_S,
        socket_connect_timeout=NETWORK_S,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )
    with closing(client):
        client.ping()
        release = str(client.info("server")["redis_version"])
        try:
            return release, client.config_get("maxmemory-policy").get("maxmemory-policy")
        except redis.ResponseError:
            return release, None
