"""Servers that answer as OpenSSH's does not: what was done is never answered, what was named is refused."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingestkit.errors import SourceError
from ingestkit.settings import SftpConnection
from ingestkit.sources.files import FilesSource
from ingestkit.sources.sftp import open_drop
from ingestkit.sources.ssh import Server
from tests.contracts.release import CSV, DELETE, MOVE, RENAME, TOLD, After, released, tree, version
from tests.contracts.source import FIRST, FOLDERS, models, settings
from tests.contracts.test_files_source import FolderDrop
from tests.doubles.sftp import SftpDouble, sftp_double


@contextmanager
def over(double: SftpDouble, root: Path, after: After | None = None) -> Iterator[FilesSource]:
    """A folder of this machine as the double shows it."""
    place = {"host": "127.0.0.1", "port": double.port, "user": "me", "path": str(root)}
    said = SftpConnection.model_validate({**place, "password": double.password, "host_keys": [double.fingerprint]})
    drop = open_drop(Server(said, root.parent, "drop", "shop"))
    yield FilesSource(drop, settings(FOLDERS, after_success=after), models(hcp=None))
    drop.links.close()


@pytest.mark.parametrize(
    ("after", "lost", "left"),
    [
        # Two folders are made, then the file is taken aside and comes to its place.
        *((MOVE, lost, [b"one"]) for lost in range(1, 5)),
        *((RENAME, lost, [b"one"]) for lost in range(1, 3)),
        *((DELETE, lost, []) for lost in range(1, 3)),
    ],
)
def test_what_was_done_and_whose_answer_was_lost_is_told_by_the_next_round(
    tmp_path: Path, after: After, lost: int, left: list[bytes]
) -> None:
    folder = FolderDrop(tmp_path / "drop")
    folder.put(CSV, b"one")
    with sftp_double("open sesame") as double:
        double.loses = {lost}
        with over(double, folder.root, after) as source:
            mine = version(source, CSV)
            with pytest.raises(SourceError, match=r"the connection to .* was lost") as cut:
                released(source, mine)
            assert cut.value.transient
            assert double.changes == lost
        with over(double, folder.root, after) as source:
            told = released(source, mine)
            assert list(source.items(FIRST)) == []
            assert list(source.strays()) == []
        assert double.changes == (4 if after == MOVE else 2)
    # What was deleted leaves nothing that tells who did it.
    assert told == {CSV: "not at the source any more" if (after, lost) == (DELETE, 2) else TOLD[next(iter(after))]}
    assert sorted(tree(folder.root).values()) == left


def test_a_server_that_names_its_limits_and_refuses_to_tell_them_is_read(tmp_path: Path) -> None:
    content = random.Random(7).randbytes(1_000_000)
    folder = FolderDrop(tmp_path / "drop")
    folder.put(CSV, content)
    with sftp_double("open sesame") as double, over(double, folder.root) as source:
        for asked in (1, 1):
            [item] = source.items(FIRST)
            with source.open(item) as stream:
                assert stream.read() == content
            # Once for a connection.
            assert double.asked_limits == asked
