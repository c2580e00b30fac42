"""Every error that Diarist raises intentionally. The message is for the user and says what to do.

The tree of errors:

    DiaristError
    ├── InputError                 the request is wrong: a retry gives the same error
    │   ├── InvalidOption          (ValueError) an option is out of range or contradicts another
    │   ├── IdempotencyConflict    an idempotency key was used for a different request before
    │   ├── UrlRefused             a URL leads into a network that is not public, or redirects against the rules
    │   ├── UrlUnusable            a URL does not lead to a recording that can be fetched
    │   └── AudioError
    │       ├── NotAudio           no audio, or an unsupported container
    │       ├── EmptyAudio         no samples
    │       ├── CorruptAudio       damaged audio: it cannot be decoded, or ends too early
    │       ├── UnsupportedAudio   an unsupported sample rate, number of channels or codec
    │       ├── TrackNotFound      the file has no audio track with the requested number
    │       ├── AudioTooLong       longer than MAX_DURATION_S
    │       └── UploadTooLarge     larger than MAX_UPLOAD_MB
    ├── ServiceError               the service or the machine failed: a retry may succeed
    │   ├── ConfigurationError     (ValueError) an invalid setting
    │   ├── ModelError
    │   │   ├── ModelUnavailable   a model could not be fetched from any source
    │   │   └── ModelCorrupt       (ValueError) a model file has the wrong hash
    │   ├── DecoderFailed          the decoder process died, or exceeded its time or memory limit
    │   ├── EngineUnavailable      the engine is not loaded yet, or cannot be loaded
    │   ├── QueueFull              too many recordings are waiting
    │   ├── QueueUnserved          no worker serves the queue of a job
    │   ├── QuotaExceeded          the recordings of an API key would take too much space
    │   ├── StorageFull            too little disk space for the upload or its samples
    │   ├── StoreUnavailable       the job store cannot be read or written
    │   ├── UrlUnreachable         the server of a URL does not respond, or fails
    │   ├── MediaUnavailable       the recording storage cannot be read or written
    │   │   └── MediaMissing       (LookupError) an object is not in the recording storage
    │   └── JobFailed              the work failed in a way that no other error describes
    ├── Unauthorized               an API key is required, and it is missing or invalid
    ├── HostNotAllowed             the request is addressed to a name that is not the service's
    ├── CrossOriginRequest         a web page of another origin sent the request
    ├── JobNotFound                (LookupError) there is no job with this ID
    ├── JobNotDone                 the job has no result yet
    ├── JobEnded                   the job has ended and can no longer be canceled
    ├── JobCanceled                the job was canceled and has no result
    └── Cancelled                  the work was stopped
"""

from __future__ import annotations

import re
from typing import ClassVar

_ABSOLUTE_PATH = re.compile(r"""(?<![\w.:/~*\]-])/(?!v1/|diarize\b|status\b|health/|metrics\b)[^\s'"`,;()<>]+""")
"""A path of the file system in a message. The addresses of the service's own API, and those in URLs, are none."""


class DiaristError(Exception):
    """The base class of all errors that Diarist raises intentionally."""

    code: ClassVar[str] = "error"
    """The error code in responses: lower-case words joined by underscores. Codes are part of the API."""

    @property
    def public_message(self) -> str:
        """The message for callers of the service, who need not be its operators."""
        return str(self)


class InputError(DiaristError):
    """The request is wrong: the same request gives the same error again."""

    code = "invalid_input"


class InvalidOption(InputError, ValueError):
    """An option is out of range or contradicts another."""

    code = "invalid_option"


class UrlRefused(InputError):
    """A URL leads into a network that is not public, or redirects against the rules."""

    code = "url_refused"


class UrlUnusable(InputError):
    """The server of a URL responds, but not with a recording that can be fetched."""

    code = "url_unusable"


class IdempotencyConflict(InputError):
    """An idempotency key was used for a different request before."""

    code = "idempotency_conflict"


class AudioError(InputError):
    """The recording cannot be used."""

    code = "invalid_audio"


class NotAudio(AudioError):
    """The file contains no audio, or its container is not supported."""

    code = "not_audio"


class EmptyAudio(AudioError):
    """The recording contains no samples."""

    code = "empty_audio"


class CorruptAudio(AudioError):
    """The audio is damaged: it cannot be decoded, or ends before its header says."""

    code = "corrupt_audio"


