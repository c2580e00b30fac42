from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarist.errors import InvalidOption
from diarist.types import (
    MAX_SPEAKERS,
    SAMPLE_RATE,
    Audio,
    Diarization,
    Span,
    SpeakerActivity,
    SpeakerHints,
    Transcript,
    Turn,
    Utterance,
    Word,
    relabel,
)
from support.ratios import growth

LAST_SECOND = 20

edges = st.floats(-1e6, 1e6)
spans = st.builds(lambda pair: Span(*sorted(pair)), st.tuples(edges, edges))


def turn(start: float, end: float, speaker: str) -> Turn:
    return Turn(Span(start, end), speaker)


def word(text: str, start: float, end: float, speaker: str = "A") -> Word:
    return Word(text, Span(start, end), speaker, 0.9, 0.8)


@st.composite
def diarizations(draw: st.DrawFn) -> Diarization:
    """Draw turns on a grid of whole seconds, so that edges often coincide; turns of one speaker do not overlap."""
    turns = []
    for speaker in "ABCD":
        times = sorted(draw(st.sets(st.integers(0, LAST_SECOND), max_size=8)))
        turns += [turn(start, end, speaker) for start, end in zip(times[::2], times[1::2], strict=False)]
    return Diarization(tuple(sorted(turns)))


class TestSpan:
    def test_knows_its_duration_and_middle(self) -> None:
        span = Span(1.5, 4.0)
        assert (span.duration, span.middle) == (2.5, 2.75)

    @pytest.mark.parametrize("bad", [(2.0, 1.0), (float("nan"), 1.0), (0.0, float("inf")), (-float("inf"), 0.0)])
    def test_refuses_what_is_no_interval(self, bad: tuple[float, float]) -> None:
        with pytest.raises(ValueError, match="span"):
            Span(*bad)

    @given(spans, spans)
    def test_two_spans_overlap_or_lie_apart_never_both(self, one: Span, other: Span) -> None:
        assert one.overlap(other) == other.overlap(one)
        assert one.gap(other) == other.gap(one)
        assert one.overlap(other) == 0 or one.gap(other) == 0
        assert 0 <= one.overlap(other) <= min(one.duration, other.duration)

    def test_touching_spans_neither_overlap_nor_lie_apart(self) -> None:
        assert Span(0, 1).overlap(Span(1, 2)) == Span(0, 1).gap(Span(1, 2)) == 0

    @given(spans, spans)
    def test_clamp_stays_within_and_changes_nothing_that_is(self, span: Span, limits: Span) -> None:
        clamped = span.clamp(limits.start, limits.end)
        assert limits.start <= clamped.start <= clamped.end <= limits.end
        assert clamped.clamp(limits.start, limits.end) == clamped
        assert span.clamp(span.start, span.end) == span

    def test_sorts_by_start_then_end(self) -> None:
        assert sorted([Span(1, 3), Span(0, 9), Span(1, 2)]) == [Span(0, 9), Span(1, 2), Span(1, 3)]


class TestAudio:
    def test_refuses_other_shapes_and_types(self) -> None:
        for samples in (np.zeros((2, 5), np.float32), np.zeros(5, np.float64)):
            with pytest.raises(ValueError, match="float32"):
                Audio(samples)

    def test_cut_is_a_view_of_the_right_samples(self) -> None:
        audio = Audio(np.arange(3 * SAMPLE_RATE, dtype=np.float32))
        cut = audio.cut(Span(1.0, 1.5))
        assert (cut.samples[0], cut.samples[-1], cut.duration) == (16_000, 23_999, 0.5)
        assert np.shares_memory(cut.samples, audio.samples)

    @pytest.mark.parametrize(
        ("span", "duration"),
        [(Span(-0.5, 1), 1.0), (Span(2.5, 9), 0.5), (Span(-2, -1), 0.0), (Span(5, 6), 0.0), (Span(-1, 9), 3.0)],
    )
    def test_cut_is_clipped_to_what_there_is(self, span: Span, duration: float) -> None:
        assert Audio(np.zeros(3 * SAMPLE_RATE, np.float32)).cut(span).duration == duration


class TestSpeakerActivity:
    ACTIVITY = SpeakerActivity(np.arange(20, dtype=np.float32).reshape(10, 2), step=0.1)

    @pytest.mark.parametrize(
        ("span", "frames"),
        [
            (Span(0.0, 1.0), range(10)),
            (Span(0.3, 0.6), range(3, 6)),  # 0.3 / 0.1 is below 3, and 0.6 / 0.1 is below 6
            (Span(0.7, 0.8), range(7, 8)),
            (Span(0.25, 0.35), range(2, 4)),
            (Span(0.5, 0.5), range(5, 6)),
            (Span(-3.0, -1.0), range(1)),
            (Span(-1.0, 0.2), range(2)),
            (Span(5.0, 6.0), range(9, 10)),
        ],
    )
    def test_mean_is_over_the_frames_that_the_span_touches(self, span: Span, frames: range) -> None:
        np.testing.assert_allclose(self.ACTIVITY.mean(span), self.ACTIVITY.scores[frames].mean(axis=0))

    def test_mean_of_nothing_is_zero_for_each_speaker(self) -> None:
        mean = SpeakerActivity(np.zeros((0, 3), np.float32), step=0.1).mean(Span(0, 1))
        assert mean.dtype == np.float32
        assert mean.tolist() == [0, 0, 0]


