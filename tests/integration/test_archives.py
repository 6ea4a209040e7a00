"""Zip archives: their members are files of the ledger, each with a model, versions and a fate of its own."""

import gzip
import os
import time
from pathlib import Path

import pytest

from tests.contracts.zipped import relisted, zipped
from tests.integration.world import FIRST, SECOND, World, batches_of

A, B = "id,n\n1,10\n2,20\n", "id,d\nx,2026-01-01\ny,2026-01-02\n"
MEMBERS = {"a.csv": A, "in/b.csv": B, "extra.csv": "1", "readme.md": "see b", "__MACOSX/._a.csv": "x"}
DROP = "20260101/drop.zip"


def rows(world: World, *columns: str) -> dict[str, list[tuple[object, ...]]]:
    """The ledger by path, a tuple per version."""
    found: dict[str, list[tuple[object, ...]]] = {}
    for row in sorted(world.files(), key=lambda row: row["version"]):
        found.setdefault(row["path"], []).append(tuple(row[column] for column in columns))
    return found


def test_members_are_rows_of_the_ledger_and_only_changed_ones_are_taken_again(world: World) -> None:
    world.drop({DROP: zipped(MEMBERS)})
    world.does("run")
    assert world.table("a", "id", "n", "_source_file") == [("1", 10, f"{DROP}!a.csv"), ("2", 20, f"{DROP}!a.csv")]
    assert len(world.table("b")) == 2
    assert rows(world, "model", "status", "size", "valid") == {
        f"{DROP}!a.csv": [("a", "loaded", len(A), 2)],
        f"{DROP}!in/b.csv": [("b", "loaded", len(B), 2)],
        f"{DROP}!extra.csv": [(None, "quarantined", 1, None)],
        f"{DROP}!readme.md": [(None, "quarantined", 5, None)],
    }
    assert world.does("run")["status"] == "nothing new"

    world.drop({DROP: zipped(MEMBERS | {"a.csv": "id,n\n1,11\n"})})
    assert batches_of(world.does("run")) == ["20260101"]
    assert world.table("a", "id", "n") == [("1", 11)]
    assert len(world.table("b")) == 2
    found = rows(world, "status", "reason")
    assert found[f"{DROP}!a.csv"] == [("superseded", None), ("loaded", None)]
    assert found[f"{DROP}!in/b.csv"] == [("loaded", None), ("skipped", "same content as version 1")]
    assert len(found) == 4
    assert world.does("run")["status"] == "nothing new"


def test_an_archive_that_only_got_another_time_is_read_and_nothing_is_published(world: World) -> None:
    world.drop({DROP: zipped(MEMBERS)})
    world.does("run")
    os.utime(world.root / "drops" / DROP, (1, 1))
    world.does("run")
    assert {row[0] for several in rows(world, "status", "model").values() for row in several if row[1]} == {
        "loaded",
        "skipped",
    }
    assert world.target("SELECT DISTINCT generation FROM ingestkit_receipt") == [(1,)]


def test_files_beside_an_archive_and_packed_members_are_of_the_same_batch(world: World) -> None:
    world.drop({DROP: zipped({"a_1.csv.gz": gzip.compress(A.encode())}), "20260101/a_2.csv": "id,n\n3,30\n"})
    world.does("run")
    assert world.table("a", "id") == [("1",), ("2",), ("3",)]


def test_a_rewrite_that_keeps_size_and_time_is_seen_where_checksums_are_trusted(world: World) -> None:
    world.set_up({"source.trust": "checksum"})
    world.drop({DROP: zipped({"a.csv": A})})
    os.utime(world.root / "drops" / DROP, (1, 1))
    world.does("run")
    world.drop({DROP: zipped({"a.csv": A.replace("20", "21")})})
    os.utime(world.root / "drops" / DROP, (1, 1))
    world.does("run")
    assert world.table("a", "n") == [(10,), (21,)]


