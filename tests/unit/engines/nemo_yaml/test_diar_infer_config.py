"""Configurations of clustering: those that come with Diarist, those that users have, and those that cannot be."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from diarist.engines.multiscale.binarization import Binarization
from diarist.engines.nemo_yaml import diar_infer_config
from diarist.engines.nemo_yaml.diar_infer_config import SCHEMA, ScaleConfig, read_config
from diarist.engines.nemo_yaml.yaml_file import shipped_folder
from diarist.errors import ConfigurationError
from diarist.settings import load_settings
from support.strategies import patient

SHIPPED = ("meeting", "telephonic", "general")
MIN = {
    "diarizer": {
        "vad": {"model_path": "vad_multilingual_marblenet"},
        "speaker_embeddings": {"model_path": "titanet_large"},
    }
}


@pytest.fixture
def read(tmp_path):
    """Reads a configuration that is given as text or as what YAML makes of it."""

    def read(content):
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        (tmp_path / "diar_infer_own.yaml").write_text(text, encoding="utf-8")
        return read_config(load_settings(model_config_dir=tmp_path, diar_config="own"))

    return read


def changed(path, value):
    """The least configuration with one key, by its path, set."""
    content = yaml.safe_load(yaml.safe_dump(MIN))
    at = content
    *above, name = path.split(".")
    for key in above:
        at = at.setdefault(key, {})
    at[name] = value
    return content


@pytest.mark.parametrize("name", SHIPPED)
def test_those_that_come_with_diarist_are_found_where_no_folder_is(name, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    diar_infer_config._warn_without_effect.cache_clear()
    config = read_config(load_settings(diar_config=name))
    assert config.asr_model == "nvidia/parakeet-tdt-0.6b-v3"
    assert [scale.weight for scale in config.speaker_embeddings.scales] == [1.0] * len(config.speaker_embeddings.scales)
    assert all(scale.shift == scale.window / 2 for scale in config.speaker_embeddings.scales)
    assert caplog.records == []


def test_the_published_values_are_kept():
    meeting, telephonic, general = (
        read_config(load_settings(diar_config=name, model_config_dir=shipped_folder())) for name in SHIPPED
    )
    assert [scale.window for scale in meeting.speaker_embeddings.scales] == [3.0, 2.5, 2.0, 1.5, 1.0, 0.5]
    assert [scale.window for scale in telephonic.speaker_embeddings.scales] == [1.5, 1.25, 1.0, 0.75, 0.5]
    assert [scale.window for scale in general.speaker_embeddings.scales] == [1.9, 1.2, 0.5]
    assert general.vad.binarization == Binarization(0.5, 0.3, 0.2, 0.2, 0.5, 0.5)
    assert (telephonic.vad.window, telephonic.vad.smoothing) == (0.15, "median")
    assert [config.clustering.sparse_search_volume for config in (meeting, telephonic, general)] == [30, 30, 10]
    assert {config.clustering.max_num_speakers for config in (meeting, telephonic, general)} == {8}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_key_that_is_known_is_in_each_with_a_comment(name):
    text = (shipped_folder() / f"diar_infer_{name}.yaml").read_text(encoding="utf-8")

    def keys(schema):
        for key, below in schema.items():
            yield key
            if isinstance(below, dict):
                yield from keys(below)

    since_dropped = {"map_location", "scale", "normalize_audio", "export_script_module", "lenient_overlap_WDER"}
    for key in set(keys(SCHEMA)) - since_dropped - {"msdd_model"}:
        assert f"{key}:" in text, key
    assert "msdd_model" in text


def test_a_file_as_nemo_has_always_had_them_works(read, caplog):
    diar_infer_config._warn_without_effect.cache_clear()
    text = """
name: &name "ClusterDiarizer"
num_workers: 1
sample_rate: 16000
batch_size: 32
device: null
map_location: null
verbose: True
diarizer:
  manifest_filepath: ???
  out_dir: ???
  oracle_vad: False
  collar: 0.25
  ignore_overlap: True
  vad:
    model_path: vad_multilingual_marblenet
    external_vad_manifest: null
    parameters: {window_length_in_sec: 0.15, shift_length_in_sec: 0.01, smoothing: "median", overlap: 0.5, onset: 0.1,
      offset: 0.2, pad_onset: 0.1, pad_offset: 0, min_duration_on: 0, min_duration_off: 0.2, filter_speech_first: True}
  speaker_embeddings:
    model_path: titanet_large
    parameters: {window_length_in_sec: [0.5, 1.5], shift_length_in_sec: [0.25, 0.75], multiscale_weights: [1, 0.5],
      save_embeddings: True}
  clustering:
    parameters: {oracle_num_speakers: False, max_num_speakers: 12, enhanced_count_thres: 80, max_rp_threshold: 0.25,
      sparse_search_volume: 30, maj_vote_spk_count: True}
  msdd_model:
    model_path: diar_msdd_telephonic
    parameters: {use_speaker_model_from_ckpt: True, infer_batch_size: 25, sigmoid_threshold: [0.7], split_infer: True}
  asr:
    model_path: stt_en_citrinet_1024
    parameters: {asr_based_vad: False, asr_batch_size: null, word_ts_anchor_pos: "start"}
