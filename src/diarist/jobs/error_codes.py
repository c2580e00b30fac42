"""Conversion of errors for the job store: from a worker's exception to a code and a message, and back."""

from __future__ import annotations

from collections.abc import Iterator

from diarist.errors import DiaristError, JobFailed, ServiceError, without_folders
from diarist.jobs.model import Job, JobError


def to_job_error(error: Exception, job: Job) -> JobError:
    """Return what the caller may see of an exception: the public message of a ``DiaristError``; nothing of others."""
    if isinstance(error, DiaristError):
        return JobError(error.code, _storable(error.public_message))
    return JobError(
        JobFailed.code,
        "The recording could not be processed because of an error in the service. The operator of the service can find "
        f"the details in its log under request {job.spec.request_id}.",
    )


def to_exception(error: JobError) -> DiaristError:
    """Return the exception that an error was made from, or ``JobFailed`` if this release does not know its code."""
    for kind in _subclasses(DiaristError):
        if kind.code == error.code:
            # Earlier releases stored messages that name folders.
            message = without_folders(error.message)
            return kind(message, public=message) if issubclass(kind, ServiceError) else kind(message)
    return JobFailed(error.message)


def _subclasses(root: type[DiaristError]) -> Iterator[type[DiaristError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _subclasses(kind)


def _storable(text: str) -> str:
    """Return the text without lone surrogates and NUL, which databases do not accept."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")
