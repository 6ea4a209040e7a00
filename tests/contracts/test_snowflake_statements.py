"""Every statement that a publish sends to Snowflake, compared with a list that was read; and how many there are."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from ingestkit.model import LoadMode
from ingestkit.ports import Load, Publication
from ingestkit.warehouses.snowflake import SnowflakeWarehouse
from tests.contracts.snowflake import account, empty
from tests.contracts.warehouse import (
    FIRST_DAY,
    LINEAGE,
    PERSON,
    VISIT,
    fence,
    hours,
    load,
    publication,
    ready,
    visits,
    write_valid,
)
from tests.snowflake_server import SnowflakeServer

pytestmark = [pytest.mark.services, pytest.mark.slow]

server, warehouse = account, empty

LISTS = Path(__file__).with_name("statements")
MODELS = ("a", "b", "c", "d", "e")


def sent(server: SnowflakeServer, warehouse: SnowflakeWarehouse, work: Publication) -> list[str]:
    """The statements of a publish, without what differs from one to the next."""
    before = len(server.sent)
    warehouse.publish(work)
    found = [one for one in server.sent[before:] if one.tag]
    assert {one.tag for one in found} == {f"ingestkit {work.run_id}"}
    differing = (
        (warehouse.account.database, "DATABASE"),
        (r"file://[^']*/stage-[0-9a-f]{12}", "file://HERE"),
        (r"(?<=\.)[0-9a-f]{12}(?=/)", "OWN"),
        (r"(?<=NAME INGESTKIT_)[0-9A-F]{8}(?=_1_)", "WHOSE"),
        (r"(?<=^DESCRIBE TRANSACTION )\d+", "NUMBER"),
    )
    shown = []
    for one in found:
        text = one.sql
        for pattern, name in differing:
            text = re.sub(pattern, name, text)
        shown.append(text)
    return shown


def loaded(mode: LoadMode, tmp_path: Path) -> Load:
    if mode is LoadMode.WINDOW:
        return visits((write_valid(tmp_path / "v.parquet", VISIT, hours(1, 2)),), FIRST_DAY)
    made = load((write_valid(tmp_path / "p.parquet", PERSON, [("1", "x"), ("2", "gone")]),), mode)
    return replace(made, deletes={"city": ("gone",)}) if mode is LoadMode.MERGE else made


@pytest.mark.parametrize("mode", list(LoadMode))
def test_each_mode_sends_the_statements_that_were_read(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, mode: LoadMode, tmp_path: Path
) -> None:
    work = loaded(mode, tmp_path)
    ready(warehouse, work.intent.model)
    warehouse.evolve(work.table, work.columns, LINEAGE)
    found = sent(server, warehouse, publication(work))
    assert "\n".join(found) + "\n" == (LISTS / f"{mode.value}.sql").read_text()


@pytest.mark.parametrize("mode", [LoadMode.REPLACE, LoadMode.APPEND, LoadMode.MERGE])
def test_a_publish_of_several_models_takes_at_most_eight_statements_and_six_for_each(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, mode: LoadMode, tmp_path: Path
) -> None:
    warehouse.check()
    warehouse.fence(tuple(fence(model) for model in MODELS))
    loads = []
    for model in MODELS:
        warehouse.evolve(model, PERSON, LINEAGE)
        loads.append(load((write_valid(tmp_path / f"{model}.parquet", PERSON, [("1", "x")]),), mode, model=model))
    found = sent(server, warehouse, publication(*loads))
    assert len(found) <= 8 + 6 * len(MODELS), "\n".join(found)
