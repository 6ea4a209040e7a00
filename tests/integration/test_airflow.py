"""DAGs written for Airflow, run by real ones: a task is green, red or skipped as the exit code of its command says."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from tests import dbts
from tests.docs.pages import ROOT
from tests.docs.shop import BIN, hold
from tests.doubles.receivers import receiving

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(900)]
PACKAGES = "20260104_180000", "20260111_180000", "20260118_180000"
CLOSED = "SELECT vid__v FROM hcp LIMIT 1\n"
# What importing the file itself makes Airflow warn of, and nothing that its own modules do at their first import.
IMPORTED = """
import runpy, sys, warnings
runpy.run_path(sys.argv[1])
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    scope = runpy.run_path(sys.argv[1])
print([str(one.message) for one in told])
print({name: sorted(task.skip_on_exit_code) for name, task in scope["dag"].task_dict.items() if name != "arrived"})
print(sorted((one.task_id, sorted(one.downstream_task_ids)) for one in scope["dag"].tasks))
print(scope["dag"].max_active_runs, scope["dag"].catchup, scope["dag"].owner, scope["dag"].dagrun_timeout)
print(scope["stages"][0].retries, scope["stages"][0].retry_delay, scope["stages"][0].max_retry_delay)
"""
WARNED = """
import runpy, sys, warnings
runpy.run_path(sys.argv[1])
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    dag = runpy.run_path(sys.argv[1])["dag"]
print([str(one.message) for one in told], dag.dag_id, sorted(dag.task_dict), dag.max_active_runs, dag.catchup)
"""


@dataclass(frozen=True, slots=True)
class Airflow:
    programs: Path
    home: Path

    @property
    def environ(self) -> Mapping[str, str]:
        told = {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.home / "dags"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home}/airflow.db",
        }
        return {**{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}, **told}

    def does(self, *words: str, code: int = 0) -> str:
        command = [str(self.programs / words[0]), *words[1:]]
        ended = subprocess.run(command, env=self.environ, check=False, capture_output=True, text=True, cwd=self.home)
        assert ended.returncode == code, ended.stdout[-6000:] + ended.stderr[-6000:]
        return ended.stdout

    def tests(self, day: str, *, code: int = 0, said: Mapping[str, str] | None = None) -> dict[str, str]:
        """What became of each task of the DAG, run once for a day."""
        conf = ["--conf", json.dumps(said)] if said else []
        self.does("airflow", "dags", "test", "pipeline_opendata", day, *conf, code=code)
        asked = (
            "SELECT task_id, state FROM task_instance WHERE dag_id = 'pipeline_opendata' AND run_id = "
            "(SELECT run_id FROM dag_run WHERE dag_id = 'pipeline_opendata' ORDER BY id DESC LIMIT 1)"
        )
        with closing(sqlite3.connect(self.home / "airflow.db")) as db:
            return dict(db.execute(asked).fetchall())


@pytest.fixture(scope="module", params=["2", "3"])
def homes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    programs = ROOT / ".airflow" / request.param / "bin"
    if not programs.exists():
        pytest.skip("Airflow is not installed: make airflow")
    made = Airflow(programs, tmp_path_factory.mktemp(f"airflow{request.param}"))
    made.does("airflow", "db", "migrate")
    return made


@pytest.fixture
def airflow(homes: Airflow, tmp_path: Path) -> Airflow:
    shutil.copytree(homes.home, tmp_path / "airflow")
    return Airflow(homes.programs, tmp_path / "airflow")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The sample project, by itself."""
    for name in ("config", "sql"):
        shutil.copytree(ROOT / name, tmp_path / "project" / name)
    return tmp_path / "project"


def written(project: Path, airflow: Airflow, *flags: str) -> Path:
    program = called(airflow)
    command = [str(program), "schedule", "airflow", "opendata", "--out", str(airflow.home / "dags")]
    subprocess.run([*command, "--program", str(program), *flags], check=True, cwd=project, capture_output=True)
    return airflow.home / "dags/pipeline_opendata.py"


def called(airflow: Airflow) -> Path:
    program = airflow.home / "ingestkit"
    # The program of these sources, whatever the environment that Airflow gives it.
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT / "src"} exec {BIN / "ingestkit"} "$@"\n')
    program.chmod(0o755)
    return program


def schedule(project: Path, said: str) -> None:
    path = project / "config/pipelines/opendata.yaml"
    head, _, _ = path.read_text().partition("schedule:")
    path.write_text(f"{head}schedule: {said}\n")


def done(project: Path) -> list[str]:
    with closing(sqlite3.connect(project / "state/ingestkit.db")) as db:
        return [batch for (batch,) in db.execute("SELECT DISTINCT batch FROM completion ORDER BY batch")]


STAGES = ("extract", "validate", "load", "gate", "clean", "others")


