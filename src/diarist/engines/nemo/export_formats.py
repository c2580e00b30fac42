"""The files that are exported for each kind of NeMo model, and the comparison of their output with the model's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from diarist.engines.nemo.onnx_graphs import accept_length, gather_weights, keep_output
from diarist.engines.onnx.exported_model import Kind, Quantization
from diarist.engines.onnx.mel_features import ARRAYS, FeatureSettings, MelFeatures, Normalization
from diarist.engines.onnx.recognizer import BLANK, VOCABULARY, WORD_START
from diarist.errors import ConfigurationError
from diarist.types import SAMPLE_RATE, Seconds

Floats = NDArray[np.float32]

KINDS = "only CTC, RNN-T and TDT recognizers, speaker models and frame VADs can be exported"

CLASSES: Mapping[str, Kind] = {
    "EncDecCTCModel": "ctc",
    "EncDecCTCModelBPE": "ctc",
    "EncDecRNNTModel": "rnnt",
    "EncDecRNNTBPEModel": "rnnt",
    "EncDecHybridRNNTCTCModel": "rnnt",
    "EncDecHybridRNNTCTCBPEModel": "rnnt",
    "EncDecSpeakerLabelModel": "speaker",
    "EncDecFrameClassificationModel": "frame_vad",
}
"""The kind as which each class is exported. A transducer with durations is ``tdt``; a hybrid is its transducer."""

NORMALIZATIONS: Mapping[str, Normalization] = {"per_feature": "per_feature", "none": "none", "na": "none", "": "none"}
"""The normalizations by NeMo's names. NeMo silently does not normalize for any name that it does not know."""

FEATURES_DIFFER = 2e-3
OUTPUTS_DIFFER = 1e-3
"""The largest accepted difference from NeMo, as a share of the largest value; observed differences are a hundredth."""

CHECK_FRAMES = 384
"""The number of frames of the signal for the comparison; divisible by every common subsampling factor."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Represents the properties of a model that its manifest contains."""

    features: FeatureSettings
    frame_step: Seconds


def refusal(reference: str, what: str) -> str:
    """Return the message for a model that cannot be exported."""
    return f"{reference} is {what} and cannot be exported: {KINDS}. ENGINE=nemo runs other models."


def kind_of(model: Any, reference: str) -> Kind:
    """Return the kind as which the model is exported.

    Raises:
        ConfigurationError: If its class cannot be exported.
    """
    name = type(model).__name__
    kind = CLASSES.get(name)
    if kind is None:
        raise ConfigurationError(refusal(reference, f"of class {name}"))
    if kind != "rnnt":
        return kind
    decoding = model.decoding
    if decoding.big_blank_durations:
        raise ConfigurationError(refusal(reference, "a multi-blank transducer"))
    durations = list(decoding.durations or ())
    if not durations:
        return "rnnt"
    if durations != list(range(len(durations))):
        raise ConfigurationError(refusal(reference, f"a TDT model with the durations {durations}"))
    return "tdt"


def write(
    model: Any,
    kind: Kind,
    reference: str,
    folder: Path,
    quantization: Quantization | None,
    tell: Callable[[str], None],
) -> Facts:
    """Write all files of the model into ``folder``. NeMo's export changes the model, which cannot be used afterwards.

    Raises:
        ConfigurationError: If the model cannot be exported, or the output of the files differs from that of the model.
        OSError: If writing fails.
    """
    features = _feature_settings(model, reference)
    signal = _signal(features)
    recipe = {"speaker": _write_speaker, "frame_vad": _write_vad}.get(kind, _write_recognizer)
    step = recipe(_Job(model, kind, reference, folder, quantization, features, signal, tell))
    return Facts(features, step)


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    model: Any
    kind: Kind
    reference: str
    folder: Path
    quantization: Quantization | None
    features: FeatureSettings
    signal: Floats
    """The input of the comparison, float32 (samples,)."""

    tell: Callable[[str], None]

    def heard(self) -> tuple[Any, Any]:
        """Return NeMo's features of the signal, (1, mels, frames), and the number of valid frames, (1,)."""
        samples = torch.from_numpy(self.signal)[None]
        features, length = self.model.preprocessor(input_signal=samples, length=torch.tensor([len(self.signal)]))
        return features, length

    def refuse(self, why: str) -> ConfigurationError:
        return ConfigurationError(f"{self.reference} cannot be exported: {why}. ENGINE=nemo runs it as it is.")


