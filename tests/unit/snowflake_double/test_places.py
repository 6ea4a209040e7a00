"""What is not there is not shown as empty, names have an end, and what deletes rows needs the right to."""

import pytest
from snowflake.connector import SnowflakeConnection

from tests.snowflake_server import SnowflakeServer, asked, error_code

pytestmark = [pytest.mark.services, pytest.mark.slow]

MERGE = "MERGE INTO people t USING (SELECT 1 AS id) s ON t.id = s.id WHEN MATCHED THEN {}"


@pytest.mark.parametrize("what", ["TABLES", "TABLES LIKE '%'", "STAGES", "STAGES LIKE 'STAGE'"])
def test_nothing_is_shown_of_a_schema_that_is_not_there(link: SnowflakeConnection, database: str, what: str) -> None:
    assert asked(link, f"SHOW {what} IN SCHEMA {database}.PUBLIC")
    for place in (f"{database}.NONE", f'"{database}"."public"', "NODB.PUBLIC"):
        assert error_code(link, f"SHOW {what} IN SCHEMA {place}") == 2043


def test_a_name_has_an_end(link: SnowflakeConnection) -> None:
    asked(link, f'CREATE TABLE {"t" * 255} ("{"c" * 255}" NUMBER)')
    for said in (
        f"CREATE TABLE {'t' * 256} (id NUMBER)",
        f'CREATE TABLE other ("{"c" * 256}" NUMBER)',
        f"ALTER TABLE people ADD COLUMN {'c' * 256} NUMBER",
        f"CREATE STAGE {'s' * 256}",
    ):
        assert error_code(link, said) == 1007


def test_a_merge_that_deletes_needs_the_right_to(
    server: SnowflakeServer, link: SnowflakeConnection, database: str
) -> None:
    asked(link, MERGE.format("DELETE"))
    server.takes("DELETE", "TABLE", f"{database}.PUBLIC.PEOPLE")
    assert error_code(link, MERGE.format("DELETE")) == 3001
    asked(link, MERGE.format("UPDATE SET name = 'deleted'"))
