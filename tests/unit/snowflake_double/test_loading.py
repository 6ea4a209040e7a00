"""PUT and COPY, and how they succeed without having done anything."""

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from snowflake.connector import SnowflakeConnection
from snowflake.connector.errors import ProgrammingError

from tests.object_stores import S3Server, azurite, s3
from tests.snowflake_server import SnowflakeServer, answered, asked, delayed, error_code

pytestmark = [pytest.mark.services, pytest.mark.slow]

PARQUET = "FILE_FORMAT = (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE) MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE"
Rows = list[tuple[Any, ...]]
NOTHING = [("Copy executed with 0 files processed.",)]
NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def put(link: SnowflakeConnection, file: Path, more: str = "") -> dict[str, Any]:
    (row,) = answered(link, f"PUT 'file://{file}' @stage/run/ AUTO_COMPRESS = FALSE {more}")
    return row


def parquet(folder: Path, file: str = "part.parquet", /, **columns: list[Any]) -> Path:
    pq.write_table(pa.table(columns or {"id": [1, 2], "name": ["Ada", "Bo"]}), folder / file)
    return folder / file


def copy(
    link: SnowflakeConnection, more: str = "FILES = ('part.parquet')", options: str = PARQUET
) -> list[tuple[Any, ...]]:
    return asked(link, f"COPY INTO people FROM @stage/run/ {more} {options}")


def test_a_file_that_is_there_is_skipped_unless_it_shall_be_overwritten(
    link: SnowflakeConnection, tmp_path: Path
) -> None:
    first = put(link, parquet(tmp_path))
    assert first == {
        "source": "part.parquet",
        "target": "part.parquet",
        "source_size": first["source_size"],
        "target_size": first["source_size"],
        "source_compression": "PARQUET",
        "target_compression": "PARQUET",
        "status": "UPLOADED",
        "message": "",
    }
    parquet(tmp_path, id=[7])
    assert put(link, tmp_path / "part.parquet")["status"] == "SKIPPED"
    copy(link)
    assert asked(link, "SELECT count(*) FROM people") == [(2,)]
    assert put(link, tmp_path / "part.parquet", "OVERWRITE = TRUE")["status"] == "UPLOADED"
    copy(link)
    assert asked(link, "SELECT count(*) FROM people") == [(3,)]


def test_many_files_are_put_by_one_statement_and_some_at_once(
    server: SnowflakeServer, link: SnowflakeConnection, tmp_path: Path
) -> None:
    for number in range(6):
        parquet(tmp_path, f"part-{number}.parquet", id=[number])
    before, uploaded = len(server.sent), len(server.uploads)
    server.breaks(delayed(0.2), "UPLOAD", times=None)
    found = answered(link, f"PUT 'file://{tmp_path}/part-*.parquet' @stage/run/ AUTO_COMPRESS = FALSE PARALLEL = 4")
    assert [row["status"] for row in found] == ["UPLOADED"] * 6
    assert len(server.sent) == before + 1
    assert max(server.uploads[uploaded:]) > 1
    assert [row["name"] for row in answered(link, "LIST @stage/run/")] == [
        f"stage/run/part-{number}.parquet" for number in range(6)
    ]
    asked(link, "REMOVE @stage/run/part-0")
    assert len(asked(link, "LIST @stage")) == 5


def test_a_temporary_stage_goes_with_its_session_and_is_seen_by_no_other(
    link: SnowflakeConnection, connect: Callable[..., SnowflakeConnection], tmp_path: Path
) -> None:
    put(link, parquet(tmp_path))
    other = connect()
    assert error_code(other, "LIST @stage") == 2003
    link.close()
    assert error_code(other, "LIST @stage") == 2003


def test_the_rows_of_a_copy_say_what_became_of_each_file(link: SnowflakeConnection, tmp_path: Path) -> None:
    put(link, parquet(tmp_path))
    assert answered(link, f"COPY INTO people FROM @stage/run/ FILES = ('part.parquet') {PARQUET}") == [
        {
            "file": "stage/run/part.parquet",
            "status": "LOADED",
            "rows_parsed": 2,
            "rows_loaded": 2,
            "error_limit": 1,
            "errors_seen": 0,
            "first_error": None,
            "first_error_line": None,
            "first_error_character": None,
            "first_error_column_name": None,
        }
    ]
    assert asked(link, "SELECT id, name, born FROM people ORDER BY id") == [(1, "Ada", None), (2, "Bo", None)]


