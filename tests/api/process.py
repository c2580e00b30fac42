"""A service in a process of its own, started and stopped by a test."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from api.wire import Address

START_S = 60.0
HERE = Path(__file__).parent


class ServiceProcess:
    """Runs from construction on; ``log`` holds the lines of its console so far."""

    def __init__(self, folder: Path, command: Sequence[str] = (), **settings: object) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.engine = folder / "engine"
        folder.mkdir(parents=True, exist_ok=True)
        if not self.engine.exists():
            self.engine.write_text("ready")
        own = {
            "DATA_DIR": self.data,
            "LOG_FILE": folder / "logs" / "service.log",
            "FLASK_HOST": "127.0.0.1",
            "FLASK_PORT": 0,
            "SCRIPTED_ENGINE": self.engine,
            "PYTHONWARNINGS": "error::ResourceWarning",
        }
        self.log: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            command or (sys.executable, str(HERE / "scripted_service.py")),
            env=os.environ | {name: str(value) for name, value in (own | settings).items()},
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, pattern: str, timeout: float = START_S) -> re.Match[str]:
        """The first line of the log that matches; fails where none comes in time or the process ends without."""

        def found() -> re.Match[str] | None:
            return next((match for line in list(self.log) if (match := re.search(pattern, line))), None)

        with self._news:
            self._news.wait_for(lambda: found() or self._ended, timeout)
        match = found()
        assert match, f"no {pattern!r} in the log:\n" + "\n".join(self.log)
        return match

    @property
    def address(self) -> Address:
        match = self.wait_for(r"Listening on http://([\d.]+):(\d+)")
        return match[1], int(match[2])

    def stop(self, number: int = signal.SIGTERM, timeout: float = 15) -> int:
        """Send the signal and wait for the end; its exit code."""
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
        """Files under DATA_DIR that belong to a recording."""
        own = ("jobs.sqlite3", "jobs.sqlite3-wal", "jobs.sqlite3-shm", "service.lock")
        return sorted(str(path) for path in self.data.rglob("*") if path.is_file() and path.name not in own)

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            with self._news:
                self.log.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()
