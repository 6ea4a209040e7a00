"""Lakes in services on loopback: one large object beside the vendors' own transfer managers, and many small ones."""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from filecmp import cmp
from itertools import product
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import pytest

from tests.benchmarks.measure import Program, cost, script
from tests.benchmarks.test_sftp import emptied
from tests.doubles.httpfaults import FaultyServer, Meanwhile, faulty
from tests.object_stores import azurite, s3, s3_without_conditions

pytestmark = pytest.mark.services
TIMES = 5
DIRECTIONS = ("send", "land", "fetch")
MOST = 300 * 2**20
LATE = 0.02
SMALL, MANY = 10_000, 1000
PIPELINE = """
pipeline: small
source:
  type: files
  connection: drop
  batches: {folders: '(?P<batch>\\d+)', kind: text}
  settle: {quiet: 0s}
models:
  a:
    files: '\\d+\\.csv'
    key: [id]
    load: append
    columns: {id: {type: string}, text: {type: string}}
"""


@pytest.fixture
def size(request: pytest.FixtureRequest) -> int:
    return 100_000_000 if request.config.getoption("--quick") else 1_000_000_000


@pytest.fixture(params=["s3", "adls"])
def place(request: pytest.FixtureRequest) -> Iterator[Callable[[], dict[str, Any]]]:
    """Makes a new bucket or container, and says its connection."""
    with ExitStack() as running:
        if request.param == "s3":
            # It keeps what it has on disk, and speaks faster than what is written in Python.
            server = running.enter_context(s3_without_conditions())
            yield server.connection
        else:
            account = running.enter_context(azurite())
            yield account.connection


def transfer(root: Path, who: str, direction: str, connection: dict[str, Any]) -> tuple[float, float, int]:
    """Seconds, seconds of processors, and the most memory of one process."""
    copies = emptied(root / "copies")
    told = [who, direction, json.dumps(connection), str(root / "large.bin"), str(copies)]
    peak = cost(Program(who, [sys.executable, "-m", "tests.benchmarks.transferring", *told], root)).peak
    seconds, processor = json.loads((root / "said.txt").read_text())
    return seconds, processor, peak


@pytest.mark.timeout(3600)
def test_a_large_object_beside_the_vendors_own_transfer_manager(
    place: Callable[[], dict[str, Any]], tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    block = Random(1).randbytes(1_000_000)
    with (tmp_path / "large.bin").open("wb") as large:
        for _ in range(size // len(block)):
            large.write(block)
    taken: dict[tuple[str, str], list[tuple[float, float, int]]] = {}
    landed: dict[str, dict[str, Any]] = {}
    for _ in range(TIMES):
        for direction, who in product(DIRECTIONS, ("ours", "vendor")):
            connection = place() if direction != "fetch" else landed[who]
            landed[who] = connection
            taken.setdefault((direction, who), []).append(transfer(tmp_path, who, direction, connection))
            if direction == "fetch":
                [fetched] = [path for path in (tmp_path / "copies").rglob("*") if path.is_file()]
                assert cmp(fetched, tmp_path / "large.bin", shallow=False)
    print(f"\n{connection['type']}, {size / 1e6:.0f} MB")
    for direction in DIRECTIONS:
        ours, vendor = taken[direction, "ours"], taken[direction, "vendor"]
        for who, figures in (("ours", ours), ("vendor", vendor)):
            wall, processor = (median(one[at] for one in figures) for at in (0, 1))
            most = max(one[2] for one in figures) / 2**20
            print(f"{direction:6}{who:8}{wall:8.2f} s, processor {processor:6.2f} s, most memory {most:4.0f} MiB")
        speed = median(b[0] / a[0] for a, b in zip(ours, vendor, strict=True))
        work = median(a[1] / b[1] for a, b in zip(ours, vendor, strict=True))
        print(f"{direction:6}as fast as the vendor's: {speed:.2f}×, its processor time: {work:.2f}×")
        assert max(one[2] for one in ours) < MOST


def project(folder: Path, lake: dict[str, Any]) -> None:
    drop = {"type": "local", "path": str(folder / "drop")}
    warehouse = {"type": "duckdb", "path": "warehouse.duckdb"}
    profile = {"connections": {"drop": drop, "lake": lake, "warehouse": warehouse}}
    (folder / "config/pipelines").mkdir(parents=True)
    # JSON is YAML.
    (folder / "config/settings.yaml").write_text(json.dumps({"profile": "local", "profiles": {"local": profile}}))
    (folder / "config/pipelines/small.yaml").write_text(PIPELINE)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of many small files."""
    (tmp_path / "drop/1").mkdir(parents=True)
    for number in range(MANY):
        line = f"{number},{Random(number).randbytes((SMALL - 20) // 2).hex()}\n"
        (tmp_path / f"drop/1/{number:04}.csv").write_text(f"id,text\n{line}")
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    return tmp_path


def extracted(folder: Path, late: FaultyServer) -> None:
    """The small files brought into a lake whose service answers late, in little memory."""
    late.breaks(Meanwhile(lambda: time.sleep(LATE)), times=None)
    ours = cost(Program("extract", [script("ingestkit"), "extract", "small"], folder))
    asked = Counter(one.partition(" ")[0] for one in late.seen)
    print(f"\n{MANY} objects of {SMALL} bytes, each answer {LATE * 1000:.0f} ms late")
    print(f"extract, the whole command: {ours.seconds:.2f} s, requests: {dict(asked)}")
    print(f"most memory {ours.peak / 2**20:.0f} MiB, of {MOST / 2**20:.0f}")
    assert ours.peak < MOST


@pytest.mark.timeout(3600)
def test_many_small_objects_beside_the_vendors_client(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3() as server, faulty(server.endpoint) as late:
        connection = {**server.connection(), "endpoint_url": late.endpoint}
        monkeypatch.setenv("LAKE_SECRET", server.secret_key)
        project(small, {**connection, "secret_key": "${env:LAKE_SECRET}"})
        extracted(small, late)
        pages = server.client().get_paginator("list_objects_v2").paginate(Bucket=connection["bucket"], Prefix="raw/")
        assert sum(page["KeyCount"] for page in pages) == MANY
        told = [json.dumps(connection), str(small / "drop/1")]
        vendor = {}
        for side_by_side in ("1", "8"):
            command = [sys.executable, "-m", "tests.benchmarks.putting", *told, side_by_side]
            cost(Program("vendor", command, small))
            [vendor[side_by_side]] = json.loads((small / "said.txt").read_text())
    print("  ".join(f"vendor, {number} at once: {seconds:.2f} s" for number, seconds in vendor.items()))


@pytest.mark.timeout(3600)
def test_many_small_objects_in_a_container(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with azurite() as account, faulty(account.endpoint) as late:
        connection = account.connection()
        monkeypatch.setenv("LAKE_SECRET", replace(account, endpoint=late.endpoint).connection_string)
        project(small, {**connection, "connection_string": "${env:LAKE_SECRET}"})
        extracted(small, late)
        container = connection["url"].removeprefix("abfss://").partition("@")[0]
        with account.service() as service, service.get_container_client(container) as objects:
            assert len(list(objects.list_blob_names(name_starts_with="raw/"))) == MANY
