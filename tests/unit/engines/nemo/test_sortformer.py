"""Sortformer through real models with random weights: the same frames as NeMo's own calls, and what holds of any."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from diarist.engines.multiscale.binarization import Binarization
from diarist.engines.nemo_yaml.sortformer_config import SortformerConfig, StreamingConfig
from diarist.errors import AudioTooLong, Cancelled, ConfigurationError, InvalidOption, ModelError
from diarist.protocols import Diarizer
from diarist.settings import Settings, load_settings
from diarist.types import Audio, Diarization, SpeakerHints

pytestmark = pytest.mark.nemo

SHORT = StreamingConfig(31, 1, 5, 20, 25, 60)
"""Chunks of 2.5 s: many of them in 30 s, and a memory that overflows."""

RULE = Binarization(0.6, 0.5, 0.1, 0.05, 0.2, 0.2)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Of PyTorch's: these models are too small to share out."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def call(sample_recording) -> Audio:
    samples, _ = soundfile.read(sample_recording, dtype="float32")
    return Audio(samples)


@pytest.fixture(scope="module")
def streaming(nemo_models, call, tmp_path_factory) -> Path:
    return lively(nemo_models["sortformer"], call, tmp_path_factory)


@pytest.fixture(scope="module")
def offline(nemo_models, call, tmp_path_factory) -> Path:
    return lively(nemo_models["offline_sortformer"], call, tmp_path_factory)


def lively(path: Path, call: Audio, factory: pytest.TempPathFactory) -> Path:
    """The same model with the last layer scaled, so that its four speakers come and go in the call."""
    import torch

    model = restored(path)
    last = model.sortformer_modules.single_hidden_to_spks
    seen = torch.logit(torch.from_numpy(by_nemo(model, call.samples)))
    scale = 2.0 / seen.std(dim=0)
    with torch.no_grad():
        last.weight.mul_(scale[:, None])
        last.bias.sub_(seen.mean(dim=0)).mul_(scale)
    target = factory.mktemp("lively") / path.name
    model.save_to(str(target))
    return target


def restored(path: Path, config: StreamingConfig | None = None) -> Any:
    """A model by NeMo alone."""
    from nemo.collections.asr.models import SortformerEncLabelModel

    model = SortformerEncLabelModel.restore_from(str(path), map_location="cpu").eval()
    for key in StreamingConfig.__slots__ if config else ():
        setattr(model.sortformer_modules, key, getattr(config, key))
    model.preprocessor.featurizer.pad_to = 0
    return model


def by_nemo(model: Any, samples: np.ndarray) -> np.ndarray:
    """What NeMo's forward gives: (frames, speakers)."""
    import torch

    with torch.inference_mode():
        signal = torch.from_numpy(samples.copy())[None]
        return model.forward(audio_signal=signal, audio_signal_length=torch.tensor([len(samples)]))[0].numpy()


def make(
    path: Path,
    streaming: StreamingConfig = SHORT,
    binarization: Binarization = RULE,
    precision: str = "fp32",
    change: Callable[[Any], object] = lambda _model: None,
) -> Any:
    import torch

    from diarist.engines.nemo.device import Runtime
    from diarist.engines.nemo.loading import load_model
    from diarist.engines.nemo.sortformer import SortformerDiarizer

    runtime = Runtime(torch.device("cpu"), precision)
    loaded = load_model(str(path), "diarization", load_settings(), runtime)
    change(loaded.model)
    return SortformerDiarizer(loaded, runtime, SortformerConfig(binarization, streaming))


def run(diarizer: Diarizer, audio: Audio, progress=lambda _stage, _done: None, **hints: int) -> Diarization:
    return diarizer.diarize(audio, SpeakerHints(**hints), progress)


def frames(diarizer: Any, samples: np.ndarray) -> np.ndarray:
    return diarizer._inference.probability(samples, lambda _done: None)


@pytest.fixture(scope="module")
def diarizer(streaming) -> Any:
    return make(streaming)


@pytest.fixture(scope="module")
def whole(offline) -> Any:
    return make(offline)


@pytest.fixture(params=["diarizer", "whole"])
def either(request) -> Any:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("config", [SHORT, StreamingConfig(), StreamingConfig(6, 1, 7, 40, 144, 188)])
def test_frames_are_those_of_nemos_forward(streaming, call, config):
    heard = frames(make(streaming, config), call.samples)
    assert heard.dtype == np.float32
    assert heard.shape == (375, 4)
    assert (heard.std(axis=0) > 0.1).all()  # there is something to compare
    assert np.abs(heard - by_nemo(restored(streaming, config), call.samples)).max() < 1e-5


