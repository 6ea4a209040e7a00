"""Five counted packages, or dated folders, killed in the third of them: each is done once, and in order."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ingestkit.states import migrate
from tests.faults.processes import Launcher
from tests.faults.targets import InSnowflake, Shared
from tests.faults.test_judgements import packed
from tests.faults.test_story import named_steps
from tests.faults.world import PIPELINE, RUN, World, differences
from tests.services import PostgresServer, SftpServer
from tests.snowflake_server import DRIVE, SnowflakeServer, made_by
from tests.warehouses import warehouse_database

pytestmark = pytest.mark.faults

COUNTED = (
    r"{folders: '(?P<batch>\d{8})', kind: text}",
    r"{files: 'exp_(?P<batch>[0-9A-F]{8})\.zip', kind: hex, holes: wait}",
)
DATED = (COUNTED[0], r"{folders: '(?P<batch>\d{8})', kind: date}")
CHANGES = ("    load: replace\n", "    load: replace\n    delta: '(?i)_delta'\n    delete_when: {born: ['0']}\n")
DELIVERIES = (
    (
        ("A.csv", "id,born\n1,1970\n2,1980\n3,oops\n"),
        ("b.csv", "id,day,note\nx,2026-01-01,one\n"),
        ("c_1.csv", "id,amount\n1,1.50\n"),
    ),
    (("a_delta.csv", "id,born\n2,0\n4,1999\n"), ("c_1.csv", "id,amount\n2,2.50\n")),
    (
        ("A_DELTA_20260103.csv", "id,born\n1,1971\n5,2001\n"),
        ("b.csv", "id,day,note\nx,2026-01-03,three\ny,2026-01-03,three\n"),
        ("c_1.csv", "id,amount\n3,3.50\n3,too,many\n"),
        ("c_2.csv", "id,amount\n4,4.50\n"),
        ("notes.txt", "of no model"),
    ),
    (("a.csv", "id,born\n6,1966\n7,1977\n"), ("c_1.csv", "id,amount\n5,5.50\n")),
    (("a_delta.csv", "id,born\n7,0\n8,1988\n"), ("b.csv", "id,day,note\ny,2026-01-05,five\n")),
)
PACKAGES = {f"exp_{0xFFE + place:08X}.zip": packed(*files) for place, files in enumerate(DELIVERIES)}
FOLDERS = {f"2026010{place}/{name}": text.encode() for place, files in enumerate(DELIVERIES, 1) for name, text in files}
SOME = ("extract.copied", "validate.sidecar_written", "load.before_commit", "load.committed", "gate.recorded")
MANY = sorted(named_steps() - set(SOME))


@dataclass(frozen=True, slots=True)
class Packages:
    before: World
    after: dict[str, Any]
    steps: list[str]

    def in_the_third(self, step: str) -> int | None:
        """When the step is reached first in the third package, counted over the whole run."""
        begins = [place for place, one in enumerate(self.steps) if one == "run.opened"]
        third = self.steps[begins[2] : begins[3]]
        return self.steps[: begins[2]].count(step) + 1 if step in third else None


def told(world: World, folder: Path, *, dated: bool = False) -> Packages:
    contract = world.folder / "config/pipelines/opendata.yaml"
    text = PIPELINE
    for before, now in (DATED if dated else COUNTED, CHANGES):
        assert before in text
        text = text.replace(before, now)
    contract.write_text(text)
    world.drop(FOLDERS if dated else PACKAGES)
    undisturbed = world.copied(folder / "undisturbed")
    ended = undisturbed.call(*RUN, "--jobs", "1", record=str(folder / "steps"))
    assert ended.code == 0, ended
    after = undisturbed.seen()
    fourth, fifth = (
        ("2026-01-04', '20260104/", "2026-01-05', '20260105/")
        if dated
        else (
            "1001', 'exp_00001001.zip!",
            "1002', 'exp_00001002.zip!",
        )
    )
    assert after["rows of a"] == [f"('6', 1966, '{fourth}a.csv', 1)", f"('8', 1988, '{fifth}a_delta.csv', 2)"]
    assert len(after["rows of c"]) == 5
    return Packages(world, after, (folder / "steps").read_text().split())


@pytest.fixture(scope="module")
def packages(
    request: pytest.FixtureRequest, launcher: Launcher, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Packages]:
    """Packages, or folders, on this machine, or packages on a server with state and target elsewhere; told once."""

    @cache
    def at(place: str) -> Packages:
        folder = tmp_path_factory.mktemp(f"packages_{place}")
        if place in ("here", "folders"):
            return told(World.made(folder / "before", launcher), folder, dated=place == "folders")
        server: PostgresServer = request.getfixturevalue("server")
        drop: SftpServer = request.getfixturevalue("sftp_server")
        server.does(f"CREATE DATABASE packages_{place}")
        migrate.upgrade(server.url(f"packages_{place}"))
        state = Shared(server, f"packages_{place}")
        if place == "postgresql":
            in_postgresql = Shared(server, warehouse_database(server, "packages_target"))
            return told(World.made(folder / "before", launcher, state, in_postgresql, drop), folder)
        account: SnowflakeServer = request.getfixturevalue("snowflake")
        target = InSnowflake(account, account.database())
        with target.opened() as ask:
            made_by(ask, DRIVE, database=target.place, schema="PUBLIC", role=account.role)
        return told(World.made(folder / "before", launcher, state, target, drop), folder)

    return at


def disturbed(packages: Packages, folder: Path, step: str, number: int) -> list[str]:
    world = packages.before.copied(folder)
    ended = world.call(*RUN, "--jobs", "1", kill=f"{step}:{number}")
    assert ended.killed, f"{step} was not reached for the {number}. time: {ended}"
    world.forget_shortcuts()
    world.does(*RUN)
    return [*differences(packages.after, world.seen()), *(f"debris: {name}" for name in world.debris())]


@pytest.mark.parametrize("place", ["here", "folders"])
@pytest.mark.parametrize("step", SOME)
def test_killed_in_the_third_each_is_done_once(
    packages: Callable[[str], Packages], place: str, step: str, tmp_path: Path
) -> None:
    here = packages(place)
    number = here.in_the_third(step)
    assert number is not None
    assert disturbed(here, tmp_path / "world", step, number) == []


@pytest.mark.matrix
@pytest.mark.parametrize("step", MANY)
def test_killed_there_at_any_other_step_it_is_too(
    packages: Callable[[str], Packages], step: str, tmp_path: Path
) -> None:
    here = packages("here")
    number = here.in_the_third(step)
    if number is None:
        pytest.skip(f"the third package does not come to {step}")
    assert disturbed(here, tmp_path / "world", step, number) == []


@pytest.mark.matrix
@pytest.mark.services
@pytest.mark.parametrize("place", ["postgresql", "snowflake"])
@pytest.mark.parametrize("step", SOME)
def test_killed_with_all_elsewhere_and_its_disk_thrown_away_each_is_done_once(
    packages: Callable[[str], Packages], place: str, step: str, tmp_path: Path
) -> None:
    there = packages(place)
    number = there.in_the_third(step)
    assert number is not None
    assert disturbed(there, tmp_path / "world", step, number) == []
