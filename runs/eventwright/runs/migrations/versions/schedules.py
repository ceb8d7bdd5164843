"""How far each schedule was seen to."""

import sqlalchemy as sa
from alembic import op

from eventwright.runs.schema import UtcDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "schedules",
        sa.Column("source", sa.String(length=512), nullable=False),
        sa.Column("cron", sa.String(length=256), nullable=False),
        sa.Column("zone", sa.String(length=256), nullable=False),
        sa.Column("adopted_at", UtcDateTime(), nullable=False),
        sa.Column("seen_to", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("source", "cron", "zone", name="pk_schedules"),
    )


def downgrade() -> None:
    op.drop_table("schedules")
