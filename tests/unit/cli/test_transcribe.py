"""``diarist transcribe`` with a fake engine: its outputs and exit codes."""

from __future__ import annotations

import json
import os
import tempfile
from typing import get_args

import click
import pytest
from click.testing import CliRunner

from diarist.api import serving
from diarist.cli import engine_options, main
from diarist.cli.subtitle_flags import CHOICES, subtitle_flags, subtitle_values
from diarist.engines import registry
from diarist.formats.subtitle_options import RANGES, DashStyle, LabelMode, PresetName, SubtitleOptions
from diarist.settings import Settings
from diarist.types import SpeakerHints, TranscribeOptions
from unit.cli.fake_engine import FakeEngine

PROPOSAL = "The committee will discuss this proposal on Tuesday afternoon."


def run(*args, engine=None, stdin=None):
    engine = engine or FakeEngine()
    result = CliRunner().invoke(main, ["transcribe", *map(str, args)], obj=engine.load, input=stdin)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def recording(folder, name="meeting.wav", does="say Hello."):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(does)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_one_recording_in_one_format_goes_to_standard_output(folder):
    recording(folder)
    result = run("meeting.wav")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "[00:00:00.000] SPEAKER_00: Hello.\n", "")
    assert names(folder) == ["meeting.wav"]


@pytest.mark.parametrize(
    ("name", "begins"), [("json", '{"conversation"'), ("srt", "1\n"), ("vtt", "WEBVTT"), ("rttm", "SPEAKER meeting 1 ")]
)
def test_each_format(folder, name, begins):
    recording(folder)
    assert run("meeting.wav", "--format", name).stdout.startswith(begins)


def test_speakers_have_the_names_that_are_given(folder):
    recording(folder, does="call")
    result = run("meeting.wav", "--speaker-names", 'Anna, "Li, Wei"')
    assert result.stdout == "[00:00:00.000] Anna: Hello.\n[00:00:01.000] Li, Wei: Goodbye.\n"
    assert (result.exit_code, result.stderr) == (0, "")
    assert run("meeting.wav", "--speaker-names", "Anna").stdout == (
        "[00:00:00.000] Anna: Hello.\n[00:00:01.000] SPEAKER_01: Goodbye.\n"
    )


def test_names_are_the_same_for_each_recording_and_in_each_format(folder):
    recording(folder, "a.wav", does="call")
    recording(folder, "b.wav", does="say Hello.")
    result = run("a.wav", "b.wav", "--format", "json,rttm", "--speaker-names", "Anna Lee,Ben")
    assert result.exit_code == 0
    assert result.stderr == (
        "diarist: b.wav: warning: The recording has 1 speaker, so these speaker names are not used: Ben.\n"
    )
    assert {each["speaker"] for each in json.loads((folder / "a.json").read_text())["conversation"]} == {
        "Anna Lee", "Ben",
    }  # fmt: skip
    assert [line.split()[7] for line in (folder / "a.rttm").read_text().splitlines()] == ["Anna_Lee", "Ben"]
    assert [line.split()[7] for line in (folder / "b.rttm").read_text().splitlines()] == ["Anna_Lee"]


@pytest.mark.parametrize(
    ("names", "message"), [("", "is empty"), ("Anna,,Ben", "name 2 is empty"), ("Anna,Anna", "given twice")]
)
def test_invalid_names_of_speakers(folder, names, message):
    recording(folder)
    engine = FakeEngine()
    result = run("meeting.wav", "--speaker-names", names, engine=engine)
    assert result.exit_code == 2
    assert message in result.stderr
    assert engine.loads == 0


