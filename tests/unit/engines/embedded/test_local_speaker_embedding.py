"""Which frames each local speaker is embedded from, and the embeddings of windows, with a small random network."""

from __future__ import annotations

import kaldi_native_fbank
import numpy as np
import onnxruntime
import pytest

from diarist.engines.embedded.local_speaker_embedding import (
    LocalSpeakerEmbedder,
    local_speech,
    speaking_windows,
)
from diarist.engines.embedded.segmentation import FRAME_SAMPLES, POWERSET, POWERSET_CLASSES, WINDOW_FRAMES, Segmentation
from diarist.engines.embedded.speaker_embedding import WESPEAKER, FilterbankSettings, filterbanks, row_count
from diarist.errors import Cancelled
from diarist.models.resnet34_graph import VALUES, build_resnet34, frame_count
from diarist.types import SAMPLE_RATE, Audio
from unit.models import weights

STEP = 59


@pytest.fixture(scope="module")
def session():
    model = build_resnet34(weights.resnet34_weights(channels=2)).SerializeToString()
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def ignore(*_):
    pass


def noise(seconds, seed=0):
    random = np.random.default_rng(seed)
    return Audio(random.uniform(-0.5, 0.5, round(seconds * SAMPLE_RATE)).astype(np.float32))


def segmentation_of(*windows):
    """Return a segmentation whose windows have these runs: (local speakers, first frame, frame after the last)."""
    classes = np.zeros((len(windows), WINDOW_FRAMES), dtype=np.uint8)
    for own, runs in zip(classes, windows, strict=True):
        for members, first, stop in runs:
            own[first:stop] = POWERSET_CLASSES.index(members)
    starts = np.arange(len(windows), dtype=np.int64) * STEP
    return Segmentation(POWERSET[classes], classes, starts, int(starts[-1]) + WINDOW_FRAMES)


WHOLE = 160_000
FRAMES = frame_count(row_count(WHOLE))


def test_the_network_has_a_frame_for_every_eight_rows():
    assert (row_count(WHOLE), FRAMES) == (998, 125)


def test_a_speaker_is_embedded_from_the_frames_where_nobody_else_speaks():
    segmentation = segmentation_of([((0,), 0, 200), ((0, 1), 200, 300), ((1,), 300, 589)])
    speech = local_speech(segmentation, 0, WHOLE)
    assert (speech.first_sample, speech.stop_sample) == (0, WHOLE)
    nearest = (np.arange(FRAMES) * WINDOW_FRAMES / FRAMES).astype(int)
    np.testing.assert_array_equal(speech.weights, [nearest < 200, nearest >= 300, np.zeros(FRAMES)])


@pytest.mark.parametrize(("alone", "with_overlap"), [(0, True), (2, True), (3, False)])
def test_overlap_is_used_by_a_speaker_who_hardly_speaks_alone(alone, with_overlap):
    segmentation = segmentation_of([((0,), 0, 200), ((0, 1), 200, 300), ((1,), 300, 300 + alone)])
    nearest = (np.arange(FRAMES) * WINDOW_FRAMES / FRAMES).astype(int)
    inside = (nearest >= 200) & (nearest < 300)
    assert local_speech(segmentation, 0, WHOLE).weights[1][inside].all() == with_overlap


@pytest.mark.parametrize("frame", range(20))
def test_speech_between_the_frames_of_the_network_has_a_frame(frame):
    segmentation = segmentation_of([((2,), frame, frame + 1)])
    assert local_speech(segmentation, 0, WHOLE).weights.sum(axis=1).tolist() == [0, 0, 1]


def test_the_last_window_ends_with_the_recording():
    segmentation = segmentation_of([((0,), 0, 589)], [((0,), 0, 300)])
    samples = STEP * FRAME_SAMPLES + 80_000
    speech = local_speech(segmentation, 1, samples)
    assert (speech.first_sample, speech.stop_sample) == (STEP * FRAME_SAMPLES, samples)
    assert speech.weights.shape == (3, frame_count(row_count(80_000)))
    assert speech.weights[0].all()


@pytest.mark.parametrize(("samples", "speaking"), [(399, []), (400, [0]), (STEP * FRAME_SAMPLES + 400, [0, 1])])
def test_windows_without_speech_or_sound_are_left_out(samples, speaking):
    segmentation = segmentation_of([((0,), 0, 5)], [((1,), 0, 5)], [])
    assert speaking_windows(segmentation, samples) == speaking


