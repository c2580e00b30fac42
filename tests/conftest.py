"""What every test can ask for: real recordings, conversations with exact ground truth, the real models."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import pytest

import recordings
from diarist.types import Audio
from recordings import Conversation

ROOT = Path(__file__).parent.parent


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
        _absent(f"{', '.join(missing)} not fetched yet: run `make test`, or `python tests/recordings.py`")
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

    def make(speakers: int = 2, pieces: int | None = None, **options: object) -> Conversation:
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
