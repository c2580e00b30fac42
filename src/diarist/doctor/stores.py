"""Checks of the job store, the queue, the recording storage, and the keys and secrets."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic
from urllib.parse import quote, urlsplit

from diarist.auth.api_keys import checked_secret, configured_key
from diarist.doctor.findings import NETWORK_TIMEOUT_S, Finding, error, ok, warning
from diarist.errors import StoreUnavailable
from diarist.jobs.db.api_keys import ApiKeyStore
from diarist.jobs.db.database import FILE_NAME, Database, open_database, utc_now
from diarist.jobs.db.migrations.state import SchemaState, newer_than_known
from diarist.jobs.db.postgres_server import postgres_server
from diarist.jobs.db.schema import VERSION
from diarist.loopback import is_loopback
from diarist.settings import Settings

MAX_LATENCY_S = 0.1
"""A job store with a higher latency than this is distant or busy."""

CLOCK_WARNING_S = 2.0
CLOCK_ERROR_S = 120.0
"""Webhook and S3 signatures are rejected if clocks differ by minutes."""

LATENCY_SAMPLES = 3


def check_job_store(settings: Settings) -> Finding:
    """Check that the job store can be opened, is intact and of a known version, and has a low latency."""
    if not settings.database_url:
        return _check_sqlite(settings.data_dir / FILE_NAME)
    with postgres_server(settings.database_url) as server:
        state = server.schema_state()
        took_s = min(server.round_trip_s() for _ in range(LATENCY_SAMPLES))
        release = server.version()
        summary = f"PostgreSQL {release}, latency {took_s * 1_000:.1f} ms"
    if state.newer:
        return error(newer_than_known(summary, state))
    if took_s > MAX_LATENCY_S:
        return warning(
            f"{summary}: every step of every job waits for it. Move it closer, or find out what keeps it busy"
        )
    return ok(summary + _migration_notice(state))


def check_clock(settings: Settings) -> Finding:
    """Check the clock of this machine against that of the job store, which is decisive."""
    if not settings.database_url:
        return ok("the job store uses the clock of this machine")
    with postgres_server(settings.database_url) as server:
        before = utc_now()
        store_time = server.time()
        local_time = before + (utc_now() - before) / 2
    difference_s = abs((store_time - local_time).total_seconds())
    summary = f"differs by {difference_s:.1f} s from the job store's"
    if difference_s > CLOCK_WARNING_S:
        level = error if difference_s > CLOCK_ERROR_S else warning
        return level(f"{summary}: webhooks and S3 reject times that are minutes off. Synchronize both clocks by NTP")
    return ok(summary)


def check_queue(settings: Settings) -> Finding:
    """Check that Redis responds, and that it does not evict data."""
    if not settings.queue_url:
        return ok("there is none: the service wakes its own workers")
    address = urlsplit(settings.queue_url)
    name = f"Redis at {address.hostname or address.path}"
    try:
        release, policy = _query_redis(settings.queue_url.replace("redis+socket://", "unix://", 1))
    except Exception as exc:  # noqa: BLE001 - the exception classes are in the redis package, which may not be installed
        if isinstance(exc, ImportError):
            return error(f"QUEUE_URL needs more packages ({exc}). Run `pip install 'diarist[distributed]'`")
        reason = str(exc).replace(address.password, "***") if address.password else str(exc)
        return error(
            f"{name} does not respond correctly ({reason}). Check that the server runs, and the host, port and "
            "password in QUEUE_URL"
        )
    if policy == "noeviction":
        return ok(f"{name} ({release}) responds")
    if policy is None:
        return warning(
            f"{name} ({release}) responds, but does not reveal its maxmemory-policy. Make sure that it is noeviction"
        )
    return error(
        f"{name} may evict messages (maxmemory-policy {policy}), so that workers are not woken. Set it to "
        "noeviction: `redis-cli config set maxmemory-policy noeviction`, and the same in redis.conf"
    )


def check_media(settings: Settings) -> Finding:
    """Check that an object can be written to the recording storage, read back and deleted."""
    from diarist.jobs.media.factory import open_media

    location = settings.media_url if settings.in_s3 else str(settings.media_dir)
    if not settings.in_s3 and not settings.media_dir.exists() and not settings.media_url:
        return ok(f"{location} (will be created)")
    with closing(open_media(settings)) as media:
        started = monotonic()
        media.probe()
        took_s = monotonic() - started
    return ok(f"{location}: written, read and deleted in {took_s * 1_000:.0f} ms")


def check_keys(settings: Settings) -> Finding:
    """Check who has access to the service, and from which networks."""
    by_setting = configured_key(settings) is not None
    with open_existing_job_store(settings) as database:
        keys = ApiKeyStore(database).list() if database else ()
    valid = sum(key.revoked_at is None for key in keys) + by_setting
    local = is_loopback(settings.flask_host)
    if keys and not valid:
        return warning(
            "all keys are revoked, so every request is rejected. Create one: `diarist keys create NAME`, or set API_KEY"
        )
    if not valid and not local:
        return warning(
            f"there are no keys, so the service listens on the loopback address instead of FLASK_HOST "
            f"{settings.flask_host}. Create one: `diarist keys create NAME`, or set API_KEY"
        )
    if not valid:
        return ok("there are no keys: the service accepts requests only from this machine, from any of its users")
    where = "the loopback address" if local else f"FLASK_HOST {settings.flask_host}"
    return ok(f"{valid} valid; the service listens on {where}")


def check_webhooks(settings: Settings) -> Finding:
    """Check the secret that signs webhooks, and the networks that they may be sent to."""
    from diarist.outbound.networks import parse_networks

    networks = parse_networks(settings.allowed_networks)
    checked_secret("WEBHOOK_SECRET", settings.webhook_secret)
    signed = (
        "signed with WEBHOOK_SECRET"
        if settings.webhook_secret
        else "signed with a secret that is stored in the job store"
    )
    return ok(f"{signed}; sent to public addresses{f' and {settings.allowed_networks}' if networks else ''}")


@contextmanager
def open_existing_job_store(settings: Settings) -> Iterator[Database | None]:
    """Yield the job store, or None if it does not exist yet or has an older version, which opening would upgrade.

    Raises:
        StoreUnavailable: The job store cannot be read, or has a newer version than this Diarist supports.
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
        return ok(f"SQLite in {path} (will be created)")
    state = _sqlite_state(path)
    with closing(_open_sqlite(path)) as connection:
        problems = [row[0] for row in connection.execute("PRAGMA quick_check(3)") if row[0] != "ok"]
    summary = f"SQLite {sqlite3.sqlite_version} in {path}"
    if problems:
        return error(
            f"{summary} is damaged ({'; '.join(problems)}). Stop the service, move the file away and restart it: an "
            "empty job store is created"
        )
    if state.newer:
        return error(newer_than_known(summary, state))
    return ok(summary + _migration_notice(state))


