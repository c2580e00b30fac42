"""Measure the speed and the memory usage of NeMo models on this machine: ``python benchmarks/gpu.py``.

The models have the published architectures and random weights, so nothing has to be downloaded; the arithmetic is the
same. Their output is meaningless. Only the decoder's share of the time depends on it, since a real transcript has a
different number of words. See ``gpu.md``.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from diarist.engines import registry
from diarist.protocols import Diarizer, Recognizer
from diarist.settings import Settings, load_settings
from diarist.types import SAMPLE_RATE, Audio, Span, SpeakerHints, Stage
from support import nemo_configuration
from support import random_nemo_models as architectures

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
SIZES = {
    "full": (
        architectures.PARAKEET_06B,
        architectures.SORTFORMER_4SPK,
        architectures.MARBLENET,
        architectures.TITANET_LARGE,
    ),
    "tiny": (architectures.TINY,) * 4,
}


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement."""

    part: str
    minutes: float
    batch: int
    seconds: float
    peak_mb: int
    """The peak of the GPU's memory in megabytes (2^20 bytes).

    Without a GPU, it is the peak of the process's memory, which never decreases from one run to the next.
    """

    @property
    def speed(self) -> float:
        """The seconds of audio that are processed per second."""
        return self.minutes * 60 / self.seconds


def speech_like_noise(minutes: float, seed: int = 0) -> Audio:
    """Return noise whose level rises and falls like that of speech, with a pause every seven seconds."""
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal(round(minutes * 60 * SAMPLE_RATE)).astype(np.float32)
    at = np.arange(len(samples), dtype=np.float32) / SAMPLE_RATE
    samples *= 0.1 * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * at)) * (np.mod(at, 7.0) < 6.2)
    return Audio(samples.clip(-1, 1))


def speech_spans(audio: Audio) -> tuple[Span, ...]:
    """Return the spans in which the audio of ``speech_like_noise`` is not silent."""
    starts = np.arange(0.0, audio.duration, 7.0)
    return tuple(Span(float(start), min(float(start) + 6.2, audio.duration)) for start in starts)


def build(folder: Path, size: str) -> dict[str, object]:
    """Save the models and a configuration that names them, and return the settings that load them."""
    recognizer, sortformer, frame_vad, speaker = SIZES[size]
    made: dict[str, Callable[[], object]] = {
        "tdt": lambda: architectures.tdt(folder / "tokenizer", recognizer),
        "sortformer": lambda: architectures.sortformer(sortformer),
        "vad": lambda: architectures.frame_vad(frame_vad),
        "speaker": lambda: architectures.speaker(speaker),
    }
    for name, make in made.items():
        make().save_to(str(folder / f"{name}.nemo"))  # type: ignore[attr-defined]
        gc.collect()
    asr, vad, speaker_model = (folder / f"{name}.nemo" for name in ("tdt", "vad", "speaker"))
    # With these thresholds, the VAD classifies all audio as speech, so that there are embeddings to compute.
    configs = nemo_configuration.write(folder / "conf", asr=asr, vad=vad, speaker=speaker_model, onset=0.0, offset=0.0)
    return {
        "engine": "nemo",
        "sortformer_model": str(folder / "sortformer.nemo"),
        "model_config_dir": configs,
    }


def measure(part: str, minutes: float, batch: int, work: Callable[[], object]) -> Run:
    """Call ``work`` twice, and measure the second call; the first one is the warm-up."""
    import torch

    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    peak = (
        torch.cuda.max_memory_allocated() if torch.cuda.is_available()
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )  # fmt: skip
    return Run(part, minutes, batch, seconds, peak // 2**20)


def load_recognizer(settings: Settings) -> Recognizer:
    return registry.load_recognizer("nemo", settings).part


def load_diarizer(name: str, settings: Settings) -> Diarizer:
    return registry.load_diarizer(name, settings).part


def ignore_progress(_stage: Stage, _done: float) -> None:
    """Ignore a progress report."""


def recognition(options: dict[str, object], minutes: float, batches: Sequence[int]) -> list[Run]:
    """Measure recognition at each batch size until a larger batch is no longer faster."""
    audio = speech_like_noise(minutes)
    runs: list[Run] = []
    for batch in batches:
        recognizer = load_recognizer(load_settings(**options, nemo_batch=batch))
        runs.append(
            measure(
                "recognition",
                minutes,
                batch,
                partial(recognizer.recognize, audio, speech_spans(audio), None, ignore_progress),
            )
        )
        print_run(runs[-1])
        del recognizer
        gc.collect()
        if len(runs) > 1 and runs[-1].speed < 1.03 * runs[-2].speed:
            break
    return runs


def diarization(name: str, options: dict[str, object], lengths: Sequence[float], batch: int) -> list[Run]:
    diarizer = load_diarizer(name, load_settings(**options, nemo_batch=batch))
    runs: list[Run] = []
    for minutes in lengths:
        audio = speech_like_noise(minutes)
        runs.append(measure(name, minutes, batch, partial(diarizer.diarize, audio, SpeakerHints(), ignore_progress)))
        print_run(runs[-1])
    return runs


def print_run(run: Run) -> None:
    print(
        f"{run.part:12} {run.minutes:6.1f} min  batch {run.batch or 'auto':>4}  {run.seconds:8.2f} s"
        f"  {run.speed:8.1f} x real time  {run.peak_mb:7d} MB",
        flush=True,
    )


def machine() -> dict[str, str]:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"processor": platform.processor() or platform.machine(), "gpu": gpu, "torch": torch.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--size", choices=SIZES, default="full", help="size of the models; tiny is for testing this script"
    )
    parser.add_argument("--minutes", default="1,10,60", help="lengths of the recordings, comma-separated")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)), help="batch sizes, comma-separated")
    parser.add_argument("--parts", default="recognition,sortformer,clustering", help="parts to measure")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    arguments = parser.parse_args()
    lengths = [float(word) for word in arguments.minutes.split(",")]
    batches = [int(word) for word in arguments.batches.split(",")]
    parts = arguments.parts.split(",")
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as folder:
        print(f"Building models ({arguments.size})", file=sys.stderr)
        options = build(Path(folder), arguments.size)
        print(machine())
        if "recognition" in parts:
            runs += recognition(options, lengths[min(1, len(lengths) - 1)], batches)
            best = max(runs, key=lambda run: run.speed).batch
            for minutes in lengths:
                runs += recognition(options, minutes, [best])
        for name in ("sortformer", "clustering"):
            if name in parts:
                for batch in (1, 0):
                    runs += diarization(name, options, lengths, batch)
    if arguments.json:
        found = {"machine": machine(), "size": arguments.size, "runs": [asdict(run) for run in runs]}
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
