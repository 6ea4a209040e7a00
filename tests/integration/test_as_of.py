"""Batches done again with the files as they were known at an earlier time, and the pins that leaves."""

import json
import re
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tests.integration.world import World, batches_of

MODELS = {
    "models.c": {"load": "append", "columns": {"id": {"required": True}, "n": {"type": "integer"}}},
}
WHY = ("--reason", "the restatement was wrong")


def now() -> str:
    """The present instant, with room on both sides of it."""
    time.sleep(0.01)
    said = datetime.now(UTC).isoformat()
    time.sleep(0.01)
    return said


def pins(world: World) -> list[tuple[str, str]]:
    return [(one["model"], one["batch"]) for one in world.does("state", "show", "p")["pins"]]


def day(number: int, content: int) -> dict[str, str]:
    return {
        f"2026010{number}/a.csv": f"id,n\na{number},{content}\n",
        f"2026010{number}/b.csv": f"id,d\nb{number},2026-01-{content:02}\n",
        f"2026010{number}/c.csv": f"id,n\nc{number},{content}\n",
    }


@pytest.fixture
def then(world: World) -> str:
    """The instant at which batches 1 to 3 were known as they first came; all were restated since, and 4 came."""
    world.set_up(MODELS)
    world.drop(day(1, 1), day(2, 2), day(3, 3))
    world.does("run")
    said = now()
    world.drop(day(1, 11), day(2, 12), day(3, 13), {"20260103/c_2.csv": "id,n\nlate,9\n"}, day(4, 14))
    world.does("run")
    assert world.table("a", "id", "n") == [("a4", 14)]
    return said


def test_a_snapshot_is_put_back_and_the_next_batch_ends_it(world: World, then: str) -> None:
    world.does("backfill", "p", "--batch", "20260103", "--model", "a", "--as-of", then, *WHY, "--by", "ann")
    assert world.table("a", "id", "n", "_batch") == [("a3", 3, "20260103")]
    assert pins(world) == [("a", "20260103")]
    [pin] = world.does("state", "show", "p")["pins"]
    assert pin["as_of"] == then.replace("+00:00", "Z")
    [decision] = [one for one in world.does("state", "show", "p")["decisions"] if one["kind"] == "pin"]
    assert (decision["by"], decision["reason"]) == ("ann", WHY[1])
    assert decision["subject"]["batch"] == "20260103"
    assert "pins" in world.call("state", "show", "p").out
    assert world.does("run")["status"] == "nothing new", "it stays until something newer comes"
    assert world.checkpoint() == "20260104"
    world.drop({"20260105/a.csv": "id,n\na5,5\n"})
    world.does("run")
    assert world.table("a", "id", "n") == [("a5", 5)]
    assert pins(world) == []


def test_other_modes_publish_the_files_of_then_by_their_own_rule(world: World, then: str) -> None:
    flags = ("--model", "b", "--model", "c")
    world.does("backfill", "p", "--batch", "20260103", *flags, "--as-of", then, *WHY)
    assert ("c3", 3) in world.table("c", "id", "n")
    assert {one for (one,) in world.table("c", "id")} == {"c1", "c2", "c3", "c4"}, "the late file was not known"
    assert [str(d) for (i, d) in world.table("b", "id", "d") if i == "b3"] == ["2026-01-03"]
    versions = {(one["path"], one["version"]): one["status"] for one in world.files("--batch", "20260103")}
    assert versions["20260103/c.csv", 1] == "loaded"
    assert versions["20260103/c.csv", 2] == versions["20260103/c_2.csv", 1] == "superseded"
    assert world.does("run")["status"] == "nothing new"
    assert pins(world) == [("b", "20260103"), ("c", "20260103")]
    world.does("backfill", "p", "--batch", "20260103", *flags)
    assert {one for (one,) in world.table("c", "id")} == {"c1", "c2", "c3", "c4", "late"}, "without it, the latest"
    assert pins(world) == []


