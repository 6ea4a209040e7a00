"""Export packages whose names count up: every one in order, and what is done where one is missing."""

import pytest

from ingestkit import steps
from tests.contracts.zipped import zipped
from tests.integration.world import World, batches_of

PACKAGES = {"source.batches": {"files": r"exp_(?P<batch>[0-9A-F]{8})\.zip", "kind": "hex", "holes": "wait"}}


def package(number: int) -> dict[str, bytes]:
    return {f"exp_{number:08X}.zip": zipped({"a.csv": f"id,n\n{number},{number}\n", "b.csv": "id,d\nx,2026-01-01\n"})}


@pytest.fixture
def counted(world: World) -> World:
    world.set_up(PACKAGES)
    return world


def test_packages_are_taken_by_their_number_and_not_as_texts_sort(counted: World) -> None:
    counted.drop(*(package(number) for number in (0x10, 0xF, 0xE)))
    assert batches_of(counted.does("run", "--limit", "2")) == ["e", "f"]
    assert batches_of(counted.does("run")) == ["10"]
    assert counted.table("a", "id") == [("16",)]


def test_two_packages_of_one_number_are_not_made_one_batch(counted: World) -> None:
    counted.set_up(PACKAGES | {"source.batches": {**PACKAGES["source.batches"], "files": r"exp_(?P<batch>\w+)\.zip"}})
    counted.drop(package(0x1C5))
    counted.does("run")
    [again] = package(0x1C5).values()
    counted.drop({"exp_1c5.zip": again})
    said = counted.refused(4, "run")
    assert "exp_000001C5.zip and exp_1c5.zip are both of number 1c5, written in two ways" in said


def test_packages_of_two_subscriptions_are_not_made_one_batch(counted: World) -> None:
    anywhere = r"(.+/)?exp_(?P<batch>[0-9A-F]{8})\.zip"
    counted.set_up(PACKAGES | {"source.batches": {**PACKAGES["source.batches"], "files": anywhere}})
    [content] = package(0x1C5).values()
    counted.drop({"us/exp_000001C5.zip": content})
    counted.does("run")
    counted.drop({"eu/exp_000001C5.zip": content})
    said = counted.refused(4, "run")
    assert "eu/exp_000001C5.zip and us/exp_000001C5.zip are both of number 1c5" in said


def test_what_stands_behind_a_hole_waits_until_it_is_filled(counted: World) -> None:
    counted.drop(package(0x1C5), package(0x1C8))
    assert batches_of(counted.does("run")) == ["1c5"]
    waiting = counted.does("run")
    assert waiting["status"] == "waiting"
    assert "batch 1c8 waits: 1c6 to 1c7, which come before it, have not come" in waiting["message"]
    planned = counted.does("plan")
    assert planned["holes"] == [{"before": "1c8", "first": "1c6", "last": "1c7", "count": 2}]
    assert planned["waiting"] == 0
    assert planned["not_yet"][0]["batch"] == "1c8"
    counted.drop(package(0x1C6))
    assert batches_of(counted.does("run")) == ["1c6"]
    counted.drop(package(0x1C7))
    assert batches_of(counted.does("run")) == ["1c7", "1c8"]
    assert counted.does("plan")["holes"] == []


def test_a_package_that_is_whole_waits_for_the_one_before_it_that_is_still_written(counted: World) -> None:
    counted.drop(package(0x1C5))
    counted.does("run")
    counted.set_up(PACKAGES | {"source.settle.quiet": "1h"})
    [growing] = package(0x1C6).values()
    counted.drop({"exp_000001C6.zip": growing[:-30]}, package(0x1C7))
    answer = counted.does("run")
    assert (batches_of(answer), answer["status"]) == ([], "waiting")
    assert "batch 1c6 waits: exp_000001C6.zip is no whole zip archive" in answer["message"]
    counted.set_up(PACKAGES)
    counted.drop({"exp_000001C6.zip": growing})
    assert batches_of(counted.does("run")) == ["1c6", "1c7"]
    assert counted.table("a", "id") == [(str(0x1C7),)]


