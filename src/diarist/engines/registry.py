"""The diarizers and recognizers by the name that the settings use. Adding one takes a row in these tables.

Any diarizer can be combined with any recognizer: ``ENGINE`` selects a default pair, and ``DIARIZER`` and
``RECOGNIZER`` override either of them.
"""

from __future__ import annotations

import logging
import pkgutil
from collections.abc import Mapping
from typing import Any

from diarist.errors import EngineUnavailable
from diarist.inference_environment import set_defaults
from diarist.models import select_recognizer
from diarist.protocols import Diarizer, Engine, Loaded, Recognizer
from diarist.settings import Settings

logger = logging.getLogger(__name__)

NEMO_LIBRARIES = ("torch", "nemo", "omegaconf", "lightning", "sentencepiece")

DIARIZERS: Mapping[str, str] = {
    "embedded": "diarist.engines.embedded:load_diarizer",
    "community-1": "diarist.engines.embedded.vbx_diarizer:load",
    "clustering": "diarist.engines.nemo.clustering:load",
    "sortformer": "diarist.engines.nemo.sortformer:load",
    "auto": "diarist.engines.nemo.auto_diarizer:load",
    "onnx": "diarist.engines.onnx.diarizer:load",
}
"""Import paths (``module:function``) of functions that take ``Settings`` and return ``Loaded[Diarizer]``.

A module is imported when its diarizer is chosen, because it imports large libraries.
"""

RECOGNIZERS: Mapping[str, str] = {
    "whisper": "diarist.engines.embedded:load_recognizer",
    "nemo": "diarist.engines.nemo.recognizer:load",
    "onnx": "diarist.engines.onnx.recognizer:load",
}
"""Import paths of functions that take ``Settings`` and return ``Loaded[Recognizer]``."""


def load_engine(settings: Settings) -> Engine:
    """Load the configured engine. Models that are missing are downloaded where the settings allow it.

    Raises:
        ModelError: A model is missing, damaged, or of the wrong kind.
        ConfigurationError: A configuration file cannot be used.
        EngineUnavailable: The engine's libraries cannot be used on this machine.
    """
    diarizer = load_diarizer(settings.diarizer_name, settings)
    recognizer = load_recognizer(select_recognizer(settings).name, settings)
    device = next((part.device for part in (diarizer, recognizer) if part.device != "cpu"), "cpu")
    models = tuple(dict.fromkeys((*diarizer.models, *recognizer.models)))
    notices = tuple(dict.fromkeys(part.notice for part in (diarizer, recognizer) if part.notice))
    for notice in notices:
        logger.warning(notice)
    logger.info("The diarizer runs on %s and the recognizer on %s", diarizer.device, recognizer.device)
    return Engine(settings.engine, diarizer.part, recognizer.part, models, device, notices)


def load_diarizer(name: str, settings: Settings) -> Loaded[Diarizer]:
    """Load a diarizer of ``DIARIZERS``. Raises the same errors as ``load_engine``."""
    diarizer: Loaded[Diarizer] = _load("diarizer", name, DIARIZERS[name], settings)
    return diarizer


def load_recognizer(name: str, settings: Settings) -> Loaded[Recognizer]:
    """Load a recognizer of ``RECOGNIZERS``. Raises the same errors as ``load_engine``."""
    recognizer: Loaded[Recognizer] = _load("recognizer", name, RECOGNIZERS[name], settings)
    return recognizer


def _load(kind: str, name: str, import_path: str, settings: Settings) -> Any:
    set_defaults()
    try:
        return pkgutil.resolve_name(import_path)(settings)
    except ImportError as error:
        advice = (
            "Install the libraries that NeMo needs with `pip install 'diarist[nemo]'` (docs/nemo.md says which PyTorch)"
            f", or set {kind.upper()} to another one."
            if (error.name or "").partition(".")[0] in NEMO_LIBRARIES
            else "Run `pip install diarist` again."
        )
        raise EngineUnavailable(f"The {kind} {name} cannot be loaded: {error}. {advice}") from error
