"""How long texts may be in Snowflake's tables: as the contract says, or as somebody has made them who lets in more."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ingestkit.errors import WarehouseError
from ingestkit.model import LoadMode
from ingestkit.ports import Said, TargetColumn
from ingestkit.warehouses.snowflake import SnowflakeWarehouse
from tests.contracts.snowflake import account, empty
from tests.contracts.warehouse import LINEAGE, PERSON, WITHOUT_WINDOW, fence, load, publication, ready, write_valid
from tests.snowflake_server import SnowflakeServer, answered, asked

pytestmark = [pytest.mark.services, pytest.mark.slow]

server, warehouse = account, empty

ID = TargetColumn("id", "string", 10)


@pytest.fixture(params=["", "bundle_2024_08"])
def described(server: SnowflakeServer, request: pytest.FixtureRequest) -> Iterator[None]:
    """Of a type that somebody has given no length, DESCRIBE may tell it or not, by what an account has enabled."""
    if request.param:
        server.sets(**{request.param: "enabled"})
    yield
    server.heals()


def test_texts_have_the_length_of_the_contract(server: SnowflakeServer, warehouse: SnowflakeWarehouse) -> None:
    columns = (
        ID,
        TargetColumn("plain", "string"),
        TargetColumn("large", "string", 20_000_000),
        TargetColumn("vast", "string", 200_000_000),
        TargetColumn("tree", "json", 10),
    )
    [made] = warehouse.evolve("hcp", columns, LINEAGE)
    wanted = (
        '("ID" VARCHAR(10), "PLAIN" VARCHAR, "LARGE" VARCHAR(20000000), "VAST" VARCHAR(134217728), "TREE" VARIANT, '
        '"_BATCH" VARCHAR, '
    )
    assert wanted in made
    assert warehouse.evolve("hcp", columns, LINEAGE) == ()
    [added] = warehouse.evolve("hcp", (*columns, TargetColumn("late", "string", 3)), LINEAGE)
    assert added.endswith('ADD COLUMN "LATE" VARCHAR(3)')
    with closing(server.connect(warehouse.account.database)) as link:
        kinds = {row["name"]: row["type"] for row in answered(link, "DESCRIBE TABLE hcp")}
    assert kinds["ID"] == "VARCHAR(10)"
    assert kinds["LARGE"] == "VARCHAR(20000000)"
    assert kinds["VAST"] == "VARCHAR(134217728)"
    assert kinds["LATE"] == "VARCHAR(3)"


@pytest.mark.usefixtures("described")
@pytest.mark.parametrize(
    ("has", "most", "made"),
    [
        ("VARCHAR", 50, None),
        ("VARCHAR(100)", 50, None),
        ("VARCHAR(50)", 50, None),
        ("VARCHAR(49)", 50, "VARCHAR(50)"),
        ("VARCHAR(50)", None, "VARCHAR"),
        ("VARCHAR(20000000)", None, None),
        ("VARCHAR", 20_000_000, "VARCHAR(20000000)"),
        ("VARCHAR(20000000)", 200_000_000, "VARCHAR(134217728)"),
    ],
)
def test_a_text_column_is_made_longer_and_never_shorter(
    server: SnowflakeServer, warehouse: SnowflakeWarehouse, has: str, most: int | None, made: str | None
) -> None:
    with closing(server.connect(warehouse.account.database)) as link:
        asked(link, f"CREATE TABLE hcp (id {has}, _batch VARCHAR)")
    columns = (TargetColumn("id", "string", most),)
    planned = warehouse.planned("hcp", columns, ("_batch",))
    assert [one.rpartition(" ALTER COLUMN ")[2] for one in planned] == ([f'"ID" SET DATA TYPE {made}'] if made else [])
    assert warehouse.evolve("hcp", columns, ("_batch",)) == planned
    assert warehouse.evolve("hcp", columns, ("_batch",)) == ()


@pytest.mark.parametrize("mode", WITHOUT_WINDOW)
def test_what_was_valid_when_more_was_allowed_is_loaded_whole_or_refused(
    warehouse: SnowflakeWarehouse, mode: LoadMode, tmp_path: Path
) -> None:
    """As out of the lake, by a contract that allows less today."""
    before, today = (ID, TargetColumn("city", "string", 30)), (ID, TargetColumn("city", "string", 5))
    warehouse.check()
    warehouse.fence((fence("hcp"), fence("hco")))
    warehouse.evolve("hcp", before, LINEAGE)
    assert warehouse.evolve("hcp", today, LINEAGE) == ()
    file = write_valid(tmp_path / "a.parquet", today, [("1", "x" * 30), ("2", None)])
    warehouse.publish(publication(replace(load((file,), mode), columns=today)))
    assert sorted(warehouse.query("SELECT id, city FROM PUBLIC.HCP")) == [("1", "x" * 30), ("2", None)]
    warehouse.evolve("hco", today, LINEAGE)
    with pytest.raises(WarehouseError, match=r"CITY does not take a value of record 1 of drop/a\.csv"):
        warehouse.publish(publication(replace(load((file,), mode, model="hco"), columns=today), batch="b2", token=2))
    assert warehouse.query("SELECT * FROM PUBLIC.HCO") == []


def test_a_key_that_newer_changes_speak_of_is_known_whole_under_a_contract_that_allows_less(
    warehouse: SnowflakeWarehouse, tmp_path: Path
) -> None:
    columns = (TargetColumn("id", "string", 20), TargetColumn("city", "string"))
    today = (ID, columns[1])
    warehouse.check()
    warehouse.fence((fence("hcp"),))
    warehouse.evolve("hcp", columns, LINEAGE)
    changes = write_valid(tmp_path / "b.parquet", columns, [("2", "newer"), ("x" * 15, "newer")])
    warehouse.publish(publication(replace(load((changes,), LoadMode.MERGE), columns=columns), batch="b2"))
    full = write_valid(tmp_path / "a.parquet", today, [("1", "older"), ("2", "older"), ("x" * 10, "older")])
    work = replace(load((full,), newer=Said((changes,))), columns=today)
    stood = warehouse.publish(publication(work, token=2))
    assert sorted(warehouse.query("SELECT id, city FROM PUBLIC.HCP")) == [
        ("1", "older"),
        ("2", "newer"),
        ("x" * 10, "older"),
        ("x" * 15, "newer"),
    ]
    counts = stood["hcp"].counts
    assert (counts.loaded, counts.superseded, counts.target) == (2, 1, 4)


@pytest.mark.usefixtures("described")
def test_a_text_that_is_too_long_for_one_without_a_length_says_what_helps(
    warehouse: SnowflakeWarehouse, tmp_path: Path
) -> None:
    ready(warehouse, "hcp")
    file = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x"), ("2", "x" * 17_000_000)])
    with pytest.raises(WarehouseError, match=r"CITY does not take a value of record 2 of drop/a\.csv") as raised:
        warehouse.publish(publication(load((file,))))
    assert "more than 16777216 characters needs a `max_length`" in (raised.value.hint or "")


@pytest.mark.parametrize("mode", WITHOUT_WINDOW)
def test_a_text_of_just_as_many_characters_fits_however_many_bytes_they_take(
    warehouse: SnowflakeWarehouse, mode: LoadMode, tmp_path: Path
) -> None:
    columns = (ID, TargetColumn("city", "string", 5), TargetColumn("large", "string", 20_000_000))
    warehouse.check()
    warehouse.fence((fence("hcp"),))
    warehouse.evolve("hcp", columns, LINEAGE)
    rows = [("1", "Zürch", "x"), ("2", "東京都新宿", None), ("3", "\U0001f600" * 5, "y")]
    file = write_valid(tmp_path / "a.parquet", columns, rows)
    warehouse.publish(publication(replace(load((file,), mode), columns=columns)))
    assert sorted(warehouse.query("SELECT id, city, large FROM PUBLIC.HCP")) == rows
