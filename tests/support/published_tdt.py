"""A repository of a Parakeet TDT model on the hub, with the names, layout, inputs and outputs of the published one.

The layers are small and their weights are random. No PyTorch is needed.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from diarist.models.catalog import Model

CONFIG = b'{\n    "model_type": "nemo-conformer-tdt",\n    "features_size": 128,\n    "subsampling_factor": 8\n}'
"""The published file, byte for byte: its SHA-256 is the one in the catalog."""

MELS = 128
SUBSAMPLING = 8
LAYERS = 2
"""The layers of the prediction network."""

DURATIONS = 5
SPECIALS = ("<unk>", "<|nospeech|>", "<pad>", "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>")
PIECES = (
    "▁the", "▁a", "▁is", "▁was", "▁and", "▁go", "▁so", "▁we", "s", "t", "ing", "er", "ed", "n't", ".", ",", "?", "▁",
    "e", "o", "i", "▁über", "▁мы", "▁čas",
)  # fmt: skip
VOCABULARY = (*SPECIALS, *PIECES, "<blk>")

WIDTH, HIDDEN = 32, 16

Value: TypeAlias = tuple[str, int, list[Any]]
"""The name, the type and the shape of an input or an output."""


def repository(seed: int = 0) -> Mapping[str, bytes]:
    """Return the files of the repository: int8 and fp32 graphs, and files that Diarist does not use."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        graphs = {"encoder-model": _encoder(rng), "decoder_joint-model": _decoder_joint(rng)}
        for name, graph in graphs.items():
            onnx.checker.check_model(graph, full_check=True)
            onnx.save_model(graph, str(folder / f"{name}.onnx"))
            quantize_dynamic(
                folder / f"{name}.onnx", folder / f"{name}.int8.onnx", weight_type=QuantType.QUInt8
            )  # as the publisher did
        onnx.save_model(
            graphs["encoder-model"], str(folder / "encoder-model.onnx"), save_as_external_data=True,
            location="encoder-model.onnx.data", size_threshold=64,
        )  # fmt: skip
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
    vocabulary = "".join(f"{token} {number}\n" for number, token in enumerate(VOCABULARY))
    return files | {
        "vocab.txt": vocabulary.encode(),
        "config.json": CONFIG,
        "README.md": b"# A model",
        "nemo128.onnx": b"not used",
    }


def with_these_files(model: Model, files: Mapping[str, bytes]) -> Model:
    """Return an entry of the catalog with the sizes and the hashes of these files instead of the published ones."""
    from dataclasses import replace

    return replace(
        model,
        files=tuple(
            replace(file, size_bytes=len(files[file.name]), sha256=hashlib.sha256(files[file.name]).hexdigest())
            for file in model.files
        ),
    )


def catalog_text(models: Sequence[Model]) -> str:
    """Return these TDT models as the text of a catalog."""
    return "\n".join(line for model in models for line in _entry(model))


def _entry(model: Model) -> list[str]:
    given = {
        "name": model.name, "role": model.role, "kind": model.kind, "licence": model.licence, "holder": model.holder,
        "origin": model.origin, "revision": model.revision, "hub": model.hub, "features": model.features,
        "quantization": model.quantization,
    }  # fmt: skip
    lines = ["[[model]]", *(f'{key} = "{value}"' for key, value in given.items() if value is not None)]
    lines += [f"frame_step = {model.frame_step}", f"languages = {list(model.languages)}"]
    for file in model.files:
        lines += ["[[model.file]]", f'name = "{file.name}"', f"bytes = {file.size_bytes}", f'sha256 = "{file.sha256}"']
    return lines


