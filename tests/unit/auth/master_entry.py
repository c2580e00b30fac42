"""A process that asks for the secret of webhooks when others do: a module that spawned children can load."""

from __future__ import annotations

from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from diarist.auth.keys import webhook_master
from diarist.jobs.db.database import open_database
from diarist.settings import load_settings


def ask(folder: Path, start: Barrier, found: Queue[str]) -> None:
    """Put what ``webhook_master`` says into ``found``, once all have come to ``start``."""
    settings = load_settings(data_dir=folder)
    database = open_database(settings)
    start.wait(60)
    found.put(webhook_master(settings, database))
    database.close()
