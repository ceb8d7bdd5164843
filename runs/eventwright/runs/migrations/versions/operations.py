"""What a run needs in daily use: its order among others, its graph, its trace, and when its data expired."""

import sqlalchemy as sa
from alembic import op

from eventwright.runs.schema import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("events", sa.Column("expired_at", UtcDateTime(), nullable=True))
    op.add_column("runs", sa.Column("serial_key", sa.String(length=256), nullable=True))
    op.add_column("runs", sa.Column("fingerprint", sa.String(length=64), nullable=True))
    op.add_column("runs", sa.Column("trace", sa.String(length=64), nullable=True))
    op.add_column("runs", sa.Column("idle", sa.Integer(), server_default="0", nullable=False))
    op.add_column("runs", sa.Column("pruned_at", UtcDateTime(), nullable=True))
    op.create_index("ix_runs_workflow_serial_key_id", "runs", ["workflow", "serial_key", "id"])


def downgrade() -> None:
    op.drop_index("ix_runs_workflow_serial_key_id", "runs")
    with op.batch_alter_table("runs", schema=None) as batch_op:
        for name in ("pruned_at", "idle", "trace", "fingerprint", "serial_key"):
            batch_op.drop_column(name)
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_column("expired_at")
