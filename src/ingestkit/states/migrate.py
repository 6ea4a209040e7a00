"""Bringing a state database to this program's version, and the DDL of a new one. Nobody else knows Alembic."""

from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sql
from alembic import command
from alembic.config import Config
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from ingestkit.states import migrations, tables
from ingestkit.states.engine import StateDatabase, refuse_foreign, version_of

DIALECTS: dict[str, Callable[[], sql.Dialect]] = {"sqlite": sqlite.dialect, "postgresql": postgresql.dialect}
HEADING = f"-- The state database of version {tables.HEAD}, generated from states/tables.py; a test keeps them in step."


def upgrade(url: str, busy_timeout: float = 10.0) -> tuple[str | None, str]:
    """Migrate the database in one transaction; the version it had (None: it was empty) and the one it has."""
    db = StateDatabase.connect(url, busy_timeout)
    try:
        with db.write() as conn:
            before = version_of(conn)
            if before is None:
                refuse_foreign(conn, db.place)
            if before is None or before < tables.HEAD:
                command.upgrade(_alembic(conn), tables.HEAD)
        db.expect_version()
    finally:
        db.close()
    return before, tables.HEAD


def ddl(database: str) -> str:
    """What an administrator runs to make the state by hand: every table, index and the version, as one script."""
    dialect = DIALECTS[database]()
    statements: list[str] = []
    for table in tables.metadata.sorted_tables:
        statements.append(str(CreateTable(table).compile(dialect=dialect)))
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        statements.extend(str(CreateIndex(index).compile(dialect=dialect)) for index in indexes)
    statements.append(f"INSERT INTO {tables.version.name} (version_num) VALUES ('{tables.HEAD}')")
    body = "\n\n".join(f"{statement.strip()};" for statement in statements).replace("\t", "    ")
    return "\n".join(line.rstrip() for line in [HEADING, "", *body.splitlines()]) + "\n"


def _alembic(conn: sql.Connection) -> Config:
    folder = Path(str(migrations.__file__)).parent
    config = Config(attributes={"connection": conn})
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    return config
