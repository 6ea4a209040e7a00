"""Snowflake by an external stage on the lake: nothing is uploaded to the account, and nothing stays in the lake."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from ingestkit import steps
from ingestkit.errors import ConfigError, WarehouseError
from ingestkit.lake import Lake
from ingestkit.model import LoadMode
from ingestkit.pipeline import Stop, SystemClock
from ingestkit.ports import Copying, Store
from ingestkit.settings import AdlsConnection, Connection, LocalConnection, S3Connection, SnowflakeConnection
from ingestkit.stores import adls, s3
from ingestkit.warehouses.snowflake import SnowflakeWarehouse, opened
from ingestkit.warehouses.snowflake_lake import location_of
from tests import object_stores
from tests.contracts.test_snowflake_statements import LISTS, published
from tests.contracts.warehouse import (
    FIRST_DAY,
    PERSON,
    VISIT,
    hours,
    load,
    publication,
    ready,
    ready_for_visits,
    visits,
    write_valid,
)
from tests.object_stores import AzureServer, S3Server
from tests.snowflake_server import SnowflakeServer, asked, snowflake_server

pytestmark = [pytest.mark.services, pytest.mark.slow]

FOLDER = "lakes/one"


@dataclass(frozen=True, slots=True)
class Account:
    """An account whose stages lie in both services."""

    server: SnowflakeServer
    azure: AzureServer
    s3: S3Server


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with snowflake_server() as server, object_stores.azurite() as azure, object_stores.s3() as s3_server:
        keys = {"aws_access_key_id": s3_server.access_key, "aws_secret_access_key": s3_server.secret_key}
        server.reads(
            azure=azure.connection_string,
            s3={"endpoint_url": s3_server.endpoint, "region_name": s3_server.region, **keys},
        )
        yield Account(server, azure, s3_server)


@dataclass(frozen=True, slots=True)
class There:
    """A lake, the account's stage on it, and a warehouse that loads from there."""

    server: SnowflakeServer
    database: str
    lake: Connection
    store: Store
    warehouse: SnowflakeWarehouse

    def does(self, *statements: str) -> list[tuple[Any, ...]]:
        with closing(self.server.connect(self.database)) as link:
            return [asked(link, one) for one in statements][-1]

    def left(self) -> list[str]:
        return [one.name for one in self.store.list("_staged/")]

    def people(self) -> list[tuple[Any, ...]]:
        return sorted(self.warehouse.query("SELECT id, city FROM PUBLIC.HCP"))


def there(account: Account, kind: str, folder: Path, stage: str = "LAKE_STAGE", **more: Any) -> There:
    lake: Connection
    if kind == "s3":
        lake = S3Connection.model_validate({**account.s3.connection(), "prefix": f"{FOLDER}/"})
        store: Store = s3.opened(connection=lake, root=folder, scratch=folder / "scratch", stop=Stop())
    else:
        said = account.azure.connection()
        lake = AdlsConnection.model_validate({**said, "url": f"{said['url']}/{FOLDER}"})
        store = adls.opened(connection=lake, scratch=folder / "scratch", stop=Stop())
    database = account.server.database()
    connection = SnowflakeConnection.model_validate(account.server.connection(database, stage=stage, **more))
    warehouse = opened(
        connection=connection,
        root=folder,
        memory_limit="300MiB",
        threads=2,
        clock=SystemClock(),
        scratch=folder / "scratch",
        lake=Lake(store),
        lake_connection=lake,
    )
    return There(account.server, database, lake, store, warehouse)


def made(found: There, url: str) -> There:
    found.does(f"CREATE STAGE lake_stage URL = '{url}' STORAGE_INTEGRATION = LAKE")
    return found


