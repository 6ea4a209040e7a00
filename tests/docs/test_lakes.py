"""What the page of lakes shows is what the program does, on a lake in a bucket."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from pydantic import TypeAdapter

from ingestkit.settings import AdlsConnection, Connection, S3Connection
from tests.docs.pages import below, blocks, page, typed_below
from tests.docs.shop import Project
from tests.object_stores import S3Server, s3

LAKES = page("docs/lakes.md")
pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Server]:
    with s3() as server:
        yield server


@pytest.fixture
def bucket(moto: S3Server, shop: Project, monkeypatch: pytest.MonkeyPatch) -> str:
    """The lake of the project, with the rules that the page shows."""
    for name, value in moto.environment.items():
        monkeypatch.setenv(name, value)
    path = shop.root / "config/settings.yaml"
    said = yaml.safe_load(path.read_text())
    [text] = [block.text for block in below(LAKES, "Rules of the service") if block.language == "yaml"]
    lake = yaml.safe_load(text)["connections"]["lake"]
    name = moto.bucket()
    said["profiles"]["local"]["connections"]["lake"] = lake | {
        "bucket": name,
        "endpoint_url": moto.endpoint,
        "path_style": True,
    }
    path.write_text(yaml.safe_dump(said))
    return name


def rows(root: Path) -> list[Any]:
    """Every row as it stands in the target, but for which run wrote it last."""
    with duckdb.connect(str(root / "state/warehouse.duckdb"), read_only=True) as target:
        return target.execute("SELECT * EXCLUDE (_run_id) FROM customers ORDER BY ALL").fetchall()


def test_every_lake_that_is_shown_can_be_said() -> None:
    shown = [yaml.safe_load(block.text) for block in blocks(LAKES) if block.language == "yaml"]
    said = [
        TypeAdapter[Connection](Connection).validate_python(one["connections"]["lake"])
        for one in shown
        if "connections" in one
    ]
    assert {type(one) for one in said} == {S3Connection, AdlsConnection}


def test_the_rules_are_written_as_the_page_shows(shop: Project, moto: S3Server, bucket: str) -> None:
    plan, apply = typed_below(LAKES, "Rules of the service")
    assert "to be written" in shop.does(plan)
    assert "done" in shop.does(apply)
    assert "up to date" in shop.does(plan)
    assert len(moto.client().get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]) == 3


@pytest.mark.parametrize("load", ["replace", "merge", "append"])
@pytest.mark.parametrize("lost", ["table", "database"])
def test_a_target_that_is_lost_is_put_back_row_for_row(
    shop: Project, moto: S3Server, bucket: str, load: str, lost: str
) -> None:
    shop.corrects("load: replace", f"load: {load}")
    shop.drop("2026-01-05", "2026-01-12", "2026-01-19")
    shop.does("ingestkit run shop")
    before = rows(shop.root)
    assert len(before) == {"replace": 1, "merge": 4, "append": 5}[load]
    if lost == "table":
        with duckdb.connect(str(shop.root / "state/warehouse.duckdb")) as target:
            target.execute("DROP TABLE customers")
    else:
        (shop.root / "state/warehouse.duckdb").unlink()
    # Neither the source nor this machine has anything to put it back from.
    shutil.rmtree(shop.root / "drop")
    (shop.root / "drop").mkdir()
    assert not (shop.root / "state/lake").exists()
    assert moto.client().list_objects_v2(Bucket=bucket)["KeyCount"] > 5
    look, restore, go_on = typed_below(LAKES, "A target that is lost")
    assert "--from-lake" in shop.refused(look, 7)
    shop.does(restore)
    assert rows(shop.root) == before
    assert "nothing new" in shop.does(go_on)
    shop.put("2026-01-26", "id,name,since\n9,Eve,2025-03-01\n")
    shop.does(go_on)
    assert len(rows(shop.root)) == {"replace": 1, "merge": 5, "append": 6}[load]
