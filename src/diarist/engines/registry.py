"""What there is to choose from, by name. A new diarizer or recogniser is one row here.

A diarizer and a recogniser make an engine, whichever they are: ``ENGINE`` says which two are meant, ``DIARIZER`` and
``RECOGNIZER`` replace either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from diarist.errors import EngineUnavailable
from diarist.protocols import Diarizer, Engine, Loaded, Recognizer
from diarist.settings import Settings

T = TypeVar("T")

NEMO_LIBRARIES = ("torch", "nemo", "omegaconf", "lightning", "sentencepiece")


def _embedded_diarizer(settings: Settings) -> Loaded[Diarizer]:
    from diarist.engines.embedded import load_diarizer

    return load_diarizer(settings)


def _onnx_diarizer(settings: Settings) -> Loaded[Diarizer]:
    from diarist.engines.onnx.diarizer import load

    return load(settings)


def _clustering(settings: Settings) -> Loaded[Diarizer]:
    from diarist.engines.nemo.clustering import load

    return load(settings)


def _sortformer(settings: Settings) -> Loaded[Diarizer]:
    from diarist.engines.nemo.sortformer import load

    return load(settings)


def _auto(settings: Settings) -> Loaded[Diarizer]:
    from diarist.engines.nemo.auto_diarizer import load

    return load(settings)


def _whisper(settings: Settings) -> Loaded[Recognizer]:
    from diarist.engines.embedded import load_recognizer

    return load_recognizer(settings)


def _onnx_recognizer(settings: Settings) -> Loaded[Recognizer]:
    from diarist.engines.onnx.recognizer import load

    return load(settings)


def _nemo_recognizer(settings: Settings) -> Loaded[Recognizer]:
    from diarist.engines.nemo.recognizer import load

    return load(settings)


DIARIZERS: Mapping[str, Callable[[Settings], Loaded[Diarizer]]] = {
    "embedded": _embedded_diarizer,
    "clustering": _clustering,
    "sortformer": _sortformer,
    "auto": _auto,
    "onnx": _onnx_diarizer,
}
RECOGNIZERS: Mapping[str, Callable[[Settings], Loaded[Recognizer]]] = {
    "whisper": _whisper,
    "nemo": _nemo_recognizer,
    "onnx": _onnx_recognizer,
}
"""Each imports its libraries when it is called, not before."""


def load_engine(settings: Settings) -> Engine:
    """The configured engine, loaded from models that are there or that it fetches.

    Raises:
        ModelError: a model is missing, damaged, or not what it is taken for.
        ConfigurationError: a configuration file cannot be used.
        EngineUnavailable: its libraries cannot be used on this machine.
    """
    diarizer = _load("diarizer", DIARIZERS, settings.diarizer_name, settings)
    recognizer = _load("recognizer", RECOGNIZERS, settings.recognizer_name, settings)
    device = next((part.device for part in (diarizer, recognizer) if part.device != "cpu"), "cpu")
    models = tuple(dict.fromkeys((*diarizer.models, *recognizer.models)))
    return Engine(settings.engine, diarizer.part, recognizer.part, models, device)


def _load(kind: str, loaders: Mapping[str, Callable[[Settings], T]], name: str, settings: Settings) -> T:
    try:
        return loaders[name](settings)
    except ImportError as error:
        advice = (
            f"Install what NeMo needs, `pip install -e '.[nemo]'` (docs/nemo.md tells which PyTorch), or set"
            f" {kind.upper()} to another one."
            if (error.name or "").partition(".")[0] in NEMO_LIBRARIES
            else "Run `make setup`, or `pip install` Diarist again."
        )
        raise EngineUnavailable(f"The {kind} {name} cannot be loaded: {error}. {advice}") from error
