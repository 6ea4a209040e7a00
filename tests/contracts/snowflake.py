"""A warehouse in an account of Snowflake's double, for the tests of what is Snowflake's own.

A module of tests takes what it needs by a name of its own: `server = account`.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ingestkit.pipeline import SystemClock
from ingestkit.settings import SnowflakeConnection
from ingestkit.warehouses.snowflake import SnowflakeWarehouse, opened
from ingestkit.warehouses.snowflake_detached import works_of
from tests.contracts.warehouse import fence, ready
from tests.snowflake_server import SnowflakeServer, asked, snowflake_server


@pytest.fixture(scope="module")
def account() -> Iterator[SnowflakeServer]:
    with snowflake_server() as started:
        yield started


@pytest.fixture
def empty(server: SnowflakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SnowflakeWarehouse:
    return in_a_new_database(server, tmp_path, monkeypatch)


@pytest.fixture
def with_a_table(server: SnowflakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SnowflakeWarehouse:
    made = in_a_new_database(server, tmp_path, monkeypatch)
    ready(made, "hcp")
    return made


def in_a_new_database(server: SnowflakeServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> SnowflakeWarehouse:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return warehouse_of(server, server.database(), folder)


def warehouse_of(server: SnowflakeServer, database: str, folder: Path, **more: Any) -> SnowflakeWarehouse:
    connection = SnowflakeConnection.model_validate(server.connection(database, **more))
    return opened(
        connection=connection,
        root=folder,
        memory_limit="300MiB",
        threads=2,
        clock=SystemClock(),
        scratch=folder / "scratch",
    )


@contextmanager
def left_open(server: SnowflakeServer, warehouse: SnowflakeWarehouse, token: int, change: str) -> Iterator[None]:
    """What a process that had this token has changed, and not committed: it died."""
    [work] = works_of(warehouse.account, [fence("hcp", token=token)])
    with closing(server.connect(warehouse.account.database)) as link:
        asked(link, f"BEGIN NAME {work.name}")
        asked(link, change)
        yield
