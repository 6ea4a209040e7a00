"""What goes up into a stage of Snowflake's is never in memory as a whole, and arrives whole all the same."""

import os
import tracemalloc
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingestkit.ports import Copying
from ingestkit.warehouses.snowflake import SnowflakeWarehouse
from ingestkit.warehouses.snowflake_upload import PIECE, SparingCursor
from tests.contracts.snowflake import account, with_a_table
from tests.contracts.warehouse import PERSON, load, publication, write_valid
from tests.snowflake_server import LINE_CUT, Fault, SnowflakeServer, status

pytestmark = [pytest.mark.services, pytest.mark.slow]

server, warehouse = account, with_a_table

ROWS = 40_000


def wide(folder: Path) -> Any:
    """Some 24 MB that no compression makes smaller, in files of 20."""
    rows = [(str(number), os.urandom(300).hex()) for number in range(ROWS)]
    made = load((write_valid(folder / "wide.parquet", PERSON, rows),))
    return publication(replace(made, copying=Copying("20MB", 2)))


def test_files_are_read_as_they_are_sent(warehouse: SnowflakeWarehouse, tmp_path: Path) -> None:
    work = wide(tmp_path)
    tracemalloc.start()
    try:
        warehouse.publish(work)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 16_000_000
    assert warehouse.query("SELECT count(*) FROM PUBLIC.HCP") == [(ROWS,)]


@pytest.mark.parametrize("fault", [status(503), LINE_CUT])
def test_a_file_that_is_sent_again_is_sent_from_its_beginning(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, fault: Fault, tmp_path: Path
) -> None:
    server.breaks(fault, "^UPLOAD")
    broken = server.broken
    warehouse.publish(wide(tmp_path))
    assert server.broken == broken + 1
    assert warehouse.query("SELECT count(*) FROM PUBLIC.HCP") == [(ROWS,)]


@pytest.mark.parametrize("storage", ["S3", "AZURE"])
def test_other_clouds_are_sent_small_pieces_whatever_the_service_says(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, storage: str
) -> None:
    """The double is of one cloud alone, so this is what the connector is told."""
    told = {"stageInfo": {"locationType": storage, "location": "stages/", "creds": {}}, "parallel": 99}
    with closing(server.connect(warehouse.account.database)) as link, link.cursor(SparingCursor) as cursor:
        answer = {"data": told}
        agent = cursor._create_file_transfer_agent("PUT", answer, multipart_threshold=200 * 2**20)
    assert agent._multipart_threshold == PIECE
    assert answer["data"]["parallel"] == 12
