"""What a publish into Snowflake takes of its client: memory at two sizes, statements and round trips, uploads at once.

What the service takes is not measured: the account is a double, whose engine is another.
"""

import json
import sys
from pathlib import Path

import duckdb
import pytest

from ingestkit.stages.validate_file import ROW_GROUP, parquet_into
from tests.benchmarks.measure import ROOT, Program, interleaved, ratio, report
from tests.benchmarks.publishing import PEOPLE
from tests.snowflake_server import snowflake_server

# Texts that no compression makes smaller, some 300 bytes a row.
HARD = """
SELECT * REPLACE (
    md5(i::VARCHAR) || md5((i * 3)::VARCHAR) AS first_name__v,
    md5((i * 5)::VARCHAR) || md5((i * 7)::VARCHAR) AS last_name__v,
    md5((i * 11)::VARCHAR) || md5((i * 13)::VARCHAR) AS hcp_type__v,
    md5((i * 17)::VARCHAR) || md5((i * 19)::VARCHAR) AS npi_num__v
) FROM (SELECT people.*, _record_no - 1 AS i FROM ({people}) AS people)
"""
# Appending comes last: what is merged has its keys once.
MODES = ("replace", "merge", "append")
LARGEST = 300 * 1_000_000
# Of memory, where four times the rows go through: few rows do not yet fill what it is bounded by.
FLAT = 1.2


@pytest.mark.timeout(3600)
def test_memory_with_files_of_the_size_that_is_the_default(
    tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fourth of the rows, which are wide: three files with the quick measure are enough."""
    rows, file = max(rows // 4, 1_000_000), tmp_path / "wide.parquet"
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        hard = HARD.format(people=PEOPLE.format(rows=rows))
        reader = db.sql(f"SELECT * EXCLUDE i FROM ({hard})").to_arrow_reader(ROW_GROUP)
        with parquet_into(file, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch, ROW_GROUP)
    with snowflake_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        connection = json.dumps(server.connection(server.database(), answer_timeout="10m"))
        monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}:{ROOT}")
        module = [sys.executable, "-m", "tests.benchmarks.publishing_snowflake", connection]
        program = Program("defaults", [*module, "replace", str(file), str(rows), "defaults"], tmp_path)
        taken, uploads = interleaved([program], 1), server.uploads
    [cost] = taken["defaults"]
    said = [f"{rows:,} wide rows, {len(uploads)} files uploaded, {max(uploads)} at once"]
    report("snowflake_defaults", taken, {"rows": rows, "peak": cost.peak}, said)
    assert len(uploads) > 2
    assert cost.peak < LARGEST


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
        uploads = server.uploads
    by_run = {tag: [one.request for one in tagged if one.tag == tag] for tag in {one.tag for one in tagged}}
    growth = {mode: ratio(taken, f"{mode}, {rows:,} rows", f"{mode}, {rows // 4:,} rows", "peak") for mode in MODES}
    grown = ", ".join(f"{mode} {one:.2f}×" for mode, one in growth.items())
    most, statements = max(cost.peak for costs in taken.values() for cost in costs), max(map(len, by_run.values()))
    requests = max(len(set(one)) for one in by_run.values())
    said = [
        f"{rows:,} rows beside {rows // 4:,}: memory {grown}",
        f"at most {statements} statements a publish of one model, {requests} requests",
        f"{len(uploads)} files uploaded, {max(uploads)} at once",
    ]
    report("snowflake", taken, {"rows": rows, "statements": statements, "peak": most, **growth}, said)
    assert most < LARGEST
    assert all(one < FLAT for one in growth.values()), growth
    assert requests <= statements <= 8 + 6
    assert max(uploads) > 1
