"""Tests of crosstalk removal on synthetic calls: bursts of noise with the envelope of syllables."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from diarist.errors import Cancelled
from diarist.pipeline.crosstalk import find_crosstalk, without_crosstalk
from diarist.types import SAMPLE_RATE, Audio, Diarization, Span, SpeakerActivity, Turn

DURATION_S = 40.0
FIRST = (Span(1, 4), Span(9, 12), Span(17, 20), Span(25, 28), Span(33, 36))
SECOND = (Span(5, 8), Span(13, 16), Span(21, 24), Span(29, 32), Span(37, 39))


def voice(spans, seed, duration=DURATION_S):
    """Return noise in the spans, louder and softer four times a second, with more energy at low frequencies."""
    random = np.random.default_rng(seed)
    count = round(duration * SAMPLE_RATE)
    noise = np.convolve(random.standard_normal(count), 0.8 ** np.arange(30), mode="same")
    syllables = np.interp(np.arange(count), np.arange(0, count, 2000), random.uniform(0.3, 1.0, -(-count // 2000)))
    gate = np.zeros(count)
    for span in spans:
        gate[round(span.start * SAMPLE_RATE) : round(span.end * SAMPLE_RATE)] = 1.0
    return 0.05 * noise * syllables * gate


def path(sound, attenuation_db, delay_s=0.004, band=(1.0,)):
    """Return a sound as it arrives in the other channel."""
    copy = np.convolve(sound, band)[: len(sound)] * 10 ** (-attenuation_db / 20)
    return np.concatenate([np.zeros(round(delay_s * SAMPLE_RATE)), copy])[: len(sound)]


def channel(*sounds, noise=1e-5, seed=9):
    floor = noise * np.random.default_rng(seed).standard_normal(len(sounds[0]))
    return Audio((sum(sounds) + floor).astype(np.float32))


def turns(*spans):
    return tuple(Turn(span, "SPEAKER_00") for span in sorted(spans))


def find(channels, *all_turns):
    return find_crosstalk(channels, [[turn.span for turn in own] for own in all_turns], lambda: None)


def covered(spans, crosstalk):
    """Return the share of the spans that is crosstalk."""
    return sum(a.overlap(b) for a in spans for b in crosstalk) / sum(span.duration for span in spans)


A, B = voice(FIRST, 1), voice(SECOND, 2)
EVERYTHING = turns(*FIRST, *SECOND)
TELEPHONE_BAND = np.sinc((np.arange(101) - 50) * 0.4) * np.hamming(101) * 0.4


@pytest.mark.parametrize("attenuation_db", [10, 20, 30, 40])
@pytest.mark.parametrize("band", [(1.0,), TELEPHONE_BAND, (1.0, -0.9)], ids=["all", "low", "high"])
def test_what_the_other_channel_contains_is_crosstalk(attenuation_db, band):
    channels = [
        channel(A, path(B, attenuation_db, band=band), seed=7),
        channel(B, path(A, attenuation_db, band=band), seed=8),
    ]
    first, second = find(channels, EVERYTHING, EVERYTHING)
    assert covered(SECOND, first) > 0.95
    assert covered(FIRST, second) > 0.95
    assert covered(FIRST, first) < 0.05
    assert covered(SECOND, second) < 0.05
    for spans in (first, second):
        assert all(before.end < after.start for before, after in pairwise(spans))


@pytest.mark.parametrize("delay_s", [0.0, 0.001, 0.02, 0.1, 0.25])
def test_an_echo_goes_one_way(delay_s):
    echo = path(B, 20, delay_s)
    first, second = find([channel(A, echo, seed=7), channel(B, seed=8)], EVERYTHING, turns(*SECOND))
    late = [span.shift(delay_s) for span in SECOND]
    assert covered(late, first) > 0.9
    assert covered(FIRST, first) < 0.1
    assert covered(SECOND, second) == 0.0


def test_two_microphones_in_a_room_each_keep_the_nearer_voice():
    random = np.random.default_rng(3)

    def reverberation(delay, gain):
        tail = 0.05 * random.standard_normal(3200) * np.exp(-np.arange(3200) / 700)
        tail[:delay] = 0.0
        tail[delay] = 1.0
        return gain * tail

    channels = [
        channel(np.convolve(A, reverberation(10, 1.0)), np.convolve(B, reverberation(60, 0.5)), noise=1e-4, seed=7),
        channel(np.convolve(B, reverberation(10, 1.0)), np.convolve(A, reverberation(60, 0.5)), noise=1e-4, seed=8),
    ]
    first, second = find(channels, EVERYTHING, EVERYTHING)
    assert covered(SECOND, first) > 0.95
    assert covered(FIRST, second) > 0.95
    assert covered(FIRST, first) < 0.05
    assert covered(SECOND, second) < 0.05


def test_the_gain_of_a_channel_does_not_decide():
    """The second microphone is 12 dB louder, so that it has more of both voices."""
    first, second = find(
        [channel(A, path(B, 8), seed=7), channel(4 * B, 4 * path(A, 8), seed=8)], EVERYTHING, EVERYTHING
    )
    assert covered(SECOND, first) > 0.95
    assert covered(FIRST, second) > 0.95
    assert covered(FIRST, first) < 0.05
    assert covered(SECOND, second) < 0.05


@pytest.mark.parametrize("attenuation_db", [10, 20, 30, 40])
def test_those_who_speak_at_once_are_both_kept(attenuation_db):
    both = (Span(13, 16), Span(29, 32))
    first_party = voice((*FIRST, *both), 1)
    channels = [
        channel(first_party, path(B, attenuation_db), seed=7),
        channel(B, path(first_party, attenuation_db), seed=8),
    ]
    first, second = find(channels, EVERYTHING, EVERYTHING)
    assert covered(both, first) < 0.1
    assert covered(both, second) < 0.1
    assert covered([SECOND[0], SECOND[2]], first) > 0.9


def test_channels_without_crosstalk_lose_nothing():
    talking = (Span(2, 38),)
    channels = [channel(voice(talking, 1), seed=7), channel(voice(talking, 2), seed=8)]
    assert find(channels, turns(*talking), turns(*talking)) == ((), ())


def test_where_one_person_speaks_on_two_channels_the_louder_one_has_it():
    quiet, loud = channel(path(A, 6), seed=7), channel(A, seed=8)
    first, second = find([quiet, loud], turns(*FIRST), turns(*FIRST))
    assert covered(FIRST, first) > 0.95
    assert covered(FIRST, second) == 0.0


def test_of_equal_channels_the_first_keeps_all():
    same = channel(A)
    first, second, third = find([same, same, same], turns(*FIRST), turns(*FIRST), turns(*FIRST))
    assert covered(FIRST, first) == 0.0
    assert covered(FIRST, second) > 0.95
    assert covered(FIRST, third) > 0.95


def test_a_silent_channel_changes_nothing():
    silent = Audio(np.zeros(len(A), dtype=np.float32))
    first, second = find([channel(A), silent], turns(*FIRST), ())
    assert covered(FIRST, first) == 0.0
    assert second == ()


def test_channels_may_differ_in_length_and_may_be_short():
    short = channel(path(A, 20), seed=8)
    short = Audio(short.samples[: 21 * SAMPLE_RATE])
    first, second = find([channel(A, seed=7), short], turns(*FIRST), turns(*FIRST[:3]))
    assert covered(FIRST, first) == 0.0
    assert covered(FIRST[:3], second) > 0.95
    tiny = Audio(np.full(100, 0.1, dtype=np.float32))
    assert find([tiny, tiny], turns(Span(0.0, 0.005)), ())[0] == ()


def test_the_path_may_change_during_the_recording():
    duration = 240.0
    spans = [Span(at, at + 3) for at in np.arange(1.0, 235.0, 8.0).tolist()]
    others = [span.shift(4.0) for span in spans]
    a, b = voice(spans, 1, duration), voice(others, 2, duration)
    moved = np.concatenate([path(a, 20, 0.002)[: len(a) // 2], path(a, 32, 0.011)[len(a) // 2 :]])
    first, second = find([channel(a, seed=7), channel(b, moved, seed=8)], turns(*spans), turns(*spans, *others))
    assert covered(spans, second) > 0.9
    assert covered(others, second) < 0.05
    assert covered(spans, first) == 0.0


def test_an_exception_of_the_caller_ends_the_work():
    def check():
        raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"):
        find_crosstalk([channel(A), channel(B)], [[*FIRST, *SECOND]] * 2, check)


def test_turns_lose_their_crosstalk_and_what_is_then_too_short():
    diarization = Diarization(
        (
            Turn(Span(0.0, 0.1), "SPEAKER_00"),  # short from the start
            Turn(Span(1.0, 5.0), "SPEAKER_00"),
            Turn(Span(1.5, 1.8), "SPEAKER_01"),
            Turn(Span(6.0, 7.0), "SPEAKER_02"),
        ),
        np.array([[1.0], [2.0], [3.0]], dtype=np.float32),
        SpeakerActivity(np.array([[0.1, 0.2, 0.3]], dtype=np.float32), 0.1),
        "embedded",
    )
    left = without_crosstalk(diarization, (Span(1.4, 2.0), Span(3.0, 3.5), Span(4.9, 5.5), Span(6.1, 6.5)))
    assert left.turns == (
        Turn(Span(0.0, 0.1), "SPEAKER_00"),
        Turn(Span(1.0, 1.4), "SPEAKER_00"),
        Turn(Span(2.0, 3.0), "SPEAKER_00"),
        Turn(Span(3.5, 4.9), "SPEAKER_00"),
        Turn(Span(6.5, 7.0), "SPEAKER_02"),
    )
    assert left.embeddings.tolist() == [[1.0], [3.0]]
    assert left.activity is not None
    assert left.activity.scores.tolist() == [[pytest.approx(0.1), pytest.approx(0.3)]]
    assert left.diarizer == "embedded"


def test_a_channel_may_lose_all_turns():
    diarization = Diarization(
        turns(Span(1.0, 2.0)),
        np.ones((1, 4), dtype=np.float32),
        SpeakerActivity(np.ones((5, 1), dtype=np.float32), 1.0),
    )
    left = without_crosstalk(diarization, (Span(0.9, 2.1),))
    assert (left.turns, left.speakers, len(left.embeddings), left.activity) == ((), (), 0, None)


def test_crosstalk_is_cut_out_of_possible_speech():
    diarization = Diarization(
        turns(Span(1.0, 2.0)), np.ones((1, 4), dtype=np.float32), possible_speech=(Span(0.0, 1.0), Span(2.0, 3.0))
    )
    left = without_crosstalk(diarization, (Span(2.0, 2.5),))
    assert left.turns == diarization.turns
    assert left.possible_speech == (Span(0.0, 1.0), Span(2.5, 3.0))
    nobody = without_crosstalk(diarization, (Span(0.9, 2.1),))
    assert (nobody.turns, nobody.possible_speech) == ((), ())


def test_a_diarization_without_crosstalk_is_unchanged():
    diarization = Diarization(EVERYTHING, np.ones((1, 4), dtype=np.float32))
    assert without_crosstalk(diarization, ()) is diarization
    assert without_crosstalk(diarization, (Span(4.2, 4.8),)) is diarization
