"""The model hub as a source of model files, with downloads that are resumed where they stopped.

``hf_hub_download`` of huggingface_hub starts from the beginning after an interruption (since version 2, it removes its
partial file). Therefore only the client of huggingface_hub is used here, so that its settings apply (``HF_ENDPOINT``,
``HF_TOKEN``, ``HF_HUB_OFFLINE``, proxies), and the bytes are appended to a file in MODEL_DIR that remains after an
interruption. Its storage protocol Xet is not used, because it neither resumes nor goes through mirrors.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diarist.errors import ModelCorrupt
from diarist.models.catalog import Model, ModelFile
from diarist.models.hub_errors import describe, is_hub_error, is_transport_error
from diarist.models.sources import FileRequest, RequestedFile, SourceFailure

if TYPE_CHECKING:
    from httpx2 import Response

logger = logging.getLogger(__name__)

_RETRIES = 5
"""How often a connection that breaks is tried again in a row without receiving anything."""

_RETRY_AFTER_S = 1.0
_RANGE = re.compile(r"bytes (?:\d+-\d+|\*)/(\d+)")


@dataclass(frozen=True, slots=True)
class HubSource:
    """The model hub, accessed with its own client, so that its settings (mirror, token, HF_HUB_OFFLINE) apply."""

    name: str = "model hub"
    remote: bool = True

    def needed_bytes(self, request: FileRequest) -> int:
        if request.model.hub is None:
            return 0
        return sum(
            requested.file.size_bytes - _size_of(request.partial_path(requested))
            for requested in request.missing_required()
        )

    def fetch(self, request: FileRequest) -> tuple[SourceFailure, ...]:
        missing = request.missing_required()
        if request.model.hub is None or not missing:
            return ()
        total = sum(requested.file.size_bytes for requested in missing)
        before = 0
        for requested in missing:

            def report(done_bytes: int, before: int = before) -> None:
                request.progress(request.model.name, before + done_bytes, total)

            source = f"{self.name} ({request.model.hub})"
            try:
                _download(request.model, requested, request.partial_path(requested), report)
            except ModelCorrupt as error:
                return (SourceFailure(f"{source}: rejected, {error}", corrupt=True),)
            except Exception as error:
                if not is_hub_error(error):
                    raise  # an error of the model folder, or one that the progress raised
                return (SourceFailure(f"{source}: {describe(error, request.model, requested.file)}"),)
            request.provide(requested, request.partial_path(requested))
            before += requested.file.size_bytes
        return ()


def _download(model: Model, requested: RequestedFile, partial: Path, report: Callable[[int], None]) -> None:
    """Download a file to ``partial`` completely, beginning after the bytes that are there.

    Raises:
        ModelCorrupt: If the hub has another file; ``partial`` does not exist afterwards.
        OSError: If ``partial`` cannot be written.
        Exception: If the hub or the network fails, as ``is_hub_error`` tells. ``partial`` has what was received.
    """
    file = requested.file
    partial.parent.mkdir(parents=True, exist_ok=True)
    while True:
        resumed_bytes = _size_of(partial)
        report(resumed_bytes)
        if resumed_bytes < file.size_bytes:
            _transfer(model, file, partial, report)
        with partial.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        if sha256 == file.sha256:
            return
        partial.unlink()
        if not resumed_bytes:
            raise ModelCorrupt(f"{file.name} has an unexpected SHA-256 ({sha256[:12]}… instead of {file.sha256[:12]}…)")
        # The bytes of the earlier download may be damaged, for example after a power failure.
        logger.warning("The resumed download of %s has an unexpected SHA-256; it is downloaded again", file.name)


def _transfer(model: Model, file: ModelFile, partial: Path, report: Callable[[int], None]) -> None:
    """Append the missing bytes, and connect again if the connection breaks after something was received."""
    retries = 0
    while True:
        before = _size_of(partial)
        try:
            _append(model, file, partial, report)
        except Exception as error:
            if not is_transport_error(error):
                raise
            received_bytes = _size_of(partial) - before
            retries = _RETRIES if received_bytes else retries - 1
            if retries <= 0:
                raise
            logger.warning("The download of %s was interrupted (%s); it is resumed", file.name, error)
            time.sleep(_RETRY_AFTER_S)
            report(_size_of(partial))
        else:
            return


def _append(model: Model, file: ModelFile, partial: Path, report: Callable[[int], None]) -> None:
    from huggingface_hub import constants, get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    assert model.hub is not None
    size_bytes = _size_of(partial)
    headers = {**build_hf_headers(library_name="diarist"), "Accept-Encoding": "identity"}
    if size_bytes:
        headers["Range"] = f"bytes={size_bytes}-"
    url = hf_hub_url(model.hub, file.name, revision=model.revision, endpoint=constants.ENDPOINT)
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
        total_bytes = _total_bytes(response)
        if total_bytes not in (None, file.size_bytes) and response.status_code in (200, 206, 416):
            partial.unlink(missing_ok=True)
            raise ModelCorrupt(f"{file.name} has {total_bytes} bytes instead of the expected {file.size_bytes}")
        hf_raise_for_status(response)
        with partial.open("ab", buffering=0) as out:
            if response.status_code != 206:  # the server does not resume
                size_bytes = 0
                out.truncate(0)
            for block in response.iter_bytes():
                size_bytes += len(block)
                if size_bytes > file.size_bytes:
                    break
                out.write(block)
                report(size_bytes)
            os.fsync(out.fileno())  # the hash must not be remembered for bytes that a power failure can still take
    if size_bytes != file.size_bytes:
        partial.unlink()
        problem = "longer" if size_bytes > file.size_bytes else f"{file.size_bytes - size_bytes} bytes shorter"
        raise ModelCorrupt(f"{file.name} is {problem} than the expected {file.size_bytes} bytes")


def _total_bytes(response: Response) -> int | None:
    """Return the size of the whole file, if the server tells it."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return None
    if match := _RANGE.fullmatch(response.headers.get("Content-Range", "")):
        return int(match[1])
    length = response.headers.get("Content-Length", "")
    return int(length) if response.status_code == 200 and length.isdecimal() else None


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
