"""The sample pipeline as it runs in production, by one command: into PostgreSQL, and through Azure into Snowflake."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ingestkit.cli.main import call
from ingestkit.cli.progress import LogProgress
from ingestkit.pipeline import Stop, SystemClock
from ingestkit.project import load
from tests.prod import PLACES, ROOT, SAMPLES, TABLES, Place, cloud

pytestmark = [pytest.mark.services, pytest.mark.slow]

NEWEST = "20260118_180000"
PACKED = tuple(f"network_{one}" for one in ("hcp", "hco", "address", "license", "parenthco", "customkey", "reference"))


@pytest.mark.parametrize("profile", ["prod", "cloud"])
def test_the_samples_go_through_the_servers_of_a_profile_by_one_command(profile: str) -> None:
    command = next(line for line in (ROOT / "Makefile").read_text().splitlines() if f"-m tests.prod {profile}" in line)
    words = command.strip().removeprefix("@").replace("$(BIN)/python", sys.executable).split()
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"3 batches done: 20260104_180000, 20260111_180000, {NEWEST}" in ended.stdout
    assert f"nothing new for opendata; the last batch done is {NEWEST}" in ended.stdout
    found = dict(line.split(": ") for line in ended.stdout.splitlines()[-5:])
    assert found["hcp"] == "58 rows"
    assert found["hco"] == "24 rows"
    assert all(int(rows.split()[0]) > 0 for rows in found.values())


def test_what_comes_through_azure_into_snowflake_is_what_comes_into_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drops = tmp_path / "drops"
    shutil.copytree(SAMPLES, drops)
    with cloud(drops) as place:
        there, here = Typed(place, tmp_path / "there", capsys), Typed(in_a_file(drops), tmp_path / "here", capsys)
        there.does("state", "upgrade", "--yes")
        there.does("check", "--pin", "--yes")

        def both(*arguments: str) -> str:
            """What the command says there; here it is given too, and then the same is in the tables."""
            said = there.does(*arguments)
            here.does(*arguments)
            same_tables(place, here.folder)
            assert there.rejects() == here.rejects() != []
            return said

        assert "3 batches done" in both("run", "opendata")
        restated_and_new(drops)
        assert f"2 batches done: {NEWEST}, 20260125_180000" in both("run", "opendata")

        # All that a machine keeps of the work may go; nothing new is found without waking the warehouse.
        shutil.rmtree(there.folder / "state")
        assert place.account is not None
        before = len(place.account.sent)
        assert "nothing new" in there.does("run", "opendata")
        assert len(place.account.sent) == before

        # The target is gone, and is made again from the lake alone.
        for table in place.ask("SHOW TABLES"):
            place.ask(f'DROP TABLE "{table[1]}"')
        (here.folder / "state/warehouse.duckdb").unlink()
        assert there.types("check", "opendata")[0] == 7
        drops.rename(tmp_path / "elsewhere")
        both("backfill", "opendata", "--from-lake")


@pytest.mark.parametrize("profile", ["prod", "cloud"])
def test_packages_go_through_servers_with_nothing_kept_as_through_a_file_with_all_kept(
    profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with PLACES[profile]() as place:
        there = Typed(place, tmp_path / "there", capsys)
        said = {"INGESTKIT__PIPELINES__NETWORK__KEEP": "all"}
        here = Typed(Place("local", said, lambda _: []), tmp_path / "here", capsys)
        there.does("state", "upgrade", "--yes")
        there.does("check", "--pin", "--yes")
        for typed in (there, here):
            assert "3 batches done: 1c5, 1c6, 1c7" in typed.does("run", "network")
        same_tables(place, here.folder, PACKED)
        assert without_fields(there.rejects("network")) == without_fields(here.rejects("network")) != []
        # What is kept of it is for people; nothing that was done needs a file again.
        shutil.rmtree(there.folder / "state/scratch")
        assert "nothing new" in there.does("run", "network")
        assert raw(there) == set()
        assert raw(here) != set()


def without_fields(rejects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As they are told where the file is at hand no more."""
    return [{name: value for name, value in one.items() if name != "fields"} for one in rejects]


def raw(typed: "Typed") -> set[str]:
    """Of which models the lake holds raw files."""
    stop = Stop()
    project = load(typed.folder, typed.place.profile)
    session = project.open("network", clock=SystemClock(stop), stop=stop, progress=LogProgress())
    with session.closing:
        return {one.name.split("/")[2] for one in session.lake.store.list("raw/network/")}


@dataclass(frozen=True, slots=True)
class Typed:
    """Commands in a project of a place, in this process."""

    place: Place
    folder: Path
    capsys: pytest.CaptureFixture[str]

    def __post_init__(self) -> None:
        self.place.project(self.folder)

    def types(self, *arguments: str) -> tuple[int, str, str]:
        self.capsys.readouterr()
        code = call(["--project", str(self.folder), "--profile", self.place.profile, *arguments])
        return (code, *self.capsys.readouterr())

    def does(self, *arguments: str) -> str:
        code, said, told = self.types(*arguments)
        assert code == 0, said + told
        return said

    def rejects(self, pipeline: str = "opendata") -> list[dict[str, Any]]:
        told = json.loads(self.does("quarantine", "show", pipeline, "--output", "json"))
        found: list[dict[str, Any]] = told["rows"]
        return found


def in_a_file(drops: Path) -> Place:
    return Place("local", {"INGESTKIT__CONNECTIONS__OPENDATA_DROP__PATH": str(drops)}, lambda _: [])


def restated_and_new(drops: Path) -> None:
    """The newest delivery comes with other people, one of whom is no record; another one follows."""
    people = drops / NEWEST / "hcp.csv"
    header, _, *rest = people.read_text().splitlines()
    people.write_text("\n".join((header, "nobody", *rest[:-1])) + "\n")
    os.utime(people, (1_790_000_000, 1_790_000_000))
    shutil.copytree(drops / "20260111_180000", drops / "20260125_180000")


def same_tables(place: Place, here: Path, tables: Iterable[str] = TABLES) -> None:
    """But for the ids of runs, which are of the projects."""
    written = str.upper if place.account is not None else str
    with duckdb.connect(str(here / "state/warehouse.duckdb"), read_only=True) as target:
        for table in tables:
            described = target.execute(f"DESCRIBE {table}").fetchall()
            columns = [name for name, *_ in described if name != "_run_id"]
            kept = target.execute(f"SELECT {', '.join(map(quoted, columns))} FROM {table}").fetchall()
            found = place.ask(f"SELECT {', '.join(quoted(written(one)) for one in columns)} FROM {table}")
            assert alike(found) == alike(kept) != []


def alike(rows: list[tuple[Any, ...]]) -> list[str]:
    return sorted(repr(tuple(str(cell) for cell in row)) for row in rows)


def quoted(name: str) -> str:
    return f'"{name}"'