def test_a_member_with_a_wrong_checksum_fails_its_batch_and_nothing_of_it_is_seen(world: World) -> None:
    world.drop(FIRST, {"20260108/drop.zip": relisted(zipped({"a.csv": A, "b.csv": B}), 16, b"xxxx")})
    assert "20260108/drop.zip!a.csv is damaged: Bad CRC-32" in world.refused(4, "run")
    assert world.checkpoint() == "20260101"
    assert not list(Path(world.root / "lake/raw/p/a/20260108").glob("*"))
    assert not [path for path in (world.root / "lake/_inflight").rglob("*") if path.is_file()]
    world.drop({"20260108/drop.zip": zipped({"a.csv": A, "b.csv": B})})
    world.does("run")
    assert world.checkpoint() == "20260108"


@pytest.mark.parametrize("broken", [b"", b"PK\x03\x04", zipped({"../a.csv": A})], ids=["empty", "cut", "path"])
def test_an_archive_that_cannot_be_listed_fails_its_batch_behind_those_before_it(world: World, broken: bytes) -> None:
    world.drop(FIRST, {"20260108/drop.zip": broken}, {"20260115/a.csv": A})
    said = world.refused(4, "run")
    assert "20260108/drop.zip" in said
    assert "hint: " in said
    assert world.checkpoint() == "20260101"
    assert "20260108/drop.zip" in world.refused(4, "run")
    planned = world.call("plan")
    assert (planned.code, planned.told[0].startswith("error: 20260108/drop.zip")) == (4, True)
    (world.root / "drops/20260108/drop.zip").unlink()
    world.drop(SECOND)
    assert batches_of(world.does("run")) == ["20260108", "20260115"]


def test_a_bad_archive_behind_a_batch_is_told_by_a_rehearsal_too(world: World) -> None:
    world.drop(FIRST, {"20260108/drop.zip": b""})
    ended = world.call("run", "--dry-run=data")
    assert ended.code == 4
    assert "a run would end with exit 4" in ended.out + ended.err
    assert "20260108/drop.zip" in world.refused(4, "run", "--batch", "20260108")
    assert world.does("extract")["status"] == "done"


def test_a_batch_waits_for_an_archive_that_is_still_written(world: World) -> None:
    world.set_up({"source.settle.quiet": "1h"})
    whole = zipped({"a.csv": A, "b.csv": B})
    world.drop({DROP: whole[:-9], "20260101/a_2.csv": "id,n\n3,30\n"})
    answer = world.does("run")
    assert answer["status"] == "waiting"
    assert f"batch 20260101 waits: {DROP} is no whole zip archive" in answer["message"]
    assert world.does("plan")["not_yet"] == [{"batch": "20260101", "why": f"{DROP} is no whole zip archive"}]
    old = time.time() - 3601
    os.utime(world.root / "drops" / DROP, (old, old))
    assert f"{DROP} is no whole zip archive" in world.refused(4, "run")
    world.set_up()
    world.drop({DROP: whole})
    world.does("run")
    assert world.table("a", "id") == [("1",), ("2",), ("3",)]


def test_one_archive_per_batch_is_taken_by_its_name(world: World) -> None:
    world.set_up({"source.batches": {"files": r"export_(?P<batch>\d{8})\.zip"}})
    world.drop({f"export_{day}.zip": zipped({"a.csv": A, "b.csv": B}) for day in ("20260101", "20260108")})
    assert batches_of(world.does("run")) == ["20260101", "20260108"]
    assert world.statuses("--model", "b") == {
        "export_20260101.zip!b.csv": "loaded",
        "export_20260108.zip!b.csv": "loaded",
    }


def test_rejects_of_a_member_are_shown_and_taken_in_again_from_the_lake(world: World) -> None:
    world.drop({DROP: zipped({"a.csv": "id,n\n1,10\n2,many\n"})})
    world.does("run")
    (world.root / "drops" / DROP).unlink()
    [shown] = world.does("quarantine", "show")["rows"]
    assert (shown["path"], shown["line"], shown["raw"]) == (f"{DROP}!a.csv", 3, "2,many")
    world.set_up({"models.a.columns.n": {"type": "integer", "nulls": ["many"]}})
    world.does("quarantine", "replay", "--batch", "20260101")
    assert world.table("a", "n") == [(10,), (None,)]


def test_limits_of_archives_are_settings(world: World) -> None:
    world.set_up({"source.archives.max_members": 2})
    world.drop({DROP: zipped(MEMBERS)})
    assert "source.archives.max_members is 2" in world.refused(4, "run")
    world.set_up({"source.archives.max_members": 5})
    world.does("run")
