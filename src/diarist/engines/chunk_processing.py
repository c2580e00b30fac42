"""Pieces of the work on a recording that other machines can do: what they are written as, and how they are done."""

from __future__ import annotations

import io
import json
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diarist.protocols import (
    RECOGNITION_REACH,
    Chunk,
    ChunkStage,
    DistributedDiarizer,
    Engine,
    ScatterChunks,
)
from diarist.types import Audio, Progress, Recognition, RecognizedWord, Span


def perform(engine: Engine, piece: Audio, chunk: Chunk, progress: Progress) -> bytes:
    """Do a portion of the work on a channel.

    Args:
        engine: the same as that of whoever wants it done.
        piece: the channel's samples from ``chunk.first_sample`` to before ``chunk.stop_sample``.
        portion: what to do.
        progress: called with the stage and the part of the portion that is done, 0..1; what it raises goes through.

    Raises:
        ValueError: the piece has another length, or this engine's diarizer has no such portions.
    """
    if len(piece.samples) != chunk.stop_sample - chunk.first_sample:
        raise ValueError(
            f"a portion of the samples {chunk.first_sample} to {chunk.stop_sample} came with {len(piece.samples)}"
        )
    # As long as the channel, so that all times are the channel's to the last bit; what is not touched takes no memory.
    samples = np.zeros(chunk.channel_samples, dtype=np.float32)
    samples[chunk.first_sample : chunk.stop_sample] = piece.samples
    audio = Audio(samples, piece.rate)
    if chunk.stage == "recognition":
        return _recognize(engine, audio, chunk, progress)
    if isinstance(engine.diarizer, DistributedDiarizer):
        return engine.diarizer.perform(audio, chunk, progress)
    raise ValueError(f"the engine {engine.name} cannot do {chunk.stage} in portions: let all workers have the same one")


def done_elsewhere(
    chunks: Sequence[Chunk], costs: Sequence[float], scatter: ScatterChunks, progress: Progress
) -> Generator[bytes, None, None]:
    """The results of all portions, in order.

    Args:
        portions: what to do.
        costs: how long each takes, in any unit, so that progress is even.
        scatter: has them done.
        progress: called with their stage and the part of all of them that is done, 0..1, never falling.

    Raises:
        ValueError: there are not as many results as portions.
    """
    parts = [0.0] * len(chunks)
    total = sum(costs)

    def note(index: int, done: float = 1.0) -> None:
        parts[index] = max(parts[index], min(done, 1.0))
        progress(
            chunks[index].stage, min(1.0, sum(part * cost for part, cost in zip(parts, costs, strict=True)) / total)
        )

    with closing(scatter(chunks, note)) as results:
        for index, _ in enumerate(chunks):
            result = next(results, None)
            if result is None:
                raise ValueError(f"of {len(chunks)} portions only {index} were done")
            note(index)
            yield result


def chunk_of(stage: ChunkStage, audio: Audio, first_sample: int, stop_sample: int, work: Any) -> Chunk:
    """A portion that reads these samples of ``audio``, clipped to what there is; ``work`` is written as JSON."""
    length = len(audio.samples)
    first = min(max(first_sample, 0), length)
    written = json.dumps(work, separators=(",", ":"), allow_nan=False).encode("ascii")
    return Chunk(stage, first, min(max(stop_sample, first), length), length, written)


def recognition_of(audio: Audio, speech: Sequence[Span], language: str | None) -> Chunk:
    """The portion that finds the words of ``speech``: ordered, disjoint spans, at least one."""
    first = round((speech[0].start - RECOGNITION_REACH) * audio.rate)
    stop = round((speech[-1].end + RECOGNITION_REACH) * audio.rate)
    work = {"language": language, "speech": [[span.start, span.end] for span in speech]}
    return chunk_of("recognition", audio, first, stop, work)


def read_recognition(result: bytes) -> Recognition:
    """What was made of a portion of ``recognition_of``."""
    content = json.loads(result)
    words = tuple(
        RecognizedWord(text, Span(start, end), confidence) for text, start, end, confidence in content["words"]
    )
    return Recognition(words, content["language"], content["language_probability"])


def dump_arrays(**arrays: NDArray[Any]) -> bytes:
    """Arrays by name, in NumPy's own form."""
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def load_arrays(content: bytes) -> dict[str, NDArray[Any]]:
    """What ``dump_arrays`` wrote.

    Raises:
        ValueError: it is something else.
    """
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def _recognize(engine: Engine, audio: Audio, chunk: Chunk, progress: Progress) -> bytes:
    work = json.loads(chunk.work)
    speech = [Span(start, end) for start, end in work["speech"]]
    found = engine.recognizer.recognize(audio, speech, work["language"], progress)
    words = [[word.text, word.span.start, word.span.end, word.confidence] for word in found.words]
    content = {"language": found.language, "language_probability": found.language_probability, "words": words}
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii")
