"""The sample pipeline with its lake in a service of objects: the same tables, whatever is asked of the lake later."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.object_stores import S3Server, s3

ROOT = Path(__file__).parents[2]
HERE = "lake: {type: local, path: state/lake}"
TABLES = ("address", "hco", "hcp", "license", "parenthco")

pytestmark = [pytest.mark.services, pytest.mark.slow]


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Server]:
    with s3() as server:
        yield server


def project(folder: Path, lake: str) -> Path:
    shutil.copytree(ROOT / "config", folder / "config")
    settings = folder / "config/settings.yaml"
    text = settings.read_text()
    assert text.count(HERE) == 1
    settings.write_text(text.replace(HERE, f"lake: {lake}"))
    return folder


def does(folder: Path, *arguments: str) -> str:
    """A command in a process of its own, that has nothing at hand."""
    words = [sys.executable, "-c", "from ingestkit.cli.main import main; main()"]
    ended = subprocess.run(
        [*words, *arguments], cwd=folder, check=False, capture_output=True, text=True, env=os.environ
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def rows(folder: Path) -> dict[str, list[Any]]:
    """What is in the tables, but for the ids of the runs that wrote it."""
    with duckdb.connect(str(folder / "state/warehouse.duckdb"), read_only=True) as target:
        told = {
            name: target.execute(f"SELECT COLUMNS(* EXCLUDE (_run_id))::VARCHAR FROM {name}").fetchall()
            for name in TABLES
        }
    return {name: sorted(found, key=repr) for name, found in told.items()}


def test_the_samples_go_through_a_bucket(moto: S3Server, tmp_path: Path) -> None:
    here, there = (tmp_path / name for name in ("here", "there"))
    bucket = moto.bucket()
    place = f"endpoint_url: '{moto.endpoint}', path_style: true, region: {moto.region}"
    keys = f"access_key: {moto.access_key}, secret_key: '{moto.secret_key}'"
    project(here, "{type: local, path: state/lake}")
    project(there, f"{{type: s3, bucket: {bucket}, prefix: sample/, {place}, {keys}}}")
    does(there, "check")
    assert "3 batches done" in does(here, "run", "opendata")
    assert "3 batches done" in does(there, "run", "opendata")
    assert rows(there) == rows(here)
    lake = {str(path.relative_to(here / "state/lake")) for path in (here / "state/lake").rglob("*") if path.is_file()}
    pages = moto.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys_there = {one["Key"] for page in pages for one in page.get("Contents", ())}
    assert {key.split("/")[0] for key in keys_there} == {"sample"}
    assert len(keys_there) == len(lake)
    assert "nothing new" in does(there, "run", "opendata")
    shown = [json.loads(does(folder, "quarantine", "show", "opendata", "--output", "json")) for folder in (here, there)]
    assert shown[1]["rows"] == shown[0]["rows"] != []
    (there / "state/warehouse.duckdb").unlink()
    does(there, "backfill", "opendata", "--from-lake")
    assert rows(there) == rows(here)
    does(there, "backfill", "opendata", "--batch", "20260118_180000", "--from-lake")
    assert rows(there) == rows(here)
    assert not list((there / "state/scratch").rglob("*"))
