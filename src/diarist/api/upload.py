"""Receive uploads: each goes to a private file of limited size, which is removed at the end of the request."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, cast

from flask import Request
from werkzeug.datastructures import FileStorage, MultiDict

from diarist import scratch
from diarist.api.multipart import StrictFormParser
from diarist.api.runtime import runtime
from diarist.display_text import shown_filename
from diarist.errors import EmptyAudio, InvalidOption, UploadTooLarge

logger = logging.getLogger(__name__)

FORM_BYTES = 2**20
"""The maximum size of a request without the recording: the headers of the parts and the text fields."""

MAX_PARTS = 32
"""The maximum number of parts in a form. There are 23 fields; each part with a file name needs an open file."""

MAX_TEXT_BYTES = 512 * 2**10
"""The maximum length of a text field. Werkzeug applies it to its buffer for *files* too: it reads 64 kB at a time and
may hold some of it back, so a much lower limit would refuse some recordings, depending on their content."""

FILE_FIELDS = ("audio", "file")
"""The fields that may contain the recording."""

_FIELD_NAMES = " or ".join(map(repr, FILE_FIELDS))

IDEMPOTENCY_KEY = "Idempotency-Key"
"""The header of a request that takes effect once, even if it is sent several times."""

SWEEP_AGE = timedelta(hours=1)
"""Younger files may belong to another service that shares TEMP_AUDIO_DIR: an upload lies there only for moments."""


class UploadRequest(Request):
    """A request whose files go to TEMP_AUDIO_DIR, not to memory, and are limited to MAX_UPLOAD_MB."""

    form_data_parser_class = StrictFormParser

    def _get_file_stream(
        self,
        total_content_length: int | None,  # noqa: ARG002
        content_type: str | None,  # noqa: ARG002
        filename: str | None = None,  # noqa: ARG002
        content_length: int | None = None,  # noqa: ARG002
    ) -> IO[bytes]:
        settings = runtime().settings
        hashed = IDEMPOTENCY_KEY in self.headers
        upload_file = UploadFile(
            settings.temp_dir, settings.upload_limit_bytes, hashlib.sha256() if hashed else None,
            settings.min_free_mb * 2**20,
        )  # fmt: skip
        self._upload_files().append(upload_file)
        return cast("IO[bytes]", upload_file)

    def close(self) -> None:
        """Remove the files that were received and not moved away, even if parsing stopped half-way."""
        super().close()
        for upload_file in self._upload_files():
            upload_file.close()

    def _upload_files(self) -> list[UploadFile]:
        upload_files: list[UploadFile] = self.__dict__.setdefault("uploads", [])
        return upload_files


class UploadFile:
    """A private temporary file that is being received.

    ``digest`` is updated with the data that is written, so that it need not be read again. ``min_free_bytes`` of the
    disk stay free.

    Raises:
        UploadTooLarge: more than ``limit_bytes`` are written.
        StorageFull: the disk is full, or has too little free space.
        MediaUnavailable: the folder cannot be created or written.
    """

    def __init__(
        self, folder: Path, limit_bytes: int, digest: hashlib._Hash | None = None, min_free_bytes: int = 0
    ) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._free_space = scratch.FreeSpaceGuard(folder, min_free_bytes, "TEMP_AUDIO_DIR")
        self.digest = digest
        self.size_bytes = 0
        with _storage_errors(folder):
            self._file, self.path = scratch.create_file(folder, scratch.UPLOAD_PREFIX)

    def write(self, data: bytes) -> int:
        self.size_bytes += len(data)
        if self.size_bytes > self._limit_bytes:
            raise too_large(self._limit_bytes)
        if self.digest is not None:
            self.digest.update(data)
        with _storage_errors(self._folder):
            self._free_space.before_write(len(data))
            return self._file.write(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        with _storage_errors(self._folder):
            return self._file.seek(offset, whence)

    def complete(self) -> Path:
        """Close the file, which has been received, and return its path. Windows does not let an open file be moved."""
        with _storage_errors(self._folder):
            self._file.close()
        return self.path

    def close(self) -> None:
        """Close and remove the file. It is not an error if it was moved away."""
        try:
            self._file.close()
        except OSError as error:
            # The disk is full; the file is about to be removed anyway.
            logger.warning("The end of an upload could not be written: %s", error)
        self.path.unlink(missing_ok=True)


@contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    try:
        with scratch.disk_full_errors("the upload was received", "TEMP_AUDIO_DIR"):
            yield
    except OSError as error:
        raise scratch.unusable_temp_dir(folder, error) from error


def too_large(limit_bytes: int) -> UploadTooLarge:
    """Return the error for an upload of more than ``limit_bytes``."""
    return UploadTooLarge(
        f"The upload is larger than {limit_bytes // 2**20} MB, the limit of this service. Send it in a compressed "
        "format such as MP3, Opus or FLAC, or in parts; the operator of the service can raise MAX_UPLOAD_MB."
    )


def _curl_example(request: Request) -> str:
    """Return a command that sends a recording to the URL of the request."""
    return f"curl -F audio=@meeting.wav {request.base_url}"


def check_query(request: Request) -> None:
    """Check that the query gives each parameter at most once. Raise ``InvalidOption`` if it does not."""
    repeated = _repeated(request.args)
    if repeated:
        raise InvalidOption(f"Each query parameter may be given once; given more often: {repeated}.")


def _repeated(fields: MultiDict[str, str]) -> str:
    """Return the names of the fields that have several values, separated by commas."""
    return ", ".join(sorted(repr(name) for name, values in fields.lists() if len(values) > 1))


def check_head(request: Request) -> None:
    """Check by its headers that a request can contain a recording of an accepted size.

    Raises:
        InvalidOption: the body is not a form.
        UploadTooLarge: the declared size is too large.
    """
    if request.mimetype != "multipart/form-data":
        raise InvalidOption(
            f"The recording must come as multipart/form-data, not as {request.mimetype or 'a request without a body'}. "
            f"Send it like this: {_curl_example(request)}"
        )
    limit_bytes = runtime().settings.upload_limit_bytes
    if (request.content_length or 0) > limit_bytes + FORM_BYTES:
        raise too_large(limit_bytes)
    request.max_content_length = limit_bytes + FORM_BYTES


def check_form(request: Request, alternative: str | None = None) -> None:
    """Read the form, and check that it contains exactly one file, and each other field at most once.

    Args:
        request: a request that ``check_head`` accepted.
        alternative: a text field that may replace the file.

    Raises:
        InvalidOption: the form is not valid; the message says what to send.
        EmptyAudio: the file is empty.
        UploadTooLarge: the file is too large.
        StorageFull: the disk is full.
    """
    try:
        files = request.files
    except ValueError as error:
        raise InvalidOption(
            f"The body is not well-formed multipart/form-data ({error}). Send it like this: {_curl_example(request)}"
        ) from error
    _release_spool(request)
    if (
        alternative is None
        or any(name in files or name in request.form for name in FILE_FIELDS)
        or not _is_given(request, alternative)
    ):
        _check_recording(request, alternative)
        if alternative is not None and _is_given(request, alternative):
            raise InvalidOption(f"There are both a file and the field {alternative!r}: send one of the two.")
    misplaced = sorted(name for name in files if name not in FILE_FIELDS)
    if misplaced:
        raise InvalidOption(
            f"Only the field {_FIELD_NAMES} takes a file; found one in {', '.join(map(repr, misplaced))}."
        )
    repeated = _repeated(request.form)
    if repeated:
        raise InvalidOption(f"Each field may be given once; given more often: {repeated}.")


def _is_given(request: Request, name: str) -> bool:
    """Return whether the form or the query gives the text field."""
    return any(fields.get(name, "").strip() for fields in (request.form, request.args))


def _release_spool(request: Request) -> None:
    """Free the server's copy of the body, which would otherwise occupy the disk while the caller waits."""
    body = request.environ["wsgi.input"]
    if isinstance(body, io.BytesIO | io.BufferedRandom):
        body.truncate(0)


