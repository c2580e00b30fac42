"""The catalog of models that Diarist can download, which is read from ``catalog.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from diarist.errors import ModelUnavailable
from diarist.settings import Settings

GraphName = Literal["segmentation", "campplus"]


@dataclass(frozen=True, slots=True)
class Wheel:
    """Represents a wheel on a package index."""

    requirement: str
    """The requirement in the form ``name==version``."""

    size_bytes: int
    python: str | None = None
    """A version of Python for which a wheel exists; None if the wheel is for any version."""

    platform: str | None = None
    """A platform tag for which a wheel exists; None if the wheel is for any platform."""

    @property
    def distribution(self) -> str:
        return self.requirement.partition("==")[0]

    @property
    def version(self) -> str:
        return self.requirement.partition("==")[2]

    @property
    def pattern(self) -> str:
        """The glob pattern of its file names."""
        return f"{self.distribution.replace('-', '_')}-{self.version}-*.whl"


@dataclass(frozen=True, slots=True)
class Part:
    """Represents a part of a model file, which is one file in a wheel."""

    wheel: Wheel
    path: str


@dataclass(frozen=True, slots=True)
class ModelFile:
    """Represents one file of a model."""

    name: str
    size_bytes: int
    sha256: str
    parts: tuple[Part, ...]
    """The parts whose concatenation is the file, in order."""


@dataclass(frozen=True, slots=True)
class Model:
    """Represents one model with its license, origin and files."""

    name: str
    role: str
    """``segmentation``, ``embedding`` or ``recognition``."""

    licence: str
    holder: str
    """The holder of the rights to the weights."""

    origin: str
    """The URL of the publisher's page."""

    files: tuple[ModelFile, ...]
    revision: str | None = None
    """The publisher's revision of the files, if it is known."""

    hub: str | None = None
    """The repository on the model hub, if there is one."""

    graph: GraphName | None = None
    """The ONNX graph to build from the first file; None if the files are loaded directly."""

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


@cache
def load_catalog() -> Mapping[str, Model]:
    """Return every model by name, in the order of ``catalog.toml``."""
    return parse_catalog(resources.files("diarist.models").joinpath("catalog.toml").read_text(encoding="utf-8"))


def parse_catalog(text: str) -> Mapping[str, Model]:
    """Parse a catalog in TOML and return its models by name; ``catalog.toml`` describes the format.

    Raises:
        ValueError: If the text is not TOML.
        KeyError: If an entry lacks a field or refers to a wheel that is not listed.
    """
    tables = tomllib.loads(text)
    wheels = {
        entry["requirement"]: Wheel(entry["requirement"], entry["bytes"], entry.get("python"), entry.get("platform"))
        for entry in tables.get("wheel", ())
    }
    return {entry["name"]: _model(entry, wheels) for entry in tables["model"]}


def _model(entry: Mapping[str, Any], wheels: Mapping[str, Wheel]) -> Model:
    files = tuple(
        ModelFile(
            file["name"],
            file["bytes"],
            file["sha256"],
            tuple(Part(wheels[requirement], path) for requirement, path in file.get("parts", ())),
        )
        for file in entry["file"]
    )
    return Model(
        name=entry["name"],
        role=entry["role"],
        licence=entry["licence"],
        holder=entry["holder"],
        origin=entry["origin"],
        files=files,
        revision=entry.get("revision"),
        hub=entry.get("hub"),
        graph=entry.get("graph"),
    )


def find_model(name: str, models: Mapping[str, Model]) -> Model:
    """Return the model with this name.

    Raises:
        ModelUnavailable: If there is none.
    """
    if name not in models:
        raise ModelUnavailable(f"There is no model {name!r}. The models are {', '.join(models)}.")
    return models[name]


def required(settings: Settings) -> tuple[str, ...]:
    """Return the names of the models in the catalog that the engine needs with these settings."""
    diarizer_models = ("segmentation-3.0", "campplus") if settings.diarizer_name == "embedded" else ()
    recognizer_models = (f"whisper-{settings.whisper_model}",) if settings.recognizer_name == "whisper" else ()
    return (*diarizer_models, *recognizer_models)
