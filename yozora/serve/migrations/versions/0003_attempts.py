"""Attempts to sign in and up"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this state."""
    op.create_table(
        "attempts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("attempts") as batch_op:
        batch_op.create_index(batch_op.f("ix_attempts_name"), ["name"], unique=False)
        batch_op.create_index(batch_op.f("ix_attempts_at"), ["at"], unique=False)


def downgrade() -> None:
    """From this state."""
    op.drop_table("attempts")
