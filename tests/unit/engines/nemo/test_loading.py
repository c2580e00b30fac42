"""Models from archives: the right class, ready for use, the same as NeMo's own; and what is refused, and how."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants

from diarist.engines.nemo import loading, published_models
from diarist.engines.nemo.device import Runtime
from diarist.engines.nemo.loading import LoadedModel, load_model
from diarist.errors import ConfigurationError, EngineUnavailable, ModelCorrupt, ModelUnavailable
from diarist.settings import Settings

pytestmark = pytest.mark.nemo

ROLES = {
    "ctc": ("recognition", "EncDecCTCModelBPE"),
    "character_ctc": ("recognition", "EncDecCTCModel"),
    "rnnt": ("recognition", "EncDecRNNTBPEModel"),
    "tdt": ("recognition", "EncDecRNNTBPEModel"),
    "hybrid": ("recognition", "EncDecHybridRNNTCTCBPEModel"),
    "speaker": ("embedding", "EncDecSpeakerLabelModel"),
    "frame_vad": ("vad", "EncDecFrameClassificationModel"),
    "segment_vad": ("vad", "EncDecClassificationModel"),
    "sortformer": ("diarization", "SortformerEncLabelModel"),
}

Edit = Callable[[dict[str, bytes]], None]


@pytest.fixture
def settings() -> Settings:
    return Settings(nemo_device="cpu", cpu_threads=1)


@pytest.fixture(autouse=True)
def _tidy(tmp_path, monkeypatch):
    """No network, no change of the working directory, and nothing left among the temporary files."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was asked"))
    monkeypatch.setattr(os, "chdir", lambda _: pytest.fail("the working directory was changed"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("NEMO_CACHE_DIR", str(tmp_path / "nemo"))
    yield
    left = [path.name for path in temporary.iterdir() if not path.name.startswith("torchinductor_")]  # PyTorch's cache
    assert left == []


def load(path: Path | str, role: str, settings: Settings, named_by: str | None = None) -> LoadedModel:
    return load_model(str(path), role, settings, Runtime.of(settings), named_by)


def changed(source: Path, target: Path, edit: Edit, mode: str = "w:") -> Path:
    """The archive with its files as ``edit`` leaves them."""
    with tarfile.open(source) as tar:
        files = {member.name.removeprefix("./"): stream.read() for member in tar if (stream := tar.extractfile(member))}
    edit(files)
    with tarfile.open(target, mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return target


def in_config(old: str, new: str) -> Edit:
    def edit(files: dict[str, bytes]) -> None:
        config = files["model_config.yaml"].decode()
        assert old in config
        files["model_config.yaml"] = config.replace(old, new).encode()

    return edit


@pytest.mark.parametrize("name", ROLES)
def test_is_what_nemo_makes_of_it(nemo_models, settings, name, monkeypatch, tmp_path):
    role, class_name = ROLES[name]
    path = Path(shutil.copy(nemo_models[name], tmp_path / "mine.nemo"))
    loaded = load(path, role, settings)
    model = loaded.model
    assert type(model).__name__ == class_name
    assert (loaded.name, loaded.info.role, loaded.info.state) == ("mine", role, "ready")
    assert loaded.info.licence == published_models.UNKNOWN_LICENCE
    assert loaded.languages == ()
    assert not model.training
    assert not any(part.training for part in model.modules())
    assert not any(weight.requires_grad or weight.is_inference() for weight in model.parameters())
    assert getattr(model.preprocessor.featurizer, "dither", 0) == 0
    monkeypatch.undo()
    other = type(model).restore_from(str(path), map_location="cpu")
    assert model.cfg == other.cfg
    ours, theirs = model.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_says_the_same_as_nemo_makes_it_say(nemo_models, settings, sample_recording, monkeypatch):
    import soundfile

    samples = soundfile.read(sample_recording, dtype="float32")[0][: 16_000 * 8]
    runtime = Runtime.of(settings)
    model = load(nemo_models["tdt"], "recognition", settings).model
    monkeypatch.undo()
    with runtime.inference():
        ours = [model.transcribe([samples], verbose=False)[0].text for _ in range(2)]
    theirs = type(model).restore_from(str(nemo_models["tdt"]), map_location="cpu")
    assert ours[0]
    assert ours == [theirs.transcribe([samples], verbose=False)[0].text] * 2


def test_an_archive_of_old_is_compressed(nemo_models, settings, tmp_path):
    path = changed(nemo_models["ctc"], tmp_path / "old.nemo", lambda _: None, "w:gz")
    ours, theirs = (load(one, "recognition", settings).model.state_dict() for one in (path, nemo_models["ctc"]))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_class_that_has_another_name_now(nemo_models, settings, tmp_path):
    new = "nemo.collections.asr.models.classification_models.EncDecFrameClassificationModel"
    old = "src.multi_classification_models.EncDecMultiClassificationModel"
    path = changed(nemo_models["frame_vad"], tmp_path / "old.nemo", in_config(new, old))
    assert type(load(path, "vad", settings).model).__name__ == "EncDecFrameClassificationModel"


def test_two_at_once(nemo_models, settings):
    """NeMo keeps what it loads from in one place of the process."""
    names = ("ctc", "speaker", "sortformer") * 2
    paths = [nemo_models[name] for name in names]
    roles = [ROLES[name][0] for name in names]
    with ThreadPoolExecutor(len(names)) as pool:
        found = pool.map(lambda path, role: type(load(path, role, settings).model).__name__, paths, roles)
        assert list(found) == [ROLES[name][1] for name in names]


class TestRoles:
    @pytest.mark.parametrize("name", ROLES)
    def test_a_model_serves_its_own_role_alone(self, nemo_models, settings, name):
        own, class_name = ROLES[name]
        for role in ("recognition", "diarization", "embedding", "vad"):
            if role == own:
                continue
            with pytest.raises(ConfigurationError) as caught:
                load(nemo_models[name], role, settings, "vad.model_path")
            words = str(caught.value)
            assert words.startswith(
                f"The model {nemo_models[name]} (named by vad.model_path) is of class {class_name}, a model"
            )
            assert f"for {own}, but a model for {role} is required" in words

    def test_a_published_model_of_another_role_is_not_even_fetched(self, settings):
        with pytest.raises(ConfigurationError, match="The model titanet_large is of class EncDecSpeakerLabelModel"):
            load("titanet_large", "vad", settings)

    def test_a_class_that_serves_none(self, nemo_models, settings, tmp_path):
        edit = in_config("ctc_bpe_models.EncDecCTCModelBPE", "ssl_models.SpeechEncDecSelfSupervisedModel")
        path = changed(nemo_models["ctc"], tmp_path / "a.nemo", edit)
        with pytest.raises(
            ConfigurationError, match="is of class SpeechEncDecSelfSupervisedModel, but a model for recognition"
        ):
            load(path, "recognition", settings)

    def test_no_class_at_all(self, nemo_models, settings, tmp_path):
        path = changed(nemo_models["ctc"], tmp_path / "a.nemo", in_config("\ntarget: ", "\ntarjet: "))
        with pytest.raises(ConfigurationError, match="is of unknown class"):
            load(path, "recognition", settings)


class TestHostile:
    @pytest.fixture
    def trace(self, tmp_path):
        path = tmp_path / "it-ran"
        yield path
        assert not path.exists(), "code from the archive was run"

    def test_weights_that_are_code(self, nemo_models, settings, tmp_path, trace):
        for zipped in (True, False):
            weights = io.BytesIO()
            torch.save({"a": _Bomb(str(trace))}, weights, _use_new_zipfile_serialization=zipped)
            path = changed(
                nemo_models["ctc"],
                tmp_path / "a.nemo",
                lambda files, weights=weights: files.update({"model_weights.ckpt": weights.getvalue()}),
            )
            with pytest.raises(ModelCorrupt, match="weights that are damaged or contain more than tensors"):
                load(path, "recognition", settings)

    def test_such_weights_are_a_danger_indeed(self, trace):
        weights = io.BytesIO()
        torch.save({"a": _Bomb(str(trace))}, weights)
        weights.seek(0)
        torch.load(weights, weights_only=False)
        trace.rmdir()

    def test_an_environment_that_allows_it(self, nemo_models, settings, monkeypatch):
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
        with pytest.raises(ConfigurationError, match="TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
            load(nemo_models["ctc"], "recognition", settings)

    @pytest.mark.parametrize("target", ["os.mkdir", "${evil}", "${oc.decode:'os.mkdir'}"])
    def test_a_configuration_that_calls_functions(self, nemo_models, settings, tmp_path, trace, target):
        part = f"_target_: {target}\n  path: {trace}\n"
        edit = in_config("\npreprocessor:\n", f"\nevil: os.mkdir\nspec_augment:\n  {part}preprocessor:\n")
        path = changed(nemo_models["ctc"], tmp_path / "a.nemo", edit)
        with pytest.raises(ModelCorrupt, match=r"cannot be used\. .* requests 'os\.mkdir'"):
            load(path, "recognition", settings)

    def test_an_archive_that_writes_elsewhere(self, nemo_models, settings, tmp_path):
        path = changed(nemo_models["ctc"], tmp_path / "a.nemo", lambda files: files.update({"../evil": b"x"}))
        with pytest.raises(ModelCorrupt, match="outside its folder") as caught:
            load(path, "recognition", settings, "NEMO_ASR_MODEL")
        assert str(caught.value).startswith(f"The model {path} (named by NEMO_ASR_MODEL) cannot be used. ")


class _Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


class TestDamaged:
    def test_a_file_that_was_cut_off(self, nemo_models, settings, tmp_path):
        whole = nemo_models["ctc"].read_bytes()
        for share in (0, 0.1, 0.5, 0.9):
            path = tmp_path / f"{share}.nemo"
            path.write_bytes(whole[: int(len(whole.rstrip(b"\0")) * share)])
            with pytest.raises(ModelCorrupt, match=r"is not a NeMo model, or it is damaged|it contains no model_"):
                load(path, "recognition", settings)

    @pytest.mark.parametrize("weights", [b"", b"no weights", bytes(1_000)])
    def test_weights_that_are_none(self, nemo_models, settings, tmp_path, weights):
        path = changed(
            nemo_models["ctc"], tmp_path / "a.nemo", lambda files: files.update({"model_weights.ckpt": weights})
        )
        with pytest.raises(ModelCorrupt, match=re.escape(str(path))):
            load(path, "recognition", settings)

    def test_weights_that_were_cut_off(self, nemo_models, settings, tmp_path):
        def halve(files):
            files["model_weights.ckpt"] = files["model_weights.ckpt"][:100_000]

        path = changed(nemo_models["ctc"], tmp_path / "a.nemo", halve)
        with pytest.raises(ModelCorrupt, match="cannot be loaded from"):
            load(path, "recognition", settings)

    def test_weights_of_another_model(self, nemo_models, settings, tmp_path):
        path = changed(nemo_models["ctc"], tmp_path / "a.nemo", in_config("d_model: 32", "d_model: 64"))
        with pytest.raises(ModelCorrupt, match=r"cannot be loaded from .* download it again"):
            load(path, "recognition", settings)

    def test_weights_that_lack_a_part(self, nemo_models, settings, tmp_path):
        def drop(files):
            weights = torch.load(io.BytesIO(files["model_weights.ckpt"]), weights_only=True)
            weights.pop("decoder.decoder_layers.0.weight")
            stream = io.BytesIO()
            torch.save(weights, stream)
            files["model_weights.ckpt"] = stream.getvalue()

        path = changed(nemo_models["ctc"], tmp_path / "a.nemo", drop)
        with pytest.raises(ModelCorrupt, match="cannot be loaded from"):
            load(path, "recognition", settings)

    def test_a_configuration_that_lacks_a_part(self, nemo_models, settings, tmp_path):
        path = changed(nemo_models["ctc"], tmp_path / "a.nemo", in_config("\nencoder:", "\nencorder:"))
        with pytest.raises(ModelCorrupt, match="cannot be loaded from"):
            load(path, "recognition", settings)

    def test_a_tokenizer_that_is_missing(self, nemo_models, settings, tmp_path):
        def drop(files):
            for name in [name for name in files if "tokenizer" in name or "vocab" in name]:
                del files[name]

        path = changed(nemo_models["ctc"], tmp_path / "a.nemo", drop)
        with pytest.raises(ModelCorrupt, match="cannot be loaded from"):
            load(path, "recognition", settings)

    def test_a_good_one_after_a_bad_one(self, nemo_models, settings, tmp_path):
        path = changed(nemo_models["ctc"], tmp_path / "a.nemo", in_config("\nencoder:", "\nencorder:"))
        with pytest.raises(ModelCorrupt):
            load(path, "recognition", settings)
        load(nemo_models["ctc"], "recognition", settings)

    def test_a_file_that_is_not_there(self, settings, tmp_path):
        with pytest.raises(ModelUnavailable, match="no file exists at that path"):
            load(tmp_path / "a.nemo", "recognition", settings)

    def test_memory_that_does_not_suffice(self, nemo_models, settings, monkeypatch):
        from nemo.collections.asr.models import EncDecCTCModelBPE

        def full(*_: object, **__: object):
            raise torch.OutOfMemoryError("CUDA out of memory.")

        monkeypatch.setattr(EncDecCTCModelBPE, "to", full)
        with pytest.raises(EngineUnavailable, match="does not fit into the memory of cpu"):
            load(nemo_models["ctc"], "recognition", settings)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class TestHashes:
    @pytest.mark.parametrize("name", ["parakeet-tdt-0.6b-v3", "nvidia/parakeet-tdt-0.6b-v3"])
    def test_a_published_model_has_its_hash_by_default(self, nemo_models, settings, tmp_path, name):
        path = shutil.copy(nemo_models["tdt"], tmp_path / "parakeet-tdt-0.6b-v3.nemo")
        found = settings.model_copy(update={"model_source_dir": tmp_path})
        with pytest.raises(
            ModelCorrupt, match=f"is not the file that was published: .*NEMO_SHA256={name}={sha256(path)}"
        ):
            load(name, "recognition", found)
        trusted = found.model_copy(update={"nemo_sha256": f"nvidia/parakeet-tdt-0.6b-v3={sha256(path)}"})
        assert load(name, "recognition", trusted).name == name

    def test_a_path_with_the_name_of_a_published_model_is_another_model(self, nemo_models, settings, tmp_path):
        path = shutil.copy(nemo_models["tdt"], tmp_path / "parakeet-tdt-0.6b-v3.nemo")
        assert load(path, "recognition", settings).name == "parakeet-tdt-0.6b-v3"

    def test_the_right_one(self, nemo_models, settings):
        path = nemo_models["speaker"]
        digest = hashlib.sha256(path.read_bytes()).hexdigest().upper()
        load(path, "embedding", settings.model_copy(update={"nemo_sha256": f"other={'0' * 64},{path}={digest}"}))

    def test_a_wrong_one(self, nemo_models, settings):
        path = nemo_models["speaker"]
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with pytest.raises(ModelCorrupt, match=f"does not have the hash in NEMO_SHA256: .*{digest}"):
            load(path, "embedding", settings.model_copy(update={"nemo_sha256": f"{path}={'0' * 64}"}))

    def test_words_that_are_none(self, nemo_models, settings):
        with pytest.raises(ConfigurationError, match="NEMO_SHA256"):
            load(nemo_models["speaker"], "embedding", settings.model_copy(update={"nemo_sha256": "titanet_large"}))


class TestNames:
    def test_of_the_hub_from_its_cache(self, nemo_models, settings, tmp_path):
        snapshot = tmp_path / "hub" / "models--nvidia--parakeet-tdt-0.6b-v3" / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        path = shutil.copy(nemo_models["tdt"], snapshot / "parakeet-tdt-0.6b-v3.nemo")
        trusted = settings.model_copy(update={"nemo_sha256": f"nvidia/parakeet-tdt-0.6b-v3={sha256(path)}"})
        loaded = load("nvidia/parakeet-tdt-0.6b-v3", "recognition", trusted)
        assert loaded.name == "nvidia/parakeet-tdt-0.6b-v3"
        assert loaded.info.licence == "CC-BY-4.0"
        assert len(loaded.languages) == 25

    def test_of_the_catalog_from_its_cache(self, nemo_models, settings, tmp_path):
        folder = tmp_path / "nemo" / "titanet-l" / "digest"
        folder.mkdir(parents=True)
        path = shutil.copy(nemo_models["speaker"], folder / "titanet-l.nemo")
        trusted = settings.model_copy(update={"nemo_sha256": f"titanet_large={sha256(path)}"})
        loaded = load("titanet_large", "embedding", trusted)
        assert loaded.name == "titanet_large"
        assert loaded.languages == ()

    def test_languages_that_the_name_tells(self, nemo_models, settings, tmp_path):
        path = tmp_path / "stt_de_mine.nemo"
        shutil.copy(nemo_models["ctc"], path)
        assert load(path, "recognition", settings).languages == ("de",)

    def test_languages_that_the_tokenizer_tells(self):
        config = {"tokenizer": {"type": "agg", "langs": {"spl_tokens": {}, "en": {}, "de": {}}}}
        assert loading._languages("mine.nemo", config) == ("en", "de")
        assert loading._languages("mine.nemo", {"tokenizer": {"type": "bpe"}}) == ()


def test_the_same_answer_again(nemo_models, settings):
    """Dither is noise, which NeMo adds to what it hears in training."""
    samples = np.random.default_rng(0).normal(scale=0.1, size=32_000).astype(np.float32)
    runtime = Runtime.of(settings)
    answers = []
    for _ in range(2):
        model = load(nemo_models["speaker"], "embedding", settings).model
        with runtime.inference():
            _, embedding = model.forward(
                input_signal=runtime.tensor(samples[None]), input_signal_length=torch.tensor([len(samples)])
            )
        answers.append(embedding.numpy())
    assert np.array_equal(*answers)


def test_what_a_killed_process_left_is_cleared_and_what_another_one_uses_is_not(nemo_models, settings):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    temporary = Path(tempfile.gettempdir())
    left, used, other = (
        temporary / name
        for name in (f"diarist-nemo-{gone.pid}-a", f"diarist-nemo-{os.getppid()}-b", "diarist-nemo-x-c")
    )
    for folder in (left, used, other):
        (folder / "weights").mkdir(parents=True)
    load(nemo_models["frame_vad"], "vad", settings)
    assert sorted(path.name for path in temporary.glob("diarist-nemo-*")) == sorted((used.name, other.name))
    for folder in (used, other):
        shutil.rmtree(folder)
