"""Whole runs into PostgreSQL: every load mode, gates, a target lost and built again, links that break, readers."""

import itertools
import random
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.doubles.proxy import Faults, Proxy, proxied
from tests.integration.test_round_trip import COLUMNS, drawn, text
from tests.integration.world import FIRST, SECOND, THIRD, World, batches_of
from tests.services import PostgresServer, postgres
from tests.warehouses import LOADER, warehouse_database

pytestmark = [pytest.mark.services, pytest.mark.slow]

NUMBERS = itertools.count(1)
COMMIT = b"COMMIT\0"
RESTATED = {"20260101/b.csv": "id,d\nx,2026-03-01\nw,2026-03-02\n"}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres() as started:
        yield started


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[Proxy]:
    with proxied("127.0.0.1", server.port) as standing:
        yield standing


@pytest.fixture
def world(tmp_path: Path, capsys: pytest.CaptureFixture[str], server: PostgresServer) -> World:
    """The small project with its target in a database of a server."""
    name = warehouse_database(server, f"target{next(NUMBERS)}")
    made = World(tmp_path, capsys, target_url=server.url(name, LOADER))
    made.settle()
    made.set_up()
    (tmp_path / "drops").mkdir()
    return made


def settle_by(world: World, proxy: Proxy) -> None:
    world.settle({"connections.warehouse.port": proxy.port})


def tables(world: World) -> list[Any]:
    return [world.table("a", "id", "n", "_batch"), world.table("b", "id", "d", "_batch")]


def receipts(world: World) -> list[tuple[Any, ...]]:
    return world.table("ingestkit_receipt", "model", "batch", "generation")


@pytest.mark.parametrize("mode", ["replace", "append", "merge"])
def test_batches_become_tables(world: World, mode: str) -> None:
    world.set_up({"models.a.load": mode})
    world.drop(FIRST, SECOND, THIRD)
    assert batches_of(world.does("run")) == ["20260101", "20260108", "20260115"]
    every = [("1", 10), ("2", 20), ("1", 11), ("3", 30), ("1", 12), ("4", 40)]
    merged = [("1", 12), ("2", 20), ("3", 30), ("4", 40)]
    wanted = {"replace": [("1", 12), ("4", 40)], "append": sorted(every), "merge": merged}
    assert world.table("a", "id", "n") == wanted[mode]
    assert world.table("b", "id", "d") == [
        ("x", date(2026, 1, 15)),
        ("y", date(2026, 1, 2)),
        ("z", date(2026, 1, 9)),
    ]
    assert world.does("run")["results"] == []
    assert world.does("check")


