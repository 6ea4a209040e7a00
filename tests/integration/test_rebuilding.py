"""A target that is gone, put back or half there: found, and built again whole, whatever happens on the way."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ingestkit import steps
from tests.integration.world import FIRST, SECOND, THIRD, World, batches_of
from tests.object_stores import s3

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

APPEND = {"models.b.load": "append", "models.b.key": []}
RESTATED = {"20260108/b.csv": "id,d\nx,2026-01-08\nq,2026-01-09\n"}


class Killed(BaseException):
    """Ends a command where it is, as a kill would."""


def die_at(monkeypatch: pytest.MonkeyPatch, wanted: str, number: int = 1) -> None:
    left = [number]

    def reached(step: str) -> None:
        if step == wanted:
            left[0] -= 1
            if not left[0]:
                raise Killed

    monkeypatch.setattr(steps, "reached", reached)


def tables(world: World) -> list[Any]:
    return [world.table("a", "id", "n", "_batch"), world.table("b", "id", "d", "_batch")]


@pytest.fixture
def filled(world: World) -> World:
    world.set_up(APPEND)
    world.drop(FIRST, SECOND, THIRD)
    world.does("run")
    return world


def test_one_batch_from_the_lake_does_not_make_a_deleted_target_look_whole(filled: World) -> None:
    (filled.root / "warehouse.duckdb").unlink()
    told = filled.refused(7, "backfill", "p", "--batch", "20260115", "--from-lake")
    assert "gone" in told
    assert "ingestkit backfill p --from-lake" in told
    assert not (filled.root / "warehouse.duckdb").exists()


@pytest.mark.parametrize(
    ("step", "number"),
    [
        ("rebuild.marked", 1),
        ("warehouse.created", 1),
        ("check.done", 1),
        ("rebuild.voided", 1),
        ("load.committed", 1),
        ("load.committed", 2),
        ("run.done", 1),
        ("run.done", 2),
    ],
)
def test_a_rebuild_that_was_killed_is_finished_by_the_next_run(
    filled: World, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    whole = tables(filled)
    (filled.root / "warehouse.duckdb").unlink()
    with monkeypatch.context() as patched:
        die_at(patched, step, number)
        with pytest.raises(Killed):
            filled.call("backfill", "p", "--from-lake")
    filled.does("run")
    assert tables(filled) == whole
    assert filled.does("run")["status"] == "nothing new"
    assert filled.state("SELECT rebuild FROM pipeline") == [(None,)]


def test_a_rebuild_of_one_model_leaves_the_others_to_the_next_run(filled: World) -> None:
    whole = tables(filled)
    (filled.root / "warehouse.duckdb").unlink()
    filled.does("backfill", "p", "--from-lake", "--model", "a")
    assert batches_of(filled.does("run")) == ["20260101", "20260108", "20260115"]
    assert tables(filled) == whole


def test_a_dropped_table_is_found_and_built_again(filled: World) -> None:
    whole = tables(filled)
    filled.target_does("DROP TABLE b")
    filled.drop({"20260122/a.csv": "id,n\n9,9\n"})
    assert "has no table b" in filled.refused(7, "run")
    filled.does("backfill", "p", "--from-lake")
    assert tables(filled) == whole
    filled.does("run")
    assert filled.table("b", "id", "d", "_batch") == whole[1]


def test_a_dropped_table_is_loaded_again_by_a_pipeline_that_begins_anew(filled: World) -> None:
    whole = tables(filled)
    filled.target_does("DROP TABLE b")
    filled.does("state", "reset", "p", "--reason", "lost", "--yes")
    filled.does("run")
    assert tables(filled) == whole


def test_a_target_put_back_to_before_a_restatement_is_found_and_cured(filled: World, tmp_path: Path) -> None:
    file = filled.root / "warehouse.duckdb"
    shutil.copy(file, tmp_path / "older.duckdb")
    filled.drop(RESTATED)
    filled.does("run")
    whole = tables(filled)
    shutil.copy(tmp_path / "older.duckdb", file)
    filled.drop({"20260122/a.csv": "id,n\n9,9\n"})
    assert "backfill p --from-lake" in filled.refused(7, "run")
    assert batches_of(filled.does("backfill", "p", "--from-lake")) == ["20260108"]
    assert tables(filled) == whole
    filled.does("run")


def test_a_state_and_a_target_lost_together_come_back_from_the_lake(filled: World) -> None:
    whole = tables(filled)
    (filled.root / "warehouse.duckdb").unlink()
    filled.lose_state()
    filled.does("state", "adopt", "p", "--reason", "both lost", "--yes")
    filled.does("run")
    assert tables(filled) == whole
    assert filled.does("run")["status"] == "nothing new"


@pytest.mark.parametrize("lost", [False, True])
def test_after_a_whole_target_is_adopted_nothing_is_left_to_the_next_run(filled: World, *, lost: bool) -> None:
    if lost:
        filled.lose_state()
    told = filled.does("state", "adopt", "p", "--reason", "ours again", "--yes")["message"]
    assert ("sidecars read back from the lake" if lost else "it knew all that the lake says") in told
    assert filled.state("SELECT rebuild FROM pipeline") == [(None,)]
    filled.does("clean")


def test_after_a_target_that_lacks_something_is_adopted_only_the_next_run_makes_it_whole(filled: World) -> None:
    whole = tables(filled)
    filled.target_does("DROP TABLE b")
    filled.does("state", "adopt", "p", "--reason", "b is gone", "--yes")
    assert "the target of p (b) is being built again" in filled.refused(7, "clean")
    filled.does("run")
    assert tables(filled) == whole
    filled.does("clean")


def test_lost_valid_rows_do_not_stop_a_merge_from_being_restated(world: World) -> None:
    world.drop(FIRST, SECOND, THIRD)
    world.does("run")
    shutil.rmtree(world.root / "lake/valid")
    world.drop(RESTATED)
    told = world.refused(7, "run")
    assert "ingestkit backfill p --batch 20260115 --model b --from-lake" in told
    world.does(*typed(told.replace("to make them again: ", ""))[0])
    world.does("run")
    assert world.table("b", "id", "_batch") == [
        ("q", "20260108"),
        ("x", "20260115"),
        ("y", "20260101"),
        ("z", "20260108"),
    ]


def test_a_batch_of_the_lake_that_is_partly_superseded_is_done_from_the_lake_for_the_rest(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    shutil.rmtree(world.root / "drops/20260101")
    told = world.refused(2, "backfill", "p", "--batch", "20260101", "--from-lake")
    assert typed(told) == [["backfill", "p", "--batch", "20260101", "--model", "b", "--from-lake"]]
    world.does(*typed(told)[0])


def test_keys_that_a_restated_batch_left_behind_are_not_lost_silently(world: World) -> None:
    world.set_up()
    world.drop(FIRST, SECOND)
    world.does("run")
    world.drop({"20260101/b.csv": "id,d\nx,2026-01-01\nw,2026-01-02\n"})
    world.does("run")
    world.does("backfill", "p", "--batch", "20260101", "--model", "b")
    assert [key for (key,) in world.table("b", "id")] == ["w", "x", "y", "z"]
    (world.root / "warehouse.duckdb").unlink()
    ended = world.call("backfill", "p", "--from-lake")
    assert ended.code == 0
    assert [key for (key,) in world.table("b", "id")] == ["w", "x", "z"]
    [told] = [one["event"] for one in ended.log if "left" in one["event"]]
    assert told == "b: batch 20260101 left 1 key in the target when it was restated; built again, it has none of them"
    assert "ingestkit manifest show p --batch 20260101" in ended.err
    (world.root / "warehouse.duckdb").unlink()
    again = world.call("backfill", "p", "--from-lake")
    assert [one for one in again.log if "left" in one["event"]] == [], "nothing was there any more"


def forgotten(world: World, path: str) -> None:
    """Gone at the source, and forgotten."""
    (world.root / "drops" / path).unlink()
    world.does("manifest", "forget", "p", "--path", path, "--reason", "wrong", "--yes")
    world.does("run")


def test_changes_whose_files_were_all_forgotten_are_not_built_again_and_stop_nothing(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    then = datetime.now(UTC).isoformat()
    held = world.table("b", "id", "_batch")
    forgotten(world, "20260108/b.csv")
    assert world.table("b", "id", "_batch") == held
    (world.root / "warehouse.duckdb").unlink()
    built = world.call("backfill", "p", "--from-lake")
    assert built.code == 0
    assert "b: all files of batch 20260108 were forgotten; it is not built again" in built.err
    assert world.table("b", "id", "_batch") == [("x", "20260101"), ("y", "20260101")]
    assert world.completions()["20260108", "b"] == "absent"
    assert world.call("check", "p").code == 0
    world.drop(THIRD)
    assert batches_of(world.does("run")) == ["20260115"]
    assert world.does("backfill", "p", "--from-lake")["message"] == "nothing had to be done"
    why = ("--as-of", then, "--reason", "wanted after all")
    world.does("backfill", "p", "--batch", "20260108", "--model", "b", *why)
    assert world.table("b", "id", "_batch") == [("x", "20260115"), ("y", "20260101"), ("z", "20260108")]


def test_the_snapshot_before_one_that_was_forgotten_is_what_a_target_is_built_from(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    forgotten(world, "20260108/a.csv")
    assert world.table("a", "id", "n", "_batch") == [("1", 11, "20260108"), ("3", 30, "20260108")]
    (world.root / "warehouse.duckdb").unlink()
    told = world.does("backfill", "p", "--from-lake", "--dry-run")
    assert {(one["batch"], one["model"]) for one in told["batches"]} == {
        ("20260101", "a"),
        ("20260101", "b"),
        ("20260108", "b"),
    }
    world.does("backfill", "p", "--from-lake")
    assert world.table("a", "id", "n", "_batch") == [("1", 10, "20260101"), ("2", 20, "20260101")]
    assert world.call("check", "p").code == 0
    assert world.does("run")["status"] == "nothing new"
    world.drop({"20260108/a.csv": "id,n\n8,80\n"})
    world.does("run")
    assert world.table("a", "id", "n") == [("8", 80)]


def test_a_state_lost_behind_a_rebuild_knows_what_was_not_built_again(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    forgotten(world, "20260108/a.csv")
    (world.root / "warehouse.duckdb").unlink()
    world.does("backfill", "p", "--from-lake")
    world.lose_state()
    world.does("state", "adopt", "p", "--reason", "lost", "--yes")
    assert world.state("SELECT rebuild FROM pipeline") == [(None,)]
    assert world.completions()["20260108", "a"] == "absent"
    assert world.call("check", "p").code == 0


@pytest.mark.parametrize("lost", [(), ("a",)])
def test_the_target_of_another_state_is_not_built_again(
    filled: World, tmp_path: Path, *, lost: tuple[str, ...]
) -> None:
    file = filled.root / "warehouse.duckdb"
    shutil.copy(file, tmp_path / "older.duckdb")
    filled.does("state", "adopt", "p", "--reason", "ours", "--yes")
    shutil.copy(tmp_path / "older.duckdb", file)
    for table in lost:
        filled.target_does(f"DROP TABLE {table}")
    said = filled.refused(7, "backfill", "p", "--from-lake")
    assert "was last written by another state" in said
    assert "ingestkit state adopt p" in said
    assert filled.state("SELECT rebuild FROM pipeline") == [(None,)], "nothing was begun"
    filled.does("state", "adopt", "p", "--reason", "this one", "--yes")
    filled.does("run")
    assert filled.does("backfill", "p", "--from-lake")["message"] == "nothing had to be done"


def of_no_use(world: World) -> Path:
    """A check of one's own that lets no batch pass in which key 9 is."""
    check = world.root / "sql/gate/p/nine.sql"
    check.parent.mkdir(parents=True)
    check.write_text("-- models: a\nSELECT * FROM a WHERE id = '9'\n")
    return check


