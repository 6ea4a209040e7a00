"""The files source keeps the contract of sources, and what only local folders can do to it."""

import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from ingestkit.errors import SourceError
from ingestkit.settings import Batches, Model
from ingestkit.settings import Source as SourceSettings
from ingestkit.sources.files import FilesSource
from ingestkit.sources.local import LocalDrop
from tests.contracts.source import FIRST, NOON, SECOND, WINDOWS, SourceContract, day, models, settings
from tests.contracts.zipped import zipped

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class FolderDrop:
    root: Path

    def put(self, path: str, content: bytes = b"x", at: datetime = NOON) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        nanoseconds = (at - EPOCH) // timedelta(microseconds=1) * 1000 + 789
        os.utime(file, ns=(nanoseconds, nanoseconds))

    def folder(self, path: str) -> None:
        (self.root / path).mkdir(parents=True)

    def remove(self, path: str) -> None:
        (self.root / path).unlink()

    def source(self, settings: SourceSettings, models: dict[str, Model]) -> FilesSource:
        return FilesSource(LocalDrop(self.root), settings, models)

    def missing(self, settings: SourceSettings, models: dict[str, Model]) -> FilesSource:
        return FilesSource(LocalDrop(self.root / "not-here"), settings, models)


def noted_listings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that are listed from now on."""
    listed: list[Path] = []
    scan = os.scandir

    def scanning(path: Path) -> object:
        listed.append(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scanning)
    return listed


class TestFilesSource(SourceContract):
    @pytest.fixture
    def drop(self, tmp_path: Path) -> FolderDrop:
        root = tmp_path / "drop"
        root.mkdir()
        return FolderDrop(root)

    def test_a_link_out_of_the_drop_is_refused(self, drop: FolderDrop, source: FilesSource, tmp_path: Path) -> None:
        (tmp_path / "secret.csv").write_bytes(b"secret")
        drop.folder(FIRST)
        (drop.root / FIRST / "hcp.csv").symlink_to(tmp_path / "secret.csv")
        with pytest.raises(SourceError, match="leads out of the drop"):
            list(source.items(FIRST))

    def test_a_folder_link_out_of_the_drop_is_refused(
        self, drop: FolderDrop, source: FilesSource, tmp_path: Path
    ) -> None:
        (tmp_path / "outside").mkdir()
        drop.folder(FIRST)
        (drop.root / FIRST / "more").symlink_to(tmp_path / "outside")
        with pytest.raises(SourceError, match="leads out of the drop"):
            list(source.items(FIRST))
        (drop.root / SECOND).symlink_to(tmp_path / "outside")
        with pytest.raises(SourceError, match="leads out of the drop"):
            list(source.items(SECOND))

    def test_a_file_swapped_for_a_link_out_of_the_drop_is_not_read(
        self, drop: FolderDrop, source: FilesSource, tmp_path: Path
    ) -> None:
        drop.put(f"{FIRST}/hcp.csv")
        item = self.item(source)
        drop.remove(f"{FIRST}/hcp.csv")
        (tmp_path / "secret.csv").write_bytes(b"x")
        (drop.root / FIRST / "hcp.csv").symlink_to(tmp_path / "secret.csv")
        with pytest.raises(SourceError, match="leads out of the drop"), source.open(item):
            pytest.fail("it was opened")

    def test_links_within_the_drop_are_followed(self, drop: FolderDrop, source: FilesSource) -> None:
        drop.put("store/hcp.csv", b"1234")
        drop.put("store/deep/hco.csv")
        drop.folder(FIRST)
        (drop.root / FIRST / "hcp.csv").symlink_to("../store/hcp.csv")
        (drop.root / FIRST / "deep").symlink_to("../store/deep")
        found = list(source.items(FIRST))
        assert [item.path for item in found] == [f"{FIRST}/deep/hco.csv", f"{FIRST}/hcp.csv"]
        with source.open(found[1]) as stream:
            assert stream.read() == b"1234"

    def test_a_link_that_leads_back_is_an_error(self, drop: FolderDrop, source: FilesSource) -> None:
        drop.put(f"{FIRST}/a/hcp.csv")
        (drop.root / FIRST / "a" / "again").symlink_to("..")
        with pytest.raises(SourceError, match="back to itself"):
            list(source.items(FIRST))

    def test_a_link_to_nothing_and_a_pipe_are_items_that_wait(self, drop: FolderDrop, source: FilesSource) -> None:
        drop.folder(FIRST)
        (drop.root / FIRST / "hcp.csv").symlink_to("nothing")
        os.mkfifo(drop.root / FIRST / "hco.csv")
        assert [(item.models, item.ready, item.waits_for) for item in source.items(FIRST)] == [
            (("hco",), False, "it is not a regular file"),
            (("hcp",), False, "it is a link to nothing"),
        ]

    def test_a_pipe_in_a_files_place_is_not_waited_for(self, drop: FolderDrop, source: FilesSource) -> None:
        drop.put(f"{FIRST}/hcp.csv", b"")
        item = self.item(source)
        drop.remove(f"{FIRST}/hcp.csv")
        os.mkfifo(drop.root / FIRST / "hcp.csv")
        with pytest.raises(SourceError, match="changed"), source.open(item):
            pytest.fail("it was opened")

    def test_a_name_that_is_not_utf8_is_an_error_that_shows_it(self, drop: FolderDrop, source: FilesSource) -> None:
        drop.folder(FIRST)
        (drop.root / FIRST / os.fsdecode(b"m\xe9decin.csv")).write_bytes(b"x")
        with pytest.raises(SourceError, match=r"m\\xe9decin.csv is not UTF-8") as caught:
            list(source.items(FIRST))
        caught.value.message.encode()

    def test_a_root_that_is_a_file_is_an_error(self, drop: FolderDrop, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(SourceError, match="is not a folder"):
            FilesSource(LocalDrop(tmp_path / "file"), settings(), models(hcp=None)).check()

    def test_listing_batches_does_not_look_into_them(
        self, drop: FolderDrop, source: FilesSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drop.put(f"{FIRST}/hcp.csv")
        drop.put("elsewhere/hcp.csv")
        listed = noted_listings(monkeypatch)
        assert list(source.batches(None)) == [FIRST]
        assert listed == [drop.root]

    def test_only_the_folders_of_a_window_are_looked_into(
        self, drop: FolderDrop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(1, 9):
            drop.put(f"us/2026-01-0{number}/deeper/hcp.csv")
        source = drop.source(settings(WINDOWS), models(hcp=None))
        listed = noted_listings(monkeypatch)
        assert len(list(source.items(day(7).key, day(7)))) == 1
        seventh = drop.root / "us/2026-01-07"
        assert listed == [drop.root, drop.root / "us", seventh, seventh / "deeper"]

    def test_many_batches_are_asked_for_without_walking_each_time(
        self, drop: FolderDrop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drop.put("a/hcp_1.csv")
        drop.put("a/hcp_2.csv")
        batches = Batches(files=r"a/hcp_(?P<batch>\d)\.csv")
        later = FilesSource(LocalDrop(drop.root), settings(batches), models(hcp=None), now=lambda: time.time() + 60)
        listed = noted_listings(monkeypatch)
        assert [len(list(later.items(key))) for key in later.batches(None)] == [1, 1]
        assert listed == [drop.root, drop.root / "a"]
        drop.put("a/hcp_3.csv")
        assert len(list(later.items("3"))) == 1

    def test_a_change_within_one_step_of_the_file_systems_clock_is_seen(self, drop: FolderDrop) -> None:
        drop.put("hcp_1.csv")
        stamp = drop.root.stat()
        soon = FilesSource(
            LocalDrop(drop.root),
            settings(Batches(files=r"\w+_(?P<batch>\d)\.csv")),
            models(hcp=None, hco=None),
            now=lambda: stamp.st_mtime + 1,
        )
        assert len(list(soon.items("1"))) == 1
        drop.put("hco_1.csv")
        os.utime(drop.root, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        assert len(list(soon.items("1"))) == 2

    def test_the_list_of_an_archive_is_read_once_while_the_archive_stays(
        self, drop: FolderDrop, source: FilesSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drop.put(f"{FIRST}/drop.zip", zipped({"hcp.csv": b"12345", "hco.csv": b"1"}))
        read: list[str] = []
        whole = zipfile.ZipFile

        def reading(file: Any) -> zipfile.ZipFile:
            read.append("a list")
            return whole(file)

        monkeypatch.setattr(zipfile, "ZipFile", reading)
        for _ in range(3):
            for item in source.items(FIRST):
                with source.open(item) as stream:
                    stream.read()
        assert len(read) == 1
        monkeypatch.undo()
        drop.put(f"{FIRST}/drop.zip", zipped({"hcp.csv": b"12345"}))
        assert len(list(source.items(FIRST))) == 1

    def test_an_archive_that_is_a_link_within_the_drop_is_opened(self, drop: FolderDrop, source: FilesSource) -> None:
        drop.put("store/1.zip", zipped({"hcp.csv": b"1234"}))
        drop.folder(FIRST)
        (drop.root / FIRST / "drop.zip").symlink_to("../store/1.zip")
        with source.open(self.item(source)) as stream:
            assert stream.read() == b"1234"
        (drop.root / FIRST / "drop.zip").unlink()
        (drop.root / FIRST / "drop.zip").symlink_to("nothing")
        assert [item.ready for item in source.items(FIRST)] == [False]

    def test_a_file_called_as_a_member_is_told_from_it(self, drop: FolderDrop, source: FilesSource) -> None:
        drop.put(f"{FIRST}/drop.zip!hcp.csv", b"plain")
        with source.open(self.item(source)) as stream:
            assert stream.read() == b"plain"
        drop.put(f"{FIRST}/drop.zip", zipped({"hcp.csv": b"packed"}))
        with pytest.raises(SourceError, match=r"drop\.zip!hcp\.csv is both a file and a member"):
            list(source.items(FIRST))

    @pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_an_archive_with_any_byte_wrong_is_read_as_it_was_or_is_an_error(
        self, drop: FolderDrop, source: FilesSource, method: int
    ) -> None:
        members = {"hcp.csv": b"id,n\n1,2\n", "notes.txt": b"x" * 20}
        whole = zipped(members, method)
        for at, flip in product(range(len(whole)), (1, 255)):
            drop.put(f"{FIRST}/drop.zip", whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
            try:
                for item in source.items(FIRST):
                    with source.open(item) as stream:
                        assert stream.read() in members.values()
            except SourceError:
                pass

    def test_a_file_replaced_while_it_was_read_is_not_taken(self, drop: FolderDrop, source: FilesSource) -> None:
        drop.put(f"{FIRST}/hcp.csv", b"12345")
        drop.put("beside.csv", b"1234567")

        def replaced() -> None:
            (drop.root / "beside.csv").rename(drop.root / FIRST / "hcp.csv")

        with pytest.raises(SourceError, match="changed while it was read"):
            self.read(source, replaced)

    def test_of_ten_thousand_files_each_folder_is_listed_once(
        self, drop: FolderDrop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = ("hcp.csv", "hco.csv", "address.csv", "license.csv", "notes.txt")
        for number in range(2000):
            folder = drop.root / f"2026{number:04d}_000000"
            folder.mkdir()
            for name in names:
                (folder / name).touch()
        claiming = models(hcp=None, hco=None, address=None, license=None)
        source = FilesSource(LocalDrop(drop.root), settings(), claiming, now=lambda: time.time() + 60)
        listed = noted_listings(monkeypatch)
        found = [item for batch in source.batches(None) for item in source.items(batch)]
        assert len(found) == 10_000
        assert len(listed) == 2_001


class TestWithoutRights:
    """A superuser may read everything, so these give up that right for a while."""

    @pytest.fixture
    def root(self) -> Iterator[Path]:
        root = Path(tempfile.mkdtemp(prefix="drop-"))
        superuser = os.geteuid() == 0
        if superuser:
            os.chown(root, 65534, 65534)
            os.seteuid(65534)
        yield root
        if superuser:
            os.seteuid(0)
        for path in root.rglob("*"):
            path.chmod(0o700)
        shutil.rmtree(root)

    @pytest.fixture
    def drop(self, root: Path) -> FolderDrop:
        return FolderDrop(root)

    def test_a_folder_one_may_not_list_is_an_error_that_names_it(self, drop: FolderDrop) -> None:
        drop.put(f"{FIRST}/deep/hcp.csv")
        (drop.root / FIRST / "deep").chmod(0)
        source = drop.source(settings(), models(hcp=None))
        assert list(source.batches(None)) == [FIRST]
        with pytest.raises(SourceError, match=f"no permission to read .*{FIRST}/deep") as caught:
            list(source.items(FIRST))
        assert not caught.value.transient
        assert caught.value.hint

    def test_a_file_one_may_not_read_is_an_error_that_names_it(self, drop: FolderDrop) -> None:
        drop.put(f"{FIRST}/hcp.csv")
        (drop.root / FIRST / "hcp.csv").chmod(0)
        source = drop.source(settings(), models(hcp=None))
        (item,) = source.items(FIRST)
        with pytest.raises(SourceError, match=r"no permission to read .*hcp\.csv") as caught, source.open(item):
            pytest.fail("it was opened")
        assert not caught.value.transient

    def test_a_drop_one_may_not_list_fails_its_check(self, drop: FolderDrop) -> None:
        drop.root.chmod(0)
        try:
            with pytest.raises(SourceError, match="no permission to read"):
                drop.source(settings(), models(hcp=None)).check()
        finally:
            drop.root.chmod(0o700)
