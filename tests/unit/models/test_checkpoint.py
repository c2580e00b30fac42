from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from diarist.errors import ModelCorrupt
from diarist.models import checkpoint
from diarist.models.checkpoint import read_tensors
from unit.models.fake_files import write_archive, write_checkpoint

TENSORS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b.steps": np.array(7, dtype=np.int64),
    "c.half": np.array([0.5, -2.0], dtype=np.float16),
    "d.empty": np.zeros((0, 3), dtype=np.float32),
}

STORAGE = b"ctorch\nFloatStorage\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def number(value: int) -> bytes:
    return b"L%dL\n" % value


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(number(value) for value in values) + b"t"


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def tensor(offset: int, shape: tuple[int, ...], strides: tuple[int, ...], numel: int = 4) -> bytes:
    """The opcodes of one tensor over storage 0."""
    storage = b"(" + text("storage") + STORAGE + text("0") + text("cpu") + number(numel) + b"tQ"
    return REBUILD + b"(" + storage + number(offset) + numbers(*shape) + numbers(*strides) + b"tR"


def state_dict(value: bytes) -> bytes:
    """The opcodes of a dict with one entry."""
    return b"\x80\x02}" + text("w") + value + b"s."


def written(tmp_path: Path, opcodes: bytes, storage: bytes = bytes(16)) -> Path:
    return write_archive(tmp_path / "file.bin", opcodes, {"0": storage})


def assert_same(read: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert read.keys() == expected.keys()
    for name, value in expected.items():
        assert read[name].dtype == value.dtype
        np.testing.assert_array_equal(read[name], value)


@pytest.mark.parametrize("wrap", [dict, OrderedDict], ids=["dict", "ordered"])
@pytest.mark.parametrize("top", ["archive", "some_name"])
def test_a_state_dict_is_read(tmp_path: Path, wrap: type, top: str) -> None:
    assert_same(read_tensors(write_checkpoint(tmp_path / "x.pt", wrap(TENSORS), top=top)), TENSORS)


def test_a_training_checkpoint_is_read_for_its_state_dict(tmp_path: Path) -> None:
    # pathlib.PurePosixPath stands for the classes of a training framework that such files hold.
    tree = {"epoch": 3, "state_dict": OrderedDict(TENSORS), "settings": Path("somewhere"), "other": complex(1, 2)}
    assert_same(read_tensors(write_checkpoint(tmp_path / "x.bin", tree)), TENSORS)


def test_a_view_of_a_storage_is_read_by_its_strides(tmp_path: Path) -> None:
    path = written(tmp_path, state_dict(tensor(1, (2, 1), (2, 1))), np.arange(4, dtype="<f4").tobytes())
    np.testing.assert_array_equal(read_tensors(path)["w"], [[1], [3]])


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> object:
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_in_the_file_is_run(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "was_run"
    opcodes = pickle.dumps({"state_dict": {}, "evil": Hostile(marker)}, protocol=protocol)
    pickle.loads(opcodes)
    assert marker.exists(), "the pickle is not hostile, so this test shows nothing"
    marker.unlink()
    with pytest.raises(ModelCorrupt, match="no named tensors"):
        read_tensors(written(tmp_path, opcodes))
    assert not marker.exists()


@pytest.mark.parametrize(
    "call",
    [
        b"cos\nsystem\n" + b"(" + text("touch was_run") + b"tR",
        b"cposix\nsystem\n" + b"(" + text("touch was_run") + b"tR",
        b"cbuiltins\neval\n" + b"(" + text("open('was_run','w')") + b"tR",
        b"c__builtin__\ngetattr\n" + b"(" + STORAGE + text("__class__") + b"tR",
        b"(" + text("touch was_run") + b"ios\nsystem\n",
        b"cdiarist.models.checkpoint\nread_tensors\n" + b"(" + text("x") + b"tR",
        b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n)R",
        b"ctorch\nload\n(" + text("x") + b"tR",
    ],
)
def test_other_names_stand_for_nothing(tmp_path: Path, call: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    opcodes = b"\x80\x02}(" + text("x") + call + text("w") + tensor(0, (4,), (1,)) + b"u."
    assert list(read_tensors(written(tmp_path, opcodes))) == ["w"]
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    "value",
    [
        tensor(0, (5,), (1,)),
        tensor(1, (4,), (1,)),
        tensor(4, (1,), (1,)),
        tensor(0, (2, 2), (4, 1)),
        tensor(-1, (1,), (1,)),
        tensor(0, (2,), (-1,)),
        tensor(0, (10**12,), (0,)),
        tensor(0, (4,), (1, 1)),
        tensor(0, (4,), (1,), numel=5),
        tensor(0, (4,), (1,), numel=2**40),
        REBUILD + b"(" + number(0) + number(0) + numbers(4) + numbers(1) + b"tR",
        tensor(0, (4,), (1,)) + b"0" + REBUILD + b"}" + text("__defaults__") + b")s\x86b",
        STORAGE + b"}b",  # refused by newer releases of Python, and read as nothing by older ones
    ],
)
def test_a_tensor_that_leaves_its_storage_is_refused(tmp_path: Path, value: bytes) -> None:
    with pytest.raises(ModelCorrupt, match=r"file\.bin (cannot be read|contains no named tensors)"):
        read_tensors(written(tmp_path, state_dict(value)))


def test_an_object_tree_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "MAX_PICKLE_BYTES", 1_000)
    with pytest.raises(ModelCorrupt, match="1001 bytes"):
        read_tensors(written(tmp_path, bytes(1_001)))


@pytest.mark.parametrize("keep", [0, 10, 300, -20])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, keep: int) -> None:
    path = write_checkpoint(tmp_path / "cut.pt", TENSORS)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelCorrupt, match=r"cut\.pt"):
        read_tensors(path)


def test_every_truncated_tree_is_refused_or_holds_whole_tensors(tmp_path: Path) -> None:
    whole = write_checkpoint(tmp_path / "whole.pt", TENSORS)
    with zipfile.ZipFile(whole) as archive:
        opcodes = archive.read("archive/data.pkl")
        storages = {name[13:]: archive.read(name) for name in archive.namelist() if "/data/" in name}
    for end in range(0, len(opcodes) - 1, 7):
        with pytest.raises(ModelCorrupt):
            read_tensors(write_archive(tmp_path / "cut.pt", opcodes[:end], storages))


def test_a_file_without_an_object_tree_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("readme", "nothing")
    with pytest.raises(ModelCorrupt, match="0 object trees"):
        read_tensors(tmp_path / "x.zip")


def test_torch_reads_the_same(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "real.pt"
    tensors = {name: torch.from_numpy(value.copy()) for name, value in TENSORS.items()}
    tensors["turned"] = tensors["a.weight"].T
    torch.save({"state_dict": OrderedDict(tensors)}, path)
    assert_same(read_tensors(path), {name: value.numpy() for name, value in tensors.items()})
