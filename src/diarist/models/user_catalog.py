"""The catalog of the settings: the models of Diarist, and those that the operator adds in ``MODEL_CATALOG``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

from diarist.errors import ConfigurationError
from diarist.models.catalog import WHISPER_PREFIX, Model, RecognizerKind, load_catalog, parse_catalog
from diarist.models.exported_model import FOLDER
from diarist.models.tdt_description import FEATURES
from diarist.settings import Settings

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def catalog_of(settings: Settings) -> Mapping[str, Model]:
    """Return all models by name, those of ``MODEL_CATALOG`` last.

    Raises:
        ConfigurationError: ``MODEL_CATALOG`` cannot be read or has an entry that cannot be used.
    """
    built_in = load_catalog()
    path = settings.model_catalog
    return built_in if path is None else {**built_in, **_read(path, built_in)}


def _read(path: Path, built_in: Mapping[str, Model]) -> Mapping[str, Model]:
    try:
        models = parse_catalog(path.read_text(encoding="utf-8"))
        problems = [f"{name}: {problem}" for name, model in models.items() for problem in _problems(model, built_in)]
    except OSError as error:
        raise ConfigurationError(
            f"MODEL_CATALOG: {path} cannot be read ({error.strerror}). Check the path and its permissions."
        ) from error
    except KeyError as error:
        raise ConfigurationError(f"MODEL_CATALOG: {path} cannot be used: {error} is missing in it.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"MODEL_CATALOG: {path} cannot be used ({error}).") from error
    if problems:
        raise ConfigurationError(f"MODEL_CATALOG: {path} cannot be used: {'; '.join(problems)}.")
    return models


def _problems(model: Model, built_in: Mapping[str, Model]) -> Iterator[str]:
    if model.name in built_in or WHISPER_PREFIX + model.name in built_in:
        yield "Diarist has a model of this name"
    if model.name == FOLDER:
        yield "this is the folder of exported models, choose another name"
    if not _PLAIN_NAME.fullmatch(model.name):
        yield "a name has letters, digits, dots, hyphens and underscores"
    if model.role != "recognition" or model.kind not in get_args(RecognizerKind):
        yield f"role must be recognition, and kind one of {', '.join(get_args(RecognizerKind))}"
    if model.graph is not None:
        yield "Diarist builds no graph for it"
    if model.kind == "tdt":
        yield from _tdt_problems(model)
    for file in model.files:
        if not _PLAIN_NAME.fullmatch(file.name) or file.name in model.derived_names:
            yield f"{file.name!r} cannot be the name of a file"
        if not _SHA256.fullmatch(file.sha256) or file.size_bytes <= 0:
            yield f"{file.name} needs its size in bytes and its SHA-256"


def _tdt_problems(model: Model) -> Iterator[str]:
    if model.features not in FEATURES or model.frame_step <= 0:
        yield f"features must be one of {', '.join(FEATURES)}, and frame_step more than 0"
    if model.quantization not in (None, "int8"):
        yield "quantization must be int8, if it is given"
    suffix = f".{model.quantization}.onnx" if model.quantization else ".onnx"
    needed = (f"encoder-model{suffix}", f"decoder_joint-model{suffix}", "vocab.txt", "config.json")
    if missing := [name for name in needed if name not in {file.name for file in model.files}]:
        yield f"it has no file {' and '.join(missing)}"