def test_embeddings_are_those_of_the_network(session):
    audio = noise(11)
    segmentation = segmentation_of([((0,), 0, 200), ((0, 1), 200, 300)], [], [((2,), 10, 100)])
    embeddings = LocalSpeakerEmbedder(session).embed(audio, segmentation, ignore)
    assert embeddings.shape == (3, 3, VALUES)
    assert embeddings.dtype == np.float32
    assert [[bool(own.any()) for own in window] for window in embeddings] == [
        [True, True, False], [False] * 3, [False, False, True],
    ]  # fmt: skip
    for window, local in ((0, 0), (0, 1), (2, 2)):
        first = window * STEP * FRAME_SAMPLES
        rows = kaldi(audio.samples[first : first + WHOLE])
        activity = local_speech(segmentation, window, len(audio.samples)).weights[local : local + 1]
        inputs = {"features": (rows - rows.mean(axis=0))[None], "weights": activity[None].astype(np.float32)}
        expected = session.run(None, inputs)[0][0, 0]
        np.testing.assert_allclose(embeddings[window, local], expected, atol=1e-4 * np.abs(expected).max())


def kaldi(samples):
    """Return the filter banks on which WeSpeaker's models are trained."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = "hamming"
    options.mel_opts.num_bins = 80
    extractor = kaldi_native_fbank.OnlineFbank(options)
    extractor.accept_waveform(SAMPLE_RATE, samples * np.float32(32_768))
    extractor.input_finished()
    return np.stack([extractor.get_frame(i) for i in range(extractor.num_frames_ready)])


def mel_bands():
    """Return triangles that are equally wide on the mel scale between 20 Hz and 8 kHz, (257 bins, 80)."""
    low, high = (1127 * np.log1p(hertz / 700) for hertz in (20.0, 8_000.0))
    edges = np.linspace(low, high, 82)
    bins = 1127 * np.log1p(np.arange(257) * SAMPLE_RATE / 512 / 700)[:, None]
    rising, falling = ((bins - edges[:-2]) / (edges[1:-1] - edges[:-2]), (edges[2:] - bins) / (edges[2:] - edges[1:-1]))
    bands = np.maximum(np.minimum(rising, falling), 0)
    bands[256] = 0  # Kaldi leaves out the last bin
    return bands


def test_the_filter_banks_are_those_of_the_definition():
    samples = noise(1).samples.astype(np.float64) * 32_768
    frames = np.lib.stride_tricks.sliding_window_view(samples, 400)[::160]
    frames = frames - frames.mean(axis=1, keepdims=True)
    frames = frames - 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    power = np.abs(np.fft.rfft(frames * np.hamming(400), 512)) ** 2
    expected = np.log(np.maximum(power @ mel_bands(), np.finfo(np.float32).eps))
    rows = filterbanks(noise(1), WESPEAKER)
    np.testing.assert_allclose(rows, expected, atol=2e-3)


@pytest.mark.parametrize("window", ["povey", "hamming"])
def test_the_scale_adds_a_constant_where_there_is_sound(window):
    plain, scaled = (filterbanks(noise(1), FilterbankSettings(window, scale)) for scale in (1.0, 32_768.0))
    np.testing.assert_allclose(scaled - plain, 2 * np.log(32_768), atol=2e-3)


@pytest.mark.parametrize("workers", [1, 3])
def test_progress_rises_to_one_and_can_cancel(session, workers):
    segmentation = segmentation_of(*[[((0,), 0, 589)]] * 5)
    seen = []
    embedder = LocalSpeakerEmbedder(session, workers)
    embedder.embed(noise(14), segmentation, lambda stage, done: seen.append((stage, done)))
    assert seen == [("embedding", pytest.approx(k / 5)) for k in range(1, 6)]

    def stop(*_):
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        embedder.embed(noise(14), segmentation, stop)


def test_the_result_of_a_chunk_with_another_shape_is_refused(session, monkeypatch):
    from diarist.engines.distributed_chunks import dump_arrays

    monkeypatch.setattr("diarist.engines.embedded.local_speaker_embedding.CHUNK_WINDOWS", 1)
    segmentation = segmentation_of(*[[((0,), 0, 589)]] * 2)

    def scatter(chunks, progress):
        yield from (dump_arrays(embeddings=np.zeros((1, 3, 5), dtype=np.float32)) for _ in chunks)

    with pytest.raises(ValueError, match="expected 1 windows"):
        LocalSpeakerEmbedder(session).distribute(noise(11), segmentation, ignore, scatter)