def test_a_range_as_of_then(world: World, then: str) -> None:
    answer = world.does("backfill", "p", "--from", "20260102", "--as-of", then, *WHY)
    assert batches_of(answer) == ["20260102", "20260103"]
    assert "not known then: 20260104" in answer["message"]
    assert world.table("a", "id", "n") == [("a3", 3)]
    assert dict(world.table("c", "id", "n")) == {"c1": 11, "c2": 2, "c3": 3, "c4": 14}
    assert pins(world) == [
        ("a", "20260103"),
        ("b", "20260102"),
        ("b", "20260103"),
        ("c", "20260102"),
        ("c", "20260103"),
    ]
    said = world.refused(2, "backfill", "p", "--from", "20260102", "--resume")
    assert "was begun with --as-of" in said


def test_the_source_is_not_asked(world: World, then: str) -> None:
    (world.root / "drops").rename(world.root / "away")
    world.does("backfill", "p", "--batch", "20260103", "--as-of", then, *WHY)
    assert world.table("a", "id", "n") == [("a3", 3)]


def test_what_the_lake_no_longer_holds_is_refused_before_anything_is_done(world: World, then: str) -> None:
    [old] = [one for one in world.files("--path", "20260103/a.csv") if one["version"] == 1]
    (world.root / "lake" / old["raw"]).unlink()
    said = world.refused(7, "backfill", "p", "--batch", "20260103", "--as-of", then, *WHY)
    assert "the raw object of 20260103/a.csv (version 1) is no longer in the lake" in said
    assert pins(world) == []
    assert not [one for one in world.does("state", "show", "p")["decisions"] if one["kind"] == "pin"]
    world.does("backfill", "p", "--batch", "20260103", "--model", "c", "--as-of", then, *WHY)


def test_a_time_before_the_batch_was_known_is_refused(world: World, then: str) -> None:
    said = world.refused(2, "backfill", "p", "--batch", "20260104", "--as-of", then, *WHY)
    assert "the ledger knew no file of batch 20260104 at" in said
    said = world.refused(2, "backfill", "p", "--batch", "20260103", "--as-of", "yesterday", *WHY)
    assert "--as-of" in said
    said = world.refused(2, "backfill", "p", "--batch", "20260103", "--as-of", "2999-01-01T00:00Z", *WHY)
    assert "--as-of: 2999-01-01 00:00:00Z has not come yet" in said
    assert pins(world) == []
    assert "come together" in world.refused(2, "backfill", "p", "--batch", "20260103", "--as-of", then)
    assert "which batch" in world.refused(2, "backfill", "p", "--from-lake", "--as-of", then, *WHY)


def test_what_was_forgotten_stood_until_a_run_went_on_without_it(world: World) -> None:
    world.set_up(MODELS)
    world.drop(day(1, 1), {"20260101/c_2.csv": "id,n\nc2,2\n"})
    world.does("run")
    world.does("manifest", "forget", "p", "--path", "20260101/c.csv", "--reason", "x", "--yes")
    forgotten = now()
    (world.root / "drops/20260101/c.csv").unlink()
    world.does("run")
    without = now()
    assert dict(world.table("c", "id", "n")) == {"c2": 2}
    put_back = ("backfill", "p", "--batch", "20260101", "--model", "c", *WHY, "--as-of")
    world.does(*put_back, without)
    assert dict(world.table("c", "id", "n")) == {"c2": 2}
    world.does(*put_back, forgotten)
    assert dict(world.table("c", "id", "n")) == {"c1": 1, "c2": 2}
    assert world.does("run")["status"] == "nothing new"


