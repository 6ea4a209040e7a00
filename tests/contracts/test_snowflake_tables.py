"""Tables that others have set something on: what logs errors, what streams look at, what has been made narrower."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ingestkit.errors import WarehouseError
from ingestkit.model import LoadMode
from ingestkit.ports import Bounds, TargetColumn
from ingestkit.warehouses import snowflake_tables
from ingestkit.warehouses.snowflake import SnowflakeWarehouse
from ingestkit.warehouses.snowflake_session import Account
from tests.contracts.snowflake import account, warehouse_of, with_a_table
from tests.contracts.warehouse import LINEAGE as COLUMNS
from tests.contracts.warehouse import PERSON, fence, load, publication, ready, write_valid
from tests.snowflake_server import SnowflakeServer, answered, asked, refused

pytestmark = [pytest.mark.services, pytest.mark.slow]

server, warehouse = account, with_a_table

LONG = "x" * 30
LINEAGE = "_batch VARCHAR, _run_id VARCHAR, _source_file VARCHAR, _record_no NUMBER(19,0)"


def does(server: SnowflakeServer, warehouse: SnowflakeWarehouse, *statements: str) -> None:
    with closing(server.connect(warehouse.account.database)) as link:
        for one in statements:
            asked(link, one)


def people(warehouse: SnowflakeWarehouse) -> list[tuple[Any, ...]]:
    return sorted(warehouse.query("SELECT id, city FROM PUBLIC.HCP"))


@pytest.mark.parametrize("mode", [LoadMode.REPLACE, LoadMode.APPEND, LoadMode.MERGE])
def test_a_table_that_logs_errors_lets_no_row_be_left_out(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, mode: LoadMode, tmp_path: Path
) -> None:
    does(
        server, warehouse, 'ALTER TABLE hcp ADD COLUMN "NARROW" VARCHAR(10)', "ALTER TABLE hcp SET ERROR_LOGGING = TRUE"
    )
    columns = (*PERSON, replace(PERSON[0], name="narrow"))
    warehouse.publish(
        publication(
            replace(load((write_valid(tmp_path / "a.parquet", columns, [("1", "x", "y")]),), mode), columns=columns)
        )
    )
    more = write_valid(tmp_path / "b.parquet", columns, [("1", "z", "y"), ("2", "z", LONG)])
    with pytest.raises(WarehouseError, match=r"NARROW does not take a value of record 2 of drop/b\.csv"):
        warehouse.publish(publication(replace(load((more,), mode), columns=columns), batch="b2", token=2))
    assert people(warehouse) == [("1", "x")]


def test_rows_that_a_merge_leaves_out_all_the_same_are_missed(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where an account does not let a session opt out."""
    settled = Account._settled

    def without(account: Account, tag: str) -> Mapping[str, Any]:
        return settled(account, tag) | {"OPT_OUT_ERROR_LOGGING": False}

    monkeypatch.setattr(Account, "_settled", without)
    does(
        server, warehouse, 'ALTER TABLE hcp ADD COLUMN "NARROW" VARCHAR(10)', "ALTER TABLE hcp SET ERROR_LOGGING = TRUE"
    )
    columns = (*PERSON, replace(PERSON[0], name="narrow"))
    file = write_valid(tmp_path / "b.parquet", columns, [("1", "z", "y"), ("2", "z", LONG)])
    with pytest.raises(WarehouseError, match="of 2 rows to merge into hcp, 1 were written; nothing was published"):
        warehouse.publish(publication(replace(load((file,), LoadMode.MERGE), columns=columns)))
    assert people(warehouse) == []


def test_tables_that_log_errors_and_streams_are_named(server: SnowflakeServer, warehouse: SnowflakeWarehouse) -> None:
    ready(warehouse, "hco")
    assert (
        warehouse.remarks("opendata", {"hcp": [LoadMode.REPLACE], "hco": [LoadMode.MERGE], "none": [LoadMode.REPLACE]})
        == ()
    )
    does(server, warehouse, "ALTER TABLE hco SET ERROR_LOGGING = TRUE")
    place = f"{warehouse.account.database}.PUBLIC"
    for stream, table in (("CHANGES", "HCP"), ("OTHERS", "HCO")):
        server.streams(stream, f"{place}.{table}")
    server.streams("ELSEWHERE", "D0.PUBLIC.HCP")
    errors, *streams = warehouse.remarks("opendata", {"hcp": [LoadMode.REPLACE], "hco": [LoadMode.MERGE]})
    assert errors.startswith("table hco logs errors")
    assert [one.partition(":")[0] for one in streams] == [
        "stream CHANGES is on table hcp, which loads replace",
        "stream OTHERS is on table hco, which each load merges into",
    ]


