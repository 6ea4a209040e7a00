"""One state in PostgreSQL: brought there from a file, worked on by several machines, with no rights too many."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ingestkit.states import transfer
from tests.integration.world import FIRST, SECOND, World, batches_of, read_until
from tests.services import PostgresServer, postgres

pytestmark = pytest.mark.services

ROOT = Path(__file__).parents[2]
GRANTS = ROOT / "sql/grants/state_postgresql.sql"
# The first process of a machine of its own ignores what would end another, so it is a shell.
APART = ("unshare", "--fork", "--kill-child", "--pid", "--mount-proc", "sh", "-c", '"$@"; exit $?', "sh")
REJECTED = {"20260115/a.csv": "id,n\n1,12\n2,two\n4,40\n", "20260115/b.csv": "id,d\nx,2026-01-15\n"}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres() as started:
        yield started


@pytest.fixture
def url(server: PostgresServer, request: pytest.FixtureRequest) -> str:
    name = f"state_{abs(hash(request.node.name))}"
    server.does(f"CREATE DATABASE {name}")
    return server.url(name)


@pytest.fixture
def filled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> World:
    """A project with its state in a file, in which much has happened."""
    world = World(tmp_path, capsys)
    world.settle()
    world.set_up()
    world.drop(FIRST, SECOND, REJECTED)
    world.does("run")
    world.does("pause", "p", "--reason", "for a while")
    world.does("resume", "p", "--reason", "on again")
    return world


def moved(world: World, url: str) -> World:
    """The project with its state brought into that database."""
    world.does("state", "export", "--to", str(world.root / "state.ndjson"))
    there = World(world.root, world.capsys, url)
    there.settle()
    there.does("state", "upgrade", "--yes")
    there.does("state", "import", str(world.root / "state.ndjson"), "--yes")
    return there


def rows(world: World) -> list[Any]:
    """What an export holds, but for where and when, and who has a lease."""
    ended = world.call("state", "export")
    assert ended.code == 0, ended.err
    found = [json.loads(line) for line in ended.out.splitlines()]
    assert found[0]["kind"] == "state of ingestkit"
    assert found[-1]["rows"]["pipeline_run"] > 0
    return [line for line in found[1:-1] if line["table"] != "lease"]


def ended(lines: list[bytes]) -> bytes:
    """These lines with an end that fits them."""
    counts = dict.fromkeys(transfer.TABLES, 0)
    for line in lines[1:]:
        counts[json.loads(line)["table"]] += 1
    told = {"kind": "end", "rows": counts, "sha256": hashlib.sha256(b"".join(lines)).hexdigest()}
    return b"".join([*lines, json.dumps(told).encode()])


def test_a_state_is_brought_from_a_file_into_a_server_and_back(filled: World, url: str, tmp_path: Path) -> None:
    before = rows(filled)
    there = moved(filled, url)
    assert rows(there) == before
    there.does("state", "export", "--to", str(tmp_path / "back.ndjson"))
    filled.settle({"state.url": "sqlite:///state/back.db"})
    filled.does("state", "import", str(tmp_path / "back.ndjson"), "--yes")
    assert rows(filled) == before


def test_work_goes_on_where_the_state_was_brought_to_and_the_old_one_is_refused(filled: World, url: str) -> None:
    there = moved(filled, url)
    assert there.does("run")["status"] == "nothing new"
    there.drop({"20260122/a.csv": "id,n\n9,90\n"})
    assert batches_of(there.does("run")) == ["20260122"]
    assert there.table("a", "id") == [("9",)]
    filled.settle()
    filled.drop({"20260129/a.csv": "id,n\n8,80\n"})
    assert "it is an older copy" in filled.refused(7, "run")
    assert there.table("a", "id") == [("9",)]


def test_what_was_cut_changed_or_is_none_is_not_imported(filled: World, tmp_path: Path) -> None:
    filled.does("state", "export", "--to", str(tmp_path / "whole.ndjson"))
    whole = (tmp_path / "whole.ndjson").read_bytes()
    lines = whole.splitlines(keepends=True)
    file = next(number for number, line in enumerate(lines) if b'"table":"file_manifest"' in line)
    filled.settle({"state.url": "sqlite:///state/other.db"})
    for content, told in (
        (b"".join(lines[:-1]), "is cut off"),
        (whole[:-20], "is not a JSON object"),
        (whole.replace(b'"version":1,', b'"version":2,', 1), "rows were changed, added or lost"),
        (b"".join([*lines[:file], *lines[file + 1 :]]), "rows were changed, added or lost"),
        (b"".join([*lines[: file + 1], *lines[file:]]), "rows were changed, added or lost"),
        (ended([*lines[: file + 1], lines[file]]), "holds a row that is none of a state"),
        (whole.replace(b'"version":"0', b'"version":"9', 1), "was exported from a state of version 9"),
        (b"id,n\n1,2\n", "is not a JSON object"),
        (b"\xff\xfe\x00", "is not a JSON object"),
        (b"", "is cut off"),
        (b'{"kind":"other"}\n', "is no export of a state"),
    ):
        (tmp_path / "broken.ndjson").write_bytes(content)
        assert told in filled.refused(7, "state", "import", str(tmp_path / "broken.ndjson"), "--yes"), content[:80]
        assert filled.does("runs", "list")["rows"] == []
    assert "cannot be read" in filled.refused(2, "state", "import", str(tmp_path / "nowhere"), "--yes")
    filled.does("state", "import", str(tmp_path / "whole.ndjson"), "--yes")
    said = filled.refused(7, "state", "import", str(tmp_path / "whole.ndjson"), "--yes")
    assert "is not empty: it holds rows of " in said


def test_no_more_rights_than_the_grants_say_are_needed(
    server: PostgresServer, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(tmp_path, capsys, url)
    world.settle()
    world.set_up()
    world.drop(FIRST, SECOND, REJECTED)
    world.does("state", "upgrade", "--yes")
    name = url.rsplit("/", 1)[1]
    for _ in range(2):
        server.does(GRANTS.read_text(), name)
    server.does("CREATE ROLE loader LOGIN IN ROLE ingestkit_runner; CREATE ROLE viewer LOGIN IN ROLE ingestkit_reader")
    loader = World(tmp_path, capsys, server.url(name, "loader"))
    loader.settle()
    loader.does("run")
    loader.does("quarantine", "discard", "p", "--batch", "20260115", "--reason", "not needed", "--yes")
    loader.does("backfill", "p", "--batch", "20260115")
    loader.drop({"20260122/a.csv": "id,n\n9,90\n"})
    loader.does("skip", "p", "--batch", "20260122", "--reason", "never came")
    loader.does("state", "reset", "p", "--reason", "all over again", "--yes")
    loader.does("run")
    loader.does("check", "p")
    with pytest.raises(subprocess.CalledProcessError):
        server.does("UPDATE decision SET reason = 'forged'", f"{name}?user=loader")
    viewer = World(tmp_path, capsys, server.url(name, "viewer"))
    viewer.settle()
    for command in ("runs list", "manifest show", "quarantine list", "state show p", "plan p"):
        viewer.does(*command.split())
    viewer.drop({"20260129/a.csv": "id,n\n9,90\n"})
    assert "permission denied" in viewer.refused(7, "run")
    assert "sql/grants/state_postgresql.sql" in viewer.refused(7, "run")


def test_a_run_that_waits_outlives_a_restart_of_the_server(server: PostgresServer, filled: World, url: str) -> None:
    there = moved(filled, url)
    process = there.start("run", "--wait", "1m", "--every", "100ms")
    read_until(process, "waiting up to 1m")
    server.control("-m", "fast", "stop")
    try:
        read_until(process, "waiting: state database")
    finally:
        server.start()
    there.drop({"20260122/a.csv": "id,n\n1,13\n"})
    ended = there.ended(process)
    assert ended.code == 0, ended
    assert "1 batch done: 20260122" in ended.out


def test_a_server_without_tables_is_not_given_any_by_a_run(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(tmp_path, capsys, url)
    world.settle()
    world.set_up()
    world.drop(FIRST)
    for command in ("run", "extract", "runs list"):
        said = world.refused(3, *command.split())
        assert "has no tables yet" in said
        assert "hint: ingestkit state upgrade" in said
    assert not (tmp_path / "lake").exists()


def machine(folder: Path, capsys: pytest.CaptureFixture[str], url: str) -> World:
    """A project whose state folder and scratch are its own, and all else everybody's."""
    folder.mkdir()
    world = World(folder, capsys, url)
    shared = {
        "connections.drop.path": str(folder.parent / "drops"),
        "connections.lake.path": str(folder.parent / "lake"),
        "connections.warehouse.path": str(folder.parent / "warehouse.duckdb"),
        "connections.warehouse.lock_timeout": "30s",
        "state.lease": {"ttl": "3s", "beat": "1s"},
    }
    world.settle(shared)
    world.set_up()
    return world


