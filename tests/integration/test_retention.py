"""What `clean` lets go of in the lake, and what somebody still needs and it therefore keeps, whatever its age."""

import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sql

from ingestkit import steps
from ingestkit.errors import Interrupted, LakeError, StateError
from ingestkit.model import FileStatus, FileVersion
from ingestkit.ports import Stored
from ingestkit.stages import clean, gate
from ingestkit.states.engine import StateDatabase
from ingestkit.stores.local import LocalStore
from tests.integration.world import FIRST, SECOND, THIRD, World, read_until

AT_ONCE = {"retention.keep": "0s"}
STRICT = {**AT_ONCE, "gate.max_reject_pct": 10, "validation.max_file_reject_pct": 100}
ONE_BAD = {"20260101/a.csv": "id,n\n1,10\n2,x\n3,30\n4,40\n"}
MINE = ("--reason", "seen", "--by", "me")


def lies(world: World, model: str = "a") -> set[str]:
    """The batches of a model of which the lake holds anything."""
    return {
        path.name
        for kind in ("raw", "valid", "rejects")
        for path in (world.root / "lake" / kind).glob(f"*/{model}/*")
        if any(one.is_file() for one in path.rglob("*"))
    }


@pytest.fixture
def eager(world: World) -> World:
    """Whose artifacts are not needed the moment there is a newer full batch."""
    world.set_up(AT_ONCE)
    return world


def test_behind_a_newer_full_batch_nothing_is_kept_and_of_a_merged_model_everything(eager: World) -> None:
    eager.drop(FIRST, SECOND, THIRD)
    eager.does("run")
    assert lies(eager) == {"20260115"}
    assert lies(eager, "b") == {"20260101", "20260108", "20260115"}