@pytest.mark.parametrize("mode", list(LoadMode))
def test_a_stream_is_named_with_what_it_shows_of_each_mode(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, mode: LoadMode
) -> None:
    server.streams("CHANGES", f"{warehouse.account.database}.PUBLIC.HCP")
    [told] = warehouse.remarks("opendata", {"hcp": [mode]})
    assert told == f"stream CHANGES is on table hcp, {snowflake_tables.SEEN_BY_STREAMS[mode]}"


def test_streams_are_looked_for_nearer_where_an_account_has_more_than_are_shown_at_once(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the account has more than three, and the database has not."""
    server.streams("NEAR", f"{warehouse.account.database}.PUBLIC.HCP")
    for name in ("ONE", "TWO", "THREE"):
        server.streams(name, "D0.PUBLIC.HCP")
    monkeypatch.setattr(snowflake_tables, "MOST", 3)
    before = len(server.sent)
    [stream] = warehouse.remarks("opendata", {"hcp": [LoadMode.REPLACE]})
    assert stream.startswith("stream NEAR is on table hcp")
    shown = [one.sql.split(" IN ")[1] for one in server.sent[before:] if one.sql.startswith("SHOW STREAMS")]
    assert shown == ["ACCOUNT", f'DATABASE "{warehouse.account.database}"']


def test_more_tables_than_are_shown_at_once_are_asked_for_by_name(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ready(warehouse, "hco")
    does(server, warehouse, "CREATE TABLE hcp_2 (id VARCHAR)", "ALTER TABLE hcp SET ERROR_LOGGING = TRUE")
    monkeypatch.setattr(snowflake_tables, "MOST", 1)
    [errors] = warehouse.remarks("opendata", {"hcp": [LoadMode.REPLACE], "hco": [LoadMode.MERGE]})
    assert errors.startswith("table hcp logs errors")
    with warehouse.account.session() as connection:
        assert snowflake_tables.missing(warehouse.account, connection, ["hcp", "hcpx2", "none"]) == {"hcpx2", "none"}
    assert any(one.sql.startswith("SHOW TABLES LIKE 'HCPX2'") for one in server.sent)


def narrowed(server: SnowflakeServer, warehouse: SnowflakeWarehouse) -> None:
    """As somebody does it beside us."""
    does(
        server,
        warehouse,
        f"CREATE OR REPLACE TABLE hcp (id VARCHAR, city VARCHAR(10), amount NUMBER(6,2), {LINEAGE})",
    )


AMOUNT = (*PERSON, TargetColumn("amount", "decimal(10,2)"))


@pytest.mark.parametrize("mode", [LoadMode.REPLACE, LoadMode.APPEND, LoadMode.MERGE])
@pytest.mark.parametrize(
    ("column", "misfit"),
    [("CITY", ("3", "it's " + LONG, Decimal("1.00"))), ("AMOUNT", ("3", "x", Decimal("12345678.90")))],
)
def test_a_value_that_a_table_does_not_take_is_named_by_file_record_and_column(
    server: SnowflakeServer,
    warehouse: SnowflakeWarehouse,
    mode: LoadMode,
    column: str,
    misfit: tuple[Any, ...],
    tmp_path: Path,
) -> None:
    narrowed(server, warehouse)
    good = write_valid(tmp_path / "a.parquet", AMOUNT, [("1", "x", Decimal("0.10"))])
    bad = write_valid(tmp_path / "b.parquet", AMOUNT, [("2", "x", None), misfit], file_id="f2")
    meant = replace(load((good, bad), mode), columns=AMOUNT)
    with pytest.raises(WarehouseError) as caught:
        warehouse.publish(publication(meant))
    error = caught.value
    assert f"table hcp: {column} does not take a value of record 2 of drop/b.csv: " in error.message
    assert "nothing was published" in error.message
    for value in misfit[1:]:
        assert len(str(value)) < 5 or str(value) not in f"{error.message} {error.details}"
    known = dict(error.details)
    query = known.pop("query")
    last = next(one for one in reversed(server.sent) if one.query == query)
    assert last.sql.startswith("MERGE" if mode is LoadMode.MERGE else "COPY")
    assert known.pop("message")
    # DESCRIBE would commit what is open.
    assert [one.sql.partition(" ")[0] for one in server.sent if one.outcome == "done"][-3:-1] == [
        "ROLLBACK",
        "DESCRIBE",
    ]
    # Rows are staged in no order.
    assert known.pop("staged_row") in (1, 2, 3)
    assert known == {
        "table": "hcp",
        "file": "drop/b.csv",
        "record": 2,
        "column": column,
        "staged_file": "part-0.parquet",
    }
    assert people(warehouse) == []


def test_a_column_that_must_not_be_null_there_is_named(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, tmp_path: Path
) -> None:
    does(
        server,
        warehouse,
        f"CREATE OR REPLACE TABLE hcp (id VARCHAR, city VARCHAR NOT NULL, {LINEAGE})",
    )
    file = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x"), ("2", None)])
    for mode in (LoadMode.REPLACE, LoadMode.MERGE):
        with pytest.raises(WarehouseError, match=r"CITY does not take a value of record 2 of drop/a\.csv"):
            warehouse.publish(publication(load((file,), mode)))


def test_a_refused_value_that_is_not_found_is_told_by_its_staged_file(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, tmp_path: Path
) -> None:
    """As where a table asks what DESCRIBE does not tell of."""
    file = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")])
    said = "Not 'x' here\n  File 'opendata/hcp/r1/part-0.parquet', line 0, character 1\n  Row 0, column 1"
    server.breaks(refused(100_038, "22018", said), "^COPY")
    with pytest.raises(
        WarehouseError,
        match=r"table hcp: a column does not take a value of opendata/hcp/r1/part-0\.parquet: Not … here \(",
    ) as told:
        warehouse.publish(publication(load((file,), LoadMode.APPEND)))
    assert told.value.details["table"] == "hcp"
    assert told.value.details["staged_file"] == "opendata/hcp/r1/part-0.parquet"
    assert told.value.details["staged_row"] is None
    assert people(warehouse) == []


def test_the_ids_of_what_wrote_the_rows_are_told(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, tmp_path: Path
) -> None:
    file = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")])
    for number, (mode, kinds) in enumerate({LoadMode.APPEND: ["COPY"], LoadMode.MERGE: ["COPY", "MERGE"]}.items(), 1):
        told: dict[str, Mapping[str, Any]] = {}
        work = publication(load((file,), mode), batch=f"b{number}", token=number)
        warehouse.publish(replace(work, told=told.__setitem__))
        by_id = {one.query: one.sql.partition(" ")[0] for one in server.sent}
        assert [by_id[one] for one in told["hcp"]["queries"]] == kinds


@pytest.fixture(params=["", "bundle_2024_08"])
def described(server: SnowflakeServer, request: pytest.FixtureRequest) -> Iterator[None]:
    """Of a type that somebody has given no length, DESCRIBE may tell it or not, by what an account has enabled."""
    if request.param:
        server.sets(**{request.param: "enabled"})
    yield
    server.heals()


@pytest.mark.usefixtures("described")
@pytest.mark.parametrize(
    ("has", "wanted", "made"),
    [
        ("VARCHAR(10)", "string", "VARCHAR"),
        ("VARCHAR(16777215)", "string", "VARCHAR"),
        ("VARCHAR", "string", None),
        ("VARCHAR(134217728)", "string", None),
        ("NUMBER(10,0)", "integer", "NUMBER(19,0)"),
        ("INTEGER", "integer", None),
        ("NUMBER(10,2)", "decimal(12,2)", "NUMBER(12,2)"),
        ("NUMBER(12,2)", "decimal(12, 2)", None),
        ("TIMESTAMP_TZ", "timestamp", None),
        ("TIMESTAMP_NTZ", "local_timestamp", None),
        ("VARIANT", "json", None),
    ],
)
def test_a_column_that_somebody_made_serves_or_is_widened(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, has: str, wanted: str, made: str | None
) -> None:
    does(server, warehouse, f"CREATE OR REPLACE TABLE hcp (id VARCHAR, what {has}, {LINEAGE})")
    columns = (PERSON[0], TargetColumn("what", wanted))
    planned = warehouse.planned("hcp", columns, COLUMNS)
    assert [one.rpartition(" ALTER COLUMN ")[2] for one in planned] == (
        [f'"WHAT" SET DATA TYPE {made}'] if made else []
    )
    assert warehouse.evolve("hcp", columns, COLUMNS) == planned
    assert warehouse.evolve("hcp", columns, COLUMNS) == ()


@pytest.mark.parametrize(
    ("has", "wanted", "why"),
    [
        ("NUMBER(10,2)", "decimal(12,4)", "Snowflake never changes how many digits stand behind the point"),
        ("NUMBER(12,0)", "decimal(14,2)", "Snowflake never changes how many digits stand behind the point"),
        ("NUMBER(12,2)", "decimal(10,2)", "values that are there may have more digits"),
        ("NUMBER(12,0)", "string", "Snowflake makes no type of another"),
        ("VARCHAR", "json", "Snowflake makes no type of another"),
        ("TIMESTAMP_NTZ", "timestamp", "Snowflake makes no type of another"),
        ("DATE", "timestamp", "Snowflake makes no type of another"),
    ],
)
def test_what_snowflake_does_not_widen_is_refused_in_one_line(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, has: str, wanted: str, why: str
) -> None:
    does(server, warehouse, f"CREATE OR REPLACE TABLE hcp (id VARCHAR, what {has}, {LINEAGE})")
    with pytest.raises(WarehouseError) as caught:
        warehouse.evolve("hcp", (PERSON[0], TargetColumn("what", wanted)), COLUMNS)
    assert caught.value.message.startswith("hcp.what is ")
    assert caught.value.message.endswith(f" by the contract: {why}")
    assert "ALTER TABLE" in (caught.value.hint or "")
    assert "\n" not in caught.value.message


ODD = (
    TargetColumn("Id", "string"),
    TargetColumn("340B_eligible__v", "boolean"),
    TargetColumn("No. of Beds", "integer"),
    TargetColumn("At", "timestamp"),
)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("names", ["upper", "exact"])
def test_names_are_spelled_as_the_connection_says_in_every_mode(
    server: SnowflakeServer, names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    spelled = str.upper if names == "upper" else str
    own = warehouse_of(server, server.database(), tmp_path, names=names)
    own.check()
    own.fence((fence("hcp", table="Eligible People"),))
    for columns in (ODD[:3], ODD):
        own.evolve("Eligible People", columns, COLUMNS)
    rows = [("1", True, 7, NOON), ("2", None, -1, NOON)]
    file = write_valid(tmp_path / "a.parquet", ODD, rows)
    for number, mode in enumerate((LoadMode.REPLACE, LoadMode.APPEND, LoadMode.MERGE, LoadMode.WINDOW), 1):
        work = replace(load((file,), mode, generation=number), columns=ODD, table="Eligible People", key=("Id",))
        bounds = Bounds("At", NOON, NOON + timedelta(hours=1))
        own.publish(publication(replace(work, bounds=bounds if mode is LoadMode.WINDOW else None)))
        shown = ", ".join(f'"{spelled(one.name)}"' for one in ODD)
        assert sorted(own.query(f'SELECT {shown} FROM PUBLIC."{spelled("Eligible People")}"')) == rows
    with closing(server.connect(own.account.database)) as link:
        found = [row["name"] for row in answered(link, "SHOW TABLES")]
        assert spelled("Eligible People") in found
        assert spelled("ingestkit_receipt_opendata") in found
        described = answered(link, f'DESCRIBE TABLE "{spelled("Eligible People")}"')
        assert [row["name"] for row in described[:3]] == [spelled(one.name) for one in ODD[:3]]
    assert own.newest("Eligible People", "At") == NOON
    assert own.missing(("Eligible People", "other")) == {"other"}
    assert own.table_owner("Eligible People") == ("opendata", "hcp")
    assert own.table_owner("ELIGIBLE people") == (("opendata", "hcp") if names == "upper" else None)
    assert {one.generation for one in own.receipts("opendata")} == {4}


def test_a_name_that_is_too_long_is_told_before_anything_is_made(warehouse: SnowflakeWarehouse) -> None:
    """As a header may have one."""
    fits, long = "ß" * 127, "ß" * 128
    assert warehouse.evolve("hcp", (*PERSON, TargetColumn(fits, "string")), COLUMNS)
    with pytest.raises(WarehouseError, match=r"^hcp: 'ß+' is longer than the 255 characters of a name in Snowflake"):
        warehouse.planned("hcp", (*PERSON, TargetColumn(long, "string")), COLUMNS)
