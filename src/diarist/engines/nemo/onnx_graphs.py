"""Changes to exported ONNX graphs that onnxruntime and onnx-asr need before they can use them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

MIN_EXTERNAL_BYTES = 1_024
"""The minimum size of tensors that are moved out of the graph."""

ALIGNMENT_BYTES = 4_096
"""The alignment of the weights in their file, so that onnxruntime can map them into memory."""

LENGTH_INPUT = "length"
TRIMMED_SIGNAL = "audio_signal_within_length"


def externalize_weights(path: Path) -> None:
    """Move the weights of the graph at ``path`` into one file beside it, ``<name>.data``.

    A graph is a single Protocol Buffers message, which cannot exceed 2 GB. For larger models PyTorch writes one file
    per tensor. These files are copied one by one and removed, so that only one tensor is in memory at a time.

    Raises:
        OSError: If reading or writing fails.
    """
    model = onnx.load(str(path), load_external_data=False)
    _constants_to_initializers(model.graph)
    target = path.with_name(f"{path.name}.data")
    temporary = path.with_name(f"{path.name}.gathered")  # a file of the target's name may exist and be read here
    source_files: set[Path] = set()
    with temporary.open("wb") as out:
        for tensor in _tensors(model.graph):
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                content, source_file = _external_content(tensor, path.parent)
                source_files.add(source_file)
                if len(content) < MIN_EXTERNAL_BYTES:  # shapes, which onnxruntime needs before it reads other files
                    _set_inline(tensor, content)
                    continue
            elif tensor.ByteSize() < MIN_EXTERNAL_BYTES:
                continue
            else:
                content = onnx.numpy_helper.to_array(tensor).tobytes()
            out.seek(-out.tell() % ALIGNMENT_BYTES, 1)
            offset, length = out.tell(), out.write(content)
            _set_external(tensor, target.name, offset, length)
    path.write_bytes(model.SerializeToString(deterministic=True))
    for source_file in source_files:
        source_file.unlink()
    temporary.replace(target)


def add_length_input(path: Path) -> None:
    """Add the input ``length`` to the graph at ``path`` if it has none, and discard all frames beyond that length.

    NeMo exports convolutional encoders without this input and with the masks of their convolutions turned off, so
    that padding after the last frame would affect the output. For one recording at a time, discarding the padding has
    the same effect as the masks.
    """
    model = onnx.load(str(path), load_external_data=False)
    graph = model.graph
    if any(value.name == LENGTH_INPUT for value in graph.input):
        return
    signal = graph.input[0].name
    for node in graph.node:
        node.input[:] = [TRIMMED_SIGNAL if name == signal else name for name in node.input]
    graph.input.append(onnx.helper.make_tensor_value_info(LENGTH_INPUT, onnx.TensorProto.INT64, ["batch"]))
    for name, value in (("trim_start", 0), ("trim_axis", 2)):
        graph.initializer.append(onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [1], [value]))
    max_length = onnx.helper.make_node("ReduceMax", [LENGTH_INPUT], ["trim_end"], keepdims=1)
    trim = onnx.helper.make_node("Slice", [signal, "trim_start", "trim_end", "trim_axis"], [TRIMMED_SIGNAL])
    graph.node.insert(0, max_length)
    graph.node.insert(1, trim)
    path.write_bytes(model.SerializeToString(deterministic=True))


def keep_output(path: Path, name: str) -> None:
    """Remove all outputs of the graph at ``path`` except ``name``."""
    model = onnx.load(str(path), load_external_data=False)
    (kept,) = (value for value in model.graph.output if value.name == name)
    del model.graph.output[:]
    model.graph.output.append(kept)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Turn large constants into initializers, the only tensors that every runtime can read from another file."""
    kept = []
    for node in graph.node:
        tensor = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        is_external = tensor is not None and tensor.data_location == onnx.TensorProto.EXTERNAL
        if (
            node.op_type == "Constant"
            and tensor is not None
            and (is_external or tensor.ByteSize() >= MIN_EXTERNAL_BYTES)
        ):
            graph.initializer.append(tensor)
            graph.initializer[-1].name = node.output[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _tensors(graph: onnx.GraphProto) -> Iterator[Any]:
    """Yield the initializers of the graph and its subgraphs, and external constants."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t") and attribute.t.data_location == onnx.TensorProto.EXTERNAL:
                yield attribute.t
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _tensors(inner)


def _external_content(tensor: Any, folder: Path) -> tuple[bytes, Path]:
    """Return the bytes of a tensor that is stored in another file, and the path of that file."""
    location = {entry.key: entry.value for entry in tensor.external_data}
    path = folder / location["location"]
    with path.open("rb") as source:
        source.seek(int(location.get("offset", 0)))
        return source.read(int(location["length"]) if "length" in location else -1), path


def _set_inline(tensor: Any, content: bytes) -> None:
    """Store the content of the tensor in the graph."""
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.DEFAULT
    tensor.raw_data = content


def _set_external(tensor: Any, location: str, offset: int, length: int) -> None:
    """Make the tensor refer to a part of the file ``location``."""
    for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data"):
        tensor.ClearField(field)
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