def test_old_work_leaves_what_newer_batches_said(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    world.drop(RESTATED)
    world.does("run")
    assert world.table("b", "id", "_batch") == [
        ("w", "20260101"),
        ("x", "20260108"),
        ("y", "20260101"),
        ("z", "20260108"),
    ]
    world.does("backfill", "p", "--batch", "20260101", "--model", "b", "--from-lake")
    assert len(world.table("b", "id")) == 4


def test_windows_take_the_place_of_windows(world: World) -> None:
    day = {
        "folders": r"(?P<at>\d{4}-\d\d-\d\d)",
        "at": {"format": "%Y-%m-%d"},
        "window": "daily",
        "start": "2026-03-01",
    }
    columns = {"id": {"required": True}, "at": {"type": "timestamp"}}
    events = {"key": ["id"], "load": "window", "window_column": "at", "columns": columns}
    world.set_up({"source.batches": day, "models": {"a": events}})
    world.drop({"2026-03-01/a.csv": "id,at\n1,2026-03-01T00:00:00Z\n2,2026-03-01T23:59:59Z\n"})
    world.drop({"2026-03-02/a.csv": "id,at\n3,2026-03-02T00:00:00Z\n"})
    world.does("run", "--limit", "2")
    assert world.table("a", "id") == [("1",), ("2",), ("3",)]
    world.drop({"2026-03-01/a.csv": "id,at\n9,2026-03-01T12:00:00Z\n"})
    world.does("backfill", "p", "--batch", "20260301T000000Z")
    assert world.table("a", "id", '"at"')[-1] == ("9", datetime(2026, 3, 1, 12, tzinfo=UTC))
    assert world.table("a", "id") == [("3",), ("9",)]


def test_values_come_out_as_their_files_say(world: World) -> None:
    columns = {
        "id": {"required": True},
        "whole": {"type": "integer"},
        "exact": {"type": "decimal(38,10)"},
        "real": {"type": "float"},
        "truth": {"type": "boolean"},
        "day": {"type": "date"},
        "at": {"type": "timestamp"},
        "here": {"type": "local_timestamp"},
        "doc": {"type": "json"},
        "Word": {"type": "string"},
    }
    world.set_up({"models": {"v": {"load": "replace", "key": ["id"], "columns": columns}}})
    doc = '{""b"": [1.50, ""\\u0000""], ""a"": 1}'
    times = "0001-01-01,2026-01-01T00:00:00.000001+01:00,2026-01-01T02:03:04"
    line = f'1,-9223372036854775808,0.0000000001,1e-300,true,{times},"{doc}","é,\n""\\."\n'
    world.drop({"20260101/v.csv": f"{','.join(columns)}\n{line}2,,,,,,,,,\n"})
    world.does("run")
    shown = ", ".join(f'"{name}"' for name in columns)
    first, second = world.table("v", shown.replace('"doc"', "doc::text"))
    at = datetime(2025, 12, 31, 23, 0, 0, 1, tzinfo=UTC)
    assert first[1:8] == (
        -(2**63),
        Decimal("1e-10"),
        1e-300,
        True,
        date(1, 1, 1),
        at,
        datetime.fromisoformat("2026-01-01T02:03:04"),
    )
    assert first[8:] == (doc.replace('""', '"'), 'é,\n"\\.')
    assert second == ("2", *[None] * 9)


@pytest.mark.parametrize("load", ["replace", "append", "merge"])
def test_drawn_values_round_trip_exactly(world: World, load: str) -> None:
    lot = random.Random(load)
    key = {} if load == "append" else {"key": ["id"]}
    world.set_up({"models": {"v": {"load": load, "columns": COLUMNS, **key}}})
    drawn_rows = [drawn(lot, number) for number in range(400)]
    world.drop({"20260101/v.csv": text([written for written, _ in drawn_rows])})
    world.does("run")
    instant = '(extract(epoch FROM "at") * 1000000)::bigint'
    asked = f"id, whole, exact, money, real, truth, day, {instant}, here, doc::text, word"
    found = {row[0]: row for row in world.target(f"SELECT {asked} FROM v")}
    assert found == {wanted[0]: wanted for _, wanted in drawn_rows}


def test_a_nul_is_a_reject_before_it_meets_the_warehouse(world: World) -> None:
    world.drop(
        {"20260101/a.csv": b"id,n\n1,10\n2\0,20\n", "20260101/a_2.jsonl": b'{"id": "3\\u0000", "n": 1}\n{"id": "4"}\n'}
    )
    world.set_up({"models.a.files": r"a.*", "gate.max_reject_pct": 100})
    world.does("run", "--model", "a")
    assert world.table("a", "id") == [("1",), ("4",)]
    codes = {error["code"] for one in world.does("quarantine", "show")["rows"] for error in one["errors"]}
    assert codes == {"nul"}


def test_checks_of_ones_own_and_freshness_look_at_the_schema(world: World) -> None:
    folder = world.root / "sql/gate/p"
    folder.mkdir(parents=True)
    (folder / "late.sql").write_text("-- models: a\nSELECT id FROM a WHERE n > 100;\n")
    world.set_up({"models.b.gate": {"freshness": {"column": "d", "max_age": "52000w"}}})
    world.drop(FIRST)
    world.does("run")
    world.drop({"20260108/a.csv": "id,n\n1,101\n"})
    assert "late.sql" in world.refused(6, "run")
    assert world.does("plan")


def test_a_table_grows_with_its_contract_and_a_view_on_it_stays(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.target_does("CREATE VIEW seen AS SELECT id FROM a")
    world.set_up({"models.a.columns.extra": {}, "models.a.drift": "evolve"})
    world.drop({"20260108/a.csv": "id,n,extra,found\n1,11,x,y\n", "20260108/b.csv": SECOND["20260108/b.csv"]})
    world.does("run")
    assert world.target("SELECT id FROM seen") == [("1",)]
    assert world.table("a", "id", "n", "extra", "found") == [("1", 11, "x", "y")]


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("PERFORM nothing()", "function nothing() does not exist"),
        ("RAISE EXCEPTION 'not %', NEW.id", "a trigger or a function raised an error of its own"),
        ("RAISE EXCEPTION 'not %', NEW.id USING ERRCODE = '53100'", "a trigger or a function raised"),
        ("PERFORM NEW.id::integer", "a row does not fit"),
    ],
)
def test_no_row_is_told_by_what_the_server_says_of_it(world: World, does: str, said: str) -> None:
    world.set_up({"models.a.load": "append"})
    world.drop(FIRST)
    world.does("run")
    body = f"BEGIN {does}; RETURN NEW; END"
    world.target_does(f"CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")
    world.target_does("CREATE TRIGGER look BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION look()")
    world.drop(SECOND, {"20260108/a.csv": "id,n\ncell-of-a-customer,31415\n"})
    ended = world.call("run")
    assert ended.code == 7
    assert said in ended.told[0]
    assert "cell-of-a-customer" not in ended.err
    assert "31415" not in ended.err