class UnsupportedAudio(AudioError):
    """The sample rate, the number of channels or the codec is not supported."""

    code = "unsupported_audio"


class TrackNotFound(AudioError):
    """The file has no audio track with the requested number."""

    code = "track_not_found"


class AudioTooLong(AudioError):
    """The recording is longer than MAX_DURATION_S."""

    code = "audio_too_long"


class UploadTooLarge(AudioError):
    """The upload is larger than MAX_UPLOAD_MB."""

    code = "upload_too_large"


class ServiceError(DiaristError):
    """The service or the machine failed: the same request may succeed later.

    Args:
        message: what happened and what the operator of the service can do. It may name folders, hosts and files.
        public: the message for callers of the service. None is ``default_public``, or else ``message`` with the names
            of files in place of their paths.
    """

    code = "internal_error"

    default_public: ClassVar[str | None] = None
    """The message for callers, of errors whose own message is only for the operator."""

    def __init__(self, message: str = "", *, public: str | None = None) -> None:
        super().__init__(message)
        self._public = public

    @property
    def public_message(self) -> str:
        return self._public or self.default_public or without_folders(str(self))


class ConfigurationError(ServiceError, ValueError):
    """A setting is invalid."""

    code = "invalid_configuration"


class ModelError(ServiceError):
    """A model cannot be used."""

    code = "model_error"


class ModelUnavailable(ModelError):
    """A model could not be fetched from any of its sources."""

    code = "model_unavailable"


class ModelCorrupt(ModelError, ValueError):
    """A model file does not have the hash that the catalog states."""

    code = "model_corrupt"


class DecoderFailed(ServiceError):
    """The decoder process died, or exceeded its time or memory limit."""

    code = "decoder_failed"


class EngineUnavailable(ServiceError):
    """The engine is not loaded yet, or cannot be loaded."""

    code = "engine_unavailable"


class QueueFull(ServiceError):
    """Too many recordings are already waiting."""

    code = "queue_full"


class QueueUnserved(ServiceError):
    """No worker serves the queue of a job."""

    code = "queue_unserved"


class QuotaExceeded(ServiceError):
    """The stored recordings of an API key would take more space than it may use."""

    code = "quota_exceeded"


class StorageFull(ServiceError):
    """There is too little disk space."""

    code = "storage_full"


class StoreUnavailable(ServiceError):
    """The job store cannot be read or written."""

    code = "store_unavailable"
    default_public = (
        "The job store of the service cannot be used at the moment. Try again later; the log of the service says why."
    )


class MediaUnavailable(ServiceError):
    """The recording storage cannot be read or written."""

    code = "media_unavailable"
    default_public = (
        "The storage of recordings cannot be used at the moment. Try again later; the log of the service says why."
    )


class MediaMissing(MediaUnavailable, LookupError):
    """The requested object is not in the recording storage: it was deleted, or was never stored."""

    code = "media_missing"
    default_public = "The recording is no longer in the storage of the service. Send it again."


class UrlUnreachable(ServiceError):
    """The server of a URL does not respond, responds too slowly, or fails."""

    code = "url_unreachable"


class JobFailed(ServiceError):
    """The work failed in a way that no other error describes."""

    code = "job_failed"


class Unauthorized(DiaristError):
    """An API key is required, and it is missing or invalid."""

    code = "unauthorized"


class HostNotAllowed(DiaristError):
    """The request is addressed to a host name that is not one of the service."""

    code = "host_not_allowed"


class CrossOriginRequest(DiaristError):
    """A browser sent the request for a web page of another origin."""

    code = "cross_origin_request"


class JobNotFound(DiaristError, LookupError):
    """There is no job with the given ID."""

    code = "job_not_found"


class JobNotDone(DiaristError):
    """A job has not ended yet, and the request needs its result."""

    code = "job_not_done"


class JobEnded(DiaristError):
    """A job has ended and can no longer be canceled."""

    code = "job_ended"


class JobCanceled(DiaristError):
    """A job was canceled and has no result."""

    code = "job_canceled"


class Cancelled(DiaristError):
    """The work was stopped on request."""

    code = "cancelled"


def without_folders(text: str) -> str:
    """Return the text with each absolute path replaced by the name of its file or last folder."""
    return _ABSOLUTE_PATH.sub(lambda match: match[0].rstrip("/").rpartition("/")[2] or match[0], text)
