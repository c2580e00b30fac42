"""What every ``Diarizer`` must do. A new implementation adds a row to ``IMPLEMENTATIONS``."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
import soundfile

from diarist.engines.distributed_chunks import make_chunk, perform
from diarist.errors import Cancelled, InvalidOption
from diarist.models import ModelStore
from diarist.protocols import Diarizer, DistributedDiarizer, Engine
from diarist.settings import load_settings
from diarist.types import SAMPLE_RATE, Audio, Diarization, SpeakerHints, Stage, Turn


def embedded(request: pytest.FixtureRequest) -> Diarizer:
    from diarist.engines.registry import load_diarizer

    request.getfixturevalue("model_store")
    return load_diarizer("embedded", load_settings()).part


def wespeaker(request: pytest.FixtureRequest) -> Diarizer:
    """The embedded diarizer with an embedding model that is opened as it was published, with random weights."""
    from diarist.engines.registry import load_diarizer
    from support.published_embeddings import FORMS, graph, published

    name = "wespeaker-resnet34-lm"
    store = request.getfixturevalue("model_store")
    folder = request.getfixturevalue("tmp_path_factory").mktemp("wespeaker")
    (folder / "segmentation-3.0").symlink_to(store.root / "segmentation-3.0")
    settings = load_settings(model_dir=folder, embedding_model=name)
    with pytest.MonkeyPatch.context() as patch, published(patch, {name: graph(FORMS[name])}):
        ModelStore.of(settings).pull(name)
        return load_diarizer("embedded", settings).part


def community_1(request: pytest.FixtureRequest) -> Diarizer:
    """The segmentation of the embedded diarizer, which has the same form, and a small random embedding network."""
    from diarist.engines.device import CPU
    from diarist.engines.embedded.parallel import Parallelism
    from diarist.engines.embedded.vbx_diarizer import open_diarizer
    from diarist.models.checkpoint import read_tensors
    from support.random_community_1 import pulled_store, write_source

    store = request.getfixturevalue("model_store")
    tensors = read_tensors(store.root / "segmentation-3.0" / "pytorch_model.bin")
    folder = request.getfixturevalue("tmp_path_factory").mktemp("community-1")
    models = write_source(folder / "source", channels=2, segmentation=tensors)
    return open_diarizer(pulled_store(folder / "store", models, folder / "source"), CPU, Parallelism(2, 1))


def on_nemo(name: str) -> Callable[[pytest.FixtureRequest], Diarizer]:
    def load(request: pytest.FixtureRequest) -> Diarizer:
        from diarist.engines.registry import load_diarizer

        return load_diarizer(name, request.getfixturevalue("nemo_settings")).part

    return load


def on_onnx(request: pytest.FixtureRequest) -> Diarizer:
    from diarist.engines.registry import load_diarizer

    return load_diarizer("onnx", request.getfixturevalue("exported_settings")).part


@dataclass(frozen=True, slots=True)
class Implementation:
    load: Callable[[pytest.FixtureRequest], Diarizer]
    trained: bool = False
    """Whether its output has a meaning: models that the tests make have random weights."""

    max_speakers: int | None = None
    """The maximum number of speakers that it can distinguish."""

    spreads: bool = False
    """Whether other machines can process chunks of its work."""


WITHOUT_NEMO = ("embedded", "wespeaker", "community-1")

IMPLEMENTATIONS: Mapping[str, Implementation] = {
    "embedded": Implementation(embedded, trained=True, spreads=True),
    "wespeaker": Implementation(wespeaker, spreads=True),
    "community-1": Implementation(community_1, spreads=True),
    "clustering": Implementation(on_nemo("clustering")),
    "sortformer": Implementation(on_nemo("sortformer"), max_speakers=4),
    "auto": Implementation(on_nemo("auto")),
    "onnx": Implementation(on_onnx),
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.models if name in WITHOUT_NEMO else pytest.mark.nemo)
        for name in IMPLEMENTATIONS
    ],
)
def chosen(request: pytest.FixtureRequest) -> Implementation:
    return IMPLEMENTATIONS[request.param]


@pytest.fixture(scope="module")
def diarizer(request: pytest.FixtureRequest, chosen: Implementation) -> Diarizer:
    return chosen.load(request)


@pytest.fixture
def trained(chosen: Implementation) -> None:
    if not chosen.trained:
        pytest.skip("its weights are random, so its output has no meaning")


@pytest.fixture(scope="module")
def call(sample_recording) -> Audio:
    samples, rate = soundfile.read(sample_recording, dtype="float32")
    assert rate == SAMPLE_RATE
    return Audio(samples)


@pytest.fixture(scope="module")
def diarized(diarizer, call) -> Diarization:
    return run(diarizer, call)


def run(diarizer: Diarizer, audio: Audio, progress=lambda _stage, _done: None, **hints: int) -> Diarization:
    return diarizer.diarize(audio, SpeakerHints(**hints), progress)


def check(diarization: Diarization, duration: float) -> None:
    """Check what holds for any recording."""
    turns = diarization.turns
    assert list(turns) == sorted(turns)
    assert diarization.speakers == tuple(f"SPEAKER_{i:02d}" for i in range(len(diarization.speakers)))
    assert all(0 <= turn.span.start < turn.span.end <= duration for turn in turns)
    assert {type(edge) for turn in turns for edge in (turn.span.start, turn.span.end)} <= {float}
    by_speaker = defaultdict[str, list[Turn]](list)
    for turn in turns:
        by_speaker[turn.speaker].append(turn)
    for own in by_speaker.values():
        assert all(before.span.end <= after.span.start for before, after in pairwise(own))
    assert len(diarization.embeddings) == len(diarization.speakers)
    assert diarization.diarizer
    assert diarization.embeddings.dtype == np.float32
    assert np.isfinite(diarization.embeddings).all()
    if diarization.activity is not None and turns:
        scores = diarization.activity.scores
        assert scores.shape[1] == len(diarization.speakers)
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()
        assert ((scores >= 0) & (scores <= 1 + 1e-5)).all()


def noise(seconds: float, level: float, seed: int = 0) -> Audio:
    rng = np.random.default_rng(seed)
    return Audio((level * rng.standard_normal(round(seconds * SAMPLE_RATE))).clip(-1, 1).astype(np.float32))


@pytest.mark.usefixtures("trained")
def test_a_call_has_its_two_speakers(diarized, call):
    check(diarized, call.duration)
    assert len(diarized.speakers) == 2


@pytest.mark.parametrize("seconds", [0.01, 0.06, 0.5, 3.0, 10.0, 21.0])
def test_silence_has_no_turns(diarizer, seconds):
    diarization = run(diarizer, Audio(np.zeros(round(seconds * SAMPLE_RATE), dtype=np.float32)))
    assert diarization.turns == ()
    check(diarization, seconds)


@pytest.mark.parametrize("seconds", [0.01, 0.05, 0.3, 1.0, 2.0, 9.99, 10.0, 10.01])
def test_a_recording_of_any_length_is_diarized(diarizer, call, seconds):
    start = 14 * SAMPLE_RATE  # in the middle of what somebody says
    audio = Audio(call.samples[start : start + round(seconds * SAMPLE_RATE)])
    check(run(diarizer, audio), audio.duration)


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("level", [1e-4, 0.01, 0.3, 3.0])
def test_noise_has_at_most_one_speaker(diarizer, level):
    audio = noise(12.0, level)
    diarization = run(diarizer, audio)
    check(diarization, audio.duration)
    assert len(diarization.speakers) <= 1


def test_sound_that_is_no_speech_does_no_harm(diarizer):
    time = np.arange(8 * SAMPLE_RATE) / SAMPLE_RATE
    chord = sum(np.sin(2 * np.pi * hertz * time) for hertz in (220, 277, 330)) / 4
    square = np.sign(np.sin(2 * np.pi * 3 * time))  # clipped to both ends
    for samples in (chord, square, np.ones_like(time), -np.ones_like(time)):
        audio = Audio(samples.astype(np.float32))
        check(run(diarizer, audio), audio.duration)


def test_two_runs_are_identical(diarizer, diarized, call):
    run(diarizer, noise(2.0, 0.1))  # nothing is left over from another recording
    again = run(diarizer, call)
    assert again.turns == diarized.turns
    assert np.array_equal(again.embeddings, diarized.embeddings)
    assert (again.activity is None) == (diarized.activity is None)
    if again.activity is not None and diarized.activity is not None:
        assert np.array_equal(again.activity.scores, diarized.activity.scores)


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_an_exact_number_of_speakers_is_met(diarizer, call, wanted):
    diarization = run(diarizer, call, num_speakers=wanted)
    check(diarization, call.duration)
    assert len(diarization.speakers) == wanted


@pytest.mark.usefixtures("trained")
def test_one_speaker_is_one_column(diarizer, call):
    turns = run(diarizer, call, num_speakers=1).turns
    assert {turn.speaker for turn in turns} == {"SPEAKER_00"}
    assert sum(turn.span.duration for turn in turns) > 15


def test_the_bounds_on_speakers_are_kept(diarizer, chosen, call):
    assert len(run(diarizer, call, max_speakers=1).speakers) == 1
    found = len(run(diarizer, call, min_speakers=1, max_speakers=2).speakers)
    assert found == 2 if chosen.trained else found <= 2
    assert len(run(diarizer, call, min_speakers=3).speakers) >= 3


def test_more_speakers_than_speech_can_be_divided_among(diarizer, chosen, call):
    if chosen.max_speakers is not None:
        with pytest.raises(InvalidOption, match=rf"at most {chosen.max_speakers}.*DIARIZER"):
            run(diarizer, call, num_speakers=chosen.max_speakers + 1)
        return
    audio = Audio(call.samples[14 * SAMPLE_RATE : 18 * SAMPLE_RATE])
    diarization = run(diarizer, audio, num_speakers=100)
    check(diarization, audio.duration)
    assert diarization.speakers


@pytest.mark.usefixtures("trained")
def test_embeddings_distinguish_the_speakers(diarizer, call):
    first, second = run(diarizer, call, num_speakers=2).embeddings
    cosine = first @ second / (np.linalg.norm(first) * np.linalg.norm(second))
    assert cosine < 0.9


def test_progress_never_falls_within_a_stage(diarizer, call):
    reports = defaultdict[str, list[float]](list)
    run(diarizer, call, lambda stage, done: reports[stage].append(done))
    assert reports
    assert set(reports) <= set(get_args(Stage))
    for done in reports.values():
        assert done == sorted(done)
        assert 0 <= done[0] <= done[-1] <= 1


def test_cancelled_is_propagated_from_every_stage_and_leaves_nothing(diarizer, diarized, call):
    stages: dict[str, None] = {}
    run(diarizer, call, lambda stage, _done: stages.setdefault(stage))
    for stop_at in stages:

        def progress(stage, _done, stop_at=stop_at):
            if stage == stop_at:
                raise Cancelled(stage)

        with pytest.raises(Cancelled, match=stop_at):
            run(diarizer, call, progress)
    assert run(diarizer, call).turns == diarized.turns


def test_the_recording_is_left_as_it_was(diarizer, call):
    before = call.samples.copy()
    call.samples.flags.writeable = False
    try:
        run(diarizer, call)
    finally:
        call.samples.flags.writeable = True
    assert np.array_equal(before, call.samples)


@pytest.fixture(scope="module")
def another(request: pytest.FixtureRequest, chosen: Implementation) -> Diarizer:
    """Load the same implementation again, as another machine does."""
    return chosen.load(request)


def engine_of(diarizer: Diarizer) -> Engine:
    return Engine("contract", diarizer, Deaf(), ())


class Deaf:
    """A recognizer that is never called: an engine needs one."""

    languages = ()

    def recognize(self, audio, speech, language, progress):
        raise NotImplementedError


@dataclass
class Elsewhere:
    """Has chunks processed by another diarizer out of order, each with only the samples that it reads."""

    audio: Audio
    diarizer: Diarizer
    stages: list[str] = field(default_factory=list)

    def __call__(self, chunks, progress):
        order = list(range(len(chunks)))
        random.Random(len(chunks)).shuffle(order)
        results = {}
        for index in order:
            chunk = chunks[index]
            piece = Audio(self.audio.samples[chunk.first_sample : chunk.stop_sample].copy())
            reports: list[float] = []
            results[index] = perform(
                engine_of(self.diarizer), piece, chunk, lambda _stage, done, own=reports: own.append(done)
            )
            assert reports == sorted(reports)
            assert reports[-1] == 1.0
            self.stages.append(chunk.stage)
            progress(index)
        yield from (results[index] for index in range(len(chunks)))


def test_distributed_work_gives_the_same(diarizer, chosen, another, call, monkeypatch):
    if not isinstance(diarizer, DistributedDiarizer):
        assert not chosen.spreads
        with pytest.raises(ValueError, match="cannot do segmentation"):
            perform(
                engine_of(diarizer), call, make_chunk("segmentation", call, 0, len(call.samples), {}), lambda *_: None
            )
        return
    assert chosen.spreads
    # smaller chunks than usual, so that half a minute has several
    monkeypatch.setattr("diarist.engines.embedded.segmentation.CHUNK_BLOCKS", 1)
    monkeypatch.setattr("diarist.engines.embedded.speaker_embedding.GROUP_WINDOWS", 8)
    monkeypatch.setattr("diarist.engines.embedded.local_speaker_embedding.CHUNK_WINDOWS", 8)
    alone = run(diarizer, call)
    scatter, reports = Elsewhere(call, another), defaultdict[str, list[float]](list)
    together = diarizer.diarize_distributed(
        call, SpeakerHints(), lambda stage, done: reports[stage].append(done), scatter
    )
    assert {stage: scatter.stages.count(stage) > 1 for stage in scatter.stages} == {
        "segmentation": True, "embedding": True,
    }  # fmt: skip
    assert together.turns == alone.turns
    assert np.array_equal(together.embeddings, alone.embeddings)
    assert np.array_equal(together.activity.scores, alone.activity.scores)
    for done in reports.values():
        assert done == sorted(done)
        assert done[-1] == 1.0


@pytest.mark.parametrize("stop_at", ["segmentation", "embedding"])
def test_cancelled_is_propagated_from_distributed_work(diarizer, another, call, monkeypatch, stop_at):
    if not isinstance(diarizer, DistributedDiarizer):
        return
    monkeypatch.setattr("diarist.engines.embedded.segmentation.CHUNK_BLOCKS", 1)
    monkeypatch.setattr("diarist.engines.embedded.speaker_embedding.GROUP_WINDOWS", 8)
    monkeypatch.setattr("diarist.engines.embedded.local_speaker_embedding.CHUNK_WINDOWS", 8)
    scatter = Elsewhere(call, another)

    def progress(stage, _done):
        if stage == stop_at:
            raise Cancelled(stage)

    with pytest.raises(Cancelled, match=stop_at):
        diarizer.diarize_distributed(call, SpeakerHints(), progress, scatter)
    assert scatter.stages.count(stop_at) == 1
