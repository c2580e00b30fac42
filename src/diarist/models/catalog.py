"""The catalog of models that Diarist can download, which is read from ``catalog.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from diarist.errors import ModelUnavailable
from diarist.languages import WHISPER_LANGUAGES, WHISPER_V3_LANGUAGES
from diarist.types import Seconds

GraphName = Literal["segmentation", "campplus", "resnet34"]

RecognizerKind = Literal["whisper", "tdt"]

WHISPER_PREFIX = "whisper-"
"""The part of the names of OpenAI's models that may be left out."""


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
class Accuracy:
    """Represents a published measurement of a model that was not made with Diarist."""

    figure: str
    source: str
    """Who states the figure."""


@dataclass(frozen=True, slots=True)
class Model:
    """Represents one model with its license, origin and files."""

    name: str
    role: str
    """``segmentation``, ``embedding``, ``plda`` or ``recognition``."""

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

    kind: RecognizerKind | None = None
    """The architecture of a recognizer: Whisper in CTranslate2's format, or a TDT model of NeMo as ONNX."""

    languages: tuple[str, ...] = ()
    """The ISO 639 codes of the languages of a recognizer."""

    quantization: Literal["int8"] | None = None
    """The precision of the weights of a TDT model; None for fp32."""

    features: str | None = None
    """The name of the input features of a TDT model, or of a speaker embedding model that ``EMBEDDING_MODEL`` may name:
    then ``3d-speaker``, ``wespeaker`` or ``nemo-80``."""

    frame_step: Seconds = 0.0
    """The time from one frame of a TDT model's output to the next."""

    derived_bytes: int = 0
    """The size of the files that Diarist computes from the downloaded ones and stores beside them."""

    memory_mb: int | None = None
    """The peak memory of a transcription on the CPU, if it was measured."""

    accuracy: tuple[Accuracy, ...] = ()
    """Published measurements."""

    tested: bool = False
    """Whether the developers of Diarist have run it with its published weights."""

    @property
    def size_bytes(self) -> int:
        """The size of the files that are downloaded."""
        return sum(file.size_bytes for file in self.files)

    @property
    def disk_bytes(self) -> int:
        """The size on disk: the downloaded files and those that Diarist computes from them."""
        return self.size_bytes + self.derived_bytes

    @property
    def derived_names(self) -> tuple[str, ...]:
        """The names of the files that Diarist computes from the downloaded ones and stores beside them."""
        if self.graph is not None:
            return ("model.onnx", "model.json")
        return ("features.npz", "diarist.json") if self.kind == "tdt" else ()


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
    shared = {entry["id"]: entry for entry in tables.get("shared_file", ())}
    wheels = {
        entry["requirement"]: Wheel(entry["requirement"], entry["bytes"], entry.get("python"), entry.get("platform"))
        for entry in tables.get("wheel", ())
    }
    return {entry["name"]: _model(entry, wheels, shared) for entry in tables["model"]}


_LANGUAGE_SETS: Mapping[str, tuple[str, ...]] = {"whisper": WHISPER_LANGUAGES, "whisper-v3": WHISPER_V3_LANGUAGES}


def _model(entry: Mapping[str, Any], wheels: Mapping[str, Wheel], shared: Mapping[str, Mapping[str, Any]]) -> Model:
    files = tuple(
        ModelFile(
            file["name"],
            file["bytes"],
            file["sha256"],
            tuple(Part(wheels[requirement], path) for requirement, path in file.get("parts", ())),
        )
        for file in (*entry["file"], *(shared[name] for name in entry.get("shared_files", ())))
    )
    languages = entry.get("languages", ())
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
        kind=entry.get("kind"),
        languages=_LANGUAGE_SETS[languages] if isinstance(languages, str) else tuple(languages),
        quantization=entry.get("quantization"),
        features=entry.get("features"),
        frame_step=entry.get("frame_step", 0.0),
        # a graph holds the tensors of the file that it is built from
        derived_bytes=entry.get("derived_bytes", files[0].size_bytes if "graph" in entry else 0),
        memory_mb=entry.get("memory_mb"),
        accuracy=tuple(Accuracy(*figure) for figure in entry.get("accuracy", ())),
        tested=entry.get("tested", False),
    )


def find_model(name: str, models: Mapping[str, Model]) -> Model:
    """Return the model with this name.

    Raises:
        ModelUnavailable: If there is none.
    """
    if name not in models:
        raise ModelUnavailable(f"There is no model {name!r}. The models are {', '.join(models)}.")
    return models[name]
