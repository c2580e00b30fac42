"""Tests of attribution: every word gets one speaker, and the right one where there is evidence."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diarist.pipeline.attribution import Attribution, SwitchCosts, attribute, speaker_evidence, viterbi
from diarist.types import Diarization, RecognizedWord, Span, SpeakerActivity, Turn
from support import strategies
from support.ratios import growth
from support.strategies import patient

A, B, C = "SPEAKER_00", "SPEAKER_01", "SPEAKER_02"


def said(text, start, each=0.3, pause=0.0):
    """Return consecutive words, each with the space before it."""
    found = []
    for part in text.split():
        found.append(RecognizedWord(f" {part}", Span(start, start + each), 0.9))
        start += each + pause
    return found


def turn(start, end, speaker):
    return Turn(Span(start, end), speaker)


def of(*turns, activity=None):
    return Diarization(turns, np.zeros((len({t.speaker for t in turns}), 4), dtype=np.float32), activity)


def speakers(utterances):
    return [word.speaker for utterance in utterances for word in utterance.words]


@st.composite
def recognized(draw, max_words=12):
    """Draw words in order of start: some overlap, some have no duration, and some follow a long pause."""
    start, words = draw(st.floats(0, 3)), []
    for _ in range(draw(st.integers(0, max_words))):
        length = draw(st.sampled_from((0.0, 0.001, 0.2, 0.7, 3.0)))
        words.append(RecognizedWord(draw(strategies.word_texts()), Span(start, start + length), draw(st.floats(0, 1))))
        start += draw(st.sampled_from((0.0, 0.1, 0.3, 0.9, 2.5, 40.0)))
    return words


@st.composite
def diarizations(draw):
    turns = draw(strategies.turns())
    plain = Diarization(turns)
    if not turns or draw(st.booleans()):
        return plain
    frames, count = draw(st.integers(0, 60)), len(plain.speakers)
    scores = np.random.default_rng(draw(st.integers(0, 99))).random((frames, count), dtype=np.float32)
    return replace(plain, activity=SpeakerActivity(scores, draw(st.sampled_from((0.02, 0.5))), 0.01))


@given(recognized(), diarizations())
@patient
def test_every_word_is_there_once_in_order_and_has_one_known_speaker(words, diarization):
    utterances = attribute(words, diarization)
    found = [word for utterance in utterances for word in utterance.words]
    assert [RecognizedWord(word.text, word.span, word.confidence) for word in found] == words
    assert {word.speaker for word in found} <= set(diarization.speakers or (A,))
    for utterance in utterances:
        assert len({word.speaker for word in utterance.words}) == 1
    starts = [utterance.span.start for utterance in utterances]
    assert starts == sorted(starts)
    assert all(0.0 <= word.speaker_confidence <= 1.0 + 1e-9 for word in found)


@given(recognized(), diarizations())
@patient
def test_neighboring_utterances_are_separated_for_a_reason(words, diarization):
    switch_costs = SwitchCosts()
    for before, after in itertools.pairwise(attribute(words, diarization, switch_costs)):
        pause = after.words[0].span.start - before.words[-1].span.end
        length = after.words[0].span.end - before.span.start
        assert before.speaker != after.speaker or pause >= switch_costs.break_s or length > switch_costs.max_utterance_s


@given(recognized(), diarizations().filter(lambda diarization: diarization.turns))
@patient
def test_evidence_is_a_distribution(words, diarization):
    if not words:
        return
    evidence = speaker_evidence(words, diarization)
    assert evidence.shape == (len(words), len(diarization.speakers))
    assert (evidence > 0).all()
    assert evidence.sum(axis=1) == pytest.approx(1.0)


@st.composite
def lattices(draw):
    count, voices = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    evidence = draw(hnp.arrays(np.float64, (count, voices), elements=st.floats(-6, 0)))
    costs = draw(hnp.arrays(np.float64, (count - 1,), elements=st.floats(0, 4)))
    return evidence, costs


@given(lattices())
@patient
def test_the_path_is_the_best_of_all(lattice):
    evidence, costs = lattice
    count, voices = evidence.shape

    def score(path):
        moves = sum(cost for cost, (a, b) in zip(costs, itertools.pairwise(path), strict=True) if a != b)
        return sum(evidence[i, k] for i, k in enumerate(path)) - moves

    path, _, _ = viterbi(evidence, costs)
    assert score(path.tolist()) == pytest.approx(max(map(score, itertools.product(range(voices), repeat=count))))


@given(lattices())
@patient
def test_the_posterior_is_the_sum_over_all_paths(lattice):
    evidence, costs = lattice
    count, voices = evidence.shape
    expected = np.zeros((count, voices))
    for path in itertools.product(range(voices), repeat=count):
        weight = np.exp(sum(evidence[i, k] for i, k in enumerate(path)))
        for cost, (a, b) in zip(costs, itertools.pairwise(path), strict=True):
            weight *= (a == b) + np.exp(-cost) / voices  # stays, or changes to anybody
        for i, k in enumerate(path):
            expected[i, k] += weight
    _, posterior, _ = viterbi(evidence, costs)
    assert posterior.sum(axis=1) == pytest.approx(1.0)
    assert posterior == pytest.approx(expected / expected.sum(axis=1, keepdims=True), abs=1e-9)


def test_equal_evidence_keeps_the_current_speaker():
    path, _, _ = viterbi(np.log(np.full((4, 3), 1 / 3)), np.zeros(3))
    assert len(set(path.tolist())) == 1


def test_no_words():
    assert attribute([], of(turn(0, 1, A))) == ()
    assert attribute([], Diarization()) == ()


def test_without_turns_all_words_are_one_speakers():
    utterances = attribute(said("nobody was told apart here", 1.0), Diarization())
    assert speakers(utterances) == [A] * 5
    assert [word.speaker_confidence for word in utterances[0].words] == pytest.approx([1.0] * 5, abs=0.01)


def test_a_plain_exchange():
    words = said("How are you?", 0.0) + said("I am fine.", 1.0) + said("Good.", 2.0)
    utterances = attribute(words, of(turn(0.0, 0.95, A), turn(0.95, 1.95, B), turn(1.95, 3.0, A)))
    assert [(u.speaker, u.text) for u in utterances] == [(A, "How are you?"), (B, "I am fine."), (A, "Good.")]


@pytest.mark.parametrize(("start", "speaker"), [(4.0, A), (5.3, A), (6.5, A), (9.3, B), (11.4, B), (13.0, B)])
def test_a_word_outside_of_all_turns_goes_to_the_nearest(start, speaker):
    turns = of(turn(5.0, 6.0, A), turn(10.0, 11.0, B))
    assert speakers(attribute(said("word", start), turns)) == [speaker]


def test_a_word_over_an_hour_from_any_turn_still_has_a_speaker():
    assert speakers(attribute(said("far", 5000.0), of(turn(0, 1, A), turn(2, 3, B)))) in ([A], [B])


def test_a_gap_between_turns_of_one_speaker_is_that_speakers():
    words = said("well it took a while", 0.0, each=0.4)
    assert speakers(attribute(words, of(turn(0.0, 0.7, A), turn(1.3, 3.0, A), turn(8.0, 9.0, B)))) == [A] * 5


@pytest.mark.parametrize("at", [0.0, 1.0, 1.5, 2.0, 3.0])
def test_words_without_length(at):
    word = RecognizedWord(" so", Span(at, at), 0.5)
    (utterance,) = attribute([word], of(turn(0.0, 1.0, A), turn(2.0, 3.0, B)))
    assert utterance.words[0].span == Span(at, at)
    if at != 1.5:
        assert utterance.speaker == (A if at <= 1.0 else B)


def test_where_two_talk_at_once_the_frames_decide():
    frames = np.zeros((40, 2), dtype=np.float32)  # of 0.1 s
    frames[:20, 0], frames[20:, 1] = 0.9, 0.9
    overlap = of(turn(0.0, 4.0, A), turn(0.0, 4.0, B), activity=SpeakerActivity(frames, 0.1))
    words = said("one two three four. five six seven eight", 0.4, each=0.4)
    assert speakers(attribute(words, overlap)) == [A] * 4 + [B] * 4


def test_a_word_that_could_be_anybodys_stays_within_its_phrase():
    turns = of(turn(0.0, 3.0, A), turn(0.9, 1.2, B), turn(4.0, 5.0, B))  # B is heard under the fourth word
    assert speakers(attribute(said("I went to the market on Sunday", 0.0), turns)) == [A] * 7


def test_a_single_word_with_weak_evidence_for_another_speaker_stays():
    turns = of(turn(0.0, 1.02, A), turn(1.02, 1.2, B), turn(1.2, 3.0, A))
    assert speakers(attribute(said("I went to the market on Sunday", 0.0), turns)) == [A] * 7


def test_a_single_word_with_strong_evidence_for_another_speaker_is_theirs():
    turns = of(turn(0.0, 1.0, A), turn(1.4, 2.0, B), turn(2.5, 4.0, A))
    words = said("So that is it.", 0.0, each=0.25) + said("Right.", 1.5) + said("Then we go on.", 2.6)
    assert speakers(attribute(words, turns)) == [A] * 4 + [B] + [A] * 4


@pytest.mark.parametrize("mark", [".", "?", "!", "。", '."', ".)"])
def test_a_lone_word_on_the_boundary_after_a_sentence_goes_to_the_next_speaker(mark):
    words = [*said("we were there", 0.0), RecognizedWord(f" yesterday{mark}", Span(0.9, 1.2), 0.9)]
    words += said("Okay and what did you see", 1.2)  # the first of these lies on the boundary, half in each turn
    utterances = attribute(words, of(turn(0.0, 1.35, A), turn(1.35, 4.0, B)))
    assert [utterance.text for utterance in utterances] == [
        f"we were there yesterday{mark}",
        "Okay and what did you see",
    ]


def test_the_same_word_within_a_phrase_stays_with_the_one_before():
    words = said("and then I said well", 0.0) + said("Okay. What did you see?", 1.5)
    found = speakers(attribute(words, of(turn(0.0, 1.35, A), turn(1.35, 4.0, B))))
    assert found == [A] * 5 + [B] * 5


def test_a_long_pause_begins_a_new_utterance():
    words = said("one two", 0.0) + said("three", 0.6 + 0.99 * SwitchCosts().break_s) + said("four", 60.0)
    utterances = attribute(words, of(turn(0.0, 100.0, A)))
    assert [utterance.text for utterance in utterances] == ["one two three", "four"]


def test_a_long_utterance_ends_with_its_sentence():
    longest = SwitchCosts().max_utterance_s
    count = round(longest / 0.5) + 10
    words = said(" ".join(["word"] * count + ["end."] + ["next"] * 3), 0.0, each=0.5)
    utterances = attribute(words, of(turn(0.0, 1000.0, A)))
    assert [len(utterance.words) for utterance in utterances] == [count + 1, 3]


def test_confidence_is_high_inside_and_low_on_the_edge():
    words = said("one two three four five six", 0.0)
    utterances = attribute(words, of(turn(0.0, 1.05, A), turn(1.05, 2.0, B)))
    sure = [word.speaker_confidence for utterance in utterances for word in utterance.words]
    assert min(sure[0], sure[-1]) > sure[3]
    assert min(sure[0], sure[-1]) > 0.9


@pytest.mark.timing
def test_the_work_grows_with_the_words_and_no_faster():
    rng, voices = np.random.default_rng(0), 8

    def conversation(count: int) -> tuple[tuple[RecognizedWord, ...], Diarization]:
        words = said(" ".join(["word"] * count), 0.0, each=0.2, pause=0.05)
        who = rng.integers(0, voices, count // 8)
        turns = tuple(turn(2.0 * i, 2.0 * i + 1.9, f"SPEAKER_{k:02d}") for i, k in enumerate(who))
        activity = SpeakerActivity(rng.random((count * 25 // 2, voices), dtype=np.float32), 0.02)
        return words, Diarization(turns, activity=activity)

    assert growth(lambda case: attribute(*case), conversation(4_000), conversation(16_000)) < 8


def test_a_word_between_two_turns_begins_the_sentence_that_follows_it():
    card, can, you = (
        RecognizedWord(text, Span(start, end), 0.9)
        for text, start, end in ((" card.", 29.3, 29.8), (" Can", 30.3, 31.0), (" you", 31.7, 31.9))
    )
    diarization = of(turn(29.0, 29.85, "A"), turn(31.5, 33.0, "B"))
    assert speakers(attribute([card, can, you], diarization)) == ["A", "B", "B"]


def in_sections(words, diarization, edges):
    """Return the utterances of words in sections, which end before the words of these indices."""
    attribution = Attribution(diarization)
    found = []
    for first, stop in itertools.pairwise([0, *edges, len(words)]):
        found += attribution.add(words[first:stop])
    return (*found, *attribution.finish())


@st.composite
def sectioned(draw):
    words = draw(recognized())
    return words, sorted(draw(st.lists(st.integers(0, len(words)), max_size=3)))


@given(sectioned(), diarizations())
@patient
def test_words_in_sections_are_complete_in_order_and_separated_for_a_reason(made, diarization):
    words, edges = made
    utterances = in_sections(words, diarization, edges)
    found = [word for utterance in utterances for word in utterance.words]
    assert [RecognizedWord(word.text, word.span, word.confidence) for word in found] == words
    assert all(0.0 <= word.speaker_confidence <= 1.0 + 1e-9 for word in found)
    switch_costs = SwitchCosts()
    for before, after in itertools.pairwise(utterances):
        pause = after.words[0].span.start - before.words[-1].span.end
        length = after.words[0].span.end - before.span.start
        assert before.speaker != after.speaker or pause >= switch_costs.break_s or length > switch_costs.max_utterance_s


@given(sectioned(), sectioned(), diarizations())
@patient
def test_final_utterances_do_not_depend_on_later_words(made, other, diarization):
    words, edges = made
    later = words[-1].span.start if words else 0.0
    others = [replace(word, span=word.span.shift(later)) for word in other[0]]
    attribution = Attribution(diarization)
    finalized = []
    for first, stop in itertools.pairwise([0, *edges, len(words)]):
        finalized += attribution.add(words[first:stop])
    followed = in_sections([*words, *others], diarization, [*edges, len(words)])
    assert list(followed[: len(finalized)]) == finalized


@given(recognized(), diarizations())
@patient
def test_one_section_equals_the_whole(words, diarization):
    assert (
        in_sections(words, diarization, []) == in_sections(words, diarization, [0, 0]) == attribute(words, diarization)
    )


def test_an_utterance_goes_on_across_sections():
    words = said("we go on and on", 1.0)
    (found,) = in_sections(words, of(turn(0, 5, A)), [2])
    assert found.text == "we go on and on"


def test_an_utterance_is_open_until_another_begins():
    attribution = Attribution(of(turn(0, 2, A), turn(5, 7, B)))
    assert attribution.open_since is None
    assert attribution.add(said("well then", 1.0)) == ()
    assert attribution.open_since == 1.0
    (finalized,) = attribution.add(said("yes of course", 5.0))
    assert (finalized.text, finalized.speaker) == ("well then", A)
    assert attribution.open_since == 5.0
    (last,) = attribution.finish()
    assert (last.text, last.speaker) == ("yes of course", B)
    assert attribution.finish() == ()


def test_the_current_speaker_is_kept_across_sections():
    """The second section's words fit all speakers equally, and are attributed to the speaker of the last words."""
    both = of(turn(0, 2, A), turn(3, 5, B), turn(6, 8, A), turn(6, 8, B))
    words = [*said("one two", 0.5), *said("three four", 3.5)]
    assert speakers(in_sections([*words, *said("five six", 6.5)], both, [4])) == [A, A, B, B, B, B]
    assert speakers(in_sections([*words[2:], *said("five six", 6.5)], both, [2])) == [B, B, B, B]


def test_sections_do_not_change_confidences():
    """The confidences are equal except for the evidence of words after a section about those before it."""
    talk = of(turn(0, 3, A), turn(4, 7, B), turn(8, 11, A))
    words = [*said("one two three four.", 0.5), *said("five six seven eight.", 4.5), *said("nine ten eleven.", 8.5)]
    whole = [word for utterance in attribute(words, talk) for word in utterance.words]
    parts = [word for utterance in in_sections(words, talk, [4, 8]) for word in utterance.words]
    assert [word.speaker for word in parts] == [word.speaker for word in whole]
    assert [word.speaker_confidence for word in parts] == pytest.approx(
        [word.speaker_confidence for word in whole], abs=0.02
    )
