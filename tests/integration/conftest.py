"""The small project every test of this folder begins with."""

from pathlib import Path

import pytest

from tests.integration.world import World


@pytest.fixture
def world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> World:
    made = World(tmp_path, capsys)
    made.settle()
    made.set_up()
    (tmp_path / "drops").mkdir()
    return made
