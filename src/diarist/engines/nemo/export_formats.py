"""What is written for each kind of NeMo model, and how it is found to say what the model says."""

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

KINDS = "what can be exported are CTC, RNN-T and TDT recognisers, speaker models and frame VADs"

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
"""What each class is exported as; a transducer with durations is ``tdt``, and a hybrid its transducer."""

NORMALIZATIONS: Mapping[str, Normalization] = {"per_feature": "per_feature", "none": "none", "na": "none", "": "none"}
"""NeMo normalises by what it knows by name, and by nothing else without a word."""

FEATURES_DIFFER = 2e-3
OUTPUTS_DIFFER = 1e-3
"""Largest difference from NeMo that passes, of the largest value; what was seen is a hundredth of it."""

CHECK_FRAMES = 384
"""Frames of the signal that both are compared on; divisible by every usual subsampling."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a description says of a model beside its name."""

    features: FeatureSettings
    frame_step: Seconds


def refusal(reference: str, what: str) -> str:
    """The message for a model that cannot be exported."""
    return f"{reference} is {what} and cannot be exported: {KINDS}. ENGINE=nemo runs the others."


def kind_of(model: Any, reference: str) -> Kind:
    """What the model is exported as.

    Raises:
        ConfigurationError: its class cannot be exported.
    """
    name = type(model).__name__
    kind = CLASSES.get(name)
    if kind is None:
        raise ConfigurationError(refusal(reference, f"of the class {name}"))
    if kind != "rnnt":
        return kind
    decoding = model.decoding
    if decoding.big_blank_durations:
        raise ConfigurationError(refusal(reference, "a transducer with several blanks"))
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
    """Write all files of the model into ``folder``. NeMo's export changes the model: it is of no use afterwards.

    Raises:
        ConfigurationError: it cannot be exported, or the files do not say what it says.
        OSError: writing failed.
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
    """What both are compared on, (samples,)."""

    tell: Callable[[str], None]

    def heard(self) -> tuple[Any, Any]:
        """NeMo's features of the signal, a tensor (1, mels, frames), and how many frames of it count, (1,)."""
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
        raise job.refuse(f"it makes {frames_out} frames of {frames}, which onnx-asr does not expect")

    names = ("model",) if job.kind == "ctc" else ("encoder-model", "decoder_joint-model")
    _export(job, "model.onnx", [f"{name}.onnx" for name in names])
    graph = job.folder / f"{names[0]}.onnx"
    accept_length(graph)
    outputs = ["logprobs"] if job.kind == "ctc" else ["outputs", "encoded_lengths"]
    session = _open(graph)
    if missing := set(outputs) - {value.name for value in session.get_outputs()}:
        raise job.refuse(f"its encoder does not give {', '.join(missing)}")
    inputs = {"audio_signal": np.ascontiguousarray(own.T)[None], "length": np.array([frames])}
    found = session.run(outputs, inputs)[0]
    # behind the last frame that counts NeMo gives another one, of what is filled up there
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
        raise job.refuse(f"it makes {frames} frames of {CHECK_FRAMES}")
    if found.shape[2] != 2:
        raise job.refuse(f"it tells {found.shape[2]} things apart, not speech from no speech")
    _compare(job, found, wanted[:, :frames])
    stride = CHECK_FRAMES // frames
    return stride * job.features.hop


def _own_features(job: _Job) -> Floats:
    """Our own features of the signal, float32 (frames, mels), found to be NeMo's; what they need is written.

    Raises:
        ConfigurationError: they are not NeMo's.
    """
    featurizer = job.model.preprocessor.featurizer
    arrays = {"window": featurizer.window.numpy(), "filters": featurizer.fb[0].numpy()}
    np.savez(job.folder / ARRAYS, **arrays)
    found = MelFeatures(job.features, **arrays).of(job.signal)
    features, length = job.heard()
    if int(length[0]) != len(found) or _apart(found.T, features[0, :, : len(found)].numpy()) > FEATURES_DIFFER:
        raise job.refuse(f"its features cannot be computed without it ({_told(job.features)})")
    return found


