"""dbt as a stage over PostgreSQL: a real one builds in the warehouse's server, and takes its statements back."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import dbts
from tests.integration.test_dbt import MINE, MODELS, MORE, TOTALS, left_of, rules
from tests.integration.world import FIRST, World, connection
from tests.services import PostgresServer, postgres
from tests.warehouses import LOADER, warehouse_database

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(300)]
NUMBERS = itertools.count(1)
SLOW = """{{ config(materialized='table') }}
select max(length(pg_sleep(600)::text)) as slept from {{ source('p', 'a') }}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres() as started:
        yield started


@pytest.fixture
def world(tmp_path: Path, capsys: pytest.CaptureFixture[str], server: PostgresServer) -> World:
    name = warehouse_database(server, f"dbt{next(NUMBERS)}")
    made = World(tmp_path, capsys, target_url=server.url(name, LOADER))
    made.settle()
    (tmp_path / "drops").mkdir()
    return made


def built_by_dbt(world: World, said: dict[str, object] | None = None, **models: str) -> None:
    assert world.target_url is not None
    at = connection(world.target_url)
    there = {
        "type": "postgres",
        "host": at["host"],
        "port": at["port"],
        "user": at["user"],
        "password": "{{ env_var('DBT_PW') }}",
    }
    sources = MODELS["sources.yml"].replace("schema: main", "schema: public")
    files = MODELS | {"sources.yml": sources} | {f"{name}.sql": text for name, text in models.items()}
    dbts.project(world.root / "dbt", {**there, "dbname": at["database"], "schema": "public"}, files)
    # What profiles read of the environment may stand beside the project.
    (world.root / "config.env").write_text("DBT_PW=none\n")
    world.set_up({"dbt": {"program": dbts.program(), **(said or {})}, "retry.attempts": 1})


def test_a_run_is_built_on_and_judged(world: World) -> None:
    built_by_dbt(world)
    world.drop(FIRST)
    world.does("run")
    assert world.target("SELECT n FROM totals") == [(2,)]
    assert set(rules(world, "p.20260101.1")) == {"at_most_two", "not_null_totals_n"}
    # The sources that are written for it are taken, and hold.
    (world.root / "dbt/models/sources.yml").unlink()
    world.does("dbt", "sources", "p", "--out", str(world.root / "dbt/models/sources.yml"))
    world.drop(MORE)
    assert "a: at_most_two is 1 where 0 is the limit" in world.refused(6, "run")
    assert world.checkpoint() == "20260101"
    assert rules(world, "p.20260108.1")["source_unique_p_a__id_"] == ("a", 0, 0, True)
    world.does("approve", "p.20260108.1", *MINE)
    world.does("run")
    assert world.checkpoint() == "20260108"


def test_what_it_asked_of_the_server_ends_with_it(world: World, server: PostgresServer) -> None:
    built_by_dbt(world, {"timeout": "15s"}, slow=SLOW)
    world.drop(FIRST)
    said = world.refused(7, "run")
    assert "dbt of * ran longer than its time-out of 15 s" in said
    assert left_of(world.root) == []
    mine = "query LIKE '%pg_sleep(600)%' AND pid != pg_backend_pid()"
    assert server.does(f"SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND {mine}").strip() == "0"
    (world.root / "dbt/models/slow.sql").write_text(TOTALS)
    built_by_dbt(world)
    world.does("run")


def test_what_cannot_be_built_is_told_without_a_value(world: World) -> None:
    bad = "{{ config(materialized='table') }}\nselect cast(id as date) as d from {{ source('p', 'b') }}"
    built_by_dbt(world, bad=bad)
    world.drop({"20260101/a.csv": "id,n\n1,1\n", "20260101/b.csv": "id,d\nsecret-cell,2026-01-01\n"})
    ended = world.call("run")
    assert ended.code == 3, ended.err
    assert "error: dbt could not build 1 of 4 nodes: model bad: Database Error" in ended.err
    assert "secret-cell" not in ended.err
    built_by_dbt(world, bad="select * from nowhere")
    assert 'model bad: relation "nowhere" does not exist' in world.refused(3, "run")


def test_a_server_that_does_not_answer_is_no_setting(world: World) -> None:
    built_by_dbt(world)
    profile = world.root / "dbt/profiles.yml"
    profile.write_text(profile.read_text().replace("port: ", "port: 1 #"))
    world.drop(FIRST)
    assert "connection to server" in world.refused(7, "run")
