"""What an account or a user has set for all of its sessions and tables changes nothing of what is published."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from ingestkit.model import LoadMode
from ingestkit.ports import Bounds
from ingestkit.warehouses import snowflake_sql as sql
from ingestkit.warehouses.snowflake import SnowflakeWarehouse
from tests.contracts.snowflake import warehouse_of
from tests.contracts.warehouse import PERSON, VISIT, load, publication, ready, ready_for_visits, visits, write_valid
from tests.snowflake_server import SnowflakeServer, answered, snowflake_server

pytestmark = [pytest.mark.services, pytest.mark.slow]


@pytest.fixture(scope="module")
def started() -> Iterator[SnowflakeServer]:
    with snowflake_server() as made:
        yield made


@pytest.fixture
def server(started: SnowflakeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[SnowflakeServer]:
    for name, value in started.environment.items():
        monkeypatch.setenv(name, value)
    yield started
    started.heals()


@pytest.fixture
def warehouse(server: SnowflakeServer, tmp_path: Path) -> SnowflakeWarehouse:
    return warehouse_of(server, server.database(), tmp_path, names="exact")


def days(column: str, month: int, day: int) -> Bounds:
    """One day, between instants or by the date itself."""
    if column == "on":
        return Bounds("on", date(2026, month, day), date(2026, month, day + 1))
    begin = datetime(2026, month, day, tzinfo=UTC)
    return Bounds("at", begin, begin + timedelta(days=1))


@pytest.mark.parametrize("column", ["at", "on"])
def test_a_window_takes_its_own_days_away_where_days_stand_before_months(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, column: str, tmp_path: Path
) -> None:
    server.sets(date_input_format="YYYY-DD-MM", timestamp_input_format='YYYY-DD-MM"T"HH24:MI:SSTZH:TZM')
    ready_for_visits(warehouse)
    for number, (month, day) in enumerate([(1, 3), (3, 1), (3, 1)], 1):
        row = (f"{number}", datetime(2026, month, day, 12, tzinfo=UTC), date(2026, month, day))
        file = write_valid(tmp_path / f"{number}.parquet", VISIT, [row])
        bounds = days(column, month, day)
        warehouse.publish(publication(visits((file,), bounds, number), batch=f"b{number}", token=number))
    # The third took the place of the second.
    assert warehouse.query('SELECT "id" FROM PUBLIC."visit" ORDER BY 1') == [("1",), ("3",)]


def test_names_are_told_apart_by_case_where_quoted_ones_are_not(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, tmp_path: Path
) -> None:
    server.sets(quoted_identifiers_ignore_case=True)
    ready(warehouse, "hcp")
    warehouse.publish(publication(load((write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")]),))))
    server.heals()
    with closing(server.connect(warehouse.account.database)) as link:
        found = {row["name"] for row in answered(link, "SHOW TABLES")}
    assert found == {"hcp", "ingestkit_fence_opendata", "ingestkit_receipt_opendata"}


def test_keys_are_told_apart_by_case_where_an_account_compares_without(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, tmp_path: Path
) -> None:
    server.sets(default_ddl_collation="en-ci")
    ready(warehouse, "hcp")
    for number, row in enumerate([("a", "x"), ("A", "y")], 1):
        file = write_valid(tmp_path / f"{number}.parquet", PERSON, [row])
        warehouse.publish(publication(load((file,), LoadMode.MERGE), batch=f"b{number}", token=number))
    assert sorted(warehouse.query('SELECT "id", "city" FROM PUBLIC."hcp"')) == [("A", "y"), ("a", "x")]


def test_a_column_that_compares_texts_by_rules_of_its_own_is_refused() -> None:
    """As DESCRIBE writes it."""
    found = "VARCHAR(16777216) COLLATE 'en-ci'"
    assert not sql.serves(found, "VARCHAR")
    assert not sql.widens(found, "VARCHAR")
    assert sql.unmade(found, "VARCHAR").startswith("it compares texts by rules of its own")


def test_an_account_of_the_double_compares_as_it_is_set(server: SnowflakeServer) -> None:
    server.sets(default_ddl_collation="en-ci", date_input_format="YYYY-DD-MM", quoted_identifiers_ignore_case=True)
    with closing(server.connect(server.database())) as link:
        answered(link, 'CREATE TABLE "told" (a VARCHAR, d DATE)')
        answered(link, "INSERT INTO TOLD SELECT 'x', '2026-03-01'::DATE")
        assert answered(link, "SELECT d FROM told WHERE a = 'X'") == [{"D": date(2026, 1, 3)}]
        answered(link, "CREATE TABLE plain (a VARCHAR) DEFAULT_DDL_COLLATION = ''")
        answered(link, "INSERT INTO plain SELECT 'x'")
        assert answered(link, "SELECT a FROM plain WHERE a = 'X'") == []
