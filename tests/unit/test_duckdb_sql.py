"""Types and names as DuckDB is told of them."""

from pathlib import Path

import pytest

from ingestkit.warehouses import duckdb_sql as sql


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ("BIGINT", "BIGINT"),
        ("INTEGER", "BIGINT"),
        ("BIGINT", "DECIMAL(19,0)"),
        ("BIGINT", "DECIMAL(38,19)"),
        ("INTEGER", "DECIMAL(12,2)"),
        ("DECIMAL(10,2)", "DECIMAL(12,4)"),
        ("DECIMAL(10,2)", "DECIMAL(11,2)"),
        ("FLOAT", "DOUBLE"),
    ],
)
def test_a_wider_type_holds_every_value(found: str, wanted: str) -> None:
    assert sql.widens(found, wanted)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ("BIGINT", "INTEGER"),
        ("BIGINT", "DECIMAL(18,0)"),
        ("BIGINT", "DOUBLE"),
        ("DECIMAL(10,2)", "DECIMAL(10,4)"),
        ("DECIMAL(10,2)", "DECIMAL(12,1)"),
        ("DECIMAL(10,0)", "BIGINT"),
        ("DECIMAL(10,2)", "DOUBLE"),
        ("DOUBLE", "DECIMAL(38,10)"),
        ("VARCHAR", "DATE"),
        ("DATE", "TIMESTAMP"),
        ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE"),
    ],
)
def test_a_type_that_could_lose_a_value_is_not_wider(found: str, wanted: str) -> None:
    assert not sql.widens(found, wanted)


def test_a_decimal_is_written_as_duckdb_shows_it() -> None:
    assert sql.column_type("decimal(10, 2)") == "DECIMAL(10,2)"


def test_a_quote_in_a_name_is_doubled() -> None:
    assert sql.name("main", 'say "hi"') == '"main"."say ""hi"""'


def test_a_path_means_one_file_whatever_its_characters() -> None:
    assert sql.one_file(Path("/lake/[x]/it's*?.parquet")) == "'/lake/[[]x]/it''s[*][?].parquet'"
