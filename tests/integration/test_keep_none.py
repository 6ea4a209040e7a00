"""`keep: none`: what is raw and valid lies in scratch until its batch is done, and all that comes of it is the same."""

import json
import os
import re
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from ingestkit import steps
from tests.integration.test_stages import STAGES, told
from tests.integration.world import BREAKS, World

MODELS = {
    "a": {"key": ["id"], "load": "replace", "columns": {"id": {"required": True}, "n": {"type": "integer"}}},
    "b": {"key": ["id"], "load": "merge", "columns": {"id": {"required": True}, "d": {"type": "date"}}},
    "c": {"load": "append", "columns": {"id": {"required": True}, "n": {"type": "integer"}}},
}
FIRST = {
    "20260101/a.csv": "id,n\n1,10\n2,20\n2,21\n3,three\n",
    "20260101/a_2.csv": "id,n\n4,40\n5,50\n",
    "20260101/b.csv": "id,d\nx,2026-01-01\ny,2026-01-02\nz,never\n",
    "20260101/c.csv": "id,n\n1,1\n2,two\n",
    "20260101/other.txt": "of nobody\n",
}
SECOND = {
    "20260108/a.csv": "id,n\n1,11\n3,30\n",
    "20260108/a_2.csv": BREAKS,
    "20260108/b.csv": "id,d\nx,2026-01-08\nw,2026-01-09\n",
    "20260108/c.csv": "id,n\n1,1\n9,9\n",
}
RESTATED = {"20260108/b.csv": "id,d\nx,2026-01-08\nv,2026-02-09\n"}
LATE = {"20260108/c_2.csv": "id,n\n10,10\n", "20260101/c_2.csv": "id,n\n11,11\n", "20260108/a_3.csv": "id,n\n7,70\n"}
TOO_LATE = {"20260101/a_3.csv": "id,n\n8,80\n"}
THIRD = {"20260115/a.csv": "id,n\n1,12\n", "20260115/b.csv": "id,d\nx,2026-01-15\n", "20260115/c.csv": "id,n\n5,5\n"}
DELIVERIES = (FIRST, SECOND, RESTATED, LATE, THIRD)
NONE = {"keep": "none", "models": MODELS, "validation.on_bad_file": "publish_rest"}


LAST_EXTRACT = "SELECT sidecar FROM pipeline_stage WHERE run_id = ? AND stage = 'extract'"


class Killed(BaseException):
    """Ends a command where it is, as a kill would."""


@pytest.fixture
def keeping_none(world: World) -> World:
    if world.state_url is not None:
        pytest.skip("worlds are compared as the same database tells them")
    world.set_up(NONE)
    return world


@pytest.fixture
def another(world: World, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., World]:
    def made(**changes: Any) -> World:
        other = World(tmp_path_factory.mktemp("other"), world.capsys)
        other.settle()
        other.set_up(NONE | changes)
        return other

    return made


def in_the_lake(world: World, *kinds: str) -> list[str]:
    """What lies in the lake of files of models, each by its path at the source."""
    files = {row["id"]: row["path"] for row in world.files()}
    found = (path for kind in kinds for path in (world.root / "lake" / kind).glob("p/[a-z]*/**/*") if path.is_file())
    ids = (path.name.removesuffix(".parquet").split("-")[0] for path in found)
    return sorted(files.get(one, one) for one in ids)


def in_scratch(world: World) -> list[str]:
    return sorted(path.name for path in (world.root / "state/scratch").rglob("*") if path.is_file())


def lose_the_disk(world: World) -> None:
    """As another machine finds it."""
    shutil.rmtree(world.root / "state/scratch")


def receipts(world: World) -> list[tuple[Any, ...]]:
    return sorted(world.target("SELECT model, batch, generation, digest, settings, mode FROM ingestkit_receipt"))


def rejected(world: World) -> list[dict[str, Any]]:
    """Rejects as people look at them. A record that lost for its key is read from its file, where that is kept."""
    rows = world.does("quarantine", "show", "p", "--reveal", "--limit", "100")["rows"]
    at_hand = ("run_id", "fields")
    from_file = (*at_hand, "raw", "byte_start", "byte_length")
    lost = [any(error["code"] == "duplicate_key" for error in row["errors"]) for row in rows]
    return [
        {name: value for name, value in row.items() if name not in (from_file if by_key else at_hand)}
        for row, by_key in zip(rows, lost, strict=True)
    ]


