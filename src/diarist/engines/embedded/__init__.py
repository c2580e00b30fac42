"""The default engine: it works after ``pip install`` alone, on the CPU and without PyTorch."""

from __future__ import annotations

from diarist.engines.embedded.diarizer import EmbeddedDiarizer
from diarist.engines.embedded.parallel import Parallelism
from diarist.engines.embedded.segmentation import Segmenter
from diarist.engines.embedded.segmentation_network import SegmentationNetwork
from diarist.engines.embedded.speaker_embedding import Embedder
from diarist.engines.embedded.whisper import WhisperRecognizer
from diarist.engines.onnx.session import open_graph
from diarist.models import ModelStore, select_recognizer
from diarist.protocols import Diarizer, Loaded, Recognizer
from diarist.settings import Settings

__all__ = ["load_diarizer", "load_recognizer"]


def load_diarizer(settings: Settings) -> Loaded[Diarizer]:
    """Load the segmentation and the embedding model from the model store.

    Raises:
        ModelError: A model is missing or damaged.
    """
    store = ModelStore.of(settings)
    names = ("segmentation-3.0", "campplus")
    segmentation, embedding = (store.locate(name) for name in names)
    parallelism = Parallelism.of(settings.threads)
    diarizer = EmbeddedDiarizer(
        Segmenter(SegmentationNetwork(segmentation, parallelism.threads), workers=parallelism.workers),
        Embedder(open_graph(embedding, parallelism.threads), workers=parallelism.workers),
    )
    return Loaded(diarizer, tuple(store.info(name) for name in names))


def load_recognizer(settings: Settings) -> Loaded[Recognizer]:
    """Load Whisper from the model store.

    Raises:
        ModelError: The model is missing or damaged.
    """
    store = ModelStore.of(settings)
    name = select_recognizer(settings).model
    folder, languages = store.locate(name), store.models[name].languages
    return Loaded(WhisperRecognizer(folder, settings.threads, languages=languages), (store.info(name),))
