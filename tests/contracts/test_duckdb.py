"""The DuckDB warehouse keeps the contract: two of its sessions in one process conflict, and the later begins again."""

import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingestkit.ports import Warehouse
from ingestkit.warehouses.duckdb import DuckdbWarehouse
from tests.contracts.warehouse import ManyTables, WarehouseContract, quoted


class TellingClock:
    """Real time; it tells when somebody begins to wait, and a wait ends early once asked."""

    def __init__(self) -> None:
        self.waiting = threading.Event()
        self._ended = threading.Event()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def elapsed(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        self.waiting.set()
        self._ended.wait(seconds)


class SilentProgress:
    def began(self, stage: str, model: str, total: int | None) -> None: ...

    def moved(self, stage: str, model: str, by: int) -> None: ...

    def ended(self, stage: str, model: str, status: str) -> None: ...

    def said(self, message: str, **facts: object) -> None: ...

    def warned(self, message: str, **facts: object) -> None: ...


class TestDuckdb(ManyTables, WarehouseContract):
    clock: TellingClock

    @pytest.fixture(params=["main", "My schema"])
    def schema(self, request: pytest.FixtureRequest) -> str:
        self.schema_name = str(request.param)
        return self.schema_name

    @pytest.fixture
    def warehouse(self, tmp_path: Path, schema: str) -> Warehouse:
        return self.session(tmp_path, schema)

    @pytest.fixture
    def second(self, tmp_path: Path, schema: str) -> Warehouse:
        self.clock = TellingClock()
        return self.session(tmp_path, schema, self.clock)

    def session(self, folder: Path, schema: str, clock: TellingClock | None = None) -> DuckdbWarehouse:
        path = folder / "data" / "warehouse.duckdb"
        scratch = folder / "scratch"
        return DuckdbWarehouse(path, schema, 30.0, "300MiB", 2, clock or TellingClock(), SilentProgress(), scratch)

    def wait_until_blocked(self) -> None:
        assert self.clock.waiting.wait(60)

    def qualified(self, table: str) -> str:
        return f"{quoted(self.schema_name)}.{quoted(table)}"
