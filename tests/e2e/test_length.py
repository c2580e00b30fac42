"""Hours as minutes: the same words from disk as from memory, one label from first to last, progress that is true."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from diarist.audio import DecodeLimits, decode, limits
from diarist.clustering import l2_normalize
from diarist.engines.embedded import load_diarizer
from diarist.engines.embedded.diarizer import EmbeddedDiarizer
from diarist.engines.embedded.segmentation import FRAME_SAMPLES, RECEPTIVE_FIELD_SAMPLES, WINDOW_FRAMES, WINDOW_SAMPLES
from diarist.engines.registry import load_engine
from diarist.pipeline.transcription import transcribe
from diarist.protocols import Engine
from diarist.settings import load_settings
from diarist.types import SAMPLE_RATE, Audio, Span, SpeakerHints, TranscribeOptions

pytestmark = pytest.mark.models

HOURS = 4
STEP_FRAMES = 59


@pytest.fixture(scope="module")
def engine(model_store) -> Engine:
    return load_engine(load_settings(engine="embedded"))


def test_samples_on_disk_give_the_same_transcript(engine, sample_recording, tmp_path, monkeypatch):
    def read():
        limits = DecodeLimits(folder=tmp_path)
        return transcribe(sample_recording, engine, TranscribeOptions(), lambda *_: None, limits)

    from_memory = read()
    monkeypatch.setattr(limits, "MAX_IN_MEMORY_S", 1.0)
    from_disk = read()
    assert from_disk.utterances == from_memory.utterances
    assert from_disk.diarization.turns == from_memory.diarization.turns
    assert np.array_equal(from_disk.diarization.embeddings, from_memory.diarization.embeddings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timing
def test_progress_rises_and_at_half_tells_when_the_work_is_done(engine, make_conversation, tmp_path):
    parts = [
        soundfile.read(make_conversation(4, seed=seed, name=f"part{seed}").path, dtype="int16")[0] for seed in range(3)
    ]
    path = tmp_path / "meeting.wav"
    soundfile.write(path, np.concatenate(parts), SAMPLE_RATE)
    reports: list[tuple[float, float]] = []
    # Processor time: on a machine that others use too, the clock would be no measure.
    started = time.process_time()

    def progress(stage: str, done: float) -> None:
        reports.append((done, time.process_time() - started))

    transcribe(path, engine, TranscribeOptions(language="en"), progress, DecodeLimits())
    whole = time.process_time() - started
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
    assert reports[-1][0] == 1.0
    done, spent = next(report for report in reports if report[0] >= 0.5)
    assert done < 0.6
    expected = spent / done * (1 - done)
    assert expected == pytest.approx(whole - spent, rel=0.3)


class Repeated:
    """Hours in which the turns of one segment are repeated, while the speakers say something else each time.

    The real networks process the segment. The embedding of each window is divided into the part of its speaker and a
    remainder, and the remainder is drawn at random each time: a phrase that is repeated without a change would be more
    similar to itself than to its speaker.
    """

    def __init__(self, diarizer: EmbeddedDiarizer, segment: Audio) -> None:
        self._real = diarizer
        self._twice = Audio(np.concatenate([segment.samples, segment.samples]))
        self._period_s = segment.duration
        self._windows = len(segment.samples) // (STEP_FRAMES * FRAME_SAMPLES)
        self._references = diarizer.diarize(segment, SpeakerHints(), lambda *_: None).embeddings
        self._random = np.random.default_rng(1)

    def segment(self, audio, progress):
        local = self._real._segmenter.segment(self._twice, progress)
        windows = 1 + -(-(len(audio.samples) - WINDOW_SAMPLES) // (STEP_FRAMES * FRAME_SAMPLES))
        rows = np.arange(windows) % self._windows
        starts = np.arange(windows) * STEP_FRAMES
        frames = round((len(audio.samples) - RECEPTIVE_FIELD_SAMPLES / 2) / FRAME_SAMPLES + 0.5)
        return replace(
            local, activity=local.activity[rows], classes=local.classes[rows], starts=starts,
            frames=min(frames, int(starts[-1]) + WINDOW_FRAMES),
        )  # fmt: skip

    def embed(self, audio, windows, progress):
        keys = [(round(window.start % self._period_s, 2), round(window.duration, 2)) for window in windows]
        spans = [Span(start, start + duration) for start, duration in dict.fromkeys(keys)]
        similarities = l2_normalize(self._real._embedder.embed(self._twice, spans, progress)) @ self._references.T
        known = dict(zip(dict.fromkeys(keys), similarities, strict=True))
        similarity = np.stack([known[key] for key in keys])  # (windows, speakers)
        who, share = similarity.argmax(axis=1), similarity.max(axis=1, keepdims=True)
        rest = l2_normalize(self._random.standard_normal((len(who), self._references.shape[1]), dtype=np.float32))
        return share * self._references[who] + np.sqrt(1 - share**2) * rest


def test_a_speaker_keeps_one_label_for_hours(model_store, make_conversation):
    conversation = make_conversation(4)
    segment = decode(conversation.path, DecodeLimits())[0].samples
    whole = segment[: len(segment) // (STEP_FRAMES * FRAME_SAMPLES) * (STEP_FRAMES * FRAME_SAMPLES)]
    diarizer = load_diarizer(load_settings()).part
    assert isinstance(diarizer, EmbeddedDiarizer)
    repeated = Repeated(diarizer, Audio(whole))
    # Nobody reads its samples: they take room in the address space alone.
    audio = Audio(np.zeros(HOURS * 3_600 * SAMPLE_RATE, dtype=np.float32))
    found = EmbeddedDiarizer(repeated, repeated).diarize(audio, SpeakerHints(), lambda *_: None)
    assert len(found.speakers) == 4
    frame_s = 0.1
    said = np.zeros((round(audio.duration / frame_s), 4), dtype=bool)
    for turn in found.turns:
        first, last = round(turn.span.start / frame_s), round(turn.span.end / frame_s)
        said[first:last, found.speakers.index(turn.speaker)] = True
    period_s = len(whole) / SAMPLE_RATE
    within = np.arange(0.0, period_s, frame_s)
    each = [
        said[((start + within) / frame_s).astype(int)] for start in np.arange(0.0, audio.duration - period_s, period_s)
    ]
    typical = np.mean(each, axis=0) > 0.5
    assert typical.any(axis=0).all()
    assert max((one != typical).any(axis=1).mean() for one in each) < 0.05
