"""What a run costs that finds nothing to do, on a ledger of ten thousand files."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.benchmarks.ledger import empty_project, long_past
from tests.benchmarks.measure import ROOT, Program, cost, interleaved, report, script

BATCHES = 2000
FIRST = "20260104_180000"


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


def test_the_state_costs_little_per_run_of_five_models(tmp_path: Path) -> None:
    drop = empty_project(tmp_path)
    command = [script("ingestkit"), "run", "opendata"]
    days = iter(range(10, 30))

    def deliver() -> None:
        shutil.copytree(ROOT / "config" / "samples" / "opendata" / FIRST, drop / f"202601{next(days)}_180000")

    one = Program("run of a small delivery", command, tmp_path, deliver)
    idle = Program("nothing new", command, tmp_path)
    taken = interleaved([one, idle], 7)
    report("small run", taken, {}, ["five models of some forty rows: what remains is start, state, lake and commit"])
