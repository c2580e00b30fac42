"""Regression tests of accuracy: pooled DER and cpWER compared with the figures that are recorded beside this file.

``python -m pytest tests/e2e/test_accuracy_gate.py`` compares; with ``RECORD_ACCURACY=1`` in the environment
(``make accuracy``) it writes ``accuracy.json`` anew, which is to be looked at and committed with what changed it.
What is scored is fixed: the telephone sample, which is transcribed, and conversations of real voices, which are
diarized alone, for their words are not written down.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import soundfile

from diarist.audio import DecodeLimits
from diarist.engines.registry import load_engine
from diarist.evaluation.hypotheses import Hypothesis, from_transcript
from diarist.evaluation.reference import Reference
from diarist.evaluation.scoring import Score, pool, score
from diarist.evaluation.segments import Segment
from diarist.pipeline.transcription import transcribe
from diarist.protocols import Engine
from diarist.settings import load_settings
from diarist.types import Audio, Span, SpeakerHints, TranscribeOptions
from support import recordings

RECORD = Path(__file__).with_name("accuracy.json")

MARGIN = {"der": 0.01, "der_collar": 0.01, "cpwer": 0.03, "exact": 0}
"""How much worse than recorded a figure may be: one point of DER; three of cpWER, since one of the 87 words, which may
differ on another machine, is 1.1; and no additional conversation with a wrong number of speakers."""

CALL = (
    ("Diane", 6.7, 7.2, "Hello"),
    ("Sheila", 7.6, 8.2, "Hello"),
    ("Diane", 8.4, 10.0, "Oh hello I didn't know you were there"),
    ("Sheila", 9.9, 11.0, "Neither did I"),
    ("Diane", 10.6, 14.7, "Okay then I thought you know I heard a beep This is Diane in New Jersey"),
    ("Sheila", 14.3, 17.9, "And I'm Sheila in Texas originally from Chicago"),
    ("Diane", 18.0, 21.5, "Oh I'm originally from Chicago also I'm in New Jersey now though"),
    ("Sheila", 21.9, 24.0, "Well there isn't that much difference"),
    ("Sheila", 24.1, 28.4, "At least you know they all call me a Yankee down here so what can I say"),
    ("Diane", 28.4, 30.0, "Oh I don't hear that in New Jersey now"),
)
"""The words of the sample, and their approximate times."""


@pytest.fixture(scope="module")
def engine(model_store) -> Engine:
    return load_engine(load_settings(engine="embedded", device="cpu", cpu_threads=2))


def conversations(voices: Mapping[str, tuple[Audio, ...]], folder: Path) -> list[recordings.Conversation]:
    """Return two short conversations of two, one of three and one of four people, always the same to the byte."""
    casts = (("two", 2, 4), ("other-two", 2, 6), ("three", 3, 6), ("four", 4, None))
    made = []
    for seed, (name, speakers, pieces) in enumerate(casts):
        cast = {who: said[:pieces] for who, said in list(voices.items())[-speakers:]}
        made.append(recordings.assemble(cast, folder, name=name, seed=seed, overlap=0.3))
    return made


def sample(engine: Engine, path: Path, rttm: Path) -> Score:
    settings = load_settings(engine="embedded")
    transcript = transcribe(
        path, engine, TranscribeOptions(language="en"), lambda _stage, _done: None, DecodeLimits.of(settings)
    )
    said = tuple(Segment(Span(start, end), speaker, text) for speaker, start, end, text in CALL)
    return score(Reference("sample", recordings.read_rttm(rttm), said), from_transcript(transcript))


def _read(path: Path) -> Audio:
    samples, rate = soundfile.read(path, dtype="float32")
    return Audio(samples, rate)


def diarized(engine: Engine, conversation: recordings.Conversation) -> Score:
    found = engine.diarizer.diarize(_read(conversation.path), SpeakerHints(), lambda _stage, _done: None)
    return score(
        Reference(conversation.path.stem, conversation.turns), Hypothesis(found.turns, duration=conversation.duration)
    )


@pytest.mark.models
def test_accuracy_is_as_recorded(engine, voices, sample_recording, sample_rttm, tmp_path):
    scores = {"sample": sample(engine, sample_recording, sample_rttm)}
    scores |= {made.path.stem: diarized(engine, made) for made in conversations(voices, tmp_path)}
    all_of_it = pool(scores.values())
    figures = {name: round(getattr(all_of_it, name), 4) for name in MARGIN}
    if os.environ.get("RECORD_ACCURACY"):
        by_name = {
            name: {"der": round(one.der, 4), "found": one.found, "speakers": one.speakers}
            for name, one in scores.items()
        }
        RECORD.write_text(json.dumps({"pooled": figures, "recordings": by_name}, indent=1) + "\n", encoding="utf-8")
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))["pooled"]
    losses = {
        name: recorded[name] - figures[name] if name == "exact" else figures[name] - recorded[name] for name in MARGIN
    }
    worse = {name: (recorded[name], figures[name]) for name, margin in MARGIN.items() if losses[name] > margin + 1e-9}
    assert not worse, f"worse than recorded (recorded, now): {worse}; by recording: {scores}"
