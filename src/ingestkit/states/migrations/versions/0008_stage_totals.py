"""What stages of a pipeline have done in all, for meters."""

import sqlalchemy as sql
from alembic import op

revision = "0008"
down_revision = "0007"

KEY = sql.String(255).with_variant(sql.String(collation="C"), "postgresql")
WORDS = sql.String(16).with_variant(sql.String(collation="C"), "postgresql")
INSTANT = sql.String(32).with_variant(sql.DateTime(timezone=True), "postgresql")
COUNTED = ("done", "skipped", "failed", "interrupted", "retries", "bytes")
ROWS = ("rows_read", "rows_valid", "rows_rejected", "rows_loaded")


def upgrade() -> None:
    op.create_table(
        "stage_total",
        sql.Column("pipeline", KEY, primary_key=True),
        sql.Column("model", KEY, primary_key=True),
        sql.Column("stage", WORDS, primary_key=True),
        sql.Column("since", INSTANT, nullable=False),
        sql.Column("at", INSTANT, nullable=False),
        *(sql.Column(name, sql.BigInteger, nullable=False) for name in COUNTED),
        sql.Column("seconds", sql.Float, nullable=False),
        *(sql.Column(name, sql.BigInteger, nullable=False) for name in ROWS),
        sql.Column("last", sql.JSON),
    )