def test_a_file_that_was_loaded_is_skipped_until_the_table_is_truncated(
    link: SnowflakeConnection, tmp_path: Path
) -> None:
    put(link, parquet(tmp_path))
    copy(link)
    assert copy(link) == NOTHING
    asked(link, "DELETE FROM people")
    assert copy(link) == NOTHING
    assert asked(link, "SELECT count(*) FROM people") == [(0,)]
    assert copy(link, "FILES = ('part.parquet') FORCE = TRUE")[0][1] == "LOADED"
    asked(link, "TRUNCATE TABLE people")
    assert copy(link)[0][1] == "LOADED"
    # Another content of the name is another file.
    put(link, parquet(tmp_path, id=[9]), "OVERWRITE = TRUE")
    assert copy(link)[0][3] == 1


def test_a_rollback_takes_back_truncate_and_copy_with_what_they_remember(
    link: SnowflakeConnection, tmp_path: Path
) -> None:
    put(link, parquet(tmp_path))
    copy(link)
    asked(link, "BEGIN")
    asked(link, "TRUNCATE TABLE people")
    assert copy(link)[0][1] == "LOADED"
    asked(link, "ROLLBACK")
    assert asked(link, "SELECT count(*) FROM people") == [(2,)]
    assert copy(link) == NOTHING
    asked(link, "CREATE OR REPLACE TABLE people (id NUMBER, name VARCHAR)")
    asked(link, "BEGIN")
    copy(link)
    asked(link, "ROLLBACK")
    assert copy(link)[0][1] == "LOADED"


def test_a_copy_of_nothing_succeeds_and_a_named_file_that_is_missing_fails(
    link: SnowflakeConnection, tmp_path: Path
) -> None:
    assert copy(link, "") == NOTHING
    assert copy(link, "PATTERN = '.*none.*'") == NOTHING
    put(link, parquet(tmp_path))
    with pytest.raises(ProgrammingError) as refused:
        copy(link, "FILES = ('part.parquet', 'gone.parquet')")
    assert refused.value.errno == 91_016
    assert asked(link, "SELECT count(*) FROM people") == [(0,)]
    assert len(copy(link, "FILES = ('part.parquet', 'gone.parquet') ON_ERROR = CONTINUE")) == 1


def test_a_copy_names_a_thousand_files_at_most(link: SnowflakeConnection) -> None:
    names = ", ".join(f"'{number}'" for number in range(1001))
    with pytest.raises(ProgrammingError, match="1000"):
        copy(link, f"FILES = ({names})")


def test_a_file_loaded_before_is_told_beside_a_new_one(link: SnowflakeConnection, tmp_path: Path) -> None:
    put(link, parquet(tmp_path))
    copy(link)
    put(link, parquet(tmp_path, "more.parquet", id=[3]))
    assert [row[1:4] for row in copy(link, "FILES = ('more.parquet', 'part.parquet')")] == [
        ("LOADED", 1, 1),
        ("LOAD_SKIPPED", 0, 0),
    ]


def test_columns_are_matched_by_name_or_silently_not_at_all(link: SnowflakeConnection, tmp_path: Path) -> None:
    asked(link, 'CREATE TABLE loose (id NUMBER, name VARCHAR, "born" DATE)')
    put(link, parquet(tmp_path, ID=[1], extra=["x"]))
    into = "COPY INTO loose FROM @stage/run/ FILES = ('part.parquet') FORCE = TRUE"
    asked(link, f"{into} {PARQUET}")
    assert asked(link, "SELECT * FROM loose") == [(1, None, None)]
    asked(link, "TRUNCATE TABLE loose")
    put(link, parquet(tmp_path, other=[1]), "OVERWRITE = TRUE")
    asked(link, f"{into} {PARQUET}")
    assert asked(link, "SELECT * FROM loose") == [(None, None, None)]
    asked(link, "TRUNCATE TABLE loose")
    put(link, parquet(tmp_path, id=[1]), "OVERWRITE = TRUE")
    asked(link, f"{into} {PARQUET.replace('CASE_INSENSITIVE', 'CASE_SENSITIVE')}")
    assert asked(link, "SELECT * FROM loose") == [(None, None, None)]
    assert error_code(link, f"{into} FILE_FORMAT = (TYPE = PARQUET)") == 2019


