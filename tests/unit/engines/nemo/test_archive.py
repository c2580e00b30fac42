"""Archives from elsewhere: what is taken, and what is refused before anything in it is used."""

from __future__ import annotations

import io
import random
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from diarist.engines.nemo import archive
from diarist.engines.nemo.archive import check_targets, open_weights, parse_hashes, unpack
from diarist.errors import ConfigurationError, ModelCorrupt, ModelUnavailable

TARGET = "nemo.collections.asr.models.ctc_bpe_models.EncDecCTCModelBPE"
CONFIG = f"target: {TARGET}\nencoder:\n  _target_: nemo.collections.asr.modules.ConformerEncoder\n"
GOOD = {"./model_config.yaml": CONFIG.encode(), "./model_weights.ckpt": b"weights" * 9, "./a_tokenizer.model": b"words"}


def write(path: Path, files: Mapping[str, bytes | tarfile.TarInfo], mode: str = "w:") -> Path:
    """An archive of ``files``: content by name, or the member itself."""
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "inside"
    inside.mkdir()
    return inside


@pytest.mark.parametrize("mode", ["w:", "w:gz"])
def test_unpacks_what_a_model_needs(tmp_path, folder, mode):
    found = unpack(write(tmp_path / "a.nemo", GOOD, mode), folder)
    assert found.class_name == "EncDecCTCModelBPE"
    assert found.config["encoder"]["_target_"] == "nemo.collections.asr.modules.ConformerEncoder"
    assert (folder / "a_tokenizer.model").read_bytes() == b"words"
    with open_weights(found, folder) as weights:
        assert weights.read() == b"weights" * 9
        weights.seek(7)
        assert weights.read(7) == b"weights"


def test_weights_of_a_plain_archive_stay_in_it(tmp_path, folder):
    unpack(write(tmp_path / "a.nemo", GOOD), folder)
    assert not (folder / "model_weights.ckpt").exists()


def test_a_configuration_may_lie_under_model(tmp_path, folder):
    config = "model:\n  target: nemo.collections.asr.models.EncDecCTCModel\ntrainer: {}\n"
    found = unpack(write(tmp_path / "a.nemo", {**GOOD, "./model_config.yaml": config.encode()}), folder)
    assert found.class_name == "EncDecCTCModel"


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"/etc/evil": b"x"}, "outside its folder"),
        ({"../evil": b"x"}, "outside its folder"),
        ({"./a/../../evil": b"x"}, "outside its folder"),
        ({"..\\evil": b"x"}, "outside its folder"),
        ({"s": member("s", tarfile.SYMTYPE, "/etc/passwd")}, "link or a device"),
        ({"h": member("h", tarfile.LNKTYPE, "./model_config.yaml")}, "link or a device"),
        ({"f": member("f", tarfile.FIFOTYPE)}, "link or a device"),
        ({"d": member("d", tarfile.CHRTYPE)}, "link or a device"),
        ({"model_config.yaml": b"target: os.system"}, "two files named 'model_config.yaml'"),
    ],
)
@pytest.mark.parametrize("mode", ["w:", "w:gz"])
def test_refuses_members_that_no_model_has(tmp_path, folder, extra, words, mode):
    path = write(tmp_path / "a.nemo", {**GOOD, **extra}, mode)
    with pytest.raises(ModelCorrupt, match=words) as caught:
        unpack(path, folder)
    assert str(path) in str(caught.value)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.nemo", "inside"]
    assert not list(folder.iterdir()), "nothing is written before all is looked through"


def test_refuses_more_files_than_a_model_has(tmp_path, folder, monkeypatch):
    path = write(tmp_path / "a.nemo", GOOD)
    monkeypatch.setattr(archive, "MAX_MEMBERS", len(GOOD))
    unpack(path, folder)
    monkeypatch.setattr(archive, "MAX_MEMBERS", len(GOOD) - 1)
    with pytest.raises(ModelCorrupt, match="more than 2 files"):
        unpack(path, folder)


def test_refuses_an_archive_that_grows_without_measure(tmp_path, folder):
    path = write(tmp_path / "a.nemo", {**GOOD, "zeros": bytes(20 * 2**20)}, "w:gz")
    assert path.stat().st_size < 2**17
    with pytest.raises(ModelCorrupt, match="too large when it is extracted"):
        unpack(path, folder)


