"""Scores of hypotheses with known errors."""

from __future__ import annotations

import sys

import pytest

from diarist.errors import ConfigurationError, InvalidOption
from diarist.evaluation.hypotheses import Hypothesis
from diarist.evaluation.normalization import normalizer
from diarist.evaluation.reference import Reference
from diarist.evaluation.scoring import Score, pool, score
from diarist.evaluation.segments import Segment, distribute
from diarist.types import Span, Turn

pytestmark = pytest.mark.bench


def turns(*rows):
    return tuple(Turn(Span(start, end), speaker) for speaker, start, end in rows)


def segments(*rows):
    return tuple(Segment(Span(start, end), speaker, text) for speaker, start, end, text in rows)


TURNS = turns(("ann", 0, 4), ("bob", 4, 10))
SAID = segments(("ann", 0, 4, "how are you today"), ("bob", 4, 10, "I am very well and you"))
TRUTH = Reference("call", TURNS, SAID)


def test_the_truth_has_no_errors_whatever_the_speakers_are_called():
    answer = Hypothesis(
        turns(("x", 0, 4), ("y", 4, 10)), segments(("x", 0, 4, SAID[0].text), ("y", 4, 10, SAID[1].text))
    )
    told = score(TRUTH, answer)
    rates = (told.der, told.der_collar, told.jer, told.wer, told.cpwer, told.tcpwer, told.boundary_error)
    assert rates == pytest.approx([0] * 7)
    assert (told.speakers, told.found, told.exact, told.recordings, told.words) == (2, 2, 1, 1, 10)
    assert told.boundary_words > 0


def test_each_kind_of_error_is_counted_separately():
    # 1 s of Bob missed at the end, 1 s of nobody's speech after it, 1 s of Bob given to Ann
    told = score(TRUTH, Hypothesis(turns(("x", 0, 5), ("y", 5, 9), ("y", 10, 11)), duration=12.0))
    assert (told.speech, told.seconds) == (10, 12)
    assert (told.missed, told.false_alarm, told.confusion) == pytest.approx((1, 1, 1))
    assert told.der == pytest.approx(0.3)
    # a collar at 0, 4 and 10 leaves out a quarter of a second on each side
    assert told.collar_speech == pytest.approx(9)
    assert (told.collar_missed, told.collar_false_alarm, told.collar_confusion) == pytest.approx((0.75, 0.75, 0.75))
    # Ann: 4 of 5 s; Bob: 4 of 7
    assert told.jer == pytest.approx((1 / 5 + 3 / 7) / 2)
    assert told.wer is None
    assert told.boundary_error is None


def test_overlap_counts_for_each_speaker():
    told = score(Reference("call", turns(("ann", 0, 4), ("bob", 2, 4))), Hypothesis(turns(("x", 0, 4))))
    assert (told.speech, told.missed, told.exact) == (6, 2, 0)


def test_a_word_under_the_wrong_name_is_a_speakers_error_alone():
    answer = Hypothesis(
        turns(("x", 0, 4), ("y", 4, 10)),
        segments(("x", 0, 5, "how are you today I"), ("y", 5, 10, "am very well and you")),
    )
    told = score(TRUTH, answer)
    assert (told.word_errors, told.speaker_word_errors, told.timed_word_errors) == (0, 2, 2)


def test_words_far_from_where_they_are_said_are_errors_in_time():
    late = Hypothesis(TURNS, segments(("ann", 20, 24, SAID[0].text), ("bob", 24, 30, SAID[1].text)))
    told = score(TRUTH, late)
    assert (told.word_errors, told.speaker_word_errors) == (0, 0)
    assert told.timed_word_errors == 20


