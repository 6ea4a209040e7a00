"""The double's tables that log errors: rows that do not fit are left out, but for sessions that opt out."""

from collections.abc import Callable

from snowflake.connector import SnowflakeConnection

from tests.snowflake_server import answered, asked, error_code

INSERT = "INSERT INTO people (id, name) SELECT column1, column2 FROM VALUES (1, 'Ada'), (2, 'longer than ten')"
MERGE = """
    MERGE INTO people USING (SELECT column1 AS id, column2 AS name FROM VALUES (1, 'Eva'), (2, 'longer than ten'),
        (NULL, 'Bea'), (4, 'Ida')) AS said ON people.id = said.id
    WHEN MATCHED THEN UPDATE SET name = said.name
    WHEN NOT MATCHED THEN INSERT (id, name) VALUES (said.id, said.name)
"""


def test_a_row_that_does_not_fit_is_left_out_and_the_statement_succeeds(link: SnowflakeConnection) -> None:
    assert error_code(link, INSERT) == 100_078
    asked(link, "ALTER TABLE people SET ERROR_LOGGING = TRUE")
    assert asked(link, INSERT) == [(1,)]
    assert answered(link, MERGE) == [{"number of rows inserted": 1, "number of rows updated": 1}]
    assert asked(link, "SELECT id, name FROM people ORDER BY id") == [(1, "Eva"), (4, "Ida")]


def test_a_session_that_opts_out_is_told_of_it(
    link: SnowflakeConnection, connect: Callable[..., SnowflakeConnection]
) -> None:
    asked(link, "ALTER TABLE people SET ERROR_LOGGING = TRUE")
    other = connect(session_parameters={"OPT_OUT_ERROR_LOGGING": True})
    assert error_code(other, INSERT) == 100_078
    assert error_code(other, MERGE) == 100_072
    assert asked(link, "SELECT id, name FROM people") == []
