"""Reads all files of a batch over SFTP as extract does, hashing on the way; a process of its own, for its memory.

What is said: the port, a private key, the host key's fingerprint, the drop, where copies go, and the engine.
"""

import getpass
import hashlib
import sys
import time
from pathlib import Path

from ingestkit.settings import Batches, Model, SftpConnection, Source
from ingestkit.sources.files import FilesSource
from ingestkit.sources.sftp import open_drop
from ingestkit.sources.ssh import Server


def main(port: str, key: str, fingerprint: str, drop: str, into: str, engine: str) -> None:
    said = {"host": "127.0.0.1", "port": port, "user": getpass.getuser(), "path": drop, "key": key}
    connection = SftpConnection.model_validate({**said, "host_keys": fingerprint, "engine": engine})
    opened = open_drop(Server(connection, Path(into), "drop", "bench"))
    settings = Source(connection="drop", batches=Batches(folders="(?P<batch>.+)"))
    source = FilesSource(opened, settings, {"a": Model.model_validate({"files": ".*", "columns": {"id": {}}})})
    began = time.perf_counter()
    for batch in list(source.batches(None)):
        for number, item in enumerate(source.items(batch)):
            total = hashlib.sha256()
            with source.open(item) as stream, (Path(into) / f"{number}").open("wb") as copy:
                while block := stream.read(1 << 20):
                    total.update(block)
                    copy.write(block)
    print(time.perf_counter() - began)
    opened.links.close()


main(*sys.argv[1:])
