"""Copies of the shipped configurations that name other models, for tests and benchmarks."""

from __future__ import annotations

from pathlib import Path

import yaml

SHIPPED = Path(__file__).parents[2] / "conf"


def write(folder: Path, *, asr: Path, vad: Path, speaker: Path, onset: float, offset: float) -> Path:
    """Write the files of ``conf/`` to ``folder`` with these models and these thresholds of speech.

    The shipped thresholds are meaningless for models with random weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in SHIPPED.glob("*.yaml"):
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        if "diarizer" in config:
            diarizer = config["diarizer"]
            diarizer["vad"]["model_path"] = str(vad)
            diarizer["vad"]["parameters"] |= {"onset": onset, "offset": offset}
            diarizer["speaker_embeddings"]["model_path"] = str(speaker)
            diarizer["asr"]["model_path"] = str(asr)
        (folder / path.name).write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder
