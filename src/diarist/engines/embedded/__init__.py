"""What works straight after ``pip install``: on the CPU, without PyTorch."""

from __future__ import annotations

from diarist.engines.embedded.diarizer import EmbeddedDiarizer
from diarist.engines.embedded.parallel import Streams
from diarist.engines.embedded.segmentation import Segmenter
from diarist.engines.embedded.segmentation_network import SegmentationNetwork
from diarist.engines.embedded.speaker_embedding import Embedder
from diarist.engines.embedded.whisper import WhisperRecognizer
from diarist.engines.onnx.session import open_graph
from diarist.models import ModelStore
from diarist.protocols import Diarizer, Loaded, Recognizer
from diarist.settings import Settings

__all__ = ["load_diarizer", "load_recognizer"]


def load_diarizer(settings: Settings) -> Loaded[Diarizer]:
    """Segmentation and embeddings, from the model store.

    Raises:
        ModelError: a model is missing or damaged.
    """
    store = ModelStore.of(settings)
    names = ("segmentation-3.0", "campplus")
    segmentation, embedding = (store.locate(name) for name in names)
    streams = Streams.of(settings.threads)
    diarizer = EmbeddedDiarizer(
        Segmenter(SegmentationNetwork(segmentation, streams.threads), streams=streams.count),
        Embedder(open_graph(embedding, streams.threads), streams=streams.count),
    )
    return Loaded(diarizer, tuple(store.info(name) for name in names))


def load_recognizer(settings: Settings) -> Loaded[Recognizer]:
    """Whisper, from the model store.

    Raises:
        ModelError: it is missing or damaged.
    """
    store = ModelStore.of(settings)
    name = f"whisper-{settings.whisper_model}"
    return Loaded(WhisperRecognizer(store.locate(name), settings.threads), (store.info(name),))
