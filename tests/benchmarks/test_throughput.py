"""A large file validated, and taken all the way, beside what users would pick instead."""

import shutil
from pathlib import Path
from statistics import median

import pytest

from tests.benchmarks import peers
from tests.benchmarks.delivery import deliver_people
from tests.benchmarks.ledger import empty_project
from tests.benchmarks.measure import Program, cost, interleaved, ratio, report, script

TIMES = 3


@pytest.mark.timeout(7200)
def test_a_large_file_beside_what_users_would_pick(tmp_path: Path, rows: int) -> None:
    file = empty_project(tmp_path) / "20260104_180000" / "HCP.csv"
    deliver_people(file, rows)
    ingestkit = [script("ingestkit"), "--quiet"]

    def begin() -> None:
        shutil.rmtree(tmp_path / "state", ignore_errors=True)

    def extracted() -> None:
        begin()
        cost(Program("extract", [*ingestkit, "extract", "opendata"], tmp_path))

    bare, arrow = peers.bare_duckdb(file, tmp_path), peers.dlt(file, tmp_path, "arrow")
    validate = Program("ingestkit validate", [*ingestkit, "validate", "opendata"], tmp_path, extracted)
    run = Program("ingestkit run", [*ingestkit, "run", "opendata"], tmp_path, begin)
    taken = interleaved([bare, validate, arrow, run, *peers.converters(file, tmp_path)], TIMES)
    # Its default path takes minutes; once is enough to tell fifteen times from one.
    default = peers.dlt(file, tmp_path, "default")
    taken[default.name] = [cost(default)]
    beside = [(validate, bare.name), (run, bare.name), (run, arrow.name)]
    beside += [(validate, name) for name in taken if name.startswith(("Polars", "pandas"))]
    facts = {
        f"{ours.name} / {theirs}, {fact}": ratio(taken, ours.name, theirs, fact)
        for ours, theirs in beside
        for fact in ("seconds", "processor")
    }
    facts[f"{default.name} / {run.name}, seconds"] = taken[default.name][0].seconds / median(
        one.seconds for one in taken[run.name]
    )
    size = file.stat().st_size
    said = [f"{rows:,} rows of 14 columns, {size / 2**20:,.0f} MiB, one bad row in 1,000"]
    said += [f"{name}: {value:.2f}×" for name, value in facts.items()]
    report("throughput", taken, {"rows": rows, "bytes": size, **facts}, said)
