"""The state out of reach, deleted or put back: the lake and the receipts suffice to go on."""

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Story
from tests.faults.processes import Ended
from tests.faults.world import ACTS, RUN, World, alike, differences

pytestmark = pytest.mark.faults

ADOPT = ("state", "adopt", "opendata", "--yes", "--reason", "the state was lost")
ALONE = (*RUN, "--jobs", "1")
SLOW = {"INGESTKIT__STATE__LEASE__TTL": "90s", "INGESTKIT__STATE__LEASE__BEAT": "30s"}
"""So that nothing of it freezes in the midst of a transaction, which nobody could end then."""
BACKFILL = ("backfill", "opendata", "--from-lake")


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Another process's transaction that does not end."""
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def cut_off(world: World) -> Ended:
    """A run that cannot write its state any more once the first batch is in the target."""
    frozen = world.start(*ALONE, environ=SLOW, freeze="load.committed:1").frozen()
    with locked(world.database):
        frozen.wake()
        ended = frozen.wait()
    assert ended.code == 7, ended
    assert "its rows wait in" in ended.err
    ended.is_clear()
    return ended


def finished(story: Story, world: World, act: int) -> None:
    alike(story.after[act], world.seen())
    assert world.debris() == []
    for number in range(act + 1, len(ACTS)):
        world.play(ACTS[number])
        alike(story.after[number], world.seen())
        assert world.debris() == []


def refused(world: World, hint: str, *arguments: str) -> None:
    ended = world.call(*(arguments or RUN))
    assert ended.code == 7, ended
    assert hint in ended.err
    ended.is_clear()


def steps_of(world: World, *command: str) -> Counter[str]:
    record = world.folder.with_name("steps")
    record.unlink(missing_ok=True)
    record.touch()
    ended = world.call(*command, record=str(record))
    assert ended.code == 0, ended
    return Counter(record.read_text().split())


# --- out of reach ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bare", [False, True], ids=["queue replayed", "queue deleted"])
def test_a_state_out_of_reach_after_commit_is_made_up_for(story: Story, tmp_path: Path, *, bare: bool) -> None:
    world = story.before[0].copied(tmp_path / "world")
    cut_off(world)
    assert world.queue.exists()
    if bare:
        world.forget_shortcuts()
    world.does(*RUN)
    assert not world.queue.exists()
    finished(story, world, 0)


def test_killed_once_the_queue_has_it_the_next_run_goes_on(story: Story, tmp_path: Path) -> None:
    world = story.before[0].copied(tmp_path / "world")
    record = tmp_path / "steps"
    record.touch()
    fault = {"freeze": "load.committed:1", "kill": "queue.appended:1", "record": str(record)}
    frozen = world.start(*ALONE, environ=SLOW, **fault).frozen()
    with locked(world.database):
        frozen.wake()
        assert frozen.wait().killed
    assert "queue.appended" in record.read_text()
    world.does(*RUN)
    finished(story, world, 0)


def test_killed_between_replay_and_taking_it_off_the_queue_nothing_is_doubled(story: Story, tmp_path: Path) -> None:
    world = story.before[0].copied(tmp_path / "world")
    cut_off(world)
    assert world.call(*RUN, kill="queue.applied:1").killed
    assert world.queue.exists()
    world.does(*RUN)
    finished(story, world, 0)


# --- deleted, put back -----------------------------------------------------------------------------------------------


def without_database(world: World) -> None:
    for path in world.state.glob("ingestkit.db*"):
        path.unlink()


def without_folder(world: World) -> None:
    shutil.rmtree(world.state)


LOSSES = {"database deleted": without_database, "folder deleted": without_folder}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("act", [0, 1])
def test_a_deleted_state_is_noticed_and_rebuilt(story: Story, act: int, loss: str, tmp_path: Path) -> None:
    world = story.before[act + 1].copied(tmp_path / "world")
    # The drops of the next act are there already; it is told again from here.
    LOSSES[loss](world)
    refused(world, "ingestkit state adopt opendata")
    world.does(*ADOPT)
    for command in ACTS[act + 1].commands:
        world.does(*command)
    finished(story, world, act + 1)


def test_a_deleted_state_is_noticed_even_when_nothing_is_new(story: Story, tmp_path: Path) -> None:
    world = story.end.copied(tmp_path / "world")
    without_database(world)
    refused(world, "ingestkit state adopt opendata")
    world.does(*ADOPT)
    # What belongs to no model is in no sidecar: the source shows it again.
    ended = world.does(*RUN)
    assert "nothing new" in ended.out, ended
    finished(story, world, 2)


def put_back(world: World, older: World) -> None:
    """Bring back the state as it was in the older world, as a restored backup would."""
    without_database(world)
    for path in older.state.glob("ingestkit.db*"):
        shutil.copy2(path, world.state / path.name)


def test_an_older_copy_of_the_state_is_noticed_and_brought_up(story: Story, tmp_path: Path) -> None:
    world = story.before[2].copied(tmp_path / "world")
    put_back(world, story.before[1])
    refused(world, "ingestkit state adopt opendata")
    world.does(*ADOPT)
    for command in ACTS[2].commands:
        world.does(*command)
    finished(story, world, 2)


def test_an_older_copy_beside_work_half_done_is_brought_up(story: Story, tmp_path: Path) -> None:
    world = story.before[1].copied(tmp_path / "world")
    assert world.call(*RUN, kill="load.committed:2").killed
    put_back(world, story.before[1])
    refused(world, "ingestkit state adopt opendata")
    world.does(*ADOPT)
    world.does(*RUN)
    finished(story, world, 1)


