"""Runs the migrations on the connection that `Database.migrate` hands over; `alembic revision` works in a scratch
file."""

import sqlalchemy as sa
from alembic import context

from yozora.serve.tables import Base


def run(connection: sa.Connection) -> None:
    """Our tables only: DBOS's, in the same database, are its own."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        version_table="yozora_version",
        render_as_batch=True,
        include_name=lambda name, kind, _parents: kind != "table" or name in Base.metadata.tables,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with sa.create_engine(context.config.get_main_option("sqlalchemy.url") or "sqlite://").connect() as opened:
        run(opened)
        opened.commit()
