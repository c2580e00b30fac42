"""How an upload comes in: straight to a private file on disk, counted as it is written, gone when the request is."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, cast

from flask import Request
from werkzeug.datastructures import FileStorage
from werkzeug.formparser import FormDataParser

from diarist import scratch
from diarist.api.runtime import runtime
from diarist.errors import EmptyAudio, InvalidOption, UploadTooLarge

logger = logging.getLogger(__name__)

FORM_BYTES = 2**20
"""What a request may hold beside the recording: part headers and the text fields."""

MAX_PARTS = 32
"""Parts in a form. Nine fields are known; each part with a file name costs an open file while it arrives."""

MAX_TEXT_BYTES = 512 * 2**10
"""Length of one text field. Werkzeug holds what it reads of a *file* to the same number: it takes 64 kB at a time and
may keep some of it back, so that much less would refuse recordings, depending on what is in them."""

IDEMPOTENCY_KEY = "Idempotency-Key"
"""The header of a request that is to be done once, however often it is sent."""

SWEEP_AGE = timedelta(hours=1)
"""Younger files may be another service's, which shares TEMP_AUDIO_DIR: an upload is such a file for moments only."""


class StrictFormParser(FormDataParser):
    """Says so when a form is malformed, where Werkzeug's own shows an empty form."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {"silent": False})


class UploadRequest(Request):
    """A request whose files go to TEMP_AUDIO_DIR, never to memory, and never beyond MAX_UPLOAD_MB."""

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
        upload_file = UploadFile(settings.temp_dir, settings.upload_limit_bytes, hashlib.sha256() if hashed else None)
        self._upload_files().append(upload_file)
        return cast("IO[bytes]", upload_file)

    def close(self) -> None:
        """Remove what arrived and was not taken over, also where parsing stopped half-way."""
        super().close()
        for upload_file in self._upload_files():
            upload_file.close()

    def _upload_files(self) -> list[UploadFile]:
        upload_files: list[UploadFile] = self.__dict__.setdefault("uploads", [])
        return upload_files


class UploadFile:
    """A file that is being received. Private to this user, with a name of its own making.

    ``digest`` is fed what is written, so that nobody has to read it again.

    Raises:
        UploadTooLarge: more than ``limit_bytes`` were written.
        StorageFull: the disk is full.
    """

    def __init__(self, folder: Path, limit_bytes: int, digest: hashlib._Hash | None = None) -> None:
        self._limit_bytes = limit_bytes
        self.digest = digest
        self.size_bytes = 0
        with _disk_full_errors():
            self._file, self.path = scratch.create_file(folder, scratch.UPLOAD_PREFIX)

    def write(self, data: bytes) -> int:
        self.size_bytes += len(data)
        if self.size_bytes > self._limit_bytes:
            raise too_large(self._limit_bytes)
        if self.digest is not None:
            self.digest.update(data)
        with _disk_full_errors():
            return self._file.write(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        with _disk_full_errors():
            return self._file.seek(offset, whence)

    def close(self) -> None:
        """Close and remove it; no error where it was moved away."""
        try:
            self._file.close()
        except OSError as error:
            # A full disk: what was buffered is about to be removed anyway.
            logger.warning("An upload could not be written to its end: %s", error)
        self.path.unlink(missing_ok=True)


def _disk_full_errors() -> AbstractContextManager[None]:
    return scratch.disk_full_errors("the upload was received", "TEMP_AUDIO_DIR")


def too_large(limit_bytes: int) -> UploadTooLarge:
    """The refusal of an upload above ``limit_bytes``."""
    return UploadTooLarge(
        f"The upload is larger than {limit_bytes // 2**20} MB, the most that this service takes. Send it in a "
        "compressed format such as MP3, Opus or FLAC, or in parts; whoever runs the service can raise MAX_UPLOAD_MB."
    )


def _curl_example(request: Request) -> str:
    """How to send a recording to the address that was called."""
    return f"curl -F audio=@meeting.wav {request.base_url}"


def check_head(request: Request) -> None:
    """Refuse by its headers a request that cannot hold a recording of an accepted size.

    Raises:
        InvalidOption: it holds no form.
        UploadTooLarge: it declares too many bytes.
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


def check_form(request: Request, names: Sequence[str] = ("audio",), alternative: str | None = None) -> None:
    """Read the form; refuse one that does not hold exactly one file and each other field at most once.

    Args:
        request: one that ``check_head`` has let pass.
        names: fields that the file may come in.
        alternative: a text field that may stand in its place.

    Raises:
        InvalidOption: what is wrong with the form, and what to send.
        EmptyAudio: the file has no bytes.
        UploadTooLarge: it has too many.
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
        or any(name in files or name in request.form for name in names)
        or not _is_given(request, alternative)
    ):
        _check_recording(request, names, alternative)
        if alternative is not None and _is_given(request, alternative):
            raise InvalidOption(f"There is a file and the field {alternative!r} too: send one of the two.")
    misplaced = sorted(name for name in files if name not in names)
    if misplaced:
        file_fields = " or ".join(map(repr, names))
        raise InvalidOption(
            f"Only the field {file_fields} takes a file; found one in {', '.join(map(repr, misplaced))}."
        )
    repeated = sorted(name for name, values in request.form.lists() if len(values) > 1)
    if repeated:
        raise InvalidOption(f"Each field may be given once; given more often: {', '.join(map(repr, repeated))}.")


def _is_given(request: Request, name: str) -> bool:
    return bool(request.form.get(name, "").strip())


def _release_spool(request: Request) -> None:
    """Free what the server holds of the body: it would lie on the disk twice for as long as the caller waits."""
    body = request.environ["wsgi.input"]
    if isinstance(body, io.BytesIO | io.BufferedRandom):
        body.truncate(0)


def _check_recording(request: Request, names: Sequence[str], alternative: str | None) -> None:
    files = [file for name in names for file in request.files.getlist(name)]
    field = names[0]
    for name in names:
        if name in request.form:
            raise InvalidOption(
                f"The field {name!r} came as text, not as a file. With curl, write @ before it: "
                f"{_curl_example(request)}"
            )
    field_names = " or ".join(map(repr, names))
    if not files:
        other = "" if alternative is None else f", and no {alternative!r} in its place"
        raise InvalidOption(
            f"There is no file in the field {field_names}{other}. Send it like this: {_curl_example(request)}"
        )
    if len(files) > 1:
        raise InvalidOption(f"There are {len(files)} files in the field {field_names}: send one recording a request.")
    if not files[0].filename:
        raise InvalidOption(
            f"The file in the field {field!r} has no name: none was chosen. Send it like this: {_curl_example(request)}"
        )
    if received(files[0]).size_bytes == 0:
        raise EmptyAudio(
            f"The file in the field {field!r} has no bytes. Check that the recording was saved; send it again."
        )


def received(file: FileStorage) -> UploadFile:
    """The file on disk behind one of the request's files."""
    stream = file.stream
    if not isinstance(stream, UploadFile):
        raise TypeError(f"a {type(stream).__name__} is no received file")
    return stream


def sweep(folder: Path) -> None:
    """Remove the uploads that a service which was killed has left in ``folder``."""
    try:
        removed = scratch.sweep(folder, datetime.now(UTC) - SWEEP_AGE, (scratch.UPLOAD_PREFIX,))
    except OSError as error:
        logger.warning("The uploads that an earlier run left in TEMP_AUDIO_DIR cannot be removed: %s", error)
    else:
        if removed:
            logger.info("Removed %d uploads that an earlier run left in TEMP_AUDIO_DIR", removed)
