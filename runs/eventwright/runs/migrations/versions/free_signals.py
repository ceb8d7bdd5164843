"""What was kept for a wait is found by its type as well, and not where a run was started for it."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

KEPT, FREE = sa.text("wait_id IS NULL"), sa.text("wait_id IS NULL AND input IS NULL")


def upgrade() -> None:
    op.drop_index("ix_signals_kept", "signals")
    line = ["workflow", "key", "type", "at", "event_uid"]
    op.create_index("ix_signals_kept", "signals", line, sqlite_where=FREE, postgresql_where=FREE)


def downgrade() -> None:
    op.drop_index("ix_signals_kept", "signals")
    line = ["workflow", "key", "at"]
    op.create_index("ix_signals_kept", "signals", line, sqlite_where=KEPT, postgresql_where=KEPT)