def test_what_was_forgotten_stays_so_when_an_earlier_time_is_put_back(world: World) -> None:
    """What is published behind that holds it no more."""
    world.set_up(MODELS)
    world.drop(day(1, 1), {"20260101/c_2.csv": "id,n\nc2,2\n"})
    world.does("run")
    then = now()
    (world.root / "drops/20260101/c_2.csv").unlink()
    world.does("manifest", "forget", "p", "--path", "20260101/c_2.csv", "--reason", "x", "--yes")
    world.does("run")
    world.does("backfill", "p", "--batch", "20260101", "--model", "c", "--as-of", then, *WHY)
    assert dict(world.table("c", "id", "n")) == {"c1": 1, "c2": 2}
    assert world.statuses()["20260101/c_2.csv"] == "forgotten"
    assert world.does("run")["status"] == "nothing new"
    (world.root / "warehouse.duckdb").unlink()
    world.does("backfill", "p", "--from-lake")
    assert dict(world.table("c", "id", "n")) == {"c1": 1, "c2": 2}, "what was put back is put back again"
    world.drop({"20260101/c.csv": "id,n\nc1,11\n"})
    world.does("run")
    assert dict(world.table("c", "id", "n")) == {"c1": 11}
    assert world.statuses()["20260101/c_2.csv"] == "forgotten"


def test_a_file_forgotten_and_not_yet_gone_on_without_is_still_so_when_an_earlier_time_is_put_back(
    world: World,
) -> None:
    world.set_up(MODELS)
    world.drop(day(1, 1), {"20260101/c_2.csv": "id,n\nc2,2\n"})
    world.does("run")
    then = now()
    (world.root / "drops/20260101/c_2.csv").unlink()
    world.does("manifest", "forget", "p", "--path", "20260101/c_2.csv", "--reason", "x", "--yes")
    world.does("backfill", "p", "--batch", "20260101", "--model", "c", "--as-of", then, *WHY)
    assert dict(world.table("c", "id", "n")) == {"c1": 1, "c2": 2}
    world.does("run")
    assert dict(world.table("c", "id", "n")) == {"c1": 1}
    assert world.does("run")["status"] == "nothing new"


def test_a_run_cut_short_goes_on_with_the_files_of_then(world: World, then: str) -> None:
    world.set_up(MODELS | {"models.a.columns.n.min": 5})
    world.refused(5, "backfill", "p", "--batch", "20260103", "--model", "a", "--as-of", then, *WHY)
    mine = "(SELECT run_id FROM pipeline_run WHERE kind = 'as_of')"
    world.state(f"UPDATE run_model SET open_key = 'p/a' WHERE run_id IN {mine}")
    world.state("UPDATE pipeline_run SET status = 'OPEN', ended_at = NULL WHERE kind = 'as_of'")
    world.set_up(MODELS)
    world.does("run", "--take-over")
    assert world.table("a", "id", "n") == [("a3", 3)]
    assert pins(world) == [("a", "20260103")]


def test_a_run_under_the_same_id_takes_the_files_of_today(world: World, then: str) -> None:
    world.set_up(MODELS | {"models.c.columns.n.min": 5})
    world.refused(5, "backfill", "p", "--from", "20260103", "--model", "c", "--as-of", then, *WHY, "--run-id", "x")
    world.drop({"20260103/c.csv": "id,n\nc3,33\n"})
    world.does("run", "--run-id", "x")
    assert dict(world.table("c", "id", "n"))["c3"] == 33
    assert pins(world) == []


def test_a_target_built_again_holds_what_was_put_back(world: World, then: str) -> None:
    world.does("backfill", "p", "--batch", "20260103", "--as-of", then, *WHY)
    before = {model: world.table(model, "*  EXCLUDE (_run_id)") for model in ("b", "c")}
    (world.root / "warehouse.duckdb").unlink()
    ended = world.call("backfill", "p", "--from-lake")
    assert ended.code == 0
    assert {model: world.table(model, "*  EXCLUDE (_run_id)") for model in ("b", "c")} == before
    assert world.table("a", "id", "n") == [("a4", 14)], "of a snapshot, the newest"
    assert "a stood as batch 20260103 was; it is built again as of 20260104" in ended.err
    assert pins(world) == [("b", "20260103"), ("c", "20260103")]


def test_a_state_rebuilt_from_the_lake_knows_the_pins(world: World, then: str) -> None:
    world.does("backfill", "p", "--batch", "20260103", "--as-of", then, *WHY)
    before = pins(world)
    world.lose_state()
    world.does("state", "adopt", "p", "--reason", "lost", "--yes")
    assert pins(world) == before == [("a", "20260103"), ("b", "20260103"), ("c", "20260103")]
    assert json.loads((world.root / "state/mirror/p.json").read_text())["checkpoint"] == "20260104"