@pytest.fixture
def machines(tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str) -> tuple[World, World]:
    one, two = (machine(tmp_path / name, capsys, url) for name in ("one", "two"))
    one.does("state", "upgrade", "--yes")
    for day, number in enumerate(range(1, 7), 1):
        batch = tmp_path / "drops" / f"202601{day:02}"
        batch.mkdir(parents=True)
        (batch / "a.csv").write_text(f"id,n\n1,{number}\n2,{number}\n")
        (batch / "b.csv").write_text(f"id,d\nx,2026-01-{day:02}\nk{number},2026-01-{day:02}\n")
    return one, two


def elsewhere(world: World, *arguments: str, fault: Sequence[str] = ()) -> "subprocess.Popen[str]":
    """A command on another machine: nobody here can see its process, and it sees none of ours."""
    launched = [*APART, sys.executable, "-m", "tests.faults.launch", *fault, "--", "--project", str(world.root)]
    return subprocess.Popen(
        [*launched, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


def last_below(pid: int) -> int:
    """The process that has no other below it."""
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return last_below(int(below[0])) if below else pid


def stopped(pid: int, patience: float = 60) -> None:
    """Wait until the process at its end has stopped itself."""
    until = time.monotonic() + patience
    while Path(f"/proc/{last_below(pid)}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < until, "it did not stop"
        time.sleep(0.02)


def done_once(world: World) -> None:
    """Each batch has one run that published it, and the targets hold what one machine would have left."""
    batches = [f"202601{day:02}" for day in range(1, 7)]
    assert world.state("SELECT batch, model, status FROM completion ORDER BY 1, 2") == [
        (batch, model, "done") for batch in batches for model in ("a", "b")
    ]
    assert world.state("SELECT DISTINCT batch, status FROM pipeline_run ORDER BY 1, 2") == [
        (batch, "SUCCESS") for batch in batches
    ]
    with duckdb.connect(str(world.root.parent / "warehouse.duckdb"), read_only=True) as target:
        assert target.execute("SELECT id, n FROM a ORDER BY 1").fetchall() == [("1", 6), ("2", 6)]
        found = target.execute("SELECT id, day(d), count(*) FROM b GROUP BY ALL ORDER BY 1").fetchall()
        assert found == [*((f"k{day}", day, 1) for day in range(1, 7)), ("x", 6, 1)]
        receipts = "SELECT model, batch, count(*) FROM ingestkit_receipt GROUP BY ALL ORDER BY ALL"
        assert target.execute(receipts).fetchall() == [(model, batch, 1) for model in ("a", "b") for batch in batches]
    assert world.does("run")["status"] == "nothing new"


def test_two_machines_that_begin_at_once_do_each_batch_once(machines: tuple[World, World]) -> None:
    one, two = machines
    started = [elsewhere(world, "run", "--if-locked", "wait:60s") for world in (one, two, one, two)]
    for process in started:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, (out, err)
    done_once(one)


@pytest.mark.parametrize(
    "step",
    [
        "load.committed",
        *(
            pytest.param(step, marks=pytest.mark.matrix)
            for step in ("extract.recorded", "load.rows_written", "gate.begun")
        ),
    ],
)
def test_what_a_machine_leaves_that_dies_is_finished_by_another(machines: tuple[World, World], step: str) -> None:
    one, two = machines
    died = elsewhere(two, "run", fault=("--kill", f"{step}:3"))
    died.communicate(timeout=60)
    assert died.returncode != 0
    # Nobody here can know that it is dead; its lease has to run out.
    assert "is being worked on by process" in one.refused(8, "run")
    one.does("run", "--if-locked", "wait:30s")
    done_once(one)


def test_a_machine_that_froze_publishes_nothing_when_it_wakes(machines: tuple[World, World]) -> None:
    one, two = machines
    frozen = elsewhere(two, "run", "--jobs", "1", fault=("--freeze", "load.intended:2"))
    stopped(frozen.pid)
    one.does("run", "--if-locked", "wait:60s")
    done_once(one)
    os.kill(last_below(frozen.pid), signal.SIGCONT)
    _, err = frozen.communicate(timeout=60)
    assert "no longer holds the lease" in err or "a later owner" in err, err
    done_once(one)


def loaded_of(world: World) -> int:
    """The number that all rows of model `a` carry in the warehouse of all machines."""
    with duckdb.connect(str(world.root.parent / "warehouse.duckdb"), read_only=True) as target:
        [(number,)] = target.execute("SELECT DISTINCT n FROM a").fetchall()
    return int(number)


def test_a_snapshot_put_back_is_a_pin_until_the_newest_is_loaded_again(machines: tuple[World, World]) -> None:
    one, two = machines
    one.does("run")
    known = datetime.now(UTC).isoformat()
    one.does("backfill", "p", "--batch", "20260103", "--as-of", known, "--reason", "x")
    assert loaded_of(one) == 3
    assert [pin["model"] for pin in two.does("state", "show", "p")["pins"]] == ["a", "b"]
    (one.root.parent / "drops/20260106/a.csv").touch()
    one.does("run")
    assert loaded_of(one) == 6
    assert [pin["model"] for pin in two.does("state", "show", "p")["pins"]] == ["b"]
