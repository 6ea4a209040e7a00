"""The Snowflake warehouse keeps the contract, in an account that is stricter than the service where it has traps."""

import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ingestkit.errors import WarehouseError
from ingestkit.model import LoadMode
from ingestkit.ports import Copying, TargetColumn, Warehouse
from ingestkit.warehouses.snowflake import SPARING, SnowflakeWarehouse
from tests.contracts.snowflake import account, warehouse_of
from tests.contracts.warehouse import (
    LINEAGE,
    PERSON,
    PIPELINE,
    WITHOUT_WINDOW,
    WarehouseContract,
    fence,
    load,
    publication,
    quoted,
    ready,
    write_valid,
)
from tests.snowflake_server import SnowflakeServer

pytestmark = [pytest.mark.services, pytest.mark.slow]

server = account


class TestSnowflake(WarehouseContract):
    server: SnowflakeServer
    database: str

    @pytest.fixture(autouse=True)
    def _trusting(self, server: SnowflakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)

    @pytest.fixture
    def database_name(self, server: SnowflakeServer) -> str:
        self.server, self.database = server, server.database()
        return self.database

    @pytest.fixture
    def warehouse(self, tmp_path: Path, database_name: str) -> Warehouse:
        return warehouse_of(self.server, database_name, tmp_path / "one")

    @pytest.fixture
    def second(self, tmp_path: Path, database_name: str) -> Warehouse:
        return warehouse_of(self.server, database_name, tmp_path / "two")

    def wait_until_blocked(self) -> None:
        """Once the second session waits for a lock of the first one's."""
        with self.server.connect(self.database) as link, link.cursor() as cursor:
            for _ in range(200):
                cursor.execute("SHOW LOCKS IN ACCOUNT")
                if any("WAITING" in row for row in cursor.fetchall()):
                    return
                time.sleep(0.05)
        raise AssertionError("nobody waits")

    def qualified(self, table: str) -> str:
        return f'"PUBLIC".{quoted(table.upper())}'

    def column(self, name: str) -> str:
        return quoted(name.upper())

    def tree(self, text: str) -> str:
        """What Snowflake does not parse stays a text in a VARIANT: here an object that has a name twice."""
        return json.dumps(text)

    def test_two_models_are_published_side_by_side(
        self, warehouse: Warehouse, second: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One after the other: whoever raises a fence holds the table with those of the whole pipeline."""
        ready(warehouse, "hco", "hcp")
        files = (write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")]),)
        with ThreadPoolExecutor(2) as pool:
            ended = [
                pool.submit(by.publish, publication(load(files, model=model), token=token))
                for by, model, token in ((warehouse, "hcp", 2), (second, "hco", 1))
            ]
        assert [set(one.result()) for one in ended] == [{"hcp"}, {"hco"}]
        assert self.rows(warehouse) == self.rows(warehouse, "hco") == [("1", "x")]
        assert {model: one.token for model, one in warehouse.fences(PIPELINE).items()} == {"hco": 1, "hcp": 2}

    @pytest.mark.parametrize(("narrow", "wide", "value"), [("decimal(10,2)", "decimal(12,2)", Decimal("12345678.90"))])
    def test_a_column_is_widened_and_its_values_stay(
        self, warehouse: Warehouse, tmp_path: Path, narrow: str, wide: str, value: Any
    ) -> None:
        super().test_a_column_is_widened_and_its_values_stay(warehouse, tmp_path, narrow, wide, value)

    def test_digits_behind_the_point_are_not_added_since_snowflake_changes_none(self, warehouse: Warehouse) -> None:
        warehouse.check()
        warehouse.evolve("hcp", (TargetColumn("amount", "integer"),), LINEAGE)
        with pytest.raises(WarehouseError, match=r"hcp\.amount is NUMBER\(19,0\)"):
            warehouse.evolve("hcp", (TargetColumn("amount", "decimal(21,2)"),), LINEAGE)

    def test_files_are_of_the_size_and_sent_as_a_model_says(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready(warehouse, "hcp")
        # Texts that no compression makes smaller.
        rows = [(str(number), os.urandom(48).hex()) for number in range(60_000)]
        files = (write_valid(tmp_path / "a.parquet", PERSON, rows),)
        for number, (copying, several, parallel) in enumerate(
            [(Copying("1MB", 2), True, 2), (Copying("200MB", vectorized=True), False, 4)], 1
        ):
            before = len(self.server.sent)
            told: dict[str, Mapping[str, Any]] = {}
            work = publication(replace(load(files), copying=copying), batch=f"b{number}", token=number)
            warehouse.publish(replace(work, told=told.__setitem__))
            put, copy = (
                next(one.sql for one in self.server.sent[before:] if one.sql.startswith(kind))
                for kind in ("PUT", "COPY")
            )
            assert f"PARALLEL = {parallel} " in put
            assert ("USE_VECTORIZED_SCANNER = TRUE" in copy) is copying.vectorized
            assert copy.count(".parquet'") == len(told["hcp"]["files"])
            assert (len(told["hcp"]["files"]) > 2) is several
            assert len(self.rows(warehouse)) == 60_000

    def test_rows_too_wide_for_little_memory_take_what_is_allowed(self, warehouse: Warehouse, tmp_path: Path) -> None:
        assert isinstance(warehouse, SnowflakeWarehouse)
        ready(warehouse, "hcp")
        rows = [(str(number), os.urandom(20_000).hex()) for number in range(1_800)]
        work = publication(load((write_valid(tmp_path / "a.parquet", PERSON, rows),)))
        with pytest.raises(WarehouseError, match="Out of Memory"):
            replace(warehouse, memory_limit=SPARING).publish(work)
        replace(warehouse, memory_limit="600MiB").publish(work)
        assert len(self.rows(warehouse)) == 1_800

    @pytest.mark.parametrize("mode", WITHOUT_WINDOW)
    def test_json_is_parsed_where_snowflake_can_and_its_null_is_a_value(
        self, warehouse: Warehouse, tmp_path: Path, mode: LoadMode
    ) -> None:
        columns = (PERSON[0], TargetColumn("tree", "json"))
        warehouse.check()
        warehouse.fence((fence("hcp"),))
        warehouse.evolve("hcp", columns, LINEAGE)
        twice = '{"a": 1, "b": [{"c": 1, "c": 2}]}'
        rows = [("1", '{"a": {"b": 7}}'), ("2", "null"), ("3", None), ("4", twice), ("5", '"text"'), ("6", "[]")]
        file = write_valid(tmp_path / "a.parquet", columns, rows)
        warehouse.publish(publication(replace(load((file,), mode), columns=columns)))
        asked = f"SELECT id, tree, tree:a:b, tree IS NULL FROM {self.qualified('hcp')} ORDER BY id"
        assert warehouse.query(asked) == [
            ("1", '{"a":{"b":7}}', "7", False),
            ("2", "null", None, False),
            ("3", None, None, True),
            ("4", json.dumps(twice), None, False),
            ("5", '"text"', None, False),
            ("6", "[]", None, False),
        ]

    @pytest.mark.parametrize("mode", WITHOUT_WINDOW)
    def test_texts_that_a_reader_may_take_for_null_stay_texts(
        self, warehouse: Warehouse, tmp_path: Path, mode: LoadMode
    ) -> None:
        ready(warehouse, "hcp")
        rows = [("1", "\\N"), ("2", ""), ("3", " x "), ("4", "NULL"), ("5", None)]
        warehouse.publish(publication(load((write_valid(tmp_path / "a.parquet", PERSON, rows),), mode)))
        assert self.rows(warehouse) == rows