def content(world: World) -> dict[str, Any]:
    """What stands in the target, whichever runs have put it there."""
    tables = {name: sorted(world.target(f"SELECT * EXCLUDE _run_id FROM {name}"), key=repr) for name in MODELS}
    return {**tables, "receipts": receipts(world)}


def what_is_known(found: dict[str, list[tuple[Any, ...]]]) -> dict[str, str]:
    """Without keys that a restated batch has left behind: of rows that are not kept nobody can count them."""
    return {name: re.sub(r', "left_behind": \d+', "", repr(rows)) for name, rows in found.items()}


def told_alike(world: World) -> dict[str, Any]:
    """All that is told of a world but how often what was tried."""
    return {name: rows for name, rows in told(world).items() if name not in ("runs", "stages")}


def dies_at(monkeypatch: pytest.MonkeyPatch, world: World, step: str, *command: str) -> None:
    """A command ends at a step, and the machine's disk with it."""
    with monkeypatch.context() as patched:

        def reached(name: str) -> None:
            if name == step:
                raise Killed

        patched.setattr(steps, "reached", reached)
        with pytest.raises(Killed):
            world.call(*command)
    lose_the_disk(world)


# --- the same result --------------------------------------------------------------------------------------------------


def test_all_that_comes_of_deliveries_is_the_same_whether_batches_are_kept_or_not(
    keeping_none: World, another: Callable[..., World]
) -> None:
    kept = another(keep="all")
    for delivery in DELIVERIES:
        for world in (keeping_none, kept):
            world.drop(delivery)
            world.does("run")
        assert what_is_known(told(keeping_none)) == what_is_known(told(kept))
        assert receipts(keeping_none) == receipts(kept)
        assert rejected(keeping_none) == rejected(kept)
        assert in_the_lake(keeping_none, "raw", "valid") == ["20260108/a_2.csv"] * (delivery is not FIRST)
        assert in_the_lake(keeping_none, "rejects") == in_the_lake(kept, "rejects")
        assert in_scratch(keeping_none) == []
    assert [path.name.partition("-")[2] for path in keeping_none.root.glob("lake/raw/p/_unmapped/*/*")] == ["other.txt"]
    for world in (keeping_none, kept):
        world.drop(TOO_LATE)
        world.does("run")
    assert what_is_known(told(keeping_none)) == what_is_known(told(kept))
    assert keeping_none.statuses()["20260101/a_3.csv"] == "superseded"
    assert in_scratch(keeping_none) == []
    assert in_the_lake(kept, "raw") != []


def test_a_file_that_was_only_touched_is_the_same_whether_batches_are_kept_or_not(
    keeping_none: World, another: Callable[..., World]
) -> None:
    kept = another(keep="all")
    for world in (keeping_none, kept):
        world.drop(FIRST)
        world.does("run")
        os.utime(world.root / "drops/20260101/c.csv", (1, 1))
        world.does("run")
    assert told_alike(keeping_none) == told_alike(kept)
    assert {row["version"]: row["status"] for row in keeping_none.files("--path", "20260101/c.csv")} == {
        1: "loaded",
        2: "skipped",
    }
    assert in_scratch(keeping_none) == []


# --- the disk thrown away ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behind", STAGES[:-1])
def test_a_stage_that_finds_scratch_gone_fetches_and_validates_again(
    keeping_none: World, another: Callable[..., World], behind: str
) -> None:
    undisturbed = another()
    undisturbed.drop(FIRST)
    undisturbed.does("run")
    keeping_none.drop(FIRST)
    for stage in STAGES:
        keeping_none.does(stage)
        if stage == behind:
            lose_the_disk(keeping_none)
    assert content(keeping_none) == content(undisturbed)
    assert in_the_lake(keeping_none, "raw", "valid") == []
    assert in_scratch(keeping_none) == []
    assert {row["version"] for row in keeping_none.files()} == {1}
    passing = (
        "SELECT path FROM artifact WHERE kind IN ('raw', 'valid') AND status != 'removed' AND model != '_unmapped'"
    )
    assert keeping_none.state(passing) == []