@pytest.mark.parametrize(
    ("args", "lines"),
    [
        ((), ["The committee will discuss this", "proposal on Tuesday afternoon."]),
        (("--subtitle-max-chars", "65", "--subtitle-max-lines", "1"), [PROPOSAL]),
        (
            ("--subtitle-preset", "bbc", "--subtitle-max-lines", "3"),
            ["The committee will discuss this", "proposal on Tuesday afternoon."],
        ),
        (
            ("--subtitle-preset", "netflix", "--subtitle-max-chars", "30", "--subtitle-max-lines", "3"),
            ["The committee will", "discuss this proposal", "on Tuesday afternoon."],
        ),
    ],
)
def test_subtitles_keep_to_the_limits_that_are_given(folder, args, lines):
    recording(folder, does=f"say {PROPOSAL}")
    shown = run("meeting.wav", "--format", "vtt", *args).stdout.partition("<v SPEAKER_00>")[2]
    assert shown.strip().split("\n") == lines


def test_every_option_of_subtitles_is_a_flag_with_its_range_and_default():
    flags = {flag.name: flag for flag in subtitle_flags(lambda: None).__click_params__}
    assert set(flags) == {"subtitle_preset", *(f"subtitle_{name}" for name in SubtitleOptions.__dataclass_fields__)} - {
        "subtitle_closed_pause"
    }
    for name, allowed in RANGES.items():
        expected = f"{allowed.minimum} to {allowed.maximum}; {getattr(SubtitleOptions(), name):g} without a preset"
        assert expected in flags[f"subtitle_{name}"].help
    assert {"preset": get_args(PresetName), "labels": get_args(LabelMode), "dashes": get_args(DashStyle)} == CHOICES


def test_flags_of_subtitles_reach_the_options():
    @click.command
    @subtitle_flags
    def show():
        click.echo(repr(sorted(subtitle_values().items())))

    args = ("--subtitle-gap", "0.5", "--subtitle-reading-speed", "9", "--subtitle-max-lines", "3")
    expected = [("gap", 0.5), ("max_lines", 3), ("reading_speed", 9.0)]
    assert CliRunner().invoke(show, args).stdout.strip() == repr(expected)
    assert CliRunner().invoke(show, ()).stdout.strip() == "[]"


@pytest.mark.parametrize(("value", "first"), [("always", "SPEAKER_00: The"), ("never", "The committee")])
def test_speakers_can_be_left_out_of_subtitles(folder, value, first):
    recording(folder, does=f"say {PROPOSAL}")
    shown = run("meeting.wav", "-f", "srt", "--subtitle-labels", value).stdout
    assert shown.split("\n")[2].startswith(first)


def test_several_formats_go_into_the_current_folder(folder):
    recording(folder / "sub", "board.meeting.wav")
    result = run("sub/board.meeting.wav", "-f", "json, RTTM,json")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert names(folder) == ["board.meeting.json", "board.meeting.rttm", "sub"]
    assert json.loads((folder / "board.meeting.json").read_text())["conversation"][0]["text"] == "Hello."


@pytest.mark.parametrize(
    ("stem", "written"), [("a" * 251, "a" * 250), ("a" + "é" * 125, "a" + "é" * 124), ("a" * 250, "a" * 250)]
)
def test_a_long_name_is_shortened_to_leave_room_for_the_extension(folder, stem, written):
    recording(folder, f"{stem}.wav")
    result = run(f"{stem}.wav", "-f", "json,txt", "-o", "out")
    assert (result.exit_code, names(folder / "out")) == (0, [f"{written}.json", f"{written}.txt"])


def test_recordings_whose_shortened_names_are_the_same_are_refused(folder):
    files = [recording(folder, f"{'a' * 250}{i}.wav").name for i in range(2)]
    result = run(*files, "-f", "json")
    assert result.exit_code == 2
    assert "would both be written to" in result.stderr


def test_several_recordings_take_one_engine(folder):
    recording(folder, "a.wav", "say A.")
    recording(folder, "b.mp3", "say B.")
    engine = FakeEngine()
    result = run("a.wav", "b.mp3", "--output", "out/deep", engine=engine)
    assert (result.exit_code, engine.loads) == (0, 1)
    assert names(folder / "out" / "deep") == ["a.txt", "b.txt"]
    assert (folder / "out/deep/b.txt").read_text() == "[00:00:00.000] SPEAKER_00: B.\n"


