"""A small project to run, and what may be asked of it: commands in this process or their own, its state, its target."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import psycopg
import pytest
import yaml

from ingestkit.cli.main import call
from ingestkit.states import tables

SETTINGS: dict[str, Any] = {
    "connections": {
        "drop": {"type": "local", "path": "drops"},
        "lake": {"type": "local", "path": "lake"},
        "warehouse": {"type": "duckdb", "path": "warehouse.duckdb"},
    }
}
PIPELINE: dict[str, Any] = {
    "pipeline": "p",
    "source": {
        "type": "files",
        "connection": "drop",
        "batches": {"folders": r"(?P<batch>\d{8})"},
        "settle": {"quiet": "0s"},
    },
    "models": {
        "a": {"key": ["id"], "load": "replace", "columns": {"id": {"required": True}, "n": {"type": "integer"}}},
        "b": {"key": ["id"], "load": "merge", "columns": {"id": {"required": True}, "d": {"type": "date"}}},
    },
    "gate": {"max_reject_pct": 60, "row_delta_pct": "never"},
    "validation": {"max_file_reject_pct": 80},
    "retry": {"attempts": 3, "first_wait": "10ms", "cap": "20ms"},
}
FIRST = {"20260101/a.csv": "id,n\n1,10\n2,20\n", "20260101/b.csv": "id,d\nx,2026-01-01\ny,2026-01-02\n"}
SECOND = {"20260108/a.csv": "id,n\n1,11\n3,30\n", "20260108/b.csv": "id,d\nx,2026-01-08\nz,2026-01-09\n"}
THIRD = {"20260115/a.csv": "id,n\n1,12\n4,40\n", "20260115/b.csv": "id,d\nx,2026-01-15\n"}
BREAKS = "id,n\n1,one\n2,two\n3,three\n"
"""A file of model `a` in which every record breaks the contract."""
COMMAND = [sys.executable, "-c", "from ingestkit.cli.main import main; main()"]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> list[str]:
        """The lines on standard error that are not of the log."""
        return [line for line in self.err.splitlines() if not line.startswith("{")]

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.err.splitlines() if line.startswith("{")]

    @property
    def answer(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


@dataclass(frozen=True, slots=True)
class World:
    root: Path
    capsys: pytest.CaptureFixture[str] = field(repr=False)
    state_url: str | None = None
    """The state's database where it is a shared one."""
    target_url: str | None = None
    """The warehouse's database where it is a server's."""

    # --- making it ---------------------------------------------------------------------------------------------------

    def set_up(self, changes: Mapping[str, Any] | None = None, pipeline: str = "p") -> None:
        """Write a pipeline: the usual one with `changes` by dotted name; None takes something away."""
        told = changed(PIPELINE | {"pipeline": pipeline}, changes or {})
        path = self.root / "config/pipelines" / f"{pipeline}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(told))

    def settle(self, changes: Mapping[str, Any] | None = None) -> None:
        """Write config/settings.yaml, likewise."""
        (self.root / "config").mkdir(exist_ok=True)
        shared: dict[str, Any] = {"state.url": self.state_url} if self.state_url is not None else {}
        if self.target_url is not None:
            shared["connections.warehouse"] = connection(self.target_url)
        (self.root / "config/settings.yaml").write_text(yaml.safe_dump(changed(SETTINGS, shared | dict(changes or {}))))

    def drop(self, *several: Mapping[str, str | bytes]) -> None:
        for files in several:
            for name, content in files.items():
                path = self.root / "drops" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content if isinstance(content, bytes) else content.encode())

    # --- commands ----------------------------------------------------------------------------------------------------

    def call(self, *arguments: str) -> Ended:
        """A command in this process."""
        self.capsys.readouterr()
        code = call(["--project", str(self.root), *arguments])
        shown = self.capsys.readouterr()
        return Ended(code, shown.out, shown.err)

    def does(self, *arguments: str) -> dict[str, Any]:
        """A command that must succeed, and its answer."""
        ended = self.call(*arguments, "--output", "json")
        assert ended.code == 0, ended.err
        return ended.answer

    def refused(self, code: int, *arguments: str) -> str:
        """A command that must fail with this code, in one clear line and a hint; what it said."""
        ended = self.call(*arguments)
        assert ended.code == code, (ended.code, ended.out, ended.err)
        assert ended.out == ""
        said = ended.told
        assert said[0].startswith("error: "), said
        assert len(said) <= 2, said
        assert all(line.startswith("hint: ") for line in said[1:]), said
        assert "Traceback" not in ended.err
        return "\n".join(said)

    def start(self, *arguments: str, environ: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        """A command in a process of its own."""
        return subprocess.Popen(
            [*COMMAND, "--project", str(self.root), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environ or {})},
        )

    def ended(self, process: "subprocess.Popen[str]", patience: float = 60) -> Ended:
        out, err = process.communicate(timeout=patience)
        return Ended(process.returncode, out, err)

    # --- asking it ---------------------------------------------------------------------------------------------------

    @property
    def database(self) -> Path:
        if self.state_url is not None:
            pytest.skip("the state is no file")
        return self.root / "state/ingestkit.db"

    def state(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        if self.state_url is not None:
            with psycopg.connect(self.state_url) as shared:
                asked = shared.execute(query.replace("?", "%s"), values)
                return asked.fetchall() if asked.description else []
        with closing(sqlite3.connect(self.database)) as db:
            found = db.execute(query, values).fetchall()
            db.commit()
            return found

    def set_clock(self, ahead: timedelta) -> None:
        """Put the clock of a shared state forward; that of a state in a file is its machine's."""
        if self.state_url is None:
            return
        moved = f"SELECT pg_catalog.clock_timestamp() + interval '{ahead.total_seconds()} seconds'"
        self.state(
            f"CREATE OR REPLACE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ {moved} $$"
        )
        name = self.state_url.rpartition("/")[2]
        self.state(f"ALTER DATABASE {name} SET search_path = public, pg_catalog")

    def lose_state(self) -> None:
        """As if its disk had died, and an empty database stood in its place."""
        if self.state_url is None:
            for file in self.database.parent.glob(f"{self.database.name}*"):
                file.unlink()
            return
        for table in tables.metadata.sorted_tables:
            if table is not tables.version:
                self.state(f'TRUNCATE "{table.name}"')

    def make_older(self, table: str, column: str, *, days: int) -> None:
        """Move an instant of every row of a table of the state into the past."""
        older = f"{column} - interval '{days} days'"
        if self.state_url is None:
            older = f"strftime('%Y-%m-%dT%H:%M:%fZ', {column}, '-{days} days')"
        self.state(f"UPDATE {table} SET {column} = {older}")

    def target(self, query: str) -> list[tuple[Any, ...]]:
        if self.target_url is not None:
            with psycopg.connect(self.target_url) as server:
                return server.execute(query).fetchall()
        with duckdb.connect(str(self.root / "warehouse.duckdb"), read_only=True) as target:
            return target.execute(query).fetchall()

    def target_does(self, statement: str) -> None:
        """Somebody else's hand in the target."""
        if self.target_url is not None:
            with psycopg.connect(self.target_url) as server:
                server.execute(statement)
            return
        with duckdb.connect(str(self.root / "warehouse.duckdb")) as target:
            target.execute(statement)

    def table(self, name: str, *columns: str) -> list[tuple[Any, ...]]:
        # Servers sort as people do, and know no ORDER BY ALL.
        found = self.target(f"SELECT {', '.join(columns) or '*'} FROM {name}")
        return sorted(found, key=lambda row: [(one is None, one) for one in row])

    def run_row(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.does("runs", "show", run_id)["run"]
        return found

    def stages(self, run_id: str) -> dict[tuple[str, str], dict[str, Any]]:
        rows = self.does("runs", "show", run_id)["stages"]
        return {(row["stage"], row["model"]): row for row in rows}

    def files(self, *filters: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.does("manifest", "show", *filters)["rows"]
        return found

    def statuses(self, *filters: str) -> dict[str, str]:
        """The newest version's status by path."""
        rows = sorted(self.files(*filters), key=lambda row: row["version"])
        return {row["path"]: row["status"] for row in rows}

    def run_statuses(self) -> dict[str, str]:
        return {row["run_id"]: row["status"] for row in self.does("runs", "list", "--limit", "100")["rows"]}

    def completions(self) -> dict[tuple[str, str], str]:
        rows = self.state("SELECT batch, model, status FROM completion")
        return {(batch, model): status for batch, model, status in rows}

    def checkpoint(self) -> str | None:
        found: str | None = json.loads((self.root / "state/mirror/p.json").read_text())["checkpoint"]
        return found


def connection(url: str) -> dict[str, Any]:
    """The settings of a warehouse in a server's database."""
    said = urlsplit(url)
    place = {"host": said.hostname, "port": said.port, "database": said.path.strip("/"), "user": said.username}
    return {"type": "postgresql", **place, "lock_timeout": "10s"}


def changed(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A tree with values put in, or taken out, by dotted name."""
    found: dict[str, Any] = json.loads(json.dumps(tree))
    for name, value in changes.items():
        *above, last = name.split(".")
        place = found
        for part in above:
            place = place.setdefault(part, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = json.loads(json.dumps(value))
    return found


def batches_of(answer: Mapping[str, Any]) -> list[str]:
    """The batches an answer's results speak of, in order, each once."""
    return list(dict.fromkeys(one["batch"] for one in answer["results"]))


def read_until(process: "subprocess.Popen[str]", text: str) -> Sequence[str]:
    """Lines on standard error up to one that holds the text."""
    assert process.stderr is not None
    lines = []
    for line in iter(process.stderr.readline, ""):
        lines.append(line)
        if text in line:
            return lines
    process.send_signal(signal.SIGKILL)
    raise AssertionError(f"{text!r} was not said: {''.join(lines)}")
