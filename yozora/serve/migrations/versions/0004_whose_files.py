"""The folder of a service's own files"""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this state."""
    table = op.create_table(
        "places",
        sa.Column("folder", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("folder"),
    )
    op.bulk_insert(table, [{"folder": f"yozora-{secrets.token_hex(8)}"}])


def downgrade() -> None:
    """From this state."""
    op.drop_table("places")