def test_files_get_the_permissions_that_the_user_gives_new_files(folder):
    recording(folder)
    before = os.umask(0o027)
    try:
        run("meeting.wav", "-o", ".")
    finally:
        os.umask(before)
    assert (folder / "meeting.txt").stat().st_mode & 0o777 == 0o640


def test_options_arrive(folder):
    recording(folder)
    engine = FakeEngine()
    args = ("--min-speakers", 2, "--max-speakers", 4, "--language", "DE", "--offline")
    assert run("meeting.wav", *args, engine=engine).exit_code == 0
    assert engine.requests[0][1] == TranscribeOptions(SpeakerHints(None, 2, 4), "de", "mix")
    assert engine.offline is True
    assert run("meeting.wav", "--channels", "separate", "--force", engine=engine).exit_code == 0
    assert engine.requests.pop()[1] == TranscribeOptions(SpeakerHints(), None, "separate")
    assert run("meeting.wav", "--channels", "auto", "--num-speakers", 2, "--force", engine=engine).exit_code == 0
    assert engine.requests.pop()[1] == TranscribeOptions(SpeakerHints(2), None, "auto")
    assert run("meeting.wav", "--track", "2", "--partial", "accept", "--force", engine=engine).exit_code == 0
    assert engine.requests.pop()[1] == TranscribeOptions(track=2, partial="accept")
    refused = run("meeting.wav", "--channels", "separate", "--num-speakers", 2, "--force", engine=engine)
    assert refused.exit_code == 2
    assert "channels" in refused.stderr
    run("meeting.wav", "--num-speakers", 3, engine=engine)
    assert engine.requests[1][1] == TranscribeOptions(SpeakerHints(3), None, "mix")
    run("meeting.wav", "--language", "German", engine=engine)
    assert engine.requests[2][1].language == "de"
    assert engine.offline is False


def test_words(folder):
    recording(folder)
    segments = json.loads(run("meeting.wav", "--format", "json", "--words").stdout)["conversation"]
    assert segments[0]["words"][0]["speaker_confidence"] == 0.8


def test_details(folder):
    recording(folder)
    said = json.loads(run("meeting.wav", "--format", "json", "--details").stdout)
    assert (said["diarizer"], said["recognizer"], said["device"]) == ("guess", "model", "cpu")
    assert "words" not in said["conversation"][0]
    run("meeting.wav", "--format", "json,srt", "--details")
    assert json.loads((folder / "meeting.json").read_text()) == said
    assert (folder / "meeting.srt").read_text().startswith("1\n")


def test_the_engine_can_be_chosen_and_comes_before_the_environment(folder, monkeypatch):
    recording(folder)
    monkeypatch.setenv("ENGINE", "nemo")
    engine = FakeEngine()
    assert run("meeting.wav", engine=engine).exit_code == 0
    assert (engine.settings.engine, engine.settings.diarizer_name) == ("nemo", "auto")
    chosen = ("--engine", "embedded", "--diarizer", "sortformer", "--recognizer", "onnx")
    assert run("meeting.wav", *chosen, engine=engine).exit_code == 0
    settings = engine.settings
    assert (settings.engine, settings.diarizer, settings.recognizer) == ("embedded", "sortformer", "onnx")
    monkeypatch.setenv("MODEL", "base.en")
    assert run("meeting.wav", "--model", "large-v3-turbo", engine=engine).exit_code == 0
    assert engine.settings.model == "large-v3-turbo"


def test_what_can_be_chosen_is_what_there_is():
    assert set(engine_options.DIARIZERS) == set(registry.DIARIZERS)
    assert set(engine_options.RECOGNIZERS) == set(registry.RECOGNIZERS)
    assert get_args(Settings.model_fields["engine"].annotation) == engine_options.ENGINES