def _write_recognizer(job: _Job) -> Seconds:
    features, length = job.heard()
    own = _own_features(job)
    frames = len(own)
    encoded, encoded_length = job.model.encoder(audio_signal=features, length=length)[:2]
    wanted = job.model.decoder(encoder_output=encoded) if job.kind == "ctc" else encoded
    frames_out = int(encoded_length[0])
    subsampling = max(1, round(CHECK_FRAMES / frames_out))
    if job.kind == "ctc" and frames_out != (frames - 1) // subsampling + 1:
        raise job.refuse(f"its output has {frames_out} frames for {frames}, which onnx-asr does not support")

    names = ("model",) if job.kind == "ctc" else ("encoder-model", "decoder_joint-model")
    _export(job, "model.onnx", [f"{name}.onnx" for name in names])
    graph = job.folder / f"{names[0]}.onnx"
    accept_length(graph)
    outputs = ["logprobs"] if job.kind == "ctc" else ["outputs", "encoded_lengths"]
    session = _open(graph)
    if missing := set(outputs) - {value.name for value in session.get_outputs()}:
        raise job.refuse(f"its encoder has no output {', '.join(missing)}")
    inputs = {"audio_signal": np.ascontiguousarray(own.T)[None], "length": np.array([frames])}
    found = session.run(outputs, inputs)[0]
    # NeMo's output has another frame after the last valid one, which comes from padding
    axis = 1 if job.kind == "ctc" else 2
    valid = range(frames_out)
    _compare(job, found.take(valid, axis), wanted.numpy().take(valid, axis))
    _write_vocabulary(job)
    config = {
        "model_type": f"nemo-conformer-{job.kind}",
        "features_size": job.features.mels,
        "subsampling_factor": subsampling,
    }
    if job.kind != "ctc":
        config["max_tokens_per_step"] = _most_symbols(job.model)
    (job.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if job.quantization:
        job.tell("quantizing")
        for name in names:
            _quantize(job.folder, name)
    return subsampling * job.features.hop


def _write_speaker(job: _Job) -> Seconds:
    samples = torch.from_numpy(job.signal)[None]
    wanted = job.model.forward(input_signal=samples, input_signal_length=torch.tensor([len(job.signal)]))[1].numpy()
    own = _own_features(job)
    _export(job, "model.onnx", ["model.onnx"])
    keep_output(job.folder / "model.onnx", "embs")
    signal = np.ascontiguousarray(own.T)[None]  # (1, mels, frames)
    session = _open(job.folder / "model.onnx")
    inputs = {"audio_signal": signal, "length": np.array([signal.shape[2]])}
    found = session.run(["embs"], {value.name: inputs[value.name] for value in session.get_inputs()})[0]
    _compare(job, found, wanted)
    return 0.0


def _write_vad(job: _Job) -> Seconds:
    samples = torch.from_numpy(job.signal)[None]
    wanted = job.model.forward(input_signal=samples, input_signal_length=torch.tensor([len(job.signal)])).numpy()
    own = _own_features(job)
    _export(job, "model.onnx", ["model.onnx"])
    session = _open(job.folder / "model.onnx")
    found: Floats = session.run(["outputs"], {"audio_signal": np.ascontiguousarray(own.T)[None]})[0]
    frames: int = found.shape[1]
    if CHECK_FRAMES % frames:
        raise job.refuse(f"its output has {frames} frames for {CHECK_FRAMES}")
    if found.shape[2] != 2:
        raise job.refuse(f"it has {found.shape[2]} classes instead of two, speech and no speech")
    _compare(job, found, wanted[:, :frames])
    stride = CHECK_FRAMES // frames
    return stride * job.features.hop


def _own_features(job: _Job) -> Floats:
    """Write the arrays that the features need, and return Diarist's features of the signal, float32 (frames, mels).

    Raises:
        ConfigurationError: If they differ from NeMo's features.
    """
    featurizer = job.model.preprocessor.featurizer
    arrays = {"window": featurizer.window.numpy(), "filters": featurizer.fb[0].numpy()}
    np.savez(job.folder / ARRAYS, **arrays)
    found = MelFeatures(job.features, **arrays).of(job.signal)
    features, length = job.heard()
    if int(length[0]) != len(found) or _apart(found.T, features[0, :, : len(found)].numpy()) > FEATURES_DIFFER:
        raise job.refuse(f"its features cannot be computed without NeMo ({_told(job.features)})")
    return found


def _export(job: _Job, name: str, expected: Sequence[str]) -> None:
    """Export the model with NeMo, and collect the weights of each graph in one file.

    Raises:
        ConfigurationError: If NeMo's export fails or does not write the expected graphs.
    """
    job.tell("exporting")
    try:
        job.model.export(str(job.folder / name))
    except OSError:
        raise
    except Exception as error:  # PyTorch does not document which errors its exporter raises
        raise job.refuse(f"NeMo's export failed with {type(error).__name__}: {error}") from error
    if missing := [graph for graph in expected if not (job.folder / graph).is_file()]:
        raise job.refuse(f"NeMo's export did not write {', '.join(missing)}")
    for graph in expected:
        gather_weights(job.folder / graph)


def _write_vocabulary(job: _Job) -> None:
    """Write the tokens in the format of onnx-asr: one line per token with its ID, the blank last."""
    model = job.model
    tokens = [_token(token, job) for token in _tokens(model)]
    lines = [f"{token} {number}" for number, token in enumerate([*tokens, BLANK])]
    (job.folder / VOCABULARY).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _tokens(model: Any) -> list[str]:
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        return list(model.joint.vocabulary if hasattr(model, "joint") else model.decoder.vocabulary)
    if model.cfg.tokenizer.get("type") == "wpe":
        return [_marked(token) for token in tokenizer.vocab]
    return list(tokenizer.vocab)


def _marked(token: str) -> str:
    """Return a WordPiece token, which is marked if it continues a word, as SentencePiece writes it.

    SentencePiece marks the tokens that start a word instead.
    """
    if token.startswith("[") and token.endswith("]"):
        return token
    return token[2:] if token.startswith("##") else f"{WORD_START}{token}"


def _token(token: str, job: _Job) -> str:
    written = token.replace(" ", WORD_START)
    if not written or any(character in written for character in "\r\n"):
        raise job.refuse(f"its token {token!r} cannot be written as a line")
    return written


def _most_symbols(model: Any) -> int:
    """Return the maximum number of tokens per frame in NeMo's greedy search."""
    most = model.cfg.decoding.get("greedy", {}).get("max_symbols", 10)
    return int(most or 10)


def _quantize(folder: Path, name: str) -> None:
    """Replace a graph with one whose matrices are int8."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source, target = folder / f"{name}.onnx", folder / f"{name}.int8.onnx"
    quantize_dynamic(
        source, target, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8, per_channel=True,
        reduce_range=True, use_external_data_format=True,
    )  # fmt: skip
    for left in (source, source.with_name(f"{source.name}.data")):
        left.unlink()


def _open(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _compare(job: _Job, found: Floats, wanted: Floats) -> None:
    """Check that the output of the exported graph matches that of the model.

    Raises:
        ConfigurationError: If it does not.
    """
    job.tell("comparing")
    if found.shape != wanted.shape:
        raise job.refuse(f"the output of the exported graph has shape {found.shape}, NeMo's has {wanted.shape}")
    if (apart := _apart(found, wanted)) > OUTPUTS_DIFFER:
        raise job.refuse(f"the output of the exported graph differs from NeMo's by {apart:.1%}")


def _apart(found: Floats, wanted: Floats) -> float:
    """Return the largest absolute difference as a share of the largest absolute value of ``wanted``."""
    return float(np.abs(found - wanted).max() / max(float(np.abs(wanted).max()), 1e-6))


def _signal(features: FeatureSettings) -> Floats:
    """Return noise whose amplitude varies like that of speech, the same on each call: float32 (samples,)."""
    samples = CHECK_FRAMES * features.hop_samples
    swell = 0.05 + np.sin(np.linspace(0.0, 9.0 * np.pi, samples)) ** 2
    return (0.1 * swell * np.random.default_rng(0).standard_normal(samples)).clip(-1, 1).astype(np.float32)


def _feature_settings(model: Any, reference: str) -> FeatureSettings:
    """Return the settings of NeMo's preprocessor.

    Raises:
        ConfigurationError: If its class or its settings are not supported here.
    """
    preprocessor = model.preprocessor
    if type(preprocessor).__name__ != "AudioToMelSpectrogramPreprocessor":
        raise ConfigurationError(refusal(reference, f"a model with a {type(preprocessor).__name__}"))
    featurizer = preprocessor.featurizer
    normalize = NORMALIZATIONS.get(str(featurizer.normalize or "").lower())
    plain = (
        featurizer.window is not None and featurizer.log and not featurizer.exact_pad and featurizer.frame_splicing == 1
    )
    if normalize is None or not plain or featurizer.sample_rate != SAMPLE_RATE:
        raise ConfigurationError(refusal(reference, "a model with unsupported features"))
    guard_value = featurizer.log_zero_guard_value_fn(torch.zeros((), dtype=torch.float32))
    return FeatureSettings(
        sample_rate=int(featurizer.sample_rate), mels=int(featurizer.nfilt), n_fft=int(featurizer.n_fft),
        window_samples=int(featurizer.win_length), hop_samples=int(featurizer.hop_length),
        preemphasis=float(featurizer.preemph or 0.0), power=float(featurizer.mag_power),
        guard="clamp" if featurizer.log_zero_guard_type == "clamp" else "add", guard_value=float(guard_value),
        normalize=normalize,
    )  # fmt: skip


def _told(features: FeatureSettings) -> str:
    return (
        f"{features.mels} mel bands of {features.n_fft} points, window {features.window_samples}, hop"
        f" {features.hop_samples}, pre-emphasis {features.preemphasis}, normalization {features.normalize}"
    )
