"""Windows killed at their steps: late files, a cut that has changed, windows stepped over, all loads side by side."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.processes import Launcher
from tests.faults.test_story import named_steps
from tests.faults.world import RUN, World, differences

pytestmark = pytest.mark.faults

YEARS = """
pipeline: opendata
source:
  type: files
  connection: drop
  batches:
    window: 12 months
    timezone: Europe/Berlin
    start: 2022-01-01
    folders: '(?P<at>\\d{4}-\\d{2}-\\d{2})'
    at: {format: '%Y-%m-%d'}
  settle: {quiet: 0s}
models:
  a: {key: [id], load: replace, columns: {id: {required: true}, n: {type: integer}}}
  b: {key: [id], load: merge, columns: {id: {required: true}, n: {type: integer}}}
  c: {key: [id], load: append, columns: {id: {required: true}, n: {type: integer}}}
  d: {key: [id], load: window, window_column: day, columns: {id: {required: true}, day: {type: date}}}
gate: {max_reject_pct: 60, row_delta_pct: never}
validation: {max_file_reject_pct: 90}
retry: {attempts: 2, first_wait: 100ms, cap: 100ms, backoff: none}
"""
HALVES = YEARS.replace("12 months", "6 months").replace("start: 2022-01-01", "start: 2020-03-01")
NEWEST = HALVES.replace("timezone:", "catchup: false\n    timezone:")
FIRST = {
    "2022-05-01/d.csv": "id,day\n1,2022-05-01\n2,2021-12-31\n3,2022-12-31\n",
    "2022-05-01/c.csv": "id,n\n1,1\n",
    "2023-05-01/a.csv": "id,n\n1,1\n2,2\n",
    "2023-05-01/d.csv": "id,day\n4,2023-05-01\n5,2023-05-02\n",
}
LATER = {
    "2022-06-01/d.csv": "id,day\n6,2022-06-01\n",
    "2023-05-01/d.csv": "id,day\n4,2023-05-01\n",
    "2024-05-01/b.csv": "id,n\n1,1\n",
    "2024-05-01/d.csv": "id,day\n7,2024-05-01\n8,2024-12-01\n",
    "2024-09-01/a.csv": "id,n\n3,3\n",
    "2024-09-01/b.csv": "id,n\n1,2\n",
    "2024-09-01/c.csv": "id,n\n1,2\n",
    "2024-09-01/d.csv": "id,day\n9,2024-09-01\n",
}
SOME = ("run.opened", "load.rows_written", "load.committed", "gate.recorded")
WINDOWS = "SELECT batch, model, status, window_end FROM completion"


@dataclass(frozen=True, slots=True)
class Told:
    before: World
    after: dict[str, Any]
    steps: Counter[str]


def seen(world: World) -> dict[str, Any]:
    return {**world.seen(), "windows": sorted(map(repr, world.rows(WINDOWS)))}


def told(launcher: Launcher, folder: Path, later: str) -> Told:
    """A world with two windows done, time cut otherwise behind them, and files in both; and what a run makes of it."""
    world = World.made(folder / "before", launcher)
    pipeline = world.folder / "config/pipelines/opendata.yaml"
    pipeline.write_text(YEARS)
    world.drop(FIRST)
    world.does(*RUN, "--limit", "2")
    pipeline.write_text(later)
    world.drop(LATER)
    undisturbed = world.copied(folder / "undisturbed")
    ended = undisturbed.call(*RUN, "--jobs", "1", record=str(folder / "steps"))
    assert ended.code == 0, ended
    return Told(world, seen(undisturbed), Counter((folder / "steps").read_text().split()))


@pytest.fixture(scope="module")
def cut_anew(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Told:
    return told(launcher, tmp_path_factory.mktemp("windows"), HALVES)


@pytest.fixture(scope="module")
def stepped_over(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Told:
    return told(launcher, tmp_path_factory.mktemp("newest"), NEWEST)


def disturbed(story: Told, folder: Path, step: str, number: int) -> list[str]:
    world = story.before.copied(folder)
    assert world.call(*RUN, "--jobs", "1", kill=f"{step}:{number}").killed
    world.forget_shortcuts()
    world.does(*RUN)
    return [*differences(story.after, seen(world)), *(f"debris: {name}" for name in world.debris())]


def test_the_windows_are_those_of_each_cut_and_their_rows_in_them(cut_anew: Told) -> None:
    ends = dict(row.removeprefix("('").split("', 'd', ") for row in cut_anew.after["windows"] if "'d'" in row)
    assert {key: end[:-2].split(", '")[1][:10] for key, end in list(ends.items())[:4]} == {
        "20211231T230000Z": "2022-12-31",
        "20221231T230000Z": "2023-12-31",
        "20231231T230000Z": "2024-02-29",
        "20240229T230000Z": "2024-08-31",
    }
    rows = [row.split("'")[1] + " " + row.split("'")[3] for row in cut_anew.after["rows of d"]]
    assert rows == [
        "1 20211231T230000Z",
        "3 20211231T230000Z",
        "4 20221231T230000Z",
        "6 20211231T230000Z",
        "7 20240229T230000Z",
        "9 20240831T220000Z",
    ]


@pytest.mark.parametrize("step", SOME)
def test_a_run_over_windows_killed_is_finished_by_the_next(cut_anew: Told, step: str, tmp_path: Path) -> None:
    assert disturbed(cut_anew, tmp_path / "world", step, cut_anew.steps[step]) == []


@pytest.mark.parametrize("step", ["discover.noted", "windows.stepped_over", "run.opened"])
def test_windows_stepped_over_by_a_run_that_is_killed_stay_so(stepped_over: Told, step: str, tmp_path: Path) -> None:
    assert disturbed(stepped_over, tmp_path / "world", step, 1) == []


@pytest.mark.matrix
@pytest.mark.parametrize("step", sorted(named_steps()))
def test_a_run_over_windows_killed_at_any_other_step_is_too(cut_anew: Told, step: str, tmp_path: Path) -> None:
    if not cut_anew.steps[step]:
        pytest.skip(f"a run over windows does not come to {step}")
    assert disturbed(cut_anew, tmp_path / "world", step, 1) == []
