"""Errands as rows: what the service has still to do for a job outside of it, kept until it is done."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, insert

from diarist.jobs.db.schema import outbox_tasks

FETCH = "fetch"
"""Get the recording from its URL."""

WEBHOOK = "webhook"
"""Tell the caller's server of the end."""


def add(connection: Connection, job_id: str, kind: str, body: Mapping[str, object], due_at: datetime) -> str:
    """Keep an errand, in the transaction of what it follows from. Its id, which nobody can guess."""
    task_id = secrets.token_urlsafe(16)
    connection.execute(
        insert(outbox_tasks).values(
            id=task_id, job_id=job_id, kind=kind, body=json.dumps(body), due_at=due_at, attempts=0
        )
    )
    return task_id
