"""Sources written for dbt, taken by a real one: their tests hold of what was published, and fail of what was not."""

import json
from typing import Any

import duckdb
import pytest

from tests import dbts
from tests.integration.world import FIRST, World

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(300)]
ODD = ["it's", "1.10", "0x1F", "a\\b", "100%", "True", "{{", "{%", "{#", "é", "1_000", "[1]", "'q'", " pad "]
COLUMNS: dict[str, Any] = {
    'the "id" {{': {"required": True, "unique": True, "references": "b.i d"},
    "kind": {"enum": ODD},
    "size": {"type": "integer", "enum": ["1", "2"]},
    "at": {"type": "timestamp"},
}


ROWS = "".join(f'{number},"{kind}",{number % 2 + 1},2026-11-01T00:00:00Z\n' for number, kind in enumerate(ODD))
GIVEN = {
    "20260101/a.csv": f'"the ""id"" {{{{",kind,size,at\n{ROWS}',
    "20260101/b.csv": "i d,d\n" + "".join(f"{number},2026-11-01\n" for number, _ in enumerate(ODD)),
}


@pytest.fixture
def odd(world: World) -> World:
    """Names and values that quotes, templates and literals of dbt would take for something else; published."""
    world.set_up(
        {
            "models.a": {
                "table": 'Odd "table {{',
                "key": ['the "id" {{'],
                "gate": {"freshness": {"column": "at", "max_age": "5000d"}},
                "columns": COLUMNS,
            },
            "models.b": {
                "load": "merge",
                "key": ["i d"],
                "gate": {"freshness": {"column": "d", "max_age": "5000d"}},
                "columns": {"i d": {}, "d": {"type": "date"}},
            },
        }
    )
    world.drop(GIVEN)
    world.does("run")
    folder = world.root / "dbt"
    dbts.project(folder, {"type": "duckdb", "path": str(world.root / "warehouse.duckdb")}, {})
    world.does("dbt", "sources", "p", "--out", str(folder / "models/sources.yml"))
    return world


def test_they_hold_of_what_was_published_whatever_its_names_are(odd: World) -> None:
    folder = odd.root / "dbt"
    told = dbts.dbt(folder, "parse")
    assert [one["info"]["msg"] for one in told if one["info"]["level"] != "info"] == []
    dbts.dbt(folder, "test")
    found = dbts.results(folder)
    assert set(found.values()) == {"pass"}
    kinds = [name.removeprefix("source_").split("_p_")[0] for name in found]
    assert sorted(kinds) == ["accepted_values"] * 2 + ["not_null"] * 2 + ["relationships"] + ["unique"] * 2
    dbts.dbt(folder, "source", "freshness")
    fresh = json.loads((folder / "target/sources.json").read_text())["results"]
    assert [one["status"] for one in fresh] == ["pass", "pass"]


def test_they_fail_of_what_breaks_the_contract(odd: World) -> None:
    with duckdb.connect(odd.root / "warehouse.duckdb") as db:
        table = '"Odd ""table {{"'
        db.execute(f"UPDATE {table} SET kind = 'none of them', size = 3 WHERE size = 1")
        db.execute(f"""UPDATE {table} SET "the ""id"" {{{{" = NULL WHERE "the ""id"" {{{{" = '1'""")
        db.execute(f"""UPDATE {table} SET "the ""id"" {{{{" = 'gone' WHERE "the ""id"" {{{{" IN ('2', '3')""")
    dbts.dbt(odd.root / "dbt", "test", code=1)
    found = dbts.results(odd.root / "dbt")
    failed = sorted(name.removeprefix("source_").split("_p_")[0] for name, status in found.items() if status == "fail")
    assert failed == ["accepted_values", "accepted_values", "not_null", "relationships", "unique"]
    assert set(found.values()) == {"pass", "fail"}


def test_a_committed_copy_is_kept_in_step(world: World) -> None:
    world.set_up({"dbt": {"project": "mart"}})
    path = world.root / "mart/models/p/sources.yml"
    assert "sources.yml is not there" in world.refused(3, "dbt", "sources", "p", "--check")
    world.does("dbt", "sources", "p")
    written = path.read_bytes()
    world.does("dbt", "sources", "p", "--check")
    world.set_up({"dbt": {"project": "mart"}, "models.a.columns.n.required": True})
    said = world.refused(3, "dbt", "sources", "p", "--check")
    assert "sources.yml is not as the contracts say\nhint: ingestkit dbt sources p" in said
    assert path.read_bytes() == written
    world.does("dbt", "sources", "p")
    assert path.read_bytes() != written
    world.does("dbt", "sources", "p", "--check")
    path.write_text("mine\n")
    assert "was not written by `ingestkit dbt sources`" in world.refused(2, "dbt", "sources", "p")
    assert path.read_text() == "mine\n"


def test_what_refers_to_nothing_is_refused(world: World) -> None:
    for said in ("b.nothing", "c.id"):
        world.set_up({"models.a.columns.n.references": said})
        assert f"models.a.columns.n.references: there is no column {said}" in world.refused(3, "dbt", "sources", "p")


def test_what_a_column_refers_to_makes_no_work(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    sidecars = world.root / "state/runs/p"
    before = json.loads((sidecars / "p.20260101.1/validate.a.json").read_text())["settings"]
    world.set_up({"models.a.columns.n.references": "b.id"})
    world.does("backfill", "p", "--batch", "20260101", "--from-lake")
    assert json.loads((sidecars / "p.20260101.2/validate.a.json").read_text())["settings"] == before
