"""Run Resemblyzer's voice encoder on the speech that Silero VAD finds, with spectral clustering.

This is the pipeline that tutorials describe. The windows are 1.6 s long, with 4 windows per second. The clustering is
that of ``spectralcluster`` with the refinements of Wang et al., "Speaker diarization with LSTM" (2018), which were
designed for this kind of embedding, and with 1 to 10 speakers.
"""

from __future__ import annotations

import time
from itertools import groupby, pairwise
from pathlib import Path

import exchange
import numpy as np
import soundfile
import torch
from resemblyzer import SpeakerEncoder
from silero_vad import get_speech_timestamps, load_silero_vad
from spectralcluster import configs

RATE = 16_000
WINDOWS_PER_S = 4
MIN_SPEECH_S = 0.4


def load(task: exchange.Task) -> exchange.Processor:
    torch.set_num_threads(task.threads)
    encoder = SpeakerEncoder("cpu", verbose=False)
    vad = load_silero_vad(onnx=False)
    clusterer = configs.icassp2018_clusterer
    clusterer.min_clusters, clusterer.max_clusters = 1, 10

    def process(recording: Path) -> exchange.RecordingResult:
        samples, rate = soundfile.read(recording, dtype="float32")
        assert rate == RATE
        at = [time.perf_counter()]
        torch.set_num_threads(1)  # as Silero's authors advise: more threads only wait for each other
        speech = [
            (span["start"], span["end"])
            for span in get_speech_timestamps(torch.from_numpy(samples), vad)
            if span["end"] - span["start"] >= MIN_SPEECH_S * RATE
        ]
        torch.set_num_threads(task.threads)
        at.append(time.perf_counter())
        embeddings: list[np.ndarray] = []
        spans: list[tuple[int, float, float]] = []
        for index, (first, last) in enumerate(speech):
            _, found, windows = encoder.embed_utterance(
                samples[first:last], return_partials=True, rate=WINDOWS_PER_S, min_coverage=0.5
            )
            embeddings.extend(found)
            # Each window represents the time around its middle.
            middles = [(first + (window.start + window.stop) / 2) / RATE for window in windows]
            half = 1 / (2 * WINDOWS_PER_S)
            ends = [first / RATE, *(middle + half for middle in middles[:-1]), last / RATE]
            spans.extend((index, min(start, last / RATE), min(end, last / RATE)) for start, end in pairwise(ends))
        at.append(time.perf_counter())
        if not embeddings:
            return exchange.RecordingResult(())
        labels = clusterer.predict(np.stack(embeddings)) if len(embeddings) > 1 else [0]
        at.append(time.perf_counter())
        runs = groupby(zip(spans, labels, strict=False), key=lambda pair: (pair[0][0], int(pair[1])))
        turns = []
        for (_, label), members in runs:
            covered = [span for span, _ in members]
            turns.append((covered[0][1], covered[-1][2], f"speaker{label}"))
        stages = dict(zip(("speech", "embedding", "clustering"), np.diff(at).tolist(), strict=False))
        return exchange.RecordingResult(tuple(turns), stages=stages)

    return process


if __name__ == "__main__":
    exchange.serve(load)