def test_packages_that_come_while_one_is_done_are_done_behind_it(
    counted: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted.drop(package(0x1C5))

    def comes(step: str) -> None:
        if step == "load.committed" and not (counted.root / "drops/exp_000001C6.zip").exists():
            counted.drop(package(0x1C7), package(0x1C6))

    monkeypatch.setattr(steps, "reached", comes)
    assert batches_of(counted.does("run")) == ["1c5"]
    assert batches_of(counted.does("run")) == ["1c6", "1c7"]


def test_a_package_of_ten_thousand_members_is_taken_whole_and_one_of_more_is_not(counted: World) -> None:
    few = {f"{number // 100}/a_{number}.csv": f"id,n\n{number},1\n" for number in range(100)}
    others = {f"notes/{number}.txt": "" for number in range(100, 10_000)}
    counted.set_up(PACKAGES | {"source.unmapped": "list"})
    counted.drop({"exp_000001C5.zip": zipped(few | others)})
    assert batches_of(counted.does("run")) == ["1c5"]
    assert len(counted.table("a", "id")) == 100
    assert counted.state("SELECT count(*) FROM file_manifest") == [(10_000,)]
    counted.drop({"exp_000001C6.zip": zipped(few | others | {"more.txt": ""})})
    assert "exp_000001C6.zip has 10,001 members" in counted.refused(4, "run")


def test_a_hole_is_stepped_over_by_a_person(counted: World) -> None:
    counted.drop(package(0x1C5), package(0x1C8))
    counted.does("run")
    assert "knows a batch" in counted.refused(2, "skip", "p", "--batch", "1c9", "--reason", "never sent")
    for missing in ("1c6", "1C7"):
        counted.does("skip", "p", "--batch", missing, "--reason", "never sent")
    assert batches_of(counted.does("run")) == ["1c8"]


def test_who_steps_over_a_part_of_a_hole_still_waits_for_the_rest(counted: World) -> None:
    counted.drop(package(0x5), package(0x8))
    counted.does("run")
    counted.does("skip", "p", "--batch", "7", "--reason", "never sent")
    assert counted.does("plan")["holes"] == [{"before": "8", "first": "6", "last": "6", "count": 1}]
    assert counted.does("run")["status"] == "waiting"
    counted.drop(package(0x6))
    assert batches_of(counted.does("run")) == ["6", "8"]
    assert counted.does("plan")["late"] == []


def test_what_one_model_begins_behind_is_still_missing_for_the_others(counted: World) -> None:
    counted.drop(package(0x5), package(0xA))
    counted.does("run", "--batch", "5")
    counted.does("state", "set", "p", "--batch", "9", "--model", "b", "--reason", "b is elsewhere up to there", "--yes")
    assert counted.does("plan")["holes"] == [{"before": "a", "first": "6", "last": "9", "count": 4}]
    assert counted.does("run")["status"] == "waiting"


def test_what_is_published_is_judged_whatever_is_missing_before_it(counted: World) -> None:
    free = {"source.batches": {name: said for name, said in PACKAGES["source.batches"].items() if name != "holes"}}
    counted.set_up(free | {"gate.max_loss_pct": 0})
    dropped = {"exp_00000008.zip": zipped({"a.csv": "id,n\n1,1\n1,2\n", "b.csv": "id,d\nx,2026-01-01\n"})}
    counted.drop(package(0x5), dropped)
    assert counted.call("run").code == 6
    counted.set_up(PACKAGES)
    assert batches_of(counted.does("run")) == ["8"]


def test_a_hole_that_stays_too_long_is_a_failure(counted: World) -> None:
    counted.set_up(PACKAGES | {"source.overdue": "0s"})
    counted.drop(package(0x1C5), package(0x1C7))
    assert "1c6, which comes before it, has not come" in "\n".join(counted.call("run").told)
    assert counted.call("run").code == 4


def test_a_hole_may_be_stepped_over_and_is_told(counted: World) -> None:
    counted.set_up({"source.batches": PACKAGES["source.batches"] | {"holes": "step_over"}})
    counted.drop(package(0x1C5), package(0x1C8))
    ended = counted.call("run")
    assert ended.code == 0
    assert "1c6 to 1c7 has not come before batch 1c8, and is stepped over" in ended.err
    assert counted.table("a", "id") == [(str(0x1C8),)]
    counted.drop(package(0x1C6))
    assert counted.does("plan")["late"] == ["1c6"]


def test_keys_that_do_not_count_up_are_not_waited_for(counted: World) -> None:
    counted.set_up({"source.batches": {"files": r"exp_(?P<batch>[0-9A-F]{8})\.zip", "kind": "hex"}})
    counted.drop(package(0x1C5), package(0x1C8))
    assert batches_of(counted.does("run")) == ["1c5", "1c8"]
    assert counted.does("plan")["holes"] == []


def test_holes_are_only_of_what_is_counted(world: World) -> None:
    world.set_up({"source.batches.holes": "wait"})
    assert "holes are of batches that are counted" in world.refused(3, "plan")
