"""What a Sortformer configuration may say, and what is said of one that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from diarist.engines.multiscale.binarization import Binarization
from diarist.engines.nemo_yaml.sortformer_config import SortformerConfig, StreamingConfig, read_config
from diarist.errors import ConfigurationError
from diarist.settings import load_settings

CONF = Path(__file__).parents[4] / "conf"

NEMO_FILE = """\
# as NeMo's own post-processing files are
parameters:
  onset: 0.53  # start
  offset: 0.49
  pad_onset: 0.23
  pad_offset: 0.01
  min_duration_on: 0.42
  min_duration_off: 0.34
"""


def read(folder: Path, text: str) -> SortformerConfig:
    (folder / "sortformer_own.yaml").write_text(text, encoding="utf-8")
    return read_config(load_settings(model_config_dir=folder, sortformer_config="own"))


@pytest.mark.parametrize(
    ("name", "binarization"),
    [
        ("callhome", Binarization(0.641, 0.561, 0.229, 0.079, 0.511, 0.296)),
        ("dihard3", Binarization(0.56, 1.0, 0.063, 0.002, 0.007, 0.151)),
    ],
)
def test_the_configurations_that_come_with_diarist(name, binarization):
    config = read_config(load_settings(model_config_dir=CONF, sortformer_config=name))
    assert config.binarization == binarization
    assert config.streaming == StreamingConfig(340, 1, 40, 40, 300, 188)


def test_they_are_found_wherever_diarist_is_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_config(load_settings()).binarization.onset == 0.641


def test_a_post_processing_file_of_nemos_works_as_it_is(tmp_path):
    config = read(tmp_path, NEMO_FILE)
    assert config.binarization == Binarization(0.53, 0.49, 0.23, 0.01, 0.42, 0.34)
    assert config.streaming == StreamingConfig()


def test_what_is_given_counts_and_the_rest_is_the_default(tmp_path):
    config = read(tmp_path, "parameters: {onset: 1}\nstreaming: {chunk_len: 6, chunk_right_context: 7}\n")
    assert config.binarization == Binarization(onset=1.0)
    assert isinstance(config.binarization.onset, float)
    assert config.streaming == StreamingConfig(chunk_len=6, chunk_right_context=7)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("parameters: {onsett: 0.5}", "parameters.onset"),
        ("parameters: {chunk_len: 340}", "streaming.chunk_len"),
        ("streaming: {spkcache_length: 188}", "streaming.spkcache_len"),
        ("paramters: {onset: 0.5}", "parameters"),
        ("parameters: {onset: 1.2}", "from 0 to 1"),
        ("parameters: {onset: high}", "'high'"),
        ("parameters: {onset: true}", "from 0 to 1"),
        ("parameters: {onset: .nan}", "from 0 to 1"),
        ("parameters: {min_duration_on: -1}", "from 0 to 60"),
        ("streaming: {chunk_len: 0}", "from 1 to 2000"),
        ("streaming: {chunk_len: 3.5}", "an integer"),
        ("streaming: {chunk_len: 100000}", "from 1 to 2000"),
        ("parameters: [0.5]", "parameters"),
        ("just words", "text"),
        ("parameters: {onset: 0.5", "YAML"),
    ],
)
def test_what_cannot_be_used_is_named_with_what_could(tmp_path, text, said):
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, text)
    assert "sortformer_own.yaml" in str(caught.value)
    assert said in str(caught.value)


def test_a_file_that_is_not_there_lists_those_that_are():
    with pytest.raises(ConfigurationError, match=r"SORTFORMER_CONFIG.*callhome, dihard3"):
        read_config(load_settings(model_config_dir=CONF, sortformer_config="nowhere"))