def test_a_dag_is_imported_without_a_warning_and_is_what_the_pipeline_says(project: Path, airflow: Airflow) -> None:
    schedule(project, "{cron: '0 6 * * 1', timezone: Europe/Berlin, wait: 1h, catchup: true, timeout: 6h, tags: [crm]}")
    path = written(project, airflow)
    told = airflow.does("python", "-c", IMPORTED, str(path)).splitlines()[-5:]
    assert told[0] == "[]"
    assert told[1] == str({"others": [99], "extract": [8, 99], **{one: [99] for one in STAGES[1:5]}, "backfill": [99]})
    chain = [("arrived", ["extract"]), ("backfill", []), *((one, [after]) for one, after in pairwise(STAGES))]
    assert told[2] == str(sorted([*chain, ("others", [])]))
    assert told[3] == "1 True ingestkit 6:00:00"
    assert told[4] == "3 0:01:00 0:30:00"
    assert "No data found" in airflow.does("airflow", "dags", "list-import-errors")


def test_three_waiting_batches_are_done_in_order_and_then_nothing_is_new(project: Path, airflow: Airflow) -> None:
    written(project, airflow)
    assert airflow.tests("2026-02-01") == {**dict.fromkeys(STAGES, "success"), "backfill": "skipped"}
    assert done(project) == list(PACKAGES)
    assert airflow.tests("2026-02-02") == dict.fromkeys([*STAGES, "backfill"], "skipped")


def test_the_gate_is_the_red_task_at_once_and_who_looks_after_it_is_told(project: Path, airflow: Airflow) -> None:
    (project / "sql/gate/opendata/closed.sql").write_text(f"-- models: hcp\n{CLOSED}")
    told = airflow.home / "told"
    call = airflow.home / "tell"
    call.write_text(f'#!/bin/sh\necho "$@" >>{told}\n')
    call.chmod(0o755)
    written(project, airflow, "--on-failure", f"{call} someone")
    states = airflow.tests("2026-02-01", code=1)
    assert states == {
        **dict.fromkeys(STAGES[:3], "success"),
        "gate": "failed",
        **dict.fromkeys(STAGES[4:], "upstream_failed"),
        "backfill": "skipped",
    }
    assert told.read_text().startswith("someone pipeline_opendata.gate has failed in manual__")
    assert done(project) == []


def test_dbt_has_a_task_between_load_and_gate(project: Path, airflow: Airflow) -> None:
    for package in PACKAGES[1:]:
        shutil.rmtree(project / "config/samples/opendata" / package)
    path = project / "config/pipelines/opendata.yaml"
    path.write_text(f"{path.read_text()}dbt: {{program: {dbts.program()}}}\n")
    built = {
        "one.sql": "select 1 as id",
        "one.yml": "models: [{name: one, columns: [{name: id, data_tests: [hopeless]}]}]",
    }
    dbts.project(project / "dbt", {"type": "duckdb", "path": str(project / "state/warehouse.duckdb")}, built)
    macro = project / "dbt/tests/generic/hopeless.sql"
    macro.parent.mkdir(parents=True)
    macro.write_text("{% test hopeless(model, column_name) %}select * from {{ model }}{% endtest %}")
    written(project, airflow)
    assert airflow.tests("2026-02-01", code=1) == {
        **dict.fromkeys(STAGES[:3], "success"),
        "dbt": "failed",
        **dict.fromkeys(STAGES[3:], "upstream_failed"),
        "backfill": "skipped",
    }
    assert done(project) == []
    with closing(sqlite3.connect(project / "state/ingestkit.db")) as db:
        assert db.execute("SELECT exit_code FROM pipeline_run").fetchall() == [(6,)]
    macro.write_text(macro.read_text().replace("{{ model }}", "{{ model }} where false"))
    ended = airflow.tests("2026-02-02")
    assert ended == {**dict.fromkeys([*STAGES[:-1], "dbt"], "success"), "others": "skipped", "backfill": "skipped"}
    assert done(project) == list(PACKAGES[:1])


def test_a_person_asks_for_a_backfill_by_the_form(project: Path, airflow: Airflow) -> None:
    written(project, airflow)
    airflow.tests("2026-02-01")
    states = airflow.tests("2026-02-02", said={"batch": PACKAGES[2]})
    assert states == {**dict.fromkeys(STAGES, "skipped"), "backfill": "success"}
    with closing(sqlite3.connect(project / "state/ingestkit.db")) as db:
        assert db.execute("SELECT batch FROM pipeline_run WHERE kind = 'backfill'").fetchall() == [(PACKAGES[2],)]


