"""What does the work: models, the libraries of the engine, and the decoder."""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import wave
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from diarist.doctor.findings import LIMIT_S, Finding, error, ok, warning
from diarist.errors import ModelError
from diarist.settings import Settings
from diarist.types import SAMPLE_RATE

NEMO = ("torch", "nemo")

LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "embedded": ("onnxruntime", "kaldi_native_fbank"),
    "whisper": ("onnxruntime", "faster_whisper"),
    "onnx": ("onnxruntime", "onnx_asr", "kaldi_native_fbank"),
    "clustering": NEMO,
    "sortformer": NEMO,
    "auto": NEMO,
    "nemo": NEMO,
}
"""By the name of a diarizer or recogniser."""


def check_models(settings: Settings) -> Finding:
    """Whether the models that the settings need are there and whole: each is read."""
    from diarist.engines.onnx import exported_model
    from diarist.engines.required_models import required_models
    from diarist.models import ModelStore, required

    store = ModelStore.of(settings)
    whole, faults, unread = [], [], []
    for name in required(settings):
        try:
            store.verify(name)
            whole.append(name)
        except ModelError as fault:
            faults.append(str(fault))
    for model in required_models(settings):
        if not model.exported:
            unread.append(model.name)
            continue
        try:
            exported_model.locate(settings, model.reference, get_args(exported_model.Kind), model.named_by)
            whole.append(model.name)
        except ModelError as fault:
            faults.append(str(fault))
    if faults:
        return error(" ".join(faults))
    found = f"{', '.join(whole)}: there and whole" if whole else ""
    if unread:
        later = f"{', '.join(unread)}: NeMo's, fetched by `diarist models pull` or when the engine is loaded"
        return ok("; ".join(filter(None, (found, later))))
    return ok(found)


def check_engine(settings: Settings) -> Finding:
    """Whether the libraries of the engine can be loaded: in a process of their own, which they may take down."""
    names = tuple(dict.fromkeys(LIBRARIES[settings.diarizer_name] + LIBRARIES[settings.recognizer_name]))
    found = f"{settings.engine} (diarizer {settings.diarizer_name}, recogniser {settings.recognizer_name})"
    try:
        process = subprocess.run(
            [sys.executable, "-c", f"import {', '.join(names)}"],
            capture_output=True, text=True, errors="replace", timeout=LIMIT_S - 5, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return warning(f"{found}: its libraries are not loaded after {LIMIT_S - 5:g} s, so every start takes long")
    if process.returncode:
        said = (process.stderr.strip().splitlines() or [f"status {process.returncode}"])[-1]
        return error(f"{found}: its libraries cannot be loaded ({said}). {_advice(names)}")
    return ok(f"{found}: its libraries can be loaded")


def check_decoder(settings: Settings) -> Finding:
    """Decode a second of sound as uploads are decoded."""
    from diarist.audio import DecodeLimits, decode

    with tempfile.TemporaryDirectory(prefix="diarist-doctor-") as folder:
        path = Path(folder) / "tone.wav"
        _write_tone(path)
        (audio,) = decode(path, DecodeLimits.of(settings, Path(folder)))
    if abs(audio.duration - 1.0) > 0.01:
        return error(f"a second of sound is {audio.duration:g} s once decoded: run `pip install diarist` again")
    return ok("decodes a second of sound")


def _advice(names: tuple[str, ...]) -> str:
    if set(names) & set(NEMO):
        return "Install what NeMo needs, `pip install 'diarist[nemo]'`, or set ENGINE to embedded"
    return "Run `pip install diarist` again"


def _write_tone(path: Path) -> None:
    tone = array("h", (int(8_000 * math.sin(2 * math.pi * 440 * i / SAMPLE_RATE)) for i in range(SAMPLE_RATE)))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(tone.tobytes())
