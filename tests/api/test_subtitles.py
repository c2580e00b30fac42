"""The options of subtitles, in requests for a transcript and for the result of a job."""

from __future__ import annotations

import pysrt
import pytest

from api.test_form import error_message
from api.test_jobs import error_message as v1_error_message
from api.test_jobs import script
from api.wire import FORM, form, part, recording
from diarist.api.job_schemas import ResultQuery
from diarist.api.request_schemas import DiarizeForm
from diarist.formats.subtitle_options import RANGES, SubtitleOptions

EXPOSED = {name for name in SubtitleOptions.__dataclass_fields__ if name != "closed_pause"}


def lines(answer) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [line for item in pysrt.from_string(answer.text) for line in item.text.split("\n")]


def test_every_option_of_subtitles_is_a_field():
    for model in (DiarizeForm, ResultQuery):
        assert {name for name in model.model_fields if name.startswith("subtitle_")} == {
            f"subtitle_{name}" for name in {*EXPOSED, "preset"}
        }


@pytest.mark.parametrize(("name", "allowed"), RANGES.items())
def test_descriptions_give_the_ranges_and_the_defaults(name, allowed):
    description = DiarizeForm.model_fields[f"subtitle_{name}"].description
    assert f"{allowed}; {getattr(SubtitleOptions(), name):g} without a preset" in description.replace("\n", " ")


def test_fields_and_query_set_the_limits(post, client):
    assert lines(post(content=script(), format="srt"))[0] == "SPEAKER_00: Hello, how are you?"
    few = {"format": "srt", "subtitle_max_chars": "20", "subtitle_max_lines": "1", "subtitle_labels": "changes"}
    expected = ["SPEAKER_00: Hello,", "how are you?", "SPEAKER_01: Fine."]
    assert lines(post(content=script(), **few)) == expected
    query = "&".join(f"{name}={value}" for name, value in few.items())
    assert lines(client.post(f"/diarize?{query}", data=form(part("audio", "{}", "a.wav")), headers=FORM)) == expected


def test_a_preset_sets_all_limits_and_other_fields_replace_them(post):
    assert lines(post(content=script(), format="srt", subtitle_preset="bbc", subtitle_labels="never")) == [
        "Hello, how are you?",
        "Fine.",
    ]


def test_times_are_options_too(post):
    items = pysrt.from_string(post(content=script(), format="srt", subtitle_min_duration="3").text)
    assert (items[1].end - items[1].start).ordinal == 3000
    items = pysrt.from_string(post(content=script(), format="srt", subtitle_gap="0.3", subtitle_min_duration="5").text)
    assert items[0].end.ordinal == 4200
    items = pysrt.from_string(post(content=script(), format="srt", subtitle_reading_speed="5").text)
    assert (items[1].end - items[1].start).ordinal == 3400


def test_the_voices_of_vtt_can_be_left_out(post):
    assert "<v SPEAKER_00>" in post(content=script(), format="vtt").text
    assert "SPEAKER" not in post(content=script(), format="vtt", subtitle_labels="never").text


def test_dashes_are_for_quick_exchanges_only(post):
    answer = post(
        content=script(), format="vtt", subtitle_dashes="hyphen", subtitle_min_duration="10", subtitle_max_duration="10"
    )
    # The second speaker begins more than 1.5 s after the first one: that line would be shown too early.
    assert answer.text.count("-->") == 2
    assert "-Fine." not in answer.text


@pytest.mark.parametrize(("name", "allowed"), RANGES.items())
def test_values_out_of_range_are_refused_with_the_range(post, name, allowed):
    for wrong in (str(allowed.minimum - 1), str(allowed.maximum + 1), "nan", "inf", "many"):
        message = error_message(post(format="srt", **{f"subtitle_{name}": wrong}))
        assert f"subtitle_{name} cannot be" in message
        assert str(allowed) in message.replace("\n", " ")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"format": "srt", "subtitle_preset": "arte"}, "netflix` or `bbc"),
        ({"format": "srt", "subtitle_labels": "sometimes"}, "`changes`"),
        ({"format": "srt", "subtitle_dashes": "yes"}, "`hyphen` or a `dash`"),
        (
            {"format": "srt", "subtitle_min_duration": "8"},
            "subtitle_min_duration (8) is above subtitle_max_duration (7)",
        ),
        ({"subtitle_max_chars": "30"}, "subtitle_max_chars needs format=srt or format=vtt: json has no subtitles."),
        ({"format": "rttm", "subtitle_labels": "never"}, "subtitle_labels needs format=srt or format=vtt"),
    ],
)
def test_options_that_cannot_be_are_refused(post, fields, says):
    assert says in error_message(post(**fields)).replace("\n", " ")


def test_empty_fields_count_as_not_given(post):
    assert post(content=script(), subtitle_max_chars="", subtitle_preset=" ").status_code == 200


def test_the_result_of_a_job_is_rendered_with_the_options_of_its_request(client, make, done):
    job = make()
    assert done(job["id"]) == "succeeded"
    url = job["links"]["result"]
    assert lines(client.get(f"{url}?format=srt&subtitle_labels=never&subtitle_max_chars=20")) == [
        "Hello, how are you?",
        "Fine.",
    ]
    assert lines(client.get(f"{url}?format=srt"))[0].startswith("SPEAKER_00: ")
    for query, param in (
        ("format=srt&subtitle_max_lines=9", "subtitle_max_lines"),
        ("format=txt&subtitle_max_lines=2", "subtitle_max_lines"),
    ):
        v1_error_message(client.get(f"{url}?{query}"), 400, "invalid_option", param)


def test_a_new_job_has_no_options_of_subtitles(client):
    refused = client.post("/v1/jobs", data=recording("{}", subtitle_max_chars="30"), headers=FORM)
    assert "There is no field 'subtitle_max_chars'" in v1_error_message(refused, 400, "invalid_option")
