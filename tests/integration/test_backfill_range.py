"""A range of done batches done again."""

import shutil

import pytest

from tests.integration.test_processes import slow
from tests.integration.world import BREAKS, World, batches_of, read_until

DAYS = ("20260101", "20260102", "20260103", "20260104", "20260105")
MERGED = {"models.a.load": "merge"}


def fill(world: World, *days: str) -> None:
    for day in days or DAYS:
        number = int(day[-2:])
        world.drop({f"{day}/a.csv": f"id,n\n{number},{number}\n", f"{day}/b.csv": f"id,d\nk{number},2026-01-01\n"})


@pytest.fixture
def filled(world: World) -> World:
    world.set_up(MERGED)
    fill(world)
    world.does("run")
    return world


def runs_of(world: World, invocation: str) -> list[tuple[str, str, str]]:
    return world.state(
        "SELECT run_id, batch, status FROM pipeline_run WHERE invocation = ? ORDER BY started_at", invocation
    )


def generations(world: World, model: str = "a") -> list[int]:
    found = world.target(f"SELECT generation FROM ingestkit_receipt WHERE model = '{model}' ORDER BY batch")
    return [generation for (generation,) in found]


def test_a_range_is_half_open_and_done_oldest_first_each_batch_in_its_own_run(filled: World) -> None:
    answer = filled.does("backfill", "p", "--from", "20260102", "--to", "20260104")
    assert batches_of(answer) == ["20260102", "20260103"]
    assert answer["message"] == "2 batches done again: 20260102, 20260103"
    assert runs_of(filled, "p.20260102..20260104.1") == [
        ("p.20260102..20260104.1", "20260102", "SUCCESS"),
        ("p.20260102..20260104.1~2", "20260103", "SUCCESS"),
    ]
    assert generations(filled) == [1, 2, 2, 1, 1]
    assert filled.does("run")["status"] == "nothing new"


def test_an_end_may_be_left_out(filled: World) -> None:
    assert batches_of(filled.does("backfill", "p", "--from", "20260104")) == ["20260104", "20260105"]
    assert batches_of(filled.does("backfill", "p", "--to", "20260102", "--from-lake")) == ["20260101"]
    assert [one for one, _, _ in runs_of(filled, "p.20260104..last.1")] == [
        "p.20260104..last.1",
        "p.20260104..last.1~2",
    ]
    again = filled.does("backfill", "p", "--from", "20260104")
    assert again["run_ids"] == ["p.20260104..last.2", "p.20260104..last.2~2"], "asked again, all is done again"


def test_the_lake_is_enough_where_the_source_has_forgotten(filled: World) -> None:
    shutil.rmtree(filled.root / "drops" / "20260102")
    assert "20260102 (exit 4: " in filled.refused(9, "backfill", "p", "--to", "20260104")
    answer = filled.does("backfill", "p", "--to", "20260104", "--from-lake", "--resume")
    assert batches_of(answer) == ["20260102"]
    assert generations(filled) == [2, 2, 2, 1, 1]


def test_keys_are_compared_as_the_kind_of_batch_says(world: World) -> None:
    world.set_up(MERGED | {"source.batches": {"folders": r"d(?P<batch>\d+)", "kind": "integer"}})
    for number in (2, 9, 10, 11):
        world.drop({f"d{number}/a.csv": f"id,n\n{number},{number}\n"})
    world.does("run")
    assert batches_of(world.does("backfill", "p", "--from", "09", "--to", "11")) == ["9", "10"]
    said = world.refused(2, "backfill", "p", "--from", "soon")
    assert "'soon' is no batch key of p: they are of kind integer" in said
    assert "nothing lies between 10 and 9" in world.refused(2, "backfill", "p", "--from", "10", "--to", "9")


