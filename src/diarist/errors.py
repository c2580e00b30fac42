"""Every error that Diarist raises on purpose. The message is for the user and says what to do.

::

    DiaristError
    ├── InputError                 the caller's fault: a retry gives the same
    │   ├── InvalidOption          (ValueError) an option out of range or in contradiction
    │   ├── IdempotencyConflict    an idempotency key that stands for another order already
    │   ├── UrlRefused             leads into a network that is not public, or elsewhere against the rules
    │   ├── UrlUnusable            what is there is no recording that can be fetched
    │   └── AudioError
    │       ├── NotAudio           no audio in it, or a container that is not read
    │       ├── EmptyAudio         nothing in it
    │       ├── CorruptAudio       audio, but damaged: it cannot be decoded, or ends before it should
    │       ├── UnsupportedAudio   audio outside what is accepted: sample rate, number of channels
    │       ├── AudioTooLong       longer than MAX_DURATION_S
    │       └── UploadTooLarge     larger than MAX_UPLOAD_MB
    ├── ServiceError               our fault, or the machine's: a retry may help
    │   ├── ConfigurationError     (ValueError) a setting that cannot be used
    │   ├── ModelError
    │   │   ├── ModelUnavailable   could not be fetched from any source
    │   │   └── ModelCorrupt       (ValueError) its hash is wrong
    │   ├── DecoderFailed          the decoder's process died or ran out of time or memory
    │   ├── EngineUnavailable      not loaded yet, or cannot be loaded
    │   ├── QueueFull              too many recordings wait already
    │   ├── StorageFull            too little disk space for the upload, or for its samples
    │   ├── StoreUnavailable       the job store cannot be read or written
    │   ├── UrlUnreachable         the server of a URL does not answer, or fails
    │   ├── MediaUnavailable       the store of recordings cannot be read or written
    │   │   └── MediaMissing       (LookupError) what is asked for is not in it
    │   └── JobFailed              the work failed in a way that is none of the above
    ├── Unauthorized               an API key is needed, and none came, or one that is not valid
    ├── JobNotFound                (LookupError) no such job
    ├── JobNotDone                 it has no result yet
    ├── JobEnded                   it has ended, and can no longer be stopped
    ├── JobCanceled                it was canceled, and has no result
    └── Cancelled                  somebody stopped the work
"""

from __future__ import annotations

from typing import ClassVar


class DiaristError(Exception):
    """Root of the tree."""

    code: ClassVar[str] = "error"
    """One lower-case word for machines; part of the wire contract."""


class InputError(DiaristError):
    """The caller's fault: the same request gives the same error."""

    code = "invalid_input"


class InvalidOption(InputError, ValueError):
    """An option is out of range or contradicts another."""

    code = "invalid_option"


class UrlRefused(InputError):
    """A URL leads into a network that is not public, or redirects against the rules."""

    code = "url_refused"


class UrlUnusable(InputError):
    """The server of a URL answers, but not with something that can be fetched."""

    code = "url_unusable"


class IdempotencyConflict(InputError):
    """An idempotency key stands for another order already."""

    code = "idempotency_conflict"


class AudioError(InputError):
    """The recording cannot be used."""

    code = "invalid_audio"


class NotAudio(AudioError):
    """There is no audio in it, or its container is not one that is read."""

    code = "not_audio"


class EmptyAudio(AudioError):
    """There is nothing in it."""

    code = "empty_audio"


class CorruptAudio(AudioError):
    """It is audio, but damaged: it cannot be decoded, or ends before it should."""

    code = "corrupt_audio"


class UnsupportedAudio(AudioError):
    """It is audio outside what is accepted."""

    code = "unsupported_audio"


class AudioTooLong(AudioError):
    """It is longer than MAX_DURATION_S."""

    code = "audio_too_long"


class UploadTooLarge(AudioError):
    """It is larger than MAX_UPLOAD_MB."""

    code = "upload_too_large"


class ServiceError(DiaristError):
    """Our fault, or the machine's: the same request may work later."""

    code = "internal_error"


class ConfigurationError(ServiceError, ValueError):
    """A setting cannot be used."""

    code = "invalid_configuration"


class ModelError(ServiceError):
    """A model cannot be used."""

    code = "model_error"


class ModelUnavailable(ModelError):
    """A model could not be had from any of its sources."""

    code = "model_unavailable"


class ModelCorrupt(ModelError, ValueError):
    """A model file is not the one that the catalogue names."""

    code = "model_corrupt"


class DecoderFailed(ServiceError):
    """The decoder's process died, or ran out of its time or memory."""

    code = "decoder_failed"


class EngineUnavailable(ServiceError):
    """The engine is not loaded yet, or cannot be loaded."""

    code = "engine_unavailable"


class QueueFull(ServiceError):
    """Too many recordings wait already."""

    code = "queue_full"


class StorageFull(ServiceError):
    """There is too little disk space."""

    code = "storage_full"


class StoreUnavailable(ServiceError):
    """The job store cannot be read or written."""

    code = "store_unavailable"


class MediaUnavailable(ServiceError):
    """The store of recordings cannot be read or written."""

    code = "media_unavailable"


class MediaMissing(MediaUnavailable, LookupError):
    """What is asked for is not in the store of recordings: it was removed, or never was there."""

    code = "media_missing"


class UrlUnreachable(ServiceError):
    """The server of a URL does not answer, answers too slowly, or fails."""

    code = "url_unreachable"


class JobFailed(ServiceError):
    """The work failed in a way that no other error names."""

    code = "job_failed"


class Unauthorized(DiaristError):
    """It takes an API key, and there is none, or one that is not valid."""

    code = "unauthorized"


class JobNotFound(DiaristError, LookupError):
    """There is no such job."""

    code = "job_not_found"


class JobNotDone(DiaristError):
    """A job has not ended, and what is asked for is there at its end."""

    code = "job_not_done"


class JobEnded(DiaristError):
    """A job has ended, and can no longer be stopped."""

    code = "job_ended"


class JobCanceled(DiaristError):
    """A job was canceled, and has no result."""

    code = "job_canceled"


class Cancelled(DiaristError):
    """Somebody stopped the work."""

    code = "cancelled"