@pytest.mark.parametrize("normalize", ["per_feature", "all_features"])
def test_features_are_normalized_as_by_nemo(nemo_models, call, normalize):
    def change(model):
        model.preprocessor.featurizer.normalize = normalize

    path = nemo_models["sortformer"]
    reference = restored(path, SHORT)
    without = by_nemo(reference, call.samples)
    change(reference)
    expected = by_nemo(reference, call.samples)
    assert np.abs(expected - without).max() > 1e-3
    assert np.abs(frames(make(path, change=change), call.samples) - expected).max() < 1e-6


def test_frames_are_those_of_nemos_forward_in_its_asynchronous_way(streaming, call):
    reference = restored(streaming, SHORT)
    reference.async_streaming = True
    diarizer = make(streaming, change=lambda model: setattr(model, "async_streaming", True))
    assert np.abs(frames(diarizer, call.samples) - by_nemo(reference, call.samples)).max() < 1e-5


def test_a_model_that_hears_the_whole_gives_what_nemo_gives(offline, whole, call):
    assert np.abs(frames(whole, call.samples) - by_nemo(restored(offline), call.samples)).max() < 1e-5


@pytest.mark.parametrize("samples", [159, 160, 161, 1_279, 1_281, 39_680, 39_681, 40_960, 41_120, 100_000])
def test_frames_are_those_of_nemo_at_every_length(streaming, diarizer, call, samples):
    part = call.samples[14 * 16_000 :][:samples]
    expected = by_nemo(restored(streaming, SHORT), part)
    heard = frames(diarizer, part)
    assert heard.shape == expected.shape
    assert np.allclose(heard, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["callhome", "dihard3"])
def test_turns_are_those_of_nemos_diarize(streaming, call, name, tmp_path):
    from diarist.engines.nemo_yaml.sortformer_config import read_config

    conf = Path(__file__).parents[4] / "conf"
    config = read_config(load_settings(model_config_dir=conf, sortformer_config=name))
    reference = restored(streaming, SHORT)
    (lines,), (tensor,) = reference.diarize(
        audio=call.samples.copy(),
        sample_rate=16_000,
        include_tensor_outputs=True,
        postprocessing_yaml=str(conf / f"sortformer_{name}.yaml"),
        num_workers=0,
        verbose=False,
    )
    diarizer = make(streaming, binarization=config.binarization)
    assert np.abs(frames(diarizer, call.samples) - tensor[0].numpy()).max() < 1e-5
    theirs = sorted((float(end), float(start)) for start, end, _ in map(str.split, lines))
    found = sorted((turn.span.end, turn.span.start) for turn in run(diarizer, call).turns)
    assert len(found) == len(theirs) > 5
    for (end, start), (their_end, their_start) in zip(found, theirs, strict=True):
        # NeMo rounds to 10 ms and lets turns end after the recording
        assert end == pytest.approx(min(their_end, call.duration), abs=0.012)
        # and loses the first of two segments that are both padded to the very start
        assert start == pytest.approx(their_start, abs=0.006) or start == 0.0


def check(diarization: Diarization, duration: float) -> None:
    turns = diarization.turns
    assert list(turns) == sorted(turns)
    assert diarization.speakers == tuple(f"SPEAKER_{i:02d}" for i in range(len(diarization.speakers)))
    assert all(0 <= turn.span.start < turn.span.end <= duration for turn in turns)
    assert {type(edge) for turn in turns for edge in (turn.span.start, turn.span.end)} <= {float}
    for speaker in diarization.speakers:
        own = [turn.span for turn in turns if turn.speaker == speaker]
        assert all(before.end <= after.start for before, after in pairwise(own))
    assert diarization.embeddings.dtype == np.float32
    assert len(diarization.embeddings) == len(diarization.speakers)
    if turns:
        scores = diarization.activity.scores
        assert scores.shape[1] == len(diarization.speakers)
        assert scores.dtype == np.float32
        assert (len(scores) - 1) * diarization.activity.step < duration
        assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.parametrize("seconds", [1 / 16_000, 0.005, 0.01, 0.05, 0.08, 0.3, 1.0, 2.48, 2.5, 9.99])
