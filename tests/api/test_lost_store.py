"""The service after its job store, its folders or its disk space are lost, before it starts and while it runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Executable, delete, text

from api.conftest import eventually
from api.process import ServiceProcess
from api.wire import call, diarize, recording
from diarist.auth.key_mark import FILE_NAME
from diarist.jobs.db import schema
from diarist.jobs.db.api_keys import ApiKeyStore
from diarist.jobs.db.database import open_database
from diarist.jobs.db.migrations.state import REVISION_TABLE
from diarist.settings import Settings
from support.servers import PostgresServer

WRONG = "dk_" + "W" * 12 + "_" + "w" * 43


class SqliteLosses:
    """Ways to lose the job store of a service that is stopped, or runs."""

    def __init__(self, data: Path) -> None:
        self.url = ""
        self._data = data
        self._path = data / "jobs.sqlite3"

    def back_up(self) -> None:
        with closing(open_database(Settings(_env_file=None, data_dir=self._data))):
            pass
        shutil.copy(self._path, self._path.with_suffix(".old"))

    def truncate(self) -> None:
        os.truncate(self._path, 0)

    def restore_older_copy(self) -> None:
        self.remove()
        shutil.move(self._path.with_suffix(".old"), self._path)

    def remove(self) -> None:
        for path in self._data.glob("jobs.sqlite3*"):
            if path.suffix != ".old":
                path.unlink()


class PostgresLosses:
    """The same for a database of a PostgreSQL server."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self.url = server.fresh_database()

    def back_up(self) -> None:
        """Do nothing: an older copy differs by its missing keys."""

    def truncate(self) -> None:
        names = ", ".join(f'"{name}"' for name in (*schema.metadata.tables, REVISION_TABLE))
        self._execute(text(f"DROP TABLE {names} CASCADE"))

    def restore_older_copy(self) -> None:
        self._execute(delete(schema.api_keys))

    def remove(self) -> None:
        self.url = self._server.fresh_database()

    def _execute(self, statement: Executable) -> None:
        database = open_database(Settings(_env_file=None, database_url=self.url))
        with closing(database), database.writing() as connection:
            connection.execute(statement)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.servers)])
def losses(request, tmp_path):
    if request.param == "sqlite":
        return SqliteLosses(tmp_path / "data")
    return PostgresLosses(request.getfixturevalue("postgres_server"))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def status_of(service: ServiceProcess, headers: dict[str, str]) -> int:
    return call(service.address, "GET", "/v1/jobs", headers=headers).status


def create_key(service: ServiceProcess, url: str, name: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "diarist.cli", "keys", "create", name],
        env=os.environ | {"DATA_DIR": str(service.data), "DATABASE_URL": url, "LOG_FILE": str(service.folder / "log")},
        cwd=service.folder, capture_output=True, text=True, check=True, timeout=60,
    ).stdout.strip()  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["truncate", "restore_older_copy", "remove"])
def test_a_store_that_lost_its_keys_opens_to_nobody(start, losses, tmp_path, loss):
    losses.back_up()
    service = start(DATABASE_URL=losses.url)
    assert status_of(service, {}) == 200
    # Another machine of a fleet may create the key, so it is the service that has to remember that there are some.
    with closing(open_database(Settings(_env_file=None, data_dir=service.data, database_url=losses.url))) as database:
        _, token = ApiKeyStore(database).create("web")
    eventually(lambda: status_of(service, bearer(token)) == 200)
    assert service.stop() == 0
    getattr(losses, loss)()

    service = start(DATABASE_URL=losses.url)
    service.wait_for(f"diarist keys create NAME.*{FILE_NAME}")
    for headers in ({}, bearer(token), bearer(WRONG), {"X-API-Key": token}):
        assert status_of(service, headers) == 401
    assert call(service.address, "GET", "/status").status == 200
    another = create_key(service, losses.url, "again")
    eventually(lambda: status_of(service, bearer(another)) == 200)
    assert status_of(service, bearer(token)) == 401
    assert service.stop() == 0


