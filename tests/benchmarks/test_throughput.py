"""A large file validated, and taken all the way, beside DuckDB merely writing it as Parquet."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.benchmarks.delivery import deliver_people
from tests.benchmarks.ledger import empty_project
from tests.benchmarks.measure import Program, cost, interleaved, ratio, report, script

BARE = """
import duckdb
duckdb.execute("SET memory_limit = '1GB'")
duckdb.execute("COPY (FROM read_csv('{source}', all_varchar = true)) TO '{target}' (FORMAT parquet)")
"""


@pytest.mark.timeout(3600)
def test_a_large_file_beside_bare_duckdb(tmp_path: Path, rows: int) -> None:
    file = empty_project(tmp_path) / "20260104_180000" / "HCP.csv"
    deliver_people(file, rows)
    ingestkit = [script("ingestkit"), "--quiet"]

    def begin() -> None:
        shutil.rmtree(tmp_path / "state", ignore_errors=True)

    def extracted() -> None:
        begin()
        cost(Program("extract", [*ingestkit, "extract", "opendata"], tmp_path))

    bare = BARE.format(source=file, target=tmp_path / "bare.parquet")
    duckdb = Program("DuckDB: read_csv to Parquet", [sys.executable, "-c", bare], tmp_path)
    validate = Program("ingestkit validate", [*ingestkit, "validate", "opendata"], tmp_path, extracted)
    run = Program("ingestkit run", [*ingestkit, "run", "opendata"], tmp_path, begin)
    taken = interleaved([duckdb, validate, run], 3)
    facts = {
        f"{program.name.split()[1]}, {fact}": ratio(taken, program.name, duckdb.name, fact)
        for program in (validate, run)
        for fact in ("seconds", "processor")
    }
    size = file.stat().st_size
    said = [f"{rows:,} rows of 14 columns, {size / 2**20:,.0f} MiB"]
    said += [f"{name}: {value:.2f}× bare DuckDB" for name, value in facts.items()]
    report("throughput", taken, {"rows": rows, "bytes": size, **facts}, said)
