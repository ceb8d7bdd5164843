"""Each process writes the number of its last commit."""

import sqlalchemy as sa
from alembic import op

from eventwright.runs.schema import UtcDateTime

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "commits",
        sa.Column("writer", sa.String(length=64), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("writer", name="pk_commits"),
    )


def downgrade() -> None:
    op.drop_table("commits")