@pytest.mark.parametrize(
    "step",
    [
        "extract.copied",
        "extract.recorded",
        "validate.file_done",
        "validate.recorded",
        "load.intended",
        "load.committed",
        "load.recorded",
        "gate.sidecar_written",
        "clean.noted",
    ],
)
def test_killed_and_its_disk_thrown_away_the_next_run_ends_with_the_same(
    keeping_none: World, another: Callable[..., World], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    undisturbed = another()
    undisturbed.drop(FIRST, SECOND)
    undisturbed.does("run")
    keeping_none.drop(FIRST, SECOND)
    dies_at(monkeypatch, keeping_none, step, "run", "p", "--jobs", "1")
    keeping_none.does("run")
    assert told_alike(keeping_none) == told_alike(undisturbed)
    assert in_the_lake(keeping_none, "raw", "valid") == ["20260108/a_2.csv"]
    assert in_scratch(keeping_none) == []


def test_what_is_published_needs_no_file_any_more(keeping_none: World, monkeypatch: pytest.MonkeyPatch) -> None:
    keeping_none.drop(FIRST)
    dies_at(monkeypatch, keeping_none, "gate.begun", "run", "p")
    published = keeping_none.target("SELECT model, run_id FROM ingestkit_receipt")
    shutil.rmtree(keeping_none.root / "drops/20260101")
    keeping_none.does("run")
    assert keeping_none.target("SELECT model, run_id FROM ingestkit_receipt") == published
    assert keeping_none.checkpoint() == "20260101"


# --- what the source has no more --------------------------------------------------------------------------------------


def test_a_late_file_has_its_model_fetched_whole_and_no_other(keeping_none: World) -> None:
    keeping_none.drop(FIRST, SECOND)
    keeping_none.does("run")
    keeping_none.drop({"20260108/c_2.csv": "id,n\n10,10\n"})
    [one] = keeping_none.does("run")["results"]
    assert (one["model"], one["batch"], one["rows"]) == ("c", "20260108", 3)
    [sidecar] = [json.loads(text) for (text,) in keeping_none.state(LAST_EXTRACT, one["run_id"])]
    assert sorted((file["path"], file["version"]) for file in sidecar["files"]) == [
        ("20260108/c.csv", 1),
        ("20260108/c_2.csv", 1),
    ]
    # A clean that wakes up late would remove what lay there first.
    landed = "SELECT path FROM artifact WHERE kind = 'raw' AND path LIKE '%-c.csv' AND batch = '20260108'"
    assert len(keeping_none.state(landed)) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, "is gone from the source"),
        (b"id,n\n1,1\n9,8\n", "has other bytes at the source than when it was taken"),
    ],
)
def test_a_file_that_is_gone_or_changed_stops_its_batch_by_name(
    keeping_none: World, change: bytes | None, said: str
) -> None:
    keeping_none.drop(FIRST, SECOND)
    keeping_none.does("run")
    before = content(keeping_none)
    path = keeping_none.root / "drops/20260108/c.csv"
    was = path.stat()
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change)
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    keeping_none.drop({"20260108/c_2.csv": "id,n\n10,10\n"})
    told = keeping_none.refused(4, "run", "p")
    assert f"20260108/c.csv {said}, and batch 20260108 needs it once more" in told
    assert "ingestkit skip p --batch 20260108 --reason" in told
    assert content(keeping_none) == before
    assert keeping_none.statuses()["20260108/c_2.csv"] == "seen"
    keeping_none.does("skip", "p", "--batch", "20260108", "--reason", "as it is")
    assert keeping_none.does("run")["status"] == "nothing new"
    assert content(keeping_none) == before
    assert in_scratch(keeping_none) == []


def test_delivered_again_as_it_was_the_batch_goes_on(keeping_none: World) -> None:
    keeping_none.drop(FIRST)
    keeping_none.does("run")
    (keeping_none.root / "drops/20260101/c.csv").unlink()
    keeping_none.drop({"20260101/c_2.csv": "id,n\n10,10\n"})
    keeping_none.refused(4, "run", "p")
    keeping_none.drop({"20260101/c.csv": FIRST["20260101/c.csv"]})
    keeping_none.does("run")
    assert keeping_none.table("c", "id") == [("1",), ("10",)]


def test_gone_between_two_stages_it_is_named_by_the_stage(keeping_none: World) -> None:
    keeping_none.drop(FIRST)
    keeping_none.does("extract")
    lose_the_disk(keeping_none)
    (keeping_none.root / "drops/20260101/b.csv").unlink()
    assert "20260101/b.csv is gone from the source" in keeping_none.refused(4, "validate", "p")


# --- how long it stays ------------------------------------------------------------------------------------------------


