"""Publishes one valid file into a Snowflake warehouse, as a process of its own.

python -m tests.benchmarks.publishing_snowflake CONNECTION MODE FILE ROWS BATCH
"""

import json
import sys
import tempfile
from pathlib import Path

from ingestkit.pipeline import SystemClock
from ingestkit.settings import Settings, SnowflakeConnection
from ingestkit.warehouses.snowflake import opened
from tests.benchmarks.publishing import publish_into


def publish(connection: str, mode: str, file: str, rows: str, batch: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        warehouse = opened(
            connection=SnowflakeConnection.model_validate(json.loads(connection)),
            root=Path(scratch),
            memory_limit=Settings.model_fields["memory_limit"].default,
            threads=2,
            clock=SystemClock(),
            scratch=Path(scratch),
        )
        publish_into(warehouse, mode, Path(file), int(rows), batch)


if __name__ == "__main__":
    publish(*sys.argv[1:])
