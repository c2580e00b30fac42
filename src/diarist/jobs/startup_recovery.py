"""What a start does with what an earlier run of a service left that has its job store for itself."""

from __future__ import annotations

import logging
import shutil

from diarist.errors import ServiceError
from diarist.jobs.media.directory import MediaStore
from diarist.jobs.store import JobStore
from diarist.settings import Settings

logger = logging.getLogger(__name__)


def recover_jobs(settings: Settings, store: JobStore, media: MediaStore) -> None:
    """Take up the jobs of an earlier run where it left them, and forget what nobody can ask for any more.

    Its requests are forgotten, since their callers are gone; so are uploads that had not become a job, and what its
    workers said. The log says how much there was.
    """
    holders = {job.worker for job in store.list_unfinished() if job.worker is not None}
    for worker in sorted(holders.union(report.worker for report in store.list_worker_reports())):
        store.release(worker, settings.job_attempts, service_crash=True)
    gone = store.list_requests()
    for job_id in gone:
        store.delete(job_id)
    kept = store.list_unfinished()
    found = media.job_ids()
    strays = found - store.filter_existing(found)
    for job_id in strays:
        try:
            media.remove(job_id)
        except ServiceError as error:
            logger.warning("What is left of job %s cannot be removed: %s", job_id, error)
    if settings.temp_audio_dir is None:
        # The folder is ours alone by its default place; one that was chosen may hold other people's files.
        shutil.rmtree(settings.temp_dir, ignore_errors=True)
        settings.temp_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if gone or strays:
        logger.warning(
            "Removed what an earlier run left: %d requests without a caller, %d recordings without a job",
            len(gone), len(strays),
        )  # fmt: skip
    if kept:
        logger.info("%d jobs of an earlier run are taken up again", len(kept))
