"""What a publish into Snowflake takes of its client: memory at two sizes, statements and round trips, uploads at once.

What the service takes is not measured: the account is a double, whose engine is another.
"""

import json
import sys
from pathlib import Path

import duckdb
import pytest

from tests.benchmarks.measure import ROOT, Program, interleaved, ratio, report
from tests.benchmarks.publishing import PEOPLE
from tests.snowflake_server import snowflake_server

# Appending comes last: what is merged has its keys once.
MODES = ("replace", "merge", "append")
LARGEST = 300 * 1_000_000
# Of memory, where four times the rows go through: few rows do not yet fill what it is bounded by.
FLAT = 1.2


@pytest.mark.timeout(7200)
def test_memory_statements_and_uploads_of_a_publish(tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = (rows // 4, rows)
    files = {size: tmp_path / f"{size}.parquet" for size in sizes}
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        for size, file in files.items():
            db.execute(f"COPY ({PEOPLE.format(rows=size)}) TO '{file}'")
    with snowflake_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        # Small files, of which some go up side by side at this size too.
        connection = json.dumps(server.connection(server.database(), file_size="8MB", answer_timeout="10m"))
        module = [sys.executable, "-m", "tests.benchmarks.publishing_snowflake", connection]
        environment = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        programs = [
            Program(f"{mode}, {size:,} rows", [*module, mode, str(files[size]), str(size), f"{mode}{size}"], tmp_path)
            for mode in MODES
            for size in sizes
        ]
        taken = interleaved(programs, 1)
        tagged = [one for one in server.sent if one.tag.startswith("ingestkit p.")]
        uploads, requests = server.uploads, len({one.request for one in tagged})
    by_run = {tag: sum(one.tag == tag for one in tagged) for tag in {one.tag for one in tagged}}
    growth = {mode: ratio(taken, f"{mode}, {rows:,} rows", f"{mode}, {rows // 4:,} rows", "peak") for mode in MODES}
    grown = ", ".join(f"{mode} {one:.2f}×" for mode, one in growth.items())
    most, statements = max(cost.peak for costs in taken.values() for cost in costs), max(by_run.values())
    said = [
        f"{rows:,} rows beside {rows // 4:,}: memory {grown}",
        f"at most {statements} statements a publish of one model, {requests / len(by_run):.1f} requests",
        f"{len(uploads)} files uploaded, {max(uploads)} at once",
    ]
    report("snowflake", taken, {"rows": rows, "statements": statements, "peak": most, **growth}, said)
    assert most < LARGEST
    assert all(one < FLAT for one in growth.values()), growth
    assert statements <= 8 + 6
    assert max(uploads) > 1
