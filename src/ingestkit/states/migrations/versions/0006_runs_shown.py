"""Whether the runs that others are shown are those that there are."""

import sqlalchemy as sql
from alembic import op

revision = "0006"
down_revision = "0005"

WORDS = sql.String(64).with_variant(sql.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("pipeline", sql.Column("runs_shown", WORDS))
