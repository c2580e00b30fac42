"""What all parts of a worker process share."""

from __future__ import annotations

import contextlib

from diarist.errors import ServiceError
from diarist.jobs.db.chunks import ChunkStore
from diarist.jobs.db.job_store import SqlJobStore
from diarist.jobs.media.base import MediaStore
from diarist.jobs.media.factory import open_media
from diarist.jobs.workers import ipc
from diarist.jobs.workers.heartbeat import Heartbeat
from diarist.jobs.workers.ipc import WorkerChannel, WorkerConfig
from diarist.jobs.workers.status import StatusReporter
from diarist.system.process_tree import kill_own_tree

POLL_S = 1.0
"""The longest time between two attempts to claim a job, in case a wake message was lost."""

STORE_RETRY_S = 2.0
"""How long a worker waits before it uses the job store again after an error."""


class WorkerContext:
    """The connections of a worker process to its supervisor, the store and the media, with its heartbeat and status."""

    def __init__(self, config: WorkerConfig, channel: WorkerChannel, store: SqlJobStore) -> None:
        self.worker = config.worker
        self.gpu = config.gpu
        self.settings = config.settings
        self.channel = channel
        self.store = store
        self.media: MediaStore = open_media(config.settings)
        self.chunks = ChunkStore(store.database)
        self.status = StatusReporter(store, config.worker, config.error)
        self.heartbeat = Heartbeat(
            store, config.worker, config.settings, lambda: channel.send(ipc.ALIVE), self.status.repeat,
            channel.shutdown, lambda: self.abort(ipc.LEASE_LOST),
        )  # fmt: skip
        channel.on_message = self.heartbeat.renew_soon

    @property
    def stopping(self) -> bool:
        """Whether the worker must not start anything else."""
        return self.channel.shutdown.is_set() or self.channel.drain.is_set()

    def abort(self, reason: str = ipc.SHUTDOWN) -> None:
        """Requeue the jobs that this worker holds and end the process: native code cannot be interrupted.

        Args:
            reason: The reason for the supervisor, ``ipc.LEASE_LOST`` or ``ipc.SHUTDOWN``.
        """
        self.channel.send(f"{ipc.GIVES_UP} {reason}")
        for job in self.heartbeat.held_jobs:
            with contextlib.suppress(ServiceError):
                self.store.requeue(job.id, self.worker)
        with contextlib.suppress(ServiceError):
            self.chunks.release(self.worker)
        kill_own_tree()