def test_serve_takes_the_same_choices(monkeypatch):
    given: list[Settings] = []
    monkeypatch.setattr(serving, "serve", given.append)
    args = ("serve", "--engine", "nemo", "--diarizer", "clustering", "--recognizer", "whisper", "--port", "0")
    assert CliRunner().invoke(main, (*args, "--model", "small")).exit_code == 0
    (settings,) = given
    assert settings.model == "small"
    assert (settings.engine, settings.diarizer, settings.recognizer) == ("nemo", "clustering", "whisper")
    assert CliRunner().invoke(main, ("serve", "--diarizer", "pyannote")).exit_code == 2


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "Missing argument 'FILE...'"),
        (("absent.wav", "missing.wav"), "absent.wav: no such file; missing.wav: no such file"),
        ((f"{'a' * 252}.wav",), "aaa.wav: File name too long"),
        (("meeting.wav", "--output", "a" * 256), "aaa/meeting.txt: File name too long"),
        (("there",), "there is a folder: give the recordings in it"),
        (("meeting.wav", "--format", "docx"), "must be one of json, txt, srt, vtt, rttm, not 'docx'"),
        (("meeting.wav", "--format", ""), "must be one of"),
        (("meeting.wav", "--words"), "--words needs --format json"),
        (("meeting.wav", "--format", "srt,txt", "--details"), "--details needs --format json"),
        (("meeting.wav", "--subtitle-preset", "bbc"), "--subtitle-preset needs --format srt or vtt"),
        (("meeting.wav", "--subtitle-max-chars", "30"), "--subtitle-max-chars needs --format srt or vtt"),
        (("meeting.wav", "-f", "srt", "--subtitle-gap", "3"), "subtitle_gap must be a number from 0 to 2, not 3.0"),
        (("meeting.wav", "-f", "srt", "--subtitle-gap", "nan"), "subtitle_gap must be a number from 0 to 2, not nan"),
        (("meeting.wav", "-f", "srt", "--subtitle-labels", "no"), "'no' is not one of 'always', 'changes', 'never'"),
        (
            ("meeting.wav", "-f", "srt", "--subtitle-min-duration", "9"),
            "subtitle_min_duration (9) is above subtitle_max_duration (7)",
        ),
        (("meeting.wav", "-f", "srt", "--subtitle-preset", "arte"), "'arte' is not one of 'netflix', 'bbc'"),
        (("meeting.wav", "-f", "vtt", "--subtitle-max-chars", "5"), "must be a whole number from 20 to 200, not 5"),
        (("meeting.wav", "-f", "vtt", "--subtitle-max-lines", "0"), "must be a whole number from 1 to 4, not 0"),
        (("meeting.wav", "--engine", "magic"), "'magic' is not one of 'embedded', 'nemo'"),
        (("meeting.wav", "--num-speakers", "0"), "num_speakers must be a whole number from 1 to 100, not 0"),
        (("meeting.wav", "--num-speakers", "1.5"), "'1.5' is not a valid integer"),
        (("meeting.wav", "--num-speakers", "1000000000"), "from 1 to 100"),
        (("meeting.wav", "--min-speakers", "3", "--max-speakers", "2"), "min_speakers (3) is above max_speakers (2)"),
        (("meeting.wav", "--num-speakers", "5", "--max-speakers", "2"), "num_speakers contradicts"),
        (("meeting.wav", "--language", "Klingon"), "language must be a code or tag such as en"),
        (("meeting.wav", "--track", "0"), "track must be the number of an audio track, from 1, or one of default"),
        (("meeting.wav", "--track", "-1"), "not '-1'"),
        (("meeting.wav", "--track", "1.5"), "not '1.5'"),
        (("meeting.wav", "--track", "two"), "not 'two'"),
        (("meeting.wav", "--track", ""), "not ''"),
        (("meeting.wav", "--track", "all", "--channels", "separate"), "track=all mixes the channels"),
        (("meeting.wav", "--track", "all", "--num-speakers", "2"), "track=all makes each audio track one speaker"),
        (("meeting.wav", "--partial", "yes"), "'yes' is not one of 'refuse', 'accept'"),
        (("meeting.wav", "--channels", "left"), "'left' is not one of 'mix', 'separate', 'auto'"),
        (("meeting.wav", "there/meeting.mp3"), "would both be written to meeting.txt"),
        (("-", "-", "-f", "json"), "would both be written to stdin.json"),
        (("meeting.wav", "--output", "meeting.wav"), "--output meeting.wav cannot be used as a folder"),
        (("meeting.wav", "--output", "taken"), "taken/meeting.txt: already exists"),
        (("meeting.wav", "--output", "folders"), "folders/meeting.txt is a folder"),
        (("speech.txt", "--output", ".", "--force"), "speech.txt is a recording itself"),
        (("meeting.wav", "--beside", "--output", "."), "--output and --beside cannot be combined"),
        (("-", "--beside"), "standard input is in no folder: use --output"),
        (("meeting.wav", "there/../meeting.wav", "--beside"), "would both be written to there/../meeting.txt"),
        (("meeting.wav", "--skip-existing", "--force"), "--force and --skip-existing cannot be combined"),
        (("meeting.wav", "--output", "folders", "--skip-existing"), "folders/meeting.txt is a folder"),
        (("speech.txt", "--skip-existing"), "speech.txt is a recording itself"),
        (("meeting.wav", "--frobnicate"), "No such option"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(folder, args, says):
    recording(folder)
    recording(folder / "there", "meeting.mp3")
    recording(folder / "taken", "meeting.txt")
    recording(folder, "speech.txt")
    (folder / "folders" / "meeting.txt").mkdir(parents=True)
    before = sorted(folder.rglob("*"))
    engine = FakeEngine()
    result = run(*args, engine=engine)
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())
    assert (result.stdout, engine.loads) == ("", 0)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("flag", ["--force", "--overwrite"])