def test_boundary_words_are_judged_by_the_text():
    words = segments(
        ("ann", 0, 1, "how"), ("ann", 1, 2, "are"), ("ann", 2, 3, "you"), ("ann", 3, 3.9, "today"),
        ("bob", 4, 4.4, "I"), ("bob", 4.6, 5, "am"), ("bob", 5, 6, "very"),
    )  # fmt: skip
    reference = Reference("call", TURNS, SAID, words)
    heard = tuple(
        Segment(Span(word.span.start, word.span.end), "y" if word.text in ("today", "I", "very") else "x", word.text)
        for word in words
        if word.text != "am"
    )
    answer = Hypothesis(turns(("x", 0, 4), ("y", 4, 10)), (), heard)
    told = score(reference, answer)
    # near 4 s: "today" (wrong) and "I" (right); "am" was not heard, "you" and "very" are too far off
    assert (told.boundary_words, told.boundary_wrong) == (2, 1)


def test_boundary_words_are_judged_by_the_turns_without_a_text():
    heard = segments(("x", 3, 3.8, "hm"), ("x", 4.1, 4.4, "so"), ("y", 4.4, 4.8, "well"), ("x", 8, 9, "far"))
    told = score(Reference("call", TURNS), Hypothesis(turns(("x", 0, 4), ("y", 4, 10)), (), heard))
    assert (told.boundary_words, told.boundary_wrong) == (3, 1)
    assert told.words == 0


def test_only_the_parts_that_are_named_are_scored():
    reference = Reference("call", TURNS, SAID, scored=(Span(0, 4),))
    told = score(reference, Hypothesis(turns(("x", 0, 4)), segments(("x", 0, 4, "how are you today"))))
    assert (told.der, told.words, told.word_errors, told.seconds) == (0, 4, 0, 4)


@pytest.mark.parametrize("answer", [Hypothesis((), ()), Hypothesis((), (), (), 10.0)])
def test_an_empty_hypothesis_misses_everything(answer):
    told = score(TRUTH, answer)
    assert (told.der, told.jer, told.wer, told.cpwer, told.tcpwer) == (1, 1, 1, 1, 1)
    assert told.boundary_words == 0


def test_speech_where_there_is_none_is_false_and_has_no_rate():
    told = score(Reference("noise", (), ()), Hypothesis(TURNS, SAID))
    assert (told.false_alarm, told.inserted, told.speaker_word_errors) == (10, 10, 10)
    assert (told.der, told.wer, told.jer) == (None, None, None)


def test_scores_are_pooled_by_their_counts():
    long, short = Score(speech=90, missed=9, words=10), Score(speech=10, missed=10, words=5)
    assert pool([long, short]).der == pytest.approx(0.19)
    assert pool([]) == Score()


def test_text_is_compared_as_its_language_is_written():
    assert normalizer("en")("Colour's twenty-one, Mr. O") == normalizer("en")("color is 21 mister o")
    assert normalizer(None)("Ça va, Zoë?") == "ça va zoë"
    assert normalizer("zh")("你好。") == "你 好"
    said = Reference("call", turns(("a", 0, 2)), segments(("a", 0, 2, "你好吗")))
    told = score(said, Hypothesis(turns(("a", 0, 2)), segments(("a", 0, 2, "你好"))), language="zh")
    assert (told.words, told.deleted) == (3, 1)


def test_words_are_distributed_over_their_segment_by_length():
    words = distribute(segments(("a", 0, 4, "abc d"), ("b", 1, 1, "e")))
    assert words == segments(("a", 0, 3, "abc"), ("b", 1, 1, "e"), ("a", 3, 4, "d"))


def test_more_speakers_than_can_be_paired_are_refused():
    many = segments(*((f"s{i}", i, i + 1, "yes") for i in range(21)))
    with pytest.raises(InvalidOption, match="the hypothesis has 21 speakers with words: at most 20"):
        score(TRUTH, Hypothesis(TURNS, many, duration=30.0))


def test_a_missing_library_says_how_it_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "meeteval", None)
    with pytest.raises(ConfigurationError, match=r"pip install -e '\.\[bench\]'"):
        score(TRUTH, Hypothesis(()))
