"""Every setting, once: typed, with its range and what it does. The only reader of the environment and of ``.env``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from diarist.errors import ConfigurationError

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diarist"


class Settings(BaseSettings):
    """Read from the environment, then from ``.env`` in the working directory; names are case-insensitive."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True, use_attribute_docstrings=True,
        env_ignore_empty=True, protected_namespaces=(),
    )  # fmt: skip

    flask_host: str = "127.0.0.1"
    """Address to listen on. The default is this machine alone; 0.0.0.0 is every network that it is in."""

    flask_port: int = Field(default=5000, ge=0, le=65_535)
    """Port to listen on; 0 takes a free one, which the log names."""

    flask_debug: bool = False
    """Log every request in detail. Errors never carry a stack trace to the caller, whatever this says."""

    http_threads: int = Field(default=32, ge=4, le=1_000)
    """Threads that answer requests. A waiting `POST /diarize` holds one of them."""

    max_waiting: int = Field(default=16, ge=1, le=900)
    """Recordings that may wait or be worked on at once; the next one is answered 503 with Retry-After."""

    log_level: LogLevel = "INFO"
    """Least severity that is logged: DEBUG, INFO, WARNING, ERROR or CRITICAL."""

    log_format: Literal["plain", "json"] = "plain"
    """How log lines are written: plain text, or one JSON object a line."""

    log_file: Path = Path("logs/diarization_api.log")
    """Log file, beside the console; it is rotated at 10 MB, five old ones are kept."""

    nemo_log_level: LogLevel = "ERROR"
    """Least severity of NeMo's own log lines."""

    data_dir: Path = Path("data")
    """The folder of everything that the service keeps: job store, uploads, results."""

    temp_audio_dir: Path | None = None
    """Where uploads are held while they arrive, and the samples of recordings beyond 10 minutes while they are worked
    on (230 MB an hour). Unset: `tmp` in DATA_DIR."""

    model_dir: Path = Field(default_factory=_cache_folder)
    """Where models are kept, shared by all installations of a user. Unset: `~/.cache/diarist`."""

    model_source_dir: Path | None = None
    """A folder with model files or the wheels that hold them, looked into before any network. Unset: none."""

    engine: Literal["embedded", "nemo"] = "embedded"
    """What does the work: `embedded` on the CPU without PyTorch, or `nemo`, NVIDIA NeMo's models on a GPU or a CPU."""

    recognizer: Literal["whisper", "nemo", "onnx"] | None = None
    """What finds the words: Whisper, a NeMo model, or one that was exported to ONNX. Unset: `whisper` for the embedded
    engine, `nemo` for NeMo."""

    diarizer: Literal["embedded", "clustering", "sortformer", "auto", "onnx"] | None = None
    """What tells the speakers apart: the embedded pipeline, NeMo's clustering, Sortformer, Sortformer with clustering
    for more speakers than it can tell apart (`auto`), or clustering with models that were exported to ONNX. Unset:
    `embedded` for the embedded engine, `auto` for NeMo."""

    whisper_model: Literal["base", "tiny.en"] = "base"
    """Model of the recogniser `whisper`: `base` knows 99 languages, `tiny.en` is twice as fast and knows English."""

    nemo_asr_model: str = ""
    """Model of the recogniser `nemo`: a name on the hub or in NVIDIA's catalogue, or the path of a `.nemo` file. Unset:
    the one that the diarizer configuration names, `nvidia/parakeet-tdt-0.6b-v3` in those that come with Diarist."""

    model_config_dir: Path = Path("conf")
    """Folder of the diarizer configurations, NeMo's `diar_infer_*.yaml`; those that come with Diarist are used where it
    does not exist."""

    diar_config: str = Field(default="meeting", pattern=r"^[A-Za-z0-9_.-]+$")
    """Which configuration of clustering is used: `meeting`, `telephonic`, `general`, or any X for which there is a
    `diar_infer_X.yaml` in MODEL_CONFIG_DIR."""

    sortformer_model: str = "nvidia/diar_streaming_sortformer_4spk-v2.1"
    """Model of the diarizer `sortformer`: a name on the hub, or the path of a `.nemo` file."""

    sortformer_config: str = Field(default="callhome", pattern=r"^[A-Za-z0-9_.-]+$")
    """Thresholds and latency of Sortformer: `callhome`, `dihard3`, or any X for which there is a `sortformer_X.yaml` in
    MODEL_CONFIG_DIR."""

    nemo_device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d{1,2})?)$")
    """Where NeMo's models run: `auto` takes the first GPU if there is one; or `cpu`, `cuda`, `cuda:1` and so on."""

    nemo_precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Numbers that NeMo's models compute in; `auto` is bf16 on GPUs that have it, fp32 elsewhere."""

    nemo_batch: int = Field(default=0, ge=0, le=1_024)
    """Windows at a time on NeMo's models; 0 goes by the free memory. Halved by itself where memory runs out."""

    nemo_sha256: str = ""
    """Hashes that NeMo's model files must have: `name=hash` pairs with commas between them, where a name is what the
    setting of the model says. Unset: files are checked for hostile content only."""

    hub_timeout_s: float = Field(default=30.0, ge=1.0, le=600.0)
    """Longest silence of a model hub before it is taken for unreachable, in seconds."""

    onnx_asr_model: str = "parakeet-tdt-0.6b-v3"
    """Model of the recogniser `onnx`: what `diarist models export` named it, or the path of its folder."""

    onnx_speaker_model: str = "titanet_large"
    """Speaker model of the diarizer `onnx`, likewise."""

    onnx_vad_model: str = "frame_vad_multilingual_marblenet_v2.0"
    """VAD model of the diarizer `onnx`, likewise."""

    workers: int = Field(default=0, ge=0, le=64)
    """Worker processes, each with models of its own. 0 is one for each GPU that NeMo's models may use, else one."""

    cpu_threads: int = Field(default=0, ge=0, le=256)
    """Threads for the models of each worker; 0 divides the cores that this process may use, up to 8 for each."""

    max_upload_mb: int = Field(default=2_048, ge=1, le=1_048_576)
    """Largest upload in megabytes (2^20 bytes)."""

    max_duration_s: float = Field(default=14_400.0, ge=1.0, le=172_800.0)
    """Longest recording in seconds."""

    decode_timeout_s: float = Field(default=600.0, ge=1.0, le=86_400.0)
    """Longest time that decoding one recording may take, in seconds."""

    decode_memory_mb: int = Field(default=2_048, ge=256, le=1_048_576)
    """Most address space of the decoder's process, in megabytes, beside the decoded samples."""

    job_lease_s: float = Field(default=30.0, ge=0.5, le=3_600.0)
    """A worker that has not reported for this long is taken for dead, and its job is taken up again."""

    job_attempts: int = Field(default=3, ge=1, le=10)
    """How often a recording is tried when workers die on it."""

    job_stall_s: float = Field(default=1_800.0, ge=1.0, le=86_400.0)
    """A recording whose work shows no sign of progress for this long is taken for stuck; its worker is restarted."""

    min_free_mb: int = Field(default=512, ge=0, le=1_048_576)
    """Disk space that must stay free in DATA_DIR after an upload, in megabytes; else the upload is answered 507."""

    @field_validator("log_file", "data_dir", "temp_audio_dir", "model_dir", "model_source_dir", "model_config_dir")
    @classmethod
    def _find_home(cls, path: Path | None) -> Path | None:
        # no shell has seen what .env says, so ~ would become a folder of that name
        return path.expanduser() if path else path

    @property
    def diarizer_name(self) -> str:
        """The diarizer that is meant, by name."""
        return self.diarizer or {"embedded": "embedded", "nemo": "auto"}[self.engine]

    @property
    def recognizer_name(self) -> str:
        """The recogniser that is meant, by name."""
        return self.recognizer or {"embedded": "whisper", "nemo": "nemo"}[self.engine]

    @property
    def upload_limit_bytes(self) -> int:
        return self.max_upload_mb * 2**20

    @property
    def temp_dir(self) -> Path:
        return self.temp_audio_dir or self.data_dir / "tmp"

    @property
    def media_dir(self) -> Path:
        """Where the recording of each job lies, in a folder of its own."""
        return self.data_dir / "jobs"

    @property
    def threads(self) -> int:
        """Threads for the models, at least 1."""
        return self.threads_each(1)

    def threads_each(self, workers: int) -> int:
        """Threads for the models of each of so many workers, at least 1."""
        allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.cpu_threads or min(max(allowed // workers, 1), 8)


def load_settings(**overrides: object) -> Settings:
    """The settings of this process; ``overrides`` (command-line options) come before the environment.

    Raises:
        ConfigurationError: a value is out of range or of the wrong kind; the message names each.
    """
    if unknown := overrides.keys() - Settings.model_fields.keys():
        raise TypeError(f"no such setting: {', '.join(sorted(unknown))}")
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])).upper()}: {fault['msg']} (got {fault['input']!r})"
            for fault in error.errors()
        )
        message = f"Settings cannot be used: {faults}. See .env.example for what each one takes."
        raise ConfigurationError(message) from error
    except (OSError, UnicodeDecodeError) as error:
        message = f"The file .env in this folder cannot be read as UTF-8 text ({error}): mend or remove it."
        raise ConfigurationError(message) from error
    except RuntimeError as error:  # pathlib's, where the user has no home
        raise ConfigurationError(f"{error}: set MODEL_DIR, and write paths without ~.") from error