def test_refuses_a_configuration_that_is_too_large(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(archive, "MAX_CONFIG_BYTES", len(CONFIG) - 1)
    with pytest.raises(ModelCorrupt, match="too large when it is extracted"):
        unpack(write(tmp_path / "a.nemo", GOOD), folder)


@pytest.mark.parametrize("name", ["model_config.yaml", "model_weights.ckpt"])
def test_refuses_an_archive_without_a_part(tmp_path, folder, name):
    files = {key: content for key, content in GOOD.items() if not key.endswith(name)}
    with pytest.raises(ModelCorrupt, match=f"it contains no {name}"):
        unpack(write(tmp_path / "a.nemo", files), folder)


@pytest.mark.parametrize(
    "content", [b"", b"\x1f\x8b", b"PK\x03\x04" * 200, b"<html>not found</html>" * 100, b"\x1f\x8b\x08" * 9]
)
def test_refuses_what_is_no_archive(tmp_path, folder, content):
    path = tmp_path / "a.nemo"
    path.write_bytes(content)
    with pytest.raises(ModelCorrupt, match=re.escape(f"{path} is not a NeMo model, or it is damaged")):
        unpack(path, folder)


@pytest.mark.parametrize("mode", ["w:", "w:gz"])
def test_refuses_an_archive_that_was_cut_off(tmp_path, folder, mode):
    path = write(tmp_path / "a.nemo", {**GOOD, "./model_weights.ckpt": random.Random(0).randbytes(100_000)}, mode)
    whole = path.read_bytes()
    for share in (0.2, 0.5, 0.8):
        path.write_bytes(whole[: int(len(whole.rstrip(b"\0")) * share)])
        with pytest.raises(ModelCorrupt, match="is not a NeMo model"):
            unpack(path, folder)


def test_a_file_that_is_not_there_is_unavailable(tmp_path, folder):
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        unpack(tmp_path / "a.nemo", folder)


def test_yaml_runs_nothing(tmp_path, folder):
    config = f"target: {TARGET}\nx: !!python/object/apply:os.mkdir ['{tmp_path}/evil']\n"
    with pytest.raises(ModelCorrupt, match="cannot be read"):
        unpack(write(tmp_path / "a.nemo", {**GOOD, "./model_config.yaml": config.encode()}), folder)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "config", [b"- 1\n- 2", b"just words", b"", b"model: 3", b"\xff\xfe\x00", b"a: [", b"a: " + b"[" * 5_000]
)
def test_refuses_a_configuration_of_nothing(tmp_path, folder, config):
    with pytest.raises(ModelCorrupt, match=r"model_config\.yaml"):
        unpack(write(tmp_path / "a.nemo", {**GOOD, "./model_config.yaml": config}), folder)


def test_yaml_that_stands_for_billions_is_refused_at_once(tmp_path, folder):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    config = "\n".join(["target: x", *lines]).encode()
    with pytest.raises(ModelCorrupt, match=r"model_config\.yaml with more than 1000000 values"):
        unpack(write(tmp_path / "a.nemo", {**GOOD, "./model_config.yaml": config}), folder)


@pytest.mark.parametrize(
    "target",
    [
        "os.system", "subprocess.Popen", "builtins.eval", "torch.load", "torch.hub.load", "nemo.utils.cloud.x",
        "nemo_evil.collections.asr.X", "nemo.collections.asrx.X", "lightning.pytorch.loggers.X", "hydra.utils.call", "",
        "exec", None, 3, ["os.system"],
    ],
)  # fmt: skip
def test_refuses_what_is_no_part_of_a_model(target):
    path = Path("a.nemo")
    for config in ({"_target_": target}, {"a": {"b": [1, {"_target_": target}]}}, {"a": [[{"_target_": target}]]}):
        with pytest.raises(ModelCorrupt, match=re.escape(f"a.nemo requests {target!r}")):
            check_targets(config, path)


@pytest.mark.parametrize("key", ["target", "cls"])
def test_refuses_old_ways_to_ask_for_a_class(key):
    with pytest.raises(ModelCorrupt, match=r"'os\.system'"):
        check_targets({"loss": {key: "os.system", "params": {"command": "true"}}}, Path("a.nemo"))
    check_targets({"loss": {key: "nemo.collections.asr.losses.ctc.CTCLoss"}}, Path("a.nemo"))
    check_targets({"special_tokens": {key: "[CLS]"}, "labels": {key: "speech"}}, Path("a.nemo"))


def test_takes_the_parts_of_models():
    names = ("torch.nn.ReLU", "torch.optim.AdamW", "torchmetrics.Accuracy", "nemo.core.config.schedulers.X")
    check_targets({name: {"_target_": name} for name in names}, Path("a.nemo"))
    check_targets({"target": "src.multi_classification_models.EncDecMultiClassificationModel"}, Path("a.nemo"))


def test_refuses_code_from_the_hub():
    with pytest.raises(ModelCorrupt, match="trust_remote_code"):
        check_targets({"tokenizer": {"trust_remote_code": True}}, Path("a.nemo"))
    check_targets({"tokenizer": {"trust_remote_code": False}}, Path("a.nemo"))


def test_hashes_by_reference():
    one, other = "ab" * 32, "CD" * 32
    assert parse_hashes(f"nvidia/x={one}, /models/a=b.nemo = {other} ,") == {
        "nvidia/x": one,
        "/models/a=b.nemo": other.lower(),
    }
    assert parse_hashes("") == {}


@pytest.mark.parametrize("text", ["x", "x=", "=" + "a" * 64, "x=" + "a" * 63, "x=" + "g" * 64, "x:" + "a" * 64])
def test_hashes_that_are_none(text):
    with pytest.raises(ConfigurationError, match=r"NEMO_SHA256: .* is not a name=hash pair"):
        parse_hashes(text)


def test_two_hashes_of_one_model():
    with pytest.raises(ConfigurationError, match="two different hashes for x"):
        parse_hashes(f"x={'a' * 64},x={'b' * 64}")
