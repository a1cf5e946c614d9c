"""One frozen settings object, read from the environment where a process starts and handed down from there."""

from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipeline.errors import SetupError
from pipeline.places import Places

MEGABYTE = 1 << 20


class Settings(BaseSettings):
    """Everything that can be set by an environment variable `MATTEMILL_<NAME>`.

    S3 credentials are not here: boto3 finds them the usual AWS way (`AWS_ACCESS_KEY_ID`, profiles, instance roles).
    """

    model_config = SettingsConfigDict(env_prefix="MATTEMILL_", frozen=True, extra="ignore")

    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"), description="broker and ledger; redis:// or rediss://"
    )
    s3_endpoint_url: str | None = Field(None, description="an S3 server other than AWS, such as http://127.0.0.1:9000")
    model: str = Field("u2netp", description="the model new runs use")
    home: Path = Field(Path("~/.mattemill"), description="models, engines, caches", validate_default=True)
    sweeps: Path | None = Field(None, description="the TOML file of named sweeps")
    allowed_sources: str = Field("", description="where sources may lie: bucket or bucket/prefix, ...; empty: anywhere")
    allowed_targets: str = Field("", description="where outputs and reports may go, likewise")
    web_password: SecretStr | None = Field(
        None, description="of the live page's user `mattemill`; 8 characters or more"
    )
    web_preview_bytes: int = Field(
        64 * MEGABYTE, ge=MEGABYTE, description="memory for the live page's small pictures, in bytes"
    )
    log_format: str = Field("auto", pattern="^(auto|json|console)$", description="auto: JSON unless on a terminal")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$")
    log_repeats: int = Field(
        60, ge=0, description="lines a minute of one warning and failure code; more are counted; 0: all are written"
    )
    metrics_port: int = Field(0, ge=0, le=65535, description="port of the page for Prometheus; 0: there is none")
    metrics_host: str = Field("127.0.0.1", description="the address that it listens on; it has no password")

    max_bytes: int = Field(200 * MEGABYTE, ge=1, description="largest source object, in bytes")
    max_megapixels: int = Field(150, ge=1, description="largest source image, in millions of pixels")

    max_batch: int = Field(8, ge=1, le=64, description="images in one engine call")
    max_delay_ms: float = Field(20, ge=0, description="how long a batch that is not full waits for company")
    max_wait_ms: float = Field(1000, ge=0, description="after that an image goes before full batches of other sizes")
    loaders: int = Field(0, ge=0, le=64, description="loader processes of a GPU worker; 0: one per core, at least 2")
    loader_slots: int = Field(
        0, ge=0, le=1024, description="decoded images held in shared memory; 0: two batches a size"
    )
    loader_bytes: int = Field(512 * MEGABYTE, ge=4 * MEGABYTE, description="shared memory for decoded images, bytes")
    loader_deadline: float = Field(60, gt=0, description="seconds a loader may spend on one image")
    gpu_threads: int = Field(
        0,
        ge=0,
        le=256,
        description="messages that a GPU worker handles at once; 0: as many as images in memory, 16 to 64",
    )
    with_encoding: bool = Field(
        False,
        description="ONNX Runtime on the processor leaves cores to encode processes beside it; `worker all` says so",
    )
    engine_deadline: float = Field(120, gt=0, description="seconds that one engine call may take")
    stuck_timeout: float = Field(
        60, gt=0, description="seconds that a GPU worker may take nothing while its queue is not empty"
    )
    recent_mattes: int = Field(100, ge=0, le=10_000, description="mattes of recent images kept for repeats")
    recent_bytes: int = Field(64 * MEGABYTE, ge=0, description="memory for them, in bytes")
    source_cache_bytes: int = Field(
        512 * MEGABYTE,
        ge=0,
        description="disk below MATTEMILL_HOME for photos that a CPU worker of the same machine needs next; 0: none",
    )
    encode_deadline: float = Field(
        120, gt=0, description="seconds an encode child may spend on one image, and on its upload"
    )
    child_memory: int = Field(
        4096 * MEGABYTE,
        ge=768 * MEGABYTE,  # libraries take 0.55 GB before any photo, one of 12 megapixels up to 0.2
        description="address space of a loader or encode child, bytes",
    )

    chunk: int = Field(0, ge=0, le=32, description="keys in one message; 0: chosen by the size of the run")
    queue_mark: int = Field(2000, ge=1, description="keys waiting in a queue before the feeder stops adding")
    encode_mark: int = Field(
        256, ge=1, description="images waiting for encoding before GPU workers and the feeder stop"
    )

    grace: float = Field(
        40, gt=0, description="seconds until a worker that was told to stop is killed; told twice, it leaves in 3"
    )
    held_timeout: float = Field(30, gt=0, description="seconds untouched after which held work is taken back")
    waiting_timeout: float = Field(
        30, gt=0, description="seconds after which waiting work whose message is gone is fed again"
    )
    touch_interval: float = Field(10, gt=0, description="seconds between two touches of held work")
    listing_timeout: float = Field(60, gt=0, description="seconds a listing may be silent")
    stall_timeout: float = Field(
        180, gt=0, description="seconds without any progress after which a waiting command gives up"
    )
    max_tries: int = Field(8, ge=1, description="tries of what may pass; the pauses of 8 add up to 4 minutes")
    max_deaths: int = Field(3, ge=1, description="processes that one image may kill")
    run_retention: int = Field(7 * 86400, ge=60, description="seconds that a finished run stays in Redis")

    @field_validator("home", "sweeps")
    @classmethod
    def _expand(cls, path: Path | None) -> Path | None:
        return path.expanduser() if path is not None else None

    @field_validator("allowed_sources", "allowed_targets")
    @classmethod
    def _check_places(cls, text: str) -> str:
        Places.parse(text)
        return text


def load_settings(**overrides: object) -> Settings:
    """Build the settings from the environment; `overrides` win.

    Raises:
        SetupError: when a variable has a value that cannot be.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = "MATTEMILL_" + "_".join(str(part) for part in first["loc"]).upper()
        raise SetupError(f"{name} cannot be used: {first['msg']}.", "unset it or give a value that fits") from error
