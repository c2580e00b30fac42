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

from diarist.engines.nemo.onnx_graphs import add_length_input, externalize_weights, keep_output
from diarist.engines.onnx.mel_features import MelFeatures
from diarist.engines.onnx.recognizer import BLANK, VOCABULARY, WORD_START
from diarist.errors import ConfigurationError
from diarist.models.exported_model import Kind, Quantization
from diarist.models.feature_settings import ARRAYS, FeatureSettings, Normalization
from diarist.types import SAMPLE_RATE, Seconds

Floats = NDArray[np.float32]

EXPORTABLE_KINDS = "only CTC, RNN-T and TDT recognizers, speaker models and frame VADs can be exported"

KIND_BY_CLASS: Mapping[str, Kind] = {
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

MAX_FEATURE_DIFFERENCE = 2e-3
MAX_OUTPUT_DIFFERENCE = 1e-3
"""The largest accepted difference from NeMo, as a share of the largest value; observed differences are a hundredth."""

CHECK_FRAMES = 384
"""The number of frames of the signal for the comparison; divisible by every common subsampling factor."""


@dataclass(frozen=True, slots=True)
class ExportedProperties:
    """Represents the properties of a model that its manifest contains."""

    features: FeatureSettings
    frame_step: Seconds


def not_exportable(reference: str, description: str) -> str:
    """Return the message for a model that cannot be exported."""
    return f"{reference} is {description} and cannot be exported: {EXPORTABLE_KINDS}. ENGINE=nemo runs other models."


def kind_of(model: Any, reference: str) -> Kind:
    """Return the kind as which the model is exported.

    Raises:
        ConfigurationError: If its class cannot be exported.
    """
    name = type(model).__name__
    kind = KIND_BY_CLASS.get(name)
    if kind is None:
        raise ConfigurationError(not_exportable(reference, f"of class {name}"))
    if kind != "rnnt":
        return kind
    decoding = model.decoding
    if decoding.big_blank_durations:
        raise ConfigurationError(not_exportable(reference, "a multi-blank transducer"))
    durations = list(decoding.durations or ())
    if not durations:
        return "rnnt"
    if durations != list(range(len(durations))):
        raise ConfigurationError(not_exportable(reference, f"a TDT model with the durations {durations}"))
    return "tdt"


def write(
    model: Any,
    kind: Kind,
    reference: str,
    folder: Path,
    quantization: Quantization | None,
    report: Callable[[str], None],
) -> ExportedProperties:
    """Write all files of the model into ``folder``. NeMo's export changes the model, which cannot be used afterwards.

    Raises:
        ConfigurationError: If the model cannot be exported, or the output of the files differs from that of the model.
        OSError: If writing fails.
    """
    features = _feature_settings(model, reference)
    signal = _comparison_signal(features)
    write_kind = {"speaker": _write_speaker, "frame_vad": _write_vad}.get(kind, _write_recognizer)
    frame_step = write_kind(_ExportContext(model, kind, reference, folder, quantization, features, signal, report))
    return ExportedProperties(features, frame_step)


@dataclass(frozen=True, slots=True, eq=False)
class _ExportContext:
    model: Any
    kind: Kind
    reference: str
    folder: Path
    quantization: Quantization | None
    features: FeatureSettings
    signal: Floats
    """The input of the comparison, float32 (samples,)."""

    report: Callable[[str], None]

    def nemo_features(self) -> tuple[Any, Any]:
        """Return NeMo's features of the signal, (1, mels, frames), and the number of valid frames, (1,)."""
        samples = torch.from_numpy(self.signal)[None]
        features, length = self.model.preprocessor(input_signal=samples, length=torch.tensor([len(self.signal)]))
        return features, length

    def error(self, reason: str) -> ConfigurationError:
        return ConfigurationError(f"{self.reference} cannot be exported: {reason}. ENGINE=nemo runs it as it is.")


def _write_recognizer(context: _ExportContext) -> Seconds:
    features, length = context.nemo_features()
    own_features = _write_own_features(context)
    frames = len(own_features)
    encoded, encoded_length = context.model.encoder(audio_signal=features, length=length)[:2]
    expected = context.model.decoder(encoder_output=encoded) if context.kind == "ctc" else encoded
    frames_out = int(encoded_length[0])
    subsampling = max(1, round(CHECK_FRAMES / frames_out))
    if context.kind == "ctc" and frames_out != (frames - 1) // subsampling + 1:
        raise context.error(f"its output has {frames_out} frames for {frames}, which onnx-asr does not support")

    names = ("model",) if context.kind == "ctc" else ("encoder-model", "decoder_joint-model")
    _export(context, "model.onnx", [f"{name}.onnx" for name in names])
    graph = context.folder / f"{names[0]}.onnx"
    add_length_input(graph)
    outputs = ["logprobs"] if context.kind == "ctc" else ["outputs", "encoded_lengths"]
    session = _open_session(graph)
    if missing := set(outputs) - {value.name for value in session.get_outputs()}:
        raise context.error(f"its encoder has no output {', '.join(missing)}")
    inputs = {"audio_signal": np.ascontiguousarray(own_features.T)[None], "length": np.array([frames])}
    actual = session.run(outputs, inputs)[0]
    # NeMo's output has another frame after the last valid one, which comes from padding
    axis = 1 if context.kind == "ctc" else 2
    valid = range(frames_out)
    _compare(context, actual.take(valid, axis), expected.numpy().take(valid, axis))
    _write_vocabulary(context)
    config = {
        "model_type": f"nemo-conformer-{context.kind}",
        "features_size": context.features.mels,
        "subsampling_factor": subsampling,
    }
    if context.kind != "ctc":
        config["max_tokens_per_step"] = _max_tokens_per_step(context.model)
    (context.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if context.quantization:
        context.report("quantizing")
        for name in names:
            _quantize(context.folder, name)
    return subsampling * context.features.hop


def _write_speaker(context: _ExportContext) -> Seconds:
    samples = torch.from_numpy(context.signal)[None]
    expected = context.model.forward(input_signal=samples, input_signal_length=torch.tensor([len(context.signal)]))[
        1
    ].numpy()
    own_features = _write_own_features(context)
    _export(context, "model.onnx", ["model.onnx"])
    keep_output(context.folder / "model.onnx", "embs")
    signal = np.ascontiguousarray(own_features.T)[None]  # (1, mels, frames)
    session = _open_session(context.folder / "model.onnx")
    inputs = {"audio_signal": signal, "length": np.array([signal.shape[2]])}
    actual = session.run(["embs"], {value.name: inputs[value.name] for value in session.get_inputs()})[0]
    _compare(context, actual, expected)
    return 0.0


def _write_vad(context: _ExportContext) -> Seconds:
    samples = torch.from_numpy(context.signal)[None]
    expected = context.model.forward(
        input_signal=samples, input_signal_length=torch.tensor([len(context.signal)])
    ).numpy()
    own_features = _write_own_features(context)
    _export(context, "model.onnx", ["model.onnx"])
    session = _open_session(context.folder / "model.onnx")
    actual: Floats = session.run(["outputs"], {"audio_signal": np.ascontiguousarray(own_features.T)[None]})[0]
    frames: int = actual.shape[1]
    if CHECK_FRAMES % frames:
        raise context.error(f"its output has {frames} frames for {CHECK_FRAMES}")
    if actual.shape[2] != 2:
        raise context.error(f"it has {actual.shape[2]} classes instead of two, speech and no speech")
    _compare(context, actual, expected[:, :frames])
    stride = CHECK_FRAMES // frames
    return stride * context.features.hop


def _write_own_features(context: _ExportContext) -> Floats:
    """Write the arrays that the features need, and return Diarist's features of the signal, float32 (frames, mels).

    Raises:
        ConfigurationError: If they differ from NeMo's features.
    """
    featurizer = context.model.preprocessor.featurizer
    arrays = {"window": featurizer.window.numpy(), "filters": featurizer.fb[0].numpy()}
    np.savez(context.folder / ARRAYS, **arrays)
    actual = MelFeatures(context.features, **arrays).normalized(context.signal)
    features, length = context.nemo_features()
    if (
        int(length[0]) != len(actual)
        or _relative_difference(actual.T, features[0, :, : len(actual)].numpy()) > MAX_FEATURE_DIFFERENCE
    ):
        raise context.error(f"its features cannot be computed without NeMo ({_describe(context.features)})")
    return actual


def _export(context: _ExportContext, name: str, expected: Sequence[str]) -> None:
    """Export the model with NeMo, and collect the weights of each graph in one file.

    Raises:
        ConfigurationError: If NeMo's export fails or does not write the expected graphs.
    """
    context.report("exporting")
    try:
        context.model.export(str(context.folder / name))
    except OSError:
        raise
    except Exception as error:  # PyTorch does not document which errors its exporter raises
        raise context.error(f"NeMo's export failed with {type(error).__name__}: {error}") from error
    if missing := [graph for graph in expected if not (context.folder / graph).is_file()]:
        raise context.error(f"NeMo's export did not write {', '.join(missing)}")
    for graph in expected:
        externalize_weights(context.folder / graph)


def _write_vocabulary(context: _ExportContext) -> None:
    """Write the tokens in the format of onnx-asr: one line per token with its ID, the blank last."""
    model = context.model
    tokens = [_vocabulary_entry(token, context) for token in _tokens(model)]
    lines = [f"{token} {token_id}" for token_id, token in enumerate([*tokens, BLANK])]
    (context.folder / VOCABULARY).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _tokens(model: Any) -> list[str]:
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        return list(model.joint.vocabulary if hasattr(model, "joint") else model.decoder.vocabulary)
    if model.cfg.tokenizer.get("type") == "wpe":
        return [_as_sentence_piece(token) for token in tokenizer.vocab]
    return list(tokenizer.vocab)


def _as_sentence_piece(token: str) -> str:
    """Return a WordPiece token, which is marked if it continues a word, as SentencePiece writes it.

    SentencePiece marks the tokens that start a word instead.
    """
    if token.startswith("[") and token.endswith("]"):
        return token
    return token[2:] if token.startswith("##") else f"{WORD_START}{token}"


def _vocabulary_entry(token: str, context: _ExportContext) -> str:
    entry = token.replace(" ", WORD_START)
    if not entry or any(character in entry for character in "\r\n"):
        raise context.error(f"its token {token!r} cannot be written as a line")
    return entry


def _max_tokens_per_step(model: Any) -> int:
    """Return the maximum number of tokens per frame in NeMo's greedy search."""
    max_symbols = model.cfg.decoding.get("greedy", {}).get("max_symbols", 10)
    return int(max_symbols or 10)


def _quantize(folder: Path, name: str) -> None:
    """Replace a graph with one whose matrices are int8."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source, target = folder / f"{name}.onnx", folder / f"{name}.int8.onnx"
    quantize_dynamic(
        source, target, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8, per_channel=True,
        reduce_range=True, use_external_data_format=True,
    )  # fmt: skip
    for replaced in (source, source.with_name(f"{source.name}.data")):
        replaced.unlink()


def _open_session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _compare(context: _ExportContext, actual: Floats, expected: Floats) -> None:
    """Check that the output of the exported graph matches that of the model.

    Raises:
        ConfigurationError: If it does not.
    """
    context.report("comparing")
    if actual.shape != expected.shape:
        raise context.error(f"the output of the exported graph has shape {actual.shape}, NeMo's has {expected.shape}")
    if (difference := _relative_difference(actual, expected)) > MAX_OUTPUT_DIFFERENCE:
        raise context.error(f"the output of the exported graph differs from NeMo's by {difference:.1%}")


def _relative_difference(actual: Floats, expected: Floats) -> float:
    """Return the largest absolute difference as a share of the largest absolute value of ``expected``."""
    return float(np.abs(actual - expected).max() / max(float(np.abs(expected).max()), 1e-6))


def _comparison_signal(features: FeatureSettings) -> Floats:
    """Return noise whose amplitude varies like that of speech, the same on each call: float32 (samples,)."""
    samples = CHECK_FRAMES * features.hop_samples
    amplitude = 0.05 + np.sin(np.linspace(0.0, 9.0 * np.pi, samples)) ** 2
    return (0.1 * amplitude * np.random.default_rng(0).standard_normal(samples)).clip(-1, 1).astype(np.float32)


def _feature_settings(model: Any, reference: str) -> FeatureSettings:
    """Return the settings of NeMo's preprocessor.

    Raises:
        ConfigurationError: If its class or its settings are not supported here.
    """
    preprocessor = model.preprocessor
    if type(preprocessor).__name__ != "AudioToMelSpectrogramPreprocessor":
        raise ConfigurationError(not_exportable(reference, f"a model with a {type(preprocessor).__name__}"))
    featurizer = preprocessor.featurizer
    normalize = NORMALIZATIONS.get(str(featurizer.normalize or "").lower())
    supported = (
        featurizer.window is not None and featurizer.log and not featurizer.exact_pad and featurizer.frame_splicing == 1
    )
    if normalize is None or not supported or featurizer.sample_rate != SAMPLE_RATE:
        raise ConfigurationError(not_exportable(reference, "a model with unsupported features"))
    guard_value = featurizer.log_zero_guard_value_fn(torch.zeros((), dtype=torch.float32))
    return FeatureSettings(
        sample_rate=int(featurizer.sample_rate), mels=int(featurizer.nfilt), n_fft=int(featurizer.n_fft),
        window_samples=int(featurizer.win_length), hop_samples=int(featurizer.hop_length),
        preemphasis=float(featurizer.preemph or 0.0), power=float(featurizer.mag_power),
        guard="clamp" if featurizer.log_zero_guard_type == "clamp" else "add", guard_value=float(guard_value),
        normalize=normalize,
    )  # fmt: skip


def _describe(features: FeatureSettings) -> str:
    return (
        f"{features.mels} mel bands of {features.n_fft} points, window {features.window_samples}, hop"
        f" {features.hop_samples}, pre-emphasis {features.preemphasis}, normalization {features.normalize}"
    )
