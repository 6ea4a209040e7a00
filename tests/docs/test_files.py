"""What lies beside the code works: configuration loads, SQL runs, hints can be typed."""

import ast
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ingestkit import project
from tests.docs.pages import ROOT
from tests.docs.typed import every_command, split

SQL = sorted((ROOT / "sql").rglob("*.sql"))


def test_every_file_of_the_configuration_is_right_in_every_profile() -> None:
    found = project.examined(ROOT, env_file=Path(os.devnull), environ={})
    assert [one for one in found if one.problems] == []
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "config").glob("**/*.y*ml")}
    assert files == {one.subject.split(",")[0] for one in found}


def test_every_sql_file_is_run_by_one_of_these_tests() -> None:
    """Those of gates are asked by the run that the README begins with, the operator's by the tests of queries."""
    names = [path.relative_to(ROOT).as_posix() for path in SQL]
    found = [name for name in names if not name.startswith(("sql/gate/", "sql/ops/"))]
    grants = [f"sql/grants/{name}.sql" for name in ("state_postgresql", "warehouse_postgresql", "warehouse_snowflake")]
    assert found == ["sql/drive/snowflake.sql", *grants, "sql/state/postgresql.sql", "sql/state/sqlite.sql"]
    assert {path.parent.name for path in SQL if path.parts[-3] == "gate"} == {"opendata"}


def test_the_ddl_for_sqlite_makes_a_state_database() -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript((ROOT / "sql/state/sqlite.sql").read_text(encoding="utf-8"))
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert {"pipeline_run", "file_manifest", "lease"} <= tables


def hints() -> Iterator[tuple[str, str]]:
    """Every command that a message says to type, with `x` for what is filled in, and where it is said."""
    for path in sorted((ROOT / "src").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
                text = node.value
            else:
                continue
            for command in re.findall(r"\bingestkit ((?:[a-z]+ )+[^,;:`()\n]*)", text + " "):
                yield command.strip(), f"{path.name}:{node.lineno}"


def test_every_hint_names_a_command_and_options_there_are() -> None:
    known = every_command()
    found = list(hints())
    assert len(found) > 20
    for said, place in found:
        if said.split()[0] not in {name.split()[0] for name in known}:
            continue
        name, rest = split(said.split())
        options = {option for parameter in known[name].params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= options, (said, place)
