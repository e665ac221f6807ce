"""The tables. Times are seconds since 1970 (UTC); ids are "video_…", "file_…" and so on, unguessable."""

from __future__ import annotations

import secrets
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = [
    "Account",
    "ApiKey",
    "Attempt",
    "Base",
    "Character",
    "Delivery",
    "Favourite",
    "Folder",
    "Job",
    "Lineage",
    "Place",
    "Preview",
    "SignIn",
    "Upload",
    "Usage",
    "Webhook",
    "WorkerRow",
    "new_id",
]

# What a job can be. An admitted job is queued for the workers, one that is not waits for its account's turn.
QUEUED, RUNNING, COMPLETED, FAILED, CANCELLED = "queued", "in_progress", "completed", "failed", "cancelled"
UNFINISHED = (QUEUED, RUNNING)


def new_id(kind: str) -> str:
    """An id that cannot be guessed, with its kind in front."""
    return f"{kind}_{secrets.token_hex(16)}"


class Base(DeclarativeBase):
    """What all tables share."""

    type_annotation_map = {dict[str, Any]: sa.JSON, list[str]: sa.JSON, float: sa.Double, int: sa.BigInteger}  # noqa: RUF012


class Account(Base):
    """Somebody who makes videos. The local mode's one user has no address and no password."""

    __tablename__ = "accounts"
    id: Mapped[str] = mapped_column(primary_key=True)
    email: Mapped[str | None] = mapped_column(unique=True)
    password: Mapped[str | None]
    birth_year: Mapped[int | None]
    role: Mapped[str]
    plan: Mapped[str]
    created_at: Mapped[float]
    disabled: Mapped[bool] = mapped_column(default=False)


