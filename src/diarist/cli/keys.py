"""``diarist keys``: make, list and revoke API keys, in the store of a service that may be running."""

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
    from diarist.auth.keys import ApiKey
    from diarist.jobs.db.api_keys import ApiKeyStore
    from diarist.jobs.db.database import Database


@click.group()
def keys() -> None:
    """Make, list and revoke API keys.

    They are kept in the job store (DATABASE_URL, or else SQLite in DATA_DIR): a service that runs on it knows them at
    once. As soon as there is a key, nobody is let in without one; a key sees its own jobs and no other's.
    """


@keys.command()
@click.argument("name")
@click.option("--limit", metavar="N", type=int, help="Let it have N unfinished jobs at most.  [MAX_QUEUED_PER_KEY]")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object, with the key in it.")
def create(name: str, limit: int | None, as_json: bool) -> None:
    """Make a key called NAME.

    The key goes to standard output, this once: only its hash is kept.
    """
    from diarist.jobs.db.api_keys import ApiKeyStore
    from diarist.jobs.db.secrets import webhook_master
    from diarist.outbound.webhooks import secret_for

    with _store() as (settings, database):
        # Before the key: where this fails, there must be no key that nobody was told of.
        master = webhook_master(settings, database)
        first = not ApiKeyStore(database).any_exist() and not settings.api_key
        key, token = ApiKeyStore(database).create(name, limit)
    signed_with = secret_for(master, key.id)
    if as_json:
        click.echo(json.dumps(_facts(key) | {"key": token, "webhook_secret": signed_with}, indent=2))
        return
    click.echo(token)
    click.echo(
        f"\nThis is the key {name!r}. Keep it: it is not shown again. Send it with every request:\n\n"
        f"    curl -H 'Authorization: Bearer {token}' http://{_shown(settings)}/v1/jobs\n\n"
        f"Webhooks of its jobs are signed with {signed_with}",
        err=True,
    )
    if first:
        click.echo(
            "\nFrom now on nobody is let in without a key. FLASK_HOST counts once the service is started again.",
            err=True,
        )


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object instead of a table.")
def list_keys(as_json: bool) -> None:
    """Show every key, without its secret."""
    from diarist.auth.keys import ENV_ID, ApiKey
    from diarist.jobs.db.api_keys import ApiKeyStore

    with _store() as (settings, database):
        found = ApiKeyStore(database).list()
    if settings.api_key:
        found = (*found, ApiKey(ENV_ID, "API_KEY"))
    if as_json:
        click.echo(json.dumps({"keys": [_facts(key) for key in found]}, indent=2))
        return
    if not found:
        click.echo(
            "There are no keys: a service takes requests from this machine alone, and from everyone on it. "
            "`diarist keys create NAME` makes one.",
            err=True,
        )
        return
    width = max(len("NAME"), *(len(key.name) for key in found))
    line = f"{{:<12}}  {{:<{width}}}  {{:>7}}  {{:<20}}  {{:<20}}  {{}}"
    click.echo(line.format("ID", "NAME", "LIMIT", "MADE", "USED", "STATE"))
    for key in found:
        state = f"revoked {_time(key.revoked_at)}" if key.revoked_at else "valid"
        made = _time(key.created_at) if key.created_at else "by the settings"
        used = "-" if key.id == ENV_ID else _time(key.used_at) if key.used_at else "never"
        click.echo(line.format(key.id, printable(key.name), key.job_limit or "-", made, used, state))


@keys.command()
@click.argument("key", metavar="ID_OR_NAME")
def revoke(key: str) -> None:
    """Refuse a key from now on.

    A service that is running refuses it within a second. Its jobs go on, and stay until their time is over.
    """
    from diarist.jobs.db.api_keys import ApiKeyStore

    with _store() as (_, database):
        revoked = ApiKeyStore(database).revoke(key)
        left = any(each.revoked_at is None for each in ApiKeyStore(database).list())
    click.echo(f"The key {revoked.name!r} ({revoked.id}) is refused from now on.")
    if not left:
        click.echo("It was the last one: nobody is let in until there is another, or API_KEY is set.", err=True)


@keys.command("webhook-secret")
@click.argument("key", metavar="[ID_OR_NAME]", required=False)
def webhook_secret(key: str | None) -> None:
    """Show what the webhooks of a key's jobs are signed with.

    Without ID_OR_NAME: those of jobs without a key, of a service that has none. `env` is the setting API_KEY.
    """
    from diarist.jobs.db.api_keys import ApiKeyStore
    from diarist.jobs.db.secrets import webhook_master
    from diarist.outbound.webhooks import secret_for

    with _store() as (settings, database):
        owner = _owner(ApiKeyStore(database), key)
        click.echo(secret_for(webhook_master(settings, database), owner))


@contextmanager
def _store() -> Iterator[tuple[Settings, Database]]:
    from diarist.jobs.db.database import open_database

    settings = load_settings()
    database = open_database(settings)
    try:
        yield settings, database
    finally:
        database.close()


def _owner(store: ApiKeyStore, key: str | None) -> str:
    """Raises ``InvalidOption`` where there is no such key."""
    from diarist.auth.keys import ENV_ID

    if key is None or key == ENV_ID:
        return key or ""
    # A name may have been used again: the key that is valid comes first.
    found = sorted(store.list(), key=lambda each: (each.id != key, each.revoked_at is not None))
    for each in found:
        if key in (each.id, each.name):
            return each.id
    raise InvalidOption(f"There is no key {key!r}. `diarist keys list` shows those that there are.")


def _facts(key: ApiKey) -> dict[str, object]:
    times = {name: getattr(key, name) for name in ("created_at", "used_at", "revoked_at")}
    return {"id": key.id, "name": key.name, "job_limit": key.job_limit} | {
        name: None if at is None else at.isoformat(timespec="seconds") for name, at in times.items()
    }


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def _shown(settings: Settings) -> str:
    host = settings.flask_host if settings.flask_host not in ("0.0.0.0", "::", "") else "localhost"  # noqa: S104
    return f"[{host}]:{settings.flask_port}" if ":" in host else f"{host}:{settings.flask_port}"
