"""The page of dbt: its settings are read, and its commands typed, with a real one."""

import duckdb
import pytest

from tests import dbts
from tests.docs.pages import below, page, table, typed_below
from tests.docs.shop import Project

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(300)]
PAGE = page("docs/dbt.md")
DAILY = """{{ config(materialized='table', tags=['daily']) }}
select count(*) as n, '{{ var("country") }}' as country from {{ source('shop', 'customers') }}
"""


@pytest.fixture
def mart(shop: Project) -> Project:
    """The example as the page continues it; the project of dbt that it speaks of is there."""
    [block] = [one.text for one in below(PAGE, "The stage") if one.language == "yaml"]
    said = block.replace("/opt/dbt/bin/dbt", dbts.program())
    shop.corrects("pipeline: shop", f"pipeline: shop\n{said}")
    file = {"type": "duckdb", "path": str(shop.root / "state/warehouse.duckdb")}
    dbts.project(shop.root / "mart", file, {"daily.sql": DAILY}, target="prod")
    return shop


def test_sources_are_written_and_compared(mart: Project) -> None:
    write, check = typed_below(PAGE, "Sources")
    mart.refused(check, 3)
    mart.does(write, check)
    text = (mart.root / "mart/models/shop/sources.yml").read_text()
    assert [row[1].split("`")[1] for row in table(PAGE, "contract")][:2] == ["not_null", "unique"]
    assert "- not_null\n      - unique\n" in text
    mart.corrects("      since: {type: date}", "      since: {type: date, required: true}")
    mart.refused(check, 3)


def test_the_stage_is_called_between_load_and_gate(mart: Project) -> None:
    write, _ = typed_below(PAGE, "Sources")
    *stages, gate = typed_below(PAGE, "The stage")
    mart.does(write)
    mart.drop("2026-01-05")
    mart.does(*stages[:-1])
    mart.refused(gate, 2)
    mart.does(stages[-1])
    with duckdb.connect(str(mart.root / "state/warehouse.duckdb"), read_only=True) as db:
        assert db.execute("SELECT n, country FROM daily").fetchall() == [(2, "DE")]
    mart.does(gate)
