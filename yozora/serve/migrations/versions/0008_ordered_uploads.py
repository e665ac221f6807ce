"""Which uploads videos were ordered with"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this state."""
    op.add_column("uploads", sa.Column("ordered_at", sa.Double()))


def downgrade() -> None:
    """From this state."""
    op.drop_column("uploads", "ordered_at")
