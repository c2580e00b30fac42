"""References are read from the files of a recording, and unreadable files are named."""

from __future__ import annotations

import pytest

from diarist.errors import InvalidOption
from diarist.evaluation.reference import find, parse_stm, parse_uem, parse_words
from diarist.evaluation.segments import Segment
from diarist.types import Span, Turn

RTTM = "SPEAKER call 1 0.5 1.5 <NA> <NA> ann <NA> <NA>\n"


def test_files_with_the_name_of_a_recording_belong_to_it(tmp_path):
    (tmp_path / "call.WAV").touch()
    (tmp_path / "call.rttm").write_text(RTTM + "SPEAKER call 1 3 0 <NA> <NA> nobody <NA> <NA>\n")
    (tmp_path / "call.stm").write_text("\ufeff;; typed by hand\ncall 1 ann 0.5 2.0 <o,f0> Hello, Bob.\n")
    (tmp_path / "call.uem").write_text("call 1 0.000 30.000\n")
    (tmp_path / "call.words.json").write_text('[{"speaker": "ann", "word": "Hello", "start": 0.5, "end": 1}]')
    (tmp_path / "other.rttm").write_text(RTTM)
    (tmp_path / "unrelated.wav").touch()
    call, other = find(tmp_path)
    assert (call.name, call.recording, call.speakers) == ("call", tmp_path / "call.WAV", ("ann",))
    assert call.turns[0] == Turn(Span(0.5, 2), "ann")
    assert call.segments == (Segment(Span(0.5, 2), "ann", "Hello, Bob."),)
    assert call.words == (Segment(Span(0.5, 1), "ann", "Hello"),)
    assert call.scored == (Span(0, 30),)
    assert (other.name, other.recording, other.segments, other.words, other.scored) == ("other", None, None, (), ())


def test_an_stm_alone_gives_turns_and_words(tmp_path):
    (tmp_path / "a.wav").touch()
    (tmp_path / "a.stm").write_text("a 1 ann 0.5 2.0 Hello, Bob.\na 1 bob 1.5 3 Hello.\n")
    (tmp_path / "b.rttm").write_text(RTTM)
    first, second = find(tmp_path)
    assert (first.name, first.recording) == ("a", tmp_path / "a.wav")
    assert first.turns == (Turn(Span(0.5, 2), "ann"), Turn(Span(1.5, 3), "bob"))
    assert [each.text for each in first.segments] == ["Hello, Bob.", "Hello."]
    assert (second.name, second.segments) == ("b", None)


def test_what_an_stm_leaves_out_is_no_text():
    text = (
        "a 1 inter_segment_gap 0 1 <o,,>\na 1 bob 5 6 later\na 1 ann 2 3\n"
        "a 1 ann 1 2 IGNORE_TIME_SEGMENT_IN_SCORING\na 1 ann 4 5 <unk> now\n"
    )
    assert [segment.text for segment in parse_stm(text)] == ["now", "later"]


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_stm, "a 1 ann 0 1 yes\n\na 1 ann 1\n", "line 3 of this STM has 4 fields"),
        (parse_stm, "a 1 ann one 2 yes", "line 1 of this STM cannot be read: .* 'one'"),
        (parse_stm, "a 1 ann 2 1 yes", "line 1 of this STM"),
        (parse_uem, ";; \na 1 0", "line 2 of this UEM has 3 fields"),
        (parse_uem, "a 1 0 nan", "line 1 of this UEM"),
        (parse_words, "[1]", "not a list of words"),
        (parse_words, "{", "not a list of words"),
        (parse_words, '[{"word": "a", "start": 0, "end": 1}]', "speaker"),
    ],
)
def test_an_unreadable_line_is_reported_with_its_number(parse, text, message):
    with pytest.raises(InvalidOption, match=message):
        parse(text)


def test_the_file_is_named(tmp_path):
    (tmp_path / "call.rttm").write_text(RTTM + "SPEAKER call 1 x 1 <NA> <NA> ann\n")
    with pytest.raises(InvalidOption, match=r"call\.rttm: line 2 of this RTTM"):
        find(tmp_path)
    (tmp_path / "call.rttm").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidOption, match=r"call\.rttm is not UTF-8"):
        find(tmp_path)


def test_a_folder_without_references_is_reported(tmp_path):
    with pytest.raises(InvalidOption, match=r"contains no references: put NAME\.rttm \(or NAME\.stm"):
        find(tmp_path)
    with pytest.raises(InvalidOption, match="is not a folder"):
        find(tmp_path / "absent")


def test_two_recordings_of_one_name_are_refused(tmp_path):
    for ending in ("wav", "flac"):
        (tmp_path / f"call.{ending}").touch()
    (tmp_path / "call.rttm").write_text(RTTM)
    with pytest.raises(InvalidOption, match=r"call\.flac and call\.wav both belong to"):
        find(tmp_path)
