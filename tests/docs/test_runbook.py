"""Every command of the runbook, typed as it stands where it is needed."""

import os
import shutil
import subprocess
import threading
from datetime import UTC, datetime

import pytest

from tests.docs.pages import page, typed_below
from tests.docs.shop import BIN, ROWS, WRONG, Project, hold
from tests.integration.test_sidecars_and_queue import lose

RUNBOOK = page("docs/runbook.md")


def lines(heading: str) -> list[str]:
    return typed_below(RUNBOOK, heading)


def test_a_run_that_failed_goes_on_when_its_cause_is_put_right(shop: Project) -> None:
    shop.drop("2026-01-05", "2026-01-19")
    shop.put("2026-01-12", WRONG)
    shop.refused("ingestkit run shop", 6)
    listed, shown, again = lines("A run failed")
    assert "shop.2026-01-12.1" in shop.does(listed)
    assert "reject_rate" in shop.does(shown)
    assert shop.customers() == [1, 2]
    shop.drop("2026-01-12")
    shop.does(again)
    assert shop.customers() == [4]


def test_a_rule_that_closed_a_run_is_let_pass_by_a_person(shop: Project) -> None:
    shop.drop("2026-01-05")
    shop.does("ingestkit run shop")
    shop.put("2026-01-12", "id,name,since\n" + "".join(f"{number},Ana,\n" for number in range(1, 6)))
    assert "row_delta is 150" in shop.refused("ingestkit run shop", 6)
    show, approve, run = lines("A rule closed a run")
    assert "row_delta" in shop.does(show)
    shop.does(approve, run)
    assert shop.customers() == [1, 2, 3, 4, 5]


