"""Extract, from a real drop folder into a real local lake."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from ingestkit.errors import Interrupted, LakeError, SourceError
from ingestkit.lake import BLOCK, Lake
from ingestkit.model import Announced, ArtifactKind, Counts, FileStatus, FileVersion, Item, Window
from ingestkit.pipeline import Pipeline, RunContext, Stop, SystemClock
from ingestkit.ports import Source, Warehouse
from ingestkit.settings import PipelineSettings
from ingestkit.sources.files import FilesSource
from ingestkit.sources.local import LocalDrop
from ingestkit.stages.extract import extract
from ingestkit.stores.local import LocalStore

BATCH = "20260101_000000"
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)

SETTINGS = {
    "pipeline": "opendata",
    "source": {"connection": "drop", "batches": {"folders": r"(?P<batch>\d{8}_\d{6})"}},
    "models": {"hcp": {"columns": {"id": {}}}},
}


@dataclass
class Listener:
    """A progress that remembers."""

    bytes: int = 0
    lines: list[str] = field(default_factory=list)

    def began(self, stage: str, model: str, total: int | None) -> None:
        self.lines.append(f"began {stage} {model} {total}")

    def moved(self, stage: str, model: str, by: int) -> None:
        assert (stage, model) == ("extract", "hcp")
        self.bytes += by

    def ended(self, stage: str, model: str, status: str) -> None:
        self.lines.append(f"ended {stage} {model} {status}")

    def said(self, message: str, **facts: Any) -> None:
        self.lines.append(message)

    def warned(self, message: str, **facts: Any) -> None:
        self.lines.append(message)


@dataclass(frozen=True)
class Opened:
    """A source that tells what was opened, and what it says between opening and the first byte."""

    source: FilesSource
    opened: list[str] = field(default_factory=list)
    more: bytes = b""

    def check(self) -> None:
        self.source.check()

    def batches(self, after: str | None) -> Iterator[str]:
        return self.source.batches(after)

    def strays(self) -> Sequence[str]:
        return ()

    def items(self, batch: str, window: Window | None = None) -> Iterator[Item]:
        return self.source.items(batch, window)

    def announced(self, batch: str, window: Window | None = None) -> Iterator[Announced]:
        return self.source.announced(batch, window)

    def release(self, done: Sequence[FileVersion], others: Collection[str]) -> Iterator[tuple[FileVersion, str]]:
        return self.source.release(done, others)

    @contextmanager
    def open(self, item: Item) -> Iterator[BinaryIO]:
        self.opened.append(item.path)
        with self.source.open(item) as stream:
            if self.more:
                with Path(self.source.drop.real(item.path)).open("ab") as file:
                    file.write(self.more)
            yield stream


def drop(root: Path, **contents: bytes) -> None:
    for name, content in contents.items():
        path = root / "drop" / BATCH / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def context(root: Path, trust: str = "stat", **more: Any) -> RunContext:
    settings = PipelineSettings.model_validate({**SETTINGS, "source": {**SETTINGS["source"], "trust": trust}})  # type: ignore[dict-item]
    source = FilesSource(LocalDrop(root / "drop"), settings.source, settings.models)
    ctx = RunContext(
        pipeline=Pipeline(settings),
        run_id=f"opendata.{BATCH}.1",
        batch=BATCH,
        token=7,
        state_id="s",
        source=Opened(source),
        lake=Lake(LocalStore(root / "lake")),
        warehouse=cast("Warehouse", None),
        scratch=root / "scratch",
        clock=SystemClock(),
        stop=Stop(),
        progress=Listener(),
    )
    return replace(ctx, **more)


def seen(source: Source, version: int = 1) -> list[tuple[FileVersion, Item]]:
    """The rows discover writes for what the batch holds now."""
    return [
        (
            FileVersion(
                pipeline="opendata",
                path=item.path,
                version=version,
                id=f"f00d{version}{number}",
                batch=BATCH,
                model="hcp",
                status=FileStatus.SEEN,
                size=item.size,
                mtime=item.mtime,
                sighted_at=LONG_AGO,
            ),
            item,
        )
        for number, item in enumerate(source.items(BATCH))
    ]


def opened(ctx: RunContext) -> list[str]:
    return cast("Opened", ctx.source).opened


def objects(ctx: RunContext) -> list[str]:
    return [stored.name for stored in ctx.lake.store.list("")]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_files_land_whole_with_hash_row_and_artifact(tmp_path: Path) -> None:
    big = bytes(range(256)) * 10_000
    drop(tmp_path, hcp_1=big, hcp_2=b"")
    ctx = context(tmp_path)
    work = extract(ctx, "hcp", seen(ctx.source), [])
    names = [f"raw/opendata/hcp/{BATCH}/f00d1{number}-hcp_{number + 1}.csv" for number in range(2)]
    assert objects(ctx) == names
    assert [(file.raw, file.sha256, file.size) for file in work.files] == [
        (names[0], sha256(big), len(big)),
        (names[1], sha256(b""), 0),
    ]
    assert {(file.status, file.run_id, file.token) for file in work.files} == {(FileStatus.LANDED, ctx.run_id, 7)}
    assert [(row.path, row.kind, row.bytes, row.rows, row.file_id) for row in work.artifacts] == [
        (names[0], ArtifactKind.RAW, len(big), None, "f00d10"),
        (names[1], ArtifactKind.RAW, 0, None, "f00d11"),
    ]
    assert work.counts == Counts(files=2, bytes=len(big))
    assert work.skipped is None
    assert cast("Listener", ctx.progress).bytes == len(big)
    assert ctx.lake.store.sha256(names[0]) == sha256(big)


@dataclass(frozen=True, slots=True)
class Far(LocalStore):
    """A lake that is given objects side by side, and does something at each."""

    publishing: Callable[[str], object] = print
    at_once = 4

    def publish(self, inflight: str, name: str, sha256: str) -> None:
        self.publishing(name)
        super(Far, self).publish(inflight, name, sha256)


def far(root: Path, publishing: Callable[[str], object], threads: int = 2) -> RunContext:
    return context(root, lake=Lake(Far(root / "lake", publishing)), threads=threads)


def test_a_lake_that_is_far_is_given_files_side_by_side_and_they_are_told_in_their_order(tmp_path: Path) -> None:
    drop(tmp_path, **{f"hcp_{number:02}": b"x" * number for number in range(12)})
    together = threading.Barrier(4)
    ctx = far(tmp_path, lambda _: together.wait(10))
    work = extract(ctx, "hcp", seen(ctx.source), [])
    assert [file.size for file in work.files] == list(range(12))
    assert len(objects(ctx)) == 12
    assert {thread.name for thread in threading.enumerate() if thread.name.startswith("land")} == set()


def test_with_one_thread_a_far_lake_is_given_one_file_after_another_by_that_thread(tmp_path: Path) -> None:
    drop(tmp_path, hcp_1=b"one", hcp_2=b"two")
    by: list[str] = []
    ctx = far(tmp_path, lambda _: by.append(threading.current_thread().name), threads=1)
    extract(ctx, "hcp", seen(ctx.source), [])
    assert set(by) == {threading.current_thread().name}


def test_behind_a_file_that_a_far_lake_does_not_take_no_other_is_begun(tmp_path: Path) -> None:
    drop(tmp_path, **{f"hcp_{number:03}": b"x" for number in range(200)})

    def refusing(name: str) -> None:
        raise LakeError(f"{name} is refused")

    ctx = far(tmp_path, refusing)
    with pytest.raises(LakeError, match=r"hcp_000\.csv is refused"):
        extract(ctx, "hcp", seen(ctx.source), [])
    assert len(opened(ctx)) < 20
    assert objects(ctx) == []


def test_nothing_wanted_says_so_and_counts_what_had_landed(tmp_path: Path) -> None:
    drop(tmp_path, hcp_1=b"one", hcp_2=b"three")
    ctx = context(tmp_path)
    landed = extract(ctx, "hcp", seen(ctx.source), []).files
    work = extract(ctx, "hcp", [], landed)
    assert work.skipped == "everything had landed"
    assert work.counts == Counts(files=2, bytes=8)
    assert (work.files, work.artifacts) == ((), ())


def test_a_restated_file_counts_once_in_the_file_set(tmp_path: Path) -> None:
    drop(tmp_path, hcp_1=b"one", hcp_2=b"three")
    ctx = context(tmp_path)
    landed = extract(ctx, "hcp", seen(ctx.source), []).files
    drop(tmp_path, hcp_1=b"seven77")
    work = extract(ctx, "hcp", seen(ctx.source, version=2)[:1], landed)
    assert work.counts == Counts(files=2, bytes=12)
    assert [(file.version, file.status) for file in work.files] == [(2, FileStatus.LANDED)]


def test_a_file_touched_but_not_changed_is_skipped_and_its_bytes_are_not_kept_twice(tmp_path: Path) -> None:
    drop(tmp_path, hcp_1=b"one")
    ctx = context(tmp_path)
    landed = extract(ctx, "hcp", seen(ctx.source), []).files
    before = objects(ctx)
    later = (datetime.now(UTC) + timedelta(hours=1)).timestamp()
    os.utime(tmp_path / "drop" / BATCH / "hcp_1.csv", (later, later))
    work = extract(ctx, "hcp", seen(ctx.source, version=2), landed)
    (file,) = work.files
    assert (file.status, file.reason, file.raw) == (FileStatus.SKIPPED, "same content as version 1", None)
    assert file.sha256 == sha256(b"one")
    assert file.mtime.timestamp() == pytest.approx(later, abs=1e-5)
    assert work.artifacts == ()
    assert work.counts == Counts(files=1, bytes=3)
    assert objects(ctx) == before
    assert list(ctx.lake.store.inflight("_inflight/")) == []


def test_equal_content_lands_again_where_the_lake_lost_the_first(tmp_path: Path) -> None:
    drop(tmp_path, hcp_1=b"one")
    ctx = context(tmp_path)
    landed = extract(ctx, "hcp", seen(ctx.source), []).files
    ctx.lake.store.remove(str(landed[0].raw))
    (file,) = extract(ctx, "hcp", seen(ctx.source, version=2), landed).files
    assert file.status is FileStatus.LANDED
    assert objects(ctx) == [file.raw]


def test_content_that_comes_back_after_another_version_lands_again(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    landed: list[FileVersion] = []
    for version, content in ((1, b"one"), (2, b"other"), (3, b"one")):
        drop(tmp_path, hcp_1=content)
        landed = [*extract(ctx, "hcp", seen(ctx.source, version), landed).files, *landed]
    assert [file.status for file in landed] == [FileStatus.LANDED] * 3


def test_a_second_try_copies_only_what_the_first_did_not_land(tmp_path: Path) -> None:
    drop(tmp_path, hcp_1=b"one", hcp_2=b"two")
    first = context(tmp_path)
    wanted = seen(first.source)
    extract(first, "hcp", wanted[:1], [])
    second = context(tmp_path, token=8)
    work = extract(second, "hcp", wanted, [])
    assert opened(second) == [wanted[1][1].path]
    assert [(file.sha256, file.token) for file in work.files] == [(sha256(b"one"), 8), (sha256(b"two"), 8)]
    assert cast("Listener", second.progress).bytes == 6


@pytest.mark.parametrize("trust", ["stat", "checksum"])
def test_an_object_that_may_be_of_an_older_sighting_is_compared_not_trusted(tmp_path: Path, trust: str) -> None:
    drop(tmp_path, hcp_1=b"one")
    ctx = context(tmp_path, trust)
    wanted = seen(ctx.source)
    extract(ctx, "hcp", wanted, [])
    drop(tmp_path, hcp_1=b"eno")
    ((version, _),) = wanted
    again = [(replace(version, mtime=item.mtime, sighted_at=datetime.now(UTC)), item) for _, item in seen(ctx.source)]
    with pytest.raises(LakeError, match="with other content"):
        extract(ctx, "hcp", again, [])


def test_a_file_that_grows_while_it_is_copied_is_not_published(tmp_path: Path) -> None:
    drop(tmp_path, hcp_1=b"one")
    ctx = context(tmp_path)
    growing = replace(ctx, source=replace(cast("Opened", ctx.source), more=b"more"))
    with pytest.raises(SourceError, match="changed while it was read") as caught:
        extract(growing, "hcp", seen(ctx.source), [])
    assert caught.value.transient
    assert objects(ctx) == []
    assert list(ctx.lake.store.inflight("_inflight/")) == []


def test_bytes_that_are_not_those_the_source_vouches_for_are_not_published(tmp_path: Path) -> None:
    drop(tmp_path, hcp_1=b"one")
    ctx = context(tmp_path)
    ((version, item),) = seen(ctx.source)
    with pytest.raises(SourceError, match="checksum"):
        extract(ctx, "hcp", [(version, replace(item, digest=sha256(b"two")))], [])
    assert objects(ctx) == []
    work = extract(ctx, "hcp", [(version, replace(item, digest=sha256(b"one")))], [])
    assert work.files[0].status is FileStatus.LANDED


def test_a_request_to_stop_is_heard_between_blocks_and_leaves_nothing(tmp_path: Path) -> None:
    drop(tmp_path, hcp_1=b"x" * (3 * BLOCK))
    stop = Stop()

    class Stopping(Listener):
        def moved(self, stage: str, model: str, by: int) -> None:
            super().moved(stage, model, by)
            stop.request(lambda: Interrupted("stopped", exit_code=130))

    ctx = context(tmp_path, stop=stop, progress=Stopping())
    with pytest.raises(Interrupted):
        extract(ctx, "hcp", seen(ctx.source), [])
    assert cast("Listener", ctx.progress).bytes == BLOCK
    assert objects(ctx) == []
    assert list(ctx.lake.store.inflight("_inflight/")) == []


CHILD = """
import os, signal, sys
from pathlib import Path
from ingestkit import steps
from ingestkit.stages.extract import extract
from tests.unit.test_extract import context, seen

def reached(step):
    if step == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

steps.reached = reached
ctx = context(Path(sys.argv[1]))
extract(ctx, "hcp", seen(ctx.source), [])
"""


@pytest.mark.faults
@pytest.mark.parametrize("step", ["lake.written", "store.linked", "lake.published", "extract.copied"])
def test_after_a_kill_at_any_step_the_next_run_ends_as_if_there_had_been_none(tmp_path: Path, step: str) -> None:
    drop(tmp_path, hcp_1=b"one", hcp_2=b"two")
    child = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path), step], check=False)
    assert child.returncode == -signal.SIGKILL
    ctx = context(tmp_path, token=8)
    ctx.lake.remove_inflight("opendata", "hcp", below=8)
    work = extract(ctx, "hcp", seen(ctx.source), [])
    assert [file.sha256 for file in work.files] == [sha256(b"one"), sha256(b"two")]
    assert objects(ctx) == [file.raw for file in work.files]
    assert [path for path in (tmp_path / "lake").rglob("*") if path.is_file() and path.stat().st_nlink > 1] == []
    assert list(ctx.lake.store.inflight("_inflight/")) == []
