"""Small stand-ins for the real files: wheels that pip takes, checkpoints that torch would have written."""

from __future__ import annotations

import base64
import hashlib
import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

PYTHON_TAG = "py3-none-any"


def write_wheel(folder: Path, name: str, version: str, files: Mapping[str, bytes], tag: str = PYTHON_TAG) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    content = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for path, data in content.items()
    )
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in {**content, f"{info}/RECORD": f"{record}{info}/RECORD,,\n".encode()}.items():
            archive.writestr(member, data)
    return path


_STORAGE_NAMES = {np.dtype("f4"): "FloatStorage", np.dtype("i8"): "LongStorage", np.dtype("f2"): "HalfStorage"}


class _Storage:
    def __init__(self, key: str, values: np.ndarray) -> None:
        self.key = key
        self.values = values


def write_checkpoint(path: Path, tree: object, *, top: str = "archive") -> Path:
    """Write ``tree``, in which arrays stand for tensors, as ``torch.save`` would."""
    storages: list[_Storage] = []
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def rebuild() -> None: ...

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    vars(utils)["_rebuild_tensor_v2"] = rebuild
    vars(torch)["_utils"] = utils
    for name in _STORAGE_NAMES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> Any:
            if not isinstance(obj, _Storage):
                return None
            kind = getattr(torch, _STORAGE_NAMES[obj.values.dtype])
            return ("storage", kind, obj.key, "cpu", obj.values.size)

        def reducer_override(self, obj: object) -> Any:
            if not isinstance(obj, np.ndarray):
                return NotImplemented
            storage = _Storage(str(len(storages)), np.ascontiguousarray(obj).reshape(-1))
            storages.append(storage)
            strides = tuple(int(s) // obj.itemsize for s in np.ascontiguousarray(obj).strides[: obj.ndim])
            return rebuild, (storage, 0, obj.shape, strides, False, OrderedDict())

    stream = io.BytesIO()
    with mock.patch.dict(sys.modules, {"torch": torch, "torch._utils": utils}):
        Pickler(stream, protocol=2).dump(tree)
    return write_archive(path, stream.getvalue(), {s.key: s.values.tobytes() for s in storages}, top=top)


def write_archive(path: Path, data_pkl: bytes, storages: Mapping[str, bytes], *, top: str = "archive") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{top}/data.pkl", data_pkl)
        for key, data in storages.items():
            archive.writestr(f"{top}/data/{key}", data)
        archive.writestr(f"{top}/version", "3\n")
    return path
