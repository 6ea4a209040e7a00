"""A small project to break: its drops, the acts of its story, and all that must be the same however it came about."""

import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg

from tests.faults.lakes import LAKE_VARIABLE, Objects, Sight, in_a_folder
from tests.faults.processes import Ended, Launcher, Started
from tests.faults.sights import Dropped, Reader, beside
from tests.faults.targets import TARGET_VARIABLE, Ask, Shared, Target, in_a_file
from tests.services import SftpServer

SETTINGS = """
profile: local
state:
  busy_timeout: 2s
  lease: {ttl: 3s, beat: 1s}
profiles:
  local:
    connections:
      drop: {type: local, path: drops}
      lake: {type: local, path: lake}
      warehouse: {type: duckdb, path: warehouse/warehouse.duckdb, lock_timeout: 2s}
"""
SOURCE_VARIABLE = "FAULTS_DROP"
IN_A_FOLDER = "{type: local, path: drops}"
LAKE_HERE = "{type: local, path: lake}"
IN_A_FILE = "{type: duckdb, path: warehouse/warehouse.duckdb, lock_timeout: 2s}"
PIPELINE = """
pipeline: opendata
source:
  type: files
  connection: drop
  batches: {folders: '(?P<batch>\\d{8})', kind: text}
  settle: {quiet: 0s}
  late: load
models:
  a:
    key: [id]
    load: replace
    columns:
      id: {type: string, required: true}
      born: {type: integer}
  b:
    key: [id]
    load: merge
    columns:
      id: {type: string, required: true}
      day: {type: date}
      note: {type: string}
  c:
    key: [id]
    load: append
    columns:
      id: {type: string, required: true}
      amount: {type: 'decimal(10,2)'}
gate: {max_reject_pct: 60, row_delta_pct: never}
validation: {max_file_reject_pct: 90}
retry: {attempts: 2, first_wait: 100ms, cap: 100ms, backoff: none}
"""
FIRST = {
    "20260101/a.csv": "id,born\n1,1970\n2,oops\n3,1990\n",
    "20260101/b.csv": 'id,day,note\nx,2026-01-01,"one\ntwo"\ny,2026-01-02,plain\nz,not a day,bad\ny,2026-01-03,again\n',
    "20260101/c.csv": "id,amount\n1,1.50\n2,2.25,too many\n3,3.00\n",
    "20260101/readme.md": "not data\n",
    "20260108/a.csv": "id,born\n1,1971\n2,1980\n3,1990\n4,\n",
    "20260108/b.csv": "id,day,note\nx,2026-01-08,newer\nw,2026-01-08,new\n",
    "20260108/b_2.csv": 'id,day,note\nw,2026-01-09,"second file, same key"\nv,2026-01-09,new\n',
    "20260108/c.csv": "id,amount\n1,10.00\n4,4.00\n",
    "20260115/a.csv": "id,born\n1,1972\n5,2000\n6,x\n",
    "20260115/b.csv": "id,day,note\nx,2026-01-15,newest\nu,2026-01-15,new\n",
}
CHANGED = {
    # Restated in the middle, where newer content stands; restated at the end; late into a batch; a late batch.
    "20260108/a.csv": "id,born\n1,1871\n2,1880\n",
    "20260108/b.csv": "id,day,note\nx,2026-02-08,restated too late\nt,2026-02-08,new with the restatement\n",
    "20260115/a.csv": "id,born\n1,1973\n5,2001\n6,2002\n7,bad\n",
    "20260101/c_2.csv": "id,amount\n7,7.00\n8,none\n",
    "20260105/b.csv": "id,day,note\nx,2026-01-05,late\ns,2026-01-05,late but new\n",
    "20260105/c.csv": "id,amount\n9,9.00\n",
}
FOURTH = {
    "20260122/a.csv": "id,born\n1,1974\n8,1\n",
    "20260122/b.csv": "id,day,note\nx,2026-01-22,fourth\nr,bad,bad\n",
    "20260122/c.csv": 'id,amount\n1,"1,00"\n2,22.00\n',
}
RUN = ("run", "opendata")
STAGES = tuple((stage, "opendata") for stage in ("extract", "validate", "load", "gate", "clean"))