def test_within_the_replay_window_every_batch_can_be_done_again_and_behind_it_none_lies(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    assert lies(world) == {"20260101", "20260108"}
    world.make_older("completion", "at", days=89)
    world.does("clean")
    assert lies(world) == {"20260101", "20260108"}
    world.make_older("completion", "at", days=2)
    world.does("clean")
    assert lies(world) == {"20260108"}


def test_of_so_many_of_the_newest_batches_everything_stays_whatever_their_age(world: World) -> None:
    world.set_up({"retention.keep": "0s", "retention.keep_batches": 2})
    world.drop(FIRST, SECOND, THIRD)
    world.does("run")
    assert lies(world) == {"20260108", "20260115"}
    world.set_up({"retention.keep": "0s", "retention.keep_batches": 1})
    world.does("clean")
    assert lies(world) == {"20260115"}


def test_what_an_open_run_has_made_of_an_old_batch_is_kept_for_it(eager: World) -> None:
    eager.drop(FIRST, SECOND)
    eager.does("run")
    eager.drop({"20260101/a.csv": "id,n\n1,77\n"})
    eager.does("extract", "--batch", "20260101", "--model", "a", "--run-id", "R")
    eager.does("validate", "--run-id", "R")
    made = files(eager)
    eager.does("clean", "--run-id", "p.20260108.1")
    eager.does("clean", "--run-id", "p.20260101.1")
    assert files(eager) == made
    eager.does("load", "--run-id", "R")
    eager.does("gate", "--run-id", "R")
    eager.does("clean", "--run-id", "R")
    assert lies(eager) == {"20260108"}


def test_what_waits_for_an_approval_is_kept_for_it(world: World) -> None:
    world.set_up(STRICT)
    world.drop(FIRST, SECOND)
    world.does("run")
    world.drop(ONE_BAD)
    world.refused(6, "run", "--batch", "20260101")
    made = files(world)
    for run_id in ("p.20260101.1", "p.20260108.1"):
        world.does("clean", "--run-id", run_id)
    assert files(world) == made
    world.does("approve", "p.20260101.2", *MINE)
    world.does("run")
    world.does("quarantine", "discard", "p", "--batch", "20260101", *MINE, "--yes")
    world.does("clean")
    assert lies(world) == {"20260108"}


def test_rejects_that_wait_keep_their_batch_until_they_are_taken_in_or_given_up(world: World) -> None:
    world.set_up({**STRICT, "gate.max_reject_pct": 100})
    world.drop(FIRST, ONE_BAD, SECOND)
    world.does("run")
    assert lies(world) == {"20260101", "20260108"}
    world.does("quarantine", "discard", "p", "--batch", "20260101", *MINE, "--yes")
    world.does("clean")
    assert lies(world) == {"20260108"}


def test_a_snapshot_that_was_put_back_is_kept_while_it_stands(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    world.set_up(AT_ONCE)
    then = datetime.now(UTC).isoformat()
    world.does("backfill", "p", "--batch", "20260101", "--model", "a", "--as-of", then, "--reason", "seen")
    world.does("clean", "--run-id", "p.20260108.1")
    assert lies(world) == {"20260101", "20260108"}
    world.drop(THIRD)
    world.does("run")
    assert lies(world) == {"20260115"}


def files(world: World) -> set[Path]:
    return {path for kind in ("raw", "valid", "rejects") for path in (world.root / "lake" / kind).rglob("*/a/**/*.*")}


def test_a_state_that_is_away_for_a_moment_when_a_finished_run_is_cleaned_is_worth_a_warning_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, away = steps.reached, [False]

    def reaching(step: str) -> None:
        away[0] = away[0] or step == "gate.recorded"
        reached(step)

    def failing(method: str) -> None:
        asked = getattr(StateDatabase, method)

        @contextmanager
        def once(self: StateDatabase) -> Iterator[sql.Connection]:
            if away[0]:
                away[0] = False
                raise StateError("the state database went away")
            with asked(self) as conn:
                yield conn

        monkeypatch.setattr(StateDatabase, method, once)

    world.drop(FIRST)
    monkeypatch.setattr(steps, "reached", reaching)
    for method in ("read", "write"):
        failing(method)
    ended = world.call("run", "--jobs", "1")
    assert ended.code == 0, ended.err
    assert "clean failed and is left to the next run: the state database went away" in ended.err
    assert world.run_statuses() == {"p.20260101.1": "SUCCESS"}


def at_step(monkeypatch: pytest.MonkeyPatch, step: str, does: Callable[[], object]) -> None:
    """Do something once, when a run comes to a step."""
    reached, left = steps.reached, [does]

    def reaching(name: str) -> None:
        if name == step and left:
            left.pop()()
        reached(name)

    monkeypatch.setattr(steps, "reached", reaching)


def test_what_a_run_found_good_of_another_attempt_is_kept_for_it(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.drop({"20260101/a.csv": "id,n\n1,77\n"})
    world.does("extract", "--batch", "20260101", "--model", "a", "--run-id", "R1")
    world.does("validate", "--run-id", "R1")
    world.does("extract", "--batch", "20260101", "--model", "a", "--run-id", "R2", "--take-over")
    world.does("validate", "--run-id", "R2")
    assert world.stages("R2")["validate", "a"]["status"] == "SKIPPED"
    made = files(world)
    world.does("clean", "--run-id", "p.20260101.1")
    assert files(world) == made
    world.does("load", "--run-id", "R2")


def test_a_clean_that_the_lake_refuses_is_done_by_the_next_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    orphan = world.root / "lake/valid/p/a/20260101/p.20260101.1.0/x.parquet"

    def stray() -> None:
        orphan.parent.mkdir(parents=True)
        orphan.touch()

    listing = LocalStore.list

    def refused(self: LocalStore, prefix: str) -> Iterator[Stored]:
        if prefix.startswith("valid/"):
            raise LakeError("it does not allow it")
        return listing(self, prefix)

    world.drop(FIRST)
    at_step(monkeypatch, "gate.recorded", stray)
    with monkeypatch.context() as lake:
        lake.setattr(LocalStore, "list", refused)
        ended = world.call("run", "--jobs", "1")
        assert ended.code == 0
        assert "clean failed and is left to the next run: it does not allow it" in ended.err
    with monkeypatch.context() as idle:
        # With nothing to do the warehouse is not woken for it.
        at_step(idle, "check.done", lambda: pytest.fail("it was looked at"))
        world.does("run")
    assert orphan.exists()
    world.drop(SECOND)
    world.does("run")
    assert not orphan.exists()


def test_with_a_batch_that_is_kept_no_more_goes_what_nobody_knew_of(eager: World) -> None:
    eager.drop(FIRST)
    eager.does("run")
    orphan = eager.root / "lake/valid/p/a/20260101/p.20260101.1.0/x.parquet"
    orphan.parent.mkdir(parents=True)
    orphan.touch()
    eager.drop(SECOND)
    eager.does("run")
    assert lies(eager) == {"20260108"}


def test_a_clean_that_takes_too_long_fails_neither_its_run_nor_the_next_batch(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.set_up({"timeouts.clean": "200ms", "timeouts.grace": "30s"})
    world.drop(FIRST, SECOND)
    listing, slow = LocalStore.list, [0.4]

    def slowly(self: LocalStore, prefix: str) -> Iterator[Stored]:
        if prefix.startswith("raw/") and slow:
            time.sleep(slow.pop())
        return listing(self, prefix)

    monkeypatch.setattr(LocalStore, "list", slowly)
    ended = world.call("run", "--jobs", "1")
    assert ended.code == 0
    assert "clean failed and is left to the next run: clean of * ran longer than its time-out of 0.2 s" in ended.err
    assert set(world.run_statuses().values()) == {"SUCCESS"}
    assert world.checkpoint() == "20260108"


STUCK = """
import sys, time
from ingestkit.stores.local import LocalStore
listing = LocalStore.list
def stuck(self, prefix):
    if prefix.startswith("raw/"):
        print("listing", file=sys.stderr, flush=True)
        time.sleep(60)
    return listing(self, prefix)
LocalStore.list = stuck
from ingestkit.cli.main import main
main()
"""


@pytest.mark.parametrize("away", [False, True], ids=["the state answers", "the state is away too"])
def test_a_clean_that_does_not_stop_ends_its_process_and_the_next_run_goes_on(world: World, away: bool) -> None:
    database = world.database
    world.settle({"state.busy_timeout": "100ms"})
    world.set_up({"timeouts.clean": "200ms", "timeouts.grace": "1s"})
    world.drop(FIRST)
    stuck = subprocess.Popen(
        [sys.executable, "-c", STUCK, "--project", str(world.root), "run", "--jobs", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    read_until(stuck, "listing")
    with closing(sqlite3.connect(database)) as another:
        if away:
            another.execute("BEGIN IMMEDIATE")
        ended = world.ended(stuck, patience=30)
    assert ended.code == 7
    assert "error: clean of * ran longer than its time-out of 0.2 s\nhint: raise timeouts.clean" in ended.err
    assert "Traceback" not in ended.err
    assert ("could not be written: " in ended.err) is away
    assert world.stages("p.20260101.1")["clean", "*"]["status"] == ("RUNNING" if away else "FAILED")
    assert world.run_statuses() == {"p.20260101.1": "SUCCESS"}
    world.set_up()
    world.drop(SECOND)
    world.does("run")
    assert world.stages("p.20260101.1")["clean", "*"]["status"] == "SUCCESS"
    assert world.checkpoint() == "20260108"


def test_a_gate_that_ends_behind_its_time_is_done(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.set_up({"timeouts.gate": "200ms", "timeouts.grace": "30s"})
    world.drop(FIRST)
    judged = gate.verdict

    def slowly(*given: object) -> object:
        time.sleep(0.5)
        return judged(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(gate, "verdict", slowly)
    world.does("run", "--jobs", "1")
    assert world.run_statuses() == {"p.20260101.1": "SUCCESS"}


@pytest.mark.parametrize("command", [("run",), ("clean", "--run-id", "p.20260101.1")], ids=["run", "clean"])
def test_a_state_that_was_put_back_removes_nothing_that_it_has_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    if world.state_url is not None:
        pytest.skip("a copy of a file is put back here")
    copy = world.root / "copy"

    def keep() -> None:
        with sqlite3.connect(world.database) as db, sqlite3.connect(copy) as into:
            db.backup(into)
            into.execute("UPDATE lease SET expires = NULL, owner = NULL")

    world.drop(FIRST)
    at_step(monkeypatch, "clean.begun", keep)
    world.does("run", "--jobs", "1")
    world.drop({"20260101/a.csv": "id,n\n1,77\n"})
    world.does("run")
    there = files(world)
    for file in world.database.parent.glob(f"{world.database.name}*"):
        file.unlink()
    shutil.copy(copy, world.database)
    assert "it is an older copy" in world.refused(7, *command)
    assert files(world) == there
    world.does("state", "adopt", "p", *MINE, "--yes")
    world.does("backfill", "p", "--batch", "20260101", "--from-lake")


def refusing(monkeypatch: pytest.MonkeyPatch, refused: Callable[[str], Exception | None]) -> None:
    remove = LocalStore.remove

    def asked(self: LocalStore, name: str) -> None:
        if (error := refused(name)) is not None:
            raise error
        remove(self, name)

    monkeypatch.setattr(LocalStore, "remove", asked)


def test_what_was_let_go_of_and_could_not_be_removed_is_not_built_on(
    eager: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager.drop(FIRST)
    eager.does("run")
    then = datetime.now(UTC).isoformat()
    back = ("backfill", "p", "--batch", "20260101", "--model", "a", "--as-of", then, "--reason", "seen")
    with monkeypatch.context() as lake:
        refusing(lake, lambda name: LakeError("it may not") if name.startswith("raw/p/a/20260101") else None)
        eager.drop(SECOND)
        assert "clean failed and is left" in eager.call("run").err
        # One that cannot be removed keeps no other.
        assert [path.parts[-5] for path in files(eager) if "20260101" in path.parts] == ["raw"]
        told = eager.refused(7, *back)
        assert "batch 20260101 is not kept any more" in told
    assert "no longer in the lake" in eager.refused(7, *back)
    assert lies(eager) == {"20260108"}


def strays(world: World, *names: str) -> list[Path]:
    """Objects that nobody has registered, beside those of the first batch."""
    folder = world.root / "lake/valid/p/a/20260101/p.20260101.1.0"
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
    return [folder / name for name in names]


def test_however_many_the_lake_refuses_for_good_the_others_go_one_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.drop(FIRST)
    world.does("run")
    *held, free = strays(world, *(f"held-{number:02}.parquet" for number in range(30)), "x.parquet")
    refusing(monkeypatch, lambda name: LakeError("legal hold") if "/held-" in name else None)
    for _ in range(50):
        if free.exists():
            world.call("clean", "--run-id", "p.20260101.1")
    assert not free.exists()
    assert all(one.exists() for one in held)


def test_a_lake_that_refuses_everything_is_asked_little(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.drop(FIRST)
    world.does("run")
    strays(world, *(f"{number}.parquet" for number in range(100)))
    asked: list[str] = []

    def never(name: str) -> Exception:
        asked.append(name)
        return LakeError("it does not allow it")

    refusing(monkeypatch, never)
    world.call("clean", "--run-id", "p.20260101.1")
    assert len(asked) == len(set(asked)) == 21


def test_a_refusal_for_a_moment_is_tried_again_whatever_was_refused_for_good(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.drop(FIRST)
    world.does("run")
    held, busy = strays(world, "held.parquet", "x.parquet")
    asked: list[str] = []

    def says(name: str) -> Exception | None:
        asked.append(name.rpartition("/")[2])
        if asked[-1] == held.name:
            return LakeError("legal hold")
        return LakeError("busy", transient=True) if asked.count(busy.name) < 3 else None

    refusing(monkeypatch, says)
    told = world.call("clean", "--run-id", "p.20260101.1").err
    assert asked.count(busy.name) == 3
    assert not busy.exists()
    assert "clean failed and is left to the next run: legal hold" in told


def test_a_clean_of_its_own_that_failed_says_that_it_is_left(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    clean_again = ("clean", "--run-id", "p.20260101.1")
    world.drop(FIRST)
    world.does("run")
    strays(world, "x.parquet")
    with monkeypatch.context() as lake:
        refusing(lake, lambda name: LakeError("it does not allow it"))
        told = world.does("gate", "--run-id", "p.20260101.1", "--force")
        assert "gate of batch 20260101 done again, clean is left to the next run" in told["message"]
        assert told["warnings"] == ["clean failed: it does not allow it"]
        answer = world.does(*clean_again)
        assert answer["status"] == "waiting"
        assert answer["message"] == "clean of batch 20260101 is left to the next run (run p.20260101.1)"
        assert answer["warnings"] == told["warnings"]
        ended = world.call(*clean_again)
        assert (ended.code, "is done" in ended.out, "is left to the next run" in ended.out) == (0, False, True)
        assert "warning: clean failed: it does not allow it" in ended.told
    answer = world.does(*clean_again)
    assert (answer["status"], answer["warnings"]) == ("done", [])


def test_a_clean_that_the_state_did_not_let_begin_is_not_told_as_the_one_before_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, away = StateDatabase.write, [False]

    @contextmanager
    def once(self: StateDatabase) -> Iterator[sql.Connection]:
        if away[0]:
            away[0] = False
            raise StateError("the state database went away")
        with write(self) as conn:
            yield conn

    def leave() -> None:
        away[0] = True

    world.drop(FIRST)
    world.does("run")
    at_step(monkeypatch, "check.done", leave)
    monkeypatch.setattr(StateDatabase, "write", once)
    answer = world.does("clean", "--run-id", "p.20260101.1")
    assert away == [False]
    assert answer["status"] == "waiting"
    assert answer["warnings"] == ["clean failed: the state did not answer"]


def test_who_is_stopped_while_removing_has_less_to_remove_the_next_time(
    eager: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = "SELECT count(*) FROM artifact WHERE status = 'removing'"
    eager.drop(FIRST)
    eager.does("run")
    eager.drop(SECOND)
    left = []
    for _ in range(2):
        with monkeypatch.context() as lake:
            removed: list[str] = []

            def once(name: str, removed: list[str] = removed) -> Exception | None:
                if "/20260101/" not in name:
                    return None
                removed.append(name)
                return Interrupted("asked to stop", exit_code=143) if len(removed) > 1 else None

            refusing(lake, once)
            assert eager.call("run", "--jobs", "1").code == 143
        left += [count for ((count,),) in [eager.state(noted)]]
    assert left[1] == left[0] - 1
    eager.does("run")
    assert lies(eager) == {"20260108"}


def test_a_stage_that_cleans_asks_the_source_nothing(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    shutil.rmtree(world.root / "drops")
    world.does("clean", "--run-id", "p.20260101.1")


def test_of_a_file_that_was_left_out_the_raw_object_is_needed_by_none() -> None:
    name = "raw/p/a/20260101/abc-a.csv"
    for status, needed in ((FileStatus.SEEN, True), (FileStatus.SKIPPED, False)):
        at = datetime.now(UTC)
        file = FileVersion("p", "a.csv", 1, "abc", "20260101", "a", status, size=1, mtime=at, sighted_at=at)
        assert (clean.debris([("raw", name)], [file], []) == []) is needed


def test_what_a_dead_load_has_staged_in_the_lake_goes_though_its_warehouse_never_asks_for_it(world: World) -> None:
    """That of a later owner stays."""
    dead, later = (
        world.root / f"lake/_staged/p/a/p.20260101.1.{token}.0123456789ab/part-0.parquet" for token in (0, 99)
    )
    for one in (dead, later):
        one.parent.mkdir(parents=True)
        one.write_bytes(b"PAR1")
    world.drop(FIRST)
    world.does("run")
    assert not dead.exists()
    assert later.exists()
