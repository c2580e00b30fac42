"""``diarist evaluate`` with a fake engine, and with existing transcripts."""

from __future__ import annotations

import json
import os

import pytest
from click.testing import CliRunner

from diarist.cli import main
from diarist.types import SpeakerHints
from unit.cli.fake_engine import FakeEngine

pytestmark = pytest.mark.bench

RTTM = "SPEAKER call 1 0 0.5 <NA> <NA> ann <NA> <NA>\n"


def run(*args, engine=None):
    engine = engine or FakeEngine()
    result = CliRunner().invoke(main, ["evaluate", *map(str, args)], obj=engine.load)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def reference(folder, name="call", does="say Hello there.", text="hello there"):
    (folder / f"{name}.wav").write_text(does)
    (folder / f"{name}.rttm").write_text(RTTM)
    (folder / f"{name}.stm").write_text(f"{name} 1 ann 0 0.5 {text}\n")


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_each_recording_and_all_of_them(folder):
    reference(folder)
    reference(folder, "worse", text="good bye now then")
    result = run(".")
    assert (result.exit_code, result.stderr) == (0, "")
    head, _, call, worse, pooled, _, *worst = map(str.strip, result.stdout.splitlines())
    assert cells(call)[:11] == ["call", "0.0", "-", *["0.0"] * 4, "1 of 1", *["0.0"] * 3]
    by_name = dict(zip(cells(head), cells(worse), strict=True))
    assert (by_name["WER"], by_name["speakers"]) == ("100.0", "1 of 1")
    by_name = dict(zip(cells(head), cells(pooled), strict=True))
    assert (by_name["recording"], by_name["WER"], by_name["speakers"]) == ("pooled", "66.7", "2 right of 2")
    assert worst == ["worst by DER: call (0.0)", "worst by cpWER: worse (100.0)"]


def test_counts_and_rates_as_json(folder):
    reference(folder)
    result = run(".", "--json", "-")
    told = json.loads(result.stdout)
    assert set(told) == {"language", "recordings", "pooled"}
    assert told["recordings"]["call"]["words"] == 2
    assert told["pooled"]["der"] == 0
    assert run(".", "--json", "scores.json").stdout.startswith("| recording")
    written = json.loads((folder / "scores.json").read_text())
    assert written["recordings"].keys() == {"call"}


def test_options_reach_the_engine(folder):
    reference(folder)
    engine = FakeEngine()
    run(
        ".",
        "--known-speakers",
        "--language",
        "DE",
        "--diarizer",
        "onnx",
        "--offline",
        "--model",
        "small",
        engine=engine,
    )
    ((_, options),) = engine.requests
    assert (options.hints, options.language) == (SpeakerHints(1), "de")
    assert (engine.settings.diarizer, engine.offline, engine.loads) == ("onnx", True, 1)
    assert engine.settings.model == "small"
    run(".", "--language", "auto", engine=engine)
    assert (engine.requests[-1][1].hints, engine.requests[-1][1].language) == (SpeakerHints(), None)


def test_one_failure_leaves_the_others(folder):
    reference(folder)
    reference(folder, "damaged", does="refuse")
    result = run(".")
    assert result.exit_code == 1
    assert result.stderr.startswith("diarist: damaged: the recording ends")
    assert "| call" in result.stdout
    (folder / "call.wav").write_text("refuse")
    result = run(".")
    assert (result.exit_code, result.stdout) == (2, "")


def test_transcripts_that_are_there(folder):
    reference(folder)
    (folder / "call.wav").unlink()
    made = folder / "made"
    made.mkdir()
    result = run(".", "--transcripts", "made")
    assert result.exit_code == 2
    assert "has neither call.rttm nor call.json" in result.stderr
    said = {"speaker": "x", "start_time": 0, "end_time": 0.5, "text": "Hello there."}
    (made / "call.json").write_text(json.dumps({"conversation": [said], "duration": 2}))
    engine = FakeEngine()
    told = json.loads(run(".", "--transcripts", "made", "--json", "-", engine=engine).stdout)["pooled"]
    assert (told["der"], told["cpwer"], told["seconds"], engine.loads) == (0, 0, 2, 0)
    (made / "call.rttm").write_text("SPEAKER call 1 0 0.25 <NA> <NA> x <NA> <NA>\n")
    told = json.loads(run(".", "--transcripts", "made", "--json", "-").stdout)["pooled"]
    assert (told["der"], told["cpwer"]) == (0.5, 0)
    (made / "call.json").unlink()
    told = json.loads(run(".", "--transcripts", "made", "--json", "-").stdout)["pooled"]
    assert (told["der"], told["wer"]) == (0.5, None)


@pytest.mark.parametrize("text", ["{}", "[]", '{"conversation": [{"speaker": "x"}]}', "no", '{"conversation": null}'])
def test_a_json_of_another_kind_is_named(folder, text):
    reference(folder)
    made = folder / "made"
    made.mkdir()
    (made / "call.json").write_text(text)
    result = run(".", "--transcripts", "made")
    assert result.exit_code == 2
    assert f"made{os.sep}call.json is not a JSON transcript of Diarist" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--service", "http://x", "--transcripts", "y"), "cannot be combined"),
        (("--service", "http://x", "--model", "small"), "have no effect with --service or --transcripts"),
        (("--transcripts", "y", "--engine", "nemo"), "have no effect with --service or --transcripts"),
        (("--transcripts", "y", "--known-speakers"), "has no effect with --transcripts"),
        (("--service", "localhost:5000"), "must be a URL such as"),
    ],
)
def test_options_that_cannot_be(folder, options, message):
    reference(folder)
    result = run(".", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_no_work_is_begun_without_references_or_recordings(folder):
    engine = FakeEngine()
    assert "contains no references" in run(".", engine=engine).stderr
    (folder / "call.rttm").write_text(RTTM)
    result = run(".", engine=engine)
    assert (result.exit_code, engine.loads) == (2, 0)
    assert "put call.wav into the folder of its reference" in result.stderr


def test_a_service_that_is_not_running_is_reported(folder):
    reference(folder)
    result = run(".", "--service", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "is `diarist serve` running there?" in result.stderr