def test_one_that_fails_does_not_stop_the_others(filled: World) -> None:
    filled.drop({"20260103/a.csv": BREAKS})
    ended = filled.call("backfill", "p", "--from", "20260102", "--to", "20260105", "--output", "json")
    assert ended.code == 9
    answer = ended.answer
    assert (answer["status"], answer["exit_code"]) == ("failed", 9)
    [failed] = answer["failed"]
    assert (failed["batch"], failed["run_id"], failed["exit_code"]) == ("20260103", "p.20260102..20260105.1~2", 5)
    assert answer["message"].startswith("1 of 3 batches failed: 20260103 (exit 5: a: 20260103/a.csv")
    statuses = {(one["batch"], one["model"]): one["status"] for one in answer["results"]}
    assert statuses["20260104", "a"] == "done"
    assert statuses["20260103", "a"] == "failed"
    assert generations(filled) == [1, 2, 1, 2, 1]
    assert "hint: put the cause right, then: ingestkit backfill p --from 20260102 --to 20260105 --resume" in ended.told


def test_resume_does_what_is_left_and_nothing_again(filled: World) -> None:
    filled.drop({"20260103/a.csv": BREAKS})
    filled.refused(9, "backfill", "p", "--from", "20260102", "--to", "20260105")
    filled.drop({"20260103/a.csv": "id,n\n3,33\n"})
    answer = filled.does("backfill", "p", "--from", "20260102", "--to", "20260105", "--resume")
    assert batches_of(answer) == ["20260103"]
    assert answer["message"] == "1 batch done again: 20260103; 2 batches were done before by p.20260102..20260105.1"
    assert generations(filled)[1] == generations(filled)[3] == 2
    assert ("3", 33) in filled.table("a", "id", "n")
    again = filled.does("backfill", "p", "--from", "20260102", "--to", "20260105", "--resume")
    assert (again["results"], again["message"].partition(";")[0]) == ([], "nothing was left to do")


def test_what_fails_alike_ends_with_its_own_code(filled: World) -> None:
    filled.drop({"20260102/a.csv": BREAKS, "20260103/a.csv": BREAKS})
    said = filled.refused(5, "backfill", "p", "--from", "20260102", "--to", "20260104")
    assert "2 of 2 batches failed" in said
    filled.drop({"20260103/a.csv": "id,n\n3,33\n"})
    assert "1 of 2 batches failed" in filled.refused(
        9, "backfill", "p", "--from", "20260102", "--to", "20260104", "--resume"
    )


def test_a_callers_id_names_all_runs_and_the_same_id_again_goes_on(filled: World) -> None:
    filled.drop({"20260105/a.csv": BREAKS})
    filled.refused(9, "backfill", "p", "--from", "20260104", "--run-id", "airflow 7")
    filled.drop({"20260105/a.csv": "id,n\n5,55\n"})
    answer = filled.does("backfill", "p", "--from", "20260104", "--run-id", "airflow 7")
    assert batches_of(answer) == ["20260105"]
    assert [(one, status) for one, _, status in runs_of(filled, "airflow 7")] == [
        ("airflow 7", "SUCCESS"),
        ("airflow 7~2", "FAILED"),
        ("airflow 7~3", "SUCCESS"),
    ]
    assert "is no backfill" in filled.refused(2, "backfill", "p", "--from", "20260104", "--run-id", "p.20260104.1")


def test_what_a_gate_stopped_and_a_run_has_ended_since_is_not_done_again(world: World) -> None:
    world.set_up(MERGED)
    world.drop({f"{day}/a.csv": f"id,n\n{day},1\nx,bad\n" for day in DAYS[:2]})
    world.does("run")
    world.set_up(MERGED | {"gate.max_loss_pct": 10})
    said = world.refused(6, "backfill", "p", "--to", DAYS[2])
    assert "2 of 2 batches failed" in said
    world.does("approve", f"p.first..{DAYS[2]}.1", "--reason", "known")
    world.refused(6, "run")
    answer = world.call("backfill", "p", "--to", DAYS[2], "--resume", "--output", "json").answer
    assert [one["batch"] for one in answer["failed"]] == [DAYS[1]]
    assert answer["exit_code"] == 9
    assert generations(world) == [2, 3]


def test_what_newer_batches_have_said_stands_and_is_told(world: World) -> None:
    fill(world)
    world.does("run")
    answer = world.does("backfill", "p", "--to", "20260103")
    told = {(one["batch"], one["model"]): (one["status"], one["detail"]) for one in answer["results"]}
    assert told["20260101", "a"] == ("superseded", "superseded by 20260105, which stands")
    assert told["20260101", "b"][0] == "done"
    assert "superseded by newer ones: 20260101, 20260102" in answer["message"]
    assert world.table("a", "id") == [("5",)]
    said = world.refused(2, "backfill", "p", "--to", "20260103", "--model", "a")
    assert "are superseded by 20260105" in said


