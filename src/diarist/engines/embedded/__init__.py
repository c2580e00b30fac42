"""The default engine: it works after ``pip install`` alone, without PyTorch, on the CPU or on a GPU."""

from __future__ import annotations

from diarist.engines.device import choose_here
from diarist.engines.embedded.diarizer import EmbeddedDiarizer
from diarist.engines.embedded.graph_placement import open_embedder, open_segmenter, parallelism_on
from diarist.engines.embedded.speaker_embedding import features_named
from diarist.engines.embedded.whisper import WhisperRecognizer
from diarist.models import ModelStore, select_recognizer
from diarist.models.selection import DIARIZER_MODELS, select_embedding_model
from diarist.protocols import Diarizer, Loaded, Recognizer
from diarist.settings import Settings

__all__ = ["load_diarizer", "load_recognizer"]


def load_diarizer(settings: Settings) -> Loaded[Diarizer]:
    """Load the segmentation and the embedding model of ``EMBEDDING_MODEL`` from the model store.

    Raises:
        ModelError: A model is missing or damaged, or the embedding model has other inputs or outputs than expected.
        ConfigurationError: The device or the embedding model does not exist.
        EngineUnavailable: The device cannot be used.
    """
    store = ModelStore.of(settings)
    (segmentation,) = DIARIZER_MODELS["embedded"]
    embedding = select_embedding_model(settings)
    assert embedding.features is not None
    segmentation_graph, embedding_graph = (store.locate(name) for name in (segmentation, embedding.name))
    if embedding.graph is None:  # the publisher's file is the graph
        embedding_graph /= embedding.files[0].name
    choice = choose_here(settings, "onnxruntime")
    parallelism = parallelism_on(choice.device, settings.threads)
    diarizer = EmbeddedDiarizer(
        open_segmenter(segmentation_graph, choice.device, parallelism),
        open_embedder(embedding_graph, choice.device, parallelism, features_named(embedding.features)),
    )
    infos = (store.info(segmentation), store.info(embedding.name))
    return Loaded(diarizer, infos, choice.device.name, choice.notice)


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
