"""Runs are numbered in the order they are opened in, since clocks go back."""

import sqlalchemy as sql
from alembic import op

revision = "0003"
down_revision = "0002"

BY_START = """
UPDATE pipeline_run SET number = numbered.place
FROM (
    SELECT run_id, row_number() OVER (PARTITION BY pipeline ORDER BY started_at, attempt) AS place FROM pipeline_run
) AS numbered
WHERE numbered.run_id = pipeline_run.run_id
"""


def upgrade() -> None:
    op.add_column("pipeline_run", sql.Column("number", sql.BigInteger()))
    op.create_index("pipeline_run_by_number", "pipeline_run", ["pipeline", "number"])
    op.execute(BY_START)