def test_a_recording_of_any_length_is_diarized(either, call, seconds):
    audio = Audio(call.samples[14 * 16_000 :][: max(1, round(seconds * 16_000))])
    check(run(either, audio), audio.duration)


def test_all_four_speakers_of_the_model_are_used(either, call):
    found = run(either, call)
    check(found, call.duration)
    assert len(found.speakers) == either.max_speakers == 4
    assert found.diarizer == "sortformer"


@pytest.mark.parametrize("seconds", [0.01, 0.5, 3.0])
def test_silence_has_no_turns(either, seconds):
    reports: list[tuple[str, float]] = []
    silence = Audio(np.zeros(round(seconds * 16_000), dtype=np.float32))
    found = run(either, silence, lambda *report: reports.append(report))
    assert found.turns == ()
    assert found.diarizer == "sortformer"
    assert reports[-1] == ("segmentation", 1.0)


def test_sound_of_any_kind_does_no_harm(either):
    ones = np.ones(48_000, dtype=np.float32)
    square = np.sign(np.sin(np.arange(48_000) / 800)).astype(np.float32)
    for samples in (ones, -ones, square, np.where(np.arange(48_000) == 30_000, ones, 0 * ones)):
        check(run(either, Audio(samples)), 3.0)


def test_two_runs_are_identical(either, call):
    first = run(either, call)
    run(either, Audio(call.samples[:50_000] * 0.1))
    again = run(either, call)
    assert again.turns == first.turns
    assert np.array_equal(again.activity.scores, first.activity.scores)


def test_parallel_jobs_give_what_serial_jobs_give(diarizer, call):
    parts = [Audio(call.samples[at * 16_000 : (at + 12) * 16_000]) for at in range(0, 16, 4)]
    serial = [run(diarizer, part) for part in parts]
    parallel: dict[int, Diarization] = {}
    threads = [
        threading.Thread(target=lambda i=i: parallel.setdefault(i, run(diarizer, parts[i]))) for i in range(len(parts))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, one in enumerate(serial):
        assert parallel[i].turns == one.turns
        assert np.array_equal(parallel[i].activity.scores, one.activity.scores)


@pytest.mark.parametrize("wanted", [1, 2, 3, 4])
def test_an_exact_number_of_speakers_is_met(either, call, wanted):
    found = run(either, call, num_speakers=wanted)
    check(found, call.duration)
    assert len(found.speakers) == wanted


def test_the_most_and_the_least_are_kept(diarizer, streaming, call):
    assert len(run(diarizer, call, max_speakers=2).speakers) == 2
    assert len(run(diarizer, call, max_speakers=9).speakers) == 4
    strict = make(streaming, binarization=replace(RULE, onset=0.9999, offset=0.999))
    assert len(run(strict, call).speakers) < 3
    assert len(run(strict, call, min_speakers=3).speakers) == 3


def test_fewer_speakers_lose_no_speech(diarizer, call):
    def covered(diarization: Diarization) -> np.ndarray:
        spoken = np.zeros(3_000, dtype=bool)
        for turn in diarization.turns:
            spoken[round(turn.span.start * 100) : round(turn.span.end * 100)] = True
        return spoken

    everything = covered(run(diarizer, call))
    assert not (everything & ~covered(run(diarizer, call, num_speakers=2))).any()


@pytest.mark.parametrize("hints", [{"num_speakers": 5}, {"min_speakers": 5}, {"min_speakers": 5, "max_speakers": 9}])
def test_more_speakers_than_the_model_has_are_refused(diarizer, call, hints):
    with pytest.raises(InvalidOption, match=r"at most 4 speakers.*not 5.*DIARIZER.*auto or clustering"):
        run(diarizer, call, **hints)


def test_progress_rises_with_every_chunk(diarizer, call):
    reports: list[tuple[str, float]] = []
    run(diarizer, call, lambda *report: reports.append(report))
    done = [share for _, share in reports]
    assert {stage for stage, _ in reports} == {"segmentation"}
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0.0, 1.0)
    assert len(set(done)) == 14  # 375 frames in chunks of 31, and 0


def test_cancelled_goes_through_between_chunks_and_leaves_nothing(diarizer, call):
    before = run(diarizer, call)

    def progress(stage, done):
        if done > 0.3:
            raise Cancelled(stage)

    with pytest.raises(Cancelled):
        run(diarizer, call, progress)
    assert run(diarizer, call).turns == before.turns


