"""NeMo models with random weights, of the real architectures and of any size, for tests and benchmarks.

Their output is meaningless, but the code that runs, its speed and its memory are those of real models. Published
weights are not needed. The seed is fixed, so the models are the same each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.random_tokenizers import ALPHABET, canary_special_tokens, tokenizer

RATE = 16_000


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of a model's layers: small in tests, and as published in benchmarks."""

    width: int = 32
    """The width of the Conformer."""

    layers: int = 2
    heads: int = 4
    mels: int = 80
    channels: int = 32
    """The channels of the subsampling."""

    prediction: int = 32
    """The width of the transducer's prediction and joint networks."""

    prediction_layers: int = 1
    pieces: int = 40
    """The number of tokens of the tokenizer."""

    diarizer_width: int = 32
    """The width of Sortformer's Transformer."""

    diarizer_layers: int = 2
    filters: int = 32
    """The filters of the speaker and VAD models."""

    embedding: int = 32


TINY = Size()

PARAKEET_06B = Size(
    width=1024, layers=24, heads=8, mels=128, channels=256, prediction=640, prediction_layers=2, pieces=8192
)
"""The size of ``nvidia/parakeet-tdt-0.6b-v3``, from its configuration."""

SORTFORMER_4SPK = Size(width=512, layers=17, heads=8, mels=128, channels=256, diarizer_width=192, diarizer_layers=18)
"""The size of ``nvidia/diar_streaming_sortformer_4spk-v2.1``."""

TITANET_LARGE = Size(filters=1024, embedding=192)
"""The size of ``titanet_large``."""

MARBLENET = Size(filters=128)
"""The size of the VAD models."""


def ctc(folder: Path, size: Size = TINY) -> Any:
    """``EncDecCTCModelBPE``: a FastConformer with a CTC head."""
    from nemo.collections.asr.models import EncDecCTCModelBPE

    decoder: dict[str, object] = {
        "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
        "feat_in": None, "num_classes": -1, "vocabulary": [],
    }  # fmt: skip
    return _talkative(_build(EncDecCTCModelBPE, {**_recognizer(folder, size), "decoder": decoder}))


def character_ctc(size: Size = TINY) -> Any:
    """``EncDecCTCModel``: a convolutional encoder with a character vocabulary, like QuartzNet."""
    from nemo.collections.asr.models import EncDecCTCModel

    labels = [" ", *sorted(ALPHABET), "'"]
    parts = {
        "sample_rate": RATE, "labels": labels, "preprocessor": _mel(80), "encoder": _convolutions(size, 80),
        "decoder": {
            "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
            "feat_in": size.filters, "num_classes": len(labels), "vocabulary": labels,
        },
        "decoding": {"strategy": "greedy_batch"}, "validation_ds": _no_data(labels=labels),
    }  # fmt: skip
    return _talkative(_build(EncDecCTCModel, parts))


def rnnt(folder: Path, size: Size = TINY) -> Any:
    """``EncDecRNNTBPEModel``: a FastConformer transducer."""
    from nemo.collections.asr.models import EncDecRNNTBPEModel

    return _talkative(_build(EncDecRNNTBPEModel, {**_recognizer(folder, size), **_transducer(size)}))


def tdt(folder: Path, size: Size = TINY) -> Any:
    """``EncDecRNNTBPEModel`` with durations, like Parakeet TDT."""
    from nemo.collections.asr.models import EncDecRNNTBPEModel

    durations = [0, 1, 2, 3, 4]
    parts = _transducer(size, extra=len(durations))
    parts["model_defaults"]["tdt_durations"] = durations
    parts["model_defaults"]["num_tdt_durations"] = len(durations)
    parts["decoding"] |= {"model_type": "tdt", "durations": durations}
    parts["loss"] = {
        "loss_name": "tdt",
        "tdt_kwargs": {"fastemit_lambda": 0.0, "clamp": -1.0, "durations": durations, "sigma": 0.02, "omega": 0.1},
    }
    return _talkative(_build(EncDecRNNTBPEModel, {**_recognizer(folder, size), **parts}))


def hybrid(folder: Path, size: Size = TINY) -> Any:
    """``EncDecHybridRNNTCTCBPEModel``: a transducer and a CTC head over one encoder."""
    from nemo.collections.asr.models import EncDecHybridRNNTCTCBPEModel

    head: dict[str, object] = {
        "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
        "feat_in": None, "num_classes": -1, "vocabulary": [],
    }  # fmt: skip
    auxiliary = {
        "ctc_loss_weight": 0.3,
        "ctc_reduction": "mean_batch",
        "decoder": head,
        "decoding": {"strategy": "greedy_batch"},
    }
    parts = {**_recognizer(folder, size), **_transducer(size), "aux_ctc": auxiliary}
    return _talkative(_build(EncDecHybridRNNTCTCBPEModel, parts))


