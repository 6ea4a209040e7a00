"""The sample pipeline with its lake in a service of objects and its state in PostgreSQL, on disks that are thrown away.

The tables are the same as of a project that has all of it in files, whatever is asked of the lake later.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.doubles.dfs import hierarchical
from tests.object_stores import AzureServer, S3Server, azurite_with_identity, s3, s3_without_conditions
from tests.services import PostgresServer, postgres

ROOT = Path(__file__).parents[2]
HERE = "lake: {type: local, path: state/lake}"
TABLES = ("address", "hco", "hcp", "license", "parenthco")

pytestmark = [pytest.mark.services, pytest.mark.slow]


@pytest.fixture(scope="module", params=[s3, s3_without_conditions], ids=["s3", "s3_without_conditions"])
def buckets(request: pytest.FixtureRequest) -> Iterator[S3Server]:
    with request.param() as server:
        yield server


@pytest.fixture(scope="module")
def azure() -> Iterator[AzureServer]:
    with azurite_with_identity() as server:
        yield server


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres() as started:
        yield started


@pytest.fixture
def state(server: PostgresServer, tmp_path: Path) -> str:
    """Where a state of nobody yet is."""
    name = f"state_{tmp_path.name}"
    server.does(f'CREATE DATABASE "{name}"')
    return server.url(name)


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


def test_the_samples_go_through_a_bucket(
    buckets: S3Server, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = buckets.bucket()
    place = f"endpoint_url: '{buckets.endpoint}', path_style: true, region: {buckets.region}"
    for name, value in buckets.environment.items():
        monkeypatch.setenv(name, value)
    keys = f"access_key: {buckets.access_key}, secret_key: '${{env:AWS_SECRET_ACCESS_KEY}}'"

    def names() -> list[str]:
        pages = buckets.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [one["Key"] for page in pages for one in page.get("Contents", ())]

    go_through(tmp_path, state, f"{{type: s3, bucket: {bucket}, prefix: sample/, {place}, {keys}}}", names)


@pytest.mark.parametrize("rename", [False, pytest.param(True, marks=pytest.mark.matrix)])
def test_the_samples_go_through_a_container_by_the_identity_of_a_machine(
    azure: AzureServer, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, rename: bool
) -> None:
    for name, value in azure.environment.items():
        monkeypatch.setenv(name, value)
    with hierarchical(azure) if rename else nullcontext(azure) as account:
        container = account.container()

        def names() -> list[str]:
            with account.service() as service, service.get_container_client(container) as objects:
                told = list(objects.list_blobs(include=["metadata"]))
            return [one.name for one in told if "hdi_isfolder" not in (one.metadata or {})]

        url = f"abfss://{container}@{account.account}.dfs.core.windows.net/sample"
        lake = f"{{type: adls, url: '{url}', endpoint: '{account.endpoint}', rename: {str(rename).lower()}}}"
        go_through(tmp_path, state, lake, names)


def go_through(folder: Path, state: str, lake: str, names: Callable[[], list[str]]) -> None:
    here, there = (folder / name for name in ("here", "there"))
    project(here, "{type: local, path: state/lake}")
    project(there, lake)
    (there / "config.env").write_text(f"INGESTKIT__STATE__URL={state}\n")
    does(there, "state", "upgrade", "--yes")
    does(there, "check")
    assert "3 batches done" in does(here, "run", "opendata")
    assert "3 batches done" in does(there, "run", "opendata")
    assert rows(there) == rows(here)
    assert not (there / "state/ingestkit.db").exists()
    throw_away(there)
    files = [path for path in (here / "state/lake").rglob("*") if path.is_file()]
    assert {name.split("/")[0] for name in names()} == {"sample"}
    assert len(names()) == len(files)
    assert "nothing new" in does(there, "run", "opendata")
    throw_away(there)
    shown = [json.loads(does(folder, "quarantine", "show", "opendata", "--output", "json")) for folder in (here, there)]
    assert shown[1]["rows"] == shown[0]["rows"] != []
    (there / "state/warehouse.duckdb").unlink()
    does(there, "backfill", "opendata", "--from-lake")
    assert rows(there) == rows(here)
    throw_away(there)
    does(there, "backfill", "opendata", "--batch", "20260118_180000", "--from-lake")
    assert rows(there) == rows(here)
    assert not list((there / "state/scratch").rglob("*"))


def throw_away(folder: Path) -> None:
    """What a worker had on its disk, but for the target."""
    for path in (folder / "state").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not path.name.startswith("warehouse.duckdb"):
            path.unlink()
