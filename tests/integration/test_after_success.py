"""Files at the source when their batch is done: moved, renamed or deleted last of all, and told in the ledger."""

import pytest

from tests.doubles.sftp import sftp_double
from tests.integration.world import FIRST, SECOND, World, batches_of

ONE = "id,n\n1,1\n"
B = "id,d\nx,2026-01-01\n"
TWO = "id,n\n2,2\n"


def there(world: World) -> list[str]:
    root = world.root / "drops"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def released(world: World) -> dict[str, str | None]:
    return {row["path"]: row["released"] for row in world.files()}


@pytest.mark.parametrize(
    ("after", "left"),
    [
        ({"move": "done"}, ["done/20260101/a.csv", "done/20260101/b.csv"]),
        ({"rename": ".loaded"}, ["20260101/a.csv.loaded", "20260101/b.csv.loaded"]),
        ({"delete": True}, []),
    ],
    ids=["move", "rename", "delete"],
)
def test_files_of_a_done_batch_are_let_go_of(world: World, after: dict[str, object], left: list[str]) -> None:
    world.set_up({"source.after_success": after})
    world.drop({"20260101/a.csv": ONE, "20260101/b.csv": B})
    world.does("run")
    assert there(world) == left
    assert all(one is not None for one in released(world).values())
    assert world.does("run")["status"] == "nothing new"
    world.drop({"20260102/a.csv": TWO})
    assert batches_of(world.does("run")) == ["20260102"]
    assert world.checkpoint() == "20260102"


def test_a_batch_is_let_go_of_when_all_its_models_are_done(world: World) -> None:
    world.set_up({"source.after_success": {"delete": True}})
    world.drop({"20260101/a.csv": ONE, "20260101/b.csv": B})
    world.does("run", "--model", "a")
    assert there(world) == ["20260101/a.csv", "20260101/b.csv"]
    world.does("run", "--model", "b")
    # This command holds the lease of b alone.
    assert there(world) == ["20260101/a.csv"]
    world.does("run")
    assert there(world) == []


@pytest.mark.slow
def test_a_batch_whose_gate_is_closed_stays(world: World) -> None:
    world.set_up({"source.after_success": {"delete": True}, "gate.max_reject_pct": 5})
    world.drop({"20260101/a.csv": "id,n\n1,1\n2,bad\n3,3\n4,4\n"})
    world.refused(6, "run")
    assert there(world) == ["20260101/a.csv"]
    world.set_up({"source.after_success": {"delete": True}, "gate.max_reject_pct": 50})
    world.does("run")
    assert there(world) == []


@pytest.mark.slow
def test_stages_let_go_of_them_in_clean(world: World) -> None:
    world.set_up({"source.after_success": {"move": "done"}})
    world.drop({"20260101/a.csv": ONE})
    for stage in ("extract", "validate", "load", "gate"):
        world.does(stage)
        assert there(world) == ["20260101/a.csv"]
    world.does("clean")
    assert there(world) == ["done/20260101/a.csv"]


@pytest.mark.slow
def test_a_late_file_joins_those_that_were_let_go_of(world: World) -> None:
    world.set_up({"source.after_success": {"delete": True}, "source.late": "load", "models.a.load": "replace"})
    world.drop({"20260101/a.csv": ONE})
    world.does("run")
    world.drop({"20260101/a_2.csv": TWO})
    assert batches_of(world.does("run")) == ["20260101"]
    assert world.table("a", "id", "n") == [("1", 1), ("2", 2)]
    assert there(world) == []
    # Sent again under its name it is a new version, and the same content again is known.
    world.drop({"20260101/a_2.csv": "id,n\n2,22\n"})
    world.does("run")
    assert world.table("a", "id", "n") == [("1", 1), ("2", 22)]
    assert there(world) == []
    world.drop({"20260101/a_2.csv": "id,n\n2,22\n"})
    world.does("run")
    assert there(world) == []
    assert {row["status"] for row in world.files()} == {"loaded", "superseded", "skipped"}


@pytest.mark.slow
def test_what_was_not_taken_stays(world: World) -> None:
    world.set_up(
        {
            "source.after_success": {"delete": True},
            "validation": {"max_file_reject_pct": 10, "on_bad_file": "publish_rest"},
            "gate.max_reject_pct": 90,
        }
    )
    world.drop({"20260101/a.csv": ONE, "20260101/a_2.csv": "id,n\nx,x\n", "20260101/stranger.csv": "x\n"})
    world.does("run")
    assert there(world) == ["20260101/a_2.csv", "20260101/stranger.csv"]


@pytest.mark.slow
def test_a_changed_file_that_is_ignored_stays(world: World) -> None:
    world.set_up({"source.after_success": {"rename": ".loaded"}, "source.on_changed": "ignore"})
    world.drop({"20260101/a.csv": ONE})
    world.does("run")
    world.drop({"20260101/a.csv": TWO})
    world.does("run")
    assert there(world) == ["20260101/a.csv", "20260101/a.csv.loaded"]


def test_what_cannot_be_moved_is_warned_of_and_moved_by_a_later_run(world: World) -> None:
    world.set_up({"source.after_success": {"move": "done"}})
    world.drop({"done": "in the way", "20260101/a.csv": ONE})
    ended = world.call("run")
    assert ended.code == 0
    assert "files of batch 20260101 that are done with stay at the source: " in ended.err
    assert "let the user of the connection write there" in ended.err
    (world.root / "drops/done").unlink()
    assert world.does("run")["status"] == "nothing new"
    assert there(world) == ["done/20260101/a.csv"]


@pytest.mark.slow
def test_what_is_done_is_let_go_of_though_a_later_batch_fails(world: World) -> None:
    world.set_up({"source.after_success": {"delete": True}})
    world.drop({"20260101/a.csv": ONE, "20260102/a.csv": "id,n\nx,x\ny,y\n"})
    assert world.call("run").code != 0
    assert there(world) == ["20260102/a.csv"]


