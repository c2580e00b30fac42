"""Reading the tensors of a PyTorch checkpoint, without PyTorch and without running code from the file.

A checkpoint is a zip archive: ``<top>/data.pkl`` is a pickle of the object tree, and ``<top>/data/<key>`` is the raw
memory of one storage. A pickle names functions to call, so ordinary unpickling runs code. This module supports only
three kinds of names (the tensor builder, the storage types and ``OrderedDict``) and replaces every other name with a
placeholder that does nothing.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from diarist.errors import ModelCorrupt

MAX_PICKLE_BYTES = 16 * 2**20
"""The maximum size of the object tree. The largest one in the catalog has 133 kB; this limit is still harmless."""

_STORAGE_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


@dataclass(frozen=True, slots=True, eq=False)
class _StorageType:
    """Replaces a PyTorch storage class in the pickle."""

    dtype: np.dtype[Any]

    def __setstate__(self, _state: object) -> NoReturn:
        raise pickle.UnpicklingError("a storage type takes no state")


class _Placeholder:
    """Replaces any unsupported object in the pickle: it accepts every argument and every state, and does nothing."""

    __slots__ = ()

    def __new__(cls, *_args: object, **_options: object) -> Self:
        return super().__new__(cls)

    def __call__(self, *_args: object, **_options: object) -> _Placeholder:
        return self

    def __setstate__(self, _state: object) -> None:
        pass

    def __setitem__(self, _key: object, _value: object) -> None:
        pass

    def append(self, _item: object) -> None:
        pass

    def extend(self, _items: object) -> None:
        pass

    def add(self, _item: object) -> None:
        pass


_PLACEHOLDER = _Placeholder()


class _RebuildTensor:
    """Replaces ``torch._utils._rebuild_tensor_v2``: it copies a view of a storage, and rejects views beyond its end."""

    __slots__ = ()

    def __call__(
        self, storage: object, offset: object, shape: object, strides: object, *_rest: object
    ) -> NDArray[np.generic]:
        if not isinstance(storage, np.ndarray):
            raise pickle.UnpicklingError("a tensor without a storage")
        sizes, steps = _nonnegative_integers(shape), _nonnegative_integers(strides)
        (first,) = _nonnegative_integers((offset,))
        if len(sizes) != len(steps):
            raise pickle.UnpicklingError("a tensor whose shape and strides differ in length")
        # as_strided does not check bounds: a view beyond its storage would read other memory.
        last = first + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
        if math.prod(sizes) > 0 and last >= storage.size:
            raise pickle.UnpicklingError("a tensor that exceeds its storage")
        if math.prod(sizes) > storage.size:
            raise pickle.UnpicklingError("a tensor larger than its storage")
        strides_bytes = tuple(step * storage.itemsize for step in steps)
        return np.lib.stride_tricks.as_strided(storage[first:], sizes, strides_bytes).copy()

    def __setstate__(self, _state: object) -> NoReturn:
        raise pickle.UnpicklingError("a function takes no state")


_REBUILD_TENSOR = _RebuildTensor()


def _nonnegative_integers(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple) or not all(type(value) is int and value >= 0 for value in values):
        raise pickle.UnpicklingError("a tensor whose shape is not made of nonnegative integers")
    return values


class _Unpickler(pickle.Unpickler):
    """Unpickles tensors in plain containers, and nothing else."""

    def __init__(self, data: bytes, archive: zipfile.ZipFile, top: str) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._archive = archive
        self._top = top
        self._storages: dict[str, NDArray[np.generic]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _REBUILD_TENSOR
        if module == "torch" and name in _STORAGE_DTYPES:
            return _StorageType(np.dtype(_STORAGE_DTYPES[name]))
        # The class, not an instance: the pickle may build objects of it (NEWOBJ) as well as call it.
        return _Placeholder

    def persistent_load(self, pid: object) -> object:
        match pid:
            case ("storage", _StorageType(dtype=dtype), str(key), str(), int(numel)):
                if key not in self._storages:
                    self._storages[key] = self._storage(key, dtype, numel)
                return self._storages[key]
            case _:
                return _PLACEHOLDER

    def _storage(self, key: str, dtype: np.dtype[Any], numel: int) -> NDArray[np.generic]:
        info = self._archive.getinfo(f"{self._top}/data/{key}")
        if info.file_size != numel * dtype.itemsize:
            raise pickle.UnpicklingError(f"storage {key} has {info.file_size} bytes, not {numel * dtype.itemsize}")
        return np.frombuffer(self._archive.read(info), dtype=dtype)


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors of a checkpoint by name.

    The checkpoint is a plain state dict, or a training checkpoint that contains one as ``state_dict``. No code in the
    file is run. The arrays own their memory and have the shape and dtype of the tensors.

    Raises:
        ModelCorrupt: If the file is not a PyTorch zip checkpoint, is damaged, or contains no tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            info = _object_tree(archive)
            tree = _Unpickler(archive.read(info), archive, info.filename.removesuffix("/data.pkl")).load()
    # A damaged or malicious pickle can make the unpickler raise almost any exception; all of them mean a bad file.
    except Exception as error:
        raise ModelCorrupt(f"{path} cannot be read as a PyTorch checkpoint: {error}") from error
    tensors = dict(_named_tensors(tree))
    if not tensors:
        raise ModelCorrupt(f"{path} contains no named tensors.")
    return tensors


def _object_tree(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    pickles = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise pickle.UnpicklingError(f"it contains {len(pickles)} object trees (data.pkl) instead of one")
    if pickles[0].file_size > MAX_PICKLE_BYTES:
        raise pickle.UnpicklingError(f"its object tree has {pickles[0].file_size} bytes")
    return pickles[0]


def _named_tensors(tree: object) -> Iterator[tuple[str, NDArray[Any]]]:
    if isinstance(tree, Mapping):
        inner = tree.get("state_dict", tree)
        if isinstance(inner, Mapping):
            for name, value in inner.items():
                if isinstance(name, str) and isinstance(value, np.ndarray):
                    yield name, value
