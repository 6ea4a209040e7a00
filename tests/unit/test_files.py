"""Files written whole: beside what is there, through links, and into what is no file."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestkit.files import replace_in_blocks, replace_whole


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    replace_whole(pipe, b"content")
    reader.join(10)
    assert read == [b"content"]
    assert pipe.is_fifo()


def test_a_link_stays_a_link_to_the_new_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    replace_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_what_fails_while_it_is_made_leaves_the_old_content_and_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def cut() -> Iterator[bytes]:
        yield b"new"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        replace_in_blocks(tmp_path / "file", cut())
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
    replace_in_blocks(tmp_path / "file", iter([b"new", b"er"]))
    assert (tmp_path / "file").read_bytes() == b"newer"
