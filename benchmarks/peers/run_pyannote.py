# ruff: noqa: E402
"""Run pyannote.audio's own pipeline class on segmentation-3.0, with CAM++ as the speaker model.

This is the pipeline of pyannote.audio 3.1 with its own parameters: segmentation every 1 s, local speakers, one
embedding for each, centroid-linkage clustering, and overlap. Its own speaker model is not on any package index; the
embedding is computed as 3D-Speaker does. The threshold was tuned for the other network, but suits this one too: on the
17 recordings of ``docs/accuracy.md``, thresholds of 0.6, 0.7046, 0.8, and 0.9 give a DER of 13.9, 13.0, 12.7, and
12.9. VBx, which release 4 uses, needs a PLDA model, and there is none for CAM++.
"""

from __future__ import annotations

import os
import time
import warnings
from functools import cached_property
from pathlib import Path

# Both statements must come before the import of pyannote.audio.
os.environ["PYANNOTE_METRICS_ENABLED"] = "0"
warnings.filterwarnings("ignore")

import exchange
import numpy as np
import onnxruntime
import soundfile
import torch
from pyannote.audio import Model
from pyannote.audio.pipelines import speaker_diarization
from pyannote.audio.pipelines.speaker_verification import ONNXWeSpeakerPretrainedSpeakerEmbedding
from torchaudio.compliance import kaldi

THRESHOLD = 0.7046
MIN_CLUSTER_SIZE = 12
"""Both values are from the configuration of speaker-diarization-3.1."""

STAGES = {"speaker_counting": "segmentation", "embeddings": "embedding", "discrete_diarization": "clustering"}
"""The names of the stages by the names of the pipeline's steps."""


class _Renamed:
    """The CAM++ model with the input and output names that pyannote.audio uses."""

    def __init__(self, graph: str, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run(self, output_names: list[str], input_feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert output_names == ["embs"]
        return self._session.run(None, {"features": np.ascontiguousarray(input_feed["feats"], dtype=np.float32)})


class _SpeakerEmbedding(ONNXWeSpeakerPretrainedSpeakerEmbedding):
    threads = 1

    def to(self, device: torch.device) -> _SpeakerEmbedding:
        self.session_ = _Renamed(self.embedding, self.threads)
        self.device = device
        return self

    @cached_property
    def min_num_samples(self) -> int:
        return 3_200  # 0.2 s: the minimum that Diarist passes to the network

    def compute_fbank(self, waveforms: torch.Tensor, **_: object) -> torch.Tensor:
        rows = [kaldi.fbank(each, num_mel_bins=80, dither=0.0, sample_frequency=16_000) for each in waveforms]
        features = torch.stack(rows)  # (batch, rows, 80)
        return features - features.mean(dim=1, keepdim=True)


class Stages:
    """The time in seconds by stage, measured between hook calls: each follows a completed part of its stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def record(self, step: str, *_: object, **__: object) -> None:
        now, stage = time.perf_counter(), STAGES.get(step, step)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


def load(task: exchange.Task) -> exchange.Processor:
    torch.set_num_threads(task.threads)
    _SpeakerEmbedding.threads = task.threads
    models = Path(task.models)
    speaker_diarization.get_plda = lambda *_, **__: None
    speaker_diarization.PretrainedSpeakerEmbedding = lambda embedding, **_: _SpeakerEmbedding(embedding)
    pipeline = speaker_diarization.SpeakerDiarization(
        segmentation=Model.from_pretrained(str(models / "segmentation-3.0" / "pytorch_model.bin")),
        embedding=str(models / "campplus" / "model.onnx"),
        embedding_exclude_overlap=True,
        clustering="AgglomerativeClustering",
        segmentation_batch_size=32,
        embedding_batch_size=32,
    )
    pipeline.instantiate(
        {
            "segmentation": {"min_duration_off": 0.0},
            "clustering": {"method": "centroid", "min_cluster_size": MIN_CLUSTER_SIZE, "threshold": THRESHOLD},
        }
    )

    def process(recording: Path) -> exchange.RecordingResult:
        samples, rate = soundfile.read(recording, dtype="float32")
        stages = Stages()
        found = pipeline({"waveform": torch.from_numpy(samples)[None], "sample_rate": rate}, hook=stages.record)
        stages.record("clustering")
        turns = found.speaker_diarization.itertracks(yield_label=True)
        segments = tuple((turn.start, turn.end, str(speaker)) for turn, _, speaker in turns)
        return exchange.RecordingResult(segments, stages=stages.seconds)

    return process


if __name__ == "__main__":
    exchange.serve(load)
