"""What every part of the service works with: settings, database, files, the queue, and what the models can make."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import sqlalchemy as sa
from dbos import DBOSClient, EnqueueOptions
from sqlalchemy.orm import Session

from yozora.create.generator import read_native
from yozora.create.sizes import Native
from yozora.serve.accounts import User, local_user
from yozora.serve.database import Database
from yozora.serve.errors import ApiError
from yozora.serve.known import Known
from yozora.serve.settings import Settings
from yozora.serve.storage import Storage
from yozora.serve.tables import Place

__all__ = ["APPLICATION", "FORMAT", "QUEUE", "WEBHOOKS", "Service", "open_service"]

APPLICATION = "yozora"
QUEUE, WEBHOOKS = "videos", "webhooks"
FORMAT = "videos-1"
"""The version of the workflows, not of the package: any worker may go on with what another version of the package has
begun, until the list of steps means something else; then this changes, and old workers end what they have."""


@dataclass(frozen=True)
class Service:
    """One process's hold on everything that it shares with the others."""

    settings: Settings
    database: Database
    storage: Storage
    known: Known = field(default_factory=Known)
    _natives: dict[str, Native] = field(default_factory=dict)

    @cached_property
    def queue(self) -> DBOSClient:
        """For putting workflows into the queue."""
        return DBOSClient(system_database_url=self.database.url, application_name=APPLICATION, lazy=True)

    @cached_property
    def local(self) -> User:
        """The one user of the single-user mode."""
        return local_user(self.database)

    @cached_property
    def folder(self) -> str:
        """The folder, in the storage, of this service's own files."""
        with self.database.reading() as session:
            return session.scalars(sa.select(Place.folder)).one()

    def enqueue(self, session: Session, workflow: str, queue: str, name: str, priority: int) -> None:
        """Queues a workflow called `name`, its only argument, in the session's transaction; once, however often."""
        options: EnqueueOptions = {
            "workflow_name": workflow,
            "queue_name": queue,
            "workflow_id": name,
            "priority": priority,
            "app_version": FORMAT,
        }
        self.queue.enqueue_in_transaction(session, options, name)

    def unqueue(self, session: Session, name: str) -> None:
        """Takes a workflow out of its queue that no worker has begun, in the session's transaction: what nobody wants
        any more keeps nobody waiting."""
        rows = sa.table(
            "workflow_status", sa.column("workflow_uuid"), sa.column("status"),
            schema=None if self.database.is_sqlite else "dbos",
        )  # fmt: skip
        session.execute(sa.delete(rows).where(rows.c.workflow_uuid == name, rows.c.status == "ENQUEUED"))

    def model(self, name: str | None) -> str:
        """The model that a client means. Raises ApiError for one that there is not."""
        names = self.settings.names
        if name is None:
            return self.settings.model
        if name not in names:
            known = ", ".join(names)
            raise ApiError(400, f"there is no model {name[:80]!r}: use {known}", code="model_not_found", param="model")
        return names[name]

    def native(self, model: str) -> Native:
        """What a model makes. Raises ModelError."""
        if model not in self._natives:
            self._natives[model] = read_native(model)
        return self._natives[model]

    def close(self) -> None:
        """Lets go of the database."""
        if "queue" in self.__dict__:
            self.queue.destroy()
        self.database.close()


def open_service(settings: Settings, migrate: bool = True) -> Service:
    """Database and files, ready. Raises ConfigError where they cannot be reached."""
    database = Database(settings.url)
    if migrate:
        database.migrate()
    return Service(settings, database, Storage(settings.files))
