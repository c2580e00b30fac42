"""Whether a file is the one that the catalogue names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from diarist.errors import ModelCorrupt, ModelUnavailable
from diarist.models.catalogue import ModelFile

_BLOCK_BYTES = 2**20


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_size(path: Path, size_bytes: int, model: str) -> None:
    """Look whether a file is there and as long as it should be.

    Raises:
        ModelUnavailable: it is not there.
        ModelCorrupt: it is shorter or longer.
    """
    try:
        found = path.stat().st_size
    except OSError as error:
        raise ModelUnavailable(f"Model {model} is not there ({path}): run `diarist models pull`.") from error
    if found != size_bytes:
        raise ModelCorrupt(
            f"{path} of model {model} is damaged: {found} bytes instead of {size_bytes}. Run `diarist models pull`."
        )


def check_hash(path: Path, sha256: str, model: str) -> None:
    """Look whether a file's content is what it should be.

    Raises:
        ModelUnavailable: it cannot be read.
        ModelCorrupt: it differs.
    """
    try:
        found = sha256_of(path)
    except OSError as error:
        raise ModelUnavailable(f"Model {model} cannot be read ({path}): {error.strerror}.") from error
    if found != sha256:
        raise ModelCorrupt(
            f"{path} of model {model} is not the file that it should be (SHA-256 {found[:12]}… instead of"
            f" {sha256[:12]}…). Run `diarist models pull`."
        )


def write_checked(file: ModelFile, streams: Iterator[BinaryIO], target: Path) -> None:
    """Write the streams one after the other to ``target`` if together they are ``file``; else leave nothing there.

    Reads no more than the file should have, whatever a stream holds.

    Raises:
        ModelCorrupt: they are not.
        OSError: reading or writing failed.
    """
    digest = hashlib.sha256()
    left = file.size_bytes
    try:
        with target.open("wb") as out:
            for stream in streams:
                # One byte more than is left tells a stream that is too long from one that ends here.
                while left >= 0 and (block := stream.read(min(_BLOCK_BYTES, left + 1))):
                    left -= len(block)
                    digest.update(block)
                    out.write(block)
        _refuse_other(file, left, digest.hexdigest())
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _refuse_other(file: ModelFile, left_bytes: int, sha256: str) -> None:
    if left_bytes > 0:
        raise ModelCorrupt(f"{file.name} is {left_bytes} bytes short of the {file.size_bytes} that it should have")
    if left_bytes < 0:
        raise ModelCorrupt(f"{file.name} is longer than the {file.size_bytes} bytes that it should have")
    if sha256 != file.sha256:
        raise ModelCorrupt(f"{file.name} is not the file that it should be (its SHA-256 differs)")
