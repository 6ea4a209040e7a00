"""Windows: where a done one ended, and from where on they are cut when everything before was taken as done."""

import sqlalchemy as sql
from alembic import op

revision = "0002"
down_revision = "0001"

INSTANT = sql.String(32).with_variant(sql.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    op.add_column("completion", sql.Column("window_end", INSTANT))
    op.add_column("pipeline", sql.Column("cut_from", INSTANT))