@pytest.mark.parametrize("said", ["USE_LOGICAL_TYPE = TRUE", "USE_VECTORIZED_SCANNER = TRUE"])
def test_dates_and_instants_come_in_only_with_logical_types(
    link: SnowflakeConnection, tmp_path: Path, said: str
) -> None:
    asked(link, 'CREATE TABLE moments (born DATE, "AT" TIMESTAMP_TZ, local TIMESTAMP_NTZ)')
    put(link, parquet(tmp_path, born=[NOON.date(), None], at=[NOON, None], local=[NOON.replace(tzinfo=None), None]))
    into = "COPY INTO moments FROM @stage/run/ FILES = ('part.parquet')"
    plain = "FILE_FORMAT = (TYPE = PARQUET) MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE"
    assert error_code(link, f"{into} {plain}") == 100_071
    asked(link, f"{into} {plain.replace('PARQUET', f'PARQUET {said}')}")
    found = asked(link, "SELECT * FROM moments")
    assert found == [(NOON.date(), NOON, NOON.replace(tzinfo=None)), (None, None, None)]


def test_a_text_stays_a_text_in_a_variant(link: SnowflakeConnection, tmp_path: Path) -> None:
    asked(link, "CREATE TABLE loose (v VARIANT)")
    put(link, parquet(tmp_path, v=['{"a": 1}']))
    asked(link, f"COPY INTO loose FROM @stage/run/ {PARQUET}")
    assert asked(link, "SELECT v:a FROM loose") == [(None,)]


def test_a_wrong_row_is_told_with_file_line_and_column(link: SnowflakeConnection, tmp_path: Path) -> None:
    put(link, parquet(tmp_path, id=["1", "two", "3"], name=["Ada", "Bo", "much too long a name"]))
    put(link, parquet(tmp_path, "good.parquet", id=[4]))
    with pytest.raises(ProgrammingError) as refused:
        copy(link, "FILES = ('good.parquet', 'part.parquet')")
    assert refused.value.errno == 100_071
    assert 'Failed to cast variant value "two" to FIXED' in str(refused.value)
    assert "File 'run/part.parquet', line 2" in str(refused.value)
    assert asked(link, "SELECT count(*) FROM people") == [(0,)]
    both = "FILES = ('good.parquet', 'part.parquet')"
    assert [row[1:6] for row in copy(link, f"{both} ON_ERROR = SKIP_FILE")] == [
        ("LOADED", 1, 1, 1, 0),
        ("LOAD_FAILED", 3, 0, 1, 2),
    ]
    (row,) = copy(link, "FILES = ('part.parquet') ON_ERROR = CONTINUE")
    assert row[1:6] == ("PARTIALLY_LOADED", 3, 1, 3, 2)
    assert row[7:] == (2, 1, '"PEOPLE"["ID"]')
    assert asked(link, "SELECT id FROM people ORDER BY id") == [(1,), (4,)]


def test_text_is_loaded_by_position(link: SnowflakeConnection, tmp_path: Path) -> None:
    (tmp_path / "part.csv").write_text('id,name,born\n1,"A,da",2026-03-01\n2,,\n')
    put(link, tmp_path / "part.csv")
    form = "FILE_FORMAT = (TYPE = CSV SKIP_HEADER = 1 FIELD_OPTIONALLY_ENCLOSED_BY = '\"' NULL_IF = ())"
    copy(link, "FILES = ('part.csv')", form)
    assert asked(link, "SELECT * FROM people ORDER BY id") == [(1, "A,da", NOON.date()), (2, None, None)]


def test_a_copy_may_make_something_else_of_what_a_file_has(link: SnowflakeConnection, tmp_path: Path) -> None:
    asked(link, "CREATE TABLE made (id NUMBER(18,0), v VARIANT, name VARCHAR, file VARCHAR, line NUMBER)")
    put(link, parquet(tmp_path, id=["7"], v=['{"a": 1}'], Name=["Ada"]))
    made = '$1:"id"::NUMBER(18,0), PARSE_JSON($1:v), s.$1:name, METADATA$FILENAME, METADATA$FILE_ROW_NUMBER'
    into = f"COPY INTO made FROM (SELECT {made} FROM @stage/run/ s) FILES = ('part.parquet')"
    form = "FILE_FORMAT = (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE)"
    assert asked(link, f"{into} {form}")[0][1:4] == ("LOADED", 1, 1)
    # Names in a file are told by case.
    found = asked(link, "SELECT id, v:a::NUMBER, name, file, line FROM made")
    assert found == [(7, 1, None, "run/part.parquet", 1)]
    assert error_code(link, f"{into} {form} MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE FORCE = TRUE") == 1003


