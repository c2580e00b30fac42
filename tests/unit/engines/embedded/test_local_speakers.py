"""Tests of local speakers on constructed segmentations."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diarist.engines.embedded.local_speakers import (
    assign,
    change_points,
    local_to_global,
    possible_speech,
    single_speaker_runs,
    speaker_agreement,
    speaker_count,
)
from diarist.engines.embedded.segmentation import GRID, POWERSET, POWERSET_CLASSES, WINDOW_FRAMES, Segmentation
from diarist.engines.speaker_activity import Window
from diarist.types import Span
from support.strategies import patient

STEP = 59
FRAMES = WINDOW_FRAMES + 4 * STEP


def heard(timeline, permutations=None):
    """Return the segmentation of ``timeline``: for each frame the set of active speakers (0, 1, 2).

    ``permutations`` gives each window its own names for the three.
    """
    starts = np.arange(0, len(timeline) - WINDOW_FRAMES + 1, STEP)
    classes = np.zeros((len(starts), WINDOW_FRAMES), dtype=np.uint8)
    for i, start in enumerate(starts):
        names = permutations[i % len(permutations)] if permutations else (0, 1, 2)
        for frame in range(WINDOW_FRAMES):
            local = tuple(sorted(names[who] for who in timeline[start + frame]))
            classes[i, frame] = POWERSET_CLASSES.index(local)
    return Segmentation(POWERSET[classes], classes, starts, len(timeline))


def timeline(*parts):
    """Return a timeline of consecutive (speakers, end frame)."""
    frames = []
    for who, until in parts:
        frames += [frozenset(who)] * (until - len(frames))
    assert len(frames) == FRAMES
    return frames


TALK = timeline(((), 40), ((0,), 200), ((1,), 330), ((), 360), ((1,), 500), ((0, 1), 560), ((0,), 700), ((), FRAMES))


def test_speech_is_possible_around_speech_where_almost_half_of_the_windows_hear_it():
    segmentation = heard(timeline(((), 100), ((0,), 200), ((), FRAMES)))
    count = speaker_count(segmentation)
    segmentation.activity[:, :] *= 0.9
    assert possible_speech(segmentation, count, 60.0) == ()
    for window, start in zip(segmentation.activity, segmentation.starts, strict=True):
        for first, stop in ((200, 260), (400, 450)):
            window[max(first - start, 0) : max(stop - start, 0), 1] = 0.46
    assert possible_speech(segmentation, count, 60.0) == (Span(GRID.time(200), GRID.time(260)),)


def test_speakers_are_counted_frame_by_frame():
    assert speaker_count(heard(TALK)).tolist() == [len(who) for who in TALK]
    assert speaker_count(heard(TALK, [(0, 1, 2), (2, 0, 1)])).tolist() == [len(who) for who in TALK]


def window(first, stop):
    return Window(Span(GRID.time(first), GRID.time(stop)), 0)


def test_agreement_does_not_depend_on_local_names():
    windows = [window(60, 180), window(220, 320), window(370, 490), window(570, 690)]  # 0, 1, 1, 0
    said = speaker_agreement(heard(TALK, [(0, 1, 2), (2, 0, 1), (1, 2, 0)]), windows)
    assert np.array_equal(said, said.T)
    assert np.allclose(said, [[1, -1, -1, 0], [-1, 1, 1, -1], [-1, 1, 1, -1], [0, -1, -1, 1]])  # 60 to 690: over 10 s


def test_silent_or_distant_windows_have_no_agreement():
    silent, spoken = window(5, 35), window(60, 180)
    assert speaker_agreement(heard(TALK), [silent, spoken])[0].tolist() == [0, 0]


def test_where_windows_disagree_the_count_is_their_mean_rounded():
    classes = np.zeros((3, WINDOW_FRAMES), dtype=np.uint8)
    classes[0] = classes[1] = 4  # two speakers
    made = Segmentation(POWERSET[classes], classes, np.zeros(3, dtype=np.int64), WINDOW_FRAMES)
    assert set(speaker_count(made).tolist()) == {1}


def test_a_change_without_a_pause_is_found_to_the_frame():
    changes = change_points(heard(TALK, [(0, 1, 2), (1, 2, 0), (2, 1, 0)]))
    assert changes.shape == (FRAMES,)
    # that at 200; around the pause and the overlap nobody hands over to another directly
    assert np.flatnonzero(changes).tolist() == [200]


def test_no_change_without_another_speaker():
    steady = timeline(((0,), FRAMES))
    assert not change_points(heard(steady)).any()
    broken = timeline(((0,), 300), ((), 305), ((0,), FRAMES))
    assert not change_points(heard(broken)).any()


def test_runs_end_where_somebody_else_begins():
    made = heard(TALK)
    assert single_speaker_runs(speaker_count(made), change_points(made)) == [
        (40, 200), (200, 330), (360, 500), (560, 700),
    ]  # fmt: skip


@given(hnp.arrays(np.int64, st.integers(1, 60), elements=st.integers(0, 2)), st.data())
@patient
def test_runs_are_all_single_speech_split_at_changes(count, data):
    changes = data.draw(hnp.arrays(np.bool_, len(count)))
    runs = single_speaker_runs(count, changes)
    covered = [frame for first, stop in runs for frame in range(first, stop)]
    assert covered == np.flatnonzero(count == 1).tolist()
    starts = {first for first, _ in runs}
    for frame in covered:
        begins = frame == 0 or count[frame - 1] != 1 or changes[frame]
        assert (frame in starts) == begins


def evidence_of(who_speaks, voices):
    """Return a similarity of 0.7 to a speaker who speaks alone, and 0.1 to all others."""
    found = np.zeros((len(who_speaks), voices), dtype=np.float32)
    for frame, who in enumerate(who_speaks):
        if len(who) == 1:
            found[frame] = 0.1
            found[frame, next(iter(who))] = 0.7
    return found


def test_local_names_are_mapped_to_speakers():
    permutations = [(0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (2, 1, 0)]
    activity = local_to_global(heard(TALK, permutations), evidence_of(TALK, 2))
    expected = np.array([[float(voice in who) for voice in range(2)] for who in TALK])
    assert activity == pytest.approx(expected, abs=1e-6)


def test_the_least_similar_local_speaker_is_left_out():
    spoken = timeline(((0,), 250), ((1,), 350), ((2,), FRAMES))
    evidence = evidence_of(spoken, 3)[:, :2]
    activity = local_to_global(heard(spoken), evidence)
    assert activity.shape == (FRAMES, 2)
    assert (activity[:230, 0] == 1).all()
    assert (activity[270:330, 1] == 1).all()
    assert (activity[:STEP] == np.eye(2)[0]).all()  # only the first window is there: all three speak in it


def test_a_speaker_in_overlap_only_is_mapped_too():
    spoken = timeline(((0,), 300), ((0, 1), 500), ((0,), FRAMES))
    evidence = np.full((FRAMES, 2), 0.1, dtype=np.float32)
    evidence[:, 0] = 0.7
    activity = local_to_global(heard(spoken), evidence)
    assert (activity[320:480] == 1).all()


def at_random(windows):
    random = np.random.default_rng(windows)
    classes = random.integers(0, len(POWERSET_CLASSES), (windows, 31)).repeat(19, axis=1).astype(np.uint8)
    activity = random.random((windows, WINDOW_FRAMES, 3), dtype=np.float32)
    starts = np.arange(windows) * STEP
    return Segmentation(activity, classes, starts, int(starts[-1]) + WINDOW_FRAMES - 20)


def at_once(said, evidence):
    """Compute ``local_to_global`` of all windows at once."""
    voices = evidence.shape[1]
    padded = np.concatenate([evidence, np.zeros((20, voices), dtype=np.float32)])
    members = POWERSET[said.classes]  # (windows, 589, 3)
    solo = members * (members.sum(axis=2, keepdims=True) == 1)
    weights = np.where(solo.sum(axis=1, keepdims=True) > 0, solo, members)
    renamed = np.zeros((len(members), WINDOW_FRAMES, voices), dtype=np.float32)
    for window, start in enumerate(said.starts):
        score = weights[window].T @ padded[start : start + WINDOW_FRAMES]
        local = np.flatnonzero(members[window].any(axis=0))
        for speaker, voice in zip(local, assign(score[local]), strict=True):
            if voice >= 0:
                renamed[window, :, voice] = said.activity[window, :, speaker]
    return said.overlap_add(renamed, voices)


@pytest.mark.parametrize("voices", [1, 2, 5])
def test_windows_one_by_one_are_mapped_as_all_at_once(voices):
    said = at_random(40)
    evidence = np.random.default_rng(voices).random((said.frames, voices), dtype=np.float32)
    assert np.array_equal(local_to_global(said, evidence), at_once(said, evidence))


def test_memory_is_that_of_the_frames_not_of_the_windows():
    said = at_random(2_000)  # half an hour
    evidence = np.random.default_rng(1).random((said.frames, 6), dtype=np.float32)
    local_to_global(at_random(2), evidence[:628])  # what is made once is there
    for work, columns in (
        (lambda: local_to_global(said, evidence), 6),
        (lambda: change_points(said), 1),
        (lambda: speaker_count(said), 2),
    ):
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < (columns + 2) * 8 * said.frames + 1_000_000


score_matrices = st.tuples(st.integers(0, 4), st.integers(0, 6)).flatmap(
    lambda shape: hnp.arrays(np.float32, shape, elements=st.floats(-4, 4, width=32))
)


@given(score_matrices)
@patient
def test_assignment_is_optimal(score):
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
