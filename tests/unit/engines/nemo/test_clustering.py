"""NeMo's clustering on generated speaker embeddings, and the whole diarizer on a real recording with random weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import yaml

from diarist.clustering import SpeakerBounds, l2_normalize, renumber
from diarist.engines.multiscale.diarizer import Scale
from diarist.engines.nemo_yaml.diar_infer_config import ClusteringConfig
from diarist.errors import Cancelled
from diarist.settings import load_settings
from diarist.types import Audio, SpeakerHints

pytestmark = pytest.mark.nemo


@pytest.fixture(scope="module")
def runtime(nemo_models):
    import torch

    from diarist.engines.nemo.device import Runtime

    torch.set_num_threads(1)
    return Runtime(torch.device("cpu"), "fp32")


@pytest.fixture(scope="module")
def clusterer(runtime):
    from diarist.engines.nemo.clustering import NemoClusterer

    return NemoClusterer(runtime, ClusteringConfig())


SHIFTS = (1.5, 1.0, 0.5, 0.25)


def conversation(speakers, seconds, *, scatter=0.7, turn=6.0, seed=0, values=64):
    """Return scales of windows whose speakers alternate every ``turn`` seconds, and the speaker of each base window."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((speakers, values))
    scales, who = [], np.zeros(0, dtype=np.int64)
    for shift in SHIFTS:
        start = np.arange(max(1, int(seconds / shift))) * shift
        who = ((start + shift) // turn).astype(np.int64) % speakers
        noise = rng.standard_normal((len(start), values)) * scatter
        unit = l2_normalize((centers[who] + noise).astype(np.float32))
        scales.append(Scale(unit, start, start + 2 * shift))
    return tuple(scales), renumber(who)


def agreement(labels, truth):
    """Return the share of windows whose label is the most frequent one of their true speaker."""
    return sum(np.bincount(labels[truth == speaker]).max() for speaker in np.unique(truth)) / len(truth)


@pytest.mark.parametrize("speakers", range(2, 9))
def test_voices_that_are_well_apart_are_counted_and_told_apart(clusterer, speakers):
    scales, truth = conversation(speakers, 12.0 * speakers + 24)
    labels = clusterer.label(scales, SpeakerBounds())
    assert labels.dtype == np.int64
    assert labels.max() + 1 == speakers
    assert agreement(labels, truth) > 0.95


@pytest.mark.parametrize("speakers", [10, 12])
def test_more_voices_than_the_configuration_reckons_with_are_found_where_the_caller_expects_them(clusterer, speakers):
    scales, truth = conversation(speakers, 12.0 * speakers)
    assert clusterer.label(scales, SpeakerBounds()).max() + 1 <= 8
    for bounds in (SpeakerBounds(1, 20), SpeakerBounds(9, None)):
        labels = clusterer.label(scales, bounds)
        assert labels.max() + 1 == speakers
        assert agreement(labels, truth) > 0.95


@pytest.mark.parametrize("wanted", [*range(1, 11), 40, 100])
def test_an_exact_number_is_met(clusterer, wanted):
    scales, _ = conversation(3, 60)
    labels = clusterer.label(scales, SpeakerBounds(wanted, wanted))
    assert sorted(set(labels.tolist())) == list(range(wanted))
    assert np.array_equal(labels, renumber(labels))


@pytest.mark.parametrize("windows", range(1, 12))
def test_few_windows(clusterer, windows):
    scales, _ = conversation(2, windows * 0.25 + 0.01, turn=1.0)
    assert len(scales[-1].unit) == windows
    for wanted in {1, 2, 3, windows, 2 * windows}:
        labels = clusterer.label(scales, SpeakerBounds(wanted, wanted))
        assert len(np.unique(labels)) == min(wanted, windows)
    assert len(np.unique(clusterer.label(scales, SpeakerBounds(1, 2)))) <= 2
    assert len(np.unique(clusterer.label(scales, SpeakerBounds(2, None)))) >= min(2, windows)


@pytest.mark.parametrize(("least", "most"), [(1, 2), (4, None), (4, 5), (1, 1), (2, 3)])
@pytest.mark.parametrize("seconds", [12, 60])
def test_the_least_and_the_most_are_kept(clusterer, least, most, seconds):
    scales, _ = conversation(3, seconds, scatter=1.5)
    found = len(np.unique(clusterer.label(scales, SpeakerBounds(least, most))))
    assert least <= found <= (most or 8)


def test_windows_that_are_all_alike_or_nothing(clusterer):
    scales, _ = conversation(2, 30)
    for unit in (np.ones, np.zeros):
        same = tuple(replace(scale, unit=l2_normalize(unit(scale.unit.shape, dtype=np.float32))) for scale in scales)
        for wanted in (1, 2, 5):
            assert len(np.unique(clusterer.label(same, SpeakerBounds(wanted, wanted)))) == wanted
        assert len(clusterer.label(same, SpeakerBounds())) == len(scales[-1].unit)


def test_windows_are_matched_across_scales_as_nemo_matches_them():
    import torch
    from nemo.collections.asr.parts.utils.offline_clustering import get_scale_interpolated_embs

    from diarist.engines.nemo.clustering import combine_scales

    scales, _ = conversation(3, 40)
    weighted = [replace(scale, weight=weight) for scale, weight in zip(scales, (1.0, 0.5, 2.0, 1.0), strict=True)]
    theirs, _ = get_scale_interpolated_embs(
        torch.tensor([[scale.weight for scale in weighted]]),
        [torch.from_numpy(scale.unit) for scale in weighted],
        [torch.from_numpy(np.stack([scale.start, scale.end], axis=1).astype(np.float32)) for scale in weighted],
    )
    assert combine_scales(weighted) == pytest.approx(l2_normalize(theirs.numpy()), abs=1e-5)


@pytest.fixture(scope="module")
def in_chunks(runtime):
    """Takes the way for long recordings after 600 windows."""
    from diarist.engines.nemo.clustering import NemoClusterer

    return NemoClusterer(runtime, ClusteringConfig(embeddings_per_chunk=600))


def nemo_labels(scales, **options):
    """What a direct call gives."""
    import torch
    from nemo.collections.asr.parts.utils.longform_clustering import LongFormSpeakerClustering

    times = [np.stack([scale.start, scale.end], axis=1).astype(np.float32) for scale in scales]
    labels = LongFormSpeakerClustering(cuda=False).forward_infer(
        embeddings_in_scales=torch.from_numpy(np.concatenate([scale.unit for scale in scales])),
        timestamps_in_scales=torch.from_numpy(np.concatenate(times)),
        multiscale_segment_counts=torch.tensor([len(scale.unit) for scale in scales]),
        multiscale_weights=torch.ones(1, len(scales)),
        max_rp_threshold=0.25,
        max_num_speakers=8,
        **options,
    )
    return renumber(labels.numpy())


def test_labels_are_those_that_nemo_gives(clusterer):
    for scatter in (0.7, 2.0):
        scales, _ = conversation(4, 60, scatter=scatter)
        assert np.array_equal(clusterer.label(scales, SpeakerBounds()), nemo_labels(scales))


@pytest.mark.parametrize(("speakers", "scatter"), [(2, 1.5), (4, 0.7)])
def test_long_recordings_are_clustered_in_chunks_as_nemo_does(in_chunks, speakers, scatter):
    scales, truth = conversation(speakers, 300, scatter=scatter)
    assert len(truth) == 1_200
    labels = in_chunks.label(scales, SpeakerBounds())
    theirs = nemo_labels(scales, embeddings_per_chunk=600)
    assert labels.max() == theirs.max() == speakers - 1
    assert agreement(labels, truth) > max(0.93, agreement(theirs, truth) - 0.03)


def test_voices_far_apart_are_counted_in_chunks(runtime):
    from diarist.engines.nemo.clustering import NemoClusterer

    clusterer = NemoClusterer(runtime, ClusteringConfig(embeddings_per_chunk=400, chunk_cluster_count=20))
    scales, truth = conversation(2, 450, scatter=0.7)  # NeMo finds three: most of its clusters are single windows
    labels = clusterer.label(scales, SpeakerBounds())
    assert labels.max() + 1 == 2
    assert agreement(labels, truth) > 0.95


def test_a_summary_stands_for_stretches_of_like_size_and_leaves_out_scraps():
    from diarist.engines.nemo.clustering import chunk_centroids

    unit = np.arange(40, dtype=np.float32)[:, None]
    labels = np.array([7] * 20 + [2] * 8 + [5] + [7] * 11)
    rows, member = chunk_centroids(unit, labels, 10)
    assert member[28] == -1
    assert (np.bincount(np.delete(member, 28)) >= 7).all()
    assert len(rows) == 1 + 4
    for row in range(len(rows)):
        own = np.flatnonzero(member == row)
        assert len(set(labels[own])) == 1
        assert rows[row] == pytest.approx(unit[own].mean(axis=0))


@pytest.mark.parametrize("wanted", [1, 2, 10, 30])
def test_an_exact_number_is_met_in_chunks(in_chunks, wanted):
    scales, _ = conversation(3, 300)
    labels = in_chunks.label(scales, SpeakerBounds(wanted, wanted))
    assert sorted(set(labels.tolist())) == list(range(wanted))


def test_the_random_numbers_of_the_process_are_left_alone(clusterer):
    import torch

    scales, _ = conversation(3, 15)  # counted in the way for short recordings, which draws
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = clusterer.label(scales, SpeakerBounds())
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(8)
    assert np.array_equal(clusterer.label(scales, SpeakerBounds()), first)


def test_nothing_is_printed(clusterer, in_chunks, capfd):
    for each in (clusterer, in_chunks):
        each.label(conversation(2, 120)[0], SpeakerBounds())
    assert capfd.readouterr() == ("", "")


# The whole diarizer: random weights, so nothing of what is found is right, but all of it has to hold.


@pytest.fixture(scope="module")
def settings(nemo_models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("conf")
    content = {
        "diarizer": {
            "vad": {
                "model_path": str(nemo_models["frame_vad"]),
                "parameters": {"onset": 0.0, "offset": 0.0, "min_duration_off": 0.2},
            },
            "speaker_embeddings": {
                "model_path": str(nemo_models["speaker"]),
                "parameters": {
                    "window_length_in_sec": [2.0, 1.0, 0.5],
                    "shift_length_in_sec": [1.0, 0.5, 0.25],
                    "multiscale_weights": [1, 1, 1],
                },
            },
        }
    }
    (folder / "diar_infer_tiny.yaml").write_text(yaml.safe_dump(content))
    return load_settings(model_config_dir=folder, diar_config="tiny", nemo_device="cpu", cpu_threads=1)


@pytest.fixture(scope="module")
def loaded(settings):
    from diarist.engines.nemo.clustering import load

    return load(settings)


@pytest.fixture(scope="module")
def call(sample_recording):
    return Audio(soundfile.read(sample_recording, dtype="float32")[0])


def quiet(_stage, _done):
    pass


def same(first, second):
    return (
        first.turns == second.turns
        and np.array_equal(first.embeddings, second.embeddings)
        and np.array_equal(first.activity.scores, second.activity.scores)
    )


def test_it_says_what_it_is_made_of(loaded):
    assert [(model.name, model.role) for model in loaded.models] == [("frame_vad", "vad"), ("speaker", "embedding")]
    assert loaded.device == "cpu"


def test_a_real_recording_goes_through_every_part(loaded, call):
    diarization = loaded.part.diarize(call, SpeakerHints(), quiet)
    assert diarization.diarizer == "clustering"
    assert diarization.turns
    assert diarization.embeddings.shape == (len(diarization.speakers), 32)
    assert diarization.activity is not None
    assert diarization.activity.scores.shape == (1_500, len(diarization.speakers))


@pytest.mark.parametrize("wanted", [1, 2, 5, 10])
def test_hints_are_honoured_exactly(loaded, call, wanted):
    assert len(loaded.part.diarize(call, SpeakerHints(num_speakers=wanted), quiet).speakers) == wanted


def test_threads_give_what_one_after_the_other_gives(loaded, call):
    parts = [Audio(call.samples[first * 16_000 : (first + 6) * 16_000]) for first in (0, 6, 12, 18)]
    serial = [loaded.part.diarize(part, SpeakerHints(num_speakers=2), quiet) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(lambda part: loaded.part.diarize(part, SpeakerHints(num_speakers=2), quiet), parts))
    assert all(same(one, other) for one, other in zip(serial, parallel, strict=True))


def test_work_can_be_stopped_in_every_stage_and_leaves_nothing(loaded, call):
    audio = Audio(call.samples[: 8 * 16_000])
    before = loaded.part.diarize(audio, SpeakerHints(num_speakers=2), quiet)
    for stop_at in ("segmentation", "embedding", "clustering"):

        def stop(stage, _done, stop_at=stop_at):
            if stage == stop_at:
                raise Cancelled(stage)

        with pytest.raises(Cancelled, match=stop_at):
            loaded.part.diarize(audio, SpeakerHints(), stop)
    assert same(loaded.part.diarize(audio, SpeakerHints(num_speakers=2), quiet), before)


def test_silence_has_no_turns(loaded):
    for seconds in (0.01, 3.0):
        found = loaded.part.diarize(Audio(np.zeros(round(seconds * 16_000), dtype=np.float32)), SpeakerHints(), quiet)
        assert found.turns == ()
