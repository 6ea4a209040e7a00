"""Migrations and the tables in code describe one database, and the DDL handed out is that database."""

import re
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy as sql
from alembic import command

from ingestkit.errors import StateError
from ingestkit.states import migrate, tables
from ingestkit.states.engine import StateDatabase

DDL = Path(__file__).parents[2] / "sql" / "state"


def schema(path: Path) -> dict[str, str]:
    """Every table and index as SQLite keeps it, columns and constraints in a comparable order."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    return {name: re.sub(r"\s+", " ", text).replace("( ", "(").replace(" )", ")") for name, text in rows}


def test_migrations_from_nothing_make_the_tables_of_the_code(tmp_path: Path) -> None:
    StateDatabase.open(f"sqlite:///{tmp_path}/made.db", 1).close()
    assert migrate.upgrade(f"sqlite:///{tmp_path}/migrated.db") == (None, tables.HEAD)
    assert schema(tmp_path / "migrated.db") == schema(tmp_path / "made.db")


def test_an_upgrade_of_a_database_at_head_changes_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    StateDatabase.open(url, 1).close()
    before = schema(tmp_path / "state.db")
    assert migrate.upgrade(url) == (tables.HEAD, tables.HEAD)
    assert schema(tmp_path / "state.db") == before


def test_an_upgraded_database_opens(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    migrate.upgrade(url)
    db = StateDatabase.open(url, 1)
    with db.read() as conn:
        assert conn.exec_driver_sql("SELECT version_num FROM ingestkit_version").scalars().all() == [tables.HEAD]
    db.close()


def test_runs_of_an_older_database_are_numbered_in_the_order_they_began(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    db = StateDatabase.connect(url, 1)
    given = {
        **dict.fromkeys(("invocation", "kind", "status", "last_command", "config_hash", "touched_at"), "x"),
        **dict.fromkeys(("models", "config", "counts"), "{}"),
        **{f"phases_{name}": "[]" for name in ("completed", "skipped", "failed", "pending")},
        **dict.fromkeys(("retry", "token"), 1),
    }
    began = [("p", "p.2.1", 1, "2026-01-02"), ("p", "p.1.2", 2, "2026-01-01"), ("p", "p.1.1", 1, "2026-01-01")]
    began.append(("q", "q.1.1", 1, "2026-01-03"))
    with db.write() as conn:
        command.upgrade(migrate._alembic(conn), "0002")
        for pipeline, run, attempt, at in began:
            row = given | {"pipeline": pipeline, "run_id": run, "attempt": attempt, "started_at": f"{at}T00:00:00Z"}
            names = ", ".join(row)
            conn.exec_driver_sql(
                f"INSERT INTO pipeline_run ({names}) VALUES ({', '.join('?' * len(row))})", (*row.values(),)
            )
    db.close()
    migrate.upgrade(url)
    with sqlite3.connect(tmp_path / "state.db") as file:
        numbers = file.execute("SELECT run_id, number FROM pipeline_run ORDER BY pipeline, number").fetchall()
    file.close()
    assert numbers == [("p.1.1", 1), ("p.1.2", 2), ("p.2.1", 3), ("q.1.1", 1)]


def test_a_migration_that_is_not_committed_leaves_no_table_behind(tmp_path: Path) -> None:
    db = StateDatabase.connect(f"sqlite:///{tmp_path}/state.db", 1)
    with suppress(ZeroDivisionError), db.write() as conn:
        command.upgrade(migrate._alembic(conn), tables.HEAD)
        assert "lease" in sql.inspect(conn).get_table_names()
        raise ZeroDivisionError
    db.close()
    assert schema(tmp_path / "state.db") == {}


def test_the_database_of_somebody_else_is_not_upgraded(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "theirs.db")
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(StateError, match="not a state of ingestkit"):
        migrate.upgrade(f"sqlite:///{tmp_path}/theirs.db")
    assert list(schema(tmp_path / "theirs.db")) == ["theirs"]


def test_a_newer_database_is_not_downgraded(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    db = StateDatabase.open(url, 1)
    with db.write() as conn:
        conn.exec_driver_sql("UPDATE ingestkit_version SET version_num = '9999'")
    db.close()
    with pytest.raises(StateError, match="newer"):
        migrate.upgrade(url)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_ddl_in_the_folder_is_that_of_the_code(database: str) -> None:
    assert (DDL / f"{database}.sql").read_text(encoding="utf-8") == migrate.ddl(database)


def test_the_sqlite_ddl_makes_a_state_that_opens(tmp_path: Path) -> None:
    StateDatabase.open(f"sqlite:///{tmp_path}/made.db", 1).close()
    connection = sqlite3.connect(tmp_path / "by_hand.db")
    connection.executescript((DDL / "sqlite.sql").read_text(encoding="utf-8"))
    connection.close()
    StateDatabase.open(f"sqlite:///{tmp_path}/by_hand.db", 1).close()
    assert schema(tmp_path / "by_hand.db") == schema(tmp_path / "made.db")


def test_the_postgresql_ddl_keeps_instants_with_their_zone() -> None:
    text = (DDL / "postgresql.sql").read_text(encoding="utf-8")
    assert "started_at TIMESTAMP WITH TIME ZONE NOT NULL" in text
