"""Errors on their way through the job store: an exception in the worker, a code and words, an exception again."""

from __future__ import annotations

from collections.abc import Iterator

from diarist.errors import DiaristError, JobFailed
from diarist.jobs.model import Job, JobError


def to_job_error(error: Exception, job: Job) -> JobError:
    """What the caller gets to see of ``error``: all of one that Diarist raised on purpose, nothing of any other."""
    if isinstance(error, DiaristError):
        return JobError(error.code, _storable(str(error)))
    return JobError(
        JobFailed.code,
        "The recording could not be processed because of a fault in the service. Whoever runs the service finds the "
        f"details in its log under request {job.spec.request_id}.",
    )


def to_exception(error: JobError) -> DiaristError:
    """The exception that ``error`` was made of; ``JobFailed`` where its code is of another Diarist."""
    for kind in _kinds(DiaristError):
        if kind.code == error.code:
            return kind(error.message)
    return JobFailed(error.message)


def _kinds(root: type[DiaristError]) -> Iterator[type[DiaristError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _kinds(kind)


def _storable(text: str) -> str:
    """Without halves of surrogate pairs and NUL, which databases refuse."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")
