"""A service in a process of its own, which a test starts and stops."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from api.wire import Address

START_S = 60.0
CTRL_C = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT)
"""What stops a process as Ctrl-C in its console does. Windows sends Ctrl-C itself to all processes of the console."""

HERE = Path(__file__).parent


class ServiceProcess:
    """A service that starts when this is created. ``log`` contains the lines that it has written to its console."""

    COMMAND = (sys.executable, str(HERE / "scripted_service.py"))

    def __init__(self, folder: Path, command: Sequence[str] = (), **settings: object) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.engine = folder / "engine"
        folder.mkdir(parents=True, exist_ok=True)
        if not self.engine.exists():
            self.engine.write_text("ready")
        defaults = {
            "DATA_DIR": self.data,
            "LOG_FILE": folder / "logs" / "service.log",
            "FLASK_HOST": "127.0.0.1",
            "FLASK_PORT": 0,
            "SCRIPTED_ENGINE": self.engine,
            "PYTHONWARNINGS": "error::ResourceWarning",
        }
        self.log: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            command or self.COMMAND,
            env=os.environ | {name: str(value) for name, value in (defaults | settings).items()},
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, pattern: str, timeout: float = START_S) -> re.Match[str]:
        """Return the match of the first matching line of the log. Fail if there is none in time or the process ends."""

        def first_match() -> re.Match[str] | None:
            return next((match for line in list(self.log) if (match := re.search(pattern, line))), None)

        with self._changed:
            self._changed.wait_for(lambda: first_match() or self._ended, timeout)
        match = first_match()
        assert match, f"no {pattern!r} in the log:\n" + "\n".join(self.log)
        return match

    @property
    def address(self) -> Address:
        match = self.wait_for(r"Listening on http://([\d.]+):(\d+)")
        return match[1], int(match[2])

    def stop(self, number: int = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM), timeout: float = 15) -> int:
        """Send the signal, wait until the process ends, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait(timeout)

    def wait(self, timeout: float = START_S) -> int:
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self._reader.join(10)
            if self.process.stderr:
                self.process.stderr.close()
        return code

    def left_behind(self) -> list[str]:
        """Return the files in DATA_DIR that belong to recordings."""
        own = ("jobs.sqlite3", "jobs.sqlite3-wal", "jobs.sqlite3-shm", "service.lock", "keys-exist")
        return sorted(str(path) for path in self.data.rglob("*") if path.is_file() and path.name not in own)

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            with self._changed:
                self.log.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


@contextmanager
def shared_service(folder: Path, command: Sequence[str], ready: str, **settings: object) -> Iterator[ServiceProcess]:
    """Run a service for several tests. After them, it must stop cleanly and leave its folders empty."""
    service = ServiceProcess(folder, command, **settings)
    try:
        service.wait_for(ready, 180.0)
        yield service
        assert service.stop() == 0
        assert service.left_behind() == []
    finally:
        if service.process.poll() is None:
            service.process.kill()
            service.wait()
