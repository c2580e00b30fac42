"""``diarist keys``: create, list and revoke API keys in the job store, even while the service is running."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import click

from diarist.cli import printable
from diarist.errors import InvalidOption
from diarist.settings import Settings, load_settings

if TYPE_CHECKING:
    from diarist.auth.api_keys import ApiKey
    from diarist.jobs.db.api_keys import ApiKeyStore
    from diarist.jobs.db.database import Database


@click.group()
def keys() -> None:
    """Create, list and revoke API keys.

    Keys are stored in the job store (DATABASE_URL, or else SQLite in DATA_DIR), and a running service accepts them at
    once. As soon as there is a key, every request needs one. A key gives access to its own jobs only.
    """


@keys.command()
@click.argument("name")
@click.option(
    "--limit", metavar="N", type=int, help="Maximum number of unfinished jobs of the key.  [MAX_QUEUED_PER_KEY]"
)
@click.option(
    "--storage-limit", metavar="MB", type=int,
    help="Maximum size of the stored recordings of the key together.  [MAX_STORED_MB_PER_KEY]",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object that includes the key.")
def create(name: str, limit: int | None, storage_limit: int | None, as_json: bool) -> None:
    """Create a key called NAME.

    The key is printed to standard output. It cannot be shown again, because only its hash is stored.
    """
    from diarist.auth.key_mark import KeyMark
    from diarist.jobs.db.api_keys import ApiKeyStore
    from diarist.jobs.db.secrets import webhook_master
    from diarist.outbound.webhooks import secret_for

    with _open_store() as (settings, database):
        # This comes first: if it fails, no key may exist that was never shown.
        master = webhook_master(settings, database)
        first = not ApiKeyStore(database).any_exist() and not settings.api_key
        key, token = ApiKeyStore(database).create(name, limit, storage_limit)
    KeyMark(settings.data_dir).set()
    webhook_secret = secret_for(master, key.id)
    if as_json:
        click.echo(json.dumps(_key_fields(key) | {"key": token, "webhook_secret": webhook_secret}, indent=2))
        return
    click.echo(token)
    click.echo(
        f"\nThis is the key {name!r}. Store it safely: it is not shown again. Send it with every request:\n\n"
        f"    curl -H 'Authorization: Bearer {token}' http://{_service_address(settings)}/v1/jobs\n\n"
        f"Webhooks of its jobs are signed with the secret {webhook_secret}",
        err=True,
    )
    if first:
        click.echo(
            "\nFrom now on every request needs a key. FLASK_HOST takes effect when the service is restarted.",
            err=True,
        )


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def list_keys(as_json: bool) -> None:
    """List all keys, without their secrets."""
    from diarist.auth.api_keys import ENV_ID, ApiKey
    from diarist.auth.key_mark import KeyMark
    from diarist.jobs.db.api_keys import ApiKeyStore

    with _open_store() as (settings, database):
        found = ApiKeyStore(database).list()
    if settings.api_key:
        found = (*found, ApiKey(ENV_ID, "API_KEY"))
    if as_json:
        click.echo(json.dumps({"keys": [_key_fields(key) for key in found]}, indent=2))
        return
    if not found and KeyMark(settings.data_dir).exists():
        click.echo(
            f"There are no keys any more, so all requests are refused: the job store was lost, emptied or replaced. "
            "Restore it from a backup, or create a key with `diarist keys create NAME`. If the service is to have no "
            f"keys, stop it and remove {KeyMark(settings.data_dir).path}.",
            err=True,
        )
        return
    if not found:
        click.echo(
            "There are no keys: a service accepts requests only from this machine, from any of its users. "
            "`diarist keys create NAME` creates a key.",
            err=True,
        )
        return
    width = max(len("NAME"), *(len(key.name) for key in found))
    line = f"{{:<12}}  {{:<{width}}}  {{:>7}}  {{:>10}}  {{:<20}}  {{:<20}}  {{}}"
    click.echo(line.format("ID", "NAME", "LIMIT", "MB", "CREATED", "USED", "STATE"))
    for key in found:
        state = f"revoked {_time(key.revoked_at)}" if key.revoked_at else "valid"
        made = _time(key.created_at) if key.created_at else "by the settings"
        used = "-" if key.id == ENV_ID else _time(key.used_at) if key.used_at else "never"
        limits = (key.job_limit or "-", key.storage_limit_mb or "-")
        click.echo(line.format(key.id, printable(key.name), *limits, made, used, state))


@keys.command()
@click.argument("key", metavar="ID_OR_NAME")
def revoke(key: str) -> None:
    """Revoke a key.

    A running service rejects it within a second. Its jobs continue, and are kept until they expire.
    """
    from diarist.jobs.db.api_keys import ApiKeyStore

    with _open_store() as (_, database):
        revoked = ApiKeyStore(database).revoke(key)
        any_valid = any(each.revoked_at is None for each in ApiKeyStore(database).list())
    click.echo(f"The key {revoked.name!r} ({revoked.id}) is revoked.")
    if not any_valid:
        click.echo(
            "It was the last valid key: all requests are rejected until another key is created, or API_KEY is set.",
            err=True,
        )


@keys.command("webhook-secret")
@click.argument("key", metavar="[ID_OR_NAME]", required=False)
def webhook_secret(key: str | None) -> None:
    """Show the secret that signs the webhooks of a key's jobs.

    Without ID_OR_NAME, the secret for jobs without a key is shown, of a service that has no keys. `env` is the key in
    the setting API_KEY.
    """
    from diarist.jobs.db.api_keys import ApiKeyStore
    from diarist.jobs.db.secrets import webhook_master
    from diarist.outbound.webhooks import secret_for

    with _open_store() as (settings, database):
        owner = _owner(ApiKeyStore(database), key)
        click.echo(secret_for(webhook_master(settings, database), owner))


@contextmanager
def _open_store() -> Iterator[tuple[Settings, Database]]:
    from diarist.jobs.db.database import open_database

    settings = load_settings()
    database = open_database(settings)
    try:
        yield settings, database
    finally:
        database.close()


def _owner(store: ApiKeyStore, key: str | None) -> str:
    """Return the ID of the key, or an empty string for None.

    Raises:
        InvalidOption: There is no such key.
    """
    from diarist.auth.api_keys import ENV_ID

    if key is None or key == ENV_ID:
        return key or ""
    # A name can be reused after revocation: a valid key comes first.
    found = sorted(store.list(), key=lambda each: (each.id != key, each.revoked_at is not None))
    for each in found:
        if key in (each.id, each.name):
            return each.id
    raise InvalidOption(f"There is no key {key!r}. `diarist keys list` shows all keys.")


def _key_fields(key: ApiKey) -> dict[str, object]:
    times = {name: getattr(key, name) for name in ("created_at", "used_at", "revoked_at")}
    limits = {"job_limit": key.job_limit, "storage_limit_mb": key.storage_limit_mb}
    return {"id": key.id, "name": key.name, **limits} | {
        name: None if at is None else at.isoformat(timespec="seconds") for name, at in times.items()
    }


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def _service_address(settings: Settings) -> str:
    host = settings.flask_host if settings.flask_host not in ("0.0.0.0", "::", "") else "localhost"  # noqa: S104
    return f"[{host}]:{settings.flask_port}" if ":" in host else f"{host}:{settings.flask_port}"
