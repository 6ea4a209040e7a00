"""The sample pipeline as it runs in production: files from SFTP, state and tables in PostgreSQL, by one command."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.services, pytest.mark.slow]


def test_the_samples_go_from_sftp_into_postgresql_by_one_command() -> None:
    command = next(line for line in (ROOT / "Makefile").read_text().splitlines() if "-m tests.prod" in line)
    words = command.strip().removeprefix("@").replace("$(BIN)/python", sys.executable).split()
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "3 batches done: 20260104_180000, 20260111_180000, 20260118_180000" in ended.stdout
    assert "nothing new for opendata; the last batch done is 20260118_180000" in ended.stdout
    found = dict(line.split(": ") for line in ended.stdout.splitlines()[-5:])
    assert found["hcp"] == "58 rows"
    assert found["hco"] == "24 rows"
    assert all(int(rows.split()[0]) > 0 for rows in found.values())
