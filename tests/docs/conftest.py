"""The project in which documented commands are typed."""

from pathlib import Path

import pytest

from tests.docs.shop import Project, laid_out


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Project:
    laid_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, capsys)
