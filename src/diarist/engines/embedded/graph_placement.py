"""The placement of a diarizer's ONNX graphs: their device, and how many windows are processed at once."""

from __future__ import annotations

from pathlib import Path

from diarist.engines.device import Device
from diarist.engines.embedded.parallel import Parallelism
from diarist.engines.embedded.segmentation import Segmenter
from diarist.engines.embedded.segmentation_network import SegmentationNetwork
from diarist.engines.embedded.speaker_embedding import THREE_D_SPEAKER, Embedder, FilterbankSettings
from diarist.engines.onnx.mel_features import MelFeatures
from diarist.engines.onnx.session import open_graph
from diarist.errors import ModelCorrupt

SEGMENTER_GPU_BATCH = 32
EMBEDDER_GPU_BATCH = 64
"""The number of windows per batch on a GPU. Both need less than 1 GB; they have not been measured on one."""


def parallelism_on(device: Device, threads: int) -> Parallelism:
    """Divide the threads: a GPU works on one batch at a time, and only large ones keep it busy."""
    return Parallelism(1, threads) if device.kind == "cuda" else Parallelism.of(threads)


def open_segmenter(graph: Path, device: Device, parallelism: Parallelism) -> Segmenter:
    """Open a segmentation model. Raises EngineUnavailable if it does not fit the memory of the device."""
    network = SegmentationNetwork(graph, parallelism.threads, device)
    batch = {"batch": SEGMENTER_GPU_BATCH} if device.kind == "cuda" else {}
    return Segmenter(network, workers=parallelism.workers, device=device.name, **batch)


def open_embedder(
    graph: Path, device: Device, parallelism: Parallelism, features: FilterbankSettings | MelFeatures = THREE_D_SPEAKER
) -> Embedder:
    """Open a model of speaker embeddings.

    Raises:
        EngineUnavailable: It does not fit the memory of the device.
        ModelCorrupt: It has other inputs or outputs than a model of speaker embeddings.
    """
    session = open_graph(graph, parallelism.threads, device)
    batch = {"batch": EMBEDDER_GPU_BATCH} if device.kind == "cuda" else {}
    try:
        return Embedder(session, workers=parallelism.workers, device=device.name, features=features, **batch)
    except ValueError as error:
        raise ModelCorrupt(f"{graph} cannot be used as a model of speaker embeddings: {error}.") from error