def test_a_pipeline_that_is_held_goes_on_when_told_to(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGESTKIT__PIPELINES__SHOP__RETRY__HOLD_AFTER", "1")
    shop.put("2026-01-05", WRONG)
    shop.refused("ingestkit run shop", 6)
    failed, resume, run = lines("A pipeline is held")
    assert "held" in shop.does(run)
    assert "shop.2026-01-05.1" in shop.does(failed)
    shop.drop("2026-01-05")
    assert "held" in shop.does(run)
    shop.does(resume, run)
    assert shop.customers() == [1, 2]


def test_rejected_rows_are_looked_at_and_taken_in_again(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGESTKIT__PIPELINES__SHOP__GATE__MAX_REJECT_PCT", "60")
    shop.put("2026-01-12", WRONG.replace("2025-02-30", "28 February 2025"))
    shop.does("ingestkit run shop")
    assert shop.customers() == [1]
    listed, shown, replay, *_ = lines("Rows were rejected")
    assert "since" in shop.does(listed)
    assert "28 February 2025" in shop.does(shown)
    shop.corrects("since: {type: date}", "since: {type: date, format: ['%Y-%m-%d', '%d %B %Y']}")
    shop.does(replay)
    assert shop.customers() == [1, 3]
    assert "nothing new" in shop.does("ingestkit run shop")


def test_rejected_rows_are_given_up(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGESTKIT__PIPELINES__SHOP__GATE__MAX_REJECT_PCT", "60")
    shop.put("2026-01-12", WRONG)
    shop.does("ingestkit run shop")
    listed, _, replay, discard, *_ = lines("Rows were rejected")
    shop.does(discard)
    assert "since" not in shop.does(listed)
    assert "nothing of batch 2026-01-12 waits" in shop.does(replay)
    assert shop.customers() == [1]


def test_a_file_of_no_model_is_taken_in(shop: Project) -> None:
    shop.drop("2026-01-12")
    folder = shop.root / "drop/2026-01-12"
    (folder / "kunden.csv").write_text(ROWS["2026-01-19"])
    shop.does("ingestkit run shop")
    shutil.rmtree(folder)
    *_, take_in, forget, again = lines("Rows were rejected")
    shop.does(take_in)
    assert shop.customers() == [1, 3, 4]
    assert "nothing new" in shop.does("ingestkit run shop")
    shop.does(forget, again)
    assert shop.customers() == [1, 3]


def test_a_batch_is_stepped_over(shop: Project) -> None:
    shop.drop("2026-01-05", "2026-01-19")
    shop.put("2026-01-12", WRONG)
    shop.refused("ingestkit run shop", 6)
    shop.does(*lines("A batch must be stepped over"))
    assert shop.customers() == [4]


def test_nothing_runs_while_a_pipeline_is_paused(shop: Project) -> None:
    shop.drop("2026-01-05")
    pause, run, resume = lines("Nothing may run for a while")
    shop.does(pause)
    assert "paused" in shop.does(run)
    assert not (shop.root / "state/warehouse.duckdb").exists()
    shop.does(resume, run)
    assert shop.customers() == [1, 2]


def test_a_file_that_was_delivered_again_is_another_version(shop: Project) -> None:
    shop.drop("2026-01-05", "2026-01-12")
    shop.does("ingestkit run shop")
    shop.put("2026-01-12", ROWS["2026-01-12"] + "5,Eve,\n")
    run, show, forget, again = lines("A file was delivered again")
    shop.does(run)
    assert shop.customers() == [1, 3, 5]
    assert shop.does(show).count("2026-01-12/customers.csv") == 2
    file = shop.root / "drop/2026-01-12/customers.csv"
    before = file.stat()
    shop.put("2026-01-12", ROWS["2026-01-12"] + "6,Eve,\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "nothing new" in shop.does(run)
    shop.does(forget, again)
    assert shop.customers() == [1, 3, 6]


def test_a_checksum_sees_a_rewrite_that_keeps_size_and_time(shop: Project) -> None:
    shop.drop("2026-01-05")
    run = "INGESTKIT__PIPELINES__SHOP__SOURCE__TRUST=checksum ingestkit run shop"
    shop.does(run)
    file = shop.root / "drop/2026-01-05/customers.csv"
    before = file.stat()
    shop.put("2026-01-05", ROWS["2026-01-05"].replace("2,Bo", "3,Bo"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    shop.does(run)
    assert shop.customers() == [1, 3]


def test_a_batch_is_loaded_again(shop: Project) -> None:
    shop.drop("2026-01-05", "2026-01-12")
    shop.does("ingestkit run shop")
    batch, run, lake = lines("A batch must be loaded again")
    shop.does(batch, run)
    drop = shop.root / "drop"
    away = drop.rename(shop.root / "away")
    shop.does(lake)
    assert shop.customers() == [1, 3]
    away.rename(drop)
    assert "superseded by 2026-01-12" in shop.refused("ingestkit backfill shop --batch 2026-01-05", 2)


def test_a_range_of_batches_is_loaded_again(shop: Project) -> None:
    shop.drop("2026-01-05", "2026-01-12")
    shop.does("ingestkit run shop")
    both, resume = lines("Many batches must be loaded again")
    assert "1 batch done again: 2026-01-12; superseded by newer ones: 2026-01-05" in shop.does(both)
    assert "nothing was left to do" in shop.does(resume)


def test_a_batch_stands_as_it_was(shop: Project) -> None:
    shop.drop("2026-01-05", "2026-01-12")
    shop.does("ingestkit run shop")
    then = datetime.now(UTC).isoformat()
    shop.put("2026-01-12", "id,name,since\n9,Zoe,\n")
    shop.drop("2026-01-19")
    shop.does("ingestkit run shop")
    back, show = lines("A batch must stand as it was")
    shop.does(back.replace("2026-01-15T06:00Z", then))
    assert shop.customers() == [1, 3]
    assert "pins" in shop.does(show)


def test_a_run_waits_for_files_to_come(shop: Project) -> None:
    [line] = lines("A run should wait for files to come")
    shop.refused(line.replace("30m", "10ms"), 99)
    shop.drop("2026-01-05")
    shop.does(line)
    assert shop.customers() == [1, 2]


def test_a_late_batch_is_reported_and_loaded_on_request(shop: Project) -> None:
    shop.drop("2026-01-12")
    shop.does("ingestkit run shop")
    shop.drop("2026-01-05")
    assert "came after newer ones were done" in shop.does("ingestkit run shop")
    assert "superseded" in shop.does(*lines("A batch came late"))
    assert shop.customers() == [1, 3]
    assert "came after" not in shop.does("ingestkit run shop")


def test_what_another_system_loaded_is_not_loaded(shop: Project) -> None:
    shop.drop("2026-01-05")
    line = lines("Batches were loaded by another system")[0]
    shop.does(line.replace("2025-12-31", "2026-01-05"))
    assert "nothing new" in shop.does("ingestkit run shop")
    shop.drop("2026-01-12")
    shop.does("ingestkit run shop")
    assert shop.customers() == [1, 3]


def test_all_batches_are_loaded_again(shop: Project) -> None:
    shop.drop("2026-01-05", "2026-01-12")
    shop.does("ingestkit run shop")
    reset, run = lines("All batches must be loaded again")
    shop.does(reset)
    assert "2 batches done: 2026-01-05, 2026-01-12" in shop.does(run)
    assert shop.customers() == [1, 3]
    assert "nothing new" in shop.does(run)


@pytest.mark.parametrize("older", [False, True], ids=["deleted", "put back"])
def test_a_warehouse_that_was_lost_is_built_again_from_the_lake(shop: Project, *, older: bool) -> None:
    warehouse = shop.root / "state/warehouse.duckdb"
    shop.drop("2026-01-05")
    shop.does("ingestkit run shop")
    copy = warehouse.read_bytes()
    shop.drop("2026-01-12")
    shop.does("ingestkit run shop")
    shutil.rmtree(shop.root / "drop")
    (shop.root / "drop").mkdir()
    warehouse.unlink()
    if older:
        warehouse.write_bytes(copy)
        shop.drop("2026-01-19")
    restore, run = lines("The warehouse was deleted, or put back to an older copy")
    assert restore in shop.refused("ingestkit run shop", 7)
    shop.does(restore)
    assert shop.customers() == [1, 3]
    shop.does(run)
    assert shop.customers() == ([4] if older else [1, 3])


@pytest.mark.parametrize("older", [False, True], ids=["deleted", "put back"])
def test_a_state_that_was_lost_is_read_back_from_the_lake(shop: Project, *, older: bool) -> None:
    state = shop.root / "state/ingestkit.db"
    shop.drop("2026-01-05")
    shop.does("ingestkit run shop")
    copy = state.read_bytes()
    shop.drop("2026-01-12")
    shop.does("ingestkit run shop")
    for file in state.parent.glob("ingestkit.db*"):
        file.unlink()
    if older:
        state.write_bytes(copy)
    adopt, run = lines("The state was deleted, or put back to an older copy")
    assert "ingestkit state adopt shop" in shop.alone_refused(run, 7)
    shop.does(adopt)
    assert "nothing new" in shop.does(run)
    assert shop.customers() == [1, 3]
    assert "2026-01-12/customers.csv" in shop.does("ingestkit manifest show shop --status loaded")


def test_a_lease_that_is_held_is_waited_for_or_left_alone(shop: Project) -> None:
    shop.drop("2026-01-05")
    shop.does("ingestkit run shop")
    waiting, skipping, showing, *_ = lines("Somebody else is working on it")
    begun, over = threading.Event(), threading.Event()
    other = threading.Thread(target=hold, args=(shop.root, begun, over))
    other.start()
    assert begun.wait(30)
    try:
        assert "since" in shop.refused("ingestkit run shop", 8)
        assert "backfill" in shop.does(showing)
        shop.refused("ingestkit pause shop --reason migration", 8)
        shop.does(skipping)
        threading.Timer(0.2, over.set).start()
        assert "nothing new" in shop.does(waiting)
    finally:
        over.set()
        other.join()


@pytest.mark.parametrize("chosen", [4, 5], ids=["finished", "taken over"])
def test_a_run_that_a_stage_command_began_is_ended(shop: Project, chosen: int) -> None:
    shop.drop("2026-01-12")
    shop.does("ingestkit extract shop --run-id nightly-2026-01-12")
    typed = lines("Somebody else is working on it")
    watch = subprocess.Popen([BIN / "ingestkit", *typed[3].split()[1:]], stdout=subprocess.PIPE)
    assert watch.stdout is not None
    watch.stdout.readline()
    shop.does(typed[chosen])
    watch.communicate()
    assert watch.returncode == (0 if chosen == 4 else 8)
    assert shop.customers() == [1, 3]


def test_what_is_pending_is_shown_and_written(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.drop("2026-01-05")
    with monkeypatch.context() as patched:
        lose(patched, "load")
        assert "its rows wait in" in shop.refused("ingestkit run shop", 7)
    show, flush = lines("Something is pending")
    assert "load" in shop.does(show)
    assert "1 pending record written" in shop.does(flush)
    assert "load" not in shop.does(show)
    shop.does("ingestkit run shop")
    assert shop.customers() == [1, 2]


def test_a_project_that_moved_goes_on_where_it_was(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.drop("2026-01-05")
    shop.does("ingestkit run shop")
    (shop.root / "there").mkdir()
    for name in ("config", "drop", "state"):
        (shop.root / name).rename(shop.root / "there" / name)
    monkeypatch.chdir(shop.root / "there")
    check, run, *_ = lines("The state must move")
    assert "nothing new" in shop.does(check, run)


def test_a_state_is_brought_into_another_database(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into a second file here; into a server where tests of the state do."""
    shop.drop("2026-01-05")
    shop.does("ingestkit run shop")
    _, _, export, upgrade, put, run = lines("The state must move")
    shop.does(export)
    monkeypatch.setenv("INGESTKIT__STATE__URL", "sqlite:///state/other.db")
    assert "nothing new" in shop.does(upgrade, put, run)
    shop.drop("2026-01-12")
    shop.does(run)
    assert shop.customers() == [1, 3]
    monkeypatch.delenv("INGESTKIT__STATE__URL")
    shop.drop("2026-01-19")
    assert "ingestkit state adopt shop" in shop.alone_refused(run, 7)