@dataclass(frozen=True, slots=True)
class Act:
    """What is dropped, and the commands given then."""

    drops: Mapping[str, str]
    commands: tuple[tuple[str, ...], ...]


ACTS = (Act(FIRST, (RUN,)), Act(CHANGED, (RUN,)), Act(FOURTH, STAGES))

LEDGER = (
    "SELECT path, version, batch, model, status, size, sha256, read, valid, rejected, loaded, reason FROM file_manifest"
)
COMPLETIONS = "SELECT batch, model, status, mode, generation, digest, settings, counts FROM completion"
QUARANTINE = (
    "SELECT batch, model, path, \"column\", code, sum(count) FROM quarantine WHERE status = 'open' "
    'GROUP BY batch, model, path, "column", code'
)
OPEN = "SELECT run_id, model FROM run_model WHERE open_key IS NOT NULL"
# Warehouses spell the same names in upper case or in lower.
TABLES = "SELECT lower(table_name) FROM information_schema.tables WHERE lower(table_schema) IN ('public', 'main')"
COLUMNS = """
    SELECT lower(column_name) FROM information_schema.columns
    WHERE lower(table_schema) IN ('public', 'main') AND lower(table_name) = '{table}' ORDER BY ordinal_position
"""
RECEIPTS = "SELECT model, batch, generation, digest, settings, mode FROM {table}"


def behind_a_server(server: SftpServer) -> str:
    """The settings of a drop that the same folder is through a server."""
    known = server.folder / "known_hosts"
    known.write_text(server.known())
    place = f"host: 127.0.0.1, port: {server.port}, user: {server.user}, path: '${{env:{SOURCE_VARIABLE}}}'"
    return f"{{type: sftp, {place}, key: {server.folder}/client, known_hosts: {known}}}"


