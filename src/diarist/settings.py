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
    """Callers of `POST /diarize` who may wait at once; the next one is answered 429 with Retry-After."""

    max_listeners: int = Field(default=8, ge=1, le=900)
    """Listeners to the events of jobs at once; each holds a thread, and the next one is answered 429."""

    api_key: str = Field(default="", repr=False)
    """An API key that is always valid, for machines that are set up without a command line: at least 20 letters and
    digits. Unset: those of `diarist keys create` alone."""

    max_queued: int = Field(default=1_000, ge=1, le=1_000_000)
    """Jobs that may wait or run at once, of all keys together; the next one is answered 429 with Retry-After."""

    max_queued_per_key: int = Field(default=250, ge=1, le=1_000_000)
    """The same of each API key, where `diarist keys create --limit` says no other number."""

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

    database_url: str = Field(default="", repr=False)
    """The job store of a fleet, `postgresql://user:password@host/name`. Unset: SQLite in DATA_DIR."""

    queue_url: str = Field(default="", repr=False)
    """What wakes the workers of a fleet, `redis://host:6379/0`; the service then starts none of its own, and
    `diarist worker` starts them on any machine. Unset: workers of this service."""

    media_url: str = ""
    """Where recordings lie that all machines of a fleet share: `s3://bucket/folder`, or a directory. Unset: `jobs` in
    DATA_DIR."""

    s3_endpoint_url: str = ""
    """Address of an S3-compatible store that is not Amazon's, such as MinIO. Unset: Amazon's."""

    s3_region: str = ""
    """Region of the bucket. Unset: what the AWS configuration of this machine says, or else `us-east-1`."""

    s3_access_key: str = ""
    """Name of the S3 credentials. Unset: those that the AWS configuration of this machine gives."""

    s3_secret_key: str = Field(default="", repr=False)
    """Secret of the S3 credentials."""

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
    """How often a recording is tried when workers die on it, or the service fails it."""

    job_stall_s: float = Field(default=1_800.0, ge=1.0, le=86_400.0)
    """A recording whose work shows no sign of progress for this long is taken for stuck; its worker is restarted."""

    job_retry_s: float = Field(default=10.0, ge=0.0, le=3_600.0)
    """Until a recording is tried again after a fault of the service; three times as long after each further one."""

    queues: str = Field(default="", pattern=r"^[a-z0-9_-]*(,[a-z0-9_-]+)*$")
    """Queues that the workers serve, with commas between them: of `any`, `cpu`, `gpu`, and the names of engines. Unset:
    `any`, their kind of device, and their engine."""

    drain_s: float = Field(default=25.0, ge=0.0, le=86_400.0)
    """How long `diarist worker` goes on with the recording in hand when it is told to stop; then it gives it back."""

    spread_min_s: float = Field(default=600.0, ge=60.0, le=172_800.0)
    """Longer recordings are worked on by all free workers of a fleet together, in seconds."""

    retain_recording_s: float = Field(default=86_400.0, ge=0.0, le=315_360_000.0)
    """How long the recording of a job is kept after its end, in seconds."""

    retain_result_s: float = Field(default=604_800.0, ge=60.0, le=315_360_000.0)
    """How long a job is kept after its end, with its transcript, in seconds; then nothing is left of it."""

    retain_temp_s: float = Field(default=3_600.0, ge=60.0, le=315_360_000.0)
    """After how long a temporary file that nothing uses any more is removed, in seconds."""

    sweep_every_s: float = Field(default=60.0, ge=0.1, le=86_400.0)
    """Time between two looks for what is to be removed, in seconds."""

    allowed_networks: str = ""
    """Private networks that recordings may be fetched from and webhooks sent to, such as `10.1.0.0/16`, with commas
    between them. Unset: none, only public addresses."""

    download_timeout_s: float = Field(default=1_800.0, ge=1.0, le=86_400.0)
    """Longest time that fetching a recording from its URL may take, in seconds."""

    webhook_secret: str = Field(default="", repr=False)
    """What the secrets of webhooks are derived from, at least 20 characters. Unset: one that the job store keeps."""

    webhook_timeout_s: float = Field(default=10.0, ge=0.1, le=300.0)
    """Longest time that the receiver of a webhook may take to answer, in seconds."""

    traces: Literal["none", "otlp"] = "none"
    """Whether traces are sent, by OpenTelemetry's protocol over HTTP; takes the extra `tracing`."""

    otlp_endpoint: str = "http://127.0.0.1:4318"
    """Where traces are sent."""

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
        """Where the recording of each job lies, in a folder of its own, unless they lie in S3."""
        return Path(self.media_url).expanduser() if self.media_url and not self.in_s3 else self.data_dir / "jobs"

    @property
    def in_s3(self) -> bool:
        """Whether recordings lie in an S3-compatible store."""
        return self.media_url.startswith("s3://")

    @property
    def distributed(self) -> bool:
        """Whether workers are elsewhere: a queue wakes them."""
        return bool(self.queue_url)

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
