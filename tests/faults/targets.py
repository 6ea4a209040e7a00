"""Where the target of a small project may lie, for who breaks the project and for who looks at it from outside."""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from unittest.mock import patch

import duckdb
import psycopg

from tests.faults.lakes import Objects
from tests.services import PostgresServer
from tests.snowflake_server import SnowflakeServer, asked
from tests.warehouses import LOADER

TARGET_VARIABLE = "FAULTS_TARGET"

Ask = Callable[[str], list[tuple[Any, ...]]]


class Target(Protocol):
    """A target that lies on a server; a copy of a world has another one there, which the environment names."""

    @property
    def place(self) -> str:
        """What the variable of its settings says."""
        ...

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process must find to reach it."""
        ...

    @property
    def receipts(self) -> str:
        """The table that the pipeline's receipts are in."""
        ...

    @property
    def runs(self) -> str | None:
        """The query of all runs as they are shown there, with their status; None where they are not."""
        ...

    def settings(self) -> str: ...

    def copied(self, objects: Objects | None) -> "Target":
        """The same elsewhere, for a world whose lake lies in these."""
        ...

    def opened(self) -> AbstractContextManager[Ask]: ...


@dataclass(frozen=True, slots=True)
class Shared:
    """A state, or a target, in a server's database."""

    server: PostgresServer
    place: str
    environment: Mapping[str, str] = field(default_factory=dict)
    receipts: str = "ingestkit_receipt"
    runs: str | None = None

    @property
    def url(self) -> str:
        return self.server.url(self.place)

    def settings(self) -> str:
        place = f"host: 127.0.0.1, port: {self.server.port}, database: '${{env:{TARGET_VARIABLE}}}', user: {LOADER}"
        return f"{{type: postgresql, {place}, lock_timeout: 10s}}"

    def copied(self, objects: Objects | None = None) -> "Shared":
        del objects
        copy = replace(self, place=f"copy_{secrets.token_hex(8)}")
        self.server.does(f"CREATE DATABASE {copy.place} TEMPLATE {self.place}")
        self.server.copies.append(copy.place)
        return copy

    @contextmanager
    def opened(self) -> Iterator[Ask]:
        with psycopg.connect(self.url) as link:
            yield lambda query: link.execute(query.encode()).fetchall()


@dataclass(frozen=True, slots=True)
class InSnowflake:
    """A target in an account's database."""

    server: SnowflakeServer
    place: str
    receipts: str = "ingestkit_receipt_opendata"
    runs: str | None = "SELECT run_id, status FROM ingestkit_run"
    stage: str | None = None
    """An external one on the lake, where rows go through that."""

    @property
    def environment(self) -> Mapping[str, str]:
        return self.server.environment

    def settings(self) -> str:
        said = {
            "account": self.server.account,
            "user": self.server.user,
            "role": self.server.role,
            "warehouse": self.server.warehouse,
            "database": f"'${{env:{TARGET_VARIABLE}}}'",
            "private_key": self.server.private_key,
            "endpoint": f"'{self.server.protocol}://{self.server.host}:{self.server.port}'",
            "lock_timeout": "30s",
            "mirror_runs": "true",
            **({} if self.stage is None else {"stage": self.stage}),
        }
        return f"{{type: snowflake, {', '.join(f'{name}: {value}' for name, value in said.items())}}}"

    def copied(self, objects: Objects | None) -> "InSnowflake":
        copy = replace(self, place=self.server.copied(self.place))
        if objects is not None:
            copy.shows(objects)
        return copy

    def shows(self, objects: Objects) -> None:
        """Have the stage show the lake."""
        if self.stage is not None:
            with self.opened() as ask:
                ask(f"CREATE OR REPLACE STAGE {self.stage} URL = '{objects.location}' STORAGE_INTEGRATION = LAKE")

    @contextmanager
    def opened(self) -> Iterator[Ask]:
        with patch.dict(os.environ, self.environment), closing(self.server.connect(self.place)) as link:
            yield lambda query: asked(link, query)


@contextmanager
def in_a_file(warehouse: Path) -> Iterator[Ask]:
    with duckdb.connect(str(warehouse), read_only=True) as file:
        yield lambda query: file.execute(query).fetchall()
