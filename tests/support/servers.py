"""Real Redis, PostgreSQL and S3 servers for the tests, on free ports of this machine and in temporary folders.

The machine's own services are not used. Redis and PostgreSQL are installed from system packages (by ``make test``), and
the S3 server is moto's. Each server ends with the process that started it, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pwd

START_S = 60.0
PORTS_TRIED = 5
LOG_LINES = 40
LOCK = "in use"
ABANDONED_S = 60.0
"""The age at which a folder without a lock is abandoned. A folder is normally locked much sooner after it is
created."""


class Absent(Exception):
    """The program of a server is not installed. The message says which."""


class Server(ABC):
    """A server process with a port and a folder. ``stop`` and ``start`` keep both; ``close`` removes everything."""

    name: str
    end_signal = signal.SIGTERM

    def __init__(self, listen: str = "127.0.0.1") -> None:
        self.listen = listen
        self.port = 0
        _remove_abandoned(f"diarist-{self.name}-")
        self.folder = Path(tempfile.mkdtemp(prefix=f"diarist-{self.name}-"))
        import fcntl  # not on Windows, where these servers do not run

        # Locked as long as this process lives. A folder without a lock is left over from a killed process.
        self._held = (self.folder / LOCK).open("wb")
        fcntl.flock(self._held, fcntl.LOCK_EX)
        self.log = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._fresh = 0
        try:
            self._prepare()
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    def start(self) -> None:
        """Start the server, on the same port as before if there was one, and wait until it responds."""
        assert self._process is None, f"{self.name} is running"
        for _ in range(1 if self.port else PORTS_TRIED):
            port = self.port or _free_port()
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [*_die_with_parent(self.end_signal), *self._command(port)],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder,
                    env=os.environ | self._environment(), start_new_session=True,
                )  # fmt: skip
            if self._wait_until_it_answers(port):
                self.port = port
                return
            self.stop()  # another process may have taken the port in the meantime
        raise RuntimeError(f"{self.name} does not start. Its log ends with:\n{self.log_end()}")

    def stop(self, by: signal.Signals | None = None) -> None:
        """Stop the process normally or by a signal such as ``SIGKILL``. Its files are kept."""
        process, self._process = self._process, None
        if process is None:
            return
        for number, timeout_s in ((by or self.end_signal, 20.0), (signal.SIGKILL, None)):
            process.send_signal(number)
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                continue
            return

    def close(self) -> None:
        self.stop(signal.SIGKILL if self._kill_is_clean else None)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._held.close()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Suspend the server with all its processes: connections stay open, but nothing responds."""
        import psutil

        def send(number: signal.Signals) -> None:
            server = psutil.Process(self.pid)
            for process in (
                server,
                *server.children(recursive=True),
            ):  # the server first, so that it starts no new children
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)

        send(signal.SIGSTOP)
        try:
            yield
        finally:
            send(signal.SIGCONT)

    def log_end(self) -> str:
        try:
            return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-LOG_LINES:])
        except OSError as error:
            return f"(none: {error})"

    _kill_is_clean = True

    @abstractmethod
    def _prepare(self) -> None: ...

    def _environment(self) -> dict[str, str]:
        return {}

    @abstractmethod
    def _command(self, port: int) -> Sequence[str]: ...

    @abstractmethod
    def _answers(self, port: int) -> bool: ...

    def _wait_until_it_answers(self, port: int) -> bool:
        assert self._process is not None
        turn, deadline = threading.Event(), time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            # Our process must still run after the response, or else another server responded.
            if self._answers(port) and not turn.wait(0.02) and self._process.poll() is None:
                return True
            turn.wait(0.05)
        return False


class RedisServer(Server):
    """A Redis server that writes all data to a file, like one with persistent data."""

    name = "redis"

    @property
    def url(self) -> str:
        """The URL of database 0, which all users of the server share."""
        return f"redis://127.0.0.1:{self.port}/0"

    def fresh_url(self) -> str:
        """Return the URL of an empty database. There are 15, which are emptied and used again in turn."""
        import redis

        self._fresh = self._fresh % 15 + 1
        with redis.Redis(port=self.port, db=self._fresh) as client:
            client.flushdb()
        return f"redis://127.0.0.1:{self.port}/{self._fresh}"

    def restart(self, *, lose_data: bool = False) -> None:
        """Kill the server and start it again on the same port."""
        self.stop(signal.SIGKILL)
        if lose_data:
            shutil.rmtree(self._data)
            self._data.mkdir()
        self.start()

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _prepare(self) -> None:
        self._data.mkdir()

    def _command(self, port: int) -> Sequence[str]:
        return (
            program("redis-server"), "--bind", self.listen, "--port", str(port), "--dir", str(self._data),
            "--save", "", "--appendonly", "yes", "--appendfsync", "no", "--protected-mode", "no",
        )  # fmt: skip

    def _answers(self, port: int) -> bool:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        try:
            with redis.Redis(port=port, socket_timeout=5, retry=Retry(NoBackoff(), 0)) as client:
                return bool(client.info("server")["process_id"] == self.pid)
        except redis.RedisError:
            return False


