"""An object larger than a process may become is sent to a service and fetched from it."""

import filecmp
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from random import Random

import pytest

from tests.benchmarks.measure import Program, cost
from tests.object_stores import AzureServer, S3Server, azurite, s3_without_conditions

pytestmark = [pytest.mark.services, pytest.mark.slow]

SIZE = 400_000_000
MOST = 300 * 2**20


@pytest.mark.parametrize("service", [s3_without_conditions, azurite], ids=["s3", "adls"])
def test_memory_does_not_grow_with_what_is_sent_and_fetched(
    service: Callable[[], AbstractContextManager[S3Server | AzureServer]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    file, block = tmp_path / "large.bin", Random(1).randbytes(1_000_000)
    with file.open("wb") as large:
        for _ in range(SIZE // len(block)):
            large.write(block)
    with service() as server:
        connection = json.dumps(server.connection())
        for direction in ("send", "fetch"):
            copies = tmp_path / direction
            copies.mkdir()
            told = ["ours", direction, connection, str(file), str(copies)]
            program = Program(direction, [sys.executable, "-m", "tests.benchmarks.transferring", *told], tmp_path)
            peak = cost(program).peak
            assert peak < MOST, f"{direction}: {peak / 2**20:.0f} MiB"
    [fetched] = [path for path in copies.rglob("*") if path.is_file()]
    assert filecmp.cmp(fetched, file, shallow=False)
