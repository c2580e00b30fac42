"""The default engine: it works after ``pip install`` alone, without PyTorch, on the CPU or on a GPU."""

from __future__ import annotations

from diarist.engines.device import choose_here
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

SEGMENTER_GPU_BATCH = 32
EMBEDDER_GPU_BATCH = 64
"""The number of windows per batch on a GPU. Both need less than 1 GB; they have not been measured on one."""


def load_diarizer(settings: Settings) -> Loaded[Diarizer]:
    """Load the segmentation and the embedding model from the model store.

    Raises:
        ModelError: A model is missing or damaged.
        ConfigurationError: The device does not exist.
        EngineUnavailable: The device cannot be used.
    """
    store = ModelStore.of(settings)
    names = ("segmentation-3.0", "campplus")
    segmentation, embedding = (store.locate(name) for name in names)
    choice = choose_here(settings, "onnxruntime")
    device = choice.device
    on_gpu = device.kind == "cuda"
    # A GPU works on one batch at a time, and only large ones keep it busy.
    parallelism = Parallelism(1, settings.threads) if on_gpu else Parallelism.of(settings.threads)
    segmenter_batch = {"batch": SEGMENTER_GPU_BATCH} if on_gpu else {}
    embedder_batch = {"batch": EMBEDDER_GPU_BATCH} if on_gpu else {}
    network = SegmentationNetwork(segmentation, parallelism.threads, device)
    embedding_graph = open_graph(embedding, parallelism.threads, device)
    diarizer = EmbeddedDiarizer(
        Segmenter(network, workers=parallelism.workers, device=device.name, **segmenter_batch),
        Embedder(embedding_graph, workers=parallelism.workers, device=device.name, **embedder_batch),
    )
    return Loaded(diarizer, tuple(store.info(name) for name in names), device.name, choice.notice)


def load_recognizer(settings: Settings) -> Loaded[Recognizer]:
    """Load Whisper from the model store.

    Raises:
        ModelError: The model is missing or damaged.
        ConfigurationError: The device does not exist.
        EngineUnavailable: The device cannot be used, or its memory is too small.
    """
    store = ModelStore.of(settings)
    name = select_recognizer(settings).model
    folder, languages = store.locate(name), store.models[name].languages
    choice = choose_here(settings, "ctranslate2")
    recognizer = WhisperRecognizer(folder, settings.threads, languages=languages, device=choice.device)
    return Loaded(recognizer, (store.info(name),), choice.device.name, choice.notice)