class ApiKey(Base):
    """A key, of which only the hash is kept; `hint` is its end, to tell keys apart."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(sa.ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    name: Mapped[str]
    hash: Mapped[str] = mapped_column(unique=True)
    hint: Mapped[str]
    created_at: Mapped[float]
    used_at: Mapped[float | None]


class SignIn(Base):
    """Somebody's signed-in browser, by the hash of its token."""

    __tablename__ = "sign_ins"
    hash: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(sa.ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[float]
    expires_at: Mapped[float]


class Attempt(Base):
    """Somebody tried to sign in, or up; `name` is what that counts for."""

    __tablename__ = "attempts"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(index=True)
    at: Mapped[float] = mapped_column(index=True)


class Folder(Base):
    """A place in somebody's library."""

    __tablename__ = "folders"
    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(sa.ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    name: Mapped[str]
    created_at: Mapped[float]


class Job(Base):
    """A video, from the order to the files. `worker_id` and `attempt` are the one run that may still write to it."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(sa.ForeignKey("accounts.id", ondelete="CASCADE"))
    folder_id: Mapped[str | None] = mapped_column(sa.ForeignKey("folders.id", ondelete="SET NULL"), index=True)
    group_id: Mapped[str] = mapped_column(index=True)
    """The same for the variations of one order."""
    order: Mapped[dict[str, Any]]
    way: Mapped[str]
    prompt: Mapped[str] = mapped_column(sa.Text)
    model: Mapped[str]
    seconds: Mapped[float]
    width: Mapped[int]
    height: Mapped[int]
    status: Mapped[str] = mapped_column(default=QUEUED)
    stage: Mapped[str] = mapped_column(default="")
    progress: Mapped[int] = mapped_column(default=0)
    lane: Mapped[str]
    priority: Mapped[int]
    admitted: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    expires_at: Mapped[float | None] = mapped_column(index=True)
    error_code: Mapped[str | None]
    error: Mapped[str | None] = mapped_column(sa.Text)
    worker_id: Mapped[str | None]
    attempt: Mapped[int] = mapped_column(default=0)
    lost: Mapped[int] = mapped_column(default=0, server_default="0")
    """Workers that died while they made it; one that was told to end handed it back."""
    files: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """{variant: {"key", "type", "bytes"}} of what is stored."""
    recipe: Mapped[dict[str, Any] | None]
    timings: Mapped[dict[str, Any] | None]
    source_id: Mapped[str | None]
    """The video that this one was made from by remix or edit, as OpenAI's object tells it."""
    idempotency: Mapped[str | None]
    fingerprint: Mapped[str | None]
    charged: Mapped[str | None]
    """The month whose allowance this video's seconds came from."""
    public: Mapped[bool] = mapped_column(default=False)
    featured: Mapped[bool] = mapped_column(default=False)

    __table_args__ = (
        sa.Index("jobs_of_account", "account_id", "created_at", "id"),
        sa.Index("jobs_waiting", "status", "admitted", "account_id"),
        sa.Index("jobs_finished", "status", "finished_at"),
        sa.Index("jobs_recent", "public", "status", "created_at", "id"),
        sa.Index("jobs_featured", "featured", "created_at", "id"),
        sa.UniqueConstraint("account_id", "idempotency", name="jobs_once"),
    )


class Mark(Base):
    """Where a video stood that was deleted, or taken out of the feeds: lists go on from there for a while.
    `public` is one that everybody could see."""

    __tablename__ = "marks"
    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(sa.ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    public: Mapped[bool]
    created_at: Mapped[float]
    since: Mapped[float] = mapped_column(index=True)


class Lineage(Base):
    """What a video was made from: `parent_id` is a video, an upload or a character, `role` what it was there for."""

    __tablename__ = "lineage"
    job_id: Mapped[str] = mapped_column(sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    parent_id: Mapped[str] = mapped_column(primary_key=True, index=True)
    role: Mapped[str] = mapped_column(primary_key=True)


class Favourite(Base):
    """A video that somebody likes."""

    __tablename__ = "favourites"
    account_id: Mapped[str] = mapped_column(sa.ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True)
    job_id: Mapped[str] = mapped_column(sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, index=True)
    created_at: Mapped[float]


class Preview(Base):
    """What a video looks like at the step that it has reached: a JPEG."""

    __tablename__ = "previews"
    job_id: Mapped[str] = mapped_column(sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    step: Mapped[int]
    picture: Mapped[bytes] = mapped_column(sa.LargeBinary)


class Upload(Base):
    """A picture or a clip that was sent to us, for a while."""

    __tablename__ = "uploads"
    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(sa.ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    key: Mapped[str]
    digest: Mapped[str]
    bytes: Mapped[int]
    width: Mapped[int]
    height: Mapped[int]
    fps: Mapped[float]
    seconds: Mapped[float | None]
    """As a clip's file says it is."""
    ordered_at: Mapped[float | None]
    """When a video was last ordered with it."""
    created_at: Mapped[float] = mapped_column(index=True)


class Character(Base):
    """A name for a clip of somebody or something that is to come again."""

    __tablename__ = "characters"
    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(sa.ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    name: Mapped[str]
    key: Mapped[str]
    fingerprint: Mapped[str | None]
    """Of the request that made it, where that had an Idempotency-Key."""
    created_at: Mapped[float]


class Webhook(Base):
    """Where to say that a video is finished, and the secret that signs it."""

    __tablename__ = "webhooks"
    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(sa.ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    url: Mapped[str] = mapped_column(sa.Text)
    secret: Mapped[str]
    created_at: Mapped[float]


class Delivery(Base):
    """One event for one webhook."""

    __tablename__ = "deliveries"
    id: Mapped[str] = mapped_column(primary_key=True)
    webhook_id: Mapped[str] = mapped_column(sa.ForeignKey("webhooks.id", ondelete="CASCADE"), index=True)
    event: Mapped[dict[str, Any]]
    status: Mapped[str]
    attempts: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None] = mapped_column(sa.Text)
    created_at: Mapped[float] = mapped_column(index=True)


class Place(Base):
    """One row: the folder, in the storage, of all files that this database knows. Its name is drawn once, so whatever
    else is in the storage, another service's files too, is not ours to sweep."""

    __tablename__ = "places"
    folder: Mapped[str] = mapped_column(primary_key=True)


class Usage(Base):
    """Seconds of video that an account has asked for in a month ("2026-11")."""

    __tablename__ = "usage"
    account_id: Mapped[str] = mapped_column(sa.ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True)
    month: Mapped[str] = mapped_column(primary_key=True)
    seconds: Mapped[float]


class WorkerRow(Base):
    """A worker, and when it was last heard of by the database's clock."""

    __tablename__ = "workers"
    id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    device: Mapped[str]
    version: Mapped[str]
    models: Mapped[list[str]]
    gpu_bytes: Mapped[int | None]
    """What it holds of its GPU's memory; None for a CPU."""
    started_at: Mapped[float]
    seen_at: Mapped[float]
