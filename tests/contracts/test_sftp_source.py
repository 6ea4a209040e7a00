"""The files source keeps its contract on a real SFTP server too, by either engine."""

import errno
import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from paramiko import Message, SFTPAttributes
from paramiko.sftp import CMD_READ

from ingestkit.errors import SourceError
from ingestkit.model import Item
from ingestkit.settings import Model, SftpConnection
from ingestkit.settings import Source as SourceSettings
from ingestkit.sources.files import FilesSource
from ingestkit.sources.sftp import SftpDrop, open_drop
from ingestkit.sources.sftp_client import LARGEST, REQUEST, Answers, Client, Refused
from ingestkit.sources.ssh import Server
from tests.contracts.source import FIRST, NOON, SECOND, SourceContract, models, settings
from tests.doubles.proxy import Proxy, proxied
from tests.services import SftpServer, sftp

pytestmark = [pytest.mark.services, pytest.mark.slow]


def connection(server: SftpServer, root: Path, **more: object) -> SftpConnection:
    said = {"host": "127.0.0.1", "port": server.port, "user": server.user, "path": str(root)}
    return SftpConnection.model_validate({**said, "key": str(server.folder / "client"), **more})


@dataclass(frozen=True)
class RemoteDrop:
    """The server reads the folders of this machine, so that tests fill them as they are."""

    root: Path
    server: SftpServer
    engine: str
    opened: list[SftpDrop]

    def put(self, path: str, content: bytes = b"x", at: datetime = NOON) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        os.utime(file, (at.timestamp(), at.timestamp()))

    def folder(self, path: str) -> None:
        (self.root / path).mkdir(parents=True)

    def remove(self, path: str) -> None:
        (self.root / path).unlink()

    def drop(self, root: Path | None = None, **more: Any) -> SftpDrop:
        said = connection(self.server, root or self.root, engine=self.engine, **more)
        drop = open_drop(Server(said, self.server.folder / "project", "drop", "shop"))
        self.opened.append(drop)
        return drop

    def source(self, settings: SourceSettings, models: dict[str, Model]) -> FilesSource:
        return FilesSource(self.drop(), settings, models)

    def missing(self, settings: SourceSettings, models: dict[str, Model]) -> FilesSource:
        return FilesSource(self.drop(self.root / "not-here"), settings, models)


def remote(root: Path, server: SftpServer, engine: str) -> Iterator[RemoteDrop]:
    """A new folder as the server shows it; what was opened of it is closed at the end."""
    root.mkdir()
    made = RemoteDrop(root, server, engine, [])
    yield made
    for one in made.opened:
        one.links.close()


@pytest.fixture
def between(server: SftpServer) -> Iterator[Proxy]:
    with proxied("127.0.0.1", server.port) as made:
        yield made


@pytest.fixture(scope="module")
def server() -> Iterator[SftpServer]:
    with sftp() as started:
        project = started.folder / "project" / "config"
        project.mkdir(parents=True)
        (project / "known_hosts").write_text(started.known())
        yield started


