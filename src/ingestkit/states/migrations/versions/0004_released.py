"""What became of files at their source when they were done with, and when they were seen first."""

import sqlalchemy as sql
from alembic import op

revision = "0004"
down_revision = "0003"

INSTANT = sql.String(32).with_variant(sql.DateTime(timezone=True), "postgresql")
TEXT = sql.Text().with_variant(sql.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("file_manifest", sql.Column("released", TEXT))
    op.add_column("file_manifest", sql.Column("released_at", INSTANT))
    op.add_column("file_manifest", sql.Column("first_seen", INSTANT))
    op.create_index("file_manifest_by_released", "file_manifest", ["pipeline", "released"])
