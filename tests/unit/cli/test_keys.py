"""``diarist keys`` on a real job store."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner, Result

from diarist.cli import main
from diarist.jobs.db.api_keys import ApiKeyStore
from diarist.jobs.db.database import open_database
from diarist.jobs.db.secrets import webhook_master
from diarist.outbound.webhooks import secret_for
from diarist.settings import Settings


@pytest.fixture
def data(folder, monkeypatch):
    """DATA_DIR of the commands; no setting of this machine's counts."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DATA_DIR", str(folder / "data"))
    return folder / "data"


def keys(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["keys", *arguments])


def store_of(data, ask):
    database = open_database(Settings(_env_file=None, data_dir=data))
    try:
        return ask(database)
    finally:
        database.close()


def check(data, token):
    return store_of(data, lambda database: ApiKeyStore(database).check(token))


def test_a_key_is_the_only_thing_on_standard_output(data):
    made = keys("create", "web", "--limit", "5", "--storage-limit", "10")
    assert made.exit_code == 0
    token = made.stdout.strip()
    assert made.stdout == f"{token}\n"
    assert f"Authorization: Bearer {token}" in made.stderr
    assert "FLASK_HOST" in made.stderr, "it is the first one"
    key = check(data, token)
    assert (key.name, key.job_limit, key.storage_limit_mb) == ("web", 5, 10)
    assert "FLASK_HOST" not in keys("create", "second").stderr


def test_webhooks_of_a_key_are_signed_with_its_secret(data):
    made = json.loads(keys("create", "web", "--json").stdout)
    master = store_of(data, lambda database: webhook_master(Settings(_env_file=None, data_dir=data), database))
    assert made["webhook_secret"] == secret_for(master, made["id"])
    for named in ("web", made["id"]):
        assert keys("webhook-secret", named).stdout == made["webhook_secret"] + "\n"
    assert keys("webhook-secret").stdout == secret_for(master, "") + "\n"
    assert keys("webhook-secret", "env").stdout == secret_for(master, "env") + "\n"
    assert keys("webhook-secret", "wob").exit_code == 2


def test_the_secret_of_a_name_that_was_used_again_is_the_valid_keys(data):
    first = json.loads(keys("create", "web", "--json").stdout)
    keys("revoke", "web")
    assert keys("webhook-secret", "web").stdout.strip() == first["webhook_secret"]
    second = json.loads(keys("create", "web", "--json").stdout)
    assert keys("webhook-secret", "web").stdout.strip() == second["webhook_secret"] != first["webhook_secret"]


def test_one_json_object_describes_a_new_key(data):
    made = json.loads(keys("create", "web", "--json").stdout)
    token = made.pop("key")
    assert check(data, token).id == made["id"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", made["created_at"])
    names = "id name job_limit storage_limit_mb created_at used_at revoked_at webhook_secret"
    assert list(made) == names.split()


def test_the_list_shows_all_but_the_secrets(data):
    token = keys("create", "web", "--limit", "5", "--storage-limit", "2048").stdout.strip()
    keys("create", "a longer name")
    keys("revoke", "a longer name")
    shown = keys("list").stdout
    assert token not in shown
    assert token[16:] not in shown
    head, web, revoked = shown.splitlines()
    assert head.split() == ["ID", "NAME", "LIMIT", "MB", "CREATED", "USED", "STATE"]
    assert re.fullmatch(rf"{token[3:15]}  web +5 +2048  \S+Z  never +valid", web)
    assert re.search(r"a longer name +- +-  \S+Z  never +revoked \S+Z$", revoked)
    listed = json.loads(keys("list", "--json").stdout)["keys"]
    assert [each["name"] for each in listed] == ["web", "a longer name"]
    assert token[16:] not in json.dumps(listed)


def test_the_key_of_the_settings_is_in_the_list(data, monkeypatch):
    monkeypatch.setenv("API_KEY", "the-key-of-the-settings")
    shown = keys("list").stdout
    assert re.search(r"^env +API_KEY +- +-  by the settings +- +valid$", shown, re.MULTILINE)
    assert "the-key-of-the-settings" not in shown
    assert "FLASK_HOST" not in keys("create", "web").stderr, "somebody has a key already"


def test_where_there_are_none_it_says_so(data):
    shown = keys("list")
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert "keys create NAME" in shown.stderr
    assert json.loads(keys("list", "--json").stdout) == {"keys": []}


def test_revoking_by_name_and_by_id(data):
    first, second = (json.loads(keys("create", name, "--json").stdout) for name in ("web", "batch"))
    by_name = keys("revoke", "web")
    assert by_name.stdout == f"The key 'web' ({first['id']}) is revoked.\n"
    assert by_name.stderr == ""
    assert check(data, first["key"]) is None
    assert check(data, second["key"])
    assert "last valid key" in keys("revoke", second["id"]).stderr
    assert check(data, second["key"]) is None
    assert keys("revoke", "web").exit_code == 0, "again is no fault"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", "web"), "already"),
        (("create", "x", "--limit", "0"), "from 1 to"),
        (("create", "we\x1b[31mb"), "not a valid name"),
        (("create",), "Missing argument"),
        (("revoke", "nobody"), "keys list"),
        (("revoke", "env"), "unset it"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(data, arguments, words):
    keys("create", "web")
    refused = keys(*arguments)
    assert refused.exit_code == 2
    assert refused.stdout == ""
    assert words in refused.stderr
    assert "\x1b" not in refused.stderr
    assert [each["name"] for each in json.loads(keys("list", "--json").stdout)["keys"]] == ["web"]


def test_no_key_is_created_if_its_webhook_secret_cannot_be_shown(data, monkeypatch):
    monkeypatch.setenv("WEBHOOK_SECRET", "short")
    assert keys("create", "web").exit_code == 2
    monkeypatch.delenv("WEBHOOK_SECRET")
    assert json.loads(keys("list", "--json").stdout) == {"keys": []}


def test_a_store_that_cannot_be_opened_is_one_line(data):
    data.mkdir()
    (data / "jobs.sqlite3").write_bytes(b"no database " * 1000)
    failed = keys("list")
    assert failed.exit_code == 1
    assert failed.stderr.startswith("diarist: The job store")


def test_a_list_of_lost_keys_says_what_to_do(data):
    assert "only from this machine" in keys("list").stderr
    assert keys("create", "web").exit_code == 0
    mark = data / "keys-exist"
    assert "every request needs one" in mark.read_text(encoding="ascii")
    for path in data.glob("jobs.sqlite3*"):
        path.unlink()
    said = keys("list").stderr
    assert "all requests are refused" in said
    assert str(mark) in said
    assert keys("create", "web").exit_code == 0
    assert "web" in keys("list").stdout
