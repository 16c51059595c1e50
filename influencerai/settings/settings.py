"""Settings: folders, limits and device of this machine, from arguments, the environment or a file.

Nothing is global and nothing is read at import: `Settings.load()` reads them and returns them.
"""

from __future__ import annotations

import inspect
import os
from importlib.resources import files
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import AfterValidator, Field, PrivateAttr, SecretStr
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from influencerai.errors import ValidationError
from influencerai.settings.origin import SettingOrigin, label, messages, shown
from influencerai.settings.process_environment import usable_cores
from influencerai.settings.sources import ENV_PREFIX, absolute, check_variables, find_file, read_file, variable

_SERVER_ONLY = frozenset({"jwt_secret", "jwt_jwks_file"})

Folder = Annotated[Path, AfterValidator(absolute)]
"""A path, made absolute when it is read, so that a later change of directory changes nothing."""
Network = Annotated[str, AfterValidator(lambda text: str(ip_network(text)))]


class Settings(BaseSettings):
    """Every setting. `Settings(root=...)` takes what it is given, `Settings.load()` reads the outside too."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, allow_inf_nan=False
    )

    root: Folder = Field(
        default_factory=Path.cwd,
        description="Folder that datasets and results are relative to; default: the current directory.",
    )
    models_dir: Folder = Field(
        default_factory=lambda data: data["root"] / "models",
        description="Folder of base models, `<org>/<name>` below it; default: `models` in the root.",
    )
    cache_dir: Folder = Field(
        default_factory=lambda data: data["root"] / ".influencerai" / "cache",
        description="Folder of encoded images and captions; default: `.influencerai/cache` in the root.",
    )
    cache_max_gib: float = Field(10.0, gt=0, le=1e6, description="Maximum GiB of the cache.")
    max_image_pixels: int = Field(
        8192 * 8192, ge=1, description="Images with more pixels are refused before they are decoded."
    )
    allow_downloads: bool = Field(
        True,
        description="Download hub ids that are not found locally. In production only if this is set "
        "explicitly; false keeps everything offline.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA where there is one, else cpu.")
    threads: int | None = Field(
        None, ge=1, le=1024, description="CPU threads of one operation; default: all usable cores."
    )

    deterministic: bool = Field(
        True,
        description="On a GPU: the same run gives the same bytes; false allows faster kernels that do not.",
    )

    database_url: str = Field(
        default_factory=lambda data: f"sqlite:///{data['root'] / '.influencerai' / 'influencerai.db'}",
        description="sqlite:///FILE or postgresql://USER@HOST/NAME; default: a SQLite file in the root.",
    )
    host: str = Field("127.0.0.1", min_length=1, max_length=255, description="Address that the server listens on.")
    port: int = Field(3001, ge=0, le=65535, description="Port that the server listens on; 0 selects a free one.")
    auth: Literal["development", "production"] = Field(
        "development",
        description="development trusts the header x-tenant-id; production requires an API key or a JWT.",
    )
    jwt_secret: SecretStr | None = Field(None, description="Secret of HS256-signed JWTs, at least 32 bytes.")
    jwt_jwks_file: Folder | None = Field(None, description="JWKS file with the public keys of signed JWTs.")
    jwt_tenant_claim: str = Field("tenant_id", min_length=1, description="Claim of a JWT that names its tenant.")
    jwt_audience: str | None = Field(None, description="Required audience of a JWT; default: not checked.")
    jwt_issuer: str | None = Field(None, description="Required issuer of a JWT; default: not checked.")
    cors_origins: tuple[str, ...] = Field((), description='Origins of web pages that may call the API, or ["*"].')
    trusted_proxies: tuple[Network, ...] = Field(
        ("127.0.0.1", "::1"),
        description="Addresses and networks (10.0.0.0/8) of proxies whose X-Forwarded-For is trusted.",
    )
    rate_limits: bool | None = Field(None, description="Whether requests are limited; default: in production only.")
    reads_per_minute: int = Field(100, ge=1, le=10**6, description="GET requests per minute and tenant.")
    writes_per_minute: int = Field(
        10, ge=1, le=10**6, description="POST, PATCH and DELETE requests per minute and tenant."
    )
    uploads_per_minute: int = Field(
        60, ge=1, le=10**6, description="Uploads of images and captions per minute and tenant."
    )
    event_streams_per_tenant: int = Field(
        200, ge=1, le=10**6, description="Open event streams of a tenant at each server."
    )
    active_jobs_per_tenant: int = Field(
        5, ge=1, le=10**6, description="Pending and running jobs of a tenant while requests are limited."
    )
    jobs_per_day_per_tenant: int = Field(
        500, ge=0, le=10**6, description="Jobs that a tenant may submit in a day (UTC) while requests are limited."
    )
    gpu_hours_per_month_per_tenant: float | None = Field(
        None,
        ge=0,
        le=1e9,
        description="Hours of devices that a tenant may use in a month (UTC) while requests are limited.",
    )
    datasets_per_tenant: int = Field(
        1000, ge=0, le=10**9, description="Datasets of a tenant while requests are limited."
    )
    configs_per_tenant: int = Field(
        1000, ge=0, le=10**9, description="Configurations of a tenant while requests are limited."
    )
    stored_gib_per_tenant: float | None = Field(
        500, ge=0, le=1e9, description="GiB of a tenant's files while requests are limited."
    )
    running_jobs_per_tenant: int = Field(5, ge=1, le=10**6, description="Maximum of running jobs of a tenant.")
    max_body_kib: int = Field(1024, ge=1, le=2**20, description="Maximum KiB of a request's JSON.")
    max_upload_mib: int = Field(2048, ge=1, le=2**20, description="Maximum MiB of one upload of images.")
    max_upload_megapixels: int = Field(
        12_000, ge=1, le=10**7, description="Maximum megapixels of all images of one upload."
    )
    max_upload_files: int = Field(500, ge=1, le=10**5, description="Maximum number of images in one upload.")
    workers: int = Field(1, ge=1, le=64, description="Number of jobs that this machine trains at the same time.")
    lease_seconds: float = Field(
        30, ge=1, le=3600, description="Seconds after which a worker without heartbeats is considered lost."
    )
    external_lease_seconds: float = Field(
        3600, ge=1, le=10**6, description="The same for an external worker that reports by PATCH."
    )
    poll_seconds: float = Field(0.25, gt=0, le=60, description="Seconds between queries of workers and event streams.")
    cancel_grace_seconds: float = Field(
        30, ge=0, le=3600, description="Seconds that a training has to stop before it is killed."
    )
    stall_seconds: float = Field(
        3600, ge=1, le=10**6, description="Seconds after which a training without messages is killed."
    )
    dataset_wait_seconds: float = Field(
        600, ge=0, le=10**7, description="Seconds that a job waits for a dataset to become ready before it fails."
    )
    start_seconds: float = Field(
        60, ge=1, le=3600, description="Seconds that a node has to start a job that was placed on it."
    )
    share_gpus: bool = Field(
        False, description="On a cluster: jobs with known memory needs share GPUs in quarters; the need is an estimate."
    )
    tok_per_device_second: float = Field(
        0, ge=0, le=1e9, description="Added to a job's costTok for each second of a device."
    )
    lost_attempts: int = Field(5, ge=0, le=1000, description="Lost attempts after which a job is still retried.")
    broken_attempts: int = Field(
        3, ge=0, le=1000, description="Broken attempts (failures of the machine) after which a job is still retried."
    )
    retry_seconds: float = Field(
        10, ge=0, le=3600, description="Seconds before the retry of a broken attempt; they double with each."
    )
    min_free_mib: int = Field(
        512, ge=0, le=2**30, description="Free MiB on the root's disk below which the server is not ready."
    )
    files_mask: str = Field(
        "077",
        pattern="^[0-7]{3}$",
        description="umask of files of the server and its workers: 077 makes them private to its user, 027 lets "
        "the group read.",
    )
    retention_days: float | None = Field(
        None,
        gt=0,
        le=1e5,
        description="Days after which `influencerai gc`, and a server once a day, removes states and copies of ended "
        "jobs and runs; LoRA files stay. Default: a server removes nothing.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level of messages that the server logs."
    )
    log_format: Literal["json", "text"] = Field("text", description="Format of the server's log.")

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _warnings: tuple[str, ...] = PrivateAttr(default=())

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except pydantic.ValidationError as error:
            raise ValidationError("A setting cannot be used", field_errors=messages(error)) from error

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            raise ValidationError(field_errors={name: ["Settings are frozen: make others by Settings.load(...)"]})
        super().__setattr__(name, value)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only the arguments: what is read from outside is read by `load`, which keeps the origins."""
        return (init_settings,)

    @classmethod
    def load(cls, **arguments: Any) -> Self:
        """Read the settings; an argument wins over the environment, the environment over the file.

        The file is the one that INFLUENCERAI_SETTINGS_FILE names, else `influencerai.toml` in the root if
        there is one. Relative paths in it start from its own folder, all others from the current directory.

        Args:
            arguments: settings by name; None counts as not given.

        Raises:
            ValidationError: names the variable or the file, the setting, and what is wrong with it.
        """
        arguments = {name: value for name, value in arguments.items() if value is not None}
        warnings = check_variables(cls.model_fields)
        environment = EnvSettingsSource(cls)()
        file = find_file(arguments.get("root") or environment.get("root") or ".")
        from_file = read_file(file, known=cls.model_fields) if file else {}
        origins = {
            **dict.fromkeys(from_file, str(file)),
            **{name: variable(name) for name in environment},
            **dict.fromkeys(arguments, "argument"),
        }
        try:
            settings = cls(**{**from_file, **environment, **arguments})
        except ValidationError as error:
            error.field_errors = {label(name, origins): texts for name, texts in error.field_errors.items()}
            raise
        settings._origins = origins
        settings._warnings = warnings
        return settings

    @property
    def models_dirs(self) -> tuple[Path, Path]:
        """The folders in which base models are looked for, in order: the user's, the embedded one."""
        return self.models_dir, Path(str(files("influencerai"))) / "demo" / "models"

    @property
    def usable_threads(self) -> int:
        """`threads`, or as many as there are cores that this process may use."""
        return self.threads if self.threads is not None else usable_cores()

    @property
    def job_threads(self) -> int:
        """Cores of this machine that each of the jobs has which it trains at once on the CPU."""
        return max(1, self.usable_threads // self.workers)

    def to_document(self) -> dict[str, Any]:
        """The settings as JSON, secrets too, for another process of this machine: `Settings(**document)`."""
        document = self.model_dump(mode="json")
        document["jwt_secret"] = None if self.jwt_secret is None else self.jwt_secret.get_secret_value()
        return {**document, "allow_downloads": self.serves_downloads}

    def worker_document(self) -> dict[str, Any]:
        """`to_document` for those who train: without what only the API has to know."""
        return {name: value for name, value in self.to_document().items() if name not in _SERVER_ONLY}

    @property
    def serves_downloads(self) -> bool:
        """Whether a job may have a base model downloaded: in production only where that was said."""
        return self.allow_downloads and (self.auth == "development" or "allow_downloads" in self.model_fields_set)

    @property
    def limits_requests(self) -> bool:
        """Whether tenants may send only so many requests."""
        return self.auth == "production" if self.rate_limits is None else self.rate_limits

    def apply_files_mask(self) -> None:
        """Keep what this process and its children make to those who may have it."""
        os.umask(int(self.files_mask, 8))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What stood in the environment and was ignored."""
        return self._warnings

    def origins(self) -> tuple[SettingOrigin, ...]:
        """Every setting with its value and where that came from, in the order of the fields."""
        return tuple(
            SettingOrigin(name=name, value=shown(getattr(self, name)), origin=self._origins.get(name, "default"))
            for name in type(self).model_fields
        )


def _load_signature() -> inspect.Signature:
    """Every setting as a keyword of `Settings.load`, for help and completion."""
    make, fields = inspect.Parameter, Settings.model_fields.items()
    settings = [make(name, make.KEYWORD_ONLY, default=None, annotation=field.annotation) for name, field in fields]
    return inspect.Signature([make("cls", make.POSITIONAL_ONLY), *settings], return_annotation=Settings)


Settings.load.__func__.__signature__ = _load_signature()  # type: ignore[attr-defined]
