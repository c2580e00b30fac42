"""The choice of audio tracks in options."""

from __future__ import annotations

import pytest

from diarist.errors import InvalidOption
from diarist.tracks import parse_track
from diarist.types import SpeakerHints, TranscribeOptions


@pytest.mark.parametrize(
    ("value", "track"),
    [(None, None), (1, 1), ("2", 2), ("007", 7), ("default", "default"), ("best", "best"), ("all", "all")],
)
def test_tracks_by_number_and_rule(value, track):
    assert parse_track(value) == track
    assert TranscribeOptions(track=value).track == track


@pytest.mark.parametrize(
    "value", [0, -1, 1.5, 1.0, True, False, 10**9, "0", "-1", "1.5", "two", "", " 2", "٣", "9" * 5000, "Best"]
)
def test_what_is_no_track_is_refused(value):
    with pytest.raises(InvalidOption, match="track must be the number of an audio track") as caught:
        TranscribeOptions(track=value)
    assert len(str(caught.value)) < 200


def test_all_tracks_exclude_separate_channels_and_numbers_of_speakers():
    with pytest.raises(InvalidOption, match="not both"):
        TranscribeOptions(track="all", channels="separate")
    with pytest.raises(InvalidOption, match="numbers of speakers"):
        TranscribeOptions(SpeakerHints(min_speakers=2), track="all")


@pytest.mark.parametrize("value", ["yes", "", None, True])
def test_what_to_do_with_partial_recordings_is_known(value):
    with pytest.raises(InvalidOption, match="partial must be refuse or accept"):
        TranscribeOptions(partial=value)