def test_a_batch_whose_gate_failed_stays_in_scratch_until_it_is_done(keeping_none: World) -> None:
    keeping_none.set_up(NONE | {"gate.max_reject_pct": 1})
    keeping_none.drop(FIRST)
    keeping_none.refused(6, "run", "p")
    assert in_scratch(keeping_none) != []
    assert in_the_lake(keeping_none, "raw", "valid") == []
    keeping_none.does("approve", "p.20260101.1", "--reason", "known")
    keeping_none.does("run")
    extracted = keeping_none.stages("p.20260101.2")["extract", "a"]
    assert extracted["status"] == "SKIPPED"
    assert in_scratch(keeping_none) == []


def test_a_batch_that_is_given_up_leaves_scratch_with_the_next_that_is_done(keeping_none: World) -> None:
    keeping_none.set_up(NONE | {"gate.max_reject_pct": 1})
    keeping_none.drop(FIRST)
    keeping_none.refused(6, "run", "p")
    keeping_none.does("skip", "p", "--batch", "20260101", "--reason", "bad")
    keeping_none.drop(THIRD)
    keeping_none.does("run")
    assert in_scratch(keeping_none) == []


def test_what_is_of_a_model_that_there_is_no_more_leaves_scratch(keeping_none: World) -> None:
    keeping_none.set_up(NONE | {"gate.max_reject_pct": 0})
    keeping_none.drop({"20260101/b.csv": "id,d\nx,2026-01-01\n", "20260101/c.csv": "id,n\n1,1\n2,y\n"})
    keeping_none.refused(6, "run")
    assert any(name.endswith("-c.csv") for name in in_scratch(keeping_none))
    keeping_none.set_up(NONE | {"models": {name: one for name, one in MODELS.items() if name != "c"}})
    keeping_none.does("run")
    assert in_scratch(keeping_none) == []


def test_what_another_machine_has_ended_leaves_scratch_here(
    keeping_none: World, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    keeping_none.drop(FIRST)
    keeping_none.does("extract")
    keeping_none.does("validate")
    here = tmp_path_factory.mktemp("here") / "scratch"
    shutil.copytree(keeping_none.root / "state/scratch", here)
    lose_the_disk(keeping_none)
    keeping_none.does("run", "p", "--run-id", "p.20260101.1")
    lose_the_disk(keeping_none)
    shutil.copytree(here, keeping_none.root / "state/scratch")
    keeping_none.drop(THIRD)
    keeping_none.does("run")
    assert in_scratch(keeping_none) == []


# --- what was rejected ------------------------------------------------------------------------------------------------

SMALL = {"id": {"required": True}, "n": {"type": "integer", "max": 99}}
STRICT = {"models": {**MODELS, "a": MODELS["a"] | {"columns": SMALL}, "c": MODELS["c"] | {"columns": SMALL}}}
LARGE = {
    "20260101/a.csv": "id,n\n1,10\n4,40\n",
    "20260101/a_2.csv": "id,n\n2,100\n3,100\n",
    "20260101/c.csv": "id,n\n1,1\n2,200\n",
}


def test_a_file_quarantined_whole_is_taken_in_from_the_lake(keeping_none: World) -> None:
    keeping_none.set_up(NONE | STRICT)
    keeping_none.drop(LARGE)
    keeping_none.does("run")
    assert in_the_lake(keeping_none, "raw") == ["20260101/a_2.csv"]
    (keeping_none.root / "drops/20260101/a_2.csv").unlink()
    keeping_none.set_up(NONE)
    keeping_none.does("quarantine", "replay", "p", "--batch", "20260101", "--model", "a")
    assert keeping_none.table("a", "id") == [("1",), ("2",), ("3",), ("4",)]
    assert in_the_lake(keeping_none, "raw", "valid") == []
    assert in_scratch(keeping_none) == []


def test_rejects_are_taken_in_while_the_source_has_their_file(keeping_none: World) -> None:
    keeping_none.set_up(NONE | STRICT)
    keeping_none.drop(LARGE)
    keeping_none.does("run")
    keeping_none.set_up(NONE)
    path = keeping_none.root / "drops/20260101/c.csv"
    path.rename(path.with_name("elsewhere"))
    before = keeping_none.table("c")
    told = keeping_none.refused(4, "quarantine", "replay", "p", "--batch", "20260101", "--model", "c")
    assert "20260101/c.csv is gone from the source" in told
    assert keeping_none.table("c") == before
    path.with_name("elsewhere").rename(path)
    replayed = keeping_none.does("quarantine", "replay", "p", "--batch", "20260101", "--model", "c")
    assert "1 record that was rejected is valid now" in replayed["message"]
    assert keeping_none.table("c", "id") == [("1",), ("2",)]


# --- what cannot be done later ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (("--from-lake",), "ingestkit state reset p --reason '...', then: ingestkit run p"),
        (("--batch", "20260101", "--from-lake"), "ingestkit backfill p --batch 20260101"),
        (("--from", "20260101", "--from-lake"), "ingestkit backfill p --batch K"),
        (("--from-lake", "--dry-run"), "ingestkit state reset p"),
        (
            ("--batch", "20260101", "--as-of", "2026-01-01", "--reason", "x"),
            "ingestkit backfill p --batch 20260101",
        ),
    ],
)
def test_what_takes_files_from_the_lake_is_refused(keeping_none: World, command: tuple[str, ...], hint: str) -> None:
    keeping_none.drop(FIRST)
    keeping_none.does("run")
    told = keeping_none.refused(2, "backfill", "p", *command)
    assert "takes files from the lake, and p keeps none of them there (keep: none)" in told
    assert hint in told


