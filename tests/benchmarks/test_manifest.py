"""What it takes to ask a ledger of a hundred thousand files, in either database of a state."""

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import pytest
import sqlalchemy as sql

from ingestkit.states import migrate, tables
from ingestkit.states.engine import StateDatabase
from tests import services
from tests.benchmarks.ledger import empty_project
from tests.benchmarks.measure import Program, cost, interleaved, report, script

FILES = 100_000
MODELS = ("address", "hco", "hcp", "license", "parenthco")
BATCH = "20150101_180000"
FILTERS = {
    "batch": ("--batch", BATCH),
    "run": ("--run-id", f"opendata.{BATCH}.1"),
    "path": ("--path", f"{BATCH}/*"),
    "end of the path": ("--path", "*/hcp.csv", "--limit", "100"),
    "status": ("--status", "quarantined"),
    "model, newest 100": ("--model", "hcp", "--limit", "100"),
    "model": ("--model", "hcp"),
}
MOST = 1.0
"""So many seconds are meant for any filter, start included, that of a model among them: a fifth of the ledger."""


@pytest.mark.timeout(900)
def test_a_ledger_of_a_hundred_thousand_files_is_asked_in_less_than_a_second(tmp_path: Path) -> None:
    with ExitStack() as servers:
        urls = {"SQLite": f"sqlite:///{tmp_path}/ledger.db"}
        if services.programs() is not None:
            urls["PostgreSQL"] = servers.enter_context(services.postgres()).url()
        programs = [one for name, url in urls.items() for one in _programs(tmp_path / name, name, url)]
        for program in programs:
            cost(program)
        taken = interleaved(programs, 5)
    slowest = max(median(one.seconds for one in costs) for costs in taken.values())
    busiest = max(median(one.processor for one in costs) for costs in taken.values())
    said = [f"the slowest filter took {slowest:.2f} s; each is meant to take less than {MOST:g} s, start included"]
    report("manifest show", taken, {"slowest": slowest, "busiest": busiest}, said)
    # What else the machine does makes the clock slower, and hardly this.
    assert busiest < MOST


def _programs(folder: Path, name: str, url: str) -> list[Program]:
    folder.mkdir()
    empty_project(folder)
    (folder / "config.env").write_text(f"INGESTKIT__STATE__URL={url}\n")
    migrate.upgrade(url)
    _fill(url)
    shown = [script("ingestkit"), "manifest", "show", "opendata"]
    return [Program(f"{name}: {told}", [*shown, *words], folder) for told, words in FILTERS.items()]


def _fill(url: str) -> None:
    """A delivery of each model a day for as long as it takes; each hundredth file waits in quarantine."""
    newest = datetime(2026, 1, 4, 18, tzinfo=UTC)
    state = StateDatabase.open(url, 60)
    with state.write() as conn:
        for begin in range(0, FILES, 10_000):
            conn.execute(sql.insert(tables.file_manifest), [_row(n, newest) for n in range(begin, begin + 10_000)])
        if state.shared:
            conn.execute(sql.text("ANALYZE file_manifest"))
    state.close()


def _row(number: int, newest: datetime) -> dict[str, object]:
    age, of = divmod(number, len(MODELS))
    at = newest - timedelta(days=age)
    batch, model = f"{at:%Y%m%d_%H%M%S}", MODELS[of]
    return {
        "pipeline": "opendata",
        "path": f"{batch}/{model}.csv",
        "version": 1,
        "id": f"{number:016x}",
        "batch": batch,
        "model": model,
        "status": "loaded" if number % 100 else "quarantined",
        "size": 5560,
        "mtime": at,
        "sighted_at": at,
        "sha256": f"{number:064x}",
        "raw": f"raw/opendata/{model}/{batch}/{number:016x}-{model}.csv",
        "read": 42,
        "valid": 42,
        "rejected": 0,
        "loaded": 42,
        "run_id": f"opendata.{batch}.1",
        "token": 1,
        "at": at,
    }