def test_somebody_else_at_work_skips_the_first_task(project: Path, airflow: Airflow) -> None:
    path = written(project, airflow)
    path.write_text(path.read_text().replace("wait:10m", "wait:1s"))
    begun, over = threading.Event(), threading.Event()
    holder = threading.Thread(target=hold, args=(project, begun, over), kwargs={"pipeline": "opendata"})
    holder.start()
    try:
        assert begun.wait(30)
        assert airflow.tests("2026-02-01") == dict.fromkeys([*STAGES, "backfill"], "skipped")
    finally:
        over.set()
        holder.join()
    assert airflow.tests("2026-02-02")["others"] == "success"


def test_what_a_retry_does_not_cure_is_not_tried_again(project: Path, airflow: Airflow) -> None:
    schedule(project, "{cron: '0 6 * * *', wait: 1h}")
    written(project, airflow)
    path = project / "config/pipelines/opendata.yaml"
    path.write_text(path.read_text() + "nosuch: 1\n")
    # The sensor leaves it to the first task to say what is wrong.
    states = airflow.tests("2026-02-01", code=1)
    assert (states["arrived"], states["extract"], states["validate"]) == ("success", "failed", "upstream_failed")


def at_first(airflow: Airflow, command: str, code: int) -> None:
    """The program ends so when it is first called for this command, and says `called` each time it is."""
    program, called = airflow.home / "ingestkit", airflow.home / "called"
    real = program.rename(airflow.home / "real")
    program.write_text(
        f'#!/bin/sh\ncase " $* " in *" {command} "*) echo >>{called}; '
        f'[ "$(wc -l <{called})" -gt 1 ] || exit {code};; esac\nexec {real} "$@"\n'
    )
    program.chmod(0o755)


def test_somebody_else_at_work_behind_the_first_task_is_an_error_that_is_tried_again(
    project: Path, airflow: Airflow
) -> None:
    path = written(project, airflow)
    path.write_text(path.read_text().replace('"retry_delay": timedelta(minutes=1)', '"retry_delay": timedelta(0)'))
    at_first(airflow, "validate", 8)
    assert airflow.tests("2026-02-01") == {**dict.fromkeys(STAGES, "success"), "backfill": "skipped"}
    assert len((airflow.home / "called").read_text()) == 2
    assert done(project) == list(PACKAGES)


def test_a_sensor_looks_again_until_something_has_come(project: Path, airflow: Airflow) -> None:
    schedule(project, "{cron: '0 6 * * *', wait: 1h}")
    path = written(project, airflow)
    text = path.read_text()
    assert "POKE = " in text
    path.write_text(re.sub("(?m)^POKE = .*$", "POKE = 1", text))
    at_first(airflow, "plan", 99)
    assert airflow.tests("2026-02-01") == {**dict.fromkeys((*STAGES, "arrived"), "success"), "backfill": "skipped"}
    assert len((airflow.home / "called").read_text()) == 2


def test_what_no_run_can_notice_is_looked_for_by_a_dag_of_its_own(project: Path, airflow: Airflow) -> None:
    schedule(project, "{cron: '0 6 * * 1'}")
    with receiving() as receiver:
        path = project / "config/settings.yaml"
        said = yaml.safe_load(path.read_text())
        channel = {"type": "webhook", "url": "${file:hook}"}
        path.write_text(yaml.safe_dump(said | {"alerts": {"channels": {"ops": channel}, "check": "*/7 * * * *"}}))
        (project / "hook").write_text(receiver.url)
        pipeline = project / "config/pipelines/opendata.yaml"
        pipeline.write_text(f"{pipeline.read_text()}alerts: {{freshness: 1m}}\n")
        program = called(airflow)
        dags = str(airflow.home / "dags")
        command = [str(program), "schedule", "airflow", "--out", dags, "--program", str(program)]
        subprocess.run(command, check=True, cwd=project, capture_output=True)
        told = airflow.does("python", "-c", WARNED, f"{dags}/ingestkit_alerts.py").splitlines()[-1]
        assert told == "[] ingestkit_alerts ['check'] 1 False"
        airflow.does("airflow", "dags", "test", "ingestkit_alerts", "2026-02-01")
        # It is looked at from now on; a minute later that nothing was ever done is told.
        with closing(sqlite3.connect(project / "state/ingestkit.db")) as db:
            db.execute("UPDATE alert SET first_at = '2026-01-01T00:00:00.000000Z'")
            db.commit()
        airflow.does("airflow", "dags", "test", "ingestkit_alerts", "2026-02-02")
        assert [json.loads(body)["kind"] for body in receiver.bodies] == ["stale"]
        # Where nobody takes it the task is red.
        receiver.status = 500
        with closing(sqlite3.connect(project / "state/ingestkit.db")) as db:
            db.execute("UPDATE alert SET sent_at = NULL WHERE kind = 'stale'")
            db.commit()
        airflow.does("airflow", "dags", "test", "ingestkit_alerts", "2026-02-03", code=1)
