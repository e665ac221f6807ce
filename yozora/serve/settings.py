"""Settings of the service, typed: from the command line, else from YOZORA_… in the environment, else as said here."""

from __future__ import annotations

import ipaddress
import os
import sys
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from yozora.errors import ConfigError

__all__ = ["Settings", "read_settings"]


def _home() -> Path:
    """Where a machine's own data are kept: $XDG_DATA_HOME/yozora, or as the system has it."""
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming") / "yozora"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "yozora"
    root = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (root if root.is_absolute() else Path.home() / ".local" / "share") / "yozora"


class Settings(BaseSettings):
    """Everything that can be chosen; nothing needs to be."""

    model_config = SettingsConfigDict(env_prefix="YOZORA_", frozen=True, extra="forbid")

    # where
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    data: Path = Field(default_factory=_home)
    """A folder for the database, the files and scratch, where nothing else is said."""
    database_url: str = ""
    """sqlite:///FILE or postgresql://…; empty: SQLite in `data`."""
    storage: str = ""
    """A folder or s3://BUCKET/PREFIX; empty: a folder in `data`."""

    # who
    accounts: bool = False
    """Keys and sign-in. Without, there is one user, and the service is bound to this machine."""
    hosts: str = ""
    """Names besides localhost that requests may be addressed to in single-user mode, separated by commas."""
    proxies: str = "127.0.0.1"
    """Addresses or networks of the proxies before us, separated by commas, or *: who they say is asking, and by http or
    https, is believed."""
    session_days: float = Field(default=30, gt=0)

    # what is made
    model: str = "mini"
    models: str = ""
    """Further models, names or folders, separated by commas."""
    aliases: str = "sora-2,sora-2-pro,sora-2-2025-10-06,sora-2-pro-2025-10-06,sora-2-2025-12-08"
    """Names under which clients know `model`."""
    device: str = "auto"
    memory_gb: float = Field(default=0, ge=0)
    """For loaded models, a worker; 0: two models, whatever their size."""

    rewriter: str = ""
    """Who puts prompts into the model's own words: mini, openai:MODEL@URL, a folder, or none; empty: mini for the
    shipped model, none for others."""

    # the queue
    slots: int = Field(default=1, ge=1, le=64)
    """Jobs that a worker runs at a time."""
    batch: int = Field(default=8, ge=1, le=64)
    """How many of them are sampled in one pass, at most; of videos larger than the model was trained on, as many fewer.
    1: each by itself."""
    workers: int = Field(default=1, ge=0, le=1)
    """Workers inside `yozora serve`: 1, or 0 where others do the work."""
    queue_limit: int = Field(default=1000, ge=1)
    """Waiting jobs of all accounts, from which on more are refused."""
    poll_seconds: float = Field(default=0.2, ge=0.02, le=60)
    heartbeat_seconds: float = Field(default=2.0, gt=0, le=60)
    dead_seconds: float = Field(default=15.0, gt=0)
    """After so long without a heartbeat another worker takes a worker's jobs over."""
    attempts: int = Field(default=6, ge=1)
    """Workers that a job may lose before it counts as failed."""

    # limits and ages
    max_upload_mb: float = Field(default=256, gt=0)
    max_pixels: int = Field(default=2**26, ge=1)
    """Of a frame that is uploaded."""
    upload_hours: float = Field(default=24, gt=0)
    """How long what was uploaded can be used."""
    sweep_seconds: float = Field(default=60, gt=0)
    """From one clean-up of what has expired to the next."""
    orphan_seconds: float = Field(default=3600, gt=0)
    """The age from which on a file that nothing refers to is removed."""

    # webhooks
    webhook_attempts: int = Field(default=8, ge=1, le=20)
    webhook_interval: float = Field(default=2.0, gt=0)
    """Seconds before the second attempt; doubled each time."""
    webhook_private: bool = False
    """Whether webhooks may go to private addresses (always in single-user mode)."""

    @property
    def url(self) -> str:
        """The database's address, as SQLAlchemy takes it."""
        if not self.database_url:
            return f"sqlite:///{self.data / 'yozora.db'}"
        for prefix in ("postgresql://", "postgres://"):
            if self.database_url.startswith(prefix):
                return "postgresql+psycopg://" + self.database_url.removeprefix(prefix)
        return self.database_url

    @property
    def files(self) -> str:
        """Where files are kept: a folder, or an s3:// address."""
        return self.storage or str(self.data / "files")

    @property
    def scratch(self) -> Path:
        """Where a worker keeps what it is working on."""
        return self.data / "scratch"

    @property
    def max_upload(self) -> int:
        """In bytes, of a whole request."""
        return int(self.max_upload_mb * 2**20)

    @property
    def known_models(self) -> list[str]:
        """Names or folders of the models that may be asked for; the first is used where none is."""
        return list(dict.fromkeys([self.model, *_listed(self.models)]))

    @property
    def names(self) -> dict[str, str]:
        """Every name a client may give, with the model that is meant."""
        return dict.fromkeys(_listed(self.aliases), self.model) | {name: name for name in self.known_models}

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """Names that requests may be addressed to in single-user mode."""
        return frozenset({"localhost", "127.0.0.1", "[::1]", *_listed(self.hosts)})

    def check(self) -> None:
        """Raises ConfigError for settings that do not go together."""
        if not self.accounts and not _loopback(self.host):
            raise ConfigError(f"without accounts anyone could use {self.host}: bind to 127.0.0.1, or use --accounts")
        if not self.url.startswith(("sqlite:///", "postgresql+psycopg://")):
            raise ConfigError(
                f"{self.url.split('://')[0][:40]}:// is no known database: use postgresql:// or sqlite:///"
            )
        if "://" in self.files and not self.files.startswith("s3://"):
            raise ConfigError(f"{self.files.split('://')[0][:40]}:// is no known storage: use s3:// or a folder")
        if self.dead_seconds < 2 * self.heartbeat_seconds:
            raise ConfigError(
                "dead_seconds must be at least twice heartbeat_seconds: else living workers count as dead"
            )


def read_settings(**given: Any) -> Settings:
    """The settings, those that are given before those of the environment; None is not given. Raises ConfigError."""
    try:
        settings = Settings(**{key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        raise ConfigError(f"{name}: {first['msg']} (--{name.replace('_', '-')} or YOZORA_{name.upper()})") from None
    settings.check()
    return settings


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
