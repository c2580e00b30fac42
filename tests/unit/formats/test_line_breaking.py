"""Where lines of subtitles break, by the rules of each script."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

import pysrt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarist.formats import render
from diarist.formats.cues import subtitles
from diarist.formats.line_breaking import Break, columns, line_break
from diarist.formats.subtitle_options import DEFAULT
from diarist.types import Diarization, Span, Transcript, Utterance, Word
from support.strategies import patient

SENTENCES = (
    "「きょうはいい天気ですね。」と、彼女は言った（たぶん・・・）。ちょっとコーヒーでも飲みませんか？じゃあ、そうしましょう！",
    "我们说：“今天的会议到此为止，谢谢大家！”（掌声）《新的遥控器》、【计划】……人々、時々刻々、いすゞ、ｺｰﾋｰ｡",
    "ในน้ำมีปลาในนามีข้าวและเราได้เรียนรู้ว่าเด็กๆชอบไปโรงเรียนทุกวันเพราะมีเพื่อนเยอะแยะ",
    "ສະບາຍດີຕອນເຊົ້າທຸກໆຄົນທີ່ມາຮ່ວມປະຊຸມໃນມື້ນີ້ເຮົາຈະເວົ້າກ່ຽວກັບໂຄງການໃໝ່",
    "မြန်မာနိုင်ငံတွင်နေထိုင်သောသူများသည်မြန်မာဘာသာစကားကိုပြောကြသည်။",
    "We're talking (unfortunately) about a user-friendliness, 1,255 telecommunications; re\u0301sume\u0301s.",
    "हम नई परियोजना के बारे में बात करने के लिए यहाँ इकट्ठे हुए हैं, और क्षमा करें।",
    "우리는 새로운 리모컨에 대해 이야기하기 위해 여기에 모였습니다. 감사합니다, 여러분!",
    "قال المدير إن الاجتماع انتهى، وشكر الجميع على الحضور. هل من أسئلة؟",
    "彼はWhisperとNeMoを使って、30%のAPIをPythonで書いた。👩‍💻👍🏽はOKです！ｶﾞｷﾞｸﾞ",
)

MAY_NOT_BEGIN = frozenset(
    "、。，．！？）」』】》”：ーｰ々ゝゞヽヾ・ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮｯｬｭｮ｡､ﾞﾟ,.!?):;%،؟।။"
    + "".join(chr(point) for point in (*range(0x0E30, 0x0E3B), *range(0x0E45, 0x0E4F), *range(0x0EB0, 0x0EBE), 0x0EC6))
)
MAY_NOT_END = frozenset("（「『【《“([" + "เแโใไ" + "ເແໂໃໄ" + "\u200d")


def transcript(words: list[str], step: float = 0.3) -> Transcript:
    said = (Word(text, Span(i * step, (i + 1) * step), "A", 0.9, 0.9) for i, text in enumerate(words))
    return Transcript(
        utterances=(Utterance(tuple(said)),),
        diarization=Diarization(),
        duration=len(words) * step,
        language=None,
        language_probability=None,
        engine="embedded",
        timings=(),
    )


def lines_of(words: list[str], step: float = 0.3) -> list[str]:
    return [line for cue in subtitles(transcript(words, step)) for line in cue.lines]


@st.composite
def torn_sentences(draw: st.DrawFn) -> list[str]:
    """Draw sentences that are torn anywhere, as recognizers tear them whose tokens are bytes or characters."""
    text = "".join(draw(st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=2)))
    cuts = draw(st.sets(st.integers(1, len(text) - 1), max_size=60) | st.just(set(range(1, len(text)))))
    edges = [0, *sorted(cuts), len(text)]
    return [text[first:last] for first, last in pairwise(edges)]


@patient
@given(torn_sentences(), st.sampled_from((0.05, 0.3, 2.0)))
def test_lines_begin_and_end_as_their_script_wants(words, step):
    lines = lines_of(words, step)
    text = "".join(words)
    assert "".join("".join(lines).split()) == "".join(text.split())
    for line in lines[1:]:
        assert line[0] not in MAY_NOT_BEGIN
        assert not unicodedata.category(line[0]).startswith("M")
    assert not any(line[-1] in MAY_NOT_END for line in lines)


@patient
@given(torn_sentences(), st.sampled_from((0.05, 0.3, 2.0)))
def test_no_word_is_broken_in_scripts_with_spaces(words, step):
    lines = lines_of(words, step)
    text = "".join(words)
    spaced_scripts = re.compile(r"[a-zA-Z0-9'’\u0300-\u036fऀ-ॣ가-힣\u0621-\u065f-]+")
    position = 0
    for line in lines[:-1]:
        for character in line.replace(" ", ""):
            position = text.index(character, position) + 1
        assert not (spaced_scripts.fullmatch(text[position - 1]) and spaced_scripts.match(text[position:]))


@patient
@given(torn_sentences())
def test_lines_of_torn_sentences_fit(words):
    assert all(columns(line) <= DEFAULT.max_chars for line in lines_of(words))


def test_a_sentence_without_spaces_in_one_word_is_divided():
    sentence = SENTENCES[0]
    cues = subtitles(transcript([sentence], step=9.0))
    assert "".join(line for cue in cues for line in cue.lines) == sentence
    assert all(columns(line) <= DEFAULT.max_chars for cue in cues for line in cue.lines)
    assert (cues[0].start_ms, cues[-1].end_ms) == (0, 9000)
    assert len(cues) > 1


def test_an_unspaced_latin_word_stays_whole_even_where_pieces_are_far_apart():
    words = [" The", " tele", "com", "munications", " industry"]
    assert lines_of(words, step=2.0) == ["The", "telecommunications", "industry"]


def test_letters_without_any_space_are_broken_at_last():
    lines = lines_of(["x"] * 200)
    assert "".join(lines) == "x" * 200
    assert all(len(line) <= DEFAULT.max_chars for line in lines)


def test_srt_of_japanese_has_no_line_that_begins_with_a_small_kana():
    words = list("きょうのミーティングでは、ちょっとしたコミュニケーションについて、じゅうぶんにしゃべりましょう。")
    items = pysrt.from_string(render(transcript(words, 0.12), "srt", recording="r"))
    lines = [line.removeprefix("A: ") for item in items for line in item.text.split("\n")]
    assert "".join(lines) == "".join(words)
    assert len(lines) > 1
    assert not any(line[0] in "ょャュョィーッっゅゃ、。" for line in lines)


@pytest.mark.parametrize(
    ("before", "after", "spaced", "expected"),
    [
        ("Hello", "there", True, Break.ALLOWED),
        ("Hel", "lo", False, Break.WITHIN_WORD),
        ("user", "-friendly", False, Break.WITHIN_WORD),
        ("well", ".5", True, Break.ALLOWED),
        ("Quoi", "?", True, Break.WITHIN_WORD),
        ("Quoi", "»", True, Break.WITHIN_WORD),
        ("«", "Oui", True, Break.WITHIN_WORD),
        ("dit", "«", True, Break.ALLOWED),
        ("say", '"', True, Break.ALLOWED),
        ("„Hallo“", "sagte", True, Break.ALLOWED),
        ("（", "笑", False, Break.WITHIN_WORD),
        ("笑", "）", False, Break.WITHIN_WORD),
        ("は", "「", False, Break.ALLOWED),
        ("ミ", "ーティング", False, Break.WITHIN_WORD),
        ("人", "々", False, Break.WITHIN_WORD),
        ("ki", "ゃ", True, Break.WITHIN_WORD),
        ("日本", "語", False, Break.ALLOWED),
        ("日本", "API", False, Break.ALLOWED),
        ("감사", "합니다", False, Break.WITHIN_WORD),
        ("น", "\u0e49", False, Break.NEVER),
        ("น", "\u0e33", False, Break.NEVER),
        ("เ", "ด็ก", False, Break.NEVER),
        ("น้ำ", "ปลา", False, Break.ALLOWED),
        ("e", "\u0301", False, Break.NEVER),
        ("क\u094d", "\u0937", False, Break.WITHIN_WORD),
        ("\u1019", "\u103c", False, Break.NEVER),
        ("\u1000\u1039", "\u1000", False, Break.NEVER),
        ("👩", "\u200d💻", False, Break.NEVER),
        ("👩\u200d", "💻", False, Break.NEVER),
        ("👍", "🏽", False, Break.NEVER),
        ("🇩", "🇪", False, Break.NEVER),
        ("a\u200b", "b", False, Break.ALLOWED),
    ],
)
def test_line_break(before, after, spaced, expected):
    assert line_break(before, after, spaced=spaced) is expected


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("Hello", 5),
        ("日本", 4),
        ("ｶﾅ", 2),
        ("re\u0301", 2),
        ("น้ำ", 2),
        ("한", 2),
        ("\u1112\u1161\u11ab", 2),
        ("👍🏽", 2),
        ("", 0),
    ],
)
def test_columns(text, width):
    assert columns(text) == width
