"""Who looks at the lakes of the other tests sees what is not named, not whole, or not what it was, however shortly."""

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.faults.lakes import Found, Sight, in_a_folder
from tests.faults.sights import watched

pytestmark = pytest.mark.faults

RAW = b"id,born\n1,1970\n"
LAYOUT = b"{batch}/{model}"


def parquet() -> bytes:
    into = io.BytesIO()
    pq.write_table(pa.table({"id": ["1", "2"]}), into)
    return into.getvalue()


PARQUET = parquet()
GOOD = {
    "raw/p/a/20260101/0123456789abcdef-a.csv": RAW,
    "raw/p/a/20260101/0123456789abcdef-000000000007-a.csv": RAW,
    "raw/p/model=a/of/20260101/0123456789abcdef-a.csv": RAW,
    "valid/p/a/20260101/p.20260101.1.7/0123456789abcdef.parquet": PARQUET,
    "rejects/p/a/20260101/p.20260101.1.7/keys-0123456789ab.parquet": PARQUET,
    "_staged/p/a/p.20260101.1.7.0123456789ab/part-0.parquet": PARQUET,
    "_runs/p/p.20260101.1/extract._all.000000000007-000001.json": b"{}",
    "_decisions/p/000001-0123abcd.json": b"{}",
    f"_layouts/p/{hashlib.sha256(LAYOUT).hexdigest()[:16]}": LAYOUT,
}


def put(lake: Path, name: str, content: bytes) -> None:
    """At once, as it should be."""
    path, beside = lake / name, lake / "_inflight/one"
    for folder in (path.parent, beside.parent):
        folder.mkdir(parents=True, exist_ok=True)
    beside.write_bytes(content)
    beside.rename(path)


@contextmanager
def looked_at(lake: Path) -> Iterator[Callable[[], None]]:
    """What comes back waits until somebody has looked at all that is there now."""
    looks = threading.Semaphore(0)

    def look() -> Iterator[Sight]:
        with in_a_folder(lake)() as published:
            yield from published()
        looks.release()

    def wait() -> None:
        # The first may have been begun before.
        while looks.acquire(blocking=False):
            pass
        for _ in range(2):
            assert looks.acquire(timeout=60)

    with watched(lambda: nullcontext(look), RAW, RAW * 2):
        yield wait


@pytest.mark.parametrize("name", GOOD)
def test_what_is_named_and_whole_is_let_pass(tmp_path: Path, name: str) -> None:
    with looked_at(tmp_path) as wait:
        put(tmp_path, name, GOOD[name])
        wait()


@pytest.mark.parametrize("name", GOOD)
def test_a_half_of_it_is_seen(tmp_path: Path, name: str) -> None:
    with pytest.raises(AssertionError, match=name), looked_at(tmp_path):
        put(tmp_path, name, GOOD[name][: len(GOOD[name]) // 2])


@pytest.mark.parametrize(
    "name",
    [
        "who-knows.tmp",
        "raw/who-knows.tmp",
        "raw/p/a/20260101/a.csv",
        "raw/p/a/20260101/.0123456789abcdef-a.csv.tmp",
        "valid/p/a/20260101/0123456789abcdef.parquet",
        "valid/p/a/20260101/p.20260101.1.7/0123456789abcdef.parquet.part",
        "_runs/p/p.20260101.1/extract.json",
        "_layouts/p/7",
    ],
)
def test_what_is_named_otherwise_is_seen(tmp_path: Path, name: str) -> None:
    with pytest.raises(AssertionError, match="no name of an object"), looked_at(tmp_path):
        put(tmp_path, name, PARQUET if name.startswith("valid") else RAW)


@pytest.mark.parametrize("name", ["who-knows.tmp", next(iter(GOOD))])
def test_what_is_gone_in_the_end_is_seen_all_the_same(tmp_path: Path, name: str) -> None:

    def come_and_go() -> None:
        with looked_at(tmp_path) as wait:
            put(tmp_path, name, b"half")
            wait()
            (tmp_path / name).unlink()

    with pytest.raises(AssertionError, match=name):
        come_and_go()


def test_an_object_that_is_written_over_is_seen(tmp_path: Path) -> None:
    name = next(iter(GOOD))

    def write_twice() -> None:
        with looked_at(tmp_path) as wait:
            put(tmp_path, name, RAW)
            wait()
            put(tmp_path, name, RAW * 2)

    with pytest.raises(AssertionError, match="at first sight"):
        write_twice()


@pytest.mark.parametrize(
    ("size", "told", "match"),
    [
        (len(RAW), "", "lies with it"),
        (len(RAW), hashlib.sha256(b"other").hexdigest(), "lies with it"),
        (3, hashlib.sha256(RAW).hexdigest(), "when it was listed"),
    ],
)
def test_an_object_of_a_service_is_what_the_service_says_of_it(size: int, told: str, match: str) -> None:
    sight = Sight(next(iter(GOOD)), size, (1,), lambda: Found(RAW, told))
    with pytest.raises(AssertionError, match=match), watched(lambda: nullcontext(lambda: iter([sight]))):
        pass
