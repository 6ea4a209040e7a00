"""The JSON mirror: written whole, only when behind, and never mistaken for empty."""

from pathlib import Path

import pytest

from ingestkit.errors import StateError
from ingestkit.states.mirrors import JsonMirror, bring_up

SHOWN = {"checkpoint": "20240101", "models": ("a", "b"), "floor": None}


@pytest.fixture
def mirror(tmp_path: Path) -> JsonMirror:
    return JsonMirror(tmp_path / "state")


def test_a_mirror_that_was_never_written_shows_nothing(mirror: JsonMirror) -> None:
    assert mirror.read("p") is None
    assert not mirror.folder.exists()


def test_a_mirror_shows_what_was_written_and_leaves_no_debris(mirror: JsonMirror) -> None:
    mirror.write("p", {"x": 1})
    mirror.write("p", {"x": 2})
    mirror.write("q", {"x": 3})
    assert mirror.read("p") == {"x": 2}
    assert sorted(path.name for path in (mirror.folder / "mirror").iterdir()) == ["p.json", "q.json"]


def test_a_mirror_is_written_only_when_it_is_behind(mirror: JsonMirror) -> None:
    assert bring_up(mirror, "p", SHOWN)
    before = mirror.path("p").stat().st_ino
    assert not bring_up(mirror, "p", SHOWN)
    assert mirror.path("p").stat().st_ino == before
    assert bring_up(mirror, "p", SHOWN | {"checkpoint": "20240108"})
    shown = mirror.read("p")
    assert shown is not None
    assert shown["checkpoint"] == "20240108"


@pytest.mark.parametrize("content", [b"", b'{"checkpoint": "2024', b"[1]", b"\xff\xfe", b"null"])
def test_a_damaged_mirror_is_not_an_empty_one_and_is_cured_by_the_next_run(mirror: JsonMirror, content: bytes) -> None:
    mirror.write("p", {"x": 1})
    mirror.path("p").write_bytes(content)
    with pytest.raises(StateError, match=r"p\.json is damaged") as caught:
        mirror.read("p")
    assert caught.value.exit_code == 7
    assert bring_up(mirror, "p", {"x": 1})
    assert mirror.read("p") == {"x": 1}


def test_a_mirror_out_of_reach_is_one_clear_line(mirror: JsonMirror) -> None:
    mirror.folder.write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(StateError, match="cannot be written"):
        bring_up(mirror, "p", SHOWN)
