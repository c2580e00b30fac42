"""``.nemo`` archives, looked through before anything in them is used.

A ``.nemo`` file is a tar archive (of old models compressed) with ``model_config.yaml``, ``model_weights.ckpt`` and the
files that the configuration names. It comes from elsewhere, and NeMo makes whatever objects its configuration names:
so the names of its files, their sizes, and every class that it asks for are checked here. NeMo has a check of its own;
this one comes first, does not import what it looks at, and refuses the archive instead of skipping a part of it.

Neither PyTorch nor NeMo is needed here.
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

CONFIG = "model_config.yaml"
WEIGHTS = "model_weights.ckpt"

MAX_MEMBERS = 2_000
"""A model has a handful of files, one with tokenizers of many languages some hundreds."""

MAX_CONFIG_BYTES = 16 * 2**20
"""Characters of Chinese and the labels of ten thousand speakers fill less than one megabyte."""

MAX_NODES = 1_000_000
"""Values in a configuration. YAML lets a few lines stand for billions."""

MAX_GROWTH = 50
"""Times that a compressed archive may grow: weights hardly shrink, zeros shrink a thousandfold."""

ALLOWED = (
    "nemo.collections.asr.",
    "nemo.collections.audio.",
    "nemo.collections.common.",
    "nemo.core.",
    "torch.nn.",
    "torch.optim.",
    "torchmetrics.",
)
"""What the classes that a configuration asks for begin with."""

FORMER_TARGETS = ("src.multi_classification_models.EncDecMultiClassificationModel",)
"""Classes of models published before there was a place for them in NeMo; only ever a name to us."""

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive that may be used."""

    path: Path
    config: Mapping[str, Any]
    """Of the model, interpolations not resolved. What is built from it has to be checked again when they are."""

    compressed: bool

    @property
    def class_name(self) -> str:
        """The model's class without its module, ``EncDecCTCModelBPE``; empty where it is not said."""
        return str(self.config.get("target") or "").rpartition(".")[2]


def unpack(path: Path, folder: Path) -> Archive:
    """Look through an archive and put its files into ``folder``; of one that is not compressed all but the weights.

    Args:
        path: the ``.nemo`` file.
        folder: an empty folder. Where this raises, files may be left in it.

    Raises:
        ModelUnavailable: it cannot be read, or what is in it cannot be written.
        ModelCorrupt: it is no archive of a model, is damaged, or asks for what no model needs.
    """
    try:
        with path.open("rb") as stream:
            compressed = stream.read(2) == _GZIP
        with tarfile.open(path, "r:gz" if compressed else "r:") as tar:
            found = dict(_members(tar, path))
            for name in (CONFIG, WEIGHTS):
                if name not in found:
                    raise ModelCorrupt(f"{path} is no NeMo model: there is no {name} in it.")
            for name, member in found.items():
                if compressed or name != WEIGHTS:
                    _write(tar, member, folder / name)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ModelCorrupt(f"{path} is no NeMo model, or damaged: {error}.") from error
    except OSError as error:
        raise ModelUnavailable(
            f"{path} cannot be read or unpacked into {folder}: {error.strerror or error}."
        ) from error
    return Archive(path, _read_config(folder / CONFIG, path), compressed)


@contextmanager
def open_weights(archive: Archive, folder: Path) -> Iterator[IO[bytes]]:
    """The weights as a file that can be read at any place: straight from an archive that is not compressed."""
    if archive.compressed:
        with (folder / WEIGHTS).open("rb") as stream:
            yield stream
    else:
        with tarfile.open(archive.path, "r:") as tar:
            member = next(member for name, member in _members(tar, archive.path) if name == WEIGHTS)
            weights = tar.extractfile(member)
            assert weights is not None  # a plain file, or _members had refused it
            with weights:
                yield weights


