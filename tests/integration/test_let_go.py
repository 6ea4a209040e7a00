"""What `clean` has let go of while the lake would not let it go, and what nobody had named: who still counts on it."""

import os

import pytest

from ingestkit.errors import Interrupted, LakeError
from tests.integration.test_retention import AT_ONCE, MINE, files, lies, refusing
from tests.integration.world import FIRST, SECOND, THIRD, World

NOT_NOW = LakeError("legal hold")
ALIKE = [FIRST, SECOND, {**THIRD, "20260115/b.csv": "id,d\nx,2026-01-15\nw,2026-01-15\n"}]
"""Batches of which each has as many rows as the one before."""


@pytest.fixture
def eager(world: World) -> World:
    """With one batch done, whose artifacts are not needed the moment there is a newer full one."""
    world.set_up(AT_ONCE)
    world.drop(FIRST)
    world.does("run")
    return world


def test_what_nobody_knew_of_goes_too_where_the_clean_was_cut_short(
    eager: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    stray = eager.root / "lake/valid/p/a/20260101/p.20260101.1.0/x.parquet"
    stray.parent.mkdir(parents=True)
    stray.touch()
    eager.drop(SECOND)
    with monkeypatch.context() as lake:
        refusing(lake, lambda name: Interrupted("stop", exit_code=143) if "/20260101/" in name else None)
        assert eager.call("run", "--jobs", "1").code == 143
    assert stray.exists()
    eager.does("run")
    assert lies(eager) == {"20260108"}


def test_a_file_that_comes_again_needs_nothing_of_the_one_that_was_let_go_of(
    eager: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(monkeypatch, lambda name: NOT_NOW if name.startswith("raw/p/a/20260101") else None)
    eager.drop(SECOND)
    eager.does("run")
    eager.drop({"20260101/a.csv": "id,n\n1,77\n2,78\n"}, THIRD)
    eager.does("run")
    assert eager.checkpoint() == "20260115"


def test_the_same_bytes_again_are_landed_anew_where_those_before_were_let_go_of(
    eager: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as lake:
        refusing(lake, lambda name: NOT_NOW if name.startswith("raw/p/a/20260101") else None)
        eager.drop(SECOND)
        eager.does("run")
        os.utime(eager.root / "drops/20260101/a.csv", (1_700_000_000, 1_700_000_000))
        eager.does("extract", "--batch", "20260101", "--model", "a", "--run-id", "R")
    # From here on the lake lets go of the first version, and the second does not need it.
    eager.does("validate", "--run-id", "R")


@pytest.mark.parametrize("by", ["clean", "run"])
def test_what_waits_for_a_person_is_kept_for_it_behind_a_state_that_was_lost(
    world: World, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    world.set_up({**AT_ONCE, "gate.row_delta_pct": 10})
    world.drop(*ALIKE)
    with monkeypatch.context() as lake:
        if by == "run":
            # A clean that the lake refused leaves no sidecar: the next run does it again.
            refusing(lake, lambda _: NOT_NOW)
        world.does("run", "--jobs", "1")
    world.drop({"20260108/a.csv": "id,n\n1,1\n2,2\n3,3\n4,4\n"})
    assert "row_delta" in world.refused(6, "run", "--batch", "20260108")
    lose_state(world)
    if by == "clean":
        world.does("clean", "--run-id", "p.20260115.1")
    else:
        assert "row_delta" in world.refused(6, "run", "--jobs", "1")
    assert "20260108" in {path.parent.name for path in files(world) if "raw" in path.parts}
    world.does("approve", "p.20260108.2" if by == "clean" else "p.20260108.3", *MINE)
    world.does("run", "--jobs", "1")
    assert world.state("SELECT generation FROM completion WHERE batch = '20260108' AND model = 'a'") == [(2,)]


def test_a_run_done_again_that_waits_for_a_person_is_kept_behind_a_state_that_was_lost(world: World) -> None:
    world.set_up({**AT_ONCE, "gate.row_delta_pct": 10})
    world.drop(*ALIKE)
    world.does("run", "--jobs", "1")
    world.drop({"20260108/a.csv": "id,n\n1,1\n2,2\n3,3\n4,4\n"})
    assert "row_delta" in world.refused(6, "extract", "--run-id", "p.20260108.1", "--force")
    lose_state(world)
    world.does("clean", "--run-id", "p.20260115.1")
    assert "20260108" in {path.parent.name for path in files(world) if "raw" in path.parts and "a" in path.parts}
    world.does("approve", "p.20260108.1", *MINE)
    world.does("run", "--jobs", "1")


def test_a_model_that_was_taken_over_and_done_keeps_nothing_behind_a_state_that_was_lost(world: World) -> None:
    world.set_up({**AT_ONCE, "models.b.load": "replace"})
    world.drop(FIRST)
    world.does("extract", "--run-id", "R")
    world.does("run", "--model", "b", "--take-over")
    world.does("run", "--run-id", "R", "--model", "a")
    lose_state(world)
    world.drop(SECOND)
    world.does("run")
    assert (lies(world, "a"), lies(world, "b")) == ({"20260108"}, {"20260108"})


def test_what_a_dead_load_has_staged_goes_though_something_else_is_held(
    eager: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(monkeypatch, lambda name: NOT_NOW if name.startswith("raw/p/a/20260101") else None)
    eager.drop(SECOND)
    eager.does("run", "--jobs", "1")
    dead = eager.root / "lake/_staged/p/a/p.20260101.1.0.0123456789ab/part-0.parquet"
    dead.parent.mkdir(parents=True)
    dead.write_bytes(b"PAR1")
    eager.does("clean", "--run-id", "p.20260108.1")
    assert not dead.exists()


def test_a_raw_object_that_is_another_by_now_is_not_loaded(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    lying = {path for path in files(world) if "a" in path.parts and path.is_file()}
    [raw] = [path for path in lying if "raw" in path.parts]
    there, content = world.table("a", "id", "n"), raw.read_bytes()
    raw.chmod(0o644)
    raw.write_bytes(content.replace(b"10", b"99"))
    for path in lying - {raw}:
        path.unlink()
    back = ("backfill", "--batch", "20260101", "--model", "a", "--from-lake")
    assert "its bytes are others" in world.refused(7, *back)
    assert world.table("a", "id", "n") == there
    raw.write_bytes(content)
    world.does(*back)
    assert world.table("a", "id", "n") == there


def lose_state(world: World) -> None:
    for file in world.database.parent.glob(f"{world.database.name}*"):
        file.unlink()
    world.does("state", "adopt", "p", *MINE, "--yes")