def test_a_backfill_from_the_source_does_a_batch_again(keeping_none: World) -> None:
    keeping_none.drop(FIRST)
    keeping_none.does("run")
    keeping_none.does("backfill", "p", "--batch", "20260101")
    assert keeping_none.table("c", "id") == [("1",)]
    assert in_scratch(keeping_none) == []
    shutil.rmtree(keeping_none.root / "drops/20260101")
    assert "of what had landed nothing is kept (keep: none)" in keeping_none.refused(
        4, "backfill", "p", "--batch", "20260101"
    )


def test_an_old_batch_is_not_merged_again_behind_rows_that_are_not_kept(keeping_none: World) -> None:
    keeping_none.drop(FIRST, THIRD)
    keeping_none.does("run")
    before = content(keeping_none)
    told = keeping_none.refused(2, "backfill", "p", "--batch", "20260101", "--model", "b")
    assert "batch 20260101 cannot be merged again behind 20260115 (b), whose rows are not kept (keep: none)" in told
    keeping_none.drop({"20260101/b_2.csv": "id,d\nq,2026-01-01\n"})
    told = keeping_none.refused(7, "run", "p")
    assert "cannot be merged after 20260115, whose valid rows are no longer in the lake (keep: none)" in told
    assert "ingestkit skip p --batch 20260101 --reason '...'" in told
    assert content(keeping_none) == before
    keeping_none.does("skip", "p", "--batch", "20260101", "--reason", "too late")
    assert keeping_none.does("run")["status"] == "nothing new"


@pytest.mark.parametrize("loss", ["DROP TABLE b", None])
def test_a_lost_target_is_loaded_again_from_what_the_source_holds(keeping_none: World, loss: str | None) -> None:
    keeping_none.drop(FIRST, SECOND)
    keeping_none.does("run")
    before = content(keeping_none)
    if loss is None:
        (keeping_none.root / "warehouse.duckdb").unlink()
    else:
        keeping_none.target_does(loss)
    keeping_none.drop(THIRD)
    told = keeping_none.refused(7, "run", "p")
    assert "ingestkit state reset p --reason '...'" in told
    assert "--from-lake" not in told
    shutil.rmtree(keeping_none.root / "drops/20260115")
    keeping_none.does("state", "reset", "p", "--reason", "lost", "--yes")
    keeping_none.does("run")
    after = content(keeping_none)
    assert {name: after[name] for name in MODELS} == {name: before[name] for name in MODELS}


def test_a_state_that_is_lost_is_built_again_without_what_is_not_kept(keeping_none: World) -> None:
    keeping_none.drop(FIRST, SECOND)
    keeping_none.does("run")
    before = content(keeping_none)
    keeping_none.lose_state()
    assert keeping_none.does("state", "adopt", "p", "--reason", "lost", "--yes")["warnings"] == []
    assert keeping_none.does("run")["status"] == "nothing new"
    keeping_none.drop({"20260108/c_2.csv": "id,n\n10,10\n"})
    keeping_none.does("run")
    assert [row[0] for row in keeping_none.table("c", "id")] == ["1", "1", "10", "9"]
    assert {name: rows for name, rows in content(keeping_none).items() if name in "ab"} == {
        name: before[name] for name in "ab"
    }


