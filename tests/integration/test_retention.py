"""What `clean` lets go of in the lake, and what somebody still needs and it therefore keeps, whatever its age."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sql

from ingestkit import steps
from ingestkit.errors import StateError
from ingestkit.states.engine import StateDatabase
from tests.integration.world import FIRST, SECOND, THIRD, World

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
