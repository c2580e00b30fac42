"""Speaker embedding models with the names, inputs and outputs of the published ONNX files, and random weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from diarist.models import load_catalog
from diarist.models.catalog import Model
from support.loopback_hub import LoopbackHub, serving_hub

HIDDEN = 64


@dataclass(frozen=True, slots=True)
class Form:
    """What the export scripts of WeSpeaker, sherpa-onnx and NeMo write."""

    source: str
    """The name of the input, float32 (batch, frames, 80), or (batch, 80, frames) in NeMo."""

    target: str
    """The name of the output, float32 (batch, values)."""

    values: int
    metadata: Mapping[str, str]
    opset: int
    nemo: bool = False
    """Whether there is an input for the number of frames, and an output that classifies speakers."""


FORMS: Mapping[str, Form] = {
    "wespeaker-resnet34-lm": Form("feats", "embs", 256, {}, 14),
    "eres2netv2": Form(
        "x",
        "embedding",
        192,
        {
            "framework": "3d-speaker", "language": "Chinese", "sample_rate": "16000", "output_dim": "192",
            "normalize_samples": "1", "feature_normalize_type": "global-mean",
        },
        13,
    ),
    "titanet-large": Form(
        "audio_signal",
        "embs",
        192,
        {
            "framework": "nemo", "language": "English", "sample_rate": "16000", "output_dim": "192", "feat_dim": "80",
            "feature_normalize_type": "per_feature", "window_size_ms": "25", "window_stride_ms": "10",
            "window_type": "hann",
        },
        17,
        nemo=True,
    ),
}  # fmt: skip


def graph(form: Form, *, mels: int = 80, seed: int = 0) -> bytes:
    """Return a graph: a linear layer, the positive part of it, its mean over the frames, and another linear layer."""
    rng = np.random.default_rng(seed)
    integers = {"zero": 0, "two": 2} if form.nemo else {}
    weights = {"inner": rng.normal(0, mels**-0.5, (mels, HIDDEN)), "outer": rng.normal(0, 1, (HIDDEN, form.values))}
    inputs = [helper.make_tensor_value_info(form.source, TensorProto.FLOAT, ["B", "T", mels])]
    outputs = [helper.make_tensor_value_info(form.target, TensorProto.FLOAT, ["B", form.values])]
    nodes = [helper.make_node("Identity", [form.source], ["rows"])]
    if form.nemo:
        weights["classes"] = rng.normal(0, 1, (form.values, 10))
        inputs = [
            helper.make_tensor_value_info(form.source, TensorProto.FLOAT, ["B", mels, "T"]),
            helper.make_tensor_value_info("length", TensorProto.INT64, ["B"]),
        ]
        outputs.insert(0, helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", 10]))
        nodes = [
            helper.make_node("ReduceMax", ["length"], ["longest"], keepdims=1),
            helper.make_node("Slice", [form.source, "zero", "longest", "two"], ["columns"]),
            helper.make_node("Transpose", ["columns"], ["rows"], perm=[0, 2, 1]),
            helper.make_node("MatMul", [form.target, "classes"], ["logits"]),
        ]
    nodes[3:3] = [
        helper.make_node("MatMul", ["rows", "inner"], ["mixed"]),
        helper.make_node("Relu", ["mixed"], ["positive"]),
        helper.make_node("ReduceMean", ["positive"], ["pooled"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["pooled", "outer"], [form.target]),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes, "main_graph", inputs, outputs,
            [
                *(numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()),
                *(numpy_helper.from_array(np.array([value], np.int64), name) for name, value in integers.items()),
            ],
        ),
        opset_imports=[helper.make_opsetid("", form.opset)], ir_version=8,
    )  # fmt: skip
    helper.set_model_props(model, dict(form.metadata))
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def with_this_file(model: Model, content: bytes) -> Model:
    """Return an entry of the catalog with the size and the hash of this file instead of the published one."""
    (file,) = model.files
    return replace(model, files=(replace(file, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()),))


@contextmanager
def published(patch: pytest.MonkeyPatch, graphs: Mapping[str, bytes]) -> Iterator[LoopbackHub]:
    """Serve graphs, by the names of the models, on the hub of this process, and put their hashes into the catalog."""
    from huggingface_hub import constants

    from diarist.models import user_catalog

    real = load_catalog()
    models = {**real, **{name: with_this_file(real[name], content) for name, content in graphs.items()}}
    repositories = {str(real[name].hub): {real[name].files[0].name: content} for name, content in graphs.items()}
    with serving_hub(repositories) as hub:
        patch.setattr(user_catalog, "load_catalog", lambda: models)
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield hub
