"""How long uploads are, under which request a character was made, what workers hold of their GPUs"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this state."""
    op.add_column("uploads", sa.Column("seconds", sa.Double(), nullable=True))
    op.add_column("characters", sa.Column("fingerprint", sa.String(), nullable=True))
    op.add_column("workers", sa.Column("gpu_bytes", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """From this state."""
    op.drop_column("workers", "gpu_bytes")
    op.drop_column("characters", "fingerprint")
    op.drop_column("uploads", "seconds")
