"""Load time, memory and speed of the sizes of Whisper, with random weights in the published shapes.

    PYTHONPATH=tests python benchmarks/whisper_sizes.py RECORDING.wav --seconds 60 --sizes small,large-v3-turbo

Each size is a process of its own that loads the default diarizer and the recognizer, and transcribes the recording.
``base`` has its published weights. It runs first, and the others get the mean number of tokens that it has in a window,
since a random model would decode another number of them. No size has a second pass, whose length would depend on where
a random model aligns its words. Processor time is more reliable than wall time on a machine that does other work.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from diarist.audio import DecodeLimits, decode
from diarist.engines.embedded import load_diarizer
from diarist.engines.embedded.whisper import DecodingOptions, WhisperRecognizer
from diarist.models import ModelStore
from diarist.pipeline.sections import SECTION_SPEECH_S
from diarist.pipeline.speech import merged_speech
from diarist.settings import load_settings
from diarist.types import SAMPLE_RATE, Audio, Seconds, Span, SpeakerHints
from support import random_whisper_models as shapes

SHAPES = {
    "tiny": shapes.TINY,
    "small": shapes.SMALL,
    "medium": shapes.MEDIUM,
    "large-v3": shapes.LARGE_V3,
    "large-v3-turbo": shapes.LARGE_V3_TURBO,
    "distil-small.en": shapes.DISTIL_SMALL_EN,
    "distil-medium.en": shapes.DISTIL_MEDIUM_EN,
    "distil-large-v3.5": shapes.DISTIL_LARGE_V3,
}


WINDOW_S: Seconds = 28.8
SPEECH_S: Seconds = 26.9
"""The length of the longest windows, and of the speech in them."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one process has measured."""

    size: str
    load_s: float
    """The time that loading the recognizer takes."""

    load_cpu_s: float
    loaded_mb: int
    """The memory of the process after the models were loaded."""

    loading_peak_mb: int
    peak_mb: int
    """The peak memory of the whole process, which includes a section of a long recording."""

    recognition_s: float
    recognition_cpu_s: float
    windows: int
    tokens: float
    """The mean number of tokens in a window."""


class CountingModel:
    """Wraps CTranslate2's model and counts the tokens that it generates."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.tokens: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, *arguments: Any, **options: Any) -> Any:
        results = self._model.generate(*arguments, **options)
        self.tokens += [len(result.sequences_ids[0]) for result in results]
        return results


def peak_mb() -> int:
    """Return the peak of this program; that of ``getrusage`` includes the process that started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def measure(size: str, folder: Path, recording: Path, seconds: Seconds, threads: int) -> Figures:
    """Transcribe the first seconds of the recording in this process."""
    diarizer = load_diarizer(load_settings(engine="embedded", cpu_threads=threads)).part
    started, cpu_started = time.perf_counter(), time.process_time()
    recognizer = WhisperRecognizer(folder, threads, DecodingOptions(min_uncovered=math.inf), languages=["en"])
    load_s, load_cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    loading_peak_mb, loaded_mb = peak_mb(), psutil.Process().memory_info().rss // 2**20
    counting = CountingModel(recognizer._model.model)  # noqa: SLF001 - nothing else sees the tokens
    recognizer._model.model = counting  # noqa: SLF001
    audio = decode(recording, DecodeLimits())[0].cut(Span(0.0, seconds))
    speech = merged_speech(turn.span for turn in diarizer.diarize(audio, SpeakerHints(), lambda *_: None).turns)
    started, cpu_started = time.perf_counter(), time.process_time()
    recognizer.recognize(audio, speech, "en", lambda *_: None)
    recognition_s, recognition_cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    windows, tokens = len(counting.tokens), sum(counting.tokens) / max(len(counting.tokens), 1)
    decode_section(recognizer, audio)
    return Figures(
        size=size,
        load_s=load_s,
        load_cpu_s=load_cpu_s,
        loaded_mb=loaded_mb,
        loading_peak_mb=loading_peak_mb,
        peak_mb=peak_mb(),
        recognition_s=recognition_s,
        recognition_cpu_s=recognition_cpu_s,
        windows=windows,
        tokens=tokens,
    )


def decode_section(recognizer: WhisperRecognizer, audio: Audio) -> None:
    """Decode as many of the longest windows as there are in a section, or a full batch in each worker if that is fewer.

    All of them get the same encoder output, which does not change the memory that decoding takes.
    """
    encoded = recognizer._encode(audio, Span(0.0, WINDOW_S), WINDOW_S)  # noqa: SLF001
    recognizer._encode = lambda *_: encoded  # type: ignore[method-assign]  # noqa: SLF001
    count = min(round(SECTION_SPEECH_S / SPEECH_S), recognizer._workers * recognizer._limit.batch_size)  # noqa: SLF001
    long = Audio(np.resize(audio.samples, round(count * WINDOW_S * SAMPLE_RATE)))
    speech = tuple(Span(WINDOW_S * at + 1, WINDOW_S * at + 1 + SPEECH_S) for at in range(count))
    recognizer.recognize(long, speech, "en", lambda *_: None)


def run(size: str, folder: Path, arguments: argparse.Namespace) -> Figures:
    """Measure in a new process."""
    command = [sys.executable, __file__, str(arguments.recording), "--seconds", str(arguments.seconds)]
    command += ["--threads", str(arguments.threads), "--sizes", size, "--measure", str(folder)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Figures(**json.loads(output))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the sizes of Whisper with random weights.")
    parser.add_argument("recording", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0, help="how much of the recording is transcribed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", default=",".join(SHAPES), help="the sizes to measure after base")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        figures = measure(arguments.sizes, arguments.measure, arguments.recording, arguments.seconds, arguments.threads)
        print(json.dumps(asdict(figures)))
        return
    base = run("base", ModelStore.of(load_settings()).locate("whisper-base"), arguments)
    print(base, flush=True)
    for size in arguments.sizes.split(","):
        with tempfile.TemporaryDirectory() as folder:
            shapes.save_whisper(Path(folder), SHAPES[size], shapes.random_words(round(base.tokens) - 1))
            print(run(size, Path(folder), arguments), flush=True)


if __name__ == "__main__":
    main()
