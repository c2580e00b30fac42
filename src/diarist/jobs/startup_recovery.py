"""Recovery at startup of a service that is the only user of its job store."""

from __future__ import annotations

import logging

from diarist import scratch
from diarist.errors import ServiceError
from diarist.jobs.media.base import MediaStore
from diarist.jobs.store import JobStore
from diarist.settings import Settings

logger = logging.getLogger(__name__)


def recover_jobs(settings: Settings, store: JobStore, media: MediaStore) -> None:
    """Requeue the jobs that an earlier run left unfinished, and delete what nobody can ask for any more.

    Requests are deleted, because their callers are gone; so are uploads that never became a job, and the reports of
    the earlier workers. The log says how many there were.
    """
    workers = {job.worker for job in store.list_unfinished() if job.worker is not None}
    for worker in sorted(workers.union(report.worker for report in store.list_worker_reports())):
        store.release(worker, settings.job_attempts, service_crash=True)
    requests = store.list_requests()
    for job_id in requests:
        store.delete(job_id)
    unfinished = store.list_unfinished()
    media_ids = media.job_ids()
    orphans = media_ids - store.filter_existing(media_ids)
    for job_id in orphans:
        try:
            media.remove(job_id)
        except ServiceError as error:
            logger.warning("The files of job %s cannot be removed: %s", job_id, error)
    if settings.temp_audio_dir is None:
        # Only the default folder belongs to Diarist alone. A configured one may hold the files of other programs.
        scratch.clear_temp_dir(settings.temp_dir)
    if requests or orphans:
        logger.warning(
            "Removed the remains of an earlier run: %d requests without a caller, %d recordings without a job",
            len(requests), len(orphans),
        )  # fmt: skip
    if unfinished:
        logger.info("Resuming %d jobs of an earlier run", len(unfinished))