@pytest.mark.parametrize("made", ["COALESCE($1:v, 'x')", "TRY_PARSE_JSON($1:v)", "IFF($1:v IN ('('), MAX($1:v), 'x')"])
def test_a_copy_knows_no_functions_but_those_that_are_documented_for_it(
    link: SnowflakeConnection, tmp_path: Path, made: str
) -> None:
    asked(link, "CREATE TABLE made (v VARIANT)")
    put(link, parquet(tmp_path, v=["1"]))
    with pytest.raises(ProgrammingError, match="is not supported for a COPY that transforms"):
        asked(link, f"COPY INTO made FROM (SELECT {made} FROM @stage/run/) FILE_FORMAT = (TYPE = PARQUET)")


def test_an_object_that_has_a_name_twice_is_no_json(link: SnowflakeConnection, tmp_path: Path) -> None:
    asked(link, "CREATE TABLE made (v VARIANT, wrong VARCHAR)")
    put(link, parquet(tmp_path, v=['[{"a": 1, "a": 2}]', '{"a": 1}', "", None]))
    into = "COPY INTO made FROM (SELECT {} FROM @stage/run/) FILE_FORMAT = (TYPE = PARQUET)"
    assert error_code(link, into.format("PARSE_JSON($1:v), NULL")) == 100_080
    asked(link, into.format("NULL, CHECK_JSON($1:v::VARCHAR(134217728))"))
    assert [row[0] is None for row in asked(link, "SELECT wrong FROM made")] == [False, True, True, True]


@pytest.fixture
def bucket(server: SnowflakeServer) -> Iterator[tuple[S3Server, str]]:
    with s3() as store:
        told = {"endpoint_url": store.endpoint, "region_name": store.region}
        keys = {"aws_access_key_id": store.access_key, "aws_secret_access_key": store.secret_key}
        server.reads(s3=told | keys)
        yield store, store.bucket()


def test_an_external_stage_in_s3_is_read_where_it_lies(
    link: SnowflakeConnection, bucket: tuple[S3Server, str], tmp_path: Path
) -> None:
    store, name = bucket
    with contextlib.closing(store.client()) as client:
        for key in ("part.parquet", "more.parquet"):
            client.upload_file(str(parquet(tmp_path)), name, f"lake/valid/run/{key}")
    stage = f"STAGE lake URL = 's3://{name}/lake/valid/'"
    assert error_code(link, f"CREATE {stage}") == 393_950
    assert error_code(link, f"CREATE {stage} STORAGE_INTEGRATION = other") == 2003
    asked(link, f"CREATE {stage} STORAGE_INTEGRATION = lake")
    assert error_code(link, "PUT 'file:///x' @lake/run/") == 1003
    into = "COPY INTO people FROM @lake/run/ FILES = ('part.parquet')"
    assert asked(link, f"{into} {PARQUET}")[0][:4] == (f"s3://{name}/lake/valid/run/part.parquet", "LOADED", 2, 2)
    assert asked(link, f"{into} {PARQUET}") == NOTHING
    assert error_code(link, f"{into.replace('part', 'gone')} {PARQUET}") == 91_016
    assert len(asked(link, "LIST @lake/run/")) == 2


def test_an_external_stage_in_azure_is_read_where_it_lies(
    server: SnowflakeServer, link: SnowflakeConnection, tmp_path: Path
) -> None:
    with azurite() as store:
        server.reads(azure=store.connection_string)
        container = store.container()
        with store.service() as service, service.get_blob_client(container, "valid/run/part.parquet") as blob:
            blob.upload_blob(parquet(tmp_path).read_bytes())
        url = f"azure://{store.account}.blob.core.windows.net/{container}/valid"
        asked(link, f"CREATE STAGE lake URL = '{url}' STORAGE_INTEGRATION = LAKE")
        into = "COPY INTO people FROM @lake/run/ FILES = ('part.parquet')"
        assert asked(link, f"{into} {PARQUET}")[0][:4] == (f"{url}/run/part.parquet", "LOADED", 2, 2)
        asked(link, f"CREATE STAGE dfs URL = '{url.replace('.blob.', '.dfs.')}' STORAGE_INTEGRATION = LAKE")
        assert error_code(link, "LIST @dfs") == 91_003
