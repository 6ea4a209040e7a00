"""What a run costs that finds nothing to do, on a ledger of ten thousand files."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmarks.ledger import FIRST, long_past
from tests.benchmarks.measure import Program, cost, interleaved, ratio, report, script

BATCHES = 2000


@pytest.mark.timeout(600)
def test_nothing_new_takes_about_a_second_on_ten_thousand_files(tmp_path: Path) -> None:
    command = [script("ingestkit"), "run", "opendata"]
    programs = [Program("python -c pass", [sys.executable, "-c", "pass"], tmp_path)]
    for name, batches, days_apart in (
        ("ledger of 5 files", 1, 1),
        ("10,000 files, one batch a day", BATCHES, 1),
        ("10,000 files, all done today", BATCHES, 0),
    ):
        folder = tmp_path / str(len(programs))
        long_past(folder, batches, days_apart=days_apart)
        programs.append(Program(name, command, folder))
    for program in programs:
        cost(program)
    taken = interleaved(programs, 7)
    for program in programs[1:]:
        assert "nothing new" in (program.folder / "said.txt").read_text()
    report("nothing new", taken, {}, ["done within `late_scan`, each file of a batch is looked at in every run"])


@pytest.mark.timeout(600)
def test_a_small_run_costs_the_same_on_a_long_ledger(tmp_path: Path) -> None:
    command = [script("ingestkit"), "run", "opendata"]
    programs = [
        Program(name, command, tmp_path / str(batches), _deliveries(tmp_path / str(batches), batches))
        for name, batches in (("ledger of 5 files", 1), ("ledger of 10,000 files", BATCHES))
    ]
    for program in programs:
        cost(program)
    taken = interleaved(programs, 5)
    processor = ratio(taken, programs[1].name, programs[0].name, "processor")
    said = [
        f"processor {processor:.2f}×; five models of some forty rows: start, state, lake and commit are what is left"
    ]
    report("small run", taken, {"processor": processor}, said)


def _deliveries(folder: Path, batches: int) -> Callable[[], None]:
    """What puts one more delivery into the drop of a project with so many done."""
    long_past(folder, batches, days_apart=1)
    drop = folder / "config" / "samples" / "opendata"
    days = iter(range(10, 30))

    def deliver() -> None:
        shutil.copytree(drop / FIRST, drop / f"202601{next(days)}_180000")

    return deliver
