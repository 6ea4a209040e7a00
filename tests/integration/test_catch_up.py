from tests.integration.world import BREAKS, FIRST, SECOND, THIRD, World


def test_newest_lands_older_snapshots_and_loads_only_the_last(world: World) -> None:
    world.set_up({"catch_up": "newest"})
    world.drop(FIRST, SECOND, THIRD)
    answer = world.does("run")
    assert world.table("a", "id", "n", "_batch") == [("1", 12, "20260115"), ("4", 40, "20260115")]
    assert [batch for (batch,) in world.target("SELECT batch FROM ingestkit_receipt WHERE model = 'a'")] == ["20260115"]
    found = {batch: status for (batch, model), status in world.completions().items() if model == "a"}
    assert found == {"20260101": "superseded", "20260108": "superseded", "20260115": "done"}
    details = {one["batch"]: one["detail"] for one in answer["results"] if one["model"] == "a"}
    assert details["20260101"] == details["20260108"] == "superseded by 20260115, which waits"
    [older] = world.files("--path", "20260108/a.csv")
    assert (older["status"], older["loaded"]) == ("superseded", 0)
    assert (world.root / "lake" / older["raw"]).read_text() == SECOND["20260108/a.csv"]
    assert world.checkpoint() == "20260115"
    assert world.does("run")["status"] == "nothing new"


def test_models_of_other_modes_take_every_batch_all_the_same(world: World) -> None:
    world.set_up({"catch_up": "newest"})
    world.drop(FIRST, SECOND, THIRD)
    world.does("run")
    assert world.table("b", "id", "_batch") == [("x", "20260115"), ("y", "20260101"), ("z", "20260108")]


def test_a_newer_batch_without_a_file_of_the_model_takes_no_snapshots_place(world: World) -> None:
    world.set_up({"catch_up": "newest"})
    world.drop(FIRST, SECOND, {"20260115/b.csv": THIRD["20260115/b.csv"]})
    world.does("run")
    assert world.table("a", "id", "n") == [("1", 11), ("3", 30)]


def test_a_snapshot_passed_over_can_be_loaded_when_the_newer_one_fails(world: World) -> None:
    world.set_up({"catch_up": "newest"})
    world.drop(FIRST, SECOND, {"20260115/a.csv": BREAKS})
    world.refused(5, "run")
    assert world.checkpoint() == "20260108"
    world.does("skip", "p", "--batch", "20260115", "--reason", "broken")
    world.does("backfill", "--batch", "20260108")
    assert world.table("a", "id", "n") == [("1", 11), ("3", 30)]
    assert world.completions()["20260108", "a"] == "done"


def test_every_loads_each_snapshot_in_turn(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    assert len(world.target("SELECT batch FROM ingestkit_receipt WHERE model = 'a'")) == 2
