"""What runs wait for, and what events say to runs that are under way."""

import sqlalchemy as sa
from alembic import op

from eventwright.runs.schema import Json, UtcDateTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

OPEN, KEPT, LATE = sa.text("state = 'open'"), sa.text("wait_id IS NULL"), sa.text("late_for IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "waits",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("workflow", sa.String(length=128), nullable=False),
        sa.Column("node", sa.String(length=256), nullable=False),
        sa.Column("visit", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("types", sa.Text(), nullable=False),
        sa.Column("key", sa.String(length=256), nullable=True),
        sa.Column("deadline", UtcDateTime(), nullable=True),
        sa.Column("asked", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("answered_by", sa.String(length=64), nullable=True),
        sa.Column("opened_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_waits"),
    )
    op.create_index("ix_waits_run_id", "waits", ["run_id"])
    op.create_index("ix_waits_workflow_key", "waits", ["workflow", "key", "opened_at"])
    line = ["workflow", "key", "opened_at", "id"]
    op.create_index("ix_waits_open", "waits", line, sqlite_where=OPEN, postgresql_where=OPEN)
    op.create_index("ix_waits_answered_by", "waits", ["answered_by"])
    op.create_table(
        "signals",
        sa.Column("event_uid", sa.String(length=64), nullable=False),
        sa.Column("workflow", sa.String(length=128), nullable=False),
        sa.Column("type", sa.String(length=512), nullable=False),
        sa.Column("key", sa.String(length=256), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("wait_id", sa.String(length=64), nullable=True),
        sa.Column("late_for", sa.String(length=64), nullable=True),
        sa.Column("input", Json, nullable=True),
        sa.PrimaryKeyConstraint("event_uid", "workflow", name="pk_signals"),
    )
    kept = ["workflow", "key", "at"]
    op.create_index("ix_signals_kept", "signals", kept, sqlite_where=KEPT, postgresql_where=KEPT)
    op.create_index("ix_signals_late_for", "signals", ["late_for"], sqlite_where=LATE, postgresql_where=LATE)


def downgrade() -> None:
    op.drop_table("signals")
    op.drop_table("waits")