@pytest.mark.slow
def test_an_operator_can_decide_to_have_no_keys(start, tmp_path):
    losses = SqliteLosses(tmp_path / "data")
    service = start()
    create_key(service, "", "web")
    eventually(lambda: status_of(service, {}) == 401)
    assert service.stop() == 0
    losses.remove()
    (service.data / FILE_NAME).unlink()
    service = start()
    assert status_of(service, {}) == 200


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["truncate", "restore_older_copy", "remove"])
def test_a_store_that_is_lost_while_it_runs_opens_to_nobody_and_tells_no_stranger(start, tmp_path, loss):
    losses = SqliteLosses(tmp_path / "data")
    losses.back_up()
    service = start()
    token = create_key(service, "", "web")
    eventually(lambda: status_of(service, bearer(token)) == 200)
    getattr(losses, loss)()

    def answers() -> list[tuple[int, str]]:
        found = [call(service.address, "GET", "/v1/jobs", headers=headers) for headers in ({}, bearer(WRONG))]
        found.append(call(service.address, "GET", "/status"))
        return [(answer.status, answer.body.decode()) for answer in found]

    eventually(lambda: call(service.address, "GET", "/health/ready").json["status"] == "error")
    for status, body in answers():
        assert status in (200, 401, 503)
        assert str(tmp_path) not in body
        assert "sqlite" not in body.lower()
        assert "table" not in body
    assert [status for status, _ in answers()[:2]] in ([401, 503], [401, 401])


def ready(service: ServiceProcess) -> tuple[int, str]:
    answer = call(service.address, "GET", "/health/ready")
    return answer.status, answer.json.get("reason", "")


@pytest.mark.slow
def test_a_removed_temp_folder_is_made_anew(start, tmp_path):
    service = start(TEMP_AUDIO_DIR=tmp_path / "temp", MIN_FREE_MB=0)
    service.wait_for("is ready")
    # The second upload is so large that it does not stay in memory while it arrives.
    for content in ("{}", b"x" * 3_000_000):
        shutil.rmtree(tmp_path / "temp")
        assert diarize(service.address, recording(content)).status == 200
    shutil.rmtree(tmp_path / "temp")
    eventually(lambda: ready(service) == (200, ""))
    assert (tmp_path / "temp").stat().st_mode & 0o777 == 0o700


@pytest.mark.slow
def test_a_temp_folder_that_cannot_be_made_anew_is_told(start, tmp_path):
    service = start(TEMP_AUDIO_DIR=tmp_path / "temp", MIN_FREE_MB=0)
    service.wait_for("is ready")
    shutil.rmtree(tmp_path / "temp")
    (tmp_path / "temp").touch()
    for content in ("{}", b"x" * 3_000_000):
        answer = diarize(service.address, recording(content))
        assert (answer.status, answer.json["code"]) == (503, "media_unavailable")
        assert str(tmp_path) not in answer.json["error"]
    eventually(lambda: ready(service)[0] == 503)
    assert "temporary files" in ready(service)[1]
    assert str(tmp_path) not in ready(service)[1]
    service.wait_for(f"No recordings are accepted.*{tmp_path}")
    (tmp_path / "temp").unlink()
    eventually(lambda: ready(service) == (200, ""))
    assert diarize(service.address).status == 200


@pytest.mark.slow
def test_a_removed_data_folder_is_noticed_and_its_return_too(start, tmp_path):
    service = start(MIN_FREE_MB=0)
    service.wait_for("is ready")
    service.data.rename(tmp_path / "elsewhere")
    answer = diarize(service.address)
    assert answer.status == 503
    assert str(tmp_path) not in answer.body.decode()
    eventually(lambda: ready(service)[0] == 503)
    assert "removed or replaced" in ready(service)[1]
    assert "removed or replaced" in " ".join(call(service.address, "GET", "/status").json["errors"])
    service.wait_for(f"The job store {service.data}.* was removed while it was in use")
    shutil.rmtree(service.data, ignore_errors=True)
    (tmp_path / "elsewhere").rename(service.data)
    eventually(lambda: ready(service) == (200, ""))
    assert diarize(service.address).status == 200
