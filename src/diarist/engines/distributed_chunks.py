"""Chunks of the work on a recording that other machines can process: their format, and how they are processed."""

from __future__ import annotations

import io
import json
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diarist.audio.muting import mute
from diarist.protocols import (
    RECOGNITION_REACH,
    Chunk,
    ChunkStage,
    DistributedDiarizer,
    Engine,
    ScatterChunks,
)
from diarist.types import Audio, Progress, Recognition, RecognizedWord, Span


def perform(engine: Engine, part: Audio, chunk: Chunk, progress: Progress) -> bytes:
    """Process a chunk of the work on a channel.

    Args:
        engine: The same engine as that of the worker that requests the chunk.
        part: The channel's samples from ``chunk.first_sample`` to before ``chunk.stop_sample``.
        chunk: The work.
        progress: Called with the stage and the share of the chunk that is done, 0..1. Its exceptions are propagated.

    Raises:
        ValueError: The length of ``part`` is wrong, or this engine's diarizer does not support chunks.
    """
    if len(part.samples) != chunk.stop_sample - chunk.first_sample:
        raise ValueError(
            f"a chunk of the samples {chunk.first_sample} to {chunk.stop_sample} came with {len(part.samples)} samples"
        )
    # An array of the channel's length makes all times exactly those of the channel; untouched pages take no memory.
    samples = np.zeros(chunk.channel_samples, dtype=np.float32)
    samples[chunk.first_sample : chunk.stop_sample] = part.samples
    audio = Audio(samples, part.rate)
    if chunk.stage == "recognition":
        return _recognize(engine, audio, chunk, progress)
    if isinstance(engine.diarizer, DistributedDiarizer):
        return engine.diarizer.perform(audio, chunk, progress)
    raise ValueError(
        f"the engine {engine.name} cannot do {chunk.stage} in chunks: configure the same engine for all workers"
    )


def run_distributed(
    chunks: Sequence[Chunk], costs: Sequence[float], scatter: ScatterChunks, progress: Progress
) -> Generator[bytes, None, None]:
    """Have chunks processed by any machine, and yield their results in order.

    Args:
        chunks: The work.
        costs: How long each chunk takes, in any unit, to make the progress even.
        scatter: Has the chunks processed.
        progress: Called with their stage and the share of all chunks that is done, 0..1, never falling.

    Raises:
        ValueError: There are fewer results than chunks.
    """
    shares = [0.0] * len(chunks)
    total = sum(costs)

    def report(index: int, done: float = 1.0) -> None:
        shares[index] = max(shares[index], min(done, 1.0))
        progress(
            chunks[index].stage, min(1.0, sum(share * cost for share, cost in zip(shares, costs, strict=True)) / total)
        )

    with closing(scatter(chunks, report)) as results:
        for index, _ in enumerate(chunks):
            result = next(results, None)
            if result is None:
                raise ValueError(f"only {index} of {len(chunks)} chunks have a result")
            report(index)
            yield result


def make_chunk(stage: ChunkStage, audio: Audio, first_sample: int, stop_sample: int, work: Any) -> Chunk:
    """Return a chunk that reads these samples, clipped to the length of ``audio``; ``work`` is serialized as JSON."""
    length = len(audio.samples)
    first = min(max(first_sample, 0), length)
    content = json.dumps(work, separators=(",", ":"), allow_nan=False).encode("ascii")
    return Chunk(stage, first, min(max(stop_sample, first), length), length, content)


def recognition_chunk(audio: Audio, speech: Sequence[Span], language: str | None, muted: Sequence[Span] = ()) -> Chunk:
    """Return the chunk that recognizes the words of ``speech``, without what is heard in ``muted``.

    Both are ordered, disjoint spans; there is at least one span of speech.
    """
    first, stop = recognition_range(audio, speech)
    work: dict[str, Any] = {"language": language, "speech": [[span.start, span.end] for span in speech]}
    if muted:
        work["muted"] = [[span.start, span.end] for span in muted]
    return make_chunk("recognition", audio, first, stop, work)


def recognition_range(audio: Audio, speech: Sequence[Span]) -> tuple[int, int]:
    """Return the first sample that is read to recognize ``speech``, and the end of these samples, not clipped."""
    first = round((speech[0].start - RECOGNITION_REACH) * audio.rate)
    return first, round((speech[-1].end + RECOGNITION_REACH) * audio.rate)


def parse_recognition(result: bytes) -> Recognition:
    """Deserialize the result of a chunk of ``recognition_chunk``."""
    content = json.loads(result)
    words = tuple(
        RecognizedWord(text, Span(start, end), confidence) for text, start, end, confidence in content["words"]
    )
    return Recognition(words, content["language"], content["language_probability"])


def dump_arrays(**arrays: NDArray[Any]) -> bytes:
    """Serialize named arrays in NumPy's own format."""
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def load_arrays(content: bytes) -> dict[str, NDArray[Any]]:
    """Deserialize the output of ``dump_arrays``.

    Raises:
        ValueError: The content has another format.
    """
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def _recognize(engine: Engine, audio: Audio, chunk: Chunk, progress: Progress) -> bytes:
    work = json.loads(chunk.work)
    speech = [Span(start, end) for start, end in work["speech"]]
    muted = [Span(start, end) for start, end in work.get("muted", ())]
    if muted:
        audio = mute(audio, muted, chunk.first_sample, chunk.stop_sample)
    recognition = engine.recognizer.recognize(audio, speech, work["language"], progress)
    words = [[word.text, word.span.start, word.span.end, word.confidence] for word in recognition.words]
    content = {
        "language": recognition.language, "language_probability": recognition.language_probability, "words": words,
    }  # fmt: skip
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii")
