"""The small project with its target in a Snowflake account, which gives up on what does not answer within seconds."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.integration.world import World
from tests.snowflake_server import Sent, SnowflakeServer, asked, snowflake_server


@dataclass(frozen=True, slots=True)
class AtSnowflake(World):
    server: SnowflakeServer = field(kw_only=True)
    account_database: str = field(kw_only=True)
    begun: int = field(kw_only=True)
    """How many statements others had sent before."""

    def settle(self, changes: Mapping[str, Any] | None = None) -> None:
        World.settle(self, {"connections.warehouse": self.connection, **(changes or {})})

    @property
    def connection(self) -> dict[str, Any]:
        seconds = {"login_timeout": "3s", "network_timeout": "2s", "answer_timeout": "2s", "lock_timeout": "4s"}
        return self.server.connection(self.account_database, **seconds)

    def target(self, query: str) -> list[tuple[Any, ...]]:
        with self.server.connect(self.account_database) as link:
            return asked(link, query)

    def target_does(self, statement: str) -> None:
        self.target(statement)

    def waits(self, number: int) -> None:
        """Drop the files of a batch, of which each model has two records."""
        batch, day = f"202602{number:02}", f"2026-02-{number:02}"
        a, b = f"id,n\n1,{number}\n2,{number}\n", f"id,d\nx,{day}\n{number},{day}\n"
        self.drop({f"{batch}/a.csv": a, f"{batch}/b.csv": b})

    def has(self, *numbers: int) -> None:
        """The target holds just these batches, each row once, and a receipt of each model's."""
        batches, newest = [f"202602{number:02}" for number in numbers], numbers[-1]
        assert self.table("a", "id", "n", "_batch") == [(one, newest, batches[-1]) for one in "12"]
        merged = [*((str(number), batch) for number, batch in zip(numbers, batches, strict=True)), ("x", batches[-1])]
        assert self.table("b", "id", "_batch") == sorted(merged)
        receipts = self.table("ingestkit_receipt_p", "model", "batch")
        assert receipts == [(model, batch) for model in "ab" for batch in batches], receipts

    @property
    def sent(self) -> list[Sent]:
        """What was sent for runs."""
        return [one for one in self.server.sent[self.begun :] if one.tag.startswith("ingestkit p.")]


@pytest.fixture(scope="module")
def account() -> Iterator[SnowflakeServer]:
    """A module of tests takes it as `server = account`, and what follows as `world`."""
    with snowflake_server() as started:
        yield started


@pytest.fixture
def loaded_once(
    server: SnowflakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[AtSnowflake]:
    """With one batch published and another waiting."""
    with at_snowflake(server, tmp_path, capsys, monkeypatch) as made:
        made.waits(1)
        made.does("run")
        made.waits(2)
        yield made


@contextmanager
def at_snowflake(
    server: SnowflakeServer, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[AtSnowflake]:
    """A project in a database of its own; afterwards every transaction in which something failed was rolled back."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    # Before a client's own time-out ends, as the service does.
    server.holds_answers(1)
    (root / "drops").mkdir()
    world = AtSnowflake(root, capsys, server=server, account_database=server.database(), begun=len(server.sent))
    world.settle()
    world.set_up()
    try:
        yield world
    finally:
        server.heals()
    assert committed_after_failure(server.sent[world.begun :]) == []


def committed_after_failure(sent: list[Sent]) -> list[Sent]:
    """Each COMMIT of a transaction in which a statement had failed that was not sent again with success."""
    by_session: dict[int, list[Sent]] = defaultdict(list)
    for one in sent:
        by_session[one.session].append(one)
    found = []
    for session in by_session.values():
        failed: set[str] = set()
        for one in session:
            if one.sql.startswith(("BEGIN", "ROLLBACK")):
                failed = set()
            if one.sql == "COMMIT" and failed - {one.request}:
                found.append(one)
            if one.outcome in {"done", "lost"}:
                failed.discard(one.request)
            else:
                failed.add(one.request)
    return found
