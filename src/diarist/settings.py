"""All settings with their types, ranges and descriptions. Only this module reads the environment and ``.env``."""

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
    """Settings from the environment, then from ``.env`` in the working directory. Names are case-insensitive."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True, use_attribute_docstrings=True,
        env_ignore_empty=True, protected_namespaces=(),
    )  # fmt: skip

    flask_host: str = "127.0.0.1"
    """The address that the service listens on. The default can be reached from this machine only; 0.0.0.0 listens on
    all of the machine's networks."""

    flask_port: int = Field(default=5000, ge=0, le=65_535)
    """The port that the service listens on. 0 picks a free port, which the log names."""

    allowed_hosts: str = ""
    """The host names by which the service is reached, such as `diarist.example.org`, separated by commas; loopback
    names and FLASK_HOST always count. Requests for other names and from web pages of other origins are refused. If
    unset, they are refused only while there is no API key."""

    flask_debug: bool = False
    """Whether every request is logged in detail. A response never contains a stack trace, whatever this is set to."""

    http_threads: int = Field(default=32, ge=4, le=1_000)
    """The number of threads that answer requests. A waiting `POST /diarize` request occupies one of them."""

    max_connections: int = Field(default=500, ge=16, le=100_000)
    """The maximum number of connections. Further ones replace those that have been idle for longest. The service uses
    fewer if the process may not open twice as many files (`ulimit -n`), and at most 384 on Windows."""

    header_timeout_s: float = Field(default=10.0, ge=1.0, le=600.0)
    """The maximum time in seconds from a connection to the end of its first request's head, and for the head of each
    later one to arrive."""

    keepalive_timeout_s: float = Field(default=120.0, ge=1.0, le=3_600.0)
    """The time in seconds after which a connection without a request is closed. While more than half of
    MAX_CONNECTIONS are open, it is HEADER_TIMEOUT_S at most."""

    send_timeout_s: float = Field(default=20.0, ge=1.0, le=3_600.0)
    """The time in seconds after which a connection is closed whose client reads nothing of a response."""

    max_waiting: int = Field(default=16, ge=1, le=900)
    """The maximum number of `POST /diarize` requests that wait at the same time. Further ones are answered 429 with
    Retry-After. With several API keys, each gets a share."""

    max_listeners: int = Field(default=8, ge=1, le=900)
    """The maximum number of clients that listen to job events at the same time. Each occupies a thread, and further
    ones are answered 429. With several API keys, each gets a share."""

    api_key: str = Field(default="", repr=False)
    """An API key that is always valid, for machines that are set up without a command line. It has at least 20 letters
    and digits. If unset, only keys from `diarist keys create` are valid."""

    max_queued: int = Field(default=1_000, ge=1, le=1_000_000)
    """The maximum number of waiting and running jobs of all keys together. Further ones are answered 429 with
    Retry-After."""

    max_queued_per_key: int = Field(default=250, ge=1, le=1_000_000)
    """The maximum number of waiting and running jobs of one API key, unless `diarist keys create --limit` sets another
    number for the key."""

    max_stored_mb_per_key: int = Field(default=0, ge=0, le=2_000_000_000)
    """The maximum size in megabytes (2^20 bytes) of the stored recordings of one API key together, unless `diarist keys
    create --storage-limit` sets another one for the key. Further ones are answered 507. 0 sets no maximum."""

    log_level: LogLevel = "INFO"
    """The minimum severity that is logged: DEBUG, INFO, WARNING, ERROR or CRITICAL."""

    log_format: Literal["plain", "json"] = "plain"
    """The format of log lines: plain text, or one JSON object per line."""

    log_file: Path = Path("logs/diarization_api.log")
    """The log file, which is written in addition to the console. It is rotated at 10 MB, and five old files are
    kept."""

    nemo_log_level: LogLevel = "ERROR"
    """The minimum severity of NeMo's own log lines."""

    data_dir: Path = Path("data")
    """The folder that the service stores its data in: the job store, uploads and results."""

    database_url: str = Field(default="", repr=False)
    """The URL of the job store of a fleet, `postgresql://user:password@host/name`. If unset, the job store is an SQLite
    file in DATA_DIR."""

    queue_url: str = Field(default="", repr=False)
    """The URL of the Redis server that wakes the workers of a fleet, `redis://host:6379/0`. The service then starts no
    workers of its own; `diarist worker` starts them on any machine. If unset, the service starts its own workers."""

    media_url: str = ""
    """The storage for recordings that all machines of a fleet share: `s3://bucket/folder`, or a directory. If unset, it
    is the folder `jobs` in DATA_DIR."""

    s3_endpoint_url: str = ""
    """The URL of an S3-compatible store other than Amazon S3, such as MinIO. If unset, Amazon S3 is used."""

    s3_region: str = ""
    """The region of the bucket. If unset, it comes from the AWS configuration of this machine, or else is
    `us-east-1`."""

    s3_access_key: str = ""
    """The access key ID of the S3 credentials. If unset, the credentials come from the AWS configuration of this
    machine."""

    s3_secret_key: str = Field(default="", repr=False)
    """The secret access key of the S3 credentials."""

    temp_audio_dir: Path | None = None
    """The folder for uploads while they are received, and for the samples of recordings of more than 10 minutes while
    they are processed (230 MB per hour). If unset, it is `tmp` in DATA_DIR."""

    model_dir: Path = Field(default_factory=_cache_folder)
    """The folder that models are stored in, shared by all installations of a user. If unset, it is
    `~/.cache/diarist`."""

    model_source_dir: Path | None = None
    """A folder with model files, or with the wheels that contain them, which is searched before any download. If unset,
    there is none."""

    model_catalog: Path | None = None
    """A TOML file with more speech recognition models that can be downloaded and used like those of Diarist. If unset,
    there are none."""

    engine: Literal["embedded", "nemo"] = "embedded"
    """The engine that does the work: `embedded` runs on the CPU without PyTorch; `nemo` runs NVIDIA NeMo's models on a
    GPU or a CPU."""

    recognizer: Literal["whisper", "nemo", "onnx"] | None = None
    """The speech recognizer: Whisper, a NeMo model, or a NeMo model in ONNX format. If unset, it is `whisper` for
    the embedded engine and `nemo` for NeMo."""

    diarizer: Literal["embedded", "community-1", "clustering", "sortformer", "auto", "onnx"] | None = None
    """The method that tells speakers apart: the embedded pipeline, the models and the clustering of pyannote's
    community-1, NeMo's clustering, Sortformer, Sortformer with clustering for recordings with more speakers than it can
    distinguish (`auto`), or clustering with models that were exported to ONNX. If unset, it is `embedded` for the
    embedded engine and `auto` for NeMo."""

    embedding_model: str = "campplus"
    """The speaker embedding model of the diarizer `embedded`: `campplus`, `wespeaker-resnet34-lm`, `eres2netv2` or
    `titanet-large`. The limits of the clustering were chosen for `campplus`, and `diarist evaluate` measures the others
    on your recordings. Other diarizers ignore the setting."""

    model: str = ""
    """The speech recognition model: a name that `diarist models list` shows, such as `large-v3-turbo` or
    `parakeet-tdt-0.6b-v3`. It also selects the recognizer that runs the model. If unset, RECOGNIZER and its own setting
    select the model."""

    whisper_model: str = "base"
    """The model of the recognizer `whisper`, unless MODEL is set: `base` supports 99 languages; `tiny.en` is twice as
    fast and supports English only; `diarist models list` shows the others."""

    nemo_asr_model: str = ""
    """The model of the recognizer `nemo`: a name on the Hugging Face hub or in NVIDIA's catalog, or the path of a
    `.nemo` file. If unset, it is the one that the diarizer configuration names, which is `nvidia/parakeet-tdt-0.6b-v3`
    in the configurations that come with Diarist."""

    model_config_dir: Path = Path("conf")
    """The folder with the diarizer configurations, NeMo's `diar_infer_*.yaml`. If it does not exist, the configurations
    that come with Diarist are used."""

    diar_config: str = Field(default="meeting", pattern=r"^[A-Za-z0-9_.-]+$")
    """The configuration of clustering: `meeting`, `telephonic`, `general`, or any X for which MODEL_CONFIG_DIR contains
    a `diar_infer_X.yaml`."""

    sortformer_model: str = "nvidia/diar_streaming_sortformer_4spk-v2.1"
    """The model of the diarizer `sortformer`: a name on the Hugging Face hub, or the path of a `.nemo` file."""

    sortformer_config: str = Field(default="callhome", pattern=r"^[A-Za-z0-9_.-]+$")
    """The thresholds and latency of Sortformer: `callhome`, `dihard3`, or any X for which MODEL_CONFIG_DIR contains a
    `sortformer_X.yaml`."""

    device: str = Field(default="auto", pattern=r"^(auto|cpu|coreml|cuda(:\d{1,2})?)$")
    """The device that models run on: `auto` is the first NVIDIA GPU if there is one and its libraries are installed,
    else the CPU. Other values are `cpu`, `cuda`, `cuda:1` and so on, and on macOS `coreml`, which runs ONNX models by
    Core ML and all others on the CPU."""

    nemo_device: str = Field(default="", pattern=r"^(auto|cpu|cuda(:\d{1,2})?)?$")
    """The device that NeMo's models run on, if it is another one than DEVICE: `auto`, `cpu`, `cuda`, `cuda:1` and so
    on."""

    nemo_precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """The numeric precision of NeMo's models. `auto` is bf16 on GPUs that support it, and fp32 elsewhere."""

    nemo_batch: int = Field(default=0, ge=0, le=1_024)
    """The number of windows per batch of NeMo's models. 0 chooses it by the free memory. It is halved automatically
    when memory runs out."""

    nemo_sha256: str = ""
    """The SHA-256 hashes that NeMo's model files must have: `name=hash` pairs separated by commas, where the name is
    the value of the model's setting. Models that Diarist names by default have to have their published hashes, unless
    another one is given here. Other files are only checked for hostile content."""

    hub_timeout_s: float = Field(default=30.0, ge=1.0, le=600.0)
    """The time in seconds after which a model hub that sends nothing is considered unreachable."""

    onnx_asr_model: str = "parakeet-tdt-0.6b-v3"
    """The model of the recognizer `onnx`, unless MODEL is set: the name that `diarist models export` gave it, the path
    of its folder, or else a name that `diarist models list` shows."""

    onnx_speaker_model: str = "titanet_large"
    """The speaker model of the diarizer `onnx`: the name that `diarist models export` gave it, or the path of its
    folder."""

    onnx_vad_model: str = "frame_vad_multilingual_marblenet_v2.0"
    """The VAD model of the diarizer `onnx`: the name that `diarist models export` gave it, or the path of its
    folder."""

    workers: int = Field(default=0, ge=0, le=64)
    """The number of worker processes, each with its own copy of the models. 0 starts one for each GPU that the models
    may use, or one if there is none."""

    cpu_threads: int = Field(default=0, ge=0, le=256)
    """The number of threads for the models of each worker. 0 divides the cores that this process may use among the
    workers, up to 8 for each."""

    max_upload_mb: int = Field(default=2_048, ge=1, le=1_048_576)
    """The maximum size of an upload in megabytes (2^20 bytes)."""

    max_duration_s: float = Field(default=14_400.0, ge=1.0, le=172_800.0)
    """The maximum duration of a recording in seconds."""

    decode_timeout_s: float = Field(default=600.0, ge=1.0, le=86_400.0)
    """The maximum time that decoding one recording may take, in seconds."""

    decode_memory_mb: int = Field(default=2_048, ge=256, le=1_048_576)
    """The maximum address space of the decoder process in megabytes, not counting the decoded samples. On Windows and
    macOS, it is the maximum memory that the process takes."""

    job_lease_s: float = Field(default=30.0, ge=0.5, le=3_600.0)
    """The time in seconds after which a worker that has not reported is considered dead. Its job is then taken over."""

    job_attempts: int = Field(default=3, ge=1, le=10)
    """The maximum number of attempts at a recording whose worker dies or which fails because of an error in the
    service."""

    job_stall_s: float = Field(default=1_800.0, ge=1.0, le=86_400.0)
    """The time in seconds after which a recording without progress is considered stuck. Its worker is then
    restarted."""

    job_retry_s: float = Field(default=10.0, ge=0.0, le=3_600.0)
    """The time in seconds before a recording is tried again after an error in the service. It triples after each
    further error."""

    queues: str = Field(default="", pattern=r"^[a-z0-9_-]*(,[a-z0-9_-]+)*$")
    """The queues that the workers serve, separated by commas: `any`, `cpu`, `gpu`, or the name of an engine. If unset,
    they serve `any`, their kind of device, and their engine."""

    unserved_queue_s: float = Field(default=259_200.0, ge=1.0, le=315_360_000.0)
    """The time in seconds that a job waits in a queue that no worker serves. Then it fails. The time begins anew when
    all API processes and workers restart."""

    drain_s: float = Field(default=25.0, ge=0.0, le=86_400.0)
    """The time in seconds that `diarist worker` continues with a running recording after it is told to stop. Then the
    recording goes back to the queue."""

    spread_min_s: float = Field(default=600.0, ge=60.0, le=172_800.0)
    """The duration in seconds above which all free workers of a fleet work on a recording together."""

    retain_recording_s: float = Field(default=86_400.0, ge=0.0, le=315_360_000.0)
    """The time in seconds that the recording of a job is kept after the job has ended."""

    retain_result_s: float = Field(default=604_800.0, ge=60.0, le=315_360_000.0)
    """The time in seconds that a job and its transcript are kept after the job has ended. Then everything about it is
    deleted."""

    retain_temp_s: float = Field(default=3_600.0, ge=60.0, le=315_360_000.0)
    """The time in seconds after which an unused temporary file is deleted."""

    sweep_every_s: float = Field(default=60.0, ge=0.1, le=86_400.0)
    """The interval in seconds between two searches for expired data to delete."""

    allowed_networks: str = ""
    """The private networks that recordings may be fetched from and webhooks sent to, such as `10.1.0.0/16`, separated
    by commas. If unset, only public addresses are allowed."""

    download_timeout_s: float = Field(default=1_800.0, ge=1.0, le=86_400.0)
    """The maximum time that fetching a recording from its URL may take, in seconds."""

    webhook_secret: str = Field(default="", repr=False)
    """The secret that the signing secrets of webhooks are derived from, at least 20 characters. If unset, the job store
    keeps a generated one."""

    webhook_timeout_s: float = Field(default=10.0, ge=0.1, le=300.0)
    """The maximum time that the receiver of a webhook may take to respond, in seconds."""

    traces: Literal["none", "otlp"] = "none"
    """Whether traces are sent: `otlp` sends them by the OpenTelemetry protocol over HTTP and needs the extra
    `tracing`."""

    otlp_endpoint: str = "http://127.0.0.1:4318"
    """The URL of the collector that traces are sent to."""

    min_free_mb: int = Field(default=512, ge=0, le=1_048_576)
    """The disk space in megabytes that must stay free in DATA_DIR and TEMP_AUDIO_DIR. An upload that would leave less
    is answered 507; a job whose download, samples or copies would leave less fails with `storage_full`."""

    @field_validator(
        "log_file", "data_dir", "temp_audio_dir", "model_dir", "model_source_dir", "model_catalog", "model_config_dir"
    )
    @classmethod
    def _expand_home(cls, path: Path | None) -> Path | None:
        # No shell expands ~ in .env, and pathlib would create a folder of that name.
        return path.expanduser() if path else path

    @property
    def diarizer_name(self) -> str:
        """The name of the diarizer, after the default of the engine."""
        return self.diarizer or {"embedded": "embedded", "nemo": "auto"}[self.engine]

    @property
    def device_of_nemo(self) -> str:
        """The device that NeMo's models run on: NEMO_DEVICE, or else DEVICE."""
        return self.nemo_device or ("cpu" if self.device == "coreml" else self.device)

    @property
    def upload_limit_bytes(self) -> int:
        return self.max_upload_mb * 2**20

    @property
    def stored_limit_bytes(self) -> int | None:
        """The maximum size of the stored recordings of an API key; None if there is none."""
        return self.max_stored_mb_per_key * 2**20 or None

    @property
    def temp_dir(self) -> Path:
        return self.temp_audio_dir or self.data_dir / "tmp"

    @property
    def media_dir(self) -> Path:
        """The folder that contains one folder per job with its recording, unless recordings are stored in S3."""
        return Path(self.media_url).expanduser() if self.media_url and not self.in_s3 else self.data_dir / "jobs"

    @property
    def in_s3(self) -> bool:
        """Whether recordings are stored in an S3-compatible store."""
        return self.media_url.startswith("s3://")

    @property
    def distributed(self) -> bool:
        """Whether a queue wakes workers that other processes started."""
        return bool(self.queue_url)

    @property
    def threads(self) -> int:
        """The number of threads for the models of a single worker, at least 1."""
        return self.threads_each(1)

    def threads_each(self, workers: int) -> int:
        """Return the number of threads for the models of each of ``workers`` workers, at least 1."""
        allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.cpu_threads or min(max(allowed // workers, 1), 8)


def load_settings(**overrides: object) -> Settings:
    """Return the settings of this process. ``overrides`` (command-line options) take precedence over the environment.

    Raises:
        ConfigurationError: Values are out of range or of the wrong type. The message names each of them.
    """
    if unknown := overrides.keys() - Settings.model_fields.keys():
        raise TypeError(f"unknown setting: {', '.join(sorted(unknown))}")
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])).upper()}: {problem['msg']} (got {problem['input']!r})"
            for problem in error.errors()
        )
        message = f"Invalid settings: {problems}. See .env.example for the values that each one accepts."
        raise ConfigurationError(message) from error
    except (OSError, UnicodeDecodeError) as error:
        message = f"The file .env in this folder cannot be read as UTF-8 text ({error}). Repair or remove it."
        raise ConfigurationError(message) from error
    except RuntimeError as error:  # pathlib raises it if the user has no home folder
        raise ConfigurationError(f"{error} Set MODEL_DIR, and write paths without ~.") from error