@pytest.fixture(params=["adls", "s3"])
def world(request: pytest.FixtureRequest, account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> There:
    for name, value in account.server.environment.items():
        monkeypatch.setenv(name, value)
    found = there(account, request.param, tmp_path)
    return made(found, location_of(found.lake))


@pytest.mark.parametrize("mode", [LoadMode.REPLACE, LoadMode.APPEND, LoadMode.MERGE])
def test_rows_come_out_of_the_lake_and_nothing_is_uploaded_or_stays(
    world: There, mode: LoadMode, tmp_path: Path
) -> None:
    ready(world.warehouse, "hcp")
    before = len(world.server.sent)
    rows = [("1", "x"), ("2", "gone"), ("3", "\\N")]
    work = load((write_valid(tmp_path / "a.parquet", PERSON, rows),), mode)
    if mode is LoadMode.MERGE:
        work = replace(work, deletes={"city": ("gone",)})
    told: dict[str, Mapping[str, Any]] = {}
    world.warehouse.publish(replace(publication(work), told=told.__setitem__))
    assert world.people() == [row for row in rows if mode is not LoadMode.MERGE or row[1] != "gone"]
    found = [one.sql for one in world.server.sent[before:]]
    assert not [one for one in found if one.startswith(("PUT", "REMOVE", "CREATE STAGE"))]
    [copy] = [one for one in found if one.startswith("COPY")]
    assert "FILES = ('part-0.parquet')" in copy
    assert list(told["hcp"]["files"].values()) == [3]
    assert world.left() == []


def test_a_window_comes_out_of_the_lake(world: There, tmp_path: Path) -> None:
    ready_for_visits(world.warehouse)
    work = visits((write_valid(tmp_path / "v.parquet", VISIT, hours(1, 2)),), FIRST_DAY)
    world.warehouse.publish(publication(work))
    assert world.does("SELECT count(*) FROM visit") == [(2,)]


@pytest.mark.parametrize("mode", [LoadMode.REPLACE, LoadMode.MERGE])
def test_what_is_sent_was_read(world: There, mode: LoadMode, tmp_path: Path) -> None:
    work = load((write_valid(tmp_path / "p.parquet", PERSON, [("1", "x")]),), mode)
    ready(world.warehouse, "hcp")
    found = "\n".join(published(world.server, world.warehouse, publication(work))) + "\n"
    assert found == (LISTS / f"lake_{mode.value}.sql").read_text()


def test_many_files_are_loaded_each_by_its_name(world: There, tmp_path: Path) -> None:
    ready(world.warehouse, "hcp")
    rows = [(str(number), f"{number:064d}{number * 7919:064d}") for number in range(60_000)]
    work = replace(load((write_valid(tmp_path / "a.parquet", PERSON, rows),)), copying=Copying("1MB"))
    told: dict[str, Mapping[str, Any]] = {}
    world.warehouse.publish(replace(publication(work), told=told.__setitem__))
    assert len(told["hcp"]["files"]) > 1
    assert world.does("SELECT count(*), count(DISTINCT city) FROM hcp") == [(60_000, 60_000)]


class Killed(BaseException):
    """As if the process had ended."""


@contextmanager
def dies_at(step: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def reached(name: str) -> None:
        if name == step:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(steps, "reached", reached)
        yield


def test_what_a_dead_process_left_is_removed_by_who_comes_next_and_not_what_a_later_one_has(
    world: There, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(world.warehouse, "hcp", "hco")
    files = (write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")]),)
    for model, token in (("hcp", 9), ("hcp", 1), ("hco", 1)):
        with dies_at("load.fenced", monkeypatch), pytest.raises(Killed):
            world.warehouse.publish(publication(load(files, model=model), token=token))
    # Killed is an error to the session, and so each has rolled its fence back.
    assert len(world.left()) == 3
    world.warehouse.publish(publication(load(files), token=3))
    assert world.people() == [("1", "x")]
    assert sorted(one.split("/")[2] + one.split("/")[3].rsplit(".", 2)[1] for one in world.left()) == ["hco1", "hcp9"]


def test_a_file_that_is_gone_from_the_lake_is_missed(
    world: There, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(world.warehouse, "hcp")
    files = (write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")]),)

    def reached(name: str) -> None:
        if name == "load.fenced":
            for one in world.left():
                world.store.remove(one)

    monkeypatch.setattr(steps, "reached", reached)
    with pytest.raises(WarehouseError, match="not found"):
        world.warehouse.publish(publication(load(files)))
    assert world.people() == []


def test_a_value_that_does_not_fit_is_named_by_the_sources_record(world: There, tmp_path: Path) -> None:
    ready(world.warehouse, "hcp")
    lineage = "_batch VARCHAR, _run_id VARCHAR, _source_file VARCHAR, _record_no NUMBER(19,0)"
    world.does(f"CREATE OR REPLACE TABLE hcp (id VARCHAR, city VARCHAR(3), {lineage})")
    files = (write_valid(tmp_path / "a.parquet", PERSON, [("1", "x"), ("2", "too long")]),)
    for mode in (LoadMode.REPLACE, LoadMode.MERGE):
        with pytest.raises(WarehouseError, match=r"CITY does not take a value of record 2 of drop/a\.csv"):
            world.warehouse.publish(publication(load(files, mode)))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("{elsewhere}", "stage LAKE_STAGE shows {elsewhere}, and the lake is {lake}"),
        ("{lake}deeper/", "stage LAKE_STAGE shows {lake}deeper/, and the lake is {lake}"),
        ("{besides}", "stage LAKE_STAGE shows {besides}, and the lake is {lake}"),
    ],
)
def test_a_stage_that_does_not_show_the_lake_is_refused_by_check_and_load(
    account: Account, url: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in account.server.environment.items():
        monkeypatch.setenv(name, value)
    found = there(account, "adls", tmp_path)
    lake = location_of(found.lake)
    words = {"lake": lake, "elsewhere": "s3://bucket/lakes/one/", "besides": lake.replace("/one/", "/on/")}
    made(found, url.format(**words))
    with pytest.raises(WarehouseError) as refused:
        found.warehouse.check()
    assert said.format(**words) in refused.value.message
    assert refused.value.exit_code == 7
    assert f"CREATE STAGE LAKE_STAGE URL = '{lake}'" in (refused.value.hint or "")
    files = (write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")]),)
    with pytest.raises(WarehouseError):
        found.warehouse.publish(publication(load(files)))
    assert found.left() == []


def test_a_stage_that_is_missing_internal_or_not_to_be_used_is_named_by_check(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in account.server.environment.items():
        monkeypatch.setenv(name, value)
    found = there(account, "adls", tmp_path)
    with pytest.raises(WarehouseError, match=r"Stage '.*LAKE_STAGE' does not exist"):
        found.warehouse.check()
    found.does("CREATE STAGE lake_stage")
    with pytest.raises(WarehouseError, match="stage LAKE_STAGE is no external stage, and the lake is azure://"):
        found.warehouse.check()


def test_a_stage_may_show_more_than_the_lake_and_lie_in_another_schema(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in account.server.environment.items():
        monkeypatch.setenv(name, value)
    database = account.server.database()
    found = there(account, "adls", tmp_path, stage=f"{database}.public.whole")
    with closing(account.server.connect(database)) as link:
        whole = location_of(found.lake).removesuffix(f"{FOLDER}/")
        asked(link, f"CREATE STAGE whole URL = '{whole}' STORAGE_INTEGRATION = LAKE")
    ready(found.warehouse, "hcp")
    files = (write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")]),)
    found.warehouse.publish(publication(load(files)))
    assert found.people() == [("1", "x")]


def test_a_lake_on_this_machine_has_no_stage(account: Account, tmp_path: Path) -> None:
    connection = SnowflakeConnection.model_validate(account.server.connection("D", stage="LAKE_STAGE"))
    with pytest.raises(ConfigError, match="the lake is a folder of this machine"):
        opened(
            connection=connection,
            root=tmp_path,
            memory_limit="300MiB",
            threads=1,
            clock=SystemClock(),
            scratch=tmp_path,
            lake_connection=LocalConnection(path=tmp_path),
        )


@pytest.mark.parametrize(
    ("said", "location"),
    [
        ({"type": "s3", "bucket": "b"}, "s3://b/"),
        ({"type": "s3", "bucket": "b", "prefix": "a/c/"}, "s3://b/a/c/"),
        ({"type": "adls", "url": "abfss://lake@acme.dfs.core.windows.net"}, "azure://acme.blob.core.windows.net/lake/"),
        (
            {"type": "adls", "url": "abfss://lake-1@acme.dfs.core.windows.net/a/b/"},
            "azure://acme.blob.core.windows.net/lake-1/a/b/",
        ),
    ],
)
def test_a_lake_has_one_address_for_stages(said: dict[str, Any], location: str) -> None:
    assert location_of(TypeAdapter(Connection).validate_python(said)) == location