@pytest.mark.slow
def test_a_target_is_built_anew_from_the_lake_without_them(world: World) -> None:
    world.set_up({"source.after_success": {"delete": True}})
    world.drop(FIRST, SECOND)
    world.does("run")
    before = world.table("a", "id", "n"), world.table("b", "id")
    world.target_does("DROP TABLE a")
    world.does("backfill", "p", "--from-lake")
    assert (world.table("a", "id", "n"), world.table("b", "id")) == before


@pytest.mark.parametrize(
    ("after", "why"),
    [
        ({}, "name one: move: FOLDER, rename: SUFFIX or delete: true"),
        ({"move": "done", "delete": True}, "name one"),
        ({"move": "../done"}, "a folder is named without . and .."),
        ({"rename": "a/b"}, "rename"),
    ],
)
def test_a_setting_that_says_nothing_or_two_things_is_refused(world: World, after: dict[str, object], why: str) -> None:
    world.set_up({"source.after_success": after})
    assert why in world.refused(3, "run")


def test_a_name_that_would_be_a_marker_is_refused(world: World) -> None:
    world.set_up({"source.after_success": {"rename": ".done"}, "source.settle": {"marker": "{name}.done"}})
    assert "would make markers of files" in world.refused(3, "run")


def test_a_batch_that_was_stepped_over_stays(world: World) -> None:
    world.set_up({"source.after_success": {"delete": True}, "gate.max_reject_pct": 5})
    world.drop({"20260101/a.csv": "id,n\n1,1\n2,bad\n3,3\n4,4\n"})
    world.refused(6, "run")
    world.does("skip", "p", "--batch", "20260101", "--reason", "not that one")
    world.does("run")
    assert there(world) == ["20260101/a.csv"]


@pytest.mark.slow
def test_what_lies_in_the_drop_when_settings_change_is_no_new_file(world: World) -> None:
    anywhere = {"source.batches": {"folders": r"(?:.*/)?(?P<batch>\d{8})"}, "models.a.load": "append"}
    world.drop({"20260101/a.csv": ONE})
    for after in ({"move": "done"}, {"move": "archive"}, {"rename": ".loaded"}, None):
        world.set_up({**anywhere, "source.after_success": after})
        world.does("run")
        assert there(world) == ["done/20260101/a.csv"]
        assert world.table("a", "id") == [("1",)]


@pytest.mark.slow
def test_a_drop_behind_a_link_is_no_new_one_below_it(world: World) -> None:
    (world.root / "drops").rename(world.root / "real")
    (world.root / "drops").symlink_to(world.root / "real")
    anywhere = {"source.batches": {"folders": r"(?:.*/)?(?P<batch>\d{8})"}, "models.a.load": "append"}
    world.set_up({**anywhere, "source.after_success": {"move": str(world.root / "drops/done")}})
    world.drop({"20260101/a.csv": ONE})
    for _ in range(3):
        world.does("run")
    assert world.table("a", "id") == [("1",)]


def test_an_expected_model_that_was_loaded_is_not_missed_when_its_file_is_gone(world: World) -> None:
    world.set_up({"source.after_success": {"delete": True}, "source.expect": ["a", "b"]})
    world.drop({"20260101/a.csv": ONE, "20260101/b.csv": B})
    world.does("run")
    world.drop({"20260101/a_2.csv": TWO})
    assert batches_of(world.does("run")) == ["20260101"]
    assert there(world) == []


@pytest.mark.slow
def test_one_batch_that_cannot_be_let_go_of_does_not_keep_the_others(world: World) -> None:
    # With the suffix its name is longer than any may be.
    long = "a_" + "x" * 240 + ".csv"
    world.set_up({"source.after_success": {"rename": ".was-loaded"}, "models.a.files": "a.*\\.csv"})
    world.drop({f"20260101/{long}": ONE, "20260102/a.csv": TWO})
    ended = world.call("run")
    assert ended.code == 0
    assert "files of batch 20260101 that are done with stay at the source" in ended.err
    assert there(world) == [f"20260101/{long}", "20260102/a.csv.was-loaded"]


def test_a_suffix_of_data_is_refused(world: World) -> None:
    world.set_up({"source.after_success": {"rename": ".csv"}})
    assert ".csv is how files are named that are data" in world.refused(3, "run")


@pytest.mark.parametrize("lost", [3, 4])
def test_a_move_that_was_done_and_not_answered_is_told_by_the_next_run_as_done(
    world: World, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    """Of a file, the third change is that it is taken aside, and the fourth that it comes to its place."""
    monkeypatch.setenv("DROP_PASSWORD", "open sesame")
    world.set_up({"source.after_success": {"move": "done"}})
    world.drop({"20260101/a.csv": ONE, "20260101/b.csv": B})
    with sftp_double("open sesame") as double:
        place = {"type": "sftp", "host": "127.0.0.1", "port": double.port, "user": "me", "path": f"{world.root}/drops"}
        secret = {"password": "${env:DROP_PASSWORD}", "host_keys": double.fingerprint}
        world.settle({"connections.drop": {**place, **secret}})
        double.loses = {lost}
        ended = world.call("run")
        assert ended.code == 0, ended.err
        assert "are done with stay at the source: the connection to" in ended.err
        assert double.changes == lost
        ended = world.call("run")
        assert (ended.code, "stay at the source" in ended.err) == (0, False)
    assert released(world) == {f"20260101/{name}": f"moved to done/20260101/{name}" for name in ("a.csv", "b.csv")}
    assert there(world) == ["done/20260101/a.csv", "done/20260101/b.csv"]
