"""What the README gives to schedulers runs as they would run it; Airflow and Dagster themselves are stood in for."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from types import ModuleType
from typing import Any, ClassVar

import pytest

from ingestkit.scaffolding import TEMPLATE
from tests.docs.pages import below, page
from tests.docs.shop import BIN, WRONG, Project

README = page("README.md")


def shown(language: str, first: str = "") -> str:
    [block] = [one.text for one in below(README, "On a schedule") if one.language == language and first in one.text]
    return block


def standing_in(monkeypatch: pytest.MonkeyPatch, name: str, **names: Any) -> None:
    """Let a module be imported that has these names alone, and packages above it that have none."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        module = ModuleType(".".join(parts[:length]))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    vars(module).update(names)


def test_the_line_for_cron_is_what_init_writes() -> None:
    template = (TEMPLATE / "crontab.example").read_text().splitlines()[-1]
    assert (
        template.format(folder="/srv/shop", program="/opt/ingestkit/bin/ingestkit", pipeline="")
        == shown("cron").strip()
    )


def test_the_line_for_cron_runs_in_the_shell_and_the_environment_of_cron(shop: Project) -> None:
    shop.drop("2026-01-05")
    command = shown("cron").split(maxsplit=5)[5]
    assert "%" not in command
    there = command.replace("/srv/shop", shlex.quote(str(shop.root))).replace("/opt/ingestkit/bin", str(BIN))
    for said in ("1 batch done", "nothing new"):
        assert subprocess.run(["/bin/sh", "-c", there], env={}, cwd="/", check=False).returncode == 0
        assert said in (shop.root / "cron.log").read_text()
    assert shop.customers() == [1, 2]


@dataclass(frozen=True, slots=True)
class Task:
    """As much of a BashOperator as the DAG says of one, and who goes before whom."""

    task_id: str
    bash_command: str
    cwd: str
    retries: int
    before: ClassVar[list[tuple[str, str]]]

    def __rshift__(self, other: "Task") -> "Task":
        self.before.append((self.task_id, other.task_id))
        return other

    def rendered(self, run_id: str) -> str:
        command = self.bash_command.replace("{{ task.task_id }}", self.task_id).replace("{{ run_id }}", run_id)
        assert "{" not in command
        return command


class Dag:
    """As much of a DAG as the file says of one."""

    def __init__(self, dag_id: str, **said: object) -> None:
        assert set(said) == {"schedule", "start_date", "catchup", "max_active_runs"}

    def __enter__(self) -> None: ...

    def __exit__(self, *failure: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Dagster:
    """What the stand-in for Dagster was given."""

    metadata: dict[str, Any] = field(default_factory=dict)


class Failed(Exception):
    """Stands in for Dagster's Failure."""

    def __init__(self, description: str, metadata: dict[str, Any]) -> None:
        super().__init__(description)
        self.metadata = metadata


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Task]:
    """The tasks of the DAG file by name, in the order in which they go."""
    monkeypatch.setattr(Task, "before", [], raising=False)
    standing_in(monkeypatch, "airflow.sdk", DAG=Dag)
    standing_in(monkeypatch, "airflow.providers.standard.operators.bash", BashOperator=Task)
    scope: dict[str, Any] = {}
    exec(compile(shown("python", "# dags/"), "dags/shop.py", "exec"), scope)
    made = {one.task_id: one for one in scope.values() if isinstance(one, Task)}
    names = [Task.before[0][0], *(after for _, after in Task.before)]
    assert list(pairwise(names)) == Task.before
    return {name: made[name] for name in names}


def ends(task: Task, shop: Project, run_id: str) -> int:
    assert task.cwd == "/srv/shop"
    environ = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    command = ["bash", "-c", task.rendered(run_id)]
    return subprocess.run(command, cwd=shop.root, env=environ, check=False, capture_output=True).returncode


def test_the_tasks_of_airflow_do_a_batch_and_are_skipped_when_none_waits(shop: Project, tasks: dict[str, Task]) -> None:
    shop.drop("2026-01-05")
    assert list(tasks) == ["extract", "validate", "load", "gate", "clean"]
    assert [ends(one, shop, "scheduled__2026-01-05T00:00:00+00:00") for one in tasks.values()] == [0] * 5
    assert shop.customers() == [1, 2]
    assert [ends(one, shop, "scheduled__2026-01-06T00:00:00+00:00") for one in tasks.values()] == [99] * 5


def test_a_task_of_airflow_that_failed_goes_on_when_it_is_tried_again(shop: Project, tasks: dict[str, Task]) -> None:
    shop.put("2026-01-05", WRONG)
    run_id = "manual__2026-01-05T12:00:00.123456+00:00"
    assert [ends(tasks[name], shop, run_id) for name in ("extract", "validate", "validate")] == [0, 6, 6]
    shop.does(f"ingestkit approve {run_id} --reason 'known by the sender'")
    assert [ends(tasks[name], shop, run_id) for name in ("validate", "load", "gate", "clean")] == [0] * 4
    assert shop.customers() == [1]


@pytest.fixture
def asset(shop: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Dagster]:
    """What the ten lines make an asset of, run in the project."""
    standing_in(monkeypatch, "dagster", asset=lambda made: made, MaterializeResult=Dagster, Failure=Failed)
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    scope: dict[str, Any] = {}
    text = shown("python", "# shop.py").replace("/srv/shop", str(shop.root))
    exec(compile(text, "shop.py", "exec"), scope)
    made: Callable[[], Dagster] = scope["shop"]
    return made


def test_an_asset_of_dagster_tells_what_the_run_told(shop: Project, asset: Callable[[], Dagster]) -> None:
    shop.drop("2026-01-05")
    assert asset().metadata == {
        "message": "1 batch done: 2026-01-05",
        "run_ids": ["shop.2026-01-05.1"],
        "2026-01-05 customers": 2,
    }
    assert "nothing new" in asset().metadata["message"]


def test_an_asset_of_dagster_fails_as_the_run_did(shop: Project, asset: Callable[[], Dagster]) -> None:
    shop.put("2026-01-05", WRONG)
    with pytest.raises(Failed, match="reject_rate is 50") as failed:
        asset()
    assert failed.value.metadata == {"exit_code": 6}
    (shop.root / "config/pipelines/shop.yaml").unlink()
    with pytest.raises(Failed, match="there is no pipeline 'shop'") as failed:
        asset()
    assert failed.value.metadata == {"exit_code": 3}
