import json
import shutil
from typing import Any

import pytest

from ingestkit.errors import StateError
from ingestkit.states import sidecars
from tests.integration.world import FIRST, SECOND, World
from tests.object_stores import s3


def lose(monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """The state does not take what this stage has done."""
    taking = sidecars.apply

    def refusing(conn: Any, sidecar: Any, path: str, now: Any) -> bool:
        if sidecar.stage == stage:
            raise StateError("the state database went away")
        return taking(conn, sidecar, path, now)

    monkeypatch.setattr(sidecars, "apply", refusing)


@pytest.mark.parametrize("stage", ["extract", "validate", "load", "gate"])
def test_what_could_not_be_written_waits_in_the_queue(
    world: World, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    world.drop(FIRST)
    with monkeypatch.context() as patched:
        lose(patched, stage)
        said = world.refused(7, "run", "--jobs", "1")
    assert "is done, but the state could not be written" in said
    assert "hint: its rows wait in" in said
    [record] = world.does("queue", "show")["rows"]
    assert (record["pipeline"], record["kind"], record["key"][1]) == ("p", "stage", stage)
    assert "1 pending record written" in world.does("queue", "flush")["message"]
    assert world.does("queue", "show")["rows"] == []
    status = world.stages("p.20260101.1")[stage, record["key"][2]]["status"]
    assert status == "SUCCESS"
    world.does("run")
    assert world.run_statuses() == {"p.20260101.1": "SUCCESS"}
    assert world.target("SELECT model, generation FROM ingestkit_receipt ORDER BY 1") == [("a", 1), ("b", 1)]


def test_the_queue_is_a_shortcut_and_not_the_truth(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.drop(FIRST)
    with monkeypatch.context() as patched:
        lose(patched, "load")
        world.refused(7, "run")
    (world.root / "state/pending_updates.jsonl").unlink()
    shutil.rmtree(world.root / "state/runs")
    before = world.target('SELECT run_id, generation, "at"::VARCHAR FROM ingestkit_receipt ORDER BY model')
    world.does("run")
    assert world.target('SELECT run_id, generation, "at"::VARCHAR FROM ingestkit_receipt ORDER BY model') == before
    assert world.run_statuses() == {"p.20260101.1": "SUCCESS"}


def test_queue_flush_with_nothing_pending_says_so(world: World) -> None:
    assert "0 pending records written" in world.does("queue", "flush")["message"]


def test_a_lost_copy_of_a_sidecar_is_no_loss(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    shutil.rmtree(world.root / "state/runs")
    world.drop(SECOND)
    world.does("run")
    assert sorted(path.name for path in (world.root / "state/runs/p").iterdir()) == ["p.20260108.1"]


def test_the_mirror_shows_where_the_pipeline_stands(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    shown = json.loads((world.root / "state/mirror/p.json").read_text())
    assert (shown["pipeline"], shown["checkpoint"]) == ("p", "20260108")
    assert shown["run"] == {"run_id": "p.20260108.1", "status": "SUCCESS", "batch": "20260108"}
    assert {name: one["batch"] for name, one in shown["models"].items()} == {"a": "20260108", "b": "20260108"}


def test_a_mirror_that_is_behind_is_brought_up_by_the_next_run(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    path = world.root / "state/mirror/p.json"
    path.unlink()
    assert world.does("run")["status"] == "nothing new"
    assert world.checkpoint() == "20260101"


def test_an_empty_state_beside_a_filled_mirror_is_refused_and_adopted(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    before = world.table("b", "id", "d")
    world.lose_state()
    said = world.refused(7, "run")
    assert "the state knows nothing of p, but its mirror shows run p.20260108.1" in said
    assert "hint: ingestkit state adopt p" in said
    world.does("state", "adopt", "p", "--reason", "the disk died", "--yes")
    assert world.does("run")["status"] == "nothing new"
    assert world.run_statuses() == {"p.20260101.1": "SUCCESS", "p.20260108.1": "SUCCESS"}
    world.drop({"20260115/b.csv": "id,d\nnew,2026-01-15\n"})
    world.does("run")
    assert len(world.table("b", "id", "d")) == len(before) + 1


def lose_the_disk(world: World) -> None:
    """As if the machine had died: its state, the mirror beside it and the target are gone, the lake is elsewhere."""
    world.lose_state()
    shutil.rmtree(world.root / "state")
    (world.root / "warehouse.duckdb").unlink()


@pytest.mark.parametrize("emptied", [False, True], ids=["source full", "source emptied"])
def test_an_empty_state_beside_a_lake_with_sidecars_is_refused_and_adopted(world: World, *, emptied: bool) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    before = world.table("b", "id", "d")
    lose_the_disk(world)
    if emptied:
        shutil.rmtree(world.root / "drops")
    world.drop({"20260115/b.csv": "id,d\nnew,2026-01-15\n"})
    for command in (("run",), ("extract",), ("backfill", "p", "--from-lake"), ("run",)):
        said = world.refused(7, *command)
        assert "the state knows nothing of p, but the lake holds what runs of it have left, such as _runs/p/" in said
        assert "hint: ingestkit state adopt p" in said
    looked = world.call("check", "p")
    assert looked.code == 7
    assert "ingestkit state adopt p" in looked.out + looked.err
    world.does("state", "adopt", "p", "--reason", "the disk died", "--yes")
    world.does("run")
    assert {"p.20260101.1", "p.20260108.1", "p.20260115.1"} <= world.run_statuses().keys()
    assert [row for row in world.table("b", "id", "d") if row[0] != "new"] == before
    assert len(world.table("b", "id", "d")) == len(before) + 1


@pytest.mark.services
def test_an_empty_state_beside_a_bucket_with_sidecars_is_refused_and_adopted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3() as server:
        monkeypatch.setenv("SECRET_KEY", server.secret_key)
        world.settle({"connections.lake": server.connection() | {"secret_key": "${env:SECRET_KEY}"}})
        world.drop(FIRST)
        world.does("run")
        before = world.table("b", "id", "d")
        lose_the_disk(world)
        shutil.rmtree(world.root / "drops/20260101")
        assert "hint: ingestkit state adopt p" in world.refused(7, "run")
        assert world.call("check", "p").code == 7
        world.does("state", "adopt", "p", "--reason", "the disk died", "--yes")
        world.does("run")
        assert world.table("b", "id", "d") == before


def test_the_first_run_of_another_pipeline_of_one_lake_is_no_loss(world: World) -> None:
    world.drop(FIRST)
    world.does("run", "p")
    world.set_up({"models.a.table": "of_q_a", "models.b.table": "of_q_b"}, pipeline="q")
    assert world.call("check", "q").code == 0
    assert world.does("run", "q")["status"] != "nothing new"


def test_recovery_writes_no_row_back_in_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that waited while the stage was done again changes nothing."""
    world.drop(FIRST)
    with monkeypatch.context() as patched:
        lose(patched, "validate")
        world.refused(7, "run", "--jobs", "1")
    queue = world.root / "state/pending_updates.jsonl"
    kept = queue.read_bytes()
    world.does("run")
    world.drop(SECOND)
    before = world.stages("p.20260101.1")
    queue.write_bytes(kept)
    world.does("run")
    assert world.stages("p.20260101.1") == before
