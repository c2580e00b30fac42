"""Writes ``reference.npz``: what PyTorch makes of the made-up weights and of the real ones.

Run where torch is installed, with ``tests`` and ``src`` on the path:
``python tests/unit/models/write_reference.py MODEL_DIR``. Of the scores only some frames are kept, to stay small.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from diarist.models.checkpoint import read_tensors
from unit.models import weights

SAMPLES = 160_000
FRAMES = (148, 331)
EVERY = 12
"""Of the frames of scores, one in so many is kept."""


def main(models: Path) -> None:
    from unit.models import torch_networks

    real = {
        "segmentation": read_tensors(models / "segmentation-3.0" / "pytorch_model.bin"),
        "campplus": read_tensors(models / "campplus" / "campplus_cn_en_common.pt"),
    }
    made_up = {"segmentation": weights.segmentation_weights(), "campplus": weights.campplus_weights()}
    kept = {}
    for origin, tensors in (("real", real), ("made_up", made_up)):
        scores = torch_networks.segmentation(tensors["segmentation"], weights.samples(SAMPLES))
        kept[f"{origin}_scores"] = scores[:, ::EVERY]
        for frames in FRAMES:
            embedding = torch_networks.campplus(tensors["campplus"], weights.features(frames))
            kept[f"{origin}_embedding_{frames}"] = embedding
    np.savez_compressed(Path(__file__).with_name("reference.npz"), allow_pickle=False, **kept)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
