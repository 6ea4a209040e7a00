"""A real dbt, which lives apart, and projects for it."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import ROOT

PROGRAM = ROOT / ".dbt" / "bin" / "dbt"


def program() -> str:
    if not PROGRAM.exists():
        pytest.skip("dbt is not installed: make dbt")
    return str(PROGRAM)


def project(folder: Path, output: Mapping[str, Any], models: Mapping[str, str], target: str = "only") -> None:
    """Write a dbt project whose one target is `output`; `models` are files by their names."""
    said = {"name": "mart", "version": "1.0", "config-version": 2, "profile": "mart", "model-paths": ["models"]}
    written = {
        "dbt_project.yml": yaml.safe_dump(said),
        "profiles.yml": yaml.safe_dump({"mart": {"target": target, "outputs": {target: {"threads": 2, **output}}}}),
        **{f"models/{name}": text for name, text in models.items()},
    }
    for name, text in written.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def dbt(folder: Path, *words: str, code: int = 0) -> list[dict[str, Any]]:
    """A command of dbt itself, and its events."""
    command = [program(), "--log-format", "json", *words]
    places = ["--project-dir", str(folder), "--profiles-dir", str(folder)]
    places += ["--target-path", str(folder / "target"), "--log-path", str(folder / "logs")]
    environ = {**os.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}
    ended = subprocess.run([*command, *places], check=False, capture_output=True, text=True, env=environ)
    assert ended.returncode == code, ended.stdout[-6000:] + ended.stderr[-6000:]
    return [json.loads(line) for line in ended.stdout.splitlines()]


def until(condition: Callable[[], bool], patience: float = 120) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def results(folder: Path) -> dict[str, str]:
    """How each node of the last command ended, by its name without the hash behind it."""
    found = json.loads((folder / "target/run_results.json").read_text())["results"]
    return {one["unique_id"].split(".")[2]: one["status"] for one in found}
