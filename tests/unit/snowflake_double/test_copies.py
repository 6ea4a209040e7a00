"""A copy of a database holds what the other one held at that moment, and nothing of what happens there later."""

from contextlib import closing
from pathlib import Path

import pytest
from snowflake.connector import SnowflakeConnection

from tests.snowflake_server import SnowflakeServer, asked, error_code

pytestmark = [pytest.mark.services, pytest.mark.slow]

COPY = "COPY INTO people FROM @loads FILE_FORMAT = (TYPE = CSV)"


def test_a_copy_has_the_rows_types_views_stages_and_load_metadata_of_the_other(
    server: SnowflakeServer, database: str, link: SnowflakeConnection, tmp_path: Path
) -> None:
    file = tmp_path / "people.csv"
    file.write_text("1,ada,1815-12-10\n")
    asked(link, "CREATE STAGE loads")
    asked(link, f"PUT 'file://{file}' @loads AUTO_COMPRESS = FALSE")
    asked(link, COPY)
    asked(link, f"CREATE VIEW names AS SELECT name FROM {database}.PUBLIC.people")
    with closing(server.connect(server.copied(database))) as copy:
        assert asked(copy, "SELECT id, name FROM people") == [(1, "ada")]
        assert asked(copy, "SELECT name FROM names") == [("ada",)]
        assert error_code(copy, "INSERT INTO people SELECT 2, 'longer than ten', NULL") == 100_078
        # The file is there, and was loaded once.
        assert [row[0] for row in asked(copy, "LIST @loads")] == ["loads/people.csv"]
        assert "0 files" in asked(copy, COPY)[0][0]
        asked(link, "INSERT INTO people SELECT 2, 'grace', NULL")
        asked(copy, "DELETE FROM people")
        assert asked(link, "SELECT count(*) FROM people") == [(2,)]
        assert asked(copy, "SELECT count(*) FROM names") == [(0,)]


def test_a_copy_has_nothing_that_was_not_committed(
    server: SnowflakeServer, database: str, link: SnowflakeConnection
) -> None:
    asked(link, "BEGIN")
    asked(link, "INSERT INTO people SELECT 1, 'ada', NULL")
    with closing(server.connect(server.copied(database))) as copy:
        assert asked(copy, "SELECT count(*) FROM people") == [(0,)]
    asked(link, "ROLLBACK")