def test_force_replaces(folder, flag):
    recording(folder)
    (folder / "meeting.txt").write_text("old")
    assert run("meeting.wav", "-o", ".").exit_code == 2
    assert (folder / "meeting.txt").read_text() == "old"
    assert run("meeting.wav", "-o", ".", flag).exit_code == 0
    assert (folder / "meeting.txt").read_text() == "[00:00:00.000] SPEAKER_00: Hello.\n"


def test_beside_writes_into_the_folder_of_each_recording(folder):
    files = [recording(folder / sub, "meeting.wav", f"say {sub}.") for sub in ("a", "b")]
    assert run(*files, "--beside").exit_code == 0
    for file in files:
        assert file.with_suffix(".txt").read_text() == f"[00:00:00.000] SPEAKER_00: {file.parent.name}.\n"
    assert run(files[0], "--beside", "-f", "json").exit_code == 0
    assert names(folder / "a") == ["meeting.json", "meeting.txt", "meeting.wav"]


class TestSkipExisting:
    def test_a_batch_is_resumed(self, folder):
        for name in "abc":
            recording(folder, f"{name}.wav", f"say {name}.")
        (folder / "a.txt").write_text("old a")
        (folder / "a.json").write_text("{}")
        (folder / "b.txt").write_text("old b")
        engine = FakeEngine()
        result = run("a.wav", "b.wav", "c.wav", "-f", "txt,json", "--skip-existing", engine=engine)
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr == "diarist: a.wav: skipped, because its transcripts exist\n"
        assert [path.name for path, _ in engine.requests] == ["b.wav", "c.wav"]
        assert ((folder / "a.txt").read_text(), (folder / "b.txt").read_text()) == ("old a", "old b")
        assert json.loads((folder / "b.json").read_text())["conversation"][0]["text"] == "b."
        assert names(folder) == [f"{name}.{extension}" for name in "abc" for extension in ("json", "txt", "wav")]

    def test_no_engine_is_loaded_if_nothing_is_left(self, folder):
        recording(folder)
        engine = FakeEngine(available=False)
        (folder / "meeting.txt").write_text("old")
        result = run("meeting.wav", "--skip-existing", engine=engine)
        assert (result.exit_code, engine.loads) == (0, 0)

    def test_one_recording_goes_to_a_file_too(self, folder):
        recording(folder)
        result = run("meeting.wav", "--skip-existing")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
        assert names(folder) == ["meeting.txt", "meeting.wav"]


