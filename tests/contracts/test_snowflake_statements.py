"""Every statement that is sent to Snowflake, compared with a list that was read; and how many a publish takes."""

import re
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ingestkit.errors import WarehouseError
from ingestkit.model import LoadMode
from ingestkit.pipeline import SystemClock
from ingestkit.ports import Load, Publication, Rejects, RunEvent, Said, TargetColumn
from ingestkit.warehouses.snowflake import SnowflakeWarehouse
from ingestkit.warehouses.snowflake_runs import SnowflakeRuns
from tests.contracts.snowflake import account, empty, left_open, warehouse_of
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
    write_rejects,
    write_valid,
)
from tests.snowflake_server import DRIVE, LINE_CUT, Sent, SnowflakeServer, asked, made_by, refused

pytestmark = [pytest.mark.services, pytest.mark.slow]

server, warehouse = account, empty

LISTS = Path(__file__).with_name("statements")
MODELS = ("a", "b", "c", "d", "e")


def sent(server: SnowflakeServer, warehouse: SnowflakeWarehouse, work: Callable[[], object]) -> list[Sent]:
    """All that arrives meanwhile, without what differs from one time to the next."""
    before = len(server.sent)
    work()
    differing = (
        (warehouse.account.database, "DATABASE"),
        (r"file://[^']*/stage-[0-9a-f]{12}", "file://HERE"),
        (r"(?<=\.)[0-9a-f]{12}(?=/)", "OWN"),
        (r"(?<=NAME INGESTKIT_)[0-9A-F]{8}(?=_[0-9]+_)", "WHOSE"),
        (r"(?<=^DESCRIBE TRANSACTION )\d+", "NUMBER"),
        (r"(?<=ABORT_TRANSACTION\()\d+", "NUMBER"),
    )
    shown = []
    for one in server.sent[before:]:
        text = one.sql
        for pattern, name in differing:
            text = re.sub(pattern, name, text)
        shown.append(replace(one, sql=text))
    return shown


def published(server: SnowflakeServer, warehouse: SnowflakeWarehouse, work: Publication) -> list[str]:
    """The statements of a publish, each of which says whose it is."""
    found = [one for one in sent(server, warehouse, lambda: warehouse.publish(work)) if one.tag]
    assert {one.tag for one in found} == {f"ingestkit {work.run_id}"}
    return [one.sql for one in found]


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
    found = published(server, warehouse, publication(work))
    assert "\n".join(found) + "\n" == (LISTS / f"{mode.value}.sql").read_text()


def test_rejects_send_the_statements_that_were_read(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, tmp_path: Path
) -> None:
    work = rejecting(loaded(LoadMode.REPLACE, tmp_path), tmp_path)
    ready(warehouse, "hcp")
    warehouse.evolve("hcp__rejects", Rejects("").columns, LINEAGE)
    told: dict[str, Any] = {}
    found = published(server, warehouse, replace(publication(work), told=told.__setitem__))
    assert "\n".join(found) + "\n" == (LISTS / "rejects.sql").read_text()
    assert len(told["hcp"]["queries"]) == 2


def test_a_full_file_under_newer_changes_sends_the_statements_that_were_read(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, tmp_path: Path
) -> None:
    ready(warehouse, "hcp")
    work, told = under_changes(tmp_path), dict[str, Any]()
    found = published(server, warehouse, replace(publication(work), told=told.__setitem__))
    assert "\n".join(found) + "\n" == (LISTS / "under_changes.sql").read_text()
    assert len(told["hcp"]["queries"]) == 2


def rejecting(work: Load, tmp_path: Path) -> Load:
    found = write_rejects(tmp_path / "r.parquet", [(3, b"3,x", ["type"])])
    return replace(work, rejects=Rejects(f"{work.table}__rejects", (found,)))


def under_changes(tmp_path: Path) -> Load:
    changes = write_valid(tmp_path / "c.parquet", PERSON, [("2", "y")])
    return replace(loaded(LoadMode.REPLACE, tmp_path), newer=Said((changes,)))


@pytest.mark.parametrize("again", [False, True])
def test_tables_of_rejects_and_of_keys_that_stay_take_three_statements_each(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, tmp_path: Path, again: bool
) -> None:
    ready(warehouse, "hcp")
    warehouse.evolve("hcp__rejects", Rejects("").columns, LINEAGE)
    work = rejecting(under_changes(tmp_path), tmp_path)
    if again:
        warehouse.publish(publication(work))
        work = replace(work, intent=replace(work.intent, generation=2))
    found = sent(server, warehouse, lambda: warehouse.publish(publication(work)))
    assert len(found) <= 8 + 6 + 3 + 3, "\n".join(one.sql for one in found)


@pytest.mark.parametrize("mode", list(LoadMode))
def test_a_publish_of_several_models_takes_at_most_eight_round_trips_and_six_for_each(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, mode: LoadMode, tmp_path: Path
) -> None:
    warehouse.check()
    warehouse.fence(tuple(fence(model) for model in MODELS))
    loads = []
    for model in MODELS:
        made = replace(loaded(mode, tmp_path), table=model)
        warehouse.evolve(model, made.columns, LINEAGE)
        loads.append(replace(made, intent=replace(made.intent, model=model)))
    work = publication(*loads)
    found = sent(server, warehouse, lambda: warehouse.publish(work))
    most = 8 + 6 * len(MODELS)
    assert len({one.request for one in found}) <= len(found) <= most, "\n".join(one.sql for one in found)


