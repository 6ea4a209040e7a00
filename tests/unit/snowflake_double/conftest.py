"""One account for all, and a database in it for each test."""

import contextlib
from collections.abc import Callable, Iterator

import pytest
from snowflake.connector import SnowflakeConnection

from tests.snowflake_server import SnowflakeServer, asked, snowflake_server


@pytest.fixture(scope="session")
def shared() -> Iterator[SnowflakeServer]:
    with snowflake_server() as started:
        yield started


@pytest.fixture
def server(shared: SnowflakeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[SnowflakeServer]:
    for name, value in shared.environment.items():
        monkeypatch.setenv(name, value)
    yield shared
    shared.heals()


@pytest.fixture
def database(server: SnowflakeServer) -> str:
    return server.database()


@pytest.fixture
def connect(server: SnowflakeServer, database: str) -> Iterator[Callable[..., SnowflakeConnection]]:
    with contextlib.ExitStack() as opened:
        yield lambda **more: opened.enter_context(contextlib.closing(server.connect(database, **more)))


@pytest.fixture
def link(connect: Callable[..., SnowflakeConnection]) -> SnowflakeConnection:
    made = connect()
    asked(made, "CREATE TABLE people (id NUMBER(18,0) NOT NULL PRIMARY KEY, name VARCHAR(10), born DATE)")
    asked(made, "CREATE TEMPORARY STAGE stage")
    return made
