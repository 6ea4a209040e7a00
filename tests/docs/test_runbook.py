"""The README's example and its runbook, typed as they stand in a project made from it."""

import os
import shlex
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from ingestkit.cli.main import call
from ingestkit.cli.progress import LogProgress
from ingestkit.pipeline import Stop, SystemClock
from ingestkit.project import load
from ingestkit.runner import holding
from tests.docs.pages import below, blocks, page

README = page("README.md")
ROWS = {
    "2026-01-05": "id,name,since\n1,Ana,2024-01-31\n2,Bo,\n",
    "2026-01-12": "id,name,since\n1,Ana,2024-01-31\n3,Cleo,2025-02-28\n",
    "2026-01-19": "id,name,since\n4,Dee,2025-03-01\n",
}
WRONG = "id,name,since\n1,Ana,2024-01-31\n3,Cleo,2025-02-30\n"


@dataclass(frozen=True, slots=True)
class Project:
    root: Path
    capsys: pytest.CaptureFixture[str] = field(repr=False)

    def types(self, line: str) -> tuple[int, str]:
        """Type one line; its exit code, and all it said. What ingestkit is not is the shell's."""
        words = shlex.split(line)
        if "ingestkit" not in words:
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            subprocess.run(["bash", "-c", line], check=True, env={**os.environ, "PATH": path}, capture_output=True)
            return 0, ""
        self.capsys.readouterr()
        with pytest.MonkeyPatch.context() as patched:
            while words[0] != "ingestkit":
                patched.setenv(*words.pop(0).split("=", 1))
            code = call(words[1:])
        shown = self.capsys.readouterr()
        return code, shown.out + shown.err

    def does(self, *lines: str) -> str:
        """Type lines that must succeed; what they said."""
        said = ""
        for line in lines:
            code, told = self.types(line)
            assert code == 0, (line, told)
            said += told
        return said

    def refused(self, line: str, code: int) -> str:
        ended, told = self.types(line)
        assert ended == code, (line, told)
        return told

    def alone_refused(self, line: str, code: int) -> str:
        """The same in a process of its own, which takes what it holds with it."""
        words = [sys.executable, "-c", "from ingestkit.cli.main import main; main()", *shlex.split(line)[1:]]
        ended = subprocess.run(words, check=False, capture_output=True, text=True)
        assert ended.returncode == code, (line, ended.stdout + ended.stderr)
        return ended.stderr

    def drop(self, *batches: str) -> None:
        for batch in batches:
            self.put(batch, ROWS[batch])

    def put(self, batch: str, text: str) -> None:
        path = self.root / "drop" / batch / "customers.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def customers(self) -> list[int]:
        with duckdb.connect(str(self.root / "state/warehouse.duckdb"), read_only=True) as target:
            return [number for (number,) in target.execute("SELECT id FROM customer ORDER BY id").fetchall()]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Project:
    for block in blocks(README):
        first, _, rest = block.text.partition("\n")
        if first.startswith("# config/"):
            path = tmp_path / first.removeprefix("# ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(rest)
    (tmp_path / "drop").mkdir()
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, capsys)


def lines(heading: str) -> list[str]:
    return [line for block in below(README, heading) if block.language == "sh" for line in block.text.splitlines()]


def test_ones_own_files_are_loaded_as_the_example_says(shop: Project) -> None:
    typed = lines("Your own files")
    assert typed[0] == "make install"
    shop.does(*typed[typed.index("mkdir -p drop/2026-01-05") :])
    assert shop.customers() == [1, 2]


def test_the_settings_are_shown_with_their_origin(shop: Project) -> None:
    jobs, percent, flag = lines("Settings")
    assert "INGESTKIT__JOBS" in shop.does(jobs)
    assert "INGESTKIT__PIPELINES__SHOP__GATE__MAX_REJECT_PCT" in shop.does(percent)
    shop.does(flag)


def test_stages_under_one_id_leave_what_a_run_leaves(shop: Project) -> None:
    shop.drop("2026-01-05")
    shop.does(*lines("One command per stage"))
    assert shop.customers() == [1, 2]
    assert "nothing new" in shop.does("ingestkit run shop")
    assert "done already" in shop.does(lines("One command per stage")[2])
    for line in lines("One command per stage"):
        again = line.replace("2026-01-12", "2026-01-19")
        shop.does(again)
        shop.refused(f"{again} --skip-exit-code 99", 99)


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
    waiting, skipping, showing = lines("Somebody else is working on it")
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


def test_what_is_pending_is_shown_and_written(shop: Project) -> None:
    shop.does(*lines("Something is pending"))


def test_a_project_that_moved_goes_on_where_it_was(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.drop("2026-01-05")
    shop.does("ingestkit run shop")
    (shop.root / "there").mkdir()
    for name in ("config", "drop", "state"):
        (shop.root / name).rename(shop.root / "there" / name)
    monkeypatch.chdir(shop.root / "there")
    assert "nothing new" in shop.does("ingestkit run shop")
    shop.does("ingestkit check shop")


def hold(root: Path, begun: threading.Event, over: threading.Event) -> None:
    """Somebody else at work: the lease is held as a backfill holds it, until it is over."""
    stop = Stop()
    opened = load(root).open("shop", clock=SystemClock(stop), stop=stop, progress=LogProgress())
    with holding(opened, opened.pipeline.models, "backfill", "fail"):
        begun.set()
        over.wait(60)
    opened.state.close()
