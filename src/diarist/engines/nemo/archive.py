"""Validation and extraction of ``.nemo`` archives, before anything in them is used.

A ``.nemo`` file is a tar archive (compressed for old models) with ``model_config.yaml``, ``model_weights.ckpt`` and the
files that the configuration refers to. The file comes from an untrusted source, and NeMo instantiates whatever classes
the configuration names. This module therefore checks the names and sizes of the archive's files and every class that
the configuration requests. NeMo has a check of its own; this one runs first, does not import the classes that it
checks, and rejects the whole archive instead of skipping a part of it.

This module needs neither PyTorch nor NeMo.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import yaml

from diarist.errors import ConfigurationError, ModelCorrupt, ModelUnavailable

CONFIG_FILE = "model_config.yaml"
WEIGHTS_FILE = "model_weights.ckpt"

MAX_MEMBERS = 2_000
"""Most models have fewer than ten files; a model with tokenizers for many languages has a few hundred."""

MAX_CONFIG_BYTES = 16 * 2**20
"""A vocabulary of Chinese characters and the labels of ten thousand speakers take less than one megabyte."""

MAX_CONFIG_VALUES = 1_000_000
"""The maximum number of values in a configuration. YAML aliases let a few lines expand to billions of values."""

MAX_EXPANSION_RATIO = 50
"""The maximum ratio of extracted size to archive size. Weights hardly compress; zeros compress a thousandfold."""

ALLOWED_TARGET_PREFIXES = (
    "nemo.collections.asr.",
    "nemo.collections.audio.",
    "nemo.collections.common.",
    "nemo.core.",
    "torch.nn.",
    "torch.optim.",
    "torchmetrics.",
)
"""The allowed prefixes of the classes that a configuration requests."""

LEGACY_TARGETS = ("src.multi_classification_models.EncDecMultiClassificationModel",)
"""Classes of models that were published before NeMo contained the class. Diarist uses them only as names."""

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Archive:
    """Represents an archive that has passed the checks."""

    path: Path
    config: Mapping[str, Any]
    """The model's configuration with unresolved interpolations. It must be checked again once they are resolved."""

    compressed: bool

    @property
    def class_name(self) -> str:
        """The model's class without its module, such as ``EncDecCTCModelBPE``; empty if the configuration has none."""
        return str(self.config.get("target") or "").rpartition(".")[2]


def unpack(path: Path, folder: Path) -> Archive:
    """Check an archive and extract its files into ``folder``.

    The weights of an uncompressed archive are not extracted.

    Args:
        path: The ``.nemo`` file.
        folder: An empty folder. If this function raises, files may be left in it.

    Raises:
        ModelUnavailable: If the archive cannot be read or its files cannot be written.
        ModelCorrupt: If the file is not a model archive, is damaged, or requests something that no model needs.
    """
    try:
        with path.open("rb") as stream:
            compressed = stream.read(2) == _GZIP
        with tarfile.open(path, "r:gz" if compressed else "r:") as tar:
            members = dict(_members(tar, path))
            for name in (CONFIG_FILE, WEIGHTS_FILE):
                if name not in members:
                    raise ModelCorrupt(f"{path} is not a NeMo model: it contains no {name}.")
            for name, member in members.items():
                if compressed or name != WEIGHTS_FILE:
                    _write(tar, member, folder / name)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ModelCorrupt(f"{path} is not a NeMo model, or it is damaged: {error}.") from error
    except OSError as error:
        raise ModelUnavailable(
            f"{path} cannot be read or unpacked into {folder}: {error.strerror or error}."
        ) from error
    return Archive(path, _read_config(folder / CONFIG_FILE, path), compressed)


@contextmanager
def open_weights(archive: Archive, folder: Path) -> Iterator[IO[bytes]]:
    """Open the weights as a seekable file, directly in the archive if the archive is not compressed."""
    if archive.compressed:
        with (folder / WEIGHTS_FILE).open("rb") as stream:
            yield stream
    else:
        with tarfile.open(archive.path, "r:") as tar:
            member = next(member for name, member in _members(tar, archive.path) if name == WEIGHTS_FILE)
            weights = tar.extractfile(member)
            assert weights is not None  # _members raises for anything but a regular file
            with weights:
                yield weights


