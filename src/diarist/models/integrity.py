"""Checks of model files against the sizes and hashes in the catalog."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from diarist.errors import ModelCorrupt, ModelUnavailable
from diarist.models.catalog import ModelFile
from diarist.models.file_hashes import sha256_of
from diarist.system.file_replacement import replace_file

_BLOCK_BYTES = 2**20


def check_file(path: Path, size_bytes: int, sha256: str, model: str, *, always_read: bool = False) -> None:
    """Check that a file has the expected size and hash, and read it only if it has changed since it was last checked.

    Args:
        path: The file.
        size_bytes: The expected size.
        sha256: The expected hash as lower-case hexadecimal digits.
        model: The name of the model, for error messages.
        always_read: Read the file even if its hash is remembered.

    Raises:
        ModelUnavailable: If it does not exist or cannot be read.
        ModelCorrupt: If it has another size or another hash.
    """
    check_size(path, size_bytes, model)
    try:
        found = sha256_of(path, always_read=always_read)
    except OSError as error:
        raise ModelUnavailable(f"Model {model} cannot be read ({path}): {error.strerror}.") from error
    if found != sha256:
        raise ModelCorrupt(
            f"{path} of model {model} has an unexpected hash (SHA-256 {found[:12]}… instead of {sha256[:12]}…). Run"
            f" `diarist models pull {model}`."
        )


def check_size(path: Path, size_bytes: int, model: str) -> None:
    """Check that a file exists and has the expected size.

    Raises:
        ModelUnavailable: If it does not exist.
        ModelCorrupt: If it has another size.
    """
    try:
        found = path.stat().st_size
    except OSError as error:
        raise ModelUnavailable(f"Model {model} is missing ({path}): run `diarist models pull {model}`.") from error
    if found != size_bytes:
        raise ModelCorrupt(
            f"{path} of model {model} is damaged: it has {found} bytes instead of {size_bytes}. Run"
            f" `diarist models pull {model}`."
        )


def write_checked(file: ModelFile, streams: Iterator[BinaryIO], target: Path) -> None:
    """Write the concatenation of the streams to ``target`` if its size and hash are those of ``file``.

    Otherwise ``target`` does not exist afterwards. At most one byte more than the size of ``file`` is read.

    Raises:
        ModelCorrupt: If the size or the hash differs.
        OSError: If reading or writing fails.
    """
    digest = hashlib.sha256()
    remaining_bytes = file.size_bytes
    try:
        with target.open("wb") as out:
            for stream in streams:
                # Reading one byte more than is left distinguishes a stream that is too long from one that ends here.
                while remaining_bytes >= 0 and (block := stream.read(min(_BLOCK_BYTES, remaining_bytes + 1))):
                    remaining_bytes -= len(block)
                    digest.update(block)
                    out.write(block)
            out.flush()
            os.fsync(out.fileno())  # the hash must not be remembered for bytes that a power failure can still take
        _check_content(file, remaining_bytes, digest.hexdigest())
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whose name never refers to a part of the content.

    Raises:
        OSError: If writing fails.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        partial.write_bytes(content)
        replace_file(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _check_content(file: ModelFile, remaining_bytes: int, sha256: str) -> None:
    if remaining_bytes > 0:
        raise ModelCorrupt(f"{file.name} is {remaining_bytes} bytes shorter than the expected {file.size_bytes} bytes")
    if remaining_bytes < 0:
        raise ModelCorrupt(f"{file.name} is longer than the expected {file.size_bytes} bytes")
    if sha256 != file.sha256:
        raise ModelCorrupt(f"{file.name} has an unexpected SHA-256")
