"""The cache of ONNX graphs, which are built once and stored beside the checkpoints from which they are built."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from diarist.errors import ModelCorrupt
from diarist.models.catalog import GraphName, Model
from diarist.models.integrity import write_atomically

BUILDER_VERSION = 1
"""The version of the builders. It is increased whenever their output changes, so that older graphs are rebuilt."""

GRAPH_FILE = "model.onnx"
MANIFEST_FILE = "model.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """Represents the manifest of a graph, which records the builder and the checkpoint from which it was built."""

    builder: int
    source_sha256: str
    graph_sha256: str
    graph_bytes: int


def current_manifest(folder: Path, model: Model) -> Manifest | None:
    """Return the manifest of the graph in ``folder``; None if there is no graph or it is out of date."""
    try:
        manifest = Manifest(**json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    is_current = manifest.builder == BUILDER_VERSION and manifest.source_sha256 == model.files[0].sha256
    return manifest if is_current and (folder / GRAPH_FILE).exists() else None


def build(folder: Path, model: Model) -> Manifest:
    """Build the graph of ``model`` from the checkpoint in ``folder``, and store it there.

    The caller must have checked the hash of the checkpoint.

    Raises:
        ModelCorrupt: If the checkpoint does not contain the tensors of that network.
        OSError: If the folder cannot be written.
    """
    if model.graph is None:
        raise ValueError(f"{model.name} has no graph to build")
    checkpoint = folder / model.files[0].name
    try:
        content = _graph(model.graph, checkpoint)
    except (KeyError, IndexError, ValueError) as error:
        if isinstance(error, ModelCorrupt):
            raise
        raise ModelCorrupt(f"{checkpoint} does not contain the tensors of {model.name}: {error}.") from error
    manifest = Manifest(BUILDER_VERSION, model.files[0].sha256, hashlib.sha256(content).hexdigest(), len(content))
    # A graph without a manifest is ignored, so a crash between the two writes leaves nothing that looks damaged.
    (folder / MANIFEST_FILE).unlink(missing_ok=True)
    write_atomically(folder / GRAPH_FILE, content)
    write_atomically(folder / MANIFEST_FILE, json.dumps(asdict(manifest), indent=2).encode() + b"\n")
    return manifest


def _graph(name: GraphName, checkpoint: Path) -> bytes:
    from diarist.models.campplus_graph import build_campplus
    from diarist.models.checkpoint import read_tensors
    from diarist.models.resnet34_graph import build_resnet34
    from diarist.models.segmentation_graph import build_segmentation

    builders = {"segmentation": build_segmentation, "campplus": build_campplus, "resnet34": build_resnet34}
    content: bytes = builders[name](read_tensors(checkpoint)).SerializeToString(deterministic=True)
    return content
