"""The log of what was posted to the door for webhooks."""

import sqlalchemy as sa
from alembic import op

from eventwright.runs.schema import Json, UtcDateTime

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=512), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("received_at", UtcDateTime(), nullable=False),
        sa.Column("last_at", UtcDateTime(), nullable=True),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=True),
        sa.Column("message_id", sa.String(length=512), nullable=True),
        sa.Column("signed_at", UtcDateTime(), nullable=True),
        sa.Column("problem", Json, nullable=True),
        sa.Column("headers", Json, nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("replayed_at", UtcDateTime(), nullable=True),
        sa.Column("replayed_by", sa.String(length=256), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
    )
    op.create_index("ix_deliveries_source_id", "deliveries", ["source", "id"])
    op.create_index("ix_deliveries_received_at", "deliveries", ["received_at"])
    op.create_table(
        "delivered",
        sa.Column("delivery_id", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("event_id", sa.String(length=512), nullable=True),
        sa.Column("event_uid", sa.String(length=64), nullable=True),
        sa.Column("problem", Json, nullable=True),
        sa.PrimaryKeyConstraint("delivery_id", "position", name="pk_delivered"),
    )


def downgrade() -> None:
    op.drop_table("delivered")
    op.drop_index("ix_deliveries_received_at", "deliveries")
    op.drop_index("ix_deliveries_source_id", "deliveries")
    op.drop_table("deliveries")