@pytest.fixture
def back(world: World, then: str) -> World:
    """Snapshot 3 stands in place of 4, which came after it."""
    world.does("backfill", "p", "--batch", "20260103", "--model", "a", "--as-of", then, *WHY)
    assert world.table("a", "id", "n") == [("a3", 3)]
    return world


def touch(world: World) -> None:
    (world.root / "drops/20260104/a.csv").touch()


def forget(world: World) -> None:
    world.does("manifest", "forget", "p", "--path", "20260104/a.csv", "--reason", "x", "--yes")


def reset(world: World) -> None:
    world.does("state", "reset", "p", "--reason", "x", "--yes")


@pytest.mark.parametrize("wanted", [touch, forget, reset])
def test_a_newer_snapshot_that_is_done_again_is_published_again(back: World, wanted: Callable[[World], None]) -> None:
    wanted(back)
    assert "20260104" in batches_of(back.does("run"))
    assert back.table("a", "id", "n", "_batch") == [("a4", 14, "20260104")]
    assert pins(back) == []
    before = back.target("SELECT generation, run_id FROM ingestkit_receipt WHERE model = 'a' AND batch = '20260104'")
    touch(back)
    back.does("run")
    again = back.target("SELECT generation, run_id FROM ingestkit_receipt WHERE model = 'a' AND batch = '20260104'")
    assert again == before, "it stands, and is not published a third time"


def test_a_snapshot_put_back_stays_when_its_file_is_superseded(back: World) -> None:
    back.drop({"20260103/a.csv": "id,n\na3,333\n"})
    [answer] = back.does("run")["results"]
    assert "superseded by 20260104" in answer["detail"]
    assert back.table("a", "id", "n") == [("a3", 3)]
    assert pins(back) == [("a", "20260103")]
    assert back.completions()["20260103", "a"] == "done"
    files = {one["version"]: one for one in back.files("--path", "20260103/a.csv")}
    assert [files[number]["status"] for number in (1, 2, 3)] == ["loaded", "superseded", "superseded"]
    assert (files[1]["loaded"], files[3]["loaded"]) == (1, 0)
    assert back.does("run")["status"] == "nothing new"
    assert back.call("check", "p").code == 0
    touch(back)
    back.does("run")
    assert back.table("a", "id", "n") == [("a4", 14)]
    assert pins(back) == []


def test_a_target_of_before_a_snapshot_was_put_back_is_told(back: World, then: str) -> None:
    back.does("backfill", "p", "--batch", "20260104", "--model", "a")
    shutil.copy(back.root / "warehouse.duckdb", back.root / "copy.duckdb")
    back.does("backfill", "p", "--batch", "20260103", "--model", "a", "--as-of", then, *WHY)
    assert "does not hold that" not in back.call("check", "p").err
    shutil.copy(back.root / "copy.duckdb", back.root / "warehouse.duckdb")
    told = back.call("check", "p").err
    assert "p.a was put back to batch 20260103 as of 20" in told
    hint = re.search(r"ingestkit (backfill p --batch 20260103 --model a --as-of \S+)", told)
    assert hint is not None
    back.does(*hint[1].split(), *WHY)
    assert back.table("a", "id") == [("a3",)]
    assert "does not hold that" not in back.call("check", "p").err


def test_a_rebuilt_state_has_no_work_with_what_was_superseded(back: World) -> None:
    back.drop({"20260103/a.csv": "id,n\na3,333\n"})
    back.does("run")
    back.lose_state()
    back.does("state", "adopt", "p", "--reason", "lost", "--yes")
    assert back.does("run")["status"] == "nothing new"
    assert back.table("a", "id", "n") == [("a3", 3)]
    assert pins(back) == [("a", "20260103")]
    assert back.completions()["20260103", "a"] == "done"


