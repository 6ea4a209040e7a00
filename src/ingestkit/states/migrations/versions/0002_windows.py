"""Windows: where they begin, and where one ended that is done or was taken as done."""

import sqlalchemy as sql
from alembic import op

revision = "0002"
down_revision = "0001"

INSTANT = sql.String(32).with_variant(sql.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    op.add_column("completion", sql.Column("window_end", INSTANT))
    op.add_column("pipeline", sql.Column("windows_from", INSTANT))
    op.add_column("pipeline", sql.Column("floor_ends", sql.JSON()))