def _encoder(rng: np.random.Generator) -> onnx.ModelProto:
    """One convolution with the stride of the subsampling, and one linear layer."""
    weights = {
        "kernel": rng.normal(0, 0.1, (WIDTH, MELS, SUBSAMPLING)), "matrix": rng.normal(0, 1, (WIDTH, WIDTH)),
    }  # fmt: skip
    integers = {"one": [1], "eight": [SUBSAMPLING]}
    nodes = [
        helper.make_node(
            "Conv", ["audio_signal", "kernel"], ["convolved"],
            kernel_shape=[SUBSAMPLING], strides=[SUBSAMPLING], pads=[0, SUBSAMPLING - 1],
        ),
        helper.make_node("Tanh", ["convolved"], ["bounded"]),
        helper.make_node("Transpose", ["bounded"], ["rows"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["rows", "matrix"], ["mixed"]),
        helper.make_node("Transpose", ["mixed"], ["outputs"], perm=[0, 2, 1]),
        helper.make_node("Sub", ["length", "one"], ["before"]),
        helper.make_node("Div", ["before", "eight"], ["steps"]),
        helper.make_node("Add", ["steps", "one"], ["encoded_lengths"]),
    ]  # fmt: skip
    inputs: list[Value] = [
        ("audio_signal", TensorProto.FLOAT, ["batch", MELS, "frames"]),
        ("length", TensorProto.INT64, ["batch"]),
    ]
    outputs: list[Value] = [
        ("outputs", TensorProto.FLOAT, ["batch", WIDTH, "steps"]), ("encoded_lengths", TensorProto.INT64, ["batch"]),
    ]  # fmt: skip
    return _model("encoder", nodes, inputs, outputs, weights, integers)


def _decoder_joint(rng: np.random.Generator) -> onnx.ModelProto:
    """The prediction network (an embedding and two LSTM layers) and the joint network."""
    size = len(VOCABULARY)
    bias = np.zeros(size + DURATIONS)
    bias[size - 1] = 6.0  # the blank
    bias[size] = -4.0  # a duration of 0, which recognizes several tokens in one frame
    weights: dict[str, Any] = {
        "embedding": rng.normal(0, 1, (size, HIDDEN)), "encoder_matrix": rng.normal(0, 0.3, (WIDTH, HIDDEN)),
        "prediction_matrix": rng.normal(0, 0.3, (HIDDEN, HIDDEN)),
        "joint_matrix": rng.normal(0, 2, (HIDDEN, size + DURATIONS)), "joint_bias": bias,
    }  # fmt: skip
    nodes = [
        helper.make_node("Gather", ["embedding", "targets"], ["embedded"]),
        helper.make_node("Transpose", ["embedded"], ["layer_0"], perm=[1, 0, 2]),
        *(helper.make_node("Split", [f"input_states_{state}"], [f"state_{state}_{layer}" for layer in range(LAYERS)],
                           axis=0, num_outputs=LAYERS) for state in (1, 2)),
    ]  # fmt: skip
    for layer in range(LAYERS):
        weights |= {
            f"input_{layer}": rng.normal(0, 0.3, (1, 4 * HIDDEN, HIDDEN)),
            f"recurrent_{layer}": rng.normal(0, 0.3, (1, 4 * HIDDEN, HIDDEN)),
        }
        nodes += [
            helper.make_node(
                "LSTM",
                [
                    f"layer_{layer}",
                    f"input_{layer}",
                    f"recurrent_{layer}",
                    "",
                    "",
                    f"state_1_{layer}",
                    f"state_2_{layer}",
                ],
                [f"directions_{layer}", f"hidden_{layer}", f"cell_{layer}"],
                hidden_size=HIDDEN,
            ),
            helper.make_node("Squeeze", [f"directions_{layer}", "one"], [f"layer_{layer + 1}"]),
        ]
    nodes += [
        helper.make_node("Transpose", [f"layer_{LAYERS}"], ["predicted"], perm=[1, 0, 2]),
        helper.make_node("MatMul", ["predicted", "prediction_matrix"], ["prediction"]),
        helper.make_node("Unsqueeze", ["prediction", "one"], ["prediction_grid"]),
        helper.make_node("Transpose", ["encoder_outputs"], ["frames"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["frames", "encoder_matrix"], ["encoded"]),
        helper.make_node("Unsqueeze", ["encoded", "two"], ["encoded_grid"]),
        helper.make_node("Add", ["encoded_grid", "prediction_grid"], ["joined"]),
        helper.make_node("Relu", ["joined"], ["positive"]),
        helper.make_node("MatMul", ["positive", "joint_matrix"], ["logits"]),
        helper.make_node("Add", ["logits", "joint_bias"], ["outputs"]),
        helper.make_node("Identity", ["target_length"], ["prednet_lengths"]),
        *(helper.make_node("Concat", [f"{kind}_{layer}" for layer in range(LAYERS)], [f"output_states_{state}"], axis=0)
          for state, kind in ((1, "hidden"), (2, "cell"))),
    ]  # fmt: skip
    states = [LAYERS, "batch", HIDDEN]
    inputs: list[Value] = [
        ("encoder_outputs", TensorProto.FLOAT, ["batch", WIDTH, "steps"]),
        ("targets", TensorProto.INT32, ["batch", "tokens"]), ("target_length", TensorProto.INT32, ["batch"]),
        ("input_states_1", TensorProto.FLOAT, states), ("input_states_2", TensorProto.FLOAT, states),
    ]  # fmt: skip
    outputs: list[Value] = [
        ("outputs", TensorProto.FLOAT, ["batch", "steps", "tokens", size + DURATIONS]),
        ("prednet_lengths", TensorProto.INT32, ["batch"]),
        ("output_states_1", TensorProto.FLOAT, states), ("output_states_2", TensorProto.FLOAT, states),
    ]  # fmt: skip
    return _model("decoder", nodes, inputs, outputs, weights, {"one": [1], "two": [2]})


def _model(
    name: str,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    weights: Mapping[str, Any],
    integers: Mapping[str, Sequence[int]],
) -> onnx.ModelProto:
    constants = [
        *(numpy_helper.from_array(np.asarray(values, np.float32), key) for key, values in weights.items()),
        *(numpy_helper.from_array(np.asarray(values, np.int64), key) for key, values in integers.items()),
    ]
    graph = helper.make_graph(
        nodes, name, [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs], constants,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
