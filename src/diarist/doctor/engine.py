"""Checks of the models, the libraries of the engine, and the decoder."""

from __future__ import annotations

import math
import subprocess
import sys
import wave
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from diarist.child_environment import program_environment
from diarist.doctor.findings import CHECK_TIMEOUT_S, Finding, error, ok, warning
from diarist.errors import ModelError
from diarist.scratch import DOCTOR_PREFIX, process_folder
from diarist.settings import Settings
from diarist.types import SAMPLE_RATE

NEMO = ("torch", "nemo")

LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "embedded": ("onnxruntime", "kaldi_native_fbank"),
    "community-1": ("onnxruntime", "kaldi_native_fbank"),
    "whisper": ("onnxruntime", "faster_whisper"),
    "onnx": ("onnxruntime", "onnx_asr", "kaldi_native_fbank"),
    "clustering": NEMO,
    "sortformer": NEMO,
    "auto": NEMO,
    "nemo": NEMO,
}
"""The libraries that each diarizer and recognizer needs."""


def check_models(settings: Settings) -> Finding:
    """Check that all models of the settings are present and intact, by reading them."""
    from diarist.engines.onnx.model_lookup import locate
    from diarist.engines.required_models import required_models
    from diarist.models import ModelStore, exported_model, required

    store = ModelStore.of(settings)
    intact, problems, unverified = [], [], []
    for name in required(settings):
        try:
            store.verify(name)
            intact.append(name)
        except ModelError as exc:
            problems.append(str(exc))
    for model in required_models(settings):
        if not model.exported:
            unverified.append(model.name)
            continue
        try:
            locate(settings, model.reference, get_args(exported_model.Kind), model.named_by, always_read=True)
            intact.append(model.name)
        except ModelError as exc:
            problems.append(str(exc))
    if problems:
        return error(" ".join(problems))
    summary = f"{', '.join(intact)}: present and intact" if intact else ""
    if unverified:
        nemo_models = f"{', '.join(unverified)}: NeMo models, which `diarist models pull` or loading the engine fetches"
        return ok("; ".join(filter(None, (summary, nemo_models))))
    return ok(summary)


def check_engine(settings: Settings) -> Finding:
    """Check that the libraries of the engine can be imported, in a separate process because they may crash it."""
    from diarist.models import select_recognizer
    from diarist.models.selection import recognizer_summary

    names = tuple(dict.fromkeys(LIBRARIES[settings.diarizer_name] + LIBRARIES[select_recognizer(settings).name]))
    summary = f"{settings.engine} (diarizer {settings.diarizer_name}, recognizer {recognizer_summary(settings)})"
    try:
        process = subprocess.run(
            [sys.executable, "-c", f"import {', '.join(names)}"], env=program_environment(),
            capture_output=True, text=True, errors="replace", timeout=CHECK_TIMEOUT_S - 5, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return warning(
            f"{summary}: importing its libraries takes more than {CHECK_TIMEOUT_S - 5:g} s, so every start is slow"
        )
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or [f"status {process.returncode}"])[-1]
        return error(f"{summary}: its libraries cannot be imported ({reason}). {_advice(names)}")
    return ok(f"{summary}: its libraries can be imported")


def check_decoder(settings: Settings) -> Finding:
    """Check that a second of sound can be decoded, in the same way as uploads."""
    from diarist.audio import DecodeLimits, decode

    with process_folder(DOCTOR_PREFIX) as folder:
        path = folder / "tone.wav"
        _write_tone(path)
        (audio,) = decode(path, DecodeLimits.of(settings, folder))
    if abs(audio.duration - 1.0) > 0.01:
        return error(f"a second of sound is {audio.duration:g} s long after decoding: run `pip install diarist` again")
    return ok("a second of sound can be decoded")


def _advice(names: tuple[str, ...]) -> str:
    if set(names) & set(NEMO):
        return "Install NeMo with `pip install 'diarist[nemo]'`, or set ENGINE to embedded"
    return "Run `pip install diarist` again"


def _write_tone(path: Path) -> None:
    tone = array("h", (int(8_000 * math.sin(2 * math.pi * 440 * i / SAMPLE_RATE)) for i in range(SAMPLE_RATE)))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(tone.tobytes())
