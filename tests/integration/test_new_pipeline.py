"""`new pipeline`: a file is proposed from samples, and a run takes these by it."""

import yaml

from tests.integration.world import World

PEOPLE = "id;name;born;since\n1;Ann;12.05.1970;2026-01-01\n2;Bob;31.12.1980;\n"
ORDERS = '{"no": "A1", "lines": [{"x": 1}]}\n{"no": "A2", "lines": null}\n'


def test_a_pipeline_proposed_from_samples_takes_them(world: World) -> None:
    world.drop({"20260101/people_20260101.csv": PEOPLE, "20260101/orders.jsonl": ORDERS})
    samples = [f"--from-file={world.root}/drops/20260101/{name}" for name in ("people_20260101.csv", "orders.jsonl")]
    said = world.does("new", "pipeline", "shop", *samples)
    assert said["accepted"] == [
        {"model": "orders", "rows": 2, "rejected": 0, "columns": 2, "key": "no"},
        {"model": "people", "rows": 2, "rejected": 0, "columns": 4, "key": "id"},
    ]
    path = world.root / "config/pipelines/shop.yaml"
    assert said["file"] == str(path)
    told = yaml.safe_load(path.read_text())
    told["source"]["settle"] = {"quiet": "0s"}
    path.write_text(yaml.safe_dump(told))
    assert world.does("run", "shop")["status"] == "done"
    assert world.table("people", "id", "name") == [(1, "Ann"), (2, "Bob")]
    assert world.table("orders", "no", "lines") == [("A1", '[{"x": 1}]'), ("A2", None)]


def test_a_pipeline_that_is_there_is_not_proposed_again(world: World) -> None:
    world.drop({"people.csv": PEOPLE})
    sample = f"--from-file={world.root}/drops/people.csv"
    before = (world.root / "config/pipelines/p.yaml").read_text()
    assert "pipeline p is there already" in world.refused(2, "new", "pipeline", "p", sample)
    assert (world.root / "config/pipelines/p.yaml").read_text() == before
    assert "is no name of a pipeline" in world.refused(2, "new", "pipeline", "../p", sample)
    assert "two samples would be one model" in world.refused(2, "new", "pipeline", "q", sample, sample)
    assert "cannot be read" in world.refused(2, "new", "pipeline", "q", "--from-file=/nowhere.csv")
    assert not (world.root / "config/pipelines/q.yaml").exists()


def test_a_pipeline_is_proposed_only_for_files_that_can_come_from_somewhere(world: World) -> None:
    world.drop({"people.csv": PEOPLE})
    world.settle({"connections.drop": None, "connections.crm": {"type": "local", "path": "crm"}})
    asked = ("new", "pipeline", "q", f"--from-file={world.root}/drops/people.csv")
    told = world.refused(2, *asked)
    assert "the project has no connection 'drop' for the files to come from" in told
    assert "ingestkit new source drop --url FOLDER, or: --connection crm" in told
    assert "'warehouse' is of type duckdb, and no source reads from it" in world.refused(
        2, *asked, "--connection", "warehouse"
    )
    assert not (world.root / "config/pipelines/q.yaml").exists()
    (world.root / "config/pipelines/p.yaml").unlink()
    world.does(*asked, "--connection", "crm")
    assert world.call("config", "validate").code == 0


def test_a_sample_that_no_contract_accepts_leaves_nothing_behind(world: World) -> None:
    long = '"' + "x\n" * 40 + '"'
    world.drop({"people.csv": f"id,text\n1,{long}\n"})
    told = world.refused(2, "new", "pipeline", "q", f"--from-file={world.root}/drops/people.csv")
    assert "nothing can be proposed from" in told
    assert not (world.root / "config/pipelines/q.yaml").exists()
