"""A redo that a gate stopped behind its publish, killed at its steps: judged until it passes, and nothing done twice.

Its files are JSON lines, Parquet and members of a zip, so that these too are read again after a kill.
"""

import io
import zipfile
from collections import Counter
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.faults.processes import Launcher
from tests.faults.test_story import named_steps
from tests.faults.world import RUN, World, differences

pytestmark = pytest.mark.faults

SOME = ("run.opened", "validate.recorded", "load.committed", "load.recorded", "gate.sidecar_written")
CHECK = "sql/gate/opendata/young.sql"


def packed(*members: tuple[str, str]) -> bytes:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w") as archive:
        for name, text in members:
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), text)
    return into.getvalue()


def parquet(*rows: tuple[str, date]) -> bytes:
    into = io.BytesIO()
    ids, days = zip(*rows, strict=True)
    pyarrow.parquet.write_table(pa.table({"id": list(ids), "day": list(days), "note": ["n"] * len(rows)}), into)
    return into.getvalue()


DROPS: dict[str, str | bytes] = {
    "20260101/a.jsonl": '{"id": "1", "born": 1970}\n{"id": "2", "born": "oops"}\n{"id": "3", "born": null}\n',
    "20260101/b.parquet": parquet(("x", date(2026, 1, 1)), ("y", date(2026, 1, 2))),
    "20260101/all.zip": packed(("c_1.csv", "id,amount\n1,1.50\n2,2.25\n"), ("readme.md", "not data")),
}
RESTATED: dict[str, str | bytes] = {
    "20260101/a.jsonl": '{"id": "1", "born": 1971}\n{"id": "4", "born": 3000}\n',
    "20260101/b.parquet": parquet(("x", date(2026, 2, 1)), ("z", date(2026, 2, 2))),
    "20260101/all.zip": packed(("c_1.csv", "id,amount\n1,1.75\n"), ("c_2.csv", "id,amount\n9,9.00\n")),
}


@dataclass(frozen=True, slots=True)
class Judged:
    before: World
    after: dict[str, Any]
    steps: Counter[str]


@pytest.fixture(scope="module")
def judged(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """A done batch whose restatement breaks a rule of gate, and what comes of it when the rule is lifted."""
    folder = tmp_path_factory.mktemp("judgements")
    world = World.made(folder / "before", launcher)
    check = world.folder / CHECK
    check.parent.mkdir(parents=True)
    check.write_text("-- models: a\nSELECT * FROM a WHERE born > 2026\n")
    world.drop(DROPS)
    world.does(*RUN)
    world.drop(RESTATED)
    undisturbed = world.copied(folder / "undisturbed")
    stopped = undisturbed.call(*RUN, "--jobs", "1", record=str(folder / "steps"))
    assert (stopped.code, "young.sql is 1 where 0 is the limit" in stopped.err) == (6, True), stopped
    (undisturbed.folder / CHECK).unlink()
    undisturbed.does(*RUN)
    return Judged(world, undisturbed.seen(), Counter((folder / "steps").read_text().split()))


def disturbed(judged: Judged, folder: Path, step: str) -> list[str]:
    world = judged.before.copied(folder)
    assert world.call(*RUN, "--jobs", "1", kill=f"{step}:1").killed
    world.forget_shortcuts()
    ended = world.call(*RUN)
    told = [] if ended.code == 6 else [f"the gate was forgotten: {ended}"]
    (world.folder / CHECK).unlink()
    world.does(*RUN)
    return [*told, *differences(judged.after, world.seen()), *(f"debris: {name}" for name in world.debris())]


@pytest.mark.parametrize("step", SOME)
def test_a_redo_killed_before_its_gate_stopped_it_is_judged_by_the_next_run(
    judged: Judged, step: str, tmp_path: Path
) -> None:
    assert disturbed(judged, tmp_path / "world", step) == []


@pytest.mark.matrix
@pytest.mark.parametrize("step", sorted(named_steps() - set(SOME)))
def test_a_redo_killed_at_any_other_step_is_too(judged: Judged, step: str, tmp_path: Path) -> None:
    if not judged.steps[step]:
        pytest.skip(f"a redo that is stopped does not come to {step}")
    assert disturbed(judged, tmp_path / "world", step) == []