def _check_recording(request: Request, alternative: str | None) -> None:
    files = [file for name in FILE_FIELDS for file in request.files.getlist(name)]
    for name in FILE_FIELDS:
        if name in request.form:
            raise InvalidOption(
                f"The field {name!r} came as text, not as a file. With curl, write @ before it: "
                f"{_curl_example(request)}"
            )
    if not files:
        other = "" if alternative is None else f", and no {alternative!r} in its place"
        raise InvalidOption(
            f"There is no file in the field {_FIELD_NAMES}{other}. Send it like this: {_curl_example(request)}"
        )
    if len(files) > 1:
        raise InvalidOption(
            f"There are {len(files)} files in the field {_FIELD_NAMES}: send one recording per request."
        )
    if not files[0].filename:
        raise InvalidOption(
            f"The file in the field {files[0].name!r} has no name, so no file was chosen. Send it like this: "
            f"{_curl_example(request)}"
        )
    if received(files[0]).size_bytes == 0:
        raise EmptyAudio(
            f"The file in the field {files[0].name!r} is empty. Check that the recording was saved, and send it again."
        )


def received(file: FileStorage) -> UploadFile:
    """Return the temporary file of one of the files of the request."""
    stream = file.stream
    if not isinstance(stream, UploadFile):
        raise TypeError(f"a {type(stream).__name__} is not a received file")
    return stream


def file_name(file: FileStorage) -> str:
    """Return the name of a file of the request, as ``shown_filename`` gives it."""
    return shown_filename(file.filename or "")


def sweep(folder: Path) -> None:
    """Remove the uploads in ``folder`` that a killed service left."""
    try:
        removed = scratch.sweep(folder, datetime.now(UTC) - SWEEP_AGE, (scratch.UPLOAD_PREFIX,))
    except OSError as error:
        logger.warning("The uploads that an earlier run left in TEMP_AUDIO_DIR cannot be removed: %s", error)
    else:
        if removed:
            logger.info("Removed %d uploads that an earlier run left in TEMP_AUDIO_DIR", removed)