def canary(folder: Path, size: Size = TINY) -> Any:
    """``EncDecMultiTaskModel``: a FastConformer and a Transformer that outputs timestamps, like Canary flash."""
    from nemo.collections.asr.models import EncDecMultiTaskModel

    tokenizers = {
        "spl_tokens": {"dir": str(canary_special_tokens(folder / "special")), "type": "bpe"},
        "en": {"dir": str(tokenizer(folder / "en", size.pieces)), "type": "bpe"},
    }
    layer = {"attn_score_dropout": 0.0, "attn_layer_dropout": 0.0, "ffn_dropout": 0.0, "hidden_act": "relu"}
    parts = {
        "sample_rate": RATE, "prompt_format": "canary2", "preprocessor": _mel(size.mels), "encoder": _conformer(size),
        "restore_timestamps_model": False,  # otherwise NeMo looks for it in the archive that was loaded last
        "model_defaults": dict.fromkeys(("asr_enc_hidden", "lm_enc_hidden", "lm_dec_hidden"), size.width),
        "tokenizer": {
            "dir": None, "type": "agg", "langs": tokenizers,
            "custom_tokenizer": {
                "_target_": "nemo.collections.common.tokenizers.canary_tokenizer.CanaryTokenizer", "tokenizers": None,
            },
        },
        "transf_encoder": {
            "_target_": "nemo.collections.asr.modules.transformer.transformer_encoders.TransformerEncoder",
            "num_layers": 0, "hidden_size": size.width, "inner_size": size.width * 4, "num_attention_heads": size.heads,
            **layer,
        },
        "transf_decoder": {
            "_target_": "nemo.collections.asr.modules.transformer.get_nemo_transformer", "model_name": None,
            "pretrained": False, "encoder": None, "pre_ln_final_layer_norm": True,
            "config_dict": {
                "max_sequence_length": 512, "num_token_types": 0, "embedding_dropout": 0.0, "hidden_size": size.width,
                "learn_positional_encodings": False, "inner_size": size.width * 4, "num_layers": size.layers,
                "num_attention_heads": size.heads, "pre_ln": True, "vocab_size": None, **layer,
            },
        },
        "head": {
            "_target_": "nemo.collections.asr.parts.submodules.token_classifier.TokenClassifier", "num_layers": 1,
            "activation": "relu", "log_softmax": True, "hidden_size": size.width, "num_classes": None, "dropout": 0.0,
            "use_transformer_init": True,
        },
        "decoding": {"strategy": "greedy", "greedy": {"temperature": None, "n_samples": 1}},
        "loss": {
            "_target_": "nemo.collections.common.losses.smoothed_cross_entropy.SmoothedCrossEntropyLoss",
            "label_smoothing": 0.0, "pad_id": None,
        },
    }  # fmt: skip
    return _build(EncDecMultiTaskModel, parts)


def speaker(size: Size = TINY) -> Any:
    """``EncDecSpeakerLabelModel``: a model like TitaNet."""
    from nemo.collections.asr.models import EncDecSpeakerLabelModel

    wide = size.filters * 3
    layers = [(size.filters, 3, 1), (size.filters, 7, 3), (size.filters, 11, 3), (size.filters, 15, 3), (wide, 1, 1)]
    encoder = {
        "_target_": "nemo.collections.asr.modules.ConvASREncoder", "feat_in": 80, "activation": "relu",
        "conv_mask": True,
        "jasper": [_block(width, kernel, times, residual=times > 1, se=True) for width, kernel, times in layers],
    }  # fmt: skip
    decoder = {
        "_target_": "nemo.collections.asr.modules.SpeakerDecoder", "feat_in": wide, "num_classes": 10,
        "pool_mode": "attention", "emb_sizes": size.embedding,
    }  # fmt: skip
    data = {"sample_rate": RATE, "shuffle": False, "manifest_filepath": None, "labels": None, "batch_size": 1}
    parts = {
        "sample_rate": RATE, "preprocessor": _mel(80), "encoder": encoder, "decoder": decoder,
        "train_ds": data, "validation_ds": data,
    }  # fmt: skip
    return _build(EncDecSpeakerLabelModel, parts)


def frame_vad(size: Size = TINY) -> Any:
    """``EncDecFrameClassificationModel``: a MarbleNet that classifies frames of 20 ms."""
    from nemo.collections.asr.models.classification_models import EncDecFrameClassificationModel

    parts = {**_vad(size), "preprocessor": _mel(80, normalize="None")}
    parts["encoder"]["jasper"][0]["stride"] = [2]
    del parts["train_ds"], parts["validation_ds"]  # this class requires data in them
    parts["decoder"] = {
        "_target_": "nemo.collections.common.parts.MultiLayerPerceptron",
        "hidden_size": size.filters, "num_classes": 2, "num_layers": 1, "activation": "relu", "log_softmax": False,
    }  # fmt: skip
    from support.random_vad import discerning  # this file can be imported without PyTorch

    return discerning(_build(EncDecFrameClassificationModel, parts))


