"""Half an hour of audio with every NeMo model in one process: memory does not grow with the duration."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.nemo

LIMIT_BYTES = 3_000_000_000

PROGRAM = """
import resource, sys
import soundfile, numpy as np
from diarist.engines.registry import load_diarizer, load_recognizer
from diarist.settings import load_settings
from diarist.types import Audio, Span, SpeakerHints

samples, rate = soundfile.read(sys.argv[1], dtype="float32")
audio = Audio(np.tile(samples, 60))
assert audio.duration > 1_799
speech = [Span(float(at), float(at) + 9.5) for at in range(0, 1_790, 10)]
quiet = lambda stage, done: None
for model in sys.argv[2:]:
    recognizer = load_recognizer("nemo", load_settings(nemo_asr_model=model)).part
    print(len(recognizer.recognize(audio, speech, None, quiet).words), end=" ")
for name in ("sortformer", "clustering"):
    diarizer = load_diarizer(name, load_settings()).part
    found = diarizer.diarize(audio, SpeakerHints(num_speakers=2), quiet)
    print(max(turn.span.end for turn in found.turns), end=" ")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def test_half_an_hour_needs_less_than_three_gigabytes(nemo_models, nemo_settings, sample_recording, tmp_path):
    own = {
        "ENGINE": "nemo", "NEMO_DEVICE": "cpu", "CPU_THREADS": "1", "HF_HUB_OFFLINE": "1",
        "MODEL_CONFIG_DIR": str(nemo_settings.model_config_dir), "SORTFORMER_MODEL": nemo_settings.sortformer_model,
        "DIAR_CONFIG": "general",
    }  # fmt: skip
    models = [str(nemo_models[name]) for name in ("ctc", "tdt")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(sample_recording), *models],
        check=False, capture_output=True, text=True, timeout=500, cwd=tmp_path, env=os.environ | own,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ctc_words, tdt_words, sortformer_end, clustering_end, peak_bytes = map(float, done.stdout.split())
    assert ctc_words > 1_000
    assert tdt_words > 1_000
    assert min(sortformer_end, clustering_end) > 1_780
    assert peak_bytes < LIMIT_BYTES
    assert not list(Path(tmp_path).iterdir())