def test_what_would_be_fetched_again_is_told_before(keeping_none: World) -> None:
    keeping_none.drop(FIRST)
    keeping_none.does("run")
    path = keeping_none.root / "drops/20260101/c.csv"
    again = ("backfill", "p", "--batch", "20260101", "--model", "c", "--dry-run")
    [file] = keeping_none.does(*again)["files"]
    assert (file["path"], file["action"]) == ("20260101/c.csv", "fetch")
    keeping_none.drop({"20260101/c_2.csv": "id,n\n10,10\n"})
    files = keeping_none.does("plan", "p")["files"]
    told = {file["path"]: (file["action"], file["why"]) for file in files if file["model"] == "c"}
    assert told["20260101/c.csv"] == ("take", "kept no longer (keep: none)")
    path.unlink()
    gone = keeping_none.does(*again)
    assert {file["path"]: file["action"] for file in gone["files"]}["20260101/c.csv"] == "gone"
    assert [(row["action"], row["why"]) for row in gone["batches"]] == [
        ("fail", "20260101/c.csv is gone from the source, or has changed, and is not kept (keep: none)")
    ]


def test_a_rehearsal_of_a_late_file_fetches_into_copies(keeping_none: World) -> None:
    keeping_none.drop(FIRST)
    keeping_none.does("run")
    keeping_none.drop({"20260101/c_2.csv": "id,n\n10,10\n"})
    [one] = keeping_none.does("run", "p", "--dry-run=data")["results"]
    assert (one["model"], one["rows"]) == ("c", 2)
    assert in_scratch(keeping_none) == []


@pytest.mark.parametrize("said", [{"keep": "30d"}, {"keep_batches": 3}])
def test_retention_of_batches_that_are_not_kept_makes_no_sense(keeping_none: World, said: dict[str, Any]) -> None:
    keeping_none.set_up(NONE | {"retention": said})
    assert f"retention.{next(iter(said))} says how long batches stay in the lake" in keeping_none.refused(3, "run", "p")


@pytest.mark.parametrize("gone", [False, True])
def test_what_was_not_kept_is_fetched_again_once_all_is_kept(keeping_none: World, *, gone: bool) -> None:
    keeping_none.drop(FIRST)
    keeping_none.set_up(NONE | {"gate.max_reject_pct": 1})
    keeping_none.refused(6, "run")
    if gone:
        lose_the_disk(keeping_none)
    keeping_none.set_up(NONE | {"keep": "all"})
    keeping_none.does("run")
    assert set(in_the_lake(keeping_none, "raw")) == {name for name in FIRST if name.endswith(".csv")}
    # Of the batch before, which was done when nothing was kept, a late file needs the others.
    keeping_none.set_up(NONE)
    keeping_none.drop(SECOND)
    keeping_none.does("run")
    keeping_none.set_up(NONE | {"keep": "all"})
    keeping_none.drop({"20260108/a_3.csv": "id,n\n7,70\n"})
    keeping_none.does("run")
    assert keeping_none.table("a", "id") == [("1",), ("3",), ("7",)]
    (keeping_none.root / "drops/20260108/a.csv").unlink()
    keeping_none.set_up(NONE)
    keeping_none.drop({"20260108/a_4.csv": "id,n\n8,80\n"})
    keeping_none.does("run")
    assert keeping_none.table("a", "id") == [("1",), ("3",), ("7",), ("8",)]


def test_what_is_published_is_judged_though_disk_and_source_are_gone(keeping_none: World) -> None:
    gate = keeping_none.root / "sql/gate/p/small.sql"
    gate.parent.mkdir(parents=True)
    gate.write_text("-- models: a\nSELECT * FROM a WHERE n > 30\n")
    keeping_none.drop(FIRST)
    assert "nothing is sent on" in keeping_none.refused(6, "run")
    lose_the_disk(keeping_none)
    shutil.rmtree(keeping_none.root / "drops/20260101")
    assert "nothing is sent on" in keeping_none.refused(6, "run")
    keeping_none.does("approve", "p.20260101.1", "--reason", "known")
    assert keeping_none.does("run")["run_ids"] == ["p.20260101.1"]
    assert keeping_none.completions()["20260101", "a"] == "done"
    assert keeping_none.does("run")["status"] == "nothing new"
