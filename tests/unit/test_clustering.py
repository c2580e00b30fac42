"""Voices that are known beforehand have to come out as they went in."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diarist import clustering
from diarist.clustering import (
    SPECTRAL_LIMIT,
    SPECTRAL_MINIMUM,
    SpeakerBounds,
    Windows,
    agglomerate,
    cluster,
    in_order,
    k_means,
    normalise,
    part_unlike,
    smallest_eigenpairs,
    spectral,
    summarise,
)
from diarist.engines.embedded.local_speakers import assign
from support.strategies import patient

VALUES = 192
ANY = SpeakerBounds()


def spoken(who, *, scatter=0.6, channel=0.0, seed=0, run_windows=4):
    """Windows of 1.5 s every 0.75 s in runs; ``who`` says whose each run is. Returns them and the true labels.

    ``scatter`` and ``channel`` are the lengths of what differs between windows of one voice and of what all windows
    share, where a voice has length 1.
    """
    rng = np.random.default_rng(seed)
    voices = np.linalg.qr(rng.standard_normal((VALUES, max(who, default=0) + 2)))[0].T  # orthonormal rows
    truth = np.repeat(np.array(who, dtype=np.int64), run_windows)
    noise = rng.standard_normal((len(truth), VALUES)) * scatter / np.sqrt(VALUES)
    rows = voices[truth] + noise + channel * voices[-1]
    run = np.repeat(np.arange(len(who)), run_windows)
    start = np.arange(len(truth)) * 0.75 + run * 2.0
    return Windows(normalise(rows.astype(np.float32)), start, start + 1.5, run), truth


def same(labels, truth):
    return np.array_equal(in_order(labels), in_order(truth))


def turns(voices, runs, seed=1):
    """Whose each run is: everybody once, then by chance."""
    rng = np.random.default_rng(seed)
    return [*range(voices), *(int(k) for k in rng.integers(0, voices, runs - voices))]


@pytest.mark.parametrize("channel", [0.0, 1.0, 1.5])
@pytest.mark.parametrize(("voices", "runs"), [(1, 5), (2, 4), (2, 9), (3, 9), (4, 9)])
def test_few_windows_come_apart_by_voice(voices, runs, channel):
    windows, truth = spoken(turns(voices, runs), channel=channel)
    assert len(windows) < SPECTRAL_MINIMUM
    assert same(cluster(windows, ANY), truth)


@pytest.mark.parametrize("channel", [0.0, 1.0, 1.5])
@pytest.mark.parametrize(("voices", "runs"), [(2, 20), (3, 40), (6, 60)])
def test_many_windows_come_apart_by_voice(voices, runs, channel):
    windows, truth = spoken(turns(voices, runs), channel=channel)
    assert SPECTRAL_MINIMUM <= len(windows) <= SPECTRAL_LIMIT
    assert same(cluster(windows, ANY), truth)


def test_one_voice_on_a_noisy_line_stays_one():
    windows, _ = spoken([0] * 9, scatter=1.2, channel=0.5)
    assert set(cluster(windows, ANY).tolist()) == {0}


def test_a_voice_of_one_window_among_others_is_found():
    windows, truth = spoken([0, 0, 1, 1, 2], run_windows=4)
    part = windows.part(slice(0, 17))  # one window of the third voice
    assert same(cluster(part, ANY), truth[:17])


@pytest.mark.slow
def test_a_long_recording_keeps_its_voices():
    windows, truth = spoken(turns(5, 700), channel=0.8)
    assert len(windows) > SPECTRAL_LIMIT
    assert same(cluster(windows, ANY), truth)


@pytest.mark.parametrize("runs", [3, 9, 40, 100])
@pytest.mark.parametrize("wanted", [1, 2, 5, 11])
def test_an_exact_number_is_met(monkeypatch, runs, wanted):
    monkeypatch.setattr(clustering, "SPECTRAL_LIMIT", 200)  # so that the longest is summarised
    windows, _ = spoken(turns(3, runs))
    labels = cluster(windows, SpeakerBounds(wanted, wanted))
    assert sorted(set(labels.tolist())) == list(range(wanted))


@pytest.mark.parametrize("runs", [6, 40])
def test_the_most_and_the_least_are_bounds_and_nothing_more(runs):
    windows, truth = spoken(turns(3, runs))
    assert same(cluster(windows, SpeakerBounds(1, 8)), truth)
    assert same(cluster(windows, SpeakerBounds(2, None)), truth)
    assert cluster(windows, SpeakerBounds(1, 2)).max() == 1
    assert cluster(windows, SpeakerBounds(5, None)).max() >= 4


@pytest.mark.parametrize("runs", [9, 40])
def test_more_are_asked_for_than_the_eigengap_looks_at(runs):
    windows, _ = spoken(turns(3, runs))
    assert cluster(windows, SpeakerBounds(30, 30)).max() == 29
    assert cluster(windows, SpeakerBounds(30, None)).max() >= 29


@pytest.mark.parametrize("bounds", [ANY, SpeakerBounds(1, 1), SpeakerBounds(2, 2), SpeakerBounds(7, None)])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_windows(count, bounds):
    windows, _ = spoken([0, 1])
    labels = cluster(windows.part(slice(0, count)), bounds)
    assert labels.shape == (count,)
    assert labels.dtype == np.int64
    assert len(set(labels.tolist())) == min(count, max(bounds.least, 1)) or bounds == ANY
    assert set(labels.tolist()) <= set(range(count))


@pytest.mark.parametrize("count", [2, 10, 60])
@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("bounds", [ANY, SpeakerBounds(4, 4), SpeakerBounds(1, 3)])
def test_windows_that_all_say_the_same(count, value, bounds):
    rows = normalise(np.full((count, VALUES), value, dtype=np.float32))
    start = np.arange(count) * 2.0
    windows = Windows(rows, start, start + 1.5, np.arange(count))
    labels = cluster(windows, bounds)
    low, high = bounds.clip(1, count), bounds.clip(count, count)
    assert low <= len(set(labels.tolist())) <= high
    assert same(labels, cluster(windows, bounds))


def test_rows_of_zeros_among_voices_do_no_harm():
    windows, truth = spoken(turns(2, 8))
    windows.unit[5] = 0.0
    labels = cluster(windows, SpeakerBounds(2, 2))
    kept = np.arange(len(windows)) != 5
    assert np.isfinite(labels).all()
    assert same(labels[kept], truth[kept])


@pytest.mark.parametrize("runs", [9, 40])
def test_nothing_hangs_on_chance(runs):
    windows, _ = spoken(turns(4, runs), scatter=1.5)
    assert np.array_equal(cluster(windows, ANY), cluster(windows, ANY))


@given(hnp.arrays(np.int64, st.integers(1, 40), elements=st.integers(-3, 9)))
@patient
def test_in_order_renames_and_keeps_the_partition(labels):
    renamed = in_order(labels)
    first = list(dict.fromkeys(renamed.tolist()))
    assert first == list(range(len(first)))
    assert np.array_equal(labels[:, None] == labels, renamed[:, None] == renamed)


def test_agglomeration_only_ever_joins():
    windows, _ = spoken(turns(3, 6), scatter=1.0)
    for distinct in (0.0, 0.1, np.inf):
        fine = agglomerate(windows, np.arange(len(windows)), SpeakerBounds(6, None), distinct)
        coarse = agglomerate(windows, np.arange(len(windows)), SpeakerBounds(3, 3), distinct)
        together = fine[:, None] == fine
        assert (coarse[:, None] == coarse)[together].all()


def test_shared_sound_is_no_evidence():
    windows, _ = spoken([0, 1], run_windows=3)
    apart = windows.apart
    assert not apart[0, 0]
    assert not apart[0, 1]  # 0.75 s in common
    assert apart[0, 2]  # they touch
    assert apart[0, 3]
    assert np.array_equal(apart, apart.T)


def twice(windows: Windows) -> Windows:
    """The same recording again, after the first time."""
    later = windows.end[-1] + 1
    return Windows(
        np.concatenate([windows.unit, windows.unit]),
        np.concatenate([windows.start, windows.start + later]),
        np.concatenate([windows.end, windows.end + later]),
        np.concatenate([windows.run, windows.run + windows.run[-1] + 1]),
    )


@pytest.mark.parametrize("count", [1, 2])
def test_a_phrase_heard_twice_is_no_more_than_heard_once(count):
    windows, _ = spoken([0] * 12, run_windows=4, scatter=0.9)
    once = leaning(windows, count, 0.45)
    assert not cluster(once, ANY).any()
    assert not cluster(twice(once), ANY).any()


@pytest.mark.parametrize(("voices", "runs"), [(1, 5), (1, 20), (2, 5), (2, 30), (4, 40)])
def test_a_recording_said_twice_keeps_its_voices(voices, runs):
    windows, truth = spoken(turns(voices, runs), scatter=1.0)
    assert same(cluster(twice(windows), ANY), np.concatenate([truth, truth]))


@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 12), st.integers(1, 20))
@patient
def test_bounds_hold_while_there_are_windows(least, more, count, windows):
    bounds = SpeakerBounds(least, least + more)
    found = bounds.clip(count, windows)
    assert min(least, windows) <= found <= min(least + more, windows)
    if min(least, windows) <= count <= min(least + more, windows):
        assert found == count


scores = st.tuples(st.integers(0, 4), st.integers(0, 6)).flatmap(
    lambda shape: hnp.arrays(np.float32, shape, elements=st.floats(-4, 4, width=32))
)


@given(scores)
@patient
def test_assignment_is_the_best_there_is(score):
    rows, columns = score.shape
    found = assign(score)
    taken = [column for column in found if column >= 0]
    assert len(found) == rows
    assert len(set(taken)) == len(taken) == min(rows, columns)
    if rows <= columns:
        possible = (tuple(zip(range(rows), order)) for order in itertools.permutations(range(columns), rows))  # noqa: B905
    else:
        possible = (tuple(zip(order, range(columns))) for order in itertools.permutations(range(rows), columns))  # noqa: B905
    best = max(sum(float(score[row, column]) for row, column in pairs) for pairs in possible)
    total = sum(float(score[row, column]) for row, column in enumerate(found) if column >= 0)
    assert total == pytest.approx(best, abs=1e-5)


def test_a_summary_is_bounded_and_does_not_mix_voices():
    windows, truth = spoken(turns(4, 600))
    rows, member = summarise(windows, 200)
    assert 4 <= len(rows) <= 200
    assert np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    assert member.shape == (len(windows),)
    assert set(member.tolist()) == set(range(len(rows)))
    for row in range(len(rows)):
        assert len(set(truth[member == row].tolist())) == 1


def test_a_summary_takes_work_in_proportion_to_the_recording(monkeypatch):
    sizes: list[int] = []

    def note(windows, labels, bounds, distinct):
        sizes.append(len(windows))
        return agglomerate(windows, labels, bounds, distinct)

    monkeypatch.setattr(clustering, "agglomerate", note)
    windows, _ = spoken(turns(3, 1_000))
    summarise(windows, 500)
    assert sum(sizes) == len(windows)
    assert max(sizes) <= 600  # blocks of about 400, however long the recording is


def test_a_summary_of_more_blocks_than_it_may_have_rows_has_one_each():
    windows, _ = spoken(turns(2, 20))
    rows, member = summarise(windows, 3, block=10)
    assert len(rows) == 8
    assert member.tolist() == [i // 10 for i in range(80)]


def blobs(clusters, each, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(clusters), each))
    centres = 10.0 * np.eye(clusters, 8)
    return (centres[truth] + rng.standard_normal((len(truth), 8))).astype(np.float32), truth


@pytest.mark.parametrize("clusters", [1, 2, 5, 8])
def test_k_means_finds_blobs_and_twice_the_same(clusters):
    points, truth = blobs(clusters, 30)
    labels = k_means(points, clusters)
    assert labels.dtype == np.int64
    assert same(labels, truth)
    assert np.array_equal(labels, k_means(points, clusters))


@given(st.integers(1, 8), st.integers(0, 12), st.integers(0, 100))
@patient
def test_k_means_leaves_no_cluster_empty(clusters, more, seed):
    points = np.random.default_rng(seed).integers(0, 2, (clusters + more, 2)).astype(np.float32)  # many twins
    assert set(k_means(points, clusters).tolist()) == set(range(clusters))


def test_eigenpairs_are_the_smallest():
    rng = np.random.default_rng(3)
    basis = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    matrix = (basis @ np.diag(np.arange(12.0)) @ basis.T).astype(np.float32)
    values, vectors = smallest_eigenpairs(matrix, 3)
    assert values == pytest.approx([0, 1, 2], abs=1e-4)
    assert np.allclose(matrix @ vectors, vectors * values, atol=1e-4)


def test_separate_islands_are_told_by_the_eigengap():
    windows, truth = spoken(turns(7, 50), scatter=0.3)
    assert same(spectral(windows.unit, ANY), truth)


def test_how_alike_a_voice_is_to_itself_is_learnt_from_the_recording():
    quiet, noisy = (spoken(turns(2, 20), scatter=scatter)[0].same_voice() for scatter in (0.4, 1.0))
    assert quiet == pytest.approx(1 / (1 + 0.4**2), abs=0.05)
    assert noisy == pytest.approx(1 / (1 + 1.0**2), abs=0.05)


def test_a_part_of_a_recording_knows_how_alike_its_neighbours_are():
    windows, _ = spoken(turns(2, 20))
    assert windows.part(slice(None, None, 7)).same_voice() == windows.same_voice()


@pytest.mark.parametrize("whole", [0.2, 0.5, 0.8])
def test_short_windows_are_expected_to_scatter_more(whole):
    expected = clustering.expected_similarity(np.array([0.0, 0.3, 0.75, 1.5, 6.0]), whole)
    assert (np.diff(expected) > 0).all()
    assert expected[3] == pytest.approx(whole)
    assert ((expected > 0) & (expected < 1)).all()


@pytest.mark.parametrize("channel", [0.0, 1.0, 1.5])
@pytest.mark.parametrize("small", [1, 2, 8])
def test_a_cluster_of_two_voices_is_parted(small, channel):
    windows, truth = spoken([*[0] * 20, *[1] * small, *[2] * 10], channel=channel)
    passed_over = np.where(truth == 1, 0, truth)
    assert same(part_unlike(windows, passed_over), truth)


@pytest.mark.parametrize("channel", [0.0, 1.0, 1.5])
@pytest.mark.parametrize("scatter", [0.3, 0.6, 1.0])
def test_a_cluster_of_one_voice_stays_whole(scatter, channel):
    windows, truth = spoken(turns(3, 45), scatter=scatter, channel=channel)
    assert same(part_unlike(windows, truth), truth)


def leaning(windows: Windows, count: int, expected_similarity: float) -> Windows:
    """The first ``count`` windows sound like their voice by ``expected_similarity`` and else like nobody."""
    odd, _ = spoken([5], seed=7, run_windows=count)
    voice = normalise(windows.unit[count:].mean(axis=0, keepdims=True))
    mixed = normalise(
        expected_similarity * voice
        + np.sqrt(1 - expected_similarity**2) * normalise(odd.unit - (odd.unit @ voice.T) * voice)
    )
    return replace(windows, unit=np.concatenate([mixed, windows.unit[count:]]))


@pytest.mark.parametrize("runs", [4, 12])  # on either side of SPECTRAL_MINIMUM
@pytest.mark.parametrize("count", [1, 2])
def test_few_windows_are_a_voice_only_when_they_are_far_from_every_other(count, runs):
    windows, truth = spoken([0] * runs, run_windows=4, scatter=0.9)
    assert not cluster(leaning(windows, count, 0.5), ANY).any()
    truth = np.where(np.arange(len(windows)) < count, 0, 1)
    assert same(cluster(leaning(windows, count, 0.0), ANY), truth)


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_few_windows_are_a_voice_where_the_caller_knows_of_it(wanted):
    windows, _ = spoken([0] * 4, run_windows=4, scatter=0.9)
    assert cluster(leaning(windows, 1, 0.5), SpeakerBounds(wanted, wanted)).max() == wanted - 1


def test_a_sound_that_is_like_nobody_is_no_voice_among_hours():
    windows, truth = spoken([0] * 40 + [1] * 40, run_windows=2)
    assert same(part_unlike(leaning(windows, 1, 0.0), truth), truth)


def test_in_hours_a_voice_needs_its_share():
    runs = 300  # of 4 windows each
    heard = round(clustering.PARTED_SHARE * runs)
    for rare, parted in ((heard - 2, False), (heard + 2, True)):
        windows, truth = spoken([0] * (runs - rare) + [1] * rare)
        found = part_unlike(windows, np.zeros(len(windows), dtype=np.int64))
        assert same(found, truth) if parted else not found.any()


def test_a_voice_that_is_passed_over_is_found_unless_the_caller_knows_better(monkeypatch):
    windows, truth = spoken(turns(4, 40))
    monkeypatch.setattr(clustering, "spectral", lambda _unit, _bounds: np.where(truth == 3, 0, truth))
    assert same(cluster(windows, ANY), truth)
    assert len(np.unique(cluster(windows, SpeakerBounds(3, 3)))) == 3
    assert len(np.unique(cluster(windows, SpeakerBounds(1, 3)))) == 3
