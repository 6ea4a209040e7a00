"""What the lake lets go of is gone for good or kept for good, whoever is killed or wakes up late meanwhile."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.faults.processes import Launcher
from tests.faults.test_rivals import ALONE, SLOW
from tests.faults.world import FIRST, RUN, World, differences

pytestmark = pytest.mark.faults

BACK = ("backfill", "opendata", "--batch", "20260101", "--model", "a", "--reason", "seen", "--by", "me", "--as-of")
NEWER = {name: text for name, text in FIRST.items() if name.startswith("20260108/a")}
STATUSES = "SELECT path, status FROM artifact WHERE kind = 'raw' AND batch = '20260101'"


@pytest.fixture
def eager(launcher: Launcher, tmp_path: Path) -> World:
    """With one batch done, which is needed no more the moment a newer one is."""
    world = World.made(tmp_path / "world", launcher)
    path = world.folder / "config/pipelines/opendata.yaml"
    path.write_text(path.read_text() + "retention: {keep: 0s}\n")
    world.drop({"20260101/a.csv": "id,born\n1,1970\n2,1971\n"})
    world.does(*RUN)
    return world


def lying(world: World) -> set[str]:
    folders = (world.lake / kind for kind in ("raw", "valid", "rejects"))
    return {str(path.relative_to(world.lake)) for one in folders for path in one.rglob("*") if path.is_file()}


def is_tidy(world: World) -> bool:
    """In the lake lies what the state says, and nothing else."""
    return lying(world) == {path for (path,) in world.rows("SELECT path FROM artifact WHERE status != 'removed'")}


def now() -> str:
    return datetime.now(UTC).isoformat()


def test_a_clean_frozen_over_its_judgement_takes_nothing_that_was_put_back_meanwhile(eager: World) -> None:
    eager.drop(NEWER)
    frozen = eager.start(*ALONE, environ=SLOW, freeze="clean.judged:1").frozen()
    eager.expire_leases()
    eager.does(*BACK, now())
    there = lying(eager)
    frozen.wake()
    assert frozen.wait().code == 8
    assert lying(eager) == there
    eager.does(*BACK, now())
    assert is_tidy(eager)


def test_what_a_frozen_clean_has_noted_is_gone_for_whoever_comes_meanwhile(eager: World) -> None:
    eager.drop(NEWER)
    frozen = eager.start(*ALONE, environ=SLOW, freeze="clean.noted:1").frozen()
    eager.expire_leases()
    refused = eager.call(*BACK, now())
    assert refused.code == 7
    assert "is no longer in the lake" in refused.err
    assert [status for _, status in eager.rows(STATUSES)] == ["removed"]
    there = lying(eager)
    assert not any("/20260101/" in name for name in there)
    frozen.wake()
    assert frozen.wait().code == 8
    assert lying(eager) == there
    eager.does(*RUN)
    assert is_tidy(eager)


@pytest.mark.parametrize("step", ["validate.done", "load.committed", "gate.recorded"])
@pytest.mark.parametrize("at", ["judged", "noted"])
def test_an_older_version_is_put_back_beside_a_frozen_clean_of_the_newer(eager: World, at: str, step: str) -> None:
    then = now()
    eager.drop({"20260101/a.csv": "id,born\n1,1980\n"})
    frozen = eager.start(*ALONE, environ=SLOW, freeze=f"clean.{at}:1").frozen()
    eager.expire_leases()
    later = eager.start(*BACK, then, "--jobs", "1", environ=SLOW, freeze=f"{step}:1").frozen()
    frozen.wake()
    assert frozen.wait().code == 8
    later.wake()
    assert later.wait().code == 0
    with eager.targeted() as ask:
        assert ask("SELECT id, born FROM a ORDER BY id") == [("1", 1970), ("2", 1971)]
    eager.does(*RUN)
    assert is_tidy(eager)


def test_a_clean_woken_late_takes_nothing_of_who_was_late_before_it(eager: World) -> None:
    [(done,)] = eager.rows("SELECT run_id FROM pipeline_run")
    eager.drop({"20260101/a.csv": "id,born\n1,1980\n"})
    eager.does("extract", "opendata", "--batch", "20260101", "--model", "a", "--run-id", "R")
    late = eager.start("validate", "opendata", "--run-id", "R", "--jobs", "1", environ=SLOW, freeze="validate.done:1")
    late.frozen()
    eager.expire_leases()
    frozen = eager.start("clean", "opendata", "--run-id", done, environ=SLOW, freeze="clean.noted:1").frozen()
    eager.expire_leases()
    # It leaves its sidecar, which speaks of what the clean was about to remove, and which no row had named.
    late.wake()
    assert late.wait().code == 8
    refused = eager.call("load", "opendata", "--run-id", "R")
    assert refused.code == 7
    assert "are not in the lake" in refused.err
    for stage in (("validate", "--force"), ("load",), ("gate",)):
        eager.does(stage[0], "opendata", "--run-id", "R", *stage[1:])
    there = lying(eager)
    frozen.wake()
    assert frozen.wait().code == 8
    assert lying(eager) == there
    eager.does(*RUN)
    assert is_tidy(eager)
    with eager.targeted() as ask:
        assert ask("SELECT id, born FROM a ORDER BY id") == [("1", 1980)]


@pytest.mark.parametrize("again", [None, "clean.removed:1"])
def test_what_was_noted_before_a_kill_is_removed_by_the_next_command(eager: World, again: str | None) -> None:
    undisturbed = eager.copied(eager.folder.with_name("undisturbed"))
    for world in (eager, undisturbed):
        world.drop(NEWER)
    undisturbed.does(*RUN)
    assert eager.call(*ALONE, kill="clean.noted:1").killed
    assert any("/20260101/" in name for name in lying(eager))
    if again:
        assert eager.call(*RUN, kill=again).killed
    eager.does(*RUN)
    assert not any("/20260101/" in name for name in lying(eager))
    assert differences(undisturbed.seen(), eager.seen()) == []
    assert is_tidy(eager)