def test_one_bad_recording_does_not_stop_the_others(folder):
    recording(folder, "a.wav", "refuse")
    recording(folder, "b.wav", "break")
    recording(folder, "c.wav", "say C.")
    result = run("a.wav", "b.wav", "c.wav")
    assert result.exit_code == 1
    assert result.stdout == ""
    broken, fault = result.stderr.splitlines()
    assert broken == "diarist: a.wav: the recording ends\N{REPLACEMENT CHARACTER}after 2 of 9 s: copy it again"
    assert fault == "diarist: b.wav: this is a bug in diarist (KeyError: 'lost'); -v shows where"
    assert names(folder) == ["a.wav", "b.wav", "c.txt", "c.wav"]


def test_a_transcript_that_cannot_be_written_is_a_failure_and_leaves_no_part_of_it(folder):
    recording(folder, "a.wav", f"occupy {folder / 'a.txt'}")
    recording(folder, "b.wav")
    result = run("a.wav", "b.wav", "--force")
    assert result.exit_code == 1
    assert result.stderr.startswith("diarist: a.wav: a.txt cannot be written: ")
    assert names(folder) == ["a.txt", "a.wav", "b.txt", "b.wav"]


def test_a_file_that_appears_while_the_work_runs_is_not_replaced(folder):
    recording(folder, "a.wav", f"occupy {folder / 'a.txt'}")
    result = run("a.wav", "-o", ".")
    assert result.exit_code == 1
    assert "a.txt was created in the meantime" in result.stderr
    assert names(folder) == ["a.txt", "a.wav"]


def test_no_engine(folder):
    recording(folder)
    result = run("meeting.wav", engine=FakeEngine(available=False))
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "diarist: the engine cannot be loaded: free some memory\n"


def test_a_model_that_goes_missing_stops_all(folder):
    recording(folder, "a.wav", "models")
    recording(folder, "b.wav")
    result = run("a.wav", "b.wav")
    assert (result.exit_code, result.stderr) == (3, "diarist: campplus is missing: run `diarist models pull`\n")


def test_an_option_that_the_model_refuses(folder):
    recording(folder, does="option")
    result = run("meeting.wav", "--language", "xx")
    assert (result.exit_code, result.stderr) == (2, "diarist: language must be one that the model knows, not 'xx'\n")


def test_a_setting_that_cannot_be_used(folder, monkeypatch):
    recording(folder)
    monkeypatch.setenv("MAX_DURATION_S", "soon")
    engine = FakeEngine()
    result = run("meeting.wav", engine=engine)
    assert (result.exit_code, engine.loads) == (2, 0)
    assert result.stderr.startswith("diarist: Invalid settings: MAX_DURATION_S: ")
    assert result.stderr.count("\n") == 1


def test_standard_input(folder, monkeypatch):
    spool = folder / "spool"
    spool.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spool))
    engine = FakeEngine()
    result = run("-", "-f", "rttm", engine=engine, stdin="say Hi.")
    assert (result.exit_code, result.stdout.split()[1]) == (0, "stdin")
    assert engine.requests[0][0].parent == spool
    assert names(spool) == []


def test_a_name_cannot_drive_the_terminal(folder):
    name = "a\x1b[31m\n[bold]2026 ERROR forged.wav"
    recording(folder, name, "refuse")
    result = run(name)
    assert result.exit_code == 1
    assert result.stderr.startswith("diarist: a\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}[bold]2026 ERROR")
    assert result.stderr.count("\n") == 1


def test_verbose_reports_the_stages_and_the_traceback_of_an_error(folder, caplog):
    recording(folder, "a.wav", "break")
    recording(folder, "b.wav")
    result = run("a.wav", "b.wav", "-v")
    done = "b.wav: 1.0 s, 1 speaker in en; took 1.8 s by guess and model on cpu\n"
    assert f"b.wav: segmentation (50%)\nb.wav: written to b.txt\n{done}" in result.stderr
    assert any(record.exc_info and record.exc_info[0] is KeyError for record in caplog.records)