@dataclass(frozen=True, slots=True)
class World:
    folder: Path
    launcher: Launcher = field(repr=False)
    shared: Shared | None = None
    """Where the state is, if not in a file below the folder."""
    target: Target | None = None
    """Where the target is, if not in a file below the folder."""
    source: SftpServer | None = None
    """Which server the drops are read through, and moved within when they are done with."""
    objects: Objects | None = None
    """Where the lake is, if not in a folder below the folder."""
    dropped: Dropped = field(default_factory=Dropped, repr=False)
    reader: Reader = field(default_factory=Reader, repr=False)
    """Looks at the lake while any process works on it."""

    @classmethod
    def made(
        cls,
        folder: Path,
        launcher: Launcher,
        shared: Shared | None = None,
        target: Target | None = None,
        source: SftpServer | None = None,
        objects: Objects | None = None,
    ) -> "World":
        (folder / "config/pipelines").mkdir(parents=True)
        settings = SETTINGS if target is None else SETTINGS.replace(IN_A_FILE, target.settings())
        settings = settings if source is None else settings.replace(IN_A_FOLDER, behind_a_server(source))
        settings = settings if objects is None else settings.replace(LAKE_HERE, objects.settings())
        (folder / "config/settings.yaml").write_text(settings)
        world = cls(folder, launcher, shared, target, source, objects)
        world.lets_go(None if source is None else "{move: done}")
        return world

    def lets_go(self, after: str | None) -> None:
        """What becomes of files at the source when their batch is done."""
        said = "" if after is None else f"  after_success: {after}\n"
        pipeline = PIPELINE.replace("  late: load\n", f"  late: load\n{said}")
        (self.folder / "config/pipelines/opendata.yaml").write_text(pipeline)

    def copied(self, folder: Path) -> "World":
        """The same at this moment, elsewhere; times of files are kept, since the ledger knows them."""
        shutil.copytree(self.folder, folder, symlinks=True)
        objects, dropped = self.objects and self.objects.copied(), Dropped(set(self.dropped.hashes))
        shared, target = self.shared and self.shared.copied(), self.target and self.target.copied(objects)
        return World(folder, self.launcher, shared, target, self.source, objects, dropped)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def database(self) -> Path:
        return self.state / "ingestkit.db"

    @property
    def lake(self) -> Path:
        return self.folder / "lake"

    @property
    def warehouse(self) -> Path:
        return self.folder / "warehouse/warehouse.duckdb"

    @property
    def queue(self) -> Path:
        return self.state / "pending_updates.jsonl"

    def drop(self, files: Mapping[str, str | bytes]) -> None:
        for name, content in files.items():
            path = self.folder / "drops" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.dropped.learn(self.folder / "drops")

    def start(self, *arguments: str, environ: Mapping[str, str] | None = None, **fault: str) -> Started:
        """Begin a command; `kill`, `freeze` and `record` say what happens to it, and where."""
        places = {"INGESTKIT__STATE__URL": self.shared.url} if self.shared else {}
        places |= {TARGET_VARIABLE: self.target.place, **self.target.environment} if self.target else {}
        places |= {SOURCE_VARIABLE: str(self.folder / "drops")} if self.source else {}
        places |= {LAKE_VARIABLE: self.objects.place} if self.objects else {}
        self.dropped.learn(self.folder / "drops")
        started = self.launcher.start(self.folder, arguments, fault, {**places, **(environ or {})})
        return replace(started, watching=beside(started.pid, self.reader, self.listing, self.known))

    def call(self, *arguments: str, environ: Mapping[str, str] | None = None, **fault: str) -> Ended:
        return self.start(*arguments, environ=environ, **fault).wait()

    def does(self, *arguments: str) -> Ended:
        """A command that must succeed."""
        ended = self.call(*arguments)
        assert ended.code == 0, f"{' '.join(arguments)}: {ended}"
        return ended

    def play(self, act: Act) -> None:
        self.drop(act.drops)
        for command in act.commands:
            self.does(*command)

    def forget_shortcuts(self) -> None:
        """Remove what is only a shortcut: the queue, the sidecars for people, and what was kept at hand.

        Where the state is elsewhere, nothing in its folder is more than that; where target and lake are too, that is
        all that a worker's disk holds of the work.
        """
        if self.shared:
            shutil.rmtree(self.state, ignore_errors=True)
            return
        self.queue.unlink(missing_ok=True)
        for name in ("runs", "scratch"):
            shutil.rmtree(self.state / name, ignore_errors=True)

    def expire_leases(self) -> None:
        """Let the time of all leases pass at once."""
        passed = "UPDATE lease SET expires = '2000-01-01T00:00:00.000000Z' WHERE expires IS NOT NULL"
        if self.shared:
            with psycopg.connect(self.shared.url) as server:
                server.execute(passed)
            return
        with closing(sqlite3.connect(self.database, timeout=10)) as db, db:
            db.execute(passed)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        if self.shared:
            with psycopg.connect(self.shared.url) as db:
                return db.execute(query).fetchall()
        with closing(sqlite3.connect(self.database)) as file:
            return file.execute(query).fetchall()

    def targeted(self) -> AbstractContextManager[Ask]:
        """The target, to be asked."""
        return in_a_file(self.warehouse) if self.target is None else self.target.opened()

    def listing(self) -> AbstractContextManager[Callable[[], Iterator[Sight]]]:
        """What readers of the lake see."""
        return in_a_folder(self.lake)() if self.objects is None else self.objects.listing()

    def known(self, sha256: str) -> bool:
        """Whether something like it ever lay at the source."""
        return self.dropped.knows(self.folder / "drops", sha256)

    # --- what is there -----------------------------------------------------------------------------------------------

    def seen(self) -> dict[str, Any]:
        """All that must be equal to an undisturbed world's."""
        found: dict[str, Any] = {
            "ledger": _rows(self.rows(LEDGER)),
            "completions": _rows(self.rows(COMPLETIONS)),
            "rejects": _rows(self.rows(QUARANTINE)),
            "open": _rows(self.rows(OPEN)),
        }
        known = {run for (run,) in self.rows("SELECT run_id FROM pipeline_run")}
        with self.targeted() as ask:
            if self.target and self.target.runs:
                states = set(self.rows("SELECT run_id, status FROM pipeline_run"))
                found["runs not shown"] = sorted(states ^ set(ask(self.target.runs)))
            receipts = self.target.receipts if self.target else "ingestkit_receipt"
            found["receipts"] = _rows(ask(RECEIPTS.format(table=receipts)))
            tables = sorted(name for (name,) in ask(TABLES))
            found["tables"] = tables
            for table in (name for name in tables if not name.startswith("ingestkit_")):
                columns = [name for (name,) in ask(COLUMNS.format(table=table)) if name != "_run_id"]
                found[f"rows of {table}"] = _rows(ask(f"SELECT {', '.join(columns)} FROM {table}"))
                runs = {run for (run,) in ask(f"SELECT DISTINCT _run_id FROM {table}")}
                found[f"unknown runs of {table}"] = sorted(runs - known)
        found["source"] = self.at_the_source()
        mirror = json.loads((self.state / "mirror/opendata.json").read_text())
        found["checkpoint"] = mirror["checkpoint"]
        found["mirror"] = {name: {**one, "at": None} for name, one in mirror["models"].items()}
        return found

    def at_the_source(self) -> list[str]:
        """The files of the drops with their bytes; what is kept of a later version bears its number, drawn by lot."""
        drops = self.folder / "drops"
        files = [path for path in drops.rglob("*") if path.is_file()]
        names = [re.sub(r"\.[0-9a-f]{16}(?=$|\.)", ".number", str(path.relative_to(drops))) for path in files]
        return sorted(f"{name}: {path.read_bytes()!r}" for name, path in zip(names, files, strict=True))

    def debris(self) -> list[str]:
        """Files nobody needs, wherever they lie. What is in the lake must be whole, and as it was seen before."""
        with self.listing() as published:
            self.reader.look_again(published(), self.known)
        self.reader.is_content()
        registered = {path for (path,) in self.rows("SELECT path FROM artifact WHERE status != 'removed'")}
        registered |= {raw for (raw,) in self.rows("SELECT raw FROM file_manifest WHERE raw IS NOT NULL")}
        found = (str(path.relative_to(self.lake)) for path in self.lake.rglob("*") if path.is_file())
        lake = set(found) if self.objects is None else self.objects.names()
        # What a kill leaves of a probe of the lake goes when it is an hour old.
        kept = ("_runs/", "_decisions/", "_layouts/", "_inflight/_check/")
        left = {name for name in lake if not name.startswith(kept)} - registered
        lost = {f"missing: {name}" for name in registered - lake}
        if self.queue.exists() and not self.queue.stat().st_size:
            # Made by an append that found no space for its line.
            self.queue.unlink()
        expected = {"mirror/opendata.json"}
        expected |= set() if self.shared else {"ingestkit.db", "ingestkit.db-wal", "ingestkit.db-shm"}
        state = {str(path.relative_to(self.state)) for path in self.state.rglob("*") if path.is_file()}
        # A copy for people that a kill left half written lies beside it, unseen; the next one is written anew.
        state = {name for name in state if not name.startswith("runs/") and not name.endswith(".tmp")} - expected
        beside = self.warehouse.parent.iterdir() if self.target is None else ()
        warehouse = {path.name for path in beside} - {self.warehouse.name}
        return sorted(left | lost | state | warehouse)


