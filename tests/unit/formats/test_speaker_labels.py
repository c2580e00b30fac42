"""How subtitles show who speaks: labels, voices and dashes."""

from __future__ import annotations

import pysrt
import pytest
import webvtt

from diarist.formats import render
from diarist.formats.subtitle_options import PRESETS, SubtitleOptions
from diarist.types import Utterance
from unit.formats.conversations import transcript, utterance

TALK = transcript(
    utterance("SPEAKER_00", 1.0, "The first thing is the price of all this."),
    utterance("SPEAKER_00", 5.0, "The second thing is the time."),
    utterance("SPEAKER_01", 9.0, "Yes, it is."),
    utterance("SPEAKER_00", 12.0, "So what do we do?"),
)
EXCHANGE = transcript(
    utterance("SPEAKER_00", 1.0, "Is it far?"),
    utterance("SPEAKER_01", 1.8, "No."),
    utterance("SPEAKER_01", 6.0, "We can walk."),
    utterance("SPEAKER_00", 8.0, "Good, let us go."),
)


def texts(said, **options) -> list[str]:
    return [item.text for item in pysrt.from_string(written(said, "srt", **options))]


def written(said, name, **options) -> str:
    return render(said, name, recording="r", subtitles=SubtitleOptions(**options))


def test_labels_are_in_every_cue_of_srt_by_default():
    assert texts(TALK) == [
        "SPEAKER_00: The first thing\nis the price of all this.",
        "SPEAKER_00: The second thing is the time.",
        "SPEAKER_01: Yes, it is.",
        "SPEAKER_00: So what do we do?",
    ]


def test_labels_at_changes_are_where_the_speaker_is_another_one():
    assert texts(TALK, labels="changes") == [
        "SPEAKER_00: The first thing\nis the price of all this.",
        "The second thing is the time.",
        "SPEAKER_01: Yes, it is.",
        "SPEAKER_00: So what do we do?",
    ]


def test_without_labels_there_are_no_names():
    assert texts(TALK, labels="never") == [
        "The first thing is the price of all this.",
        "The second thing is the time.",
        "Yes, it is.",
        "So what do we do?",
    ]


def test_a_label_comes_back_after_an_interruption():
    said = transcript(
        utterance("SPEAKER_00", 1.0, "We should really buy the new house, and then we sell the old one."),
        utterance("SPEAKER_01", 3.0, "Right."),
    )
    assert texts(said, labels="changes") == [
        "SPEAKER_00: We should\nreally buy the new house,",
        "SPEAKER_01: Right.",
        "SPEAKER_00: and then we sell the old one.",
    ]


def test_a_cue_that_gets_a_label_after_an_interruption_still_fits():
    said = transcript(
        utterance("SPEAKER_00", 1.0, "We should really buy the new house, and then we sell the old one today.", 0.2),
        utterance("SPEAKER_01", 2.4, "Right."),
    )
    shown = texts(said, labels="changes", max_chars=24, max_lines=1)
    assert all(len(text) <= 24 for text in shown)
    assert sum(text.startswith("SPEAKER_00:") for text in shown) == 2


@pytest.mark.parametrize("labels", ["always", "changes"])
def test_voices_are_in_every_cue_of_vtt(labels):
    captions = webvtt.from_string(written(TALK, "vtt", labels=labels)).captions
    assert [caption.voice for caption in captions] == ["SPEAKER_00", "SPEAKER_00", "SPEAKER_01", "SPEAKER_00"]
    assert captions[0].text == "The first thing is the price of all this."


def test_vtt_without_labels_has_no_voices():
    assert "SPEAKER" not in written(TALK, "vtt", labels="never")


@pytest.mark.parametrize(("dashes", "dash"), [("hyphen", "-"), ("dash", "– ")])
def test_two_speakers_share_a_cue_in_a_quick_exchange(dashes, dash):
    assert texts(EXCHANGE, dashes=dashes) == [
        f"{dash}SPEAKER_00: Is it far?\n{dash}SPEAKER_01: No.",
        "SPEAKER_01: We can walk.",
        "SPEAKER_00: Good, let us go.",
    ]
    assert texts(EXCHANGE, dashes=dashes, labels="never") == [
        f"{dash}Is it far?\n{dash}No.",
        "We can walk.",
        "Good, let us go.",
    ]


def test_the_cue_after_two_speakers_has_a_label_since_it_is_not_clear_who_goes_on():
    assert texts(EXCHANGE, dashes="hyphen", labels="changes")[1] == "SPEAKER_01: We can walk."


def test_two_speakers_of_a_cue_of_vtt_have_a_voice_each():
    assert written(EXCHANGE, "vtt", dashes="hyphen").split("\n\n")[1] == (
        "00:00:01.000 --> 00:00:02.100\n<v SPEAKER_00>-Is it far?</v>\n<v SPEAKER_01>-No.</v>"
    )


@pytest.mark.parametrize(
    ("second", "options"),
    [
        (utterance("SPEAKER_01", 3.0, "No."), {}),
        (utterance("SPEAKER_00", 1.95, "No."), {}),
        (utterance("SPEAKER_01", 1.8, "No, it is not, since we can walk there in a few minutes."), {}),
        (utterance("SPEAKER_01", 1.8, "No."), {"max_lines": 1}),
        (utterance("SPEAKER_01", 1.8, "No."), {"dashes": "none"}),
    ],
)
def test_two_utterances_have_cues_of_their_own(second: Utterance, options):
    said = transcript(utterance("SPEAKER_00", 1.0, "Is it far?"), second)
    assert len(texts(said, **{"dashes": "hyphen", **options})) >= 2
    assert not any(text.startswith("-") for text in texts(said, **{"dashes": "hyphen", **options}))


def test_presets_show_speakers_as_their_guides_say():
    netflix = [
        item.text for item in pysrt.from_string(render(EXCHANGE, "srt", recording="r", subtitles=PRESETS["netflix"]))
    ]
    assert netflix[0] == "-SPEAKER_00: Is it far?\n-SPEAKER_01: No."
    bbc = [item.text for item in pysrt.from_string(render(EXCHANGE, "srt", recording="r", subtitles=PRESETS["bbc"]))]
    assert bbc[0] == "– SPEAKER_00: Is it far?\n– SPEAKER_01: No."


def test_a_label_that_does_not_fit_beside_the_first_word_has_a_line_of_its_own():
    said = transcript(utterance("SPEAKER_00", 1.0, "Internationalization!"))
    assert texts(said, max_chars=22) == ["SPEAKER_00:\nInternationalization!"]
