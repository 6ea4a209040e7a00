"""Rows published into PostgreSQL beside `psql \\copy` of a CSV with the same columns, lineage included."""

import itertools
import sys
from functools import partial
from pathlib import Path

import duckdb
import pytest

from tests.benchmarks.measure import ROOT, Program, interleaved, ratio, report
from tests.benchmarks.publishing import COLUMNS, PEOPLE
from tests.services import postgres
from tests.warehouses import LOADER, warehouse_database

TIMES = 3
LINEAGE = ("_batch", "_run_id", "_source_file", "_record_no")


@pytest.mark.timeout(7200)
def test_rows_published_beside_psql(tmp_path: Path, rows: int) -> None:
    valid, changed, text = (tmp_path / name for name in ("people.parquet", "changed.parquet", "people.csv"))
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        db.execute(f"COPY ({PEOPLE.format(rows=rows)}) TO '{valid}'")
        db.execute(f"COPY (FROM '{valid}' WHERE _record_no % 100 = 0) TO '{changed}'")
        origin = "'b1' AS _batch, 'p.b1.1' AS _run_id, 'drop/people.csv' AS _source_file, _record_no"
        db.execute(f"COPY (SELECT {', '.join(COLUMNS)}, {origin} FROM '{valid}') TO '{text}' (HEADER false)")
    batches = itertools.count(1)
    with postgres() as server:
        database = warehouse_database(server, "bench")
        # A first load makes the tables; what is measured finds them.
        ours = [sys.executable, str(ROOT / "tests/benchmarks/publishing.py"), str(server.port), database]

        def publishing(mode: str, file: Path, number: int) -> Program:
            command = [*ours, mode, str(file), str(number), f"b{next(batches)}"]
            return Program(f"ingestkit {mode}, {number:,} rows", command, tmp_path, partial(emptied, mode))

        def emptied(mode: str) -> None:
            """A batch appended into an empty table, or put in place of as many rows; psql has an empty table too."""
            server.does("DROP TABLE IF EXISTS copied; CREATE TABLE copied (LIKE people)", database)
            server.does("DELETE FROM ingestkit_receipt", database)
            if mode == "append":
                server.does("TRUNCATE people", database)
            server.does("CHECKPOINT", database)

        copied = f"\\copy copied ({', '.join((*COLUMNS, *LINEAGE))}) from '{text}' csv"
        command = [str(server.programs / "psql"), "-q", server.url(database), "-c", copied]
        psql = Program("psql \\copy", command, tmp_path, partial(emptied, "replace"))
        first = publishing("append", valid, rows)
        interleaved([Program(first.name, first.command, tmp_path)], 1)
        server.does(f"ALTER TABLE people OWNER TO {LOADER}", database)
        append, replace = publishing("append", valid, rows), publishing("replace", valid, rows)
        taken = interleaved([psql, append, replace, publishing("merge", changed, rows // 100)], TIMES)
    facts = {f"psql / {name}": ratio(taken, psql.name, name) for name in taken if name != psql.name}
    said = [f"{rows:,} rows of {len(COLUMNS) + len(LINEAGE)} columns, {text.stat().st_size / 2**20:,.0f} MiB of CSV"]
    said += [f"{name}: {value:.2f}× as fast" for name, value in facts.items()]
    report("postgresql", taken, {"rows": rows, **facts}, said)
