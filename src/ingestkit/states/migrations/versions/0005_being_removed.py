"""What a clean has let go of and may not have removed is found without a look at every artifact."""

import sqlalchemy as sql
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    few = sql.text("status = 'removing'")
    op.create_index("artifact_being_removed", "artifact", ["pipeline"], sqlite_where=few, postgresql_where=few)