def _migration_notice(state: SchemaState) -> str:
    if state.version is None:
        return "; its tables will be created"
    return "" if state.version == VERSION else "; its tables will be upgraded"


def _sqlite_state(path: Path) -> SchemaState:
    try:
        with closing(_open_sqlite(path)) as connection:
            connection.row_factory = sqlite3.Row
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_version'").fetchone():
                return SchemaState()
            row = connection.execute("SELECT * FROM schema_version").fetchone()
            known = {} if row is None else dict(row)
            return SchemaState(known.get("version"), known.get("min_release"))
    except sqlite3.Error as exc:
        raise StoreUnavailable(
            f"The job store {path} cannot be read ({exc}). Make this user its owner. If it is damaged, stop the "
            "service, move the file away and restart it: an empty job store is created."
        ) from exc


def _open_sqlite(path: Path) -> sqlite3.Connection:
    # The service's own function would create the file and upgrade its tables.
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=NETWORK_TIMEOUT_S)


def _query_redis(url: str) -> tuple[str, str | None]:
    """Return the version of Redis and its maxmemory-policy, which is None if Redis does not permit the query."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    client = redis.Redis.from_url(
        url,
        socket_timeout=NETWORK_TIMEOUT_S,
        socket_connect_timeout=NETWORK_TIMEOUT_S,
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
