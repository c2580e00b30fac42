"""A speaker model with random weights: real calls on a real recording, against the model's own for one window."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from diarist.errors import Cancelled
from diarist.types import Audio, Span

pytestmark = pytest.mark.nemo


@pytest.fixture(scope="module")
def runtime():
    import torch

    from diarist.engines.nemo.device import Runtime

    torch.set_num_threads(1)
    return Runtime(torch.device("cpu"), "fp32")


@pytest.fixture(scope="module")
def model(nemo_models, runtime):
    from diarist.engines.nemo.loading import load_model
    from diarist.settings import load_settings

    return load_model(str(nemo_models["speaker"]), "embedding", load_settings(), runtime).model


@pytest.fixture(scope="module")
def call(sample_recording):
    return Audio(soundfile.read(sample_recording, dtype="float32")[0])


WINDOWS = tuple(Span(start, start + length) for start in (0.0, 7.5, 15.003) for length in (3.0, 0.5, 1.5, 1.217, 0.71))


def quiet(_stage, _done):
    pass


def alone(model, samples):
    import torch

    with torch.inference_mode():
        return model.infer_segment(samples)[0][0].numpy()


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("batch", [4, 64])
def test_windows_of_any_length_give_in_batches_what_each_gives_alone(model, runtime, call, batch, masked):
    from diarist.engines.nemo.speaker_embedding import NemoSpeakerEncoder

    encoder = NemoSpeakerEncoder(model, runtime, batch)
    assert encoder._has_masked_convolutions
    encoder._has_masked_convolutions = masked
    found = encoder.embed(call, WINDOWS, quiet)
    assert found.dtype == np.float32
    assert found.shape == (len(WINDOWS), 32)
    for window, row in zip(WINDOWS, found, strict=True):
        assert row == pytest.approx(alone(model, call.cut(window).samples), abs=2e-6)
    assert abs(found[0] - found[5]).max() > 1e-4  # random weights, but they do listen


def test_a_short_window_is_heard_over_and_over(model, runtime, call):
    from diarist.engines.nemo.speaker_embedding import NemoSpeakerEncoder

    short = Span(14.0, 14.2)
    (found,) = NemoSpeakerEncoder(model, runtime, 4).embed(call, [short], quiet)
    repeated = np.concatenate([call.cut(short).samples] * 3)[:8_000]
    assert found == pytest.approx(alone(model, repeated), abs=2e-6)


@pytest.mark.parametrize("window", [Span(29.999, 30.0), Span(5.0, 5.00001), Span(5.0, 5.0), Span(29.0, 31.0)])
def test_a_window_at_the_edge_or_of_nothing_has_an_embedding(model, runtime, call, window):
    from diarist.engines.nemo.speaker_embedding import NemoSpeakerEncoder

    found = NemoSpeakerEncoder(model, runtime, 4).embed(call, [window], quiet)
    assert found.shape == (1, 32)
    assert np.isfinite(found).all()


def test_no_windows(model, runtime, call):
    from diarist.engines.nemo.speaker_embedding import NemoSpeakerEncoder

    assert len(NemoSpeakerEncoder(model, runtime, 4).embed(call, [], quiet)) == 0


@pytest.mark.parametrize("masked", [True, False])
def test_progress_rises_to_one_and_stops_the_work(model, runtime, call, masked):
    from diarist.engines.nemo.speaker_embedding import NemoSpeakerEncoder

    encoder = NemoSpeakerEncoder(model, runtime, 3)
    encoder._has_masked_convolutions = masked
    reports = []
    encoder.embed(call, WINDOWS, lambda stage, done: reports.append((stage, done)))
    assert {stage for stage, _ in reports} == {"embedding"}
    shares = [done for _, done in reports]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)

    def stop(_stage, done):
        if done > 0.3:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        encoder.embed(call, WINDOWS, stop)
