"""Files that no model claims: kept in the lake beside the batch, and taken in as files of a model by a decision."""

import io
import json
import shutil
import time
import zipfile
from typing import Any

import pytest

from ingestkit import steps
from ingestkit.stages import extract
from tests.integration.world import FIRST, SECOND, World, batches_of

WHY = ("--reason", "it was misnamed", "--by", "ann")
STRAY = {"20260101/odd.csv": "id,n\n7,70\n8,80\n"}


def taken(world: World, *flags: str, batch: str = "20260101", model: str = "a") -> dict[str, Any]:
    return world.does("quarantine", "replay", "p", "--batch", batch, "--as", model, *flags)


def kept(world: World) -> dict[str, bytes]:
    """What lies in the lake of no model, by the names at the source."""
    folder = world.root / "lake/raw/p/_unmapped"
    return {one.name.split("-", 1)[1]: one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def ledger(world: World) -> dict[str, list[tuple[str | None, str]]]:
    """By path: model and status of each version."""
    found: dict[str, list[tuple[str | None, str]]] = {}
    for path, model, status in world.state("SELECT path, model, status FROM file_manifest ORDER BY path, version"):
        found.setdefault(path.rpartition("/")[2], []).append((model, status))
    return found


def test_a_file_of_no_model_is_kept_whole_in_the_lake(world: World) -> None:
    world.drop(FIRST, STRAY)
    ended = world.call("run", "--output", "json")
    assert "20260101/odd.csv belongs to no model and is kept in quarantine" in ended.err
    assert kept(world) == {"odd.csv": STRAY["20260101/odd.csv"].encode()}
    assert ledger(world)["odd.csv"] == [(None, "quarantined")]
    [(path, size)] = world.state("SELECT path, bytes FROM artifact WHERE model = '_unmapped'")
    assert (world.root / "lake" / path).stat().st_size == size
    assert world.does("run")["status"] == "nothing new"


def test_it_is_taken_in_as_of_a_model_though_the_source_has_it_no_more(world: World) -> None:
    world.drop(FIRST, STRAY)
    world.does("run")
    before = world.table("a", "id", "n")
    (world.root / "drops").rename(world.root / "gone")
    (world.root / "drops").mkdir()
    said = taken(world, *WHY)
    assert said["message"] == "1 file that no model claims was taken in as a of batch 20260101"
    assert sorted(world.table("a", "id", "n")) == sorted([*before, ("7", 70), ("8", 80)])
    assert ledger(world)["odd.csv"] == [(None, "quarantined"), ("a", "loaded")]
    [decided] = [json.loads(one.read_text()) for one in (world.root / "lake/_decisions/p").iterdir()]
    assert (decided["kind"], decided["by"], decided["reason"]) == ("assign", "ann", "it was misnamed")
    assert world.does("quarantine", "list")["rows"] == []
    for there in (True, False):
        assert world.does("run")["status"] == "nothing new"
        if there:
            (world.root / "drops").rmdir()
            (world.root / "gone").rename(world.root / "drops")


def test_one_of_several_is_chosen_by_its_path(world: World) -> None:
    world.drop(FIRST, STRAY, {"20260101/other.csv": "id,n\n9,90\n"})
    world.does("run")
    taken(world, "--path", "20260101/other.csv")
    assert ("9", 90) in world.table("a", "id", "n")
    assert ("7", 70) not in world.table("a", "id", "n")
    asked = ("quarantine", "replay", "p", "--batch", "20260101", "--as", "a", "--path")
    assert "no file 'nosuch.csv' of batch 20260101 waits" in world.refused(2, *asked, "nosuch.csv")
    assert "in already, as a" in world.does(*asked, "20260101/other.csv")["message"]


def test_what_cannot_go_together_is_refused(world: World) -> None:
    world.drop(FIRST, STRAY)
    world.does("run")
    asked = ("quarantine", "replay", "p", "--batch", "20260101")
    assert "--as names the model" in world.refused(2, *asked, "--as", "a", "--model", "b")
    assert "name their model: --as MODEL" in world.refused(2, *asked, "--path", "x")
    assert "no model 'nosuch'" in world.refused(2, *asked, "--as", "nosuch")
    assert "needs either" in world.refused(2, "quarantine", "replay", "p", "--as", "a")


@pytest.mark.parametrize("gone", ["nothing", "file", "state"])
def test_of_a_batch_that_is_not_done_it_is_decided_and_the_next_run_takes_it_in(world: World, gone: str) -> None:
    world.set_up({"models.a.absent": "fail"})
    world.drop(STRAY, {"20260101/b.csv": "id,d\n1,2026-01-01\n"})
    assert "has no file of a" in world.refused(5, "run")
    assert list(kept(world)) == ["odd.csv"]
    for _ in range(2):
        said = taken(world, *WHY)["message"]
        assert said == (
            "batch 20260101 is not done; what no model claimed is taken in as a when it is: ingestkit run p"
        )
    assert ledger(world)["odd.csv"] == [(None, "quarantined"), ("a", "landed")]
    if gone == "file":
        (world.root / "drops/20260101/odd.csv").unlink()
    if gone == "state":
        world.lose_state()
        world.does("state", "adopt", "p", "--reason", "lost", "--yes")
    world.does("run")
    assert sorted(world.table("a", "id", "n")) == [("7", 70), ("8", 80)]
    assert ledger(world)["odd.csv"] == [(None, "quarantined"), ("a", "loaded")]
    assert world.does("run")["status"] == "nothing new"


def test_a_changed_one_is_kept_too(world: World) -> None:
    world.drop(FIRST, STRAY)
    world.does("run")
    world.drop({"20260101/odd.csv": "id,n\n7,71\n"}, SECOND)
    world.does("run")
    assert ledger(world)["odd.csv"] == [(None, "quarantined"), (None, "quarantined")]
    assert len(list((world.root / "lake/raw/p/_unmapped/20260101").iterdir())) == 2
    [(first,), (second,)] = world.state("SELECT raw FROM file_manifest WHERE path LIKE '%odd%' ORDER BY version")
    assert first != second
    assert (world.root / "lake" / second).read_bytes() == b"id,n\n7,71\n"


def test_one_that_comes_into_a_done_batch_is_kept_with_the_next_work(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.drop(STRAY)
    assert world.does("run")["status"] == "nothing new"
    assert "is not in the lake" in world.refused(2, "quarantine", "replay", "p", "--batch", "20260101", "--as", "a")
    world.drop(SECOND)
    assert batches_of(world.does("run")) == ["20260108"]
    assert list(kept(world)) == ["odd.csv"]
    assert [one.name for one in (world.root / "lake/raw/p/_unmapped").iterdir()] == ["20260101"]


def test_one_that_cannot_be_read_holds_nothing_up_and_is_told_once(world: World) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.csv", "id,n\n1,10\n")
        archive.writestr("notes.txt", "some words that will be others")
    damaged = packed.getvalue().replace(b"some words", b"same words")
    world.drop({"20260101/all.zip": damaged})
    ended = world.call("run", "--output", "json")
    assert (ended.code, batches_of(ended.answer)) == (0, ["20260101"])
    assert "notes.txt: no model claims it, and it could not be kept" in ended.err
    assert kept(world) == {}
    [file] = world.files("--status", "quarantined")
    assert "could not be kept" in file["reason"]
    world.drop(SECOND)
    assert "could not be kept" not in world.call("run").err


def test_who_wants_none_of_them_kept_says_so(world: World) -> None:
    world.set_up({"source.unmapped": "list"})
    world.drop(FIRST, STRAY)
    ended = world.call("run")
    assert (ended.code, kept(world)) == (0, {})
    assert "belongs to no model" in ended.err
    told = world.refused(2, "quarantine", "replay", "p", "--batch", "20260101", "--as", "a")
    assert "let the pattern `files` of model a match it" in told


def test_one_given_up_is_not_taken_in(world: World) -> None:
    world.drop(FIRST, STRAY)
    world.does("run")
    world.does("quarantine", "discard", "p", "--path", "20260101/odd.csv", "--yes", *WHY)
    assert "waits in quarantine" in world.refused(2, "quarantine", "replay", "p", "--batch", "20260101", "--as", "a")


def test_one_that_does_not_fit_is_taken_back_by_forgetting_it(world: World) -> None:
    world.drop(FIRST, {"20260101/odd.csv": "x,y\n1,2\n"})
    world.does("run")
    before = world.table("a", "id", "n")
    told = world.refused(5, "quarantine", "replay", "p", "--batch", "20260101", "--as", "a")
    assert "20260101/odd.csv" in told
    world.does("manifest", "forget", "p", "--path", "20260101/odd.csv", "--yes", *WHY)
    world.does("run")
    assert world.table("a", "id", "n") == before
    assert ledger(world)["odd.csv"] == [(None, "quarantined"), ("a", "forgotten"), (None, "quarantined")]


@pytest.mark.parametrize("gone", ["20260101/odd.csv", "20260101"])
def test_what_its_gate_holds_back_goes_on_once_it_is_approved(world: World, gone: str) -> None:
    world.set_up({"gate.row_delta_pct": 50, "models.b.gate.row_delta_pct": "never"})
    usual = {f"202512{day:02}/a.csv": "id,n\n1,10\n2,20\n" for day in range(1, 6)}
    world.drop(usual, {"20260101/a.csv": "id,n\n1,10\n2,20\n", "20260101/odd.csv": "id,n\n3,1\n4,1\n5,1\n6,1\n"})
    world.does("run")
    shutil.move(world.root / "drops" / gone, world.root / "gone")
    world.refused(6, "quarantine", "replay", "p", "--batch", "20260101", "--as", "a")
    failed = max(run for run, status in world.run_statuses().items() if status == "FAILED")
    world.does("approve", failed, "--reason", "meant so", "--by", "ann")
    world.does("run")
    if gone == "20260101":
        # What the source has no more is done by who asked for it.
        taken(world)
    assert len(world.table("a", "id")) == 6
    assert ledger(world)["odd.csv"] == [(None, "quarantined"), ("a", "loaded")]


@pytest.mark.parametrize("step", ["lake.published", "extract.copied", "extract.recorded"])
def test_killed_while_it_is_kept_there_is_one_of_it(world: World, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    world.drop(STRAY, {"20260101/b.csv": "id,d\nx,2026-01-01\n"})

    def end(reached: str) -> None:
        if reached == step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(steps, "reached", end)
        world.call("run")
    world.does("run")
    assert list(kept(world)) == ["odd.csv"]
    assert len(list((world.root / "lake/raw/p/_unmapped/20260101").iterdir())) == 1
    taken(world)
    assert world.table("a", "id", "n") == [("7", 70), ("8", 80)]


@pytest.mark.parametrize("step", ["validate.recorded", "load.committed", "gate.recorded"])
def test_killed_while_it_is_taken_in_the_next_command_ends_it(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    world.drop(FIRST, STRAY)
    world.does("run")
    before = world.table("a", "id", "n")

    def end(reached: str) -> None:
        if reached == step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(steps, "reached", end)
        world.call("quarantine", "replay", "p", "--batch", "20260101", "--as", "a")
    shutil.rmtree(world.root / "drops/20260101")
    world.does("run")
    assert sorted(world.table("a", "id", "n")) == sorted([*before, ("7", 70), ("8", 80)])


def test_a_lost_state_gets_back_what_was_kept_and_what_was_decided(world: World) -> None:
    world.drop(FIRST, STRAY, {"20260101/other.csv": "id,n\n9,90\n"})
    world.does("run")
    taken(world, "--path", "20260101/odd.csv")
    shown = world.table("a", "id", "n")
    world.lose_state()
    (world.root / "warehouse.duckdb").unlink()
    world.does("state", "adopt", "p", "--reason", "lost", "--yes")
    world.does("run")
    assert world.table("a", "id", "n") == shown
    assert ledger(world)["odd.csv"] == [(None, "quarantined"), ("a", "loaded")]
    taken(world, "--path", "20260101/other.csv")
    assert ("9", 90) in world.table("a", "id", "n")


def test_one_seen_by_a_clock_that_has_gone_back_since_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.drop(FIRST, STRAY)

    def end(reached: str) -> None:
        if reached == "discover.noted":
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(steps, "reached", end)
        world.call("run")
    world.state("UPDATE file_manifest SET sighted_at = '2099-01-01T00:00:00.000000Z'")
    world.does("run")
    assert list(kept(world)) == ["odd.csv"]


def test_a_wrong_assignment_is_taken_back_and_made_to_another_model(world: World) -> None:
    world.set_up({"models.b.columns.n": {"type": "integer"}, "models.b.columns.d.required": False})
    world.drop(FIRST, STRAY)
    world.does("run")
    before = world.table("a", "id", "n")
    for gone in (False, True):
        taken(world)
        assert len(world.table("a", "id")) == len(before) + 2
        if gone:
            (world.root / "drops/20260101/odd.csv").unlink()
        world.does("manifest", "forget", "p", "--path", "20260101/odd.csv", "--yes", *WHY)
        assert batches_of(world.does("run")) == ["20260101"]
        assert world.table("a", "id", "n") == before
        assert world.does("run")["status"] == "nothing new"
    world.set_up({"models.b.columns": {"id": {"required": True}, "d": {"type": "date"}, "n": {"type": "integer"}}})
    world.does("backfill", "p", "--batch", "20260101", "--model", "b")
    assert ledger(world)["odd.csv"][-1] == (None, "quarantined")


def test_a_changed_file_that_was_taken_in_can_be_forgotten(world: World) -> None:
    world.drop(FIRST, STRAY)
    world.does("run")
    before = world.table("a", "id", "n")
    taken(world)
    world.drop({"20260101/odd.csv": "id,n\n9,90\n"})
    assert "20260101/odd.csv belongs to no model" in world.call("run").err
    world.does("manifest", "forget", "p", "--path", "20260101/odd.csv", "--yes", *WHY)
    world.does("run")
    assert world.table("a", "id", "n") == before


def test_what_would_stop_the_pipeline_is_not_decided(world: World) -> None:
    world.set_up({"models.a.delta": "_delta"})
    changes = {"20260108/a_delta.csv": "id,n\n2,20\n", "20260108/odd.csv": "id,n\n3,3\n"}
    world.drop({"20260101/a.csv": "id,n\n1,10\n"}, changes)
    world.does("run")
    world.refused(5, "quarantine", "replay", "p", "--batch", "20260108", "--as", "a")
    assert ledger(world)["odd.csv"] == [(None, "quarantined")]
    world.drop({"20260115/a_delta.csv": "id,n\n4,40\n"})
    assert batches_of(world.does("run")) == ["20260115"]


def test_a_person_is_told_how_to_take_back_what_does_not_fit(world: World) -> None:
    world.drop(FIRST, {"20260101/odd.csv": "x,y\n1,2\n"})
    world.does("run")
    told = world.refused(5, "quarantine", "replay", "p", "--batch", "20260101", "--as", "a")
    assert "if it is not of a: ingestkit manifest forget p --path FILE" in told


def test_a_reset_leaves_what_was_assigned_to_its_model(world: World) -> None:
    world.drop(FIRST, STRAY)
    world.does("run")
    taken(world)
    shown = world.table("a", "id", "n")
    world.does("state", "reset", "p", "--reason", "again", "--yes")
    world.does("run")
    assert world.table("a", "id", "n") == shown


def test_a_replay_that_is_asked_for_again_is_done_already(world: World) -> None:
    world.drop(FIRST, STRAY)
    world.does("run")
    taken(world)
    assert taken(world)["message"] == "1 file that no model claims is in already, as a"


def test_an_object_somebody_removed_is_told_before_anything_is_decided(world: World) -> None:
    world.drop(FIRST, STRAY)
    world.does("run")
    shutil.rmtree(world.root / "lake/raw/p/_unmapped")
    assert "is not in the lake" in world.refused(2, "quarantine", "replay", "p", "--batch", "20260101", "--as", "a")
    assert ledger(world)["odd.csv"] == [(None, "quarantined")]


def test_of_a_batch_that_was_stepped_over_nothing_is_taken_in(world: World) -> None:
    world.drop(STRAY, {"20260101/a.csv": "id,wrong\n1,1\n"})
    world.call("run")
    world.does("skip", "p", "--batch", "20260101", "--reason", "no")
    told = world.refused(2, "quarantine", "replay", "p", "--batch", "20260101", "--as", "a")
    assert "was stepped over for a" in told


def test_one_kept_out_whole_is_told_so(world: World) -> None:
    world.set_up({"validation.on_bad_file": "publish_rest"})
    world.drop(FIRST, {"20260101/odd.csv": "id,n\n7,x\n8,y\n"})
    world.does("run")
    said = taken(world)["message"]
    assert said.endswith("kept out whole: 20260101/odd.csv")
    assert said.startswith("0 files")


def test_a_time_out_is_not_taken_for_a_file_that_cannot_be_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.drop(FIRST, STRAY, {"20260101/a_2.csv": "id,n\n5,50\n"})
    world.set_up({"timeouts": {"extract": "1s"}, "retry.attempts": 1})

    def late(step: str) -> None:
        if step == "extract.copied":
            time.sleep(0.6)

    with monkeypatch.context() as patched:
        patched.setattr(steps, "reached", late)
        world.call("run")
    assert all("could not be kept" not in (one["reason"] or "") for one in world.files())


def test_one_that_takes_longer_than_there_is_time_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.drop(FIRST, STRAY)
    world.set_up({"timeouts": {"extract": "1s", "grace": "60s"}, "retry.attempts": 1})
    copies = extract._copy

    def endless(ctx: Any, model: str, item: Any, writer: Any) -> None:
        if item.path in STRAY:
            ctx.stop.wait(30)
        copies(ctx, model, item, writer)

    with monkeypatch.context() as patched:
        patched.setattr(extract, "_copy", endless)
        said = world.refused(4, "run")
        assert "or let no file of no model be kept, as 20260101/odd.csv: source.unmapped: list" in said
        world.set_up({"timeouts": {"extract": "1s", "grace": "60s"}, "source.unmapped": "list"})
        assert batches_of(world.does("run")) == ["20260101"]


def test_what_a_dead_process_left_of_it_is_removed_by_who_is_alone(world: World) -> None:
    world.drop(FIRST, STRAY)
    world.does("run")
    [there] = (world.root / "lake/raw/p/_unmapped/20260101").iterdir()
    left = there.with_name(there.name.replace("-", "-000000000009-", 1))
    shutil.copy(there, left)
    world.drop({"20260101/a_2.csv": "id,n\n5,50\n"})
    world.does("run", "--model", "a")
    assert left.exists()
    world.drop({"20260101/a_2.csv": "id,n\n5,51\n"})
    world.does("run")
    assert (there.exists(), left.exists()) == (True, False)
