"""Where videos stood that are not in their lists any more"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this state."""
    op.create_table(
        "marks",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("account_id", sa.String(), sa.ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
    )
    op.create_index("ix_marks_account_id", "marks", ["account_id"])
    op.create_index("ix_marks_since", "marks", ["since"])


def downgrade() -> None:
    """From this state."""
    op.drop_table("marks")