def check_targets(config: Mapping[str, Any], path: Path) -> None:
    """Raise ModelCorrupt if a configuration requests classes or functions that no model uses.

    Raises:
        ModelCorrupt: If it does. The message names the first such class or function.
    """
    pending: list[object] = [config]
    for _ in range(MAX_CONFIG_VALUES):
        if not pending:
            return
        if len(pending) > MAX_CONFIG_VALUES:
            break
        node = pending.pop()
        if isinstance(node, Mapping):
            for key, value in node.items():
                if key == "trust_remote_code" and value:
                    raise ModelCorrupt(f"{path} requests to run remote code (trust_remote_code), so it is not loaded.")
                if key == "_target_" or (key in ("target", "cls") and _is_qualified_name(value)):
                    _check_target(value, path)
            pending.extend(node.values())
        elif isinstance(node, list | tuple):
            pending.extend(node)
    raise ModelCorrupt(f"{path} has a {CONFIG_FILE} with more than {MAX_CONFIG_VALUES} values, so it is not loaded.")


def _is_qualified_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", value) is not None


def _check_target(target: object, path: Path) -> None:
    if isinstance(target, str) and "${" in target:
        return  # check_targets runs again once interpolations are resolved
    if not isinstance(target, str) or not (target.startswith(ALLOWED_TARGET_PREFIXES) or target in LEGACY_TARGETS):
        raise ModelCorrupt(
            f"{path} requests {target!r}, which is not part of a NeMo model, so it is not loaded. Get the file from its"
            " publisher."
        )


def _members(tar: tarfile.TarFile, path: Path) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Yield the path and the entry of each file in an archive, after checking it.

    Raises:
        ModelCorrupt: If the archive contains something that no model contains.
    """
    limit_bytes = path.stat().st_size * MAX_EXPANSION_RATIO
    total_bytes = 0
    seen: set[str] = set()
    for count, member in enumerate(tar, start=1):
        if count > MAX_MEMBERS:
            raise ModelCorrupt(f"{path} contains more than {MAX_MEMBERS} files, so it is not loaded.")
        member_path = PurePosixPath(member.name)
        name = str(member_path)
        if member_path.is_absolute() or ".." in member_path.parts or "\\" in name or "\0" in name:
            raise ModelCorrupt(f"{path} would write outside its folder ({member.name!r}), so it is not loaded.")
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            raise ModelCorrupt(f"{path} contains a link or a device ({member.name!r}), so it is not loaded.")
        total_bytes += member.size
        if total_bytes > limit_bytes or (name == CONFIG_FILE and member.size > MAX_CONFIG_BYTES):
            raise ModelCorrupt(f"{path} is too large when it is extracted, so it is not loaded.")
        if name in seen:
            raise ModelCorrupt(f"{path} contains two files named {name!r}, so it is not loaded.")
        seen.add(name)
        yield name, member


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source = tar.extractfile(member)
    assert source is not None  # _members raises for anything but a regular file
    remaining_bytes = member.size
    with source, target.open("wb") as stream:
        while block := source.read(min(remaining_bytes, 2**20)):
            stream.write(block)
            remaining_bytes -= len(block)
    if remaining_bytes:
        raise tarfile.ReadError("unexpected end of file")


def _read_config(file: Path, path: Path) -> Mapping[str, Any]:
    try:
        config = yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ModelCorrupt(f"{path} has a {CONFIG_FILE} that cannot be read: {error}.") from error
    if not isinstance(config, dict):
        raise ModelCorrupt(f"{path} has a {CONFIG_FILE} that does not describe a model.")
    config = config.get("model", config)  # some checkpoints were saved with the whole training configuration
    if not isinstance(config, dict):
        raise ModelCorrupt(f"{path} has a {CONFIG_FILE} that does not describe a model.")
    check_targets(config, path)
    return config


def parse_hashes(text: str) -> Mapping[str, str]:
    """Parse ``NEMO_SHA256`` and return the SHA-256 for each model reference.

    Raises:
        ConfigurationError: If the text is not a comma-separated list of ``name=hash`` pairs.
    """
    hashes: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, _, digits = (part.strip() for part in pair.rpartition("="))
        if not name or not re.fullmatch("[0-9a-fA-F]{64}", digits):
            raise ConfigurationError(
                f"NEMO_SHA256: {pair!r} is not a name=hash pair with the 64 hexadecimal digits of a SHA-256. An"
                f" example: titanet_large={'0123456789abcdef' * 4}"
            )
        if hashes.setdefault(name, digits.lower()) != digits.lower():
            raise ConfigurationError(f"NEMO_SHA256 has two different hashes for {name}: keep one of them.")
    return hashes