Asked = Callable[[SnowflakeWarehouse], object]
TALLER = (*PERSON, TargetColumn("height", "decimal(10,2)"))
WIDER = (*PERSON, TargetColumn("height", "decimal(12,2)"))
MODES = {"hcp": [LoadMode.REPLACE]}
# One after the other, in a database that has nothing yet.
BESIDE: dict[str, Asked] = {
    "check of an empty schema": lambda warehouse: warehouse.check(),
    "check": lambda warehouse: warehouse.check(),
    "fences where there are none": lambda warehouse: warehouse.fences("opendata"),
    "receipts where there are none": lambda warehouse: warehouse.receipts("opendata"),
    "planned": lambda warehouse: warehouse.planned("hcp", PERSON, LINEAGE),
    "remarks": lambda warehouse: warehouse.remarks("opendata", MODES),
    "missing": lambda warehouse: warehouse.missing(("hcp", "hco")),
    "owner of a table": lambda warehouse: warehouse.table_owner("hcp"),
    "first fence": lambda warehouse: warehouse.fence((fence("hcp"),)),
    "fence of another model": lambda warehouse: warehouse.fence((fence("hcp"), fence("hco"))),
    "fence adopted": lambda warehouse: warehouse.fence((fence("hcp", token=3),), adopt=True),
    "fences": lambda warehouse: warehouse.fences("opendata"),
    "table made": lambda warehouse: warehouse.evolve("hcp", PERSON, LINEAGE),
    "table as it is": lambda warehouse: warehouse.evolve("hcp", PERSON, LINEAGE),
    "column added": lambda warehouse: warehouse.evolve("hcp", TALLER, LINEAGE, mine=fence("hcp", token=3)),
    "column widened": lambda warehouse: warehouse.evolve("hcp", WIDER, LINEAGE, mine=fence("hcp", token=3)),
    "remarks of a table": lambda warehouse: warehouse.remarks("opendata", MODES),
    "receipts": lambda warehouse: warehouse.receipts("opendata"),
    "receipts removed": lambda warehouse: warehouse.void(fence("hcp", token=3)),
    "newest": lambda warehouse: warehouse.newest("hcp", "height"),
    "asked by a person": lambda warehouse: warehouse.query("SELECT count(*) FROM hcp"),
}


def test_all_that_is_sent_beside_a_publish_was_read(server: SnowflakeServer, warehouse: SnowflakeWarehouse) -> None:
    told = [listed(name, sent(server, warehouse, partial(work, warehouse))) for name, work in BESIDE.items()]
    assert "\n".join(told) == (LISTS / "beside.sql").read_text()


def test_all_that_is_sent_where_something_is_in_the_way_was_read(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, tmp_path: Path
) -> None:
    impatient = warehouse_of(server, warehouse.account.database, tmp_path, lock_timeout="4s")
    ready(impatient, "hcp")
    one = loaded(LoadMode.REPLACE, tmp_path)
    held = partial(left_open, server, warehouse, 1)

    def behind_the_dead() -> None:
        with held("UPDATE ingestkit_fence_opendata SET token = token"):
            impatient.publish(publication(one))

    def table_held_by_the_dead() -> None:
        with held("DELETE FROM hcp"):
            impatient.evolve("hcp", TALLER, LINEAGE, mine=fence("hcp", token=1))

    def not_taken() -> None:
        server.breaks(refused(3001, "42501", "Insufficient privileges"), "^COPY INTO")
        with pytest.raises(WarehouseError):
            impatient.publish(publication(one, batch="b2"))

    def answer_lost() -> None:
        server.breaks(LINE_CUT, "^COMMIT")
        with suppress(WarehouseError):
            impatient.publish(publication(one, batch="b3"))

    works = {
        "publish behind a transaction of a dead process": behind_the_dead,
        "column added behind one": table_held_by_the_dead,
        "rows that are not taken": not_taken,
        "line cut at COMMIT": answer_lost,
    }
    told = [listed(name, sent(server, impatient, work)) for name, work in works.items()]
    assert "\n".join(told) == (LISTS / "troubled.sql").read_text()


def test_all_that_is_sent_to_show_runs_was_read(server: SnowflakeServer, warehouse: SnowflakeWarehouse) -> None:
    with closing(server.connect(warehouse.account.database)) as made:
        made_by(partial(asked, made), DRIVE, database=warehouse.account.database, schema="PUBLIC", role=server.role)
    runs = SnowflakeRuns(warehouse.account, SystemClock())
    event = RunEvent("e1", "opendata.b1.1", 1, datetime(2026, 1, 4, tzinfo=UTC), {"status": "OPEN", "models": ["hcp"]})
    works: dict[str, Callable[[], object]] = {
        "check": runs.check,
        "an event added": lambda: runs.add_missing("opendata", {"e1"}, lambda _: [event]),
        "nothing to add": lambda: runs.add_missing("opendata", {"e1"}, lambda _: []),
    }
    told = [listed(name, sent(server, warehouse, work)) for name, work in works.items()]
    assert "\n".join(told) == (LISTS / "runs.sql").read_text()


def listed(name: str, found: list[Sent]) -> str:
    return "\n".join([f"-- {name}", *(one.sql for one in found), ""])
