"""What models there are: read from ``catalogue.toml``."""

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
    """A wheel on a package index."""

    requirement: str
    """``name==version``."""

    size_bytes: int
    python: str | None = None
    """A version of Python that there is a wheel for, where the wheel is not for any."""

    platform: str | None = None
    """A platform tag that there is a wheel for, where the wheel is not for any."""

    @property
    def distribution(self) -> str:
        return self.requirement.partition("==")[0]

    @property
    def version(self) -> str:
        return self.requirement.partition("==")[2]

    @property
    def pattern(self) -> str:
        """What the names of its files look like."""
        return f"{self.distribution.replace('-', '_')}-{self.version}-*.whl"


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a model file: one file in a wheel."""

    wheel: Wheel
    path: str


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model."""

    name: str
    size_bytes: int
    sha256: str
    parts: tuple[Part, ...]
    """In order; joined they are the file."""


@dataclass(frozen=True, slots=True)
class Model:
    """One model: what it is, whose it is, and its files."""

    name: str
    role: str
    """``segmentation``, ``embedding`` or ``recognition``."""

    licence: str
    holder: str
    """Who holds the rights to the weights."""

    origin: str
    """Address of the page that the publisher keeps of it."""

    files: tuple[ModelFile, ...]
    revision: str | None = None
    """The publisher's revision that the files are of, where one is known."""

    hub: str | None = None
    """Repository on the model hub."""

    graph: GraphName | None = None
    """The ONNX graph to build from the first file, where the file itself is not what is loaded."""

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


@cache
def catalogue() -> Mapping[str, Model]:
    """Every model by name, in the order of the file."""
    return parse(resources.files("diarist.models").joinpath("catalogue.toml").read_text(encoding="utf-8"))


def parse(text: str) -> Mapping[str, Model]:
    """The models of a catalogue in TOML (its form is described in ``catalogue.toml``).

    Raises:
        ValueError: not TOML.
        KeyError: an entry lacks a field, or names a wheel that is not there.
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


def find(name: str, models: Mapping[str, Model]) -> Model:
    """The model of that name.

    Raises:
        ModelUnavailable: there is none.
    """
    if name not in models:
        raise ModelUnavailable(f"There is no model {name!r}: there are {', '.join(models)}.")
    return models[name]


def required(settings: Settings) -> tuple[str, ...]:
    """The names of the models of the catalogue that the engine of these settings needs."""
    diarizer = ("segmentation-3.0", "campplus") if settings.diarizer_name == "embedded" else ()
    recognizer = (f"whisper-{settings.whisper_model}",) if settings.recognizer_name == "whisper" else ()
    return (*diarizer, *recognizer)
