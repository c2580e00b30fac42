"""What every test can ask for: real recordings, conversations with exact ground truth, the real models."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import hypothesis
import pytest

from diarist.inference_environment import set_defaults

set_defaults()  # the tests load engines in this process, as a worker does; NumPy reads this when it is loaded

from diarist.settings import Settings, load_settings
from diarist.types import Audio
from support import nemo_configuration, random_nemo_models, recordings, servers
from support.recordings import Conversation

ROOT = Path(__file__).parent.parent
hypothesis.settings.register_profile("fast", max_examples=20)  # for `make test-fast`
SERVERS = {"redis_server", "postgres_server", "s3_server"}


def pytest_configure() -> None:
    """A shell that starts the suite in the background ignores signals in it; what the tests start would do so too."""
    for name, handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs servers. NeMo and what it stands on warn in a hundred ways; our own code still may not."""
    for item in items:
        if isinstance(item, pytest.Function) and SERVERS & set(item.fixturenames):
            item.add_marker(pytest.mark.servers)
        if item.get_closest_marker("nemo"):
            item.add_marker(pytest.mark.filterwarnings("ignore"))
            item.add_marker(pytest.mark.filterwarnings("error:::diarist"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("bench") and importlib.util.find_spec("meeteval") is None:
        _absent("the bench extra is not installed: run `make test`")


def _absent(reason: str) -> NoReturn:
    """Skip on a machine that is not set up for tests; fail where that machine is there to run them all."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of recordings that may lie beside the project; not part of it, so their absence never fails."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the recordings beside the project (../shared/data) are not here")
    return folder


@pytest.fixture(scope="session")
def recordings_folder() -> Path:
    """WAV files of ``recordings.FILES`` and their RTTM."""
    if missing := recordings.missing():
        _absent(f"{', '.join(missing)} not fetched yet: run `make test`, or `python tests/support/recordings.py`")
    return recordings.FOLDER


@pytest.fixture(scope="session")
def sample_recording(recordings_folder: Path) -> Path:
    """30 s of two people on a telephone, 16 kHz mono WAV."""
    return recordings_folder / "sample.wav"


@pytest.fixture(scope="session")
def sample_rttm(recordings_folder: Path) -> Path:
    """Who speaks when in ``sample_recording``."""
    return recordings_folder / "sample.rttm"


@pytest.fixture(scope="session")
def voices(recordings_folder: Path) -> Mapping[str, tuple[Audio, ...]]:
    """Real voices, at least 15 s of each in pieces of a few seconds with nobody else speaking."""
    return {speaker: recordings.voice(speaker, recordings_folder) for speaker in recordings.VOICES}


@pytest.fixture
def make_conversation(voices: Mapping[str, tuple[Audio, ...]], tmp_path: Path) -> Callable[..., Conversation]:
    """``make_conversation(speakers=2, pieces=None, **options)``: ``pieces`` of each; see ``recordings.assemble``."""

    def make(speakers: int = 2, pieces: int | None = None, **options: Any) -> Conversation:
        assert 1 <= speakers <= len(voices), f"there are {len(voices)} voices"
        cast = {who: said[:pieces] for who, said in list(voices.items())[:speakers]}
        return recordings.assemble(cast, tmp_path, **options)

    return make


@pytest.fixture(scope="session")
def model_store() -> object:
    """The real ``ModelStore`` with every model that the settings need."""
    from diarist.errors import ModelError
    from diarist.models import ModelStore, required
    from diarist.settings import load_settings

    settings = load_settings()
    store = ModelStore(settings.model_dir)
    for name in required(settings):
        try:
            store.locate(name)
        except ModelError as error:
            _absent(str(error))
    return store


@pytest.fixture(scope="session")
def nemo_models(tmp_path_factory: pytest.TempPathFactory) -> NemoModels:
    """Real NeMo models with random weights, small, each built when it is first asked for: ``nemo_models["tdt"]``."""
    if importlib.util.find_spec("nemo") is None or importlib.util.find_spec("torch") is None:
        _absent("NeMo is not installed: run `make test`")
    return NemoModels(tmp_path_factory.mktemp("nemo"))


@pytest.fixture(scope="session")
def nemo_settings(nemo_models: NemoModels, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The NeMo engine on small models, with the configurations that come with Diarist."""
    configs = nemo_configuration.write(
        tmp_path_factory.mktemp("conf"),
        asr=nemo_models["tdt"], vad=nemo_models["frame_vad"], speaker=nemo_models["speaker"], onset=0.5, offset=0.5,
    )  # fmt: skip
    return load_settings(
        engine="nemo",
        nemo_device="cpu",
        cpu_threads=1,
        model_config_dir=configs,
        sortformer_model=str(nemo_models["sortformer"]),
    )


@pytest.fixture(scope="session")
def exported_settings(
    nemo_models: NemoModels, nemo_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    """The same models, exported: what runs without PyTorch."""
    from diarist.engines.nemo.export import ExportRequest, export

    settings = nemo_settings.model_copy(
        update={
            "engine": "embedded", "recognizer": "onnx", "diarizer": "onnx",
            "model_dir": tmp_path_factory.mktemp("exported"),
            "onnx_asr_model": "tdt", "onnx_speaker_model": "speaker", "onnx_vad_model": "frame_vad",
        }
    )  # fmt: skip
    for name in ("tdt", "ctc", "speaker", "frame_vad"):
        export(ExportRequest(str(nemo_models[name]), name=name), settings)
    return settings


@pytest.fixture(scope="session")
def redis_server() -> Iterator[servers.RedisServer]:
    """``.fresh_url()`` is an empty database; who stops it starts it again, with ``.restart(lose_data=True)`` empty."""
    yield from _served(servers.RedisServer)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[servers.PostgresServer]:
    """``.fresh_database()`` is the URL of an empty database; who stops it starts it again."""
    yield from _served(servers.PostgresServer)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[servers.S3Server]:
    """``.settings(.fresh_bucket())`` is what an empty bucket is used by; who stops it starts it again, empty."""
    yield from _served(servers.S3Server)


T = TypeVar("T", bound=servers.Server)


def _served(kind: type[T]) -> Iterator[T]:
    try:
        server = kind()
    except servers.Absent as absent:
        _absent(f"{absent}: run `make test`, which installs it where it may")
    with contextlib.closing(server):
        yield server


class NemoModels:
    """``.nemo`` files by what is in them; see ``BUILDERS``. Recognisers are named as NVIDIA names English ones."""

    RECOGNIZERS = ("ctc", "character_ctc", "rnnt", "tdt", "hybrid")

    BUILDERS: Mapping[str, Callable[[Path], Any]] = {
        "ctc": random_nemo_models.ctc,
        "character_ctc": lambda _: random_nemo_models.character_ctc(),
        "rnnt": random_nemo_models.rnnt,
        "tdt": random_nemo_models.tdt,
        "hybrid": random_nemo_models.hybrid,
        "canary": random_nemo_models.canary,
        "speaker": lambda _: random_nemo_models.speaker(),
        "frame_vad": lambda _: random_nemo_models.frame_vad(),
        "segment_vad": lambda _: random_nemo_models.segment_vad(),
        "sortformer": lambda _: random_nemo_models.sortformer(),
        "offline_sortformer": lambda _: random_nemo_models.sortformer(streaming=False),
    }

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, name: str) -> Path:
        path = self.folder / f"stt_en_{name}.nemo" if name in self.RECOGNIZERS else self.folder / f"{name}.nemo"
        if not path.exists():
            model = self.BUILDERS[name](self.folder / f"{name}-tokenizer")
            partial = self.folder / f"{name}.partial.nemo"
            model.save_to(str(partial))
            partial.replace(path)
        return path
