"""A process that asks for the master secret of webhooks, in a module that spawned processes can import."""

from __future__ import annotations

from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from diarist.jobs.db.database import open_database
from diarist.jobs.db.secrets import webhook_master
from diarist.settings import load_settings


def report_webhook_master(folder: Path, start: Barrier, results: Queue[str]) -> None:
    """Put the result of ``webhook_master`` into ``results``, after all processes have reached ``start``."""
    settings = load_settings(data_dir=folder)
    database = open_database(settings)
    start.wait(60)
    results.put(webhook_master(settings, database))
    database.close()
