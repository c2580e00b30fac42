"""Opens a job store in a process of its own, and stands still where it is told to.

    python upgrade_entry.py KIND ADDRESS [STATEMENT]

``STATEMENT`` is the number of the statement of the upgrade, from 1, before which it stands still; ``commit`` is before
the end of the transaction. It says ``stopped``, and goes on when it reads a line; at the end it says ``opened`` and how
many statements there were, or ``refused`` and why. The log goes to stderr.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from sqlalchemy import Engine, event

from diarist.errors import StoreUnavailable
from diarist.jobs.db import postgres, sqlite
from diarist.jobs.db.database import Database


def main(kind: str, address: str, stop: str = "") -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # So short that whoever waits for an upgrade would notice if they counted.
    sqlite.BUSY_TIMEOUT_S = 0.1
    postgres.STATEMENT_TIMEOUT_MS = postgres.LOCK_TIMEOUT_MS = postgres.IDLE_TIMEOUT_MS = 200
    engine = sqlite.open_sqlite(Path(address)) if kind == "sqlite" else postgres.open_postgres(address)
    statements = Statements(engine, stop)
    explain = sqlite.explain if kind == "sqlite" else postgres.explain
    try:
        Database(engine, explain=explain).close()
    except StoreUnavailable as error:
        say(f"refused {error}")
    else:
        say(f"opened {statements.count}")


def say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


class Statements:
    """Counts the statements of an upgrade, from the one that begins its transaction."""

    def __init__(self, engine: Engine, stop: str) -> None:
        self.count = 0
        self.stop = stop
        self._upgrades = False
        logging.getLogger("diarist.jobs.db.database").addFilter(self._watch)
        event.listen(engine, "before_cursor_execute", self._before_statement)
        event.listen(engine, "commit", self._before_commit)

    def _watch(self, record: logging.LogRecord) -> bool:
        self._upgrades = record.getMessage().startswith("Upgrading")
        return True

    def _before_statement(self, *_: object) -> None:
        if self._upgrades:
            self.count += 1
            self._stand_still(str(self.count))

    def _before_commit(self, *_: object) -> None:
        if self._upgrades:
            self._stand_still("commit")

    def _stand_still(self, place: str) -> None:
        if place == self.stop:
            say("stopped")
            sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
