"""Indexes of feeds and of what was finished last"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this state."""
    with op.batch_alter_table("jobs") as batch_op:
        batch_op.drop_index("jobs_public")
        batch_op.create_index("jobs_finished", ["status", "finished_at"], unique=False)
        batch_op.create_index("jobs_recent", ["public", "status", "created_at", "id"], unique=False)
        batch_op.create_index("jobs_featured", ["featured", "created_at", "id"], unique=False)


def downgrade() -> None:
    """From this state."""
    with op.batch_alter_table("jobs") as batch_op:
        batch_op.drop_index("jobs_featured")
        batch_op.drop_index("jobs_recent")
        batch_op.drop_index("jobs_finished")
        batch_op.create_index("jobs_public", ["public", "featured", "created_at"], unique=False)