def test_what_a_batch_that_no_gate_let_pass_superseded_is_built_again_without_it(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    of_no_use(world)
    world.drop({"20260115/a.csv": "id,n\n9,90\n"})
    world.refused(6, "run")
    world.drop({"20260108/a.csv": "id,n\n1,12\n5,50\n"})
    world.refused(6, "run")
    assert world.completions()["20260108", "a"] == "superseded"
    assert world.call("check", "p").code == 0, "what stands over it is there"
    (world.root / "warehouse.duckdb").unlink()
    world.does("backfill", "p", "--from-lake")
    assert world.table("a", "id", "n") == [("1", 12), ("5", 50)]
    world.does("skip", "p", "--batch", "20260115", "--reason", "of no use")
    assert world.does("run")["status"] == "nothing new"
    assert world.completions()["20260108", "a"] == "done"
    assert world.call("check", "p").code == 0


def test_what_was_superseded_stays_so_while_the_batch_that_did_it_is_there(world: World) -> None:
    world.drop(FIRST, SECOND, THIRD)
    world.does("run")
    world.drop({"20260108/a.csv": "id,n\n1,12\n5,50\n"})
    world.does("run")
    assert world.completions()["20260108", "a"] == "superseded"
    assert world.call("check", "p").code == 0
    (world.root / "warehouse.duckdb").unlink()
    built = world.does("backfill", "p", "--from-lake")["results"]
    assert [one["batch"] for one in built if one["model"] == "a"] == ["20260115"]


# --- objects that others have put in place of ours -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Folder:
    root: Path

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        (self.root / name).write_bytes(content)


@dataclass(frozen=True, slots=True)
class Bucket:
    client: "S3Client"
    name: str
    keeps_metadata: bool = False
    """As of bytes that rot, or by a tool that copies what is told of them."""

    def read(self, name: str) -> bytes:
        return self.client.get_object(Bucket=self.name, Key=name)["Body"].read()

    def write(self, name: str, content: bytes) -> None:
        told = self.client.head_object(Bucket=self.name, Key=name)["Metadata"] if self.keeps_metadata else {}
        self.client.put_object(Bucket=self.name, Key=name, Body=content, Metadata=told)


@contextmanager
def kept_in(world: World, place: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder | Bucket]:
    """Where the objects of the lake are, as whoever else has rights there sees them."""
    if place == "folder":
        yield Folder(world.root / "lake")
        return
    with s3() as server:
        monkeypatch.setenv("SECRET_KEY", server.secret_key)
        said = server.connection()
        world.settle({"connections.lake": said | {"secret_key": "${env:SECRET_KEY}"}})
        yield Bucket(server.client(), said["bucket"], keeps_metadata=place == "damaged bucket")


def widened(parquet: bytes, size: int) -> bytes:
    """The same file so large: what is between its last column and its footer is read by nobody."""
    footer = int.from_bytes(parquet[-8:-4], "little") + 8
    assert len(parquet) <= size
    return parquet[:-footer] + bytes(size - len(parquet)) + parquet[-footer:]


PLACES = ["folder", *(pytest.param(place, marks=pytest.mark.services) for place in ("bucket", "damaged bucket"))]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["append", "merge"])
def test_valid_rows_that_others_have_replaced_are_made_again(
    world: World, place: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "append":
        world.set_up(APPEND)
    long = "".join(f"{number:x}" * 40 for number in range(16))
    with kept_in(world, place, monkeypatch) as objects:
        world.drop(FIRST, {"20260108/b.csv": f"id,d\n{long},2026-01-08\n{long[::-1]},2026-01-09\n"})
        world.does("run")
        before = tables(world)
        replace_valid(world, objects)
        (world.root / "warehouse.duckdb").unlink()
        world.does("backfill", "p", "--from-lake")
        assert tables(world) == before


LONG = "abcdefghij" * 40
WIDE = {"20260108/b.csv": f"id,d\n{LONG},2026-01-08\n{LONG[::-1]},2026-01-09\n"}


def reused_then_replaced(world: World, monkeypatch: pytest.MonkeyPatch, number: int, *backfill: str) -> None:
    """Killed when it had found them as they were made, and before it has loaded them."""
    with monkeypatch.context() as patched:
        die_at(patched, "validate.recorded", number)
        with pytest.raises(Killed):
            world.call("backfill", "p", *backfill, "--jobs", "1")
    replace_valid(world, Folder(world.root / "lake"))


def replace_valid(world: World, objects: Folder | Bucket) -> None:
    """Put the first batch's rows in the place of the second's, at equal size."""
    [(first,), (second,)] = world.state("SELECT path FROM artifact WHERE model = 'b' AND kind = 'valid' ORDER BY batch")
    objects.write(second, widened(objects.read(first), len(objects.read(second))))


def test_valid_rows_replaced_between_validating_and_loading_are_made_again_by_a_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.set_up(APPEND)
    world.drop(FIRST, WIDE)
    world.does("run")
    before = tables(world)
    (world.root / "warehouse.duckdb").unlink()
    reused_then_replaced(world, monkeypatch, 3, "--from-lake")
    world.does("run")
    assert tables(world) == before


def test_valid_rows_replaced_between_validating_and_loading_are_refused_by_a_load(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.set_up(APPEND)
    world.drop(FIRST, WIDE)
    world.does("run")
    before = tables(world)
    reused_then_replaced(world, monkeypatch, 2, "--batch", "20260108", "--from-lake")
    said = world.refused(7, "load", "p", "--run-id", "p.20260108.2")
    assert "the valid rows of 20260108/b.csv are not in the lake as they were made" in said
    world.does(*said.splitlines()[-1].removeprefix("hint: ingestkit ").split())
    world.does("load", "p", "--run-id", "p.20260108.2")
    world.does("gate", "p", "--run-id", "p.20260108.2")
    assert tables(world) == before


@pytest.mark.parametrize("place", PLACES)
def test_valid_rows_of_a_killed_run_that_others_have_replaced_are_made_again(
    world: World, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.set_up(APPEND)
    with kept_in(world, place, monkeypatch) as objects:
        world.drop(FIRST)
        world.does("run")
        world.drop(WIDE)
        with monkeypatch.context() as patched:
            die_at(patched, "validate.recorded", 2)
            with pytest.raises(Killed):
                world.call("run", "p", "--jobs", "1")
        replace_valid(world, objects)
        world.does("run")
        assert sorted(str(day) for (day,) in world.table("b", "d")) == [
            "2026-01-01",
            "2026-01-02",
            "2026-01-08",
            "2026-01-09",
        ]


def test_a_raw_object_replaced_between_the_stages_of_a_run_is_refused(world: World) -> None:
    world.set_up(APPEND)
    world.drop(WIDE)
    world.does("extract")
    [(raw,)] = world.state("SELECT path FROM artifact WHERE model = 'b' AND kind = 'raw'")
    objects = Folder(world.root / "lake")
    objects.write(raw, objects.read(raw).replace(b"2026-01-08", b"2026-01-07"))
    told = world.refused(7, "validate", "p", "--run-id", "p.20260108.1")
    assert "its bytes are others" in told
    for command in typed(told):
        world.does(*command)
    assert sorted(str(day) for (day,) in world.table("b", "d")) == ["2026-01-08", "2026-01-09"]


def typed(told: str) -> list[list[str]]:
    """The commands that a hint names, as they are typed."""
    return [match.split() for match in re.findall(r"ingestkit ([^;(]*[^;( ])", told.splitlines()[-1])]


@pytest.mark.parametrize("lost", ["the table", "nothing"])
@pytest.mark.parametrize("how", ["replaced", "gone"])
@pytest.mark.parametrize("kind", ["append", "merge"])
def test_a_batch_of_which_the_lake_has_lost_raw_and_valid_is_fetched_anew(
    world: World, how: str, lost: str, kind: str
) -> None:
    if kind == "append":
        world.set_up(APPEND)
    world.drop(FIRST, WIDE)
    world.does("run")
    before = tables(world)
    objects = Folder(world.root / "lake")
    replace_valid(world, objects)
    [raw] = world.state("SELECT path FROM artifact WHERE model = 'b' AND kind = 'raw' AND batch = '20260108'")
    if how == "gone":
        (world.root / "lake" / raw[0]).unlink()
    else:
        objects.write(raw[0], objects.read(raw[0]).replace(b"2026-01-08", b"2026-01-07"))
    again = ["backfill", "p", "--from-lake"]
    if lost == "the table":
        (world.root / "warehouse.duckdb").unlink()
    else:
        again += ["--batch", "20260108"]
    told = world.refused(7, *again)
    assert ("the lake has lost" if how == "gone" else "its bytes are others") in told
    for command in typed(told):
        world.does(*command)
    assert tables(world) == before
    assert world.does("run")["status"] == "nothing new"
    assert world.state("SELECT rebuild FROM pipeline") == [(None,)]