def test_a_target_that_is_gone_is_built_again_from_the_lake(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    stood = tables(world)
    world.target_does("DROP TABLE a, b, ingestkit_fence, ingestkit_receipt")
    world.drop(THIRD)
    told = world.refused(7, "run")
    assert "ingestkit backfill p --from-lake" in told
    world.does("backfill", "p", "--from-lake")
    assert tables(world) == stood
    world.does("run")
    assert world.checkpoint() == "20260115"


def test_a_dropped_table_is_found_and_built_again(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    stood = tables(world)
    world.target_does("DROP TABLE b")
    world.drop(THIRD)
    assert "has no table b" in world.refused(7, "run")
    world.does("backfill", "p", "--from-lake")
    assert tables(world) == stood


def test_a_lost_state_is_read_back_and_becomes_the_owner(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    stood = tables(world)
    world.lose_state()
    world.drop(THIRD)
    assert "state adopt" in world.refused(7, "run")
    world.does("state", "adopt", "p", "--reason", "lost", "--yes")
    assert tables(world) == stood
    assert batches_of(world.does("run")) == ["20260115"]
    assert world.checkpoint() == "20260115"


def test_a_look_before_a_run_changes_nothing(world: World) -> None:
    world.drop(FIRST)
    planned = world.does("plan", "p")
    assert "CREATE TABLE" in str(planned)
    world.does("run", "--dry-run=data")
    assert world.target("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


@pytest.mark.parametrize("word", ["cut_before", "cut_after"])
def test_a_commit_lost_on_its_way_is_made_up_for_in_the_same_run(world: World, proxy: Proxy, word: str) -> None:
    settle_by(world, proxy)
    world.drop(FIRST)
    world.does("run")
    world.drop(SECOND)
    proxy.faults = Faults(once_seen=b"COPY ", times=1)
    setattr(proxy.faults, word, COMMIT)
    world.does("run")
    assert proxy.cuts == 1
    assert [row[1:] for row in receipts(world)] == [("20260101", 1), ("20260108", 1)] * 2
    assert world.table("a", "id", "n") == [("1", 11), ("3", 30)]
    assert world.checkpoint() == "20260108"


def test_a_server_that_is_not_there_is_told(world: World, proxy: Proxy) -> None:
    settle_by(world, proxy)
    world.drop(FIRST)
    proxy.faults.refuse = True
    assert "does not answer" in world.refused(7, "run")
    checked = world.call("check")
    assert checked.code == 7
    assert "does not answer" in checked.out
    proxy.faults.refuse = False
    world.does("run")


def test_an_open_reader_ends_a_replace_with_its_name_and_the_next_run_goes_on(
    world: World, server: PostgresServer
) -> None:
    world.settle({"connections.warehouse.lock_timeout": "300ms"})
    world.drop(FIRST)
    world.does("run")
    world.drop(SECOND)
    assert world.target_url is not None
    with psycopg.connect(server.url(world.target_url.rsplit("/", 1)[1]), application_name="a report") as reader:
        reader.execute("SELECT * FROM a")
        told = world.refused(8, "run")
        assert f"a by process {reader.info.backend_pid} (a report, user postgres" in told
        reader.rollback()
    world.does("run")
    assert world.table("a", "id", "n") == [("1", 11), ("3", 30)]


def test_a_snapshot_put_back_stands_until_the_newest_is_done_again(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    known = datetime.now(UTC).isoformat()
    world.does("backfill", "p", "--batch", "20260101", "--model", "a", "--as-of", known, "--reason", "x")
    assert world.table("a", "id", "n") == [("1", 10), ("2", 20)]
    (world.root / "drops/20260108/a.csv").touch()
    world.does("run")
    assert world.table("a", "id", "n") == [("1", 11), ("3", 30)]
    assert world.does("state", "show", "p")["pins"] == []
