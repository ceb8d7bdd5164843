"""When runs begin: those that are held back, those that newer ones take the place of, and events gathered into one."""

import sqlalchemy as sa
from alembic import op

from eventwright.runs.schema import Json, UtcDateTime

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "flows",
        sa.Column("scope", sa.String(length=64), nullable=False),
        sa.Column("workflow", sa.String(length=128), nullable=False),
        sa.Column("key", sa.String(length=256), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("first_at", UtcDateTime(), nullable=False),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("slots", Json, nullable=True),
        sa.PrimaryKeyConstraint("scope", name="pk_flows"),
    )
    op.create_table(
        "successors",
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("successor", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_successors"),
    )
    op.create_table(
        "run_events",
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("event_uid", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "position", name="pk_run_events"),
    )
    op.create_index("ix_run_events_event_uid", "run_events", ["event_uid"])


def downgrade() -> None:
    op.drop_index("ix_run_events_event_uid", "run_events")
    op.drop_table("run_events")
    op.drop_table("successors")
    op.drop_table("flows")
