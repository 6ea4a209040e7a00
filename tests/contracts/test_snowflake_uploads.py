"""What goes up into a stage of Snowflake's is never in memory as a whole, and arrives whole all the same."""

import itertools
import os
import re
import tracemalloc
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingestkit.model import LoadMode
from ingestkit.ports import Copying
from ingestkit.warehouses import snowflake_sql
from ingestkit.warehouses.snowflake import SnowflakeWarehouse
from ingestkit.warehouses.snowflake_upload import PIECE, SparingCursor
from tests.contracts.snowflake import account, warehouse_of, with_a_table
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


def test_a_project_may_lie_in_a_folder_of_any_name(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, tmp_path: Path
) -> None:
    """What the connector is given is a pattern to it."""
    elsewhere = warehouse_of(server, warehouse.account.database, tmp_path / "it's [one] of *?")
    for batch, mode in enumerate((LoadMode.REPLACE, LoadMode.MERGE), start=1):
        made = load((write_valid(tmp_path / f"{batch}.parquet", PERSON, [("1", mode.value)]),), mode)
        elsewhere.publish(publication(made, batch=f"b{batch}", token=batch))
        assert warehouse.query("SELECT id, city FROM PUBLIC.HCP") == [("1", mode.value)]


def test_more_files_than_one_statement_names_are_loaded_by_several(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snowflake_sql, "MOST_FILES", 2)
    rows = [(str(number), os.urandom(300).hex()) for number in range(12_000)]
    made = load((write_valid(tmp_path / "many.parquet", PERSON, rows),))
    told: dict[str, Mapping[str, Any]] = {}
    work = publication(replace(made, copying=Copying("1MB", 2)))
    warehouse.publish(replace(work, told=told.__setitem__))
    copies = [one.sql for one in server.sent if one.query in told["hcp"]["queries"]]
    named = [re.findall(r"'(part-\d+\.parquet)'", one) for one in copies]
    assert len(named) > 2
    assert [len(names) for names in named[:-1]] == [2] * (len(named) - 1)
    assert sorted(itertools.chain(*named)) == sorted(told["hcp"]["files"])
    assert sum(told["hcp"]["files"].values()) == 12_000
    assert warehouse.query("SELECT count(*), count(DISTINCT id) FROM PUBLIC.HCP") == [(12_000, 12_000)]


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
