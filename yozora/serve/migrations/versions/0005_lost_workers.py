"""How many workers a job has lost"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this state."""
    op.add_column("jobs", sa.Column("lost", sa.BigInteger(), server_default="0", nullable=False))


def downgrade() -> None:
    """From this state."""
    op.drop_column("jobs", "lost")