def _rows(rows: Sequence[Sequence[Any]]) -> list[str]:
    return sorted(repr(tuple(row)) for row in rows)


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What is not the same, one line each."""
    told = []
    for name in sorted({*expected, *found}):
        wanted, there = expected.get(name), found.get(name)
        if wanted == there:
            continue
        if isinstance(wanted, list) and isinstance(there, list):
            told += [f"{name}: lost {one}" for one in _without(wanted, there)]
            told += [f"{name}: added {one}" for one in _without(there, wanted)]
        else:
            told.append(f"{name}: {there} where {wanted} was expected")
    return told


def alike(expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Fail, with one line for each difference."""
    told = differences(expected, found)
    assert not told, "\n" + "\n".join(told)


def without_generations(seen: Mapping[str, Any]) -> dict[str, Any]:
    """A batch that failed is done by a new attempt, which means the next generation of it."""
    numbers = {
        "completions": r"^(\('[^']+', '[^']+', '[^']+', '[^']+'), \d+",
        "receipts": r"^(\('[^']+', '[^']+'), \d+",
    }
    lists = {name: [re.sub(number, r"\1", row) for row in seen[name]] for name, number in numbers.items()}
    mirror = {name: {**one, "generation": None} for name, one in seen["mirror"].items()}
    return {**seen, **lists, "mirror": mirror}


def _without(some: list[str], others: list[str]) -> list[str]:
    left = list(others)
    found = []
    for one in some:
        if one in left:
            left.remove(one)
        else:
            found.append(one)
    return found
