import os
import platform
import re
import sqlite3
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from ingestkit.cli import version as versions
from ingestkit.cli.main import COMMANDS as LISTED
from ingestkit.cli.main import GROUPS, call, command

ROOT = Path(__file__).resolve().parents[2]
ENGINES = ("alembic", "duckdb", "pyarrow", "sqlalchemy")
HEAVY = ("alembic", "duckdb", "numpy", "pyarrow", "pydantic", "sqlalchemy", "structlog", "tenacity", "yaml")
COMMANDS = (
    *("run", "extract", "validate", "load", "gate", "clean", "backfill", "skip", "pause", "resume"),
    *("manifest", "runs", "state", "queue", "config"),
)
CALL = "import sys; from ingestkit.cli.main import call; code = call(sys.argv[1:])"


def python(script: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "200", "TERMINAL_WIDTH": "200", **environ},
    )


def test_help_names_every_command() -> None:
    shown = python(CALL, "--help")
    for name in COMMANDS:
        assert f" {name} " in shown.stdout
    assert shown.stderr == ""


def test_help_imports_no_heavy_library() -> None:
    shown = python(f"{CALL}; print('imported:', *(set(sys.modules) & set({HEAVY!r})))", "--help")
    assert "imported:\n" in shown.stdout


def test_nothing_said_is_a_question_for_help() -> None:
    assert python(CALL).stdout == python(CALL, "--help").stdout


@pytest.mark.parametrize(
    "command",
    [
        *([one] for one in COMMANDS),
        *(["manifest", one] for one in ("show", "export", "forget")),
        *(["runs", one] for one in ("list", "show", "watch")),
        *(["state", one] for one in ("show", "set", "reset", "adopt", "upgrade")),
        *(["queue", one] for one in ("show", "flush")),
    ],
    ids=" ".join,
)
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call([*command, "--help"]) == 0
    assert f"ingestkit {' '.join(command)} " in capsys.readouterr().out


def test_the_version_is_said_with_those_of_what_is_used_and_nothing_of_it_is_imported() -> None:
    script = f"{CALL}; print(code, *(set(sys.modules) & set({ENGINES!r})))"
    first, *others, last = python(script, "--version").stdout.splitlines()
    assert first == f"ingestkit {version('ingestkit')}"
    told = dict(line.split(" ", 1) for line in others)
    assert told["duckdb"] == version("duckdb")
    assert told["python"] == platform.python_version()
    assert told["sqlite"] == sqlite3.sqlite_version
    assert told["platform"] == platform.platform()
    assert last == "0"


def test_what_any_kind_of_connection_needs_is_named_with_its_version() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    needed = {re.split(r"[\[<>=]", one)[0] for extra, some in extras.items() if extra != "dev" for one in some}
    assert len(needed) > 5
    named = {line.split(" ")[0] for line in versions.told().splitlines()}
    assert needed <= named


@pytest.mark.parametrize("name", [*LISTED, *GROUPS])
def test_what_the_list_says_of_a_command_is_how_its_own_help_begins(name: str) -> None:
    assert command(name).help.startswith({**LISTED, **GROUPS}[name][1])
