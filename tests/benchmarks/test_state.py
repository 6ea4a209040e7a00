"""What accounting for a run costs: the time one small run of five models spends in its state and in its sidecars."""

import json
import shutil
import sys
from pathlib import Path
from statistics import median

import pytest

from ingestkit.states import migrate
from tests.benchmarks.ledger import FIRST, empty_project
from tests.benchmarks.measure import ROOT, Program, cost, report
from tests.services import postgres

TIMED = """
import json, sys, time
from contextlib import contextmanager
from ingestkit import phases
from ingestkit.cli.main import call, collect_seldom
from ingestkit.lake import Lake
from ingestkit.states.engine import StateDatabase

spent = {}

def note(name, began):
    seconds, times = spent.get(name, (0.0, 0))
    spent[name] = (seconds + time.perf_counter() - began, times + 1)

def timed_block(owner, attribute):
    real = getattr(owner, attribute)
    @contextmanager
    def inside(self):
        began = time.perf_counter()
        try:
            with real(self) as held:
                yield held
        finally:
            note(attribute, began)
    setattr(owner, attribute, inside)

def timed_call(owner, attribute):
    real = getattr(owner, attribute)
    def called(*given):
        began = time.perf_counter()
        try:
            return real(*given)
        finally:
            note(attribute, began)
    setattr(owner, attribute, called)

timed_block(StateDatabase, "read")
timed_block(StateDatabase, "write")
timed_call(Lake, "write_sidecar")
collect_seldom()
began = time.perf_counter()
code = call(["--quiet", "run", "opendata", "--jobs", "1", "--output", "json"])
print()
print(json.dumps(spent | {"whole command": (time.perf_counter() - began, 1)}))
sys.exit(code)
"""


def test_the_time_a_run_of_five_models_spends_on_its_own_account(tmp_path: Path) -> None:
    timed("state", tmp_path)


@pytest.mark.services
def test_the_time_it_spends_on_a_state_in_postgresql(tmp_path: Path) -> None:
    with postgres() as server:
        migrate.upgrade(server.url())
        (tmp_path / "config.env").write_text(f"INGESTKIT__STATE__URL={server.url()}\n")
        timed("state_postgresql", tmp_path)


def timed(name: str, folder: Path) -> None:
    drop = empty_project(folder)
    days = iter(range(10, 30))

    def deliver() -> None:
        shutil.copytree(ROOT / "config" / "samples" / "opendata" / FIRST, drop / f"202601{next(days)}_180000")

    run = Program("run of a small delivery", [sys.executable, "-c", TIMED], folder, deliver)
    cost(run)
    costs, parts = [], []
    for _ in range(5):
        costs.append(cost(run))
        parts.append(json.loads((folder / "said.txt").read_text().splitlines()[-1]))
    said = [
        f"{part:32}{median(one[part][0] for one in parts):>8.3f} s in {parts[0][part][1]} calls" for part in parts[0]
    ]
    report(name, {run.name: costs}, {part: median(one[part][0] for one in parts) for part in parts[0]}, said)