def check_targets(config: Mapping[str, Any], path: Path) -> None:
    """Refuse a configuration that asks for classes or functions other than those of models.

    Raises:
        ModelCorrupt: it does; the message names the first.
    """
    left: list[object] = [config]
    for _ in range(MAX_NODES):
        if not left:
            return
        if len(left) > MAX_NODES:
            break
        node = left.pop()
        if isinstance(node, Mapping):
            for key, value in node.items():
                if key == "trust_remote_code" and value:
                    raise ModelCorrupt(f"{path} asks to run code of others (trust_remote_code), so it is not loaded.")
                if key == "_target_" or (key in ("target", "cls") and _is_dotted(value)):
                    _check_target(value, path)
            left.extend(node.values())
        elif isinstance(node, list | tuple):
            left.extend(node)
    raise ModelCorrupt(f"{path} has a {CONFIG} that grows beyond all measure, so it is not loaded.")


def _is_dotted(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", value) is not None


def _check_target(target: object, path: Path) -> None:
    if isinstance(target, str) and "${" in target:
        return  # checked again when it is resolved
    if not isinstance(target, str) or not (target.startswith(ALLOWED) or target in FORMER_TARGETS):
        raise ModelCorrupt(
            f"{path} asks for {target!r}, which is no part of a model of NeMo, so it is not loaded. Get the file from"
            " its publisher."
        )


def _members(tar: tarfile.TarFile, path: Path) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The files of an archive by their place in it, each checked.

    Raises:
        ModelCorrupt: there is something in it that no model has.
    """
    limit_bytes = path.stat().st_size * MAX_GROWTH
    total_bytes = 0
    seen: set[str] = set()
    for count, member in enumerate(tar, start=1):
        if count > MAX_MEMBERS:
            raise ModelCorrupt(f"{path} has more than {MAX_MEMBERS} files in it, so it is not loaded.")
        place = PurePosixPath(member.name)
        name = str(place)
        if place.is_absolute() or ".." in place.parts or "\\" in name or "\0" in name:
            raise ModelCorrupt(f"{path} would write outside of its folder ({member.name!r}), so it is not loaded.")
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            raise ModelCorrupt(f"{path} has a link or a device in it ({member.name!r}), so it is not loaded.")
        total_bytes += member.size
        if total_bytes > limit_bytes or (name == CONFIG and member.size > MAX_CONFIG_BYTES):
            raise ModelCorrupt(f"{path} grows beyond all measure when it is unpacked, so it is not loaded.")
        if name in seen:
            raise ModelCorrupt(f"{path} has two files of the name {name!r} in it, so it is not loaded.")
        seen.add(name)
        yield name, member


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source = tar.extractfile(member)
    assert source is not None  # a plain file, or _members had refused it
    left = member.size
    with source, target.open("wb") as stream:
        while block := source.read(min(left, 2**20)):
            stream.write(block)
            left -= len(block)
    if left:
        raise tarfile.ReadError("it ends before it should")


def _read_config(file: Path, path: Path) -> Mapping[str, Any]:
    try:
        config = yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ModelCorrupt(f"{path} has a {CONFIG} that cannot be read: {error}.") from error
    if not isinstance(config, dict):
        raise ModelCorrupt(f"{path} has a {CONFIG} that describes no model.")
    config = config.get("model", config)  # of a checkpoint whose whole configuration was saved
    if not isinstance(config, dict):
        raise ModelCorrupt(f"{path} has a {CONFIG} that describes no model.")
    check_targets(config, path)
    return config


def parse_hashes(text: str) -> Mapping[str, str]:
    """SHA-256 by reference, from ``NEMO_SHA256``.

    Raises:
        ConfigurationError: it is not made of ``name=hash`` pairs.
    """
    hashes: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, _, digits = (part.strip() for part in pair.rpartition("="))
        if not name or not re.fullmatch("[0-9a-fA-F]{64}", digits):
            raise ConfigurationError(
                f"NEMO_SHA256: {pair!r} is no name=hash with the 64 hexadecimal digits of a SHA-256. An example:"
                f" titanet_large={'0123456789abcdef' * 4}"
            )
        if hashes.setdefault(name, digits.lower()) != digits.lower():
            raise ConfigurationError(f"NEMO_SHA256 has two hashes of {name}: leave one.")
    return hashes
