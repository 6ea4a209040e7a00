"""The files source keeps its contract on a real SFTP server too, by either engine."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from ingestkit.settings import Model, SftpConnection
from ingestkit.settings import Source as SourceSettings
from ingestkit.sources.files import FilesSource
from ingestkit.sources.sftp import SftpDrop, open_drop
from ingestkit.sources.ssh import Server
from tests.contracts.source import NOON, SourceContract
from tests.services import SftpServer, sftp

pytestmark = pytest.mark.services


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

    def drop(self, root: Path | None = None, **more: object) -> SftpDrop:
        said = connection(self.server, root or self.root, engine=self.engine, **more)
        drop = open_drop(Server(said, self.server.folder / "project", "drop", "shop"))
        self.opened.append(drop)
        return drop

    def source(self, settings: SourceSettings, models: dict[str, Model]) -> FilesSource:
        return FilesSource(self.drop(), settings, models)

    def missing(self, settings: SourceSettings, models: dict[str, Model]) -> FilesSource:
        return FilesSource(self.drop(self.root / "not-here"), settings, models)


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
        root = tmp_path / "drop"
        root.mkdir()
        made = RemoteDrop(root, server, self.engine, [])
        yield made
        for one in made.opened:
            one.links.close()


class TestSftpSourceByOpenssh(TestSftpSource):
    engine = "openssh"