def lost_behind_commit(world: World, number: int, *command: str) -> None:
    """Kill a command behind one of its commits, lose the state, and let the next run finish it."""
    ended = world.call(*command, kill=f"load.committed:{number}")
    assert ended.killed, ended
    without_database(world)
    world.does(*ADOPT)
    world.does(*RUN)
    assert "nothing new" in world.does(*RUN).out


def test_a_batch_published_again_by_who_died_before_saying_so_is_finished(story: Story, tmp_path: Path) -> None:
    """The state is lost with him: nothing but the receipt says what he meant."""
    commits = steps_of(story.before[1].copied(tmp_path / "undisturbed"), *RUN)["load.committed"]
    failed: dict[int, Any] = {}
    for number in range(1, commits + 1):
        world = story.before[1].copied(tmp_path / str(number))
        lost_behind_commit(world, number, *RUN)
        if found := [*differences(story.after[1], world.seen()), *world.debris()]:
            failed[number] = found
    assert failed == {}
    finished(story, world, 1)


def test_a_backfill_that_died_before_saying_so_is_finished(story: Story, tmp_path: Path) -> None:
    why = ("--reason", "the restatement was wrong")
    first = story.before[1].rows("SELECT max(ended_at) FROM pipeline_run WHERE status LIKE 'SUCCESS%'")[0][0]
    commands = {
        "newest": ("backfill", "opendata", "--batch", "20260122"),
        "as-of": ("backfill", "opendata", "--batch", "20260101", "--model", "a", "--as-of", first, *why),
    }
    failed: dict[str, Any] = {}
    for name, command in commands.items():
        expected, world = story.end.copied(tmp_path / f"{name}.good"), story.end.copied(tmp_path / name)
        expected.does(*command)
        lost_behind_commit(world, 1, *command)
        pins = [one.does("state", "show", "opendata", "--output", "json").out for one in (expected, world)]
        shown = [[(one["model"], one["batch"]) for one in json.loads(out)["pins"]] for out in pins]
        if found := [
            *differences(expected.seen(), world.seen()),
            *world.debris(),
            *(shown if shown[0] != shown[1] else []),
        ]:
            failed[name] = found
    assert failed == {}


def test_killed_while_adopting_it_is_adopted_again(story: Story, tmp_path: Path) -> None:
    lost = story.before[1].copied(tmp_path / "lost")
    without_database(lost)
    steps = steps_of(lost.copied(tmp_path / "undisturbed"), *ADOPT)
    assert {"adopt.owned", "adopt.fenced"} <= set(steps)
    failed: dict[str, Any] = {}
    for step in sorted(steps):
        world = lost.copied(tmp_path / step)
        assert world.call(*ADOPT, kill=f"{step}:1").killed
        world.does(*ADOPT)
        world.does(*RUN)
        if found := [*differences(story.after[1], world.seen()), *world.debris()]:
            failed[step] = found
    assert failed == {}


# --- the warehouse deleted -------------------------------------------------------------------------------------------


def contents(seen: dict[str, Any]) -> dict[str, Any]:
    """What a target built again has in common with the one that was lost; its receipts are of later generations."""
    return {name: found for name, found in seen.items() if name.startswith("rows of") or name in ("checkpoint", "open")}


def test_a_deleted_warehouse_is_noticed_and_built_again(story: Story, tmp_path: Path) -> None:
    world = story.before[1].copied(tmp_path / "world")
    world.does(*RUN)
    world.warehouse.unlink()
    # With nothing new to do, and with work waiting.
    refused(world, "ingestkit backfill opendata --from-lake")
    world.drop(ACTS[2].drops)
    refused(world, "ingestkit backfill opendata --from-lake")
    refused(world, "ingestkit backfill opendata --from-lake", "extract", "opendata")
    world.does(*BACKFILL)
    alike(contents(story.after[1]), contents(world.seen()))
    for command in ACTS[2].commands:
        world.does(*command)
    alike(contents(story.after[2]), contents(world.seen()))
    assert world.debris() == []


def rebuilt(story: Story, folder: Path, wanted: Callable[[str], bool]) -> dict[str, Any]:
    """Kill the rebuilding of the target at these steps, each in a world of its own, and say what came out otherwise."""
    lost = story.end.copied(folder / "lost")
    lost.warehouse.unlink()
    steps = steps_of(lost.copied(folder / "undisturbed"), *BACKFILL)
    failed: dict[str, Any] = {}
    for step in filter(wanted, sorted(steps)):
        world = lost.copied(folder / step)
        ended = world.call(*BACKFILL, kill=f"{step}:{(steps[step] + 1) // 2}")
        assert ended.killed, ended
        # Once it is marked, nobody has to ask for it again: run goes on with it.
        if world.rows("SELECT rebuild FROM pipeline") == [(None,)]:
            world.does(*BACKFILL)
        world.does(*RUN)
        if found := [*differences(contents(story.after[2]), contents(world.seen())), *world.debris()]:
            failed[step] = found
    return failed


def test_killed_while_publishing_the_target_again_it_is_finished(story: Story, tmp_path: Path) -> None:
    chosen = {
        "rebuild.marked",
        "rebuild.voided",
        "warehouse.created",
        "check.done",
        "run.opened",
        "load.intended",
        "load.before_commit",
        "load.committed",
        "gate.done",
    }
    assert rebuilt(story, tmp_path, chosen.__contains__) == {}


@pytest.mark.matrix
@pytest.mark.timeout(900)
def test_killed_anywhere_while_building_the_target_again_it_is_finished(story: Story, tmp_path: Path) -> None:
    assert rebuilt(story, tmp_path, bool) == {}
