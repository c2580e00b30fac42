"""The service and its worker, which record their database pools: ``python pool_counting_entry.py api|worker``.

Each process appends a line ``ROLE PID`` to the file that ``POOL_LOG`` names, once for each pool of connections that it
uses.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sqlalchemy import Connection, Engine, Pool, event


def record_pools(role: str, log: Path) -> None:
    """Append a line to ``log`` when a connection is first taken from a pool that this process has not used before."""
    pools: list[Pool] = []

    def record(connection: Connection) -> None:
        if connection.engine.pool not in pools:
            pools.append(connection.engine.pool)
            with log.open("a", encoding="ascii") as file:
                file.write(f"{role} {os.getpid()}\n")

    event.listen(Engine, "engine_connect", record)


def main(role: str) -> None:
    record_pools(role, Path(os.environ["POOL_LOG"]))
    if role == "api":
        from diarist.api import serving
        from diarist.settings import load_settings

        serving.serve(load_settings(), (sys.executable, "-P", __file__, "worker"))
    else:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from api.scripted_worker import load_engine, transcribe
        from diarist.jobs.workers import worker

        worker.main(load_engine, transcribe)


if __name__ == "__main__":
    main(sys.argv[1])
