"""Who may decide and how many must agree, who sent an event, which run takes an effect back."""

import sqlalchemy as sa
from alembic import op

from eventwright.runs.schema import Json

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("events", sa.Column("principal", sa.String(length=256), nullable=True))
    op.add_column("effects", sa.Column("undone_by", sa.String(length=64), nullable=True))
    op.add_column("reviews", sa.Column("people", sa.Integer(), server_default="1", nullable=False))
    op.add_column("reviews", sa.Column("approvers", Json, nullable=True))
    op.add_column("reviews", sa.Column("barred", Json, nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("reviews", schema=None) as batch_op:
        for name in ("barred", "approvers", "people"):
            batch_op.drop_column(name)
    with op.batch_alter_table("effects", schema=None) as batch_op:
        batch_op.drop_column("undone_by")
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_column("principal")
