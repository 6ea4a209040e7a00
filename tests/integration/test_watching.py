"""A run watched from another process: on a terminal, as lines, as objects; how watching ends, and with which code."""

import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ingestkit.states import migrate
from ingestkit.states.owner import Owner
from tests.integration.world import BREAKS, COMMAND, FIRST, SECOND, World, read_until
from tests.services import postgres

# The terminal becomes the process's own, so that what is typed there reaches it.
ON_TERMINAL = f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); {COMMAND[-1]}"
HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"


@dataclass(slots=True)
class Terminal:
    """A command on a terminal of its own, and what stood on it."""

    process: "subprocess.Popen[bytes]"
    end: int
    seen: str = field(default="")

    def read(self) -> bool:
        """What has come meanwhile; whether more can come."""
        try:
            block = os.read(self.end, 1 << 16)
        except OSError:
            return False
        self.seen += block.decode(errors="replace")
        return bool(block)

    def read_until(self, text: str) -> None:
        while text not in self.seen:
            assert self.read(), self.seen

    def code(self) -> int:
        while self.read():
            pass
        return self.process.wait(timeout=60)


@contextmanager
def terminal(world: World, *arguments: str, **environ: str) -> Iterator[Terminal]:
    end, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, "--project", str(world.root), *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40", **environ},
    )
    os.close(theirs)
    try:
        yield Terminal(process, end)
    finally:
        process.kill()
        process.wait()
        os.close(end)


def extracted(world: World, run_id: str = "r") -> None:
    """A run that is open, and that nobody works on."""
    world.drop(FIRST)
    world.does("extract", "--run-id", run_id)


def finish(world: World, run_id: str = "r") -> None:
    for stage in ("validate", "load", "gate"):
        ended = world.ended(world.start(stage, "--run-id", run_id))
        assert ended.code == 0, ended.err


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_run_is_drawn_on_a_terminal_while_other_processes_do_it(world: World) -> None:
    extracted(world)
    with terminal(world, "runs", "watch") as watched:
        watched.read_until("nobody works on it")
        finish(world)
        assert watched.code() == 0
    last_frame = watched.seen[watched.seen.rindex("r  SUCCESS") :]
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", last_frame)
    assert re.search(r"^ a +(success [\d.]+ s +){3}2 +0 *\r?$", plain, re.MULTILINE), plain
    assert re.search(r"run r: SUCCESS, batch 20260101, attempt 1, [\d.]+ s\r\n$", plain), plain
    assert watched.seen.count(HIDDEN) == watched.seen.count(SHOWN) == 1


def test_ctrl_c_ends_watching_and_nothing_else_and_leaves_the_terminal_tidy(world: World) -> None:
    extracted(world)
    with terminal(world, "runs", "watch", "r") as watched:
        watched.read_until("nobody works on it")
        os.write(watched.end, b"\x03")
        assert watched.code() == 130
    assert "run r is no longer watched" in watched.seen[watched.seen.rindex(SHOWN) :]
    assert "Traceback" not in watched.seen
    assert world.run_row("r")["status"] == "OPEN"


def test_a_terminal_that_cannot_draw_is_told_lines(world: World) -> None:
    extracted(world)
    finish(world)
    with terminal(world, "runs", "watch", "r", TERM="dumb") as watched:
        assert watched.code() == 0
    assert "\x1b" not in watched.seen
    assert "validate a: SUCCESS, 2 rows" in watched.seen


def test_each_change_is_an_object_in_the_order_in_which_it_came(world: World) -> None:
    extracted(world)
    watcher = world.start("runs", "watch", "p", "--output", "ndjson")
    assert watcher.stdout is not None
    told = [json.loads(watcher.stdout.readline()) for _ in range(4)]
    assert [one["kind"] for one in told] == ["run", "lease", "stage", "stage"]
    assert (told[0]["status"], told[1]["owner"]) == ("OPEN", None)
    finish(world)
    ended = world.ended(watcher)
    assert ended.code == 0
    told += objects(ended.out)
    last = told[-1]
    assert (last["kind"], last["run_id"], last["status"], last["exit_code"]) == ("run", "r", "SUCCESS", None)
    statuses: dict[tuple[str, str], list[str]] = {}
    for one in told:
        if one["kind"] == "stage":
            statuses.setdefault((one["stage"], one["model"]), []).append(one["status"])
    for stage in ("extract", "validate", "load"):
        for model in ("a", "b"):
            assert statuses[stage, model] in (["SUCCESS"], ["RUNNING", "SUCCESS"])
    assert [one["rows"] for one in told if (one.get("stage"), one.get("status")) == ("load", "SUCCESS")] == [2, 2]


