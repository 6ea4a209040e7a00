"""Whether a report of the source said that a file holds changes alone."""

import sqlalchemy as sql
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("file_manifest", sql.Column("changes", sql.Boolean))