"""
    config = read(text)
    assert config.batch_size == 32
    assert config.vad.binarization == Binarization(0.1, 0.2, 0.1, 0.0, 0.0, 0.2)
    assert config.vad.smoothing == "median"
    assert config.speaker_embeddings.scales == (ScaleConfig(1.5, 0.75, 0.5), ScaleConfig(0.5, 0.25, 1.0))
    assert config.clustering.max_num_speakers == 12
    assert config.clustering.maj_vote_spk_count is True
    assert config.asr_model == "stt_en_citrinet_1024"
    read(text)
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1
    assert "msdd_model has no effect" in said[0]


def test_one_scale_may_be_written_as_numbers(read):
    content = changed("diarizer.speaker_embeddings.parameters", {
        "window_length_in_sec": 2, "shift_length_in_sec": 1, "multiscale_weights": None,
    })  # fmt: skip
    assert read(content).speaker_embeddings.scales == (ScaleConfig(2.0, 1.0, 1.0),)


def test_a_path_is_meant_from_where_the_file_lies(read, tmp_path):
    assert read(changed("diarizer.vad.model_path", "models/own.nemo")).vad.model == str(tmp_path / "models/own.nemo")
    assert read(changed("diarizer.vad.model_path", "/models/own.nemo")).vad.model == "/models/own.nemo"
    assert read(changed("diarizer.asr.model_path", "own.nemo")).asr_model == str(tmp_path / "own.nemo")


def test_a_value_may_stand_for_another(read):
    content = changed("diarizer.asr.model_path", "stt_${name}_large")
    content["name"] = "en_citrinet"
    content["diarizer"]["vad"]["parameters"] = {"onset": 0.7, "offset": "${diarizer.vad.parameters.onset}"}
    config = read(content)
    assert config.asr_model == "stt_en_citrinet_large"
    assert config.vad.binarization.offset == 0.7


INVALID_FILES = [
    (
        "diarizer.vad.paramters",
        {},
        r"diarizer\.vad\.paramters is unknown: the most similar key is diarizer\.vad\.parameters",
    ),
    (
        "diarizer.clustering.parameters.max_speakers",
        3,
        r"max_speakers is unknown: the most similar key is .*max_num_speakers",
    ),
    ("diarizer.onset", 0.5, r"it belongs at diarizer\.vad\.parameters\.onset"),
    ("diarizer.asr.parameters.qqq", 1, r"qqq is unknown: the keys here are asr_based_vad"),
    ("diarizer.vad.model_path", None, r"model_path is null: it must be a model"),
    ("diarizer.vad.model_path", 7, r"model_path is 7: it must be a name or a path"),
    ("diarizer.vad.model_path", "???", r"model_path is \?\?\?"),
    ("diarizer.vad", None, r"diarizer\.vad\.model_path is missing: give the name"),
    ("diarizer.vad", "x", r"diarizer\.vad is text: it must have keys of its own: model_path"),
    ("diarizer.vad.parameters.onset", 1.5, r"onset is 1\.5: it must be a number from 0 to 1"),
    ("diarizer.vad.parameters.onset", "0.5", r"onset is '0\.5': it must be a number"),
    ("diarizer.vad.parameters.onset", True, r"onset is True: it must be a number"),
    ("diarizer.vad.parameters.onset", float("nan"), r"onset is nan"),
    ("diarizer.vad.parameters.min_duration_off", float("inf"), r"min_duration_off is inf"),
    ("diarizer.vad.parameters.smoothing", True, r"smoothing is True: it must be false or 'median' or 'mean'"),
    ("diarizer.vad.parameters.shift_length_in_sec", 0, r"it must be a number above 0"),
    ("diarizer.vad.parameters.scale", "relative", r"scale is 'relative': it must be 'absolute'"),
    ("sample_rate", 8000, r"sample_rate is 8000: it must be 16000"),
    ("batch_size", 0, r"batch_size is 0: it must be an integer"),
    ("batch_size", 2.5, r"batch_size is 2\.5: it must be an integer"),
    ("batch_size", "${nothing}", r"refers to \$\{nothing\}, which is not a key of this file"),
    ("batch_size", "${oc.env:HOME}", r"refers to \$\{oc\.env:HOME\}, which is not a key of this file"),
    ("batch_size", "${batch_size}", r"refers back to itself"),
    ("diarizer.asr.model_path", "${a${b}}", r"is not a key of this file|cannot be resolved"),
    ("diarizer.clustering.parameters.max_num_speakers", 101, r"it must be an integer from 1 to 100"),
    (
        "diarizer.clustering.parameters",
        {"chunk_cluster_count": 200, "embeddings_per_chunk": 200},
        r"chunk_cluster_count is 200: it must be below embeddings_per_chunk, 200",
    ),
    (
        "diarizer.speaker_embeddings.parameters",
        {"window_length_in_sec": [1.5, 1], "shift_length_in_sec": [0.75], "multiscale_weights": [1, 1]},
        r"has 2 values of window_length_in_sec, 1 of shift_length_in_sec and 2 of multiscale_weights",
    ),
    (
        "diarizer.speaker_embeddings.parameters",
        {"window_length_in_sec": 1, "shift_length_in_sec": 2},
        r"a shift longer than its window",
    ),
    (
        "diarizer.speaker_embeddings.parameters",
        {"window_length_in_sec": [1, 1], "shift_length_in_sec": [0.5, 0.4]},
        r"contains a length twice",
    ),
    (
        "diarizer.speaker_embeddings.parameters",
        {"window_length_in_sec": 1, "shift_length_in_sec": 0.5, "multiscale_weights": [0]},
        r"0 for every scale",
    ),
    ("diarizer.speaker_embeddings.parameters", {"window_length_in_sec": []}, r"it must be at least one number"),
    (
        "diarizer.vad.parameters",
        {"window_length_in_sec": 0.15, "shift_length_in_sec": 0.1, "smoothing": "mean", "overlap": 0.9},
        r"overlap is 0\.9: with this overlap windows",
    ),
]


@pytest.mark.parametrize(("key", "value", "message"), INVALID_FILES)
def test_what_cannot_be_is_named_with_its_file_and_key(read, tmp_path, key, value, message):
    with pytest.raises(ConfigurationError, match=message) as raised:
        read(changed(key, value))
    assert str(tmp_path / "diar_infer_own.yaml") in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not valid YAML"),
        ("- a\n- b", "contains a list"),
        ("", "contains nothing"),
        ("just words", "contains text"),
        ("a: !!python/object/apply:os.getcwd []", "is not valid YAML"),
        ("a: 2024-13-45", "is not valid YAML"),
        ("[" * 5_000, "is not valid YAML"),
    ],
)
def test_what_is_no_configuration_at_all(read, text, message):
    with pytest.raises(ConfigurationError, match=message):
        read(text)


def test_what_is_no_text(tmp_path):
    (tmp_path / "diar_infer_own.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ConfigurationError, match="cannot be read as UTF-8"):
        read_config(load_settings(model_config_dir=tmp_path, diar_config="own"))


def test_a_file_that_is_not_there_tells_which_are(tmp_path, monkeypatch):
    (tmp_path / "diar_infer_own.yaml").touch()
    with pytest.raises(ConfigurationError, match=r"no diar_infer_other\.yaml in .*: set DIAR_CONFIG to .*: own\."):
        read_config(load_settings(model_config_dir=tmp_path, diar_config="other"))
    with pytest.raises(ConfigurationError, match="is not a folder"):
        read_config(load_settings(model_config_dir=tmp_path / "nowhere"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="general, meeting, telephonic"):
        read_config(load_settings(diar_config="other"))


def test_a_folder_that_is_set_is_all_there_is(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no diar_infer_meeting\.yaml in .*: create it\."):
        read_config(load_settings(model_config_dir=tmp_path))


def test_a_file_in_the_default_folder_comes_before_the_one_that_comes_with_diarist(tmp_path, monkeypatch):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "diar_infer_meeting.yaml").write_text(yaml.safe_dump(changed("batch_size", 3)))
    monkeypatch.chdir(tmp_path)
    assert read_config(load_settings()).batch_size == 3
    assert read_config(load_settings(diar_config="general")).batch_size == 64


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=5,
)


def paths(schema, above=""):
    for key, below in schema.items():
        yield f"{above}{key}"
        if isinstance(below, dict):
            yield from paths(below, f"{above}{key}.")


@given(st.sampled_from(sorted(paths(SCHEMA))), anything)
@patient
def test_a_value_of_any_kind_is_taken_or_refused_in_words(tmp_path_factory, key, value):
    folder: Path = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    (folder / "diar_infer_own.yaml").write_text(yaml.safe_dump(changed(key, value)), encoding="utf-8")
    try:
        config = read_config(load_settings(model_config_dir=folder, diar_config="own"))
    except ConfigurationError as error:
        named = str(error)
    else:
        assert config.speaker_embeddings.scales
        named = config.vad.model and "diar_infer_own.yaml"
    assert "diar_infer_own.yaml" in named
