"""Commands that find nothing to do do not pay for what they would have needed to do it."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENGINES = {"alembic", "duckdb", "numpy", "pyarrow"}

RUN = """
import sys
from ingestkit.cli.main import call
code = call(sys.argv[1:])
print("imported:", *(name for name in sys.modules if "." not in name))
sys.exit(code)
"""


def deliver(folder: Path) -> None:
    """The sample project with its last delivery alone."""
    shutil.copytree(ROOT / "config", folder / "config")
    drop = folder / "config" / "samples" / "opendata"
    for older in sorted(drop.iterdir())[:-1]:
        shutil.rmtree(older)


def imported(folder: Path, *arguments: str) -> tuple[str, set[str]]:
    """What a command said, and the packages its process had imported at its end."""
    command = [sys.executable, "-c", RUN, *arguments]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    said, names = done.stdout.split("imported:")
    return said, set(names.split())


def test_a_run_that_finds_nothing_new_imports_no_engine(tmp_path: Path) -> None:
    deliver(tmp_path)
    _, worked = imported(tmp_path, "run", "opendata")
    assert worked & ENGINES == ENGINES - {"alembic"}
    said, idle = imported(tmp_path, "run", "opendata")
    assert "nothing new" in said
    assert not idle & ENGINES


def test_a_target_that_is_gone_is_seen_when_there_is_nothing_new(tmp_path: Path) -> None:
    deliver(tmp_path)
    imported(tmp_path, "run", "opendata")
    (tmp_path / "state" / "warehouse.duckdb").unlink()
    command = [sys.executable, "-c", RUN, "run", "opendata"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    assert "--from-lake" in done.stderr