class TestSftpSource(SourceContract):
    noon = NOON.replace(microsecond=0)
    engine = "paramiko"

    @pytest.fixture
    def drop(self, server: SftpServer, tmp_path: Path) -> Iterator[RemoteDrop]:
        yield from remote(tmp_path / "drop", server, self.engine)

    def test_a_link_out_of_the_drop_is_refused(self, drop: RemoteDrop, source: FilesSource, tmp_path: Path) -> None:
        (tmp_path / "outside").mkdir()
        (tmp_path / "secret.csv").write_bytes(b"secret")
        drop.folder(FIRST)
        (drop.root / FIRST / "hcp.csv").symlink_to(tmp_path / "secret.csv")
        (drop.root / SECOND).symlink_to(tmp_path / "outside")
        for batch in (FIRST, SECOND):
            with pytest.raises(SourceError, match="leads out of the drop"):
                list(source.items(batch))

    def test_a_file_swapped_for_a_link_out_of_the_drop_is_not_read(
        self, drop: RemoteDrop, source: FilesSource, tmp_path: Path
    ) -> None:
        drop.put(f"{FIRST}/hcp.csv")
        item = self.item(source)
        drop.remove(f"{FIRST}/hcp.csv")
        (tmp_path / "secret.csv").write_bytes(b"x")
        (drop.root / FIRST / "hcp.csv").symlink_to(tmp_path / "secret.csv")
        with pytest.raises(SourceError, match="leads out of the drop"), source.open(item):
            pytest.fail("it was opened")

    def test_links_within_the_drop_are_followed(self, drop: RemoteDrop, source: FilesSource) -> None:
        drop.put("store/hcp.csv", b"1234")
        drop.put("store/deep/hco.csv")
        drop.folder(FIRST)
        (drop.root / FIRST / "hcp.csv").symlink_to("../store/hcp.csv")
        (drop.root / FIRST / "deep").symlink_to("../store/deep")
        found = list(source.items(FIRST))
        assert [item.path for item in found] == [f"{FIRST}/deep/hco.csv", f"{FIRST}/hcp.csv"]
        with source.open(found[1]) as stream:
            assert stream.read() == b"1234"

    def test_a_link_that_leads_back_is_an_error(self, drop: RemoteDrop, source: FilesSource) -> None:
        drop.put(f"{FIRST}/a/hcp.csv")
        (drop.root / FIRST / "a" / "again").symlink_to("..")
        with pytest.raises(SourceError, match="back to itself"):
            list(source.items(FIRST))

    def test_a_link_to_nothing_and_a_pipe_are_items_that_wait(self, drop: RemoteDrop, source: FilesSource) -> None:
        drop.folder(FIRST)
        (drop.root / FIRST / "hcp.csv").symlink_to("nothing")
        os.mkfifo(drop.root / FIRST / "hco.csv")
        assert [(item.models, item.ready, item.waits_for) for item in source.items(FIRST)] == [
            (("hco",), False, "it is not a regular file"),
            (("hcp",), False, "it is a link to nothing"),
        ]

    @pytest.mark.parametrize("other", ["pipe", "folder"])
    def test_what_is_no_file_in_a_files_place_is_not_waited_for(
        self, drop: RemoteDrop, source: FilesSource, other: str
    ) -> None:
        drop.put(f"{FIRST}/hcp.csv", b"")
        item = self.item(source)
        drop.remove(f"{FIRST}/hcp.csv")
        (os.mkfifo if other == "pipe" else os.mkdir)(drop.root / FIRST / "hcp.csv")
        with pytest.raises(SourceError, match="changed"), source.open(item):
            pytest.fail("it was opened")

    def test_a_name_that_is_not_utf8_is_an_error_that_shows_it(self, drop: RemoteDrop, source: FilesSource) -> None:
        drop.put(f"{FIRST}/hcp.csv")
        (drop.root / FIRST / os.fsdecode(b"m\xe9decin.tmp")).write_bytes(b"x")
        assert [item.path for item in source.items(FIRST)] == [f"{FIRST}/hcp.csv"]
        (drop.root / FIRST / os.fsdecode(b"m\xe9decin.csv")).write_bytes(b"x")
        with pytest.raises(SourceError, match=r"m\\xe9decin.csv is not UTF-8") as caught:
            list(source.items(FIRST))
        caught.value.message.encode()

    def test_a_link_to_a_name_that_is_not_utf8_is_followed(self, drop: RemoteDrop, source: FilesSource) -> None:
        drop.folder("store")
        drop.folder(FIRST)
        (drop.root / "store" / os.fsdecode(b"m\xe9decin")).write_bytes(b"1234")
        (drop.root / FIRST / "hcp.csv").symlink_to(b"../store/m\xe9decin".decode("utf-8", "surrogateescape"))
        with source.open(self.item(source)) as stream:
            assert stream.read() == b"1234"

    def test_a_root_that_is_a_file_is_an_error(self, drop: RemoteDrop) -> None:
        drop.put("file")
        source = FilesSource(drop.drop(drop.root / "file"), settings(), models(hcp=None))
        with pytest.raises(SourceError, match="is not a folder"):
            source.check()

    def test_a_folder_that_may_not_be_read_is_an_error_that_names_it(
        self, drop: RemoteDrop, source: FilesSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drop.put(f"{FIRST}/hcp.csv")

        def refusing(self: Client, folder: str) -> object:
            raise Refused(errno.EACCES, "Permission denied")

        # Who runs the tests may read everything where that is root.
        monkeypatch.setattr(Client, "entries", refusing)
        with pytest.raises(SourceError, match=r"no permission to read 127\.0\.0\.1:\d+:/.*drop"):
            source.check()

    def test_listing_batches_looks_into_none_and_listing_one_into_no_other(
        self, drop: RemoteDrop, source: FilesSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drop.put(f"{FIRST}/hcp.csv")
        drop.put(f"{SECOND}/deep/hcp.csv")
        listed: list[str] = []
        listing = SftpDrop.entries

        def noting(self: SftpDrop, folder: str) -> object:
            listed.append(folder)
            return listing(self, folder)

        monkeypatch.setattr(SftpDrop, "entries", noting)
        assert list(source.batches(None)) == [FIRST, SECOND]
        assert listed == [""]
        assert len(list(source.items(SECOND))) == 1
        assert FIRST not in listed

    def test_thousands_of_files_of_a_folder_are_listed(self, drop: RemoteDrop, source: FilesSource) -> None:
        drop.folder(FIRST)
        for number in range(5000):
            (drop.root / FIRST / f"hcp_{number:04}.csv").touch()
        found = list(source.items(FIRST))
        assert [item.path for item in found] == [f"{FIRST}/hcp_{number:04}.csv" for number in range(5000)]
        with source.open(found[-1]) as stream:
            assert stream.read() == b""

    def content(self, drop: RemoteDrop, size: int = 6_000_000) -> bytes:
        content = random.Random(7).randbytes(size)
        drop.put(f"{FIRST}/hcp.csv", content)
        return content

    def behind(self, drop: RemoteDrop, between: Proxy, **more: Any) -> FilesSource:
        known = drop.root.parent / "known_hosts"
        known.write_text(drop.server.known(port=between.port))
        more = {"port": between.port, "known_hosts": str(known), **more}
        return FilesSource(drop.drop(**more), settings(), models(hcp=None))

    @pytest.mark.parametrize("seed", range(3))
    def test_a_cut_download_goes_on_where_it_was(self, drop: RemoteDrop, between: Proxy, seed: int) -> None:
        content = self.content(drop)
        lot = random.Random(seed)
        source = self.behind(drop, between)
        item = self.item(source)
        before = between.links
        between.faults.cuts_down = [lot.randrange(200_000, 2_500_000) for _ in range(3)]
        between.cut()
        with source.open(item) as stream:
            assert b"".join(iter(lambda: stream.read(1 << 20), b"")) == content
        assert between.faults.cuts_down == []
        # Going on is not beginning again: so many bytes were not enough for a whole file.
        assert between.links > before

    def read_on(
        self, source: FilesSource, item: Item, meanwhile: Callable[[], None], got: list[bytes] | None = None
    ) -> None:
        with source.open(item) as stream:
            stream.read(1000)
            meanwhile()
            while block := stream.read(1 << 16):
                if got is not None:
                    got.append(block)

    @pytest.mark.parametrize("name", ["../elsewhere", "a/b", "", "a\0b"])
    def test_a_name_that_a_server_makes_up_is_refused(
        self, source: FilesSource, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        answer = Message()
        answer.add_int(1)
        answer.add_string(name)
        answer.add_string("")
        answer.add_int(SFTPAttributes.FLAG_PERMISSIONS | SFTPAttributes.FLAG_AMTIME)
        for number in (0o40755, 0, 0):
            answer.add_int(number)
        answer.rewind()
        answers = iter([answer, None])
        monkeypatch.setattr(Client, "_names", lambda *_: next(answers))
        with pytest.raises(SourceError, match="a name that is none"):
            list(source.batches(None))

    def test_as_much_is_asked_for_at_once_as_the_server_says_it_gives(
        self, drop: RemoteDrop, source: FilesSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.content(drop)
        sizes: list[int] = []
        ask = Client.ask

        def asking(client: Client, answers: Answers, handle: bytes, offset: int, size: int) -> None:
            sizes.append(size)
            ask(client, answers, handle, offset, size)

        monkeypatch.setattr(Client, "ask", asking)
        with source.open(self.item(source)) as stream:
            stream.read()
        # Few at first; and none is asked again, since the server gives what it said.
        assert (sizes[0], max(sizes), sum(sizes)) == (REQUEST, LARGEST, 6_000_000)

    @pytest.mark.parametrize("gives", [None, 10_000, 100_000])
    def test_servers_that_name_no_limit_or_give_less_than_they_say_are_read_as_well(
        self, drop: RemoteDrop, source: FilesSource, monkeypatch: pytest.MonkeyPatch, gives: int | None
    ) -> None:
        content = self.content(drop)
        if gives is None:
            monkeypatch.setattr(Client, "_named", property(lambda _: frozenset(), lambda *_: None))
        else:
            ask = Client._async_request

            def asking(client: Client, taker: object, command: int, *arguments: Any) -> int:
                *before, size = arguments or (None,)
                less = (*before, min(size, gives)) if command == CMD_READ else arguments
                return ask(client, taker, command, *less)

            monkeypatch.setattr(Client, "_async_request", asking)
        with source.open(self.item(source)) as stream:
            assert stream.read() == content

    @pytest.mark.parametrize("change", ["longer", "shorter", "later", "gone"])
    def test_a_file_that_is_another_one_after_a_cut_is_not_gone_on_with(
        self, drop: RemoteDrop, between: Proxy, change: str
    ) -> None:
        content = self.content(drop)
        source = self.behind(drop, between)
        item = self.item(source)

        def changing() -> None:
            if change == "gone":
                drop.remove(f"{FIRST}/hcp.csv")
            else:
                other = {"longer": content + b"x", "shorter": content[:-1], "later": content}[change]
                drop.put(f"{FIRST}/hcp.csv", other, NOON + timedelta(seconds=change == "later"))
            between.cut()

        got: list[bytes] = []
        with pytest.raises(SourceError, match=r"changed while it was read|not at the source any more") as caught:
            self.read_on(source, item, changing, got)
        assert caught.value.transient
        # It is not even read to its end, for the sake of what is compared there.
        assert sum(len(block) for block in got) < len(content) - 500_000

    def test_a_file_truncated_while_it_is_read_is_not_taken(self, drop: RemoteDrop, source: FilesSource) -> None:
        self.content(drop, 80_000_000)
        item = self.item(source)
        with pytest.raises(SourceError, match="changed while it was read") as caught:
            self.read_on(source, item, lambda: os.truncate(drop.root / item.path, 500_000))
        assert caught.value.transient

    def test_a_connection_that_was_lost_while_nothing_was_asked_is_made_again(
        self, drop: RemoteDrop, between: Proxy
    ) -> None:
        drop.put(f"{FIRST}/hcp.csv")
        source = self.behind(drop, between)
        assert list(source.batches(None)) == [FIRST]
        between.cut()
        assert list(source.batches(None)) == [FIRST]

    def test_a_link_that_is_cut_again_and_again_is_an_error_that_may_pass(
        self, drop: RemoteDrop, between: Proxy
    ) -> None:
        between.faults.cuts_down = [500] * 9
        with pytest.raises(SourceError, match=r"127\.0\.0\.1") as caught:
            self.behind(drop, between).check()
        assert caught.value.transient

    @pytest.mark.parametrize("seed", range(2))
    def test_a_link_that_is_cut_while_it_is_made_may_pass(self, drop: RemoteDrop, between: Proxy, seed: int) -> None:
        drop.put(f"{FIRST}/hcp.csv")
        lot = random.Random(seed)
        failed: list[SourceError] = []
        for _ in range(10):
            between.faults.cuts_down = [lot.randrange(1, 3000)]
            try:
                self.behind(drop, between).check()
            except SourceError as error:
                failed.append(error)
        assert failed
        assert [error.message for error in failed if not error.transient] == []

    def test_a_server_that_falls_silent_is_not_waited_for_without_end(self, drop: RemoteDrop, between: Proxy) -> None:
        self.content(drop, 40_000_000)
        source = self.behind(drop, between, answer_timeout="1s", connect_timeout="1s", login_timeout="1s")
        item = self.item(source)
        with pytest.raises(SourceError) as caught:
            self.read_on(source, item, partial(setattr, between.faults, "silent", True))
        assert caught.value.transient

    def test_a_slow_and_distant_server_is_read_as_well(self, drop: RemoteDrop, between: Proxy) -> None:
        content = self.content(drop, 1_000_000)
        source = self.behind(drop, between)
        item = self.item(source)
        between.faults.delay, between.faults.rate = 0.01, 4_000_000
        with source.open(item) as stream:
            assert stream.read() == content

    def test_a_download_goes_on_over_a_restart_of_the_server(self, drop: RemoteDrop, source: FilesSource) -> None:
        content = self.content(drop, 80_000_000)
        with source.open(self.item(source)) as stream:
            got = [stream.read(1000)]
            drop.server.stop()
            drop.server.start()
            got += iter(lambda: stream.read(1 << 20), b"")
        assert b"".join(got) == content

    def test_each_thread_has_a_connection_and_those_of_ended_ones_are_used_again(
        self, drop: RemoteDrop, between: Proxy
    ) -> None:
        for number in range(4):
            drop.put(f"{FIRST}/hcp_{number}.csv", b"x" * number)
        source = self.behind(drop, between)
        items = list(source.items(FIRST))
        both = threading.Barrier(2)

        def read(mine: list[Item]) -> None:
            for item in mine:
                with source.open(item) as stream:
                    both.wait(20)
                    assert len(stream.read()) == item.size

        for _ in range(3):
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(read, [items[:2], items[2:]]))
        assert between.links == 3


class TestSftpSourceByOpenssh(TestSftpSource):
    engine = "openssh"
