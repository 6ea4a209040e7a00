"""Publishes one valid file into a PostgreSQL warehouse, as a process of its own.

python -m tests.benchmarks.publishing PORT DATABASE MODE FILE ROWS BATCH
"""

import sys
import tempfile
from pathlib import Path

from ingestkit.model import Counts, Fence, Intent, LoadMode
from ingestkit.pipeline import SystemClock
from ingestkit.ports import Load, Publication, TargetColumn, ValidFile, Warehouse
from ingestkit.warehouses.postgresql import PostgresqlWarehouse
from ingestkit.warehouses.postgresql_session import Server

COLUMNS = {
    "vid__v": "string",
    "first_name__v": "string",
    "last_name__v": "string",
    "hcp_type__v": "string",
    "npi_num__v": "string",
    "birth_year__v": "integer",
    "score__v": "float",
    "fee__v": "decimal(12,2)",
    "opt_out__v": "boolean",
    "born__v": "date",
    "created_date__v": "timestamp",
    "modified_date__v": "timestamp",
}
PEOPLE = """
SELECT
    (242976940000000000 + i)::VARCHAR AS vid__v,
    ['José', 'Anna', 'Łukasz', 'Zoë', 'Ian', 'Mary Ann'][1 + i % 6] AS first_name__v,
    ['Müller', 'García, Jr.', 'Åström', 'O''Neill', 'Smith', 'Nguyễn'][1 + i // 6 % 6] || i % 9973 AS last_name__v,
    ['P', 'N', NULL][1 + i % 3] AS hcp_type__v,
    lpad(((i * 7919) % 10000000000)::VARCHAR, 10, '0') AS npi_num__v,
    CASE WHEN i % 11 > 0 THEN 1930 + i % 70 END AS birth_year__v,
    i / 7.0::DOUBLE AS score__v,
    (i % 100000 / 100.0)::DECIMAL(12, 2) AS fee__v,
    i % 3 = 0 AS opt_out__v,
    DATE '1930-01-01' + (i % 20000)::INTEGER AS born__v,
    TIMESTAMPTZ '2016-11-17 00:00:00Z' + to_seconds(i) AS created_date__v,
    TIMESTAMPTZ '2025-01-01 00:00:00Z' + to_seconds(i * 7) AS modified_date__v,
    i + 1 AS _record_no
FROM range({rows}) AS numbers(i)
"""


def publish(port: str, database: str, mode: str, file: str, rows: str, batch: str) -> None:
    parameters = {"host": "127.0.0.1", "port": port, "dbname": database, "user": "loader"}
    with tempfile.TemporaryDirectory() as scratch:
        place = Server(database, "public", 60.0, parameters)
        publish_into(
            PostgresqlWarehouse(place, "600MiB", 2, SystemClock(), Path(scratch)), mode, Path(file), int(rows), batch
        )


def publish_into(warehouse: Warehouse, mode: str, file: Path, rows: int, batch: str) -> None:
    """What a run does in a warehouse for one batch of one model."""
    columns = tuple(TargetColumn(name, kind) for name, kind in COLUMNS.items())
    valid = ValidFile(file, "drop/people.csv", "f1", rows)
    load = Load(Intent("people", 1, "d", "s", LoadMode(mode)), "people", columns, ("vid__v",), (valid,), None)
    warehouse.check()
    warehouse.fence((Fence("p", "people", "state", 0, "people"),))
    warehouse.evolve("people", columns, load.lineage)

    def judge(model: str, counts: Counts, facts: object) -> None:
        assert (counts.staged, counts.loaded) == (rows, rows), (model, counts, facts)

    warehouse.publish(Publication("p", batch, f"p.{batch}.1", "state", 1, (load,), judge))


if __name__ == "__main__":
    publish(*sys.argv[1:])
