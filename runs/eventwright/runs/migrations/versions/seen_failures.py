"""What of a call a node has seen fail, to be shown the same again when the node runs again."""

import sqlalchemy as sa
from alembic import op

from eventwright.runs.schema import Json

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("effects", sa.Column("failures", Json, nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("effects", schema=None) as batch_op:
        batch_op.drop_column("failures")