def test_a_run_that_has_ended_is_told_at_once_as_lines_or_as_one_object(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    ended = world.call("runs", "watch", "p.20260101.1")
    assert ended.code == 0
    lines = [line.partition("  ")[2] for line in ended.out.splitlines()]
    assert len(lines) == 9
    # Models are worked on side by side: either may have begun first.
    assert re.fullmatch(r"extract a: SUCCESS, 15 B, [\d.]+ s", min(lines[:2]))
    assert re.fullmatch(r"run p\.20260101\.1: SUCCESS, batch 20260101, attempt 1, [\d.]+ s", lines[-1])
    answer = world.does("runs", "watch", "p.20260101.1")
    assert answer["run"]["status"] == "SUCCESS"
    assert len(answer["stages"]) == 8


def test_watching_ends_with_the_code_of_a_run_that_failed(world: World) -> None:
    world.set_up({"gate.max_reject_pct": 10})
    world.drop(FIRST, {"20260101/a.csv": BREAKS})
    world.refused(5, "run")
    ended = world.call("runs", "watch", "p.20260101.1")
    assert ended.code == 5
    assert "run p.20260101.1: FAILED" in ended.out.splitlines()[-1]
    assert ended.out.splitlines()[-1].endswith(world.run_row("p.20260101.1")["error"])
    world.state("UPDATE pipeline_run SET exit_code = NULL")
    assert world.call("runs", "watch", "p.20260101.1").code == 9
    world.state("UPDATE pipeline_run SET status = 'SUPERSEDED'")
    assert world.call("runs", "watch", "p.20260101.1").code == 8


def test_without_a_name_the_newest_open_run_is_meant(world: World) -> None:
    assert "no run is open" in world.refused(2, "runs", "watch")
    extracted(world, "first")
    finish(world, "first")
    assert "no run of p is open" in world.refused(2, "runs", "watch", "p")
    assert "no run and no pipeline 'q' in the state" in world.refused(2, "runs", "watch", "q")
    world.drop(SECOND)
    world.does("extract", "--run-id", "second")
    watcher = world.start("runs", "watch")
    assert watcher.stdout is not None
    assert "run second: OPEN, batch 20260108" in watcher.stdout.readline()
    watcher.send_signal(signal.SIGTERM)
    assert world.ended(watcher).code == 143


def test_who_works_on_it_is_told_and_that_they_are_gone(world: World) -> None:
    extracted(world)
    mine = json.dumps(Owner.here().to_json())
    world.state(
        f"UPDATE lease SET owner = '{mine}', command = 'run', expires = '9999-01-01T00:00:00.000000Z' WHERE model = 'a'"
    )
    watcher = world.start("runs", "watch", "r")
    assert watcher.stdout is not None
    watcher.stdout.readline()
    here = f"process {os.getpid()} on {Owner.here().host} (run)"
    assert watcher.stdout.readline().partition("  ")[2] == f"lease: {here}\n"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    gone = json.dumps({**Owner.here().to_json(), "pid": dead.pid})
    dead.wait()
    world.state(f"UPDATE lease SET owner = '{gone}' WHERE model = 'a'")
    assert any("is gone; the next run goes on with it" in line for line in iter(watcher.stdout.readline, ""))
    watcher.send_signal(signal.SIGINT)
    assert world.ended(watcher).code == 130


def test_a_reader_that_leaves_ends_it_quietly(world: World) -> None:
    extracted(world)
    watcher = world.start("runs", "watch", "r")
    assert watcher.stdout is not None
    watcher.stdout.readline()
    watcher.stdout.close()
    finish(world)
    assert watcher.stderr is not None
    with watcher.stderr as told:
        assert [line for line in told if not line.startswith("{")] == []
    assert watcher.wait(timeout=60) == 0


def test_between_two_looks_nothing_of_the_state_is_held(world: World) -> None:
    database = world.database
    extracted(world)
    watcher = world.start("runs", "watch", "r")
    assert watcher.stdout is not None
    watcher.stdout.readline()
    world.state("UPDATE pipeline_run SET error = 'written meanwhile'")
    # It waits for readers, for as long as one connection waits for another.
    with closing(sqlite3.connect(database)) as db:
        [(is_busy, _, _)] = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert not is_busy
    finish(world)
    assert world.ended(watcher).code == 0


@pytest.mark.services
def test_a_state_that_is_started_again_meanwhile_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with postgres() as server:
        migrate.upgrade(server.url())
        world = World(tmp_path, capsys, server.url())
        world.settle()
        world.set_up()
        extracted(world)
        watcher = world.start("runs", "watch", "r")
        assert watcher.stdout is not None
        watcher.stdout.readline()
        server.control("-m", "immediate", "stop")
        read_until(watcher, "state database")
        server.start()
        finish(world)
        ended = world.ended(watcher)
    assert ended.code == 0, ended.err
    assert "run r: SUCCESS" in ended.out


@pytest.mark.parametrize("wrong", [["--output", "xml"], ["r", "s"]])
def test_what_cannot_be_watched_is_refused(world: World, wrong: list[str]) -> None:
    world.refused(2, "runs", "watch", *wrong)