def segment_vad(size: Size = TINY) -> Any:
    """``EncDecClassificationModel``: a MarbleNet that classifies windows of 0.63 s."""
    from nemo.collections.asr.models import EncDecClassificationModel

    mfcc = {
        "_target_": "nemo.collections.asr.modules.AudioToMFCCPreprocessor",
        "window_size": 0.025, "window_stride": 0.01, "window": "hann", "n_mels": 64, "n_mfcc": 64, "n_fft": 512,
    }  # fmt: skip
    parts = {**_vad(size, mels=64), "preprocessor": mfcc}
    parts["decoder"] = {
        "_target_": "nemo.collections.asr.modules.ConvASRDecoderClassification",
        "feat_in": size.filters, "num_classes": 2, "return_logits": True, "pooling_type": "avg",
    }  # fmt: skip
    return _build(EncDecClassificationModel, parts)


def sortformer(size: Size = TINY, *, streaming: bool = True, speakers: int = 4) -> Any:
    """``SortformerEncLabelModel``: end-to-end diarization."""
    from nemo.collections.asr.models import SortformerEncLabelModel

    data = {"manifest_filepath": None, "sample_rate": RATE, "batch_size": 1, "num_spks": speakers,
            "soft_label_thres": 0.5, "session_len_sec": 90, "validation_mode": True, "num_workers": 0}  # fmt: skip
    parts: dict[str, Any] = {
        "sample_rate": RATE, "max_num_of_spks": speakers, "pil_weight": 0.5, "ats_weight": 0.5,
        "streaming_mode": streaming, "model_defaults": {"fc_d_model": size.width, "tf_d_model": size.diarizer_width},
        "preprocessor": _mel(size.mels, normalize="NA" if streaming else "per_feature"),
        "sortformer_modules": {
            "_target_": "nemo.collections.asr.modules.sortformer_modules.SortformerModules",
            "num_spks": speakers, "dropout_rate": 0.5, "fc_d_model": size.width, "tf_d_model": size.diarizer_width,
        },
        "encoder": _conformer(size),
        "transformer_encoder": {
            "_target_": "nemo.collections.asr.modules.transformer.transformer_encoders.TransformerEncoder",
            "num_layers": size.diarizer_layers, "hidden_size": size.diarizer_width,
            "inner_size": size.diarizer_width * 4, "num_attention_heads": min(8, size.diarizer_width // 8),
            "attn_score_dropout": 0.5, "attn_layer_dropout": 0.5, "ffn_dropout": 0.5, "hidden_act": "relu",
            "pre_ln": False, "pre_ln_final_layer_norm": True,
        },
        "loss": {"_target_": "nemo.collections.asr.losses.bce_loss.BCELoss", "weight": None, "reduction": "mean"},
        "train_ds": data, "validation_ds": data, "test_ds": data, "optim": {"name": "adamw", "lr": 1e-4},
    }  # fmt: skip
    if streaming:
        parts["sortformer_modules"] |= {
            "subsampling_factor": 8, "spkcache_len": 188, "fifo_len": 188, "chunk_len": 188,
            "spkcache_update_period": 188, "chunk_left_context": 1, "chunk_right_context": 1,
        }  # fmt: skip
    return _build(SortformerEncLabelModel, parts)


def _build(kind: Any, parts: Mapping[str, Any]) -> Any:
    import torch
    from omegaconf import OmegaConf

    with _suppress_warnings(), torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(cfg=OmegaConf.create(dict(parts))).eval()


def _talkative(model: Any) -> Any:
    from support.random_asr import talkative  # this file can be imported without PyTorch

    return talkative(model)


@contextmanager
def _suppress_warnings() -> Iterator[None]:
    """Suppress NeMo's warnings about parts of a configuration that are needed only for training."""
    import logging

    from nemo.utils import logging as nemo_logging

    before = nemo_logging.getEffectiveLevel()
    nemo_logging.setLevel(logging.ERROR)
    try:
        yield
    finally:
        nemo_logging.setLevel(before)


def _mel(mels: int, normalize: str = "per_feature") -> dict[str, Any]:
    return {
        "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
        "sample_rate": RATE, "normalize": normalize, "window_size": 0.025, "window_stride": 0.01, "window": "hann",
        "features": mels, "n_fft": 512, "frame_splicing": 1, "dither": 1e-5, "pad_to": 0,
    }  # fmt: skip


def _conformer(size: Size) -> dict[str, Any]:
    return {
        "_target_": "nemo.collections.asr.modules.ConformerEncoder", "feat_in": size.mels, "feat_out": -1,
        "n_layers": size.layers, "d_model": size.width, "subsampling": "dw_striding", "subsampling_factor": 8,
        "subsampling_conv_channels": size.channels, "causal_downsampling": False, "ff_expansion_factor": 4,
        "self_attention_model": "rel_pos", "n_heads": size.heads, "att_context_size": [-1, -1], "xscaling": False,
        "untie_biases": True, "pos_emb_max_len": 5000, "conv_kernel_size": 9, "conv_norm_type": "batch_norm",
        "conv_context_size": None, "dropout": 0.1, "dropout_pre_encoder": 0.1, "dropout_emb": 0.0, "dropout_att": 0.1,
    }  # fmt: skip


def _recognizer(folder: Path, size: Size) -> dict[str, Any]:
    return {
        "sample_rate": RATE, "tokenizer": {"dir": str(tokenizer(folder, size.pieces)), "type": "bpe"},
        "preprocessor": _mel(size.mels), "encoder": _conformer(size), "decoding": {"strategy": "greedy_batch"},
        "validation_ds": _no_data(),
    }  # fmt: skip


def _transducer(size: Size, extra: int = 0) -> dict[str, Any]:
    hidden = {"pred_hidden": size.prediction, "enc_hidden": size.width, "joint_hidden": size.prediction}
    return {
        "model_defaults": dict(hidden),
        "decoder": {
            "_target_": "nemo.collections.asr.modules.RNNTDecoder", "normalization_mode": None,
            "random_state_sampling": False, "blank_as_pad": True,
            "prednet": {"pred_hidden": size.prediction, "pred_rnn_layers": size.prediction_layers, "dropout": 0.2},
        },
        "joint": {
            "_target_": "nemo.collections.asr.modules.RNNTJoint", "log_softmax": None, "fuse_loss_wer": False,
            "fused_batch_size": 4, "num_extra_outputs": extra,
            "jointnet": {
                "joint_hidden": size.prediction, "encoder_hidden": size.width, "pred_hidden": size.prediction,
                "activation": "relu", "dropout": 0.2,
            },
        },
        "decoding": {"strategy": "greedy_batch", "greedy": {"max_symbols": 1}},
        "loss": {"loss_name": "default"},
    }  # fmt: skip


def _convolutions(size: Size, mels: int) -> dict[str, Any]:
    blocks = [
        _block(size.filters, 11, 1, stride=2),
        _block(size.filters, 13, 2, residual=True),
        _block(size.filters, 1, 1),
    ]
    return {
        "_target_": "nemo.collections.asr.modules.ConvASREncoder", "feat_in": mels, "activation": "relu",
        "conv_mask": True, "jasper": blocks,
    }  # fmt: skip


def _vad(size: Size, mels: int = 80) -> dict[str, Any]:
    data = {"manifest_filepath": None, "sample_rate": RATE, "labels": ["background", "speech"], "shuffle": False,
            "batch_size": 1}  # fmt: skip
    half = max(size.filters // 2, 1)
    blocks = [
        _block(size.filters, 11, 1), _block(half, 13, 2, residual=True), _block(half, 15, 2, residual=True),
        _block(half, 17, 2, residual=True), _block(size.filters, 29, 1, dilation=2), _block(size.filters, 1, 1),
    ]  # fmt: skip
    return {
        "sample_rate": RATE, "labels": ["background", "speech"], "num_classes": 2,
        "encoder": {
            "_target_": "nemo.collections.asr.modules.ConvASREncoder", "feat_in": mels, "activation": "relu",
            "conv_mask": True, "jasper": blocks,
        },
        "train_ds": data, "validation_ds": data,
        "loss": {"_target_": "nemo.collections.common.losses.CrossEntropyLoss"},
    }  # fmt: skip


def _block(
    filters: int,
    kernel: int,
    repeat: int,
    *,
    residual: bool = False,
    stride: int = 1,
    dilation: int = 1,
    se: bool = False,
) -> dict[str, Any]:
    return {
        "filters": filters, "repeat": repeat, "kernel": [kernel], "stride": [stride], "dilation": [dilation],
        "dropout": 0.0, "residual": residual, "separable": kernel > 1, "se": se, "se_context_size": -1,
    }  # fmt: skip


def _no_data(**more: Any) -> dict[str, Any]:
    return {
        "manifest_filepath": None, "sample_rate": RATE, "batch_size": 1, "shuffle": False,
        "use_start_end_token": False, "num_workers": 0, **more,
    }  # fmt: skip