def test_batches_of_the_range_that_were_never_done_or_stepped_over_are_left_out(filled: World) -> None:
    filled.drop({"20260106/a.csv": BREAKS})
    filled.refused(5, "run")
    filled.does("skip", "p", "--batch", "20260106", "--reason", "bad")
    filled.drop({"20260107/a.csv": "id,n\n7,7\n"})
    answer = filled.does("backfill", "p", "--from", "20260105")
    assert batches_of(answer) == ["20260105"]
    assert answer["warnings"] == ["1 batch of the range never done: 20260107; that is for: ingestkit run p"]
    said = filled.refused(2, "backfill", "p", "--from", "20260107")
    assert "no batch of p from 20260107 is done" in said


def test_what_cannot_be_meant_is_refused(filled: World) -> None:
    assert "--resume is of a range" in filled.refused(2, "backfill", "p", "--resume")
    assert "one batch or a range" in filled.refused(2, "backfill", "p", "--from", "20260101", "--batch", "20260102")
    said = filled.refused(2, "backfill", "p", "--from", "20260101", "--resume")
    assert "no backfill of p from 20260101 was begun" in said
    assert "as night was begun" in filled.refused(
        2, "backfill", "p", "--from", "20260101", "--run-id", "night", "--resume"
    )
    assert filled.does("runs", "list")["rows"][0]["kind"] == "run"


def test_a_signal_ends_the_range_and_resume_finishes_the_batch_it_was_at(world: World) -> None:
    world.set_up(MERGED | {"models.a.files": r"a.*\.csv"})
    for day in DAYS[:3]:
        world.drop({f"{day}/aSLOW.csv": f"id,n\n{day},1\n"})
    world.does("run")
    for day in DAYS[:3]:
        world.drop({f"{day}/aSLOW.csv": f"id,n\n{day},2\n"})
    process = slow(world, "backfill", "p", "--from", DAYS[0], "--jobs", "1")
    read_until(process, "reading")
    process.terminate()
    read_until(process, "stopping at the next safe point")
    _, err = process.communicate("\n", timeout=60)
    assert process.returncode == 143
    assert f"hint: to go on with the rest: ingestkit backfill p --from {DAYS[0]} --resume" in err
    answer = world.does("backfill", "p", "--from", DAYS[0], "--resume")
    assert batches_of(answer) == list(DAYS[:3])
    assert [(batch, status) for _, batch, status in runs_of(world, f"p.{DAYS[0]}..last.1")] == [
        (day, "SUCCESS") for day in DAYS[:3]
    ]
    assert {n for (n,) in world.table("a", "n")} == {2}


def test_a_run_that_waits_gets_its_turn_between_two_batches(world: World) -> None:
    world.set_up(MERGED | {"models.a.files": r"a.*\.csv"})
    for day in DAYS[:3]:
        world.drop({f"{day}/aSLOW.csv": f"id,n\n{day},1\n"})
    world.does("run")
    world.drop({f"{DAYS[0]}/aSLOW.csv": f"id,n\n{DAYS[0]},2\n"})
    process = slow(world, "backfill", "p", "--from", DAYS[0], "--to", DAYS[3], "--jobs", "1")
    read_until(process, "reading")
    world.drop({f"{DAYS[4]}/a.csv": "id,n\nnew,9\n"})
    waiting = world.start("run", "--if-locked", "wait:1m")
    read_until(waiting, "waiting: ")
    _, err = process.communicate("\n", timeout=120)
    ended = world.ended(waiting)
    assert (process.returncode, ended.code) == (0, 0), (err, ended.err)
    order = [kind for (kind,) in world.state("SELECT kind FROM pipeline_run ORDER BY started_at")]
    assert order[3:] == ["backfill", "run", "backfill", "backfill"]
    assert "another command waits and is given its turn" in err
    assert world.table("a", "n") == [(1,), (1,), (2,), (9,)]
