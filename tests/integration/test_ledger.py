import csv
import gzip
import io
import os
import threading
import time

import pytest

from tests.integration.world import BREAKS, FIRST, SECOND, THIRD, World, batches_of

RESTATED = {"20260101/a.csv": "id,n\n1,99\n2,20\n5,50\n"}


def versions(world: World, path: str) -> dict[int, str]:
    return {row["version"]: row["status"] for row in world.files("--path", path)}


def test_the_same_files_again_are_skipped(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    before = world.files()
    assert world.does("run")["status"] == "nothing new"
    assert world.files() == before


def test_every_version_of_every_file_is_in_the_ledger_with_hash_size_counts_and_run(world: World) -> None:
    world.drop({"20260101/a.csv": "id,n\n1,1\n2,x\n1,3\n"})
    world.set_up({"gate.max_reject_pct": 100})
    world.does("run")
    [row] = world.files()
    assert (row["path"], row["version"], row["batch"], row["model"]) == ("20260101/a.csv", 1, "20260101", "a")
    assert (row["read"], row["valid"], row["rejected"], row["loaded"]) == (3, 1, 2, 1)
    assert (row["status"], row["size"], len(row["sha256"])) == ("loaded", 17, 64)
    assert row["run_id"] == "p.20260101.1"


def test_a_restated_file_is_a_new_version_and_its_batch_is_done_again(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.drop(RESTATED)
    assert batches_of(world.does("run")) == ["20260101"]
    assert versions(world, "20260101/a.csv") == {1: "superseded", 2: "loaded"}
    assert world.table("a", "id", "n") == [("1", 99), ("2", 20), ("5", 50)]
    assert world.does("run")["status"] == "nothing new"
    assert versions(world, "20260101/b.csv") == {1: "loaded"}


def test_a_restated_file_may_be_ignored(world: World) -> None:
    world.set_up({"source.on_changed": "ignore"})
    world.drop(FIRST)
    world.does("run")
    world.drop(RESTATED)
    assert world.does("run")["status"] == "nothing new"
    assert versions(world, "20260101/a.csv") == {1: "loaded", 2: "skipped"}
    assert world.table("a", "id", "n") == [("1", 10), ("2", 20)]
    assert world.does("run")["status"] == "nothing new"
    assert len(versions(world, "20260101/a.csv")) == 2


def test_a_restated_file_may_be_a_failure(world: World) -> None:
    world.set_up({"source.on_changed": "fail"})
    world.drop(FIRST)
    world.does("run")
    world.drop(RESTATED)
    said = world.refused(4, "run")
    assert "20260101/a.csv has changed since it was taken" in said
    assert "hint: to take it as it is now: ingestkit manifest forget p --path 20260101/a.csv" in said
    assert world.table("a", "id", "n") == [("1", 10), ("2", 20)]
    world.does("manifest", "forget", "p", "--path", "20260101/a.csv", "--reason", "it is right", "--yes")
    world.does("run")
    assert world.table("a", "id", "n") == [("1", 99), ("2", 20), ("5", 50)]


def test_a_file_that_was_only_touched_is_no_failure(world: World) -> None:
    world.set_up({"source.on_changed": "fail"})
    world.drop(FIRST)
    world.does("run")
    os.utime(world.root / "drops/20260101/a.csv", (1, 1))
    assert world.does("run")["status"] == "nothing new"
    assert versions(world, "20260101/a.csv") == {1: "loaded", 2: "skipped"}


def test_a_file_that_was_only_touched_is_fetched_and_found_to_be_the_same(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    os.utime(world.root / "drops/20260101/a.csv", (1, 1))
    world.does("run")
    assert versions(world, "20260101/a.csv") == {1: "loaded", 2: "skipped"}
    assert world.target("SELECT model, generation FROM ingestkit_receipt WHERE model = 'a'") == [("a", 1)]
    assert world.does("run")["status"] == "nothing new"


def test_a_file_that_comes_late_into_a_done_batch_is_loaded_with_the_whole_file_set(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.drop({"20260101/a_2.csv": "id,n\n7,70\n"})
    assert batches_of(world.does("run")) == ["20260101"]
    assert world.table("a", "id", "n") == [("1", 10), ("2", 20), ("7", 70)]
    assert set(world.statuses("--model", "a").values()) == {"loaded"}


def test_a_change_in_an_old_batch_leaves_what_newer_ones_said(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    world.drop(RESTATED, {"20260101/b.csv": "id,d\nx,2025-01-01\ny,2025-01-02\nw,2025-01-03\n"})
    answer = world.does("run")
    assert {one["model"]: one["status"] for one in answer["results"]} == {"a": "superseded", "b": "done"}
    assert versions(world, "20260101/a.csv") == {1: "superseded", 2: "superseded"}
    assert world.table("a", "id", "n") == [("1", 11), ("3", 30)]
    by_key = {key: str(day) for key, day in world.table("b", "id", "d")}
    assert by_key == {"w": "2025-01-03", "x": "2026-01-08", "y": "2025-01-02", "z": "2026-01-09"}
    assert world.checkpoint() == "20260108"
    assert world.does("run")["status"] == "nothing new"


def test_changes_are_looked_for_as_long_as_late_scan(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.make_older("completion", "at", days=31)
    world.drop(RESTATED)
    assert world.does("run")["status"] == "nothing new"
    world.set_up({"source.late_scan": "60d"})
    assert batches_of(world.does("run")) == ["20260101"]


def test_trust_in_checksums_finds_a_rewrite_that_kept_size_and_time(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    path = world.root / "drops/20260101/a.csv"
    kept = path.stat()
    path.write_text(path.read_text().replace("10", "77"))
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert world.does("run")["status"] == "nothing new"
    world.set_up({"source.trust": "checksum"})
    assert batches_of(world.does("run")) == ["20260101"]
    assert world.table("a", "id", "n") == [("1", 77), ("2", 20)]
    assert world.does("run")["status"] == "nothing new"


def test_a_forgotten_file_is_taken_again_and_stays_in_the_ledger(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.does("manifest", "forget", "p", "--path", "20260101/a.csv", "--reason", "wrong copy", "--yes")
    assert versions(world, "20260101/a.csv") == {1: "forgotten"}
    assert batches_of(world.does("run")) == ["20260101"]
    assert versions(world, "20260101/a.csv") == {1: "forgotten", 2: "loaded"}
    assert world.table("a", "id", "n") == [("1", 10), ("2", 20)]
    assert "no file" in world.refused(2, "manifest", "forget", "p", "--path", "x.csv", "--reason", "y", "--yes")


def test_files_of_no_model_are_listed_and_quarantined(world: World) -> None:
    world.drop(FIRST, {"20260101/sales.csv": "x\n1\n", "20260101/.hidden": "", "20260101/a.csv.part": "id"})
    ended = world.call("run")
    assert ended.code == 0
    assert "20260101/sales.csv belongs to no model and is kept in quarantine" in ended.err
    [row] = world.files("--status", "quarantined")
    assert (row["path"], row["model"], row["reason"]) == ("20260101/sales.csv", None, "no model claims it")
    assert ".hidden" not in ended.err
    again = world.call("run")
    assert "sales.csv" not in again.err
    assert again.out.startswith("nothing new")


def test_a_model_that_claims_a_quarantined_file_later_takes_it(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.drop(SECOND, {"20260108/sales.csv": "id\n1\n"})
    world.set_up({"models.sales": {"key": ["id"], "columns": {"id": {}}}})
    world.does("run")
    assert world.table("sales", "id") == [("1",)]


@pytest.mark.parametrize(
    "name", ["a.csv", "A.CSV", "US_a_20260101.csv", "a_full.csv", "a-2026-01-01.txt", "a 1.csv", "a_part2.csv.gz"]
)
def test_files_are_recognised_by_tolerant_names(world: World, name: str) -> None:
    content = b"id,n\n1,1\n"
    world.drop({f"20260101/{name}": gzip.compress(content) if name.endswith(".gz") else content})
    world.does("run")
    assert world.table("a", "id", "n") == [("1", 1)]


def test_a_file_claimed_by_two_models_is_a_mistake_in_the_pipeline(world: World) -> None:
    world.set_up({"models.b.files": r"a\.csv"})
    world.drop(FIRST)
    assert "models a and b both claim 20260101/a.csv" in world.refused(3, "run")


def test_a_batch_is_taken_when_its_files_have_been_quiet(world: World) -> None:
    world.set_up({"source.settle": {"quiet": "300ms"}})
    world.drop(FIRST)
    ended = world.call("run")
    assert ended.code == 0
    assert "for 2 file(s) to settle" in ended.err
    again = world.call("run")
    assert "to settle" not in again.err


def test_a_batch_that_is_still_being_written_waits(world: World) -> None:
    world.set_up({"source.settle": {"quiet": "500ms"}})
    world.drop(FIRST)
    path = world.root / "drops/20260101/a.csv"
    ended = threading.Event()

    def write() -> None:
        while not ended.wait(0.05):
            with path.open("a") as file:
                file.write(f"{time.monotonic_ns()},1\n")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        answer = world.does("run")
    finally:
        ended.set()
        writer.join()
    assert answer["status"] == "waiting"
    assert "1 file(s) have not been quiet for 0.5 s" in answer["message"]
    assert world.completions() == {}
    world.does("run")
    [row] = world.files("--path", "20260101/a.csv")
    assert (row["version"], row["status"], row["size"]) == (1, "loaded", path.stat().st_size)


def test_a_batch_waits_for_the_files_it_expects(world: World) -> None:
    world.set_up({"source.expect": ["a", "b"]})
    world.drop({"20260101/a.csv": FIRST["20260101/a.csv"]}, SECOND)
    answer = world.does("run")
    assert (answer["status"], answer["message"]) == ("waiting", "batch 20260101 waits: no file of b yet")
    assert world.completions() == {}
    world.drop(FIRST)
    assert batches_of(world.does("run")) == ["20260101", "20260108"]


def test_a_batch_that_waits_stops_those_behind_it_but_not_those_before(world: World) -> None:
    world.set_up({"source.expect": ["a", "b"]})
    world.drop(FIRST, {"20260108/a.csv": SECOND["20260108/a.csv"]}, THIRD)
    answer = world.does("run")
    assert batches_of(answer) == ["20260101"]
    assert "batch 20260108 waits: no file of b yet" in answer["message"]


@pytest.mark.parametrize("content", ["", "id,n\n"], ids=["no byte", "only a header"])
def test_a_file_without_rows_empties_no_replace_target(world: World, content: str) -> None:
    world.drop(FIRST)
    world.does("run")
    world.drop({"20260108/a.csv": content})
    ended = world.call("run")
    assert ended.code in (5, 6), ended.err
    assert world.table("a", "id", "n") == [("1", 10), ("2", 20)]
    assert world.checkpoint() == "20260101"


def test_a_file_without_rows_empties_the_target_where_that_is_allowed(world: World) -> None:
    world.set_up({"models.a.allow_empty": True})
    world.drop(FIRST)
    world.does("run")
    world.drop({"20260108/a.csv": "id,n\n"})
    world.does("run")
    assert world.table("a", "id", "n") == []
    assert world.completions()["20260108", "a"] == "done"


def test_an_empty_batch_is_skipped_or_fails_or_waits(world: World) -> None:
    (world.root / "drops/20260101").mkdir()
    world.set_up({"source.empty_batch": "wait"})
    assert world.does("run")["message"] == "batch 20260101 waits: holds no file of any model yet"
    world.set_up({"source.empty_batch": "fail"})
    assert "batch 20260101 holds no file of any model" in world.refused(4, "run")
    world.set_up({"source.empty_batch": "skip"})
    world.does("run")
    assert set(world.completions().values()) == {"empty"}
    assert world.checkpoint() == "20260101"


def test_a_batch_that_was_empty_is_done_again_when_files_come(world: World) -> None:
    (world.root / "drops/20260101").mkdir()
    world.does("run")
    world.drop(FIRST)
    assert batches_of(world.does("run")) == ["20260101"]
    assert world.table("a", "id") == [("1",), ("2",)]
    assert world.completions()["20260101", "a"] == "done"


@pytest.mark.parametrize(("absent", "code"), [("keep", 0), ("warn", 0), ("fail", 5)])
def test_a_model_without_a_file_is_left_as_it_is(world: World, absent: str, code: int) -> None:
    world.set_up({"models.a.absent": absent})
    world.drop(FIRST)
    world.does("run")
    world.drop({"20260108/b.csv": SECOND["20260108/b.csv"]})
    ended = world.call("run")
    assert ended.code == code
    assert ("batch 20260108 has no file of a" in ended.err) == (absent != "keep")
    assert world.table("a", "id", "n") == [("1", 10), ("2", 20)]
    if code == 0:
        assert world.completions()["20260108", "a"] == "absent"


def test_the_ledger_is_shown_filtered_and_exported(world: World) -> None:
    world.drop(FIRST, SECOND, {"20260101/readme.md": ""})
    world.does("run", "--run-id", "R")
    assert len(world.files()) == 5
    assert len(world.files("p")) == 5
    assert "there is no pipeline 'q'" in world.refused(3, "manifest", "show", "q")
    assert {row["model"] for row in world.files("--model", "a")} == {"a"}
    assert {row["path"] for row in world.files("--status", "quarantined")} == {"20260101/readme.md"}
    assert {row["batch"] for row in world.files("--run-id", "R~2")} == {"20260108"}
    assert {row["path"] for row in world.files("--path", "20260108/*")} == {"20260108/a.csv", "20260108/b.csv"}
    assert len(world.files("--batch", "20260101", "--model", "b")) == 1
    exported = world.call("manifest", "export", "--model", "a")
    rows = list(csv.DictReader(io.StringIO(exported.out)))
    assert [(row["path"], row["loaded"]) for row in rows] == [("20260108/a.csv", "2"), ("20260101/a.csv", "2")]


def test_a_late_file_that_went_before_it_was_fetched_is_no_work_for_ever(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.set_up({"source.settle": {"quiet": "0s", "marker": "{name}.done"}})
    world.drop({f"{path}.done": "" for path in FIRST}, {"20260101/a_2.csv": "id,n\n7,7\n"})
    assert world.does("run")["status"] == "waiting"
    (world.root / "drops/20260101/a_2.csv").unlink()
    assert world.does("run")["status"] == "nothing new"
    assert world.run_statuses() == {"p.20260101.1": "SUCCESS"}
    assert world.statuses("--path", "20260101/a_2.csv") == {"20260101/a_2.csv": "skipped"}


def test_a_file_that_went_before_it_was_fetched_is_skipped_with_the_reason(world: World) -> None:
    world.set_up({"source.expect": ["a", "b"]})
    world.drop({"20260101/a.csv": "id,n\n1,1\n", "20260101/a_2.csv": "id,n\n2,2\n"})
    world.does("run")
    (world.root / "drops/20260101/a_2.csv").unlink()
    world.drop({"20260101/b.csv": FIRST["20260101/b.csv"]})
    world.does("run")
    [row] = world.files("--path", "20260101/a_2.csv")
    assert (row["status"], row["reason"]) == ("skipped", "gone before it was fetched")
    assert world.table("a", "id") == [("1",)]


def test_a_file_that_comes_back_as_it_was_is_taken(world: World) -> None:
    world.set_up({"source.settle": {"quiet": "0s", "marker": "_SUCCESS"}})
    world.drop({"20260101/a.csv": "id,n\n1,1\n"})
    world.does("run")
    file = world.root / "drops/20260101/a.csv"
    file.rename(file.with_suffix(".csv.tmp"))
    world.does("run")
    assert world.statuses() == {"20260101/a.csv": "skipped"}
    file.with_suffix(".csv.tmp").rename(file)
    world.drop({"20260101/_SUCCESS": ""})
    world.does("run")
    assert world.table("a", "id") == [("1",)]
    assert world.completions()["20260101", "a"] == "done"


def test_a_forgotten_file_that_is_gone_leaves_its_batch_without_it(world: World) -> None:
    world.drop(FIRST, {"20260101/a_2.csv": "id,n\n7,70\n"})
    world.does("run")
    (world.root / "drops/20260101/a_2.csv").unlink()
    assert world.does("run")["status"] == "nothing new"
    world.does("manifest", "forget", "p", "--path", "20260101/a_2.csv", "--reason", "withdrawn", "--yes")
    assert batches_of(world.does("run")) == ["20260101"]
    assert world.table("a", "id", "n") == [("1", 10), ("2", 20)]
    assert world.does("run")["status"] == "nothing new"


def test_the_only_file_of_a_model_forgotten_and_gone_leaves_the_model_as_it_is(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    (world.root / "drops/20260101/a.csv").unlink()
    world.does("manifest", "forget", "p", "--path", "20260101/a.csv", "--reason", "withdrawn", "--yes")
    assert world.does("run")["status"] == "nothing new"
    assert world.table("a", "id", "n") == [("1", 10), ("2", 20)]
    assert world.completions()["20260101", "a"] == "done"
    assert world.files("--path", "20260101/a.csv")[0]["loaded"] == 2


def test_a_file_renamed_before_it_was_published_is_published_once(world: World) -> None:
    world.set_up({"models.b.load": "append", "models.b.key": []})
    world.drop(FIRST, {"20260101/a.csv": BREAKS})
    world.refused(5, "run")
    folder = world.root / "drops/20260101"
    (folder / "b.csv").rename(folder / "b_2.csv")
    world.drop({"20260101/a.csv": "id,n\n1,10\n"})
    ended = world.call("run")
    assert ended.code == 0
    assert "20260101/b.csv is gone from the source before it was published" in ended.err
    assert world.table("b", "id") == [("x",), ("y",)]
    assert world.statuses()["20260101/b.csv"] == "skipped"


def test_a_bad_file_taken_away_no_longer_stops_its_batch(world: World) -> None:
    world.drop(FIRST, {"20260101/a.csv": BREAKS})
    world.refused(5, "run")
    (world.root / "drops/20260101/a.csv").unlink()
    world.does("run")
    assert world.completions() == {("20260101", "a"): "absent", ("20260101", "b"): "done"}


def test_what_a_run_that_goes_on_had_landed_stays_its_own(world: World) -> None:
    world.drop(FIRST)
    world.does("extract", "p", "--run-id", "R")
    (world.root / "drops/20260101/b.csv").unlink()
    world.does("run", "--run-id", "R")
    assert world.table("b", "id") == [("x",), ("y",)]


def test_a_sighting_of_a_clock_that_went_back_is_made_again(world: World) -> None:
    world.set_up({"source.settle.quiet": "200ms"})
    world.drop(FIRST)
    world.set_up({"source.settle.quiet": "200ms", "source.expect": ["a", "b"]})
    (world.root / "drops/20260101/b.csv").rename(world.root / "b.csv")
    assert world.does("run")["status"] == "waiting"
    world.state("UPDATE file_manifest SET sighted_at = '2099-01-01T00:00:00.000000Z'")
    (world.root / "b.csv").rename(world.root / "drops/20260101/b.csv")
    assert world.does("run")["status"] == "done"


@pytest.mark.parametrize("policy", ["ignore", "fail"])
def test_a_file_corrected_before_it_was_loaded_is_no_restatement(world: World, policy: str) -> None:
    world.set_up({"source.on_changed": policy})
    world.drop({"20260101/a.csv": "id,n\n1,one\n2,two\n3,three\n"})
    world.refused(5, "run")
    world.drop({"20260101/a.csv": "id,n\n1,10\n2,20\n"})
    world.does("run")
    assert world.table("a", "id", "n") == [("1", 10), ("2", 20)]