def test_a_snapshot_that_a_gate_stopped_is_shown_while_it_stands(back: World, then: str) -> None:
    check = back.root / "sql/gate/p/none.sql"
    check.parent.mkdir(parents=True)
    check.write_text("-- models: a\nSELECT * FROM a WHERE id = 'a2'\n")
    back.refused(6, "backfill", "p", "--batch", "20260102", "--model", "a", "--as-of", then, *WHY)
    assert back.table("a", "id", "n") == [("a2", 2)]
    assert pins(back) == [("a", "20260102")]
    check.unlink()
    back.does("run")
    assert back.table("a", "id", "n") == [("a2", 2)]
    assert pins(back) == [("a", "20260102")]
    assert back.does("run")["status"] == "nothing new"


def test_a_snapshot_that_failed_its_gate_and_was_put_aside_stays_so(world: World, then: str) -> None:
    check = world.root / "sql/gate/p/none.sql"
    check.parent.mkdir(parents=True)
    check.write_text("-- models: a\nSELECT * FROM a WHERE n > 100\n")
    world.drop({"20260105/a.csv": "id,n\na5,666\n", "20260105/c.csv": "id,n\nc5,5\n"})
    world.refused(6, "run", "p")
    world.does("backfill", "p", "--batch", "20260103", "--model", "a", "--as-of", then, *WHY)
    for _ in range(2):
        said = world.refused(6, "run", "p")
        assert world.completions()["20260105", "c"] == "done", "what was not put aside is judged"
        assert "batch 20260105 of a did not pass its gate, and an older one was put back in its place" in said
        assert world.table("a", "id", "n") == [("a3", 3)]
    assert pins(world) == [("a", "20260103")]
    assert world.call("plan", "p", "--output", "json").answer["failure"]["exit_code"] == 6
    forget = ("manifest", "forget", "p", "--path", "20260105/a.csv", "--reason", "once more", "--yes")
    world.does(*forget)
    world.refused(6, "run", "p")
    assert world.table("a", "id", "n") == [("a5", 666)], "it was asked for"
    world.does("backfill", "p", "--batch", "20260103", "--model", "a", "--as-of", then, *WHY)
    world.does("skip", "p", "--batch", "20260105", "--reason", "bad")
    assert world.does("run")["status"] == "nothing new"
    assert world.table("a", "id", "n") == [("a3", 3)]
    world.drop({"20260106/a.csv": "id,n\na6,6\n"})
    world.does("run")
    assert world.table("a", "id", "n") == [("a6", 6)]


def test_a_pin_outlives_a_reset_that_publishes_nothing(back: World) -> None:
    reset(back)
    assert back.table("a", "id", "n") == [("a3", 3)]
    assert pins(back) == [("a", "20260103")]


CHANGES = {"source.late": "load", "models.a.delta": "delta"}


@pytest.mark.parametrize("old", ["full", "delta"])
def test_a_full_file_that_comes_late_ends_pins_of_what_it_replaces(world: World, old: str) -> None:
    """Also where it goes under changes that are newer than itself."""
    world.set_up(CHANGES)
    world.drop({"20260101/a.csv": "id,n\n1,10\n2,20\n"}, {"20260102/a_delta.csv": "id,n\n1,11\n"})
    world.drop({"20260115/a_delta.csv": "id,n\n2,22\n"})
    world.does("run")
    then = now()
    batch, file = ("20260101", "a.csv") if old == "full" else ("20260102", "a_delta.csv")
    world.drop({f"{batch}/{file}": "id,n\n1,12\n"})
    world.does("run")
    world.does("backfill", "p", "--batch", batch, "--as-of", then, *WHY)
    assert pins(world) == [("a", batch)]
    world.drop({"20260108/a.csv": "id,n\n9,90\n"})
    world.does("run")
    assert world.table("a", "id", "n") == [("2", 22), ("9", 90)]
    assert pins(world) == []
    (world.root / "warehouse.duckdb").unlink()
    ended = world.call("backfill", "p", "--from-lake")
    assert (ended.code, "stood as batch" in ended.err) == (0, False)
    assert world.table("a", "id", "n") == [("2", 22), ("9", 90)]
