"""MarbleNets of both kinds with random weights: real calls on a real recording, against one call for all of it."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from diarist.engines.nemo_yaml.diar_infer_config import VadConfig
from diarist.errors import Cancelled, ConfigurationError
from diarist.types import Audio

pytestmark = pytest.mark.nemo


@pytest.fixture(scope="module")
def runtime():
    import torch

    from diarist.engines.nemo.device import Runtime

    torch.set_num_threads(1)
    return Runtime(torch.device("cpu"), "fp32")


@pytest.fixture(scope="module")
def load(nemo_models, runtime):
    from diarist.engines.nemo.loading import load_model
    from diarist.settings import load_settings

    return lambda name: load_model(str(nemo_models[name]), "vad", load_settings(), runtime)


@pytest.fixture(scope="module")
def frame_model(load):
    return load("frame_vad")


@pytest.fixture(scope="module")
def window_model(load):
    return load("segment_vad")


@pytest.fixture(scope="module")
def call(sample_recording):
    return Audio(soundfile.read(sample_recording, dtype="float32")[0])


def quiet(_stage, _done):
    pass


def at_once(loaded, samples):
    """What the model makes of all of it in one call, probabilities of speech."""
    import torch

    with torch.inference_mode():
        logits = loaded.model.forward(
            input_signal=torch.from_numpy(np.atleast_2d(samples).copy()),
            input_signal_length=torch.full((len(np.atleast_2d(samples)),), np.atleast_2d(samples).shape[1]),
        )
        return torch.softmax(logits, dim=-1)[..., 1].numpy()


@pytest.mark.parametrize("block", [150, 333, 3_000])
@pytest.mark.parametrize("batch", [1, 64])
def test_blocks_of_frames_give_what_the_whole_recording_gives(frame_model, runtime, call, block, batch):
    from diarist.engines.nemo.vad import FrameVad

    detector = FrameVad(frame_model.model, runtime, batch, block_frames=block)
    found = detector.probability(call, quiet)
    whole = at_once(frame_model, call.samples)[0]
    assert detector.grid.step == pytest.approx(0.02)
    assert len(found) == len(whole) == 1_501
    assert found.dtype == np.float32
    assert found == pytest.approx(whole, abs=1e-5)
    assert np.ptp(whole) > 1e-3  # random weights, but they do listen


def test_less_around_the_blocks_would_show(frame_model, runtime, call):
    from diarist.engines.nemo.vad import FrameVad

    detector = FrameVad(frame_model.model, runtime, 4, block_frames=100)
    detector._context //= 4
    assert abs(detector.probability(call, quiet) - at_once(frame_model, call.samples)[0]).max() > 1e-5


@pytest.mark.parametrize("samples", [1, 159, 160, 320, 4_001, 16_000])
def test_short_recordings_have_frames(frame_model, window_model, runtime, call, samples):
    from diarist.engines.nemo.vad import speech_detector

    audio = Audio(call.samples[50_000 : 50_000 + samples])
    for model in (frame_model, window_model):
        for smoothing in (None, "median"):
            config = VadConfig("x", window=0.15, smoothing=smoothing)
            detector = speech_detector(model, runtime, config, 8)
            found = detector.probability(audio, quiet)
            assert len(found) >= 1
            assert np.isfinite(found).all()
            assert ((found >= 0) & (found <= 1)).all()
            assert abs(len(found) * detector.grid.step - audio.duration) <= 2 * detector.grid.step


@pytest.mark.parametrize(("window", "shift"), [(0.63, 0.08), (0.15, 0.01)])
def test_windows_are_classified_around_their_center(window_model, runtime, call, window, shift):
    from diarist.engines.nemo.vad import WindowVad

    audio = Audio(call.samples[: 4 * 16_000])
    detector = WindowVad(window_model.model, runtime, VadConfig("x", window=window, shift=shift), 4)
    found = detector.probability(audio, quiet)
    length, hop = int(window * 16_000), int(shift * 16_000)
    assert len(found) == len(audio.samples) // hop
    for index in (0, 3, len(found) // 2, len(found) - 1):
        center = index * hop
        around = np.zeros(length, dtype=np.float32)
        low, high = center - length // 2, center - length // 2 + length
        inside = audio.samples[max(low, 0) : high]
        around[max(-low, 0) : max(-low, 0) + len(inside)] = inside
        assert found[index] == pytest.approx(at_once(window_model, around)[0], abs=1e-5)


@pytest.mark.parametrize("method", ["median", "mean"])
@pytest.mark.parametrize(("window", "shift", "overlap"), [(0.15, 0.01, 0.5), (0.63, 0.08, 0.5), (0.63, 0.01, 0.875)])
def test_smoothing_is_what_nemo_gives(nemo_models, method, window, shift, overlap):
    import torch
    from nemo.collections.asr.parts.utils.vad_utils import generate_overlap_vad_seq_per_tensor

    from diarist.engines.nemo.vad import smooth

    judged = np.random.default_rng(0).random(301).astype(np.float32)
    settings = {"overlap": overlap, "window_length_in_sec": window, "shift_length_in_sec": shift}
    theirs = generate_overlap_vad_seq_per_tensor(torch.from_numpy(judged), settings, method)
    ours = smooth(judged, VadConfig("x", window=window, shift=shift, overlap=overlap, smoothing=method))
    assert ours == pytest.approx(theirs.numpy(), abs=1e-6)


def test_the_class_of_the_model_says_what_it_judges(frame_model, window_model, runtime):
    from diarist.engines.nemo.vad import FrameVad, WindowVad, speech_detector

    assert isinstance(speech_detector(frame_model, runtime, VadConfig("x"), 4), FrameVad)
    smooth = speech_detector(window_model, runtime, VadConfig("x", shift=0.08, smoothing="mean"), 4)
    assert isinstance(smooth, WindowVad)
    assert smooth.grid.step == 0.01
    assert speech_detector(window_model, runtime, VadConfig("x", shift=0.08), 4).grid.step == pytest.approx(0.08)


def test_windows_of_no_length_are_refused(window_model, runtime):
    from diarist.engines.nemo.vad import speech_detector

    with pytest.raises(ConfigurationError, match=r"window_length_in_sec, which is 0: set it to at least 0\.05"):
        speech_detector(window_model, runtime, VadConfig("x", window=0.0), 4)


def test_a_model_of_more_than_two_kinds_of_sound_is_no_vad(nemo_models, runtime):
    from diarist.engines.nemo.loading import load_model
    from diarist.engines.nemo.vad import speech_detector
    from diarist.settings import load_settings

    model = load_model(str(nemo_models["segment_vad"]), "vad", load_settings(), runtime)
    model.model.cfg.labels = ["yes", "no", "maybe"]
    with pytest.raises(ConfigurationError, match="segment_vad has 3 classes"):
        speech_detector(model, runtime, VadConfig("x"), 4)


def test_progress_rises_to_one_and_stops_the_work(frame_model, window_model, runtime, call):
    from diarist.engines.nemo.vad import FrameVad, WindowVad

    detectors = (
        FrameVad(frame_model.model, runtime, 16, block_frames=200),
        WindowVad(window_model.model, runtime, VadConfig("x", shift=0.5), 1),
    )
    for detector in detectors:
        reports = []
        detector.probability(call, lambda stage, done, reports=reports: reports.append((stage, done)))
        assert {stage for stage, _ in reports} == {"segmentation"}
        shares = [done for _, done in reports]
        assert shares == sorted(shares)
        assert len(shares) > 4
        assert shares[-1] == 1.0

        def stop(_stage, done):
            if done > 0.3:
                raise Cancelled("enough")

        with pytest.raises(Cancelled):
            detector.probability(call, stop)


def test_frames_of_digital_silence_are_not_classified(frame_model, runtime, call, monkeypatch):
    from diarist.engines.nemo.vad import FrameVad

    silence = np.zeros(120 * 16_000, dtype=np.float32)
    samples = np.concatenate([call.samples, silence, call.samples])
    whole = at_once(frame_model, samples)[0]
    detector, blocks = FrameVad(frame_model.model, runtime, 64, block_frames=300), []
    classify = detector._classify_batch

    def counted(audio, part):
        blocks.extend(part)
        return classify(audio, part)

    monkeypatch.setattr(detector, "_classify_batch", counted)
    found = detector.probability(Audio(samples), quiet)
    assert len(blocks) < 15  # of 31
    sounding = np.concatenate([np.arange(first, stop) for first, stop in blocks])
    assert found[sounding] == pytest.approx(whole[sounding], abs=1e-5)
    assert not np.delete(found, sounding).any()


def test_windows_of_digital_silence_have_the_same_probability(window_model, runtime, call, monkeypatch):
    from diarist.engines.nemo.vad import WindowVad

    samples = np.concatenate([call.samples[:32_000], np.zeros(160_000, dtype=np.float32), call.samples[:32_000]])
    detector, classified = WindowVad(window_model.model, runtime, VadConfig("x", window=0.63, shift=0.08), 4), []
    classify = detector._classify_batch

    def counted(windows):
        classified.append(len(windows))
        return classify(windows)

    monkeypatch.setattr(detector, "_classify_batch", counted)
    found = detector.probability(Audio(samples), quiet)
    assert sum(classified) < len(found) / 2
    padded = np.pad(samples, int(0.63 * 16_000))
    for index in (0, 20, 60, 100, len(found) - 1):
        at = index * 1_280 + int(0.63 * 16_000) - int(0.63 * 16_000) // 2
        around = padded[at : at + int(0.63 * 16_000)]
        assert found[index] == pytest.approx(at_once(window_model, around)[0], abs=1e-5)
