"""What a run needs in daily use: its order among others, its graph, its trace, and when its data expired."""

import sqlalchemy as sa
from alembic import op

from eventwright.runs.schema import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

FINISHED = "state IN ('completed', 'cancelled')"
PARTIAL = (
    ("ix_events_unexpired", "events", "received_at", "expired_at IS NULL"),
    ("ix_runs_unpruned", "runs", "updated_at", f"pruned_at IS NULL AND {FINISHED}"),
    ("ix_runs_unexpired", "runs", "updated_at", f"expired_at IS NULL AND {FINISHED}"),
)
IN_LINE = sa.text("turn IS NOT NULL")


def upgrade() -> None:
    op.add_column("events", sa.Column("expired_at", UtcDateTime(), nullable=True))
    op.add_column("runs", sa.Column("serial_key", sa.String(length=256), nullable=True))
    op.add_column("runs", sa.Column("fingerprint", sa.String(length=64), nullable=True))
    op.add_column("runs", sa.Column("trace", sa.String(length=64), nullable=True))
    op.add_column("runs", sa.Column("idle", sa.Integer(), server_default="0", nullable=False))
    op.add_column("runs", sa.Column("pruned_at", UtcDateTime(), nullable=True))
    op.add_column("runs", sa.Column("expired_at", UtcDateTime(), nullable=True))
    op.add_column("runs", sa.Column("turn", sa.Integer(), nullable=True))
    op.add_column("runs", sa.Column("stood_at", sa.String(length=64), nullable=True))
    line = ["workflow", "serial_key", "turn", "created_at", "id"]
    op.create_index("ix_runs_in_line", "runs", line, sqlite_where=IN_LINE, postgresql_where=IN_LINE)
    op.create_table(
        "graphs",
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("workflow", sa.String(length=128), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("structure", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_graphs"),
    )
    for name, table, column, condition in PARTIAL:
        where = sa.text(condition)
        op.create_index(name, table, [column], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    op.drop_table("graphs")
    for name, table, _, _ in PARTIAL:
        op.drop_index(name, table)
    op.drop_index("ix_runs_in_line", "runs")
    with op.batch_alter_table("runs", schema=None) as batch_op:
        for name in ("stood_at", "turn", "expired_at", "pruned_at", "idle", "trace", "fingerprint", "serial_key"):
            batch_op.drop_column(name)
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_column("expired_at")
