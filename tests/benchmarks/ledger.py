"""A project with a long past: one delivery really run, and its rows and folders repeated under other batch keys."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from tests.benchmarks.measure import ROOT, script

FIRST = "20260104_180000"
REPEATED = ("pipeline_run", "run_model", "pipeline_stage", "completion", "file_manifest", "artifact", "quarantine")


def empty_project(folder: Path) -> Path:
    """The sample project with nothing in its drop."""
    shutil.copytree(ROOT / "config", folder / "config", ignore=shutil.ignore_patterns("opendata"))
    drop = folder / "config" / "samples" / "opendata"
    drop.mkdir(parents=True)
    return drop


def long_past(folder: Path, batches: int, *, days_apart: int) -> None:
    """A project in which so many batches were done, the last of them now; each of five files and five models."""
    drop = empty_project(folder)
    shutil.copytree(ROOT / "config" / "samples" / "opendata" / FIRST, drop / FIRST)
    subprocess.run([script("ingestkit"), "run", "opendata"], cwd=folder, check=True, capture_output=True)
    keys = list(_keys(batches - 1))
    _repeat_rows(folder / "state" / "ingestkit.db", keys, days_apart)
    _repeat_receipts(folder / "state" / "warehouse.duckdb", keys)
    for key in keys:
        (drop / key).mkdir()
        for file in (drop / FIRST).iterdir():
            # A link has the size and time the ledger knows.
            os.link(file, drop / key / file.name)
    # The newest batch must not look as if it had only just come.
    an_hour_ago = datetime.now(UTC).timestamp() - 3600
    os.utime(drop, (an_hour_ago, an_hour_ago))


def _keys(count: int) -> Iterator[str]:
    """Older batches, one a day."""
    newest = datetime.strptime(FIRST, "%Y%m%d_%H%M%S").replace(tzinfo=UTC)
    return (f"{newest - timedelta(days=number):%Y%m%d_%H%M%S}" for number in range(1, count + 1))


def _repeat_rows(state: Path, keys: list[str], days_apart: int) -> None:
    db = sqlite3.connect(state)
    ids = [str(found) for (found,) in db.execute("SELECT id FROM file_manifest")]
    with db:
        for table in REPEATED:
            cursor = db.execute(f"SELECT * FROM {table} WHERE pipeline = 'opendata'")
            columns = [column[0] for column in cursor.description]
            rows = cursor.fetchall()
            marks = ", ".join("?" * len(columns))
            statement = f"INSERT INTO {table} VALUES ({marks})"
            for age, key in enumerate(keys, 1):
                back = timedelta(days=age * days_apart)
                # A file's id is its own; the z keeps those made here apart from random ones.
                names = {FIRST: key} | {one: f"{one[:11]}z{age:04x}" for one in ids}
                db.executemany(statement, [_aged(columns, row, names, back) for row in rows])
    db.close()


def _aged(columns: list[str], row: tuple[object, ...], names: dict[str, str], back: timedelta) -> list[object]:
    """The row of another batch, so much older. Sightings and times of files stay: they are what the drop shows."""
    aged: list[object] = []
    for column, value in zip(columns, row, strict=True):
        if column in {"at", "started_at", "ended_at", "touched_at"} and isinstance(value, str):
            then = datetime.fromisoformat(value) - back
            aged.append(then.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
        else:
            aged.append(_renamed(value, names) if isinstance(value, str) else value)
    return aged


def _renamed(text: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        text = text.replace(old, new)
    return text


def _repeat_receipts(warehouse: Path, keys: list[str]) -> None:
    with duckdb.connect(str(warehouse)) as db:
        found = db.execute("SELECT column_name FROM information_schema.columns WHERE table_name = 'ingestkit_receipt'")
        columns = [str(name) for (name,) in found.fetchall()]
        assert {"batch", "run_id"} <= set(columns)
        changed = {name: f"replace({name}, '{FIRST}', key)" for name in ("batch", "run_id")}
        listed = ", ".join(changed.get(name, f'"{name}"') for name in columns)
        db.execute("CREATE TEMP TABLE keys AS SELECT unnest(?) AS key", [keys])
        db.execute(f"INSERT INTO ingestkit_receipt SELECT {listed} FROM ingestkit_receipt, keys")
