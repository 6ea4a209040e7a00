"""The folders of the lake are the project's to choose, and to choose again; nothing is lost or doubled by it."""

import json
import shutil
from pathlib import Path

from tests.integration.world import FIRST, SECOND, THIRD, World

HIVE = {"layout": "model={model}/batch={batch}"}
TURNED = {"layout": "{batch}/{model}"}
A_TABLE = [("1", 12), ("4", 40)]
B_TABLE = [("x", "2026-01-15"), ("y", "2026-01-02"), ("z", "2026-01-09")]


def tables(world: World) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    return world.table("a", "id", "n"), world.table("b", "id", "CAST(d AS text)")


def lake(world: World) -> list[str]:
    """The folders below the pipeline's that hold artifacts, without what says which file or run."""
    found = set()
    for kind, above in (("raw", 1), ("valid", 2), ("rejects", 2)):
        for path in (world.root / "lake" / kind / "p").rglob("*"):
            if path.is_file():
                found.add(f"{kind}: {path.parents[above - 1].relative_to(world.root / 'lake' / kind / 'p')}")
    return sorted(found)


def test_objects_lie_where_the_layout_says(world: World) -> None:
    world.settle()
    world.set_up(HIVE)
    world.drop(FIRST)
    world.does("run", "p")
    assert {one.split(": ")[1] for one in lake(world)} == {"model=a/batch=20260101", "model=b/batch=20260101"}
    assert world.does("run", "p")["status"] == "nothing new"


def test_dates_may_be_folders_of_years_and_months(world: World) -> None:
    world.settle()
    world.set_up({"layout": "{year}/{month}/{model}/{batch}", "source.batches.kind": "date"})
    world.drop(FIRST)
    world.does("run", "p")
    assert "raw: 2026/01/a/2026-01-01" in lake(world)


def test_a_layout_may_change_between_two_runs(world: World) -> None:
    world.settle()
    world.set_up()
    world.drop(FIRST)
    world.does("run", "p")
    world.set_up(HIVE)
    assert world.does("run", "p")["status"] == "nothing new"
    world.drop(SECOND)
    world.does("run", "p")
    world.set_up(TURNED)
    world.drop(THIRD)
    world.does("run", "p")
    raw = [one for one in lake(world) if one.startswith("raw")]
    assert raw == [
        *("raw: 20260115/a", "raw: 20260115/b"),
        *("raw: a/20260101", "raw: b/20260101"),
        *("raw: model=a/batch=20260108", "raw: model=b/batch=20260108"),
    ]
    assert tables(world) == (A_TABLE, B_TABLE)
    # A batch that is done again in another layout takes what is in the lake, and keeps what it needs.
    world.drop({"20260108/b.csv": "id,d\nz,2026-01-10\n"})
    world.does("run", "p")
    assert tables(world)[1] == [*B_TABLE[:2], ("z", "2026-01-10")]
    (world.root / "warehouse.duckdb").unlink()
    world.does("backfill", "p", "--from-lake")
    assert tables(world) == (A_TABLE, [*B_TABLE[:2], ("z", "2026-01-10")])


def test_a_state_that_was_lost_is_read_back_whatever_the_layouts_were(world: World) -> None:
    test_a_layout_may_change_between_two_runs(world)
    before = tables(world), world.statuses("p")
    shutil.rmtree(world.root / "state")
    ended = world.call("state", "adopt", "p", "--reason", "lost", "--yes", "--output", "json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["warnings"] == []
    assert world.does("run", "p")["status"] == "nothing new"
    assert (tables(world), world.statuses("p")) == before
    (world.root / "warehouse.duckdb").unlink()
    world.does("backfill", "p", "--from-lake")
    assert tables(world) == before[0]


def orphan(world: World, name: str) -> Path:
    path = world.root / "lake" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"left behind")
    return path


def test_what_nobody_needs_is_found_in_layouts_that_were_given_up(world: World) -> None:
    world.settle()
    world.drop(FIRST)
    for layout in ({}, HIVE, TURNED):
        world.set_up(layout)
        world.does("run", "p")
    orphans = [
        orphan(world, f"raw/p/{folder}/{'0' * 32}-a.csv")
        for folder in ("a/20260101", "model=a/batch=20260101", "20260101/a")
    ]
    orphans.append(orphan(world, f"valid/p/model=a/batch=20260101/p.20260101.9.9/{'0' * 32}.parquet"))
    others = orphan(world, f"raw/p/model=a/batch=20260108/{'0' * 32}-a.csv")
    world.does("backfill", "p", "--batch", "20260101")
    assert [path.exists() for path in orphans] == [False] * 4
    assert others.exists()
    assert set(world.statuses("p").values()) == {"loaded"}


def test_a_file_that_landed_in_another_layout_leaves_nothing_behind(world: World) -> None:
    """Its run fails before a row says that it landed; by the next one the layout is another."""
    world.settle()
    world.set_up({"retry.attempts": 1})
    world.drop(FIRST)
    world.does("extract", "p", "--run-id", "first")
    [(raw,)] = world.state("SELECT raw FROM file_manifest WHERE model = 'a'")
    [(identity,)] = world.state("SELECT id FROM file_manifest WHERE model = 'a'")
    left = orphan(world, f"raw/p/model=a/batch=20260101/{identity}-a.csv")
    world.set_up(HIVE)
    world.does("run", "p", "--take-over")
    assert not left.exists()
    assert (world.root / "lake" / raw).exists()


def test_objects_of_a_batch_whose_name_a_model_has_are_left_alone(world: World) -> None:
    """Layouts that changed places: of model b and batch a in one, and of model a and batch b in the other."""
    names = {"source.batches.folders": r"(?P<batch>[ab])"}
    world.settle()
    world.set_up(names)
    world.drop({"a/b.csv": "id,d\nx,2026-01-01\n", "b/a.csv": "id,n\n1,1\n"})
    world.does("run", "p")
    world.set_up({**names, **TURNED})
    world.does("backfill", "p", "--batch", "a", "--model", "b")
    world.does("backfill", "p", "--batch", "b", "--model", "a")
    paths = [path for (path,) in world.state("SELECT path FROM artifact WHERE status = 'published'")]
    assert len(paths) >= 4
    assert [path for path in paths if not (world.root / "lake" / path).exists()] == []


def test_a_rehearsal_lays_out_as_the_run_will(world: World) -> None:
    world.settle()
    world.set_up(HIVE)
    world.drop(FIRST)
    world.does("run", "p", "--dry-run=data")
    assert not (world.root / "lake/raw").exists()
