"""Storing the final utterances of a transcript while its job is still running."""

from __future__ import annotations

import logging

from diarist.errors import ServiceError
from diarist.jobs.store import JobStore
from diarist.types import Utterance

logger = logging.getLogger(__name__)


class PartialTranscript:
    """Stores final utterances; those that could not be stored are stored together with the next ones."""

    def __init__(self, store: JobStore, job_id: str, worker: str) -> None:
        self._store = store
        self._job_id = job_id
        self._worker = worker
        self._stored = 0
        self._pending: tuple[Utterance, ...] = ()

    def __call__(self, utterances: tuple[Utterance, ...]) -> None:
        self._pending += utterances
        if not self._pending:
            return
        try:
            self._store.finalize(self._job_id, self._worker, self._stored, self._pending)
        except ServiceError as error:
            logger.warning("Final utterances cannot be stored yet: %s", error)
            return
        self._stored += len(self._pending)
        self._pending = ()
