"""The PostgreSQL warehouse keeps the contract, as a role that has exactly the rights that sql/grants/ gives."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestkit.ports import Warehouse
from ingestkit.warehouses.postgresql import PostgresqlWarehouse
from tests.contracts.warehouse import ManyTables, WarehouseContract, quoted
from tests.services import PostgresServer, postgres
from tests.warehouses import postgresql_warehouse, warehouse_database

pytestmark = [pytest.mark.services, pytest.mark.slow]

NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres() as started:
        yield started


class TestPostgresql(ManyTables, WarehouseContract):
    case_matters = True
    server: PostgresServer
    database: str

    @pytest.fixture(params=["public", "My schema"])
    def schema(self, request: pytest.FixtureRequest, server: PostgresServer) -> str:
        self.server, self.schema_name = server, str(request.param)
        self.database = warehouse_database(server, f"contract{next(NUMBERS)}", self.schema_name)
        return self.schema_name

    @pytest.fixture
    def warehouse(self, tmp_path: Path, schema: str) -> Warehouse:
        return self.session(tmp_path)

    @pytest.fixture
    def second(self, tmp_path: Path, schema: str) -> Warehouse:
        return self.session(tmp_path)

    def session(self, folder: Path) -> PostgresqlWarehouse:
        return postgresql_warehouse(self.server, self.database, folder / "scratch", schema=self.schema_name)

    def wait_until_blocked(self) -> None:
        self.server.wait_for_a_lock(self.database)

    def qualified(self, table: str) -> str:
        return f"{quoted(self.schema_name)}.{quoted(table)}"
