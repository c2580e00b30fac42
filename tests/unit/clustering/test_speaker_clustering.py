"""Tests of clustering on embeddings whose speakers are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarist.clustering import speaker_clustering
from diarist.clustering.agglomerative import agglomerate
from diarist.clustering.embeddings import (
    EmbeddedWindows,
    SpeakerBounds,
    expected_similarity,
    l2_normalize,
    renumber,
)
from diarist.clustering.speaker_clustering import (
    MIN_SPLIT_SHARE,
    SPECTRAL_MAX_WINDOWS,
    SPECTRAL_MIN_WINDOWS,
    cluster,
    split_clusters,
    summarize,
)
from diarist.clustering.spectral import spectral_clustering
from support.strategies import patient

VALUES = 192
ANY = SpeakerBounds()


def embedded_runs(who, *, scatter=0.6, channel=0.0, seed=0, run_windows=4):
    """Return windows of 1.5 s every 0.75 s in runs, and their true labels; ``who`` gives the speaker of each run.

    ``scatter`` and ``channel`` are the lengths of the differences between windows of one speaker and of what all
    windows share, where a speaker's vector has length 1.
    """
    rng = np.random.default_rng(seed)
    speakers = np.linalg.qr(rng.standard_normal((VALUES, max(who, default=0) + 2)))[0].T  # orthonormal rows
    truth = np.repeat(np.array(who, dtype=np.int64), run_windows)
    noise = rng.standard_normal((len(truth), VALUES)) * scatter / np.sqrt(VALUES)
    rows = speakers[truth] + noise + channel * speakers[-1]
    run = np.repeat(np.arange(len(who)), run_windows)
    start = np.arange(len(truth)) * 0.75 + run * 2.0
    return EmbeddedWindows(l2_normalize(rows.astype(np.float32)), start, start + 1.5, run), truth


def same_partition(labels, truth):
    return np.array_equal(renumber(labels), renumber(truth))


def random_runs(speakers, runs, seed=1):
    """Return the speaker of each run: every speaker once, then at random."""
    rng = np.random.default_rng(seed)
    return [*range(speakers), *(int(k) for k in rng.integers(0, speakers, runs - speakers))]


@pytest.mark.parametrize("channel", [0.0, 1.0, 1.5])
@pytest.mark.parametrize(("speakers", "runs"), [(1, 5), (2, 4), (2, 9), (3, 9), (4, 9)])
def test_few_windows_are_separated_by_speaker(speakers, runs, channel):
    windows, truth = embedded_runs(random_runs(speakers, runs), channel=channel)
    assert len(windows) < SPECTRAL_MIN_WINDOWS
    assert same_partition(cluster(windows, ANY), truth)


@pytest.mark.parametrize("channel", [0.0, 1.0, 1.5])
@pytest.mark.parametrize(("speakers", "runs"), [(2, 20), (3, 40), (6, 60)])
def test_many_windows_are_separated_by_speaker(speakers, runs, channel):
    windows, truth = embedded_runs(random_runs(speakers, runs), channel=channel)
    assert SPECTRAL_MIN_WINDOWS <= len(windows) <= SPECTRAL_MAX_WINDOWS
    assert same_partition(cluster(windows, ANY), truth)


def test_one_speaker_on_a_noisy_line_stays_one():
    windows, _ = embedded_runs([0] * 9, scatter=1.2, channel=0.5)
    assert set(cluster(windows, ANY).tolist()) == {0}


def test_a_speaker_of_one_window_among_others_is_found():
    windows, truth = embedded_runs([0, 0, 1, 1, 2], run_windows=4)
    part = windows.subset(slice(0, 17))  # one window of the third speaker
    assert same_partition(cluster(part, ANY), truth[:17])


@pytest.mark.slow
def test_a_long_recording_keeps_its_speakers():
    windows, truth = embedded_runs(random_runs(5, 700), channel=0.8)
    assert len(windows) > SPECTRAL_MAX_WINDOWS
    assert same_partition(cluster(windows, ANY), truth)


@pytest.mark.parametrize("runs", [3, 9, 40, 100])
@pytest.mark.parametrize("wanted", [1, 2, 5, 11])
def test_an_exact_number_is_met(monkeypatch, runs, wanted):
    monkeypatch.setattr(speaker_clustering, "SPECTRAL_MAX_WINDOWS", 200)  # so that the longest is summarized
    windows, _ = embedded_runs(random_runs(3, runs))
    labels = cluster(windows, SpeakerBounds(wanted, wanted))
    assert sorted(set(labels.tolist())) == list(range(wanted))


@pytest.mark.parametrize("runs", [6, 40])
def test_the_bounds_do_not_change_a_count_within_them(runs):
    windows, truth = embedded_runs(random_runs(3, runs))
    assert same_partition(cluster(windows, SpeakerBounds(1, 8)), truth)
    assert same_partition(cluster(windows, SpeakerBounds(2, None)), truth)
    assert cluster(windows, SpeakerBounds(1, 2)).max() == 1
    assert cluster(windows, SpeakerBounds(5, None)).max() >= 4


@pytest.mark.parametrize("runs", [9, 40])
def test_more_speakers_can_be_requested_than_the_eigengap_detects(runs):
    windows, _ = embedded_runs(random_runs(3, runs))
    assert cluster(windows, SpeakerBounds(30, 30)).max() == 29
    assert cluster(windows, SpeakerBounds(30, None)).max() >= 29


@pytest.mark.parametrize("bounds", [ANY, SpeakerBounds(1, 1), SpeakerBounds(2, 2), SpeakerBounds(7, None)])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_windows(count, bounds):
    windows, _ = embedded_runs([0, 1])
    labels = cluster(windows.subset(slice(0, count)), bounds)
    assert labels.shape == (count,)
    assert labels.dtype == np.int64
    assert len(set(labels.tolist())) == min(count, max(bounds.min_speakers, 1)) or bounds == ANY
    assert set(labels.tolist()) <= set(range(count))


@pytest.mark.parametrize("count", [2, 10, 60])
@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("bounds", [ANY, SpeakerBounds(4, 4), SpeakerBounds(1, 3)])
def test_identical_windows(count, value, bounds):
    rows = l2_normalize(np.full((count, VALUES), value, dtype=np.float32))
    start = np.arange(count) * 2.0
    windows = EmbeddedWindows(rows, start, start + 1.5, np.arange(count))
    labels = cluster(windows, bounds)
    low, high = bounds.clip(1, count), bounds.clip(count, count)
    assert low <= len(set(labels.tolist())) <= high
    assert same_partition(labels, cluster(windows, bounds))


def test_rows_of_zeros_do_no_harm():
    windows, truth = embedded_runs(random_runs(2, 8))
    windows.unit[5] = 0.0
    labels = cluster(windows, SpeakerBounds(2, 2))
    kept = np.arange(len(windows)) != 5
    assert np.isfinite(labels).all()
    assert same_partition(labels[kept], truth[kept])


@pytest.mark.parametrize("runs", [9, 40])
def test_clustering_is_deterministic(runs):
    windows, _ = embedded_runs(random_runs(4, runs), scatter=1.5)
    assert np.array_equal(cluster(windows, ANY), cluster(windows, ANY))


def test_agglomeration_only_merges():
    windows, _ = embedded_runs(random_runs(3, 6), scatter=1.0)
    for threshold in (0.0, 0.1, np.inf):
        fine = agglomerate(windows, np.arange(len(windows)), SpeakerBounds(6, None), threshold)
        coarse = agglomerate(windows, np.arange(len(windows)), SpeakerBounds(3, 3), threshold)
        together = fine[:, None] == fine
        assert (coarse[:, None] == coarse)[together].all()


def test_overlapping_windows_are_not_disjoint():
    windows, _ = embedded_runs([0, 1], run_windows=3)
    disjoint = windows.disjoint
    assert not disjoint[0, 0]
    assert not disjoint[0, 1]  # 0.75 s in common
    assert disjoint[0, 2]  # they touch
    assert disjoint[0, 3]
    assert np.array_equal(disjoint, disjoint.T)


def repeated(windows: EmbeddedWindows) -> EmbeddedWindows:
    """Return the windows of a recording that is played twice."""
    later = windows.end[-1] + 1
    return EmbeddedWindows(
        np.concatenate([windows.unit, windows.unit]),
        np.concatenate([windows.start, windows.start + later]),
        np.concatenate([windows.end, windows.end + later]),
        np.concatenate([windows.run, windows.run + windows.run[-1] + 1]),
    )


@pytest.mark.parametrize("count", [1, 2])
def test_a_repeated_phrase_is_no_speaker_of_its_own(count):
    windows, _ = embedded_runs([0] * 12, run_windows=4, scatter=0.9)
    once = resembling(windows, count, 0.45)
    assert not cluster(once, ANY).any()
    assert not cluster(repeated(once), ANY).any()


@pytest.mark.parametrize(("speakers", "runs"), [(1, 5), (1, 20), (2, 5), (2, 30), (4, 40)])
def test_a_recording_played_twice_keeps_its_speakers(speakers, runs):
    windows, truth = embedded_runs(random_runs(speakers, runs), scatter=1.0)
    assert same_partition(cluster(repeated(windows), ANY), np.concatenate([truth, truth]))


@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 12), st.integers(1, 20))
@patient
def test_bounds_hold_while_there_are_windows(least, more, count, windows):
    bounds = SpeakerBounds(least, least + more)
    found = bounds.clip(count, windows)
    assert min(least, windows) <= found <= min(least + more, windows)
    if min(least, windows) <= count <= min(least + more, windows):
        assert found == count


def test_a_summary_is_bounded_and_does_not_mix_speakers():
    windows, truth = embedded_runs(random_runs(4, 600))
    rows, member = summarize(windows, 200)
    assert 4 <= len(rows) <= 200
    assert np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    assert member.shape == (len(windows),)
    assert set(member.tolist()) == set(range(len(rows)))
    for row in range(len(rows)):
        assert len(set(truth[member == row].tolist())) == 1


def test_a_summary_takes_work_in_proportion_to_the_recording(monkeypatch):
    sizes: list[int] = []

    def record(windows, labels, bounds, threshold):
        sizes.append(len(windows))
        return agglomerate(windows, labels, bounds, threshold)

    monkeypatch.setattr(speaker_clustering, "agglomerate", record)
    windows, _ = embedded_runs(random_runs(3, 1_000))
    summarize(windows, 500)
    assert sum(sizes) == len(windows)
    assert max(sizes) <= 600  # blocks of about 400, however long the recording is


def test_a_summary_of_more_blocks_than_it_may_have_rows_has_one_each():
    windows, _ = embedded_runs(random_runs(2, 20))
    rows, member = summarize(windows, 3, block=10)
    assert len(rows) == 8
    assert member.tolist() == [i // 10 for i in range(80)]


def test_the_eigengap_counts_separate_clusters():
    windows, truth = embedded_runs(random_runs(7, 50), scatter=0.3)
    assert same_partition(spectral_clustering(windows.unit, ANY), truth)


def test_the_similarity_of_one_speaker_is_measured_in_the_recording():
    quiet, noisy = (
        embedded_runs(random_runs(2, 20), scatter=scatter)[0].same_speaker_similarity() for scatter in (0.4, 1.0)
    )
    assert quiet == pytest.approx(1 / (1 + 0.4**2), abs=0.05)
    assert noisy == pytest.approx(1 / (1 + 1.0**2), abs=0.05)


def test_a_subset_keeps_the_similarity_of_the_recording():
    windows, _ = embedded_runs(random_runs(2, 20))
    assert windows.subset(slice(None, None, 7)).same_speaker_similarity() == windows.same_speaker_similarity()


@pytest.mark.parametrize("whole", [0.2, 0.5, 0.8])
def test_short_windows_are_expected_to_scatter_more(whole):
    expected = expected_similarity(np.array([0.0, 0.3, 0.75, 1.5, 6.0]), whole)
    assert (np.diff(expected) > 0).all()
    assert expected[3] == pytest.approx(whole)
    assert ((expected > 0) & (expected < 1)).all()


@pytest.mark.parametrize("channel", [0.0, 1.0, 1.5])
@pytest.mark.parametrize("small", [1, 2, 8])
def test_a_cluster_of_two_speakers_is_split(small, channel):
    windows, truth = embedded_runs([*[0] * 20, *[1] * small, *[2] * 10], channel=channel)
    missed = np.where(truth == 1, 0, truth)
    assert same_partition(split_clusters(windows, missed), truth)


@pytest.mark.parametrize("channel", [0.0, 1.0, 1.5])
@pytest.mark.parametrize("scatter", [0.3, 0.6, 1.0])
def test_a_cluster_of_one_speaker_stays_whole(scatter, channel):
    windows, truth = embedded_runs(random_runs(3, 45), scatter=scatter, channel=channel)
    assert same_partition(split_clusters(windows, truth), truth)


def resembling(windows: EmbeddedWindows, count: int, similarity: float) -> EmbeddedWindows:
    """Return windows of which the first ``count`` have this similarity to their speaker, and else resemble nobody."""
    odd, _ = embedded_runs([5], seed=7, run_windows=count)
    speaker = l2_normalize(windows.unit[count:].mean(axis=0, keepdims=True))
    mixed = l2_normalize(
        similarity * speaker + np.sqrt(1 - similarity**2) * l2_normalize(odd.unit - (odd.unit @ speaker.T) * speaker)
    )
    return replace(windows, unit=np.concatenate([mixed, windows.unit[count:]]))


@pytest.mark.parametrize("runs", [4, 12])  # on either side of SPECTRAL_MIN_WINDOWS
@pytest.mark.parametrize("count", [1, 2])
def test_few_windows_are_a_speaker_only_when_they_are_far_from_every_other(count, runs):
    windows, truth = embedded_runs([0] * runs, run_windows=4, scatter=0.9)
    assert not cluster(resembling(windows, count, 0.5), ANY).any()
    truth = np.where(np.arange(len(windows)) < count, 0, 1)
    assert same_partition(cluster(resembling(windows, count, 0.0), ANY), truth)


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_few_windows_are_a_speaker_where_the_caller_gives_the_number(wanted):
    windows, _ = embedded_runs([0] * 4, run_windows=4, scatter=0.9)
    assert cluster(resembling(windows, 1, 0.5), SpeakerBounds(wanted, wanted)).max() == wanted - 1


def test_a_sound_that_resembles_nobody_is_no_speaker_in_a_long_recording():
    windows, truth = embedded_runs([0] * 40 + [1] * 40, run_windows=2)
    assert same_partition(split_clusters(resembling(windows, 1, 0.0), truth), truth)


def test_a_speaker_of_a_long_recording_needs_a_share_of_it():
    runs = 300  # of 4 windows each
    limit = round(MIN_SPLIT_SHARE * runs)
    for rare, split in ((limit - 2, False), (limit + 2, True)):
        windows, truth = embedded_runs([0] * (runs - rare) + [1] * rare)
        found = split_clusters(windows, np.zeros(len(windows), dtype=np.int64))
        assert same_partition(found, truth) if split else not found.any()


def test_a_missed_speaker_is_found_unless_the_caller_gives_the_number(monkeypatch):
    windows, truth = embedded_runs(random_runs(4, 40))
    monkeypatch.setattr(
        speaker_clustering, "spectral_clustering", lambda _unit, _bounds: np.where(truth == 3, 0, truth)
    )
    assert same_partition(cluster(windows, ANY), truth)
    assert len(np.unique(cluster(windows, SpeakerBounds(3, 3)))) == 3
    assert len(np.unique(cluster(windows, SpeakerBounds(1, 3)))) == 3
