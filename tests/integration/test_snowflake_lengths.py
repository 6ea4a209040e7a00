"""A contract's `max_length` on its way into a table of Snowflake's, as it grows and goes."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.at_snowflake import AtSnowflake, account, at_snowflake
from tests.snowflake_server import SnowflakeServer

pytestmark = [pytest.mark.services, pytest.mark.slow]

server = account


@pytest.fixture
def world(
    server: SnowflakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[AtSnowflake]:
    with at_snowflake(server, tmp_path, capsys, monkeypatch) as made:
        yield made


OF_ITS_ID = re.compile(
    r'^(?P<what>CREATE|ALTER) TABLE "D\w+"\."PUBLIC"\."(?P<table>[AB])" '
    r'.*?"ID" (?:SET DATA TYPE )?(?P<type>VARCHAR(?:\(\d+\))?)'
)


def delivered(world: AtSnowflake, number: int, most: int | None, *ids: str) -> list[tuple[str, ...]]:
    """A run of two models' files whose ids may have so many characters; what it makes of the columns' types."""
    said = {} if most is None else {f"models.{model}.columns.id.max_length": most for model in "ab"}
    world.set_up({"gate.max_reject_pct": 60, **said})
    before = len(world.server.sent)
    rows = "".join(f"{one},\n" for one in ids)
    world.drop({f"2026030{number}/a.csv": f"id,n\n{rows}", f"2026030{number}/b.csv": f"id,d\n{rows}"})
    world.does("run")
    return sorted(found.groups() for one in world.server.sent[before:] if (found := OF_ITS_ID.match(one.sql)))


def both(what: str, made: str) -> list[tuple[str, ...]]:
    return [(what, table, made) for table in "AB"]


def test_a_longest_text_of_the_contract_is_that_of_the_column_and_grows_with_it(world: AtSnowflake) -> None:
    assert delivered(world, 1, 5, "short", "longer") == both("CREATE", "VARCHAR(5)")
    assert world.table("a", "id") == [("short",)]
    assert delivered(world, 2, 6, "short", "longer") == both("ALTER", "VARCHAR(6)")
    assert world.table("a", "id") == world.table("b", "id") == [("longer",), ("short",)]
    assert delivered(world, 3, 5, "short", "longer") == []
    assert world.table("a", "id") == [("short",)]
    assert delivered(world, 4, None, "x" * 50) == both("ALTER", "VARCHAR")
    assert world.table("a", "id") == [("x" * 50,)]