def _export(job: _Job, name: str, expected: Sequence[str]) -> None:
    """Let NeMo write its graphs, and gather the weights of each.

    Raises:
        ConfigurationError: NeMo cannot write them, or wrote others.
    """
    job.tell("exporting")
    try:
        job.model.export(str(job.folder / name))
    except OSError:
        raise
    except Exception as error:  # of what kind is PyTorch's affair
        raise job.refuse(f"NeMo's export failed with {type(error).__name__}: {error}") from error
    if missing := [graph for graph in expected if not (job.folder / graph).is_file()]:
        raise job.refuse(f"NeMo's export wrote no {', '.join(missing)}")
    for graph in expected:
        gather_weights(job.folder / graph)


def _write_vocabulary(job: _Job) -> None:
    """The tokens as onnx-asr reads them: a line each with its number, the blank last."""
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
    """A token of WordPiece, which marks what goes on within a word, as SentencePiece marks it: where one starts."""
    if token.startswith("[") and token.endswith("]"):
        return token
    return token[2:] if token.startswith("##") else f"{WORD_START}{token}"


def _token(token: str, job: _Job) -> str:
    written = token.replace(" ", WORD_START)
    if not written or any(character in written for character in "\r\n"):
        raise job.refuse(f"its token {token!r} cannot be written as a line")
    return written


def _most_symbols(model: Any) -> int:
    """How many tokens NeMo lets one frame have."""
    most = model.cfg.decoding.get("greedy", {}).get("max_symbols", 10)
    return int(most or 10)


def _quantize(folder: Path, name: str) -> None:
    """A graph whose matrices are int8, in place of the one that is there."""
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
    """Look whether the graph says what the model says.

    Raises:
        ConfigurationError: it does not.
    """
    job.tell("comparing")
    if found.shape != wanted.shape:
        raise job.refuse(f"the exported graph gives {found.shape} where NeMo gives {wanted.shape}")
    if (apart := _apart(found, wanted)) > OUTPUTS_DIFFER:
        raise job.refuse(f"the exported graph is {apart:.1%} off what NeMo says")


def _apart(found: Floats, wanted: Floats) -> float:
    """The largest difference, as a share of the largest value."""
    return float(np.abs(found - wanted).max() / max(float(np.abs(wanted).max()), 1e-6))


def _signal(features: FeatureSettings) -> Floats:
    """Noise that swells and fades like speech, the same each time: float32 (samples,)."""
    samples = CHECK_FRAMES * features.hop_samples
    swell = 0.05 + np.sin(np.linspace(0.0, 9.0 * np.pi, samples)) ** 2
    return (0.1 * swell * np.random.default_rng(0).standard_normal(samples)).clip(-1, 1).astype(np.float32)


def _feature_settings(model: Any, reference: str) -> FeatureSettings:
    """What NeMo's preprocessor computes.

    Raises:
        ConfigurationError: it is of a kind, or has settings, that are not computed here.
    """
    preprocessor = model.preprocessor
    if type(preprocessor).__name__ != "AudioToMelSpectrogramPreprocessor":
        raise ConfigurationError(refusal(reference, f"a model that hears through {type(preprocessor).__name__}"))
    featurizer = preprocessor.featurizer
    normalize = NORMALIZATIONS.get(str(featurizer.normalize or "").lower())
    plain = (
        featurizer.window is not None and featurizer.log and not featurizer.exact_pad and featurizer.frame_splicing == 1
    )
    if normalize is None or not plain or featurizer.sample_rate != SAMPLE_RATE:
        raise ConfigurationError(refusal(reference, "a model with features of its own kind"))
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
        f" {features.hop_samples}, pre-emphasis {features.preemphasis}, normalisation {features.normalize}"
    )