class PostgresServer(Server):
    """A PostgreSQL server with password authentication and without durability."""

    name = "postgres"
    end_signal = signal.SIGINT  # the "fast" shutdown
    _kill_is_clean = False  # shared memory would be left behind

    user = "diarist"

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{self.user}:{self.password}@127.0.0.1:{self.port}/{database}"

    def fresh_database(self) -> str:
        """Create an empty database and return its URL."""
        import psycopg

        self._fresh += 1
        name = f"test_{self._fresh}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def restart(self) -> None:
        """Restart as after a crash: connections are closed, committed data is kept."""
        self.stop(signal.SIGQUIT)
        self.start()

    def _prepare(self) -> None:
        self.password = secrets.token_urlsafe(12)
        secret = self.folder / "password"
        secret.write_text(self.password)
        self.log.touch()
        if self._account:
            for path in (self.folder, secret, self.log):
                shutil.chown(path, self._account.pw_uid, self._account.pw_gid)
        made = subprocess.run(
            [
                *self._as_user(), postgres_program("initdb"), "--pgdata", str(self._data), "--username", self.user,
                "--pwfile", str(secret), "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync",
            ],
            capture_output=True, text=True, check=False, cwd=self.folder, env=os.environ | self._environment(),
        )  # fmt: skip
        if made.returncode:
            raise RuntimeError(f"initdb fails:\n{made.stdout}{made.stderr}")
        with (self._data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all scram-sha-256\n")

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _account(self) -> pwd.struct_passwd | None:
        """Return the account that runs PostgreSQL if we are root, which PostgreSQL refuses to run as."""
        import pwd

        if os.geteuid():
            return None
        try:
            return pwd.getpwnam("postgres")
        except KeyError as error:
            raise Absent("there is no user postgres, which is needed to run PostgreSQL as root") from error

    def _as_user(self) -> Sequence[str]:
        account = self._account
        if account is None:
            return ()
        return (
            program("setpriv"), f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups",
            *_die_with_parent(self.end_signal)[1:],
        )  # fmt: skip

    def _environment(self) -> dict[str, str]:
        # initdb chooses the encoding and the language of messages by these variables
        return {"LC_ALL": "C", "LANG": "C", "PGUSER": self.user} | ({"HOME": str(self.folder)} if self._account else {})

    def _command(self, port: int) -> Sequence[str]:
        options = {
            "listen_addresses": self.listen, "port": str(port), "unix_socket_directories": str(self.folder),
            "fsync": "off", "full_page_writes": "off", "max_connections": "200",
            "shared_buffers": "32MB",
        }  # fmt: skip
        chosen = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return (*self._as_user(), postgres_program("postgres"), "-D", str(self._data), *chosen)

    def _answers(self, port: int) -> bool:
        import psycopg

        try:
            with psycopg.connect(
                host=str(self.folder), port=port, user=self.user, password=self.password, dbname="postgres"
            ):
                return True
        except psycopg.OperationalError:
            return False


class S3Server(Server):
    """moto's S3 server in a separate process, so that its memory is not counted as ours."""

    name = "s3"
    access_key = "diarist"
    secret_key = "of no account"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @cached_property
    def client(self) -> Any:
        """A boto3 client to inspect the stored objects."""
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1",
            aws_access_key_id=self.access_key, aws_secret_access_key=self.secret_key,
        )  # fmt: skip

    def fresh_bucket(self) -> str:
        """Create an empty bucket and return its name."""
        self._fresh += 1
        name = f"test-{self._fresh}"
        self.client.create_bucket(Bucket=name)
        return name

    def settings(self, bucket: str, folder: str = "") -> dict[str, str]:
        """Return the settings for recordings in this bucket."""
        return {
            "media_url": f"s3://{bucket}/{folder}", "s3_endpoint_url": self.url,
            "s3_access_key": self.access_key, "s3_secret_key": self.secret_key,
        }  # fmt: skip

    def check_keys(self, *, check: bool) -> None:
        """Set whether credentials and permissions are checked. If they are, all requests are rejected, because there
        are none."""
        request = urllib.request.Request(
            f"{self.url}/moto-api/reset-auth", b"0" if check else b"inf", {"Content-Type": "text/plain"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200

    def close(self) -> None:
        if "client" in vars(self):
            self.client.close()
        super().close()

    def _prepare(self) -> None:
        """Do nothing: the server only uses memory and temporary files."""

    def _environment(self) -> dict[str, str]:
        return {"TMPDIR": str(self.folder)}

    def _command(self, port: int) -> Sequence[str]:
        return (sys.executable, "-m", "moto.server", "-H", self.listen, "-p", str(port))

    def _answers(self, port: int) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/data.json", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def program(name: str) -> str:
    """Return the path of an installed program, or raise ``Absent``."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if path is None:
        raise Absent(f"{name} is not installed")
    return path


def postgres_program(name: str) -> str:
    """Return the path of a PostgreSQL program, of the newest version as in Debian, or raise ``Absent``."""
    versions = [path for path in Path("/usr/lib/postgresql").glob(f"*/bin/{name}") if path.parts[-3].isdigit()]
    if not versions:
        return program(name)
    return str(max(versions, key=lambda path: int(path.parts[-3])))


def _remove_abandoned(prefix: str) -> None:
    import fcntl

    for lock in Path(tempfile.gettempdir()).glob(f"{prefix}*/{LOCK}"):
        with contextlib.suppress(OSError), lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock.stat().st_mtime < time.time() - ABANDONED_S:
                shutil.rmtree(lock.parent, ignore_errors=True)


def _die_with_parent(number: signal.Signals) -> list[str]:
    """Return a command prefix that ends the command with this process, if the system supports it."""
    path = shutil.which("setpriv")
    return [path, f"--pdeathsig={number.name.removeprefix('SIG')}"] if path else []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
