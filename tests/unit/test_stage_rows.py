"""What a sidecar becomes in the state."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingestkit.model import Counts, RunStatus, Sidecar, Stage, StageStatus, Work
from ingestkit.states import runs, sidecars, stage_rows
from ingestkit.states.engine import StateDatabase
from ingestkit.states.runs import Run

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDatabase]:
    opened = StateDatabase.open(f"sqlite:///{tmp_path}/state.db", 5)
    yield opened
    opened.close()


def test_a_stage_row_does_not_repeat_what_its_run_row_holds(state: StateDatabase) -> None:
    opened = Run(
        run_id="p.1.1",
        invocation="p.1.1",
        pipeline="p",
        batch="1",
        attempt=1,
        kind="run",
        models=("a",),
        status=RunStatus.OPEN,
        retry=0,
        started_at=NOW,
        touched_at=NOW,
        last_command="run",
        config={"long": "x" * 10_000},
        config_hash="0" * 64,
        token=1,
    )
    work = Work(counts=Counts(files=1))
    left = Sidecar("p", "p.1.1", "1", Stage.EXTRACT, "a", 1, 1, "s", NOW, work, opened.facts())
    with state.write() as conn:
        runs.insert_run(conn, opened, NOW, "somebody")
        assert sidecars.apply(conn, left, "_runs/p/x.json", NOW)
        row = stage_rows.of_run(conn, "p.1.1")[Stage.EXTRACT, "a"]
    assert row.status is StageStatus.SUCCESS
    assert row.sidecar is not None
    assert len(str(row.sidecar)) < 2_000
    found = row.work()
    assert found is not None
    assert found.work == work
