"""Batches done again with the files as they were known at an earlier time, and the pins that leaves."""

import json
import time
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