class TestExclusive:
    def test_the_turn_that_started_last_is_kept_until_its_end(self) -> None:
        diarization = Diarization((turn(0, 10, "A"), turn(4, 6, "B"), turn(9, 12, "C")))
        assert diarization.exclusive() == (
            turn(0, 4, "A"),
            turn(4, 6, "B"),
            turn(6, 9, "A"),
            turn(9, 12, "C"),
        )

    def test_turns_that_start_together_are_both_kept(self) -> None:
        assert Diarization((turn(0, 2, "B"), turn(0, 9, "A"))).exclusive() == (turn(0, 2, "B"), turn(2, 9, "A"))

    def test_nothing_gives_nothing(self) -> None:
        assert Diarization().exclusive() == Diarization((turn(3, 3, "A"),)).exclusive() == ()

    @given(diarizations())
    def test_every_moment_has_the_speaker_who_began_last_or_nobody(self, diarization: Diarization) -> None:
        exclusive = diarization.exclusive()
        for second in range(LAST_SECOND):
            moment = Span(second, second + 1)
            speaking = [t for t in diarization.turns if t.span.overlap(moment)]
            heard = [t.speaker for t in exclusive if t.span.overlap(moment)]
            if speaking:
                assert heard == [min(speaking, key=lambda t: (-t.span.start, t.span.end, t.speaker)).speaker]
            else:
                assert heard == []

    @given(diarizations())
    def test_turns_are_in_order_apart_and_as_long_as_they_can_be(self, diarization: Diarization) -> None:
        for before, after in pairwise(diarization.exclusive()):
            assert before.span.end <= after.span.start
            assert before.speaker != after.speaker or before.span.end < after.span.start

    @given(diarizations())
    def test_turns_without_overlap_stay_as_they_are(self, diarization: Diarization) -> None:
        once = diarization.exclusive()
        assert Diarization(once).exclusive() == once

    @pytest.mark.timing
    def test_the_work_grows_with_the_turns_and_no_faster(self) -> None:
        def long(count: int) -> Diarization:
            turns = tuple(turn(i * 0.5, i * 0.5 + 0.7, "AB"[i % 2]) for i in range(count))
            return Diarization((*turns, turn(0, count / 2, "C")))  # which lies under all the others

        assert growth(Diarization.exclusive, long(2_500), long(10_000)) < 8


class TestSpeakerHints:
    def test_bounds(self) -> None:
        assert SpeakerHints().bounds() == (1, None)
        assert SpeakerHints(num_speakers=3).bounds() == (3, 3)
        assert SpeakerHints(min_speakers=2).bounds() == (2, None)
        assert SpeakerHints(max_speakers=4).bounds() == (1, 4)
        assert SpeakerHints(min_speakers=2, max_speakers=2).bounds() == (2, 2)
        assert SpeakerHints(num_speakers=3, max_speakers=4).bounds() == (3, 3)

    @pytest.mark.parametrize("name", ["num_speakers", "min_speakers", "max_speakers"])
    @pytest.mark.parametrize("value", [0, -1, MAX_SPEAKERS + 1, 10**9, 1.5, "2", True])
    def test_refuses_what_is_no_number_of_speakers(self, name: str, value: object) -> None:
        with pytest.raises(InvalidOption, match=name):
            SpeakerHints(**{name: value})

    @pytest.mark.parametrize(
        "hints",
        [
            {"min_speakers": 3, "max_speakers": 2},
            {"num_speakers": 1, "min_speakers": 2},
            {"num_speakers": 5, "max_speakers": 4},
        ],
    )
    def test_refuses_contradictions(self, hints: dict[str, int]) -> None:
        with pytest.raises(InvalidOption):
            SpeakerHints(**hints)


class TestUtterance:
    def test_takes_span_and_text_from_its_words(self) -> None:
        utterance = Utterance((word(" Hello", 1.0, 1.9), word(" there,", 1.5, 1.8), word(" you", 1.8, 1.85)))
        assert utterance.text == "Hello there, you"
        assert utterance.span == Span(1.0, 1.9)

    def test_is_never_empty_and_has_one_speaker(self) -> None:
        with pytest.raises(ValueError, match="at least one word"):
            Utterance(())
        with pytest.raises(ValueError, match="one speaker"):
            Utterance((word("a", 0, 1, "A"), word("b", 1, 2, "B")))


def test_a_transcript_names_speakers_without_a_word_that_was_recognized() -> None:
    diarization = Diarization((turn(0, 1, "A"), turn(1, 2, "B")))
    transcript = Transcript(
        utterances=(Utterance((word("a", 0, 1),)),),
        diarization=diarization,
        duration=2.0,
        language="en",
        language_probability=0.9,
        engine="embedded",
        timings=(),
    )
    assert transcript.speakers == ("A", "B")
    assert [w.text for w in transcript.words] == ["a"]


class TestRelabel:
    def test_numbers_speakers_as_they_first_speak(self) -> None:
        names, turns = relabel([turn(5, 6, "x"), turn(0, 1, "z"), turn(2, 3, "x"), turn(0, 2, "y")])
        assert names == {"z": "SPEAKER_00", "y": "SPEAKER_01", "x": "SPEAKER_02"}
        assert turns == (
            turn(0, 1, "SPEAKER_00"),
            turn(0, 2, "SPEAKER_01"),
            turn(2, 3, "SPEAKER_02"),
            turn(5, 6, "SPEAKER_02"),
        )

    @given(diarizations())
    def test_changes_names_only_and_is_done_after_once(self, diarization: Diarization) -> None:
        names, turns = relabel(diarization.turns)
        assert sorted(t.span for t in turns) == sorted(t.span for t in diarization.turns)
        assert len(set(names.values())) == len(names) == len(diarization.speakers)
        assert Diarization(turns).speakers == tuple(f"SPEAKER_{i:02d}" for i in range(len(names)))
        assert relabel(turns)[1] == turns


def test_a_transcript_is_made_by_the_names_of_its_parts():
    with pytest.raises(TypeError, match="positional"):
        Transcript((), Diarization(), 1.0, None, None, "embedded", ())
