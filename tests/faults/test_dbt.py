"""A run that dbt builds on, killed at the stage's steps: nothing of dbt is left, and the next run builds again."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import dbts
from tests.faults.processes import Launcher
from tests.faults.world import FIRST, RUN, World, differences
from tests.integration.test_dbt import left_of

pytestmark = [pytest.mark.faults, pytest.mark.services]
STEPS = ("dbt.begun", "dbt.started", "dbt.built", "dbt.done", "dbt.sidecar_written", "dbt.recorded")
BATCH = {name: text for name, text in FIRST.items() if name.startswith("20260101/")}
SOURCES = "version: 2\nsources: [{name: opendata, schema: main, tables: [{name: a}]}]\n"
TOTALS = "{{ config(materialized='table') }}\nselect count(*) as n from {{ source('opendata', 'a') }}\n"
TESTS = "version: 2\nmodels: [{name: totals, columns: [{name: n, data_tests: [not_null, unique]}]}]\n"


@dataclass(frozen=True, slots=True)
class Undisturbed:
    before: World
    after: dict[str, Any]
    steps: Counter[str]


def with_dbt(world: World) -> World:
    """What it builds is in a schema of its own, beside what is published. The file is this world's."""
    there = {"type": "duckdb", "path": str(world.warehouse), "schema": "mart"}
    dbts.project(world.folder / "dbt", there, {"sources.yml": SOURCES, "totals.sql": TOTALS, "totals.yml": TESTS})
    return world


def totals(world: World) -> list[Any]:
    with world.targeted() as ask:
        return list(ask("SELECT n FROM mart.totals"))


@pytest.fixture(scope="module")
def undisturbed(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("dbt")
    world = World.made(folder / "before", launcher)
    path = world.folder / "config/pipelines/opendata.yaml"
    path.write_text(f"{path.read_text()}dbt: {{program: {dbts.program()}}}\n")
    world.drop(BATCH)
    alone = with_dbt(world.copied(folder / "undisturbed"))
    ended = alone.call(*RUN, record=str(folder / "steps"))
    assert ended.code == 0, ended
    assert totals(alone) == [(2,)]
    return Undisturbed(world, alone.seen(), Counter((folder / "steps").read_text().split()))


def test_a_run_comes_to_every_step_of_the_stage(undisturbed: Undisturbed) -> None:
    assert {step for step in undisturbed.steps if step.startswith("dbt.")} == set(STEPS)


@pytest.mark.parametrize("step", STEPS)
def test_a_run_killed_there_is_built_on_again_by_the_next(undisturbed: Undisturbed, step: str, tmp_path: Path) -> None:
    world = with_dbt(undisturbed.before.copied(tmp_path / "world"))
    assert world.call(*RUN, kill=f"{step}:1").killed
    dbts.until(lambda: not left_of(world.folder))
    world.forget_shortcuts()
    world.does(*RUN)
    assert differences(undisturbed.after, world.seen()) == []
    assert totals(world) == [(2,)]
    assert world.debris() == []
