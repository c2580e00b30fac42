"""The engine that works straight after ``pip install``: on the CPU, without PyTorch."""

from __future__ import annotations

from diarist.engines.embedded.diarizer import EmbeddedDiarizer
from diarist.engines.embedded.embedding import Embedder
from diarist.engines.embedded.recognizer import WhisperRecognizer
from diarist.engines.embedded.runtime import open_graph
from diarist.engines.embedded.segmentation import Segmenter
from diarist.models import ModelStore, required
from diarist.protocols import Engine
from diarist.settings import Settings

__all__ = ["load"]


def load(settings: Settings) -> Engine:
    """All three models, from the model store.

    Raises:
        ModelError: one is missing or damaged.
    """
    store = ModelStore.of(settings)
    diarizer = EmbeddedDiarizer(
        Segmenter(open_graph(store.locate("segmentation-3.0"), settings.threads)),
        Embedder(open_graph(store.locate("campplus"), settings.threads)),
    )
    recognizer = WhisperRecognizer(store.locate(f"whisper-{settings.whisper_model}"), settings.threads)
    return Engine("embedded", diarizer, recognizer, tuple(store.info(name) for name in required(settings)))
