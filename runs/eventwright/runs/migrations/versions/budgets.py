"""Budgets, and what calls have reserved of them."""

import sqlalchemy as sa
from alembic import op

from eventwright.runs.schema import Money, UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "budgets",
        sa.Column("scope", sa.String(length=64), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("used", Money, nullable=False),
        sa.Column("most", Money, nullable=True),
        sa.Column("opened_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_budgets")),
    )
    with op.batch_alter_table("budgets", schema=None) as batch_op:
        batch_op.create_index("ix_budgets_opened_at_scope", ["opened_at", "scope"], unique=False)

    op.create_table(
        "reservations",
        sa.Column("effect_key", sa.String(length=64), nullable=False),
        sa.Column("budget", sa.String(length=64), nullable=False),
        sa.Column("scope", sa.String(length=64), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("amount", Money, nullable=False),
        sa.Column("settled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("effect_key", "budget", name=op.f("pk_reservations")),
    )


def downgrade() -> None:
    op.drop_table("reservations")
    with op.batch_alter_table("budgets", schema=None) as batch_op:
        batch_op.drop_index("ix_budgets_opened_at_scope")

    op.drop_table("budgets")
