"""Five archives that say their tables themselves, killed in the third of them: each is done once, and in order."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ingestkit.states import migrate
from tests.doubles.direct_data import Archive, Extract
from tests.faults.processes import Launcher
from tests.faults.targets import Shared
from tests.faults.test_story import named_steps
from tests.faults.world import RUN, World, differences
from tests.services import PostgresServer
from tests.warehouses import warehouse_database

pytestmark = pytest.mark.faults

PIPELINE = r"""
pipeline: opendata
source:
  type: files
  connection: drop
  batches: {files: '\d+-(?P<batch>\d{8}-\d{4}-[FN])\.tar\.gz', kind: text}
  settle: {quiet: 0s}
tables: {removed: drop}
gate: {max_reject_pct: 50}
retry: {attempts: 2, first_wait: 100ms, cap: 100ms, backoff: none}
"""
PRODUCT = {"id": "ID", "name__v": "String", "active__c": "Boolean", "launch_date__c": "Date", "strength__c": "Number"}
USER = {"id": "ID", "name__v": "String"}
OLD = {"id": "ID", "note__c": "String"}
LAST = {"id": "ID", "name__v": "String", "active__c": "Boolean", "strength__c": "Number", "atc_code__c": "String"}


def product(number: int, name: str, **more: str) -> dict[str, str]:
    return {"id": f"P{number}", "name__v": name, "active__c": "true", "strength__c": "2.5"} | more


ARCHIVES = {
    "0500-F": Archive(
        [
            Extract(
                "Object.product__v",
                PRODUCT,
                [product(number, "first", launch_date__c="2020-01-01") for number in range(1, 5)],
            ),
            Extract("Object.user__sys", USER, [{"id": "1", "name__v": "Ann"}]),
            Extract("Object.old__c", OLD, [{"id": "1", "note__c": "goes"}]),
        ]
    ),
    "0515-N": Archive(
        [Extract("Object.product__v", PRODUCT, [product(1, "second", active__c="oops"), product(5, "second")])],
        full=False,
        everything={"Object.product__v": PRODUCT, "Object.user__sys": USER, "Object.old__c": OLD},
    ),
    "0530-N": Archive(
        [
            Extract("Object.product__v", LAST, [product(2, "third", atc_code__c="C1")], [("P3",), ("P9",)]),
            Extract("Object.user__sys", USER, [{"id": "2", "name__v": "Bob"}]),
        ],
        full=False,
        changed=[("Object.product__v", "atc_code__c", "String")],
        removed=[
            ("Object.product__v", "launch_date__c"),
            ("Object.old__c", "id"),
            ("Object.old__c", "note__c"),
        ],
        everything={"Object.product__v": LAST, "Object.user__sys": USER},
        last=("manifest.csv",),
    ),
    "0545-N": Archive(
        [Extract("Object.product__v", LAST, [product(3, "again", strength__c="9" * 40)], [("P3",)])],
        full=False,
        everything={"Object.product__v": LAST, "Object.user__sys": USER},
    ),
    "0600-N": Archive(
        [Extract("Object.user__sys", USER, [{"id": "1", "name__v": "Anna"}], [("2",)])],
        full=False,
        everything={"Object.product__v": LAST, "Object.user__sys": USER},
    ),
}
SOME = ("validate.member_done", "load.before_commit", "load.committed", "load.dropping", "load.sidecar_written")
MANY = sorted(named_steps() - set(SOME))
NEVER = {
    "adopt.fenced",
    "adopt.owned",
    "check.done",
    "dbt.begun",
    "dbt.built",
    "dbt.done",
    "dbt.recorded",
    "dbt.sidecar_written",
    "dbt.started",
    "discover.noted",
    "lease.taken",
    "mirror.runs_added",
    "queue.appended",
    "queue.applied",
    "rebuild.marked",
    "rebuild.voided",
    "recover.adopted",
    "recover.replayed",
    "release.aside",
    "release.ended",
    "release.recorded",
    "store.sent",
    "validate.file_done",
    "validate.keys_compared",
    "validate.rejects_published",
    "vault.part_fetched",
    "warehouse.created",
    "windows.stepped_over",
}
"""Steps that the third archive does not come to where state and target are on a server."""


@dataclass(frozen=True, slots=True)
class Archives:
    before: World
    after: dict[str, Any]
    steps: list[str]

    def in_the_third(self, step: str) -> int | None:
        return self.within(3, step)

    def within(self, number: int, step: str) -> int | None:
        """When the step is reached first in an archive, counted over the whole run."""
        begins = [place for place, one in enumerate(self.steps) if one == "run.opened"]
        start, end = begins[number - 1], [*begins, len(self.steps)][number]
        return self.steps[:start].count(step) + 1 if step in self.steps[start:end] else None


def told(world: World, folder: Path) -> Archives:
    (world.folder / "config/pipelines/opendata.yaml").write_text(PIPELINE)
    world.drop({f"100123-20260115-{name}.tar.gz": archive.made() for name, archive in ARCHIVES.items()})
    return undisturbed(world, folder)


def undisturbed(world: World, folder: Path) -> Archives:
    """What comes of it, and by which steps, where nothing happens."""
    copy = world.copied(folder / "undisturbed")
    ended = copy.call(*RUN, "--jobs", "1", record=str(folder / "steps"))
    assert ended.code == 0, ended
    after = copy.seen()
    assert [row[2:4] for row in after["rows of product__v"]] == ["P1", "P2", "P3", "P4", "P5"]
    assert [row.split(", ")[1] for row in after["rows of user__sys"]] == ["'Anna'"]
    assert "rows of old__c" not in after
    return Archives(world, after, (folder / "steps").read_text().split())


@pytest.fixture(scope="module")
def archives(
    request: pytest.FixtureRequest, launcher: Launcher, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Archives]:
    """On this machine, or with state and target on a server; told once."""

    @cache
    def at(place: str) -> Archives:
        folder = tmp_path_factory.mktemp(f"archives_{place}")
        if place == "here":
            return told(World.made(folder / "before", launcher), folder)
        server: PostgresServer = request.getfixturevalue("server")
        server.does("CREATE DATABASE archives_state")
        migrate.upgrade(server.url("archives_state"))
        target = Shared(server, warehouse_database(server, "archives_target"))
        return told(World.made(folder / "before", launcher, Shared(server, "archives_state"), target), folder)

    return at


def disturbed(archives: Archives, folder: Path, step: str, number: int) -> list[str]:
    world = archives.before.copied(folder)
    ended = world.call(*RUN, "--jobs", "1", kill=f"{step}:{number}")
    assert ended.killed, f"{step} was not reached for the {number}. time: {ended}"
    world.forget_shortcuts()
    world.does(*RUN)
    return [*differences(archives.after, world.seen()), *(f"debris: {name}" for name in world.debris())]


@pytest.mark.parametrize("step", SOME)
def test_killed_in_the_third_each_is_done_once(archives: Callable[[str], Archives], step: str, tmp_path: Path) -> None:
    here = archives("here")
    number = here.in_the_third(step)
    assert number is not None
    assert disturbed(here, tmp_path / "world", step, number) == []


@pytest.mark.matrix
@pytest.mark.parametrize("step", MANY)
def test_killed_there_at_any_other_step_it_is_too(
    archives: Callable[[str], Archives], step: str, tmp_path: Path
) -> None:
    here = archives("here")
    number = here.in_the_third(step)
    if number is None:
        pytest.skip(f"the third archive does not come to {step}")
    assert disturbed(here, tmp_path / "world", step, number) == []


@pytest.mark.matrix
@pytest.mark.services
def test_elsewhere_it_comes_to_as_many_steps(archives: Callable[[str], Archives]) -> None:
    there = archives("postgresql")
    assert {step for step in named_steps() if there.in_the_third(step) is None} == NEVER


@pytest.mark.matrix
@pytest.mark.services
@pytest.mark.parametrize("step", sorted(named_steps() - NEVER))
def test_killed_with_state_and_target_elsewhere_each_is_done_once(
    archives: Callable[[str], Archives], step: str, tmp_path: Path
) -> None:
    there = archives("postgresql")
    number = there.in_the_third(step)
    assert number is not None
    assert disturbed(there, tmp_path / "world", step, number) == []