def test_the_recording_is_left_as_it_was(either, call):
    before = call.samples.copy()
    call.samples.flags.writeable = False
    try:
        run(either, call)
    finally:
        call.samples.flags.writeable = True
    assert np.array_equal(before, call.samples)


def test_no_step_holds_more_than_a_chunk(streaming, call):
    diarizer = make(streaming)
    model = diarizer._inference._model
    seen: list[tuple[int, int, int]] = []
    step = model.forward_streaming_step

    def watched_step(**given):
        state, heard = step(**given)
        held = state.spkcache.shape[1] + state.fifo.shape[1]
        seen.append((given["processed_signal"].shape[1], given["total_preds"].shape[1], held))
        return state, heard

    lengths: list[int] = []
    model.preprocessor.featurizer.register_forward_pre_hook(lambda _module, given: lengths.append(given[0].shape[1]))
    model.forward_streaming_step = watched_step
    run(diarizer, Audio(np.tile(call.samples, 4)))
    chunk = 8 * (SHORT.chunk_len + SHORT.chunk_left_context + SHORT.chunk_right_context)
    assert len(seen) == len(lengths) == 49
    assert max(features for features, _, _ in seen) == chunk
    assert max(lengths) <= (chunk + 10) * 160
    assert {joined for _, joined, _ in seen} == {0}
    assert max(held for _, _, held in seen) <= SHORT.spkcache_len + SHORT.fifo_len + SHORT.chunk_len


@pytest.mark.parametrize("config", [SHORT, StreamingConfig()])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_reduced_precision_hears_the_same(streaming, call, config, asynchronous):
    def change(model):
        model.async_streaming = asynchronous

    heard = frames(make(streaming, config, precision="bf16", change=change), call.samples)
    exact = frames(make(streaming, config, change=change), call.samples)
    assert heard.dtype == np.float32
    assert 0 < np.abs(heard - exact).mean() < 0.05


def test_results_that_are_no_numbers_are_an_error(streaming, call):
    def change(model):
        model.sortformer_modules.single_hidden_to_spks.bias.data.fill_(float("nan"))

    with pytest.raises(ModelError, match=r"in fp32 contains values that are not finite.*NEMO_PRECISION"):
        run(make(streaming, change=change), call)


def test_a_model_that_hears_the_whole_takes_no_long_recording(whole, diarizer):
    assert diarizer.max_duration is None
    long = Audio(np.ones(round(16_000 * (whole.max_duration + 1)), dtype=np.float32))
    with pytest.raises(AudioTooLong, match=r"as a whole.*streaming model.*auto or clustering"):
        run(whole, long)


def test_a_memory_too_small_for_the_speakers_is_refused(streaming):
    with pytest.raises(ConfigurationError, match=r"spkcache_len is 15.*at least 16"):
        make(streaming, replace(SHORT, spkcache_len=15))
    make(streaming, replace(SHORT, spkcache_len=16))


def test_the_smallest_memory_works(streaming, call):
    diarizer = make(streaming, StreamingConfig(1, 0, 0, 0, 1, 16))
    check(run(diarizer, Audio(call.samples[:160_000])), 10.0)


def test_a_model_with_another_number_of_speakers(tmp_path, call):
    from support import random_nemo_models

    path = tmp_path / "six.nemo"
    random_nemo_models.sortformer(speakers=6).save_to(str(path))
    diarizer = make(path)
    assert diarizer.max_speakers == 6
    assert len(run(diarizer, call, num_speakers=6).speakers) == 6


def test_it_is_loaded_as_set(streaming, call, tmp_path):
    from diarist.engines.nemo.sortformer import load

    (tmp_path / "sortformer_own.yaml").write_text("parameters: {onset: 0.99}\nstreaming: {chunk_len: 62}\n")
    loaded = load(settings_of(streaming, tmp_path))
    assert [model.role for model in loaded.models] == ["diarization"]
    assert loaded.device == "cpu"
    assert loaded.part._binarization.onset == 0.99
    assert loaded.part._inference._model.sortformer_modules.chunk_len == 62
    check(run(loaded.part, call), call.duration)


def settings_of(path: Path, folder: Path) -> Settings:
    return load_settings(
        engine="nemo", diarizer="sortformer", sortformer_model=str(path), sortformer_config="own",
        model_config_dir=folder, nemo_device="cpu", cpu_threads=1,
    )  # fmt: skip


def test_nothing_is_printed(diarizer, call, capfd):
    run(diarizer, call)
    assert capfd.readouterr() == ("", "")
