"""Files are let go of in a folder of this machine and on a real SFTP server, by the same rules."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.release import CSV, MOVE, ReleaseContract, killed, released, tree, version
from tests.contracts.test_files_source import FolderDrop
from tests.contracts.test_sftp_source import RemoteDrop, remote, server
from tests.services import SftpServer

__all__ = ["killed", "server"]


class TestInAFolder(ReleaseContract):
    @pytest.fixture
    def drop(self, tmp_path: Path) -> FolderDrop:
        root = tmp_path / "drop"
        root.mkdir()
        return FolderDrop(root)

    def test_where_there_are_no_links_files_are_renamed(
        self, drop: FolderDrop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refused)
        drop.put(CSV, b"one")
        source = self.source(drop, MOVE)
        assert released(source, version(source, CSV)) == {CSV: f"moved to done/{CSV}"}
        assert tree(drop.root) == {f"done/{CSV}": b"one"}

    def test_killed_between_the_second_name_and_the_first_nothing_is_left_behind(self, drop: FolderDrop) -> None:
        drop.put(CSV, b"one")
        source = self.source(drop, MOVE)
        mine = version(source, CSV)
        os.link(drop.root / CSV, (drop.root / CSV).parent / f".ingestkit-{mine.id}")
        assert released(source, mine) == {CSV: f"moved to done/{CSV}"}
        assert tree(drop.root) == {f"done/{CSV}": b"one"}


@pytest.mark.services
@pytest.mark.slow
class TestOnAServer(ReleaseContract):
    engine = "paramiko"

    @pytest.fixture
    def drop(self, server: SftpServer, tmp_path: Path) -> Iterator[RemoteDrop]:
        yield from remote(tmp_path / "drop", server, self.engine)


class TestOnAServerByOpenssh(TestOnAServer):
    engine = "openssh"
