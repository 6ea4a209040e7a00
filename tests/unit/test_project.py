"""A project's configuration in all its layers, and opening what a pipeline names."""

import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingestkit import project
from ingestkit.errors import ConfigError
from ingestkit.pipeline import Stop, SystemClock
from ingestkit.project import Project
from ingestkit.session import Session

SETTINGS = """\
jobs: 3
profiles:
  local:
    connections:
      drop: {type: local, path: drop}
      lake: {type: local, path: state/lake}
      warehouse: {type: duckdb, path: state/warehouse.duckdb}
    pipelines:
      demo: {source: {settle: {quiet: 0s}}}
  prod:
    jobs: 8
    connections:
      drop: {type: local, path: '${env:DROP}'}
      lake: {type: local, path: '${file:config/lake-path}'}
      warehouse: {type: duckdb, path: state/prod.duckdb}
"""
PIPELINE = """\
pipeline: demo
source:
  connection: drop
  batches: {folders: '(?P<batch>[0-9]+)'}
models:
  hcp:
    files: 'hcp.csv'
    key: [vid__v]
    columns:
      vid__v: {type: string, required: yes}
"""


class Quiet:
    def began(self, stage: str, model: str, total: int | None) -> None: ...
    def moved(self, stage: str, model: str, by: int) -> None: ...
    def ended(self, stage: str, model: str, status: str) -> None: ...
    def said(self, message: str, **facts: Any) -> None: ...
    def warned(self, message: str, **facts: Any) -> None: ...


def write(root: Path, settings: str = SETTINGS, pipeline: str | None = PIPELINE, env: str | None = None) -> Path:
    (root / "config" / "pipelines").mkdir(parents=True, exist_ok=True)
    (root / "config" / "settings.yaml").write_text(textwrap.dedent(settings))
    if pipeline is not None:
        (root / "config" / "pipelines" / "demo.yaml").write_text(textwrap.dedent(pipeline))
    if env is not None:
        (root / "config.env").write_text(env)
    return root


def load(root: Path, environ: Mapping[str, str] | None = None, **said: Any) -> Project:
    return project.load(root, environ=environ or {}, **said)


def opened(loaded: Project) -> Session:
    return loaded.open("demo", clock=SystemClock(), stop=Stop(), progress=Quiet())


def problems(call: Callable[[], object]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        call()
    assert caught.value.hint
    return caught.value.message.splitlines()


# Which layer wins


def test_each_layer_yields_to_the_one_above_it(tmp_path: Path) -> None:
    root = write(tmp_path)
    asked = {"INGESTKIT__JOBS": "6"}
    assert load(write(tmp_path / "bare", "", None)).settings.jobs == 2
    assert load(root).settings.jobs == 3
    assert load(root, profile="prod").settings.jobs == 8
    write(root, env="INGESTKIT__JOBS=5\n")
    assert load(root, profile="prod").settings.jobs == 5
    assert load(root, asked, profile="prod").settings.jobs == 6
    assert load(root, asked, profile="prod", flags={"jobs": 7}).settings.jobs == 7


def test_profile_and_environment_reach_into_a_pipeline(tmp_path: Path) -> None:
    root = write(tmp_path)
    assert load(root).pipeline("demo").settings.source.settle.quiet.total_seconds() == 0
    asked = {
        "INGESTKIT__PIPELINES__DEMO__SOURCE__SETTLE__QUIET": "7s",
        "ingestkit__pipelines__demo__models__hcp__columns__vid__v__type": "integer",
        "INGESTKIT__PIPELINES__DEMO__MODELS__HCP__KEY": '["vid__v"]',
        "INGESTKIT__PIPELINES__DEMO__TIMEOUTS__VALIDATE": "5m",
    }
    settings = load(root, asked).pipeline("demo").settings
    assert settings.source.settle.quiet.total_seconds() == 7
    assert settings.models["hcp"].columns["vid__v"].type == "integer"
    assert settings.models["hcp"].columns["vid__v"].required
    assert settings.timeouts.validate_ is not None
    flagged = load(root, asked, flags={"pipelines.demo.source.settle.quiet": "9s"}).pipeline("demo").settings
    assert flagged.source.settle.quiet.total_seconds() == 9


def test_a_variable_means_the_longest_name_it_fits(tmp_path: Path) -> None:
    root = write(tmp_path, pipeline=PIPELINE + "      vid: {type: string}\n      VID__V__old: {type: string}\n")
    (root / "config" / "pipelines" / "demo__two.yaml").write_text(PIPELINE.replace("demo", "demo__two"))
    columns = "INGESTKIT__PIPELINES__DEMO__MODELS__HCP__COLUMNS"
    asked = {
        f"{columns}__VID__V__TYPE": "integer",
        f"{columns}__VID__V__OLD__TYPE": "date",
        "INGESTKIT__PIPELINES__DEMO__TWO__PUBLISH": "model",
    }
    loaded = load(root, asked)
    settings = loaded.pipeline("demo").settings
    types = {name: column.type for name, column in settings.models["hcp"].columns.items()}
    assert types == {"vid__v": "integer", "vid": "string", "VID__V__old": "date"}
    assert (settings.publish, loaded.pipeline("demo__two").settings.publish) == ("batch", "model")


def test_the_profile_is_chosen_by_flag_then_environment_then_file(tmp_path: Path) -> None:
    root = write(tmp_path)
    assert load(root).profile == "local"
    assert load(write(tmp_path / "b", "profile: prod\n" + SETTINGS)).profile == "prod"
    assert load(root, {"INGESTKIT_PROFILE": "prod"}).profile == "prod"
    assert load(root, {"INGESTKIT__PROFILE": "prod"}).profile == "prod"
    assert load(root, {"INGESTKIT_PROFILE": ""}).profile == "local"
    assert load(root, {"INGESTKIT_PROFILE": "prod"}, profile="local").profile == "local"
    assert load(write(root, env="INGESTKIT_PROFILE=prod\n")).profile == "prod"
    assert load(root, {"INGESTKIT_PROFILE": "local"}).profile == "local"


def test_another_file_of_variables_replaces_the_projects_own(tmp_path: Path) -> None:
    root = write(tmp_path, env="INGESTKIT__JOBS=5\n")
    other = tmp_path / "other.env"
    other.write_text("# a comment\n\nexport INGESTKIT__STATE__BUSY_TIMEOUT='3s'\n")
    assert load(root, env_file=other).settings.jobs == 3
    assert load(root, env_file=other).settings.state.busy_timeout.total_seconds() == 3
    assert problems(lambda: load(root, env_file=tmp_path / "gone.env")) == [
        "gone.env: cannot be read: No such file or directory"
    ]


def test_origins_name_layer_and_place(tmp_path: Path) -> None:
    root = write(tmp_path, env="\nINGESTKIT__LOG__LEVEL=debug\n")
    loaded = load(root, {"INGESTKIT__STATE__LEASE__BEAT": "5s"}, flags={"log.format": "json"})
    origins = {one.key: (one.layer, one.place) for one in loaded.explained()}
    assert origins["jobs"] == ("file", "config/settings.yaml:1")
    assert origins["connections.drop.path"] == ("profile local", "config/settings.yaml:5")
    assert origins["log.level"] == ("env file", "config.env:2 INGESTKIT__LOG__LEVEL")
    assert origins["state.lease.beat"] == ("environment", "INGESTKIT__STATE__LEASE__BEAT")
    assert origins["log.format"] == ("flag", "--log-format")
    assert origins["memory_limit"] == ("default", "")
    assert origins["profile"] == ("default", "")
    settle = {one.key: (one.value, one.layer) for one in loaded.explained("demo")}
    assert settle["source.settle.quiet"] == ("0s", "profile local")


# What is refused, and how it is told


def test_every_problem_is_told_at_once_with_file_line_key_and_nearest_name(tmp_path: Path) -> None:
    settings = """\
    joobs: 4
    state:
      lease:
        ttll: 3s
      busy_timeout: 5
    jobs: 200
    log: {level: inof}
    memory_limit: 5
    connections:
      a: {type: local, pth: x}
      b: {path: x}
      c: {type: ducdb, path: x}
      d: 5
    """
    root = write(tmp_path, settings)
    assert set(problems(lambda: load(root))) == {
        "config/settings.yaml:1: joobs: unknown key; did you mean 'jobs'?",
        "config/settings.yaml:4: state.lease.ttll: unknown key; did you mean 'ttl'?",
        (
            "config/settings.yaml:5: state.busy_timeout: a duration is a number and one of ms, s, m, h, d, w,"
            " such as 90s or 5m"
        ),
        "config/settings.yaml:6: jobs: should be less than or equal to 64",
        "config/settings.yaml:7: log.level: should be 'debug', 'info', 'warning' or 'error'; did you mean 'info'?",
        (
            "config/settings.yaml:8: memory_limit: should be a valid string;"
            " put it in quotes, unquoted YAML reads it as a number or true/false"
        ),
        "config/settings.yaml:10: connections.a.path: is needed here",
        "config/settings.yaml:10: connections.a.pth: unknown key; did you mean 'path'?",
        "config/settings.yaml:11: connections.b.type: is needed here",
        "config/settings.yaml:12: connections.c.type: there is no type 'ducdb'; did you mean 'duckdb'?",
        "config/settings.yaml:13: connections.d: should be a mapping",
    }


def test_problems_of_a_variable_name_the_variable(tmp_path: Path) -> None:
    asked = {
        "INGESTKIT__JBS": "3",
        "INGESTKIT__JOBS": "900",
        "INGESTKIT__STATE__LEASE__TLL": "3s",
        "INGESTKIT__PIPELINES__DEMMO__LAKE": "x",
        "INGESTKIT__": "x",
    }
    root = write(tmp_path)
    assert set(problems(lambda: load(root, asked))) == {
        "INGESTKIT__JBS: there is no setting 'jbs'; did you mean 'jobs'?",
        "INGESTKIT__JOBS: jobs: should be less than or equal to 64",
        "INGESTKIT__STATE__LEASE__TLL: there is no setting 'tll' in state.lease; did you mean 'ttl'?",
        "INGESTKIT__PIPELINES__DEMMO__LAKE: there is no pipeline 'demmo'; did you mean 'demo'?",
        "INGESTKIT__: names no setting; such as INGESTKIT__JOBS",
    }
    asked = {
        "INGESTKIT__PIPELINES__DEMO__MODELS__HCP__KEY": "vid__v",
        "INGESTKIT__PIPELINES__DEMO__MODELS__HCP__COLUMNS": "{vid__v",
        "INGESTKIT__PIPELINES__DEMO__GATE__MAX_REJECT_PCT": "400",
    }
    assert set(problems(lambda: load(root, asked).pipeline("demo"))) == {
        'INGESTKIT__PIPELINES__DEMO__MODELS__HCP__KEY: models.hcp.key: should be a list, such as ["a", "b"]',
        (
            "INGESTKIT__PIPELINES__DEMO__MODELS__HCP__COLUMNS: pipelines.demo.models.hcp.columns is a list or mapping,"
            " and the value is not JSON"
        ),
        "INGESTKIT__PIPELINES__DEMO__GATE__MAX_REJECT_PCT: gate.max_reject_pct: should be less than or equal to 100",
    }


def test_a_variable_may_say_one_of_a_setting_that_may_be_several(tmp_path: Path) -> None:
    root = write(tmp_path)
    for said, meant in {"n/a": ("n/a",), '["n/a", "-"]': ("n/a", "-")}.items():
        asked = {"INGESTKIT__PIPELINES__DEMO__MODELS__HCP__NULLS": said}
        assert load(root, asked).pipeline("demo").model("hcp").nulls == meant


def test_one_setting_named_by_two_variables_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path)
    asked = {"INGESTKIT__JOBS": "3", "ingestkit__jobs": "4"}
    assert problems(lambda: load(root, asked)) == ["ingestkit__jobs: sets jobs, as INGESTKIT__JOBS does"]


def test_a_pipelines_problems_are_told_in_its_file(tmp_path: Path) -> None:
    root = write(tmp_path, pipeline=PIPELINE.replace("drop", "drp") + "    lod: merge\n    load: mrege\n")
    assert problems(lambda: load(root).pipeline("demo")) == [
        (
            "config/pipelines/demo.yaml:12: models.hcp.load: should be 'replace', 'append', 'merge' or 'window';"
            " did you mean 'merge'?"
        ),
        "config/pipelines/demo.yaml:11: models.hcp.lod: unknown key; did you mean 'load'?",
    ]
    write(root, pipeline=PIPELINE.replace("drop", "drp").replace("demo", "demos") + "lake: warehouse\n")
    assert problems(lambda: load(root).pipeline("demo")) == [
        "config/pipelines/demo.yaml:1: pipeline: says 'demos', but the file is named for 'demo'",
        "config/pipelines/demo.yaml:3: source.connection: profile local has no connection 'drp'; did you mean 'drop'?",
        "config/pipelines/demo.yaml:11: lake: connection 'warehouse' is of type duckdb, which does not serve here",
    ]


def test_secrets_are_not_written_into_the_settings(tmp_path: Path) -> None:
    written = {"type": "postgresql", "database": "d", "user": "u", "password": "hunter2"}
    root = write(tmp_path, yaml.safe_dump({"connections": {"warehouse": written}}))
    [told] = problems(lambda: load(root))
    assert told.startswith("config/settings.yaml:4: connections.warehouse.password: is a secret")
    assert "hunter2" not in told
    write(tmp_path, yaml.safe_dump({"connections": {"warehouse": written | {"password": "${env:WAREHOUSE_PASSWORD}"}}}))
    load(root)
    lake = {"type": "s3", "bucket": "lake", "access_key": "AKIA", "secret_key": "hunter2"}
    write(tmp_path, yaml.safe_dump({"connections": {"lake": lake}}))
    [told] = problems(lambda: load(root))
    assert "connections.lake.secret_key: is a secret" in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    "said", ["//me:{}@host/d", "//me:{}@host:5432/d?sslmode=require", "//host/d?user=me&password={}"]
)
def test_a_password_is_not_written_into_the_address_of_the_state(tmp_path: Path, said: str) -> None:
    root = write(tmp_path, yaml.safe_dump({"state": {"url": f"postgresql:{said.format('hunter2')}"}}))
    [told] = problems(lambda: load(root))
    assert told.startswith("config/settings.yaml:2: state.url: its password is a secret")
    assert "hunter2" not in told
    for right in (said.format("${env:STATE_PASSWORD}"), said.format(""), "//me@host/d"):
        write(tmp_path, yaml.safe_dump({"state": {"url": f"postgresql:{right}"}}))
        load(root)


def test_names_that_postgresql_would_cut_short_or_has_itself_are_told(tmp_path: Path) -> None:
    long = "é" * 32
    columns = {long: {}, "CTID": {}, "ctid_": {}, "xmin": {}, "doc": {"type": "json"}}
    pipeline = yaml.safe_load(PIPELINE)
    pipeline["models"]["hcp"] |= {"columns": columns, "key": ["doc"], "table": "t" * 64, "rejects_table": "places"}
    local = {"drop": {"type": "local", "path": "drop"}, "lake": {"type": "local", "path": "lake"}}
    warehouse = {"type": "postgresql", "database": "d", "user": "u"}
    root = write(
        tmp_path,
        yaml.safe_dump({"connections": local | {"warehouse": warehouse}}),
        yaml.safe_dump(pipeline, allow_unicode=True),
    )
    found = [one.split(": ", 1)[1] for one in problems(lambda: load(root).pipeline("demo"))]
    assert set(found) == {
        f"models.hcp.table: a name in PostgreSQL has at most 63 bytes, and {'t' * 64!r} more",
        f"models.hcp.rejects_table: a name in PostgreSQL has at most 63 bytes, and {'t' * 64 + '__rejects'!r} more",
        f"models.hcp.columns.{long}: a name in PostgreSQL has at most 63 bytes, and {long!r} more",
        "models.hcp.columns.xmin: every table in PostgreSQL has a column 'xmin' of its own already",
        "models.hcp.columns.doc: PostgreSQL compares no values of type json, so 'doc' cannot be of the key",
    }
    write(tmp_path, yaml.safe_dump({"connections": local | {"warehouse": {"type": "duckdb", "path": "w.duckdb"}}}))
    load(root).pipeline("demo")


def test_names_that_snowflake_refuses_are_told(tmp_path: Path) -> None:
    long, fits = "é" * 256, "é" * 255
    told = "t" * 250 + "__rejects"
    pipeline = yaml.safe_load(PIPELINE)
    pipeline["models"]["hcp"] |= {
        "columns": {long: {}, fits: {}},
        "key": [fits],
        "table": "t" * 250,
        "rejects_table": "raw",
    }
    connections = {
        "drop": {"type": "local", "path": "drop"},
        "lake": {"type": "local", "path": "lake"},
        "warehouse": {"type": "snowflake", "account": "a", "user": "u", "database": "d", "private_key": "k.p8"},
    }
    root = write(tmp_path, yaml.safe_dump({"connections": connections}), yaml.safe_dump(pipeline, allow_unicode=True))
    found = [one.split(": ", 1)[1] for one in problems(lambda: load(root).pipeline("demo"))]
    assert found == [
        f"models.hcp.rejects_table: a name in Snowflake has at most 255 characters, and {told!r} more",
        f"models.hcp.columns.{long}: a name in Snowflake has at most 255 characters, and {long!r} more",
    ]


def test_a_warehouse_whose_driver_is_missing_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = {"drop": {"type": "local", "path": "drop"}, "lake": {"type": "local", "path": "lake"}}
    warehouse = {"type": "postgresql", "database": "d", "user": "u"}
    write(tmp_path, yaml.safe_dump({"connections": local | {"warehouse": warehouse}}))
    session = opened(load(tmp_path))
    for name in [name for name in sys.modules if name.startswith("ingestkit.warehouses.postgresql")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match="its driver is not installed") as refused:
        session.warehouse.check()
    assert refused.value.hint == "pip install 'ingestkit[postgresql]'"


def test_a_broken_pipeline_stops_no_other(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "config" / "pipelines" / "broken.yaml").write_text("a: [1\n")
    loaded = load(root)
    assert loaded.pipelines() == ("broken", "demo")
    assert loaded.pipeline("demo").name == "demo"
    assert problems(lambda: loaded.pipeline("broken"))[0].startswith("config/pipelines/broken.yaml:2: not valid YAML")
    assert [(one.subject, bool(one.problems)) for one in project.examined(root, environ={})] == [
        ("config/settings.yaml", False),
        ("config/settings.yaml, profile prod", False),
        ("config/pipelines/broken.yaml", True),
        ("config/pipelines/demo.yaml", False),
    ]


def test_two_files_of_one_pipeline_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "config" / "pipelines" / "demo.json").write_text("{}")
    assert "same name" in problems(lambda: load(root))[0]


def test_unknown_profiles_and_pipelines_name_the_nearest(tmp_path: Path) -> None:
    root = write(tmp_path)
    assert problems(lambda: load(root, profile="prd")) == ["--profile: there is no profile 'prd'; did you mean 'prod'?"]
    assert problems(lambda: load(root).pipeline("dmo")) == ["there is no pipeline 'dmo'; did you mean 'demo'?"]
    write(root, SETTINGS.replace("demo:", "dmo:"))
    assert problems(lambda: load(root)) == ["config/settings.yaml:9: there is no pipeline 'dmo'; did you mean 'demo'?"]


def test_a_line_of_variables_that_says_nothing_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path, env="A=1\n\n\nBROKEN LINE\n")
    assert problems(lambda: load(root)) == ["config.env:4: not NAME=value"]


def test_true_is_no_number(tmp_path: Path) -> None:
    assert problems(lambda: load(write(tmp_path, "jobs: true\n"))) == [
        "config/settings.yaml:1: jobs: should be a number"
    ]


# Secrets


def test_references_are_resolved_when_opened_and_shown_nowhere(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "config" / "lake-path").write_text("hidden/lake\n")
    loaded = load(root, {"DROP": "hidden/drop"}, profile="prod")
    session = opened(loaded)
    assert session.source.drop.root == root / "hidden" / "drop"  # type: ignore[attr-defined]
    assert session.lake.store.root == root / "hidden" / "lake"  # type: ignore[attr-defined]
    assert session.config["connections"]["drop"]["path"] == "${env:DROP}"
    assert "hidden" not in repr(session) + repr(loaded) + repr(session.config) + repr(loaded.explained())


def test_a_variable_of_the_env_file_serves_as_a_secret(tmp_path: Path) -> None:
    root = write(tmp_path, env="DROP=from-file\n")
    (root / "config" / "lake-path").write_text("lake")
    assert opened(load(root, profile="prod")).source.drop.root == root / "from-file"  # type: ignore[attr-defined]
    session = opened(load(root, {"DROP": "from-process"}, profile="prod"))
    assert session.source.drop.root == root / "from-process"  # type: ignore[attr-defined]


def test_a_missing_secret_names_the_key_that_needs_it(tmp_path: Path) -> None:
    root = write(tmp_path)
    assert problems(lambda: opened(load(root, profile="prod"))) == [
        "connections.drop.path needs the environment variable DROP, which is not set"
    ]
    missing = problems(lambda: opened(load(root, {"DROP": "x"}, profile="prod")))
    assert missing[0].startswith("connections.lake.path needs the file ")


def test_a_reference_nobody_would_resolve_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path, SETTINGS + "scratch: '${env:X}/y'\nstate: {url: '${vault:x}'}\n")
    assert problems(lambda: load(root)) == [
        (
            "config/settings.yaml:16: scratch: a reference is resolved in connections, state.url,"
            " metrics.otlp, alerts.channels and a pipeline's source, not here"
        ),
        "config/settings.yaml:17: state.url: there are no references of kind 'vault'; known are env, file",
    ]


# Finding and opening


def test_a_project_is_found_from_a_folder_below_it(tmp_path: Path) -> None:
    root = write(tmp_path / "here")
    (root / "a" / "b").mkdir(parents=True)
    assert project.find(root / "a" / "b") == root
    assert "no project at" in problems(lambda: project.find(tmp_path))[0]


def test_relative_places_lie_below_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    session = opened(load(root))
    assert (root / "state" / "ingestkit.db").exists()
    assert session.scratch.parent == root / "state" / "scratch"
    assert session.warehouse.path == root / "state" / "warehouse.duckdb"  # type: ignore[attr-defined]
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///state/x.db", "sqlite:////p/state/x.db"),
        ("sqlite+pysqlite:///x.db?mode=ro", "sqlite+pysqlite:////p/x.db?mode=ro"),
        ("sqlite:////abs/x.db", "sqlite:////abs/x.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite://", "sqlite://"),
        ("postgresql://h/db", "postgresql://h/db"),
    ],
)
def test_a_relative_sqlite_url_lies_below_the_project(url: str, expected: str) -> None:
    assert project.below_root(url, Path("/p")) == expected


def test_a_run_is_reopened_with_the_configuration_it_kept(tmp_path: Path) -> None:
    root = write(tmp_path)
    before = opened(load(root))
    write(root, pipeline=PIPELINE.replace("hcp.csv", "other.csv"))
    today = opened(load(root))
    assert today.config_hash != before.config_hash
    again = today.reopen(before.config)
    assert again.config_hash == before.config_hash
    assert again.pipeline == before.pipeline
    assert again.state is today.state
    assert opened(load(root)).config_hash == today.config_hash


def test_a_kept_configuration_of_another_version_is_told(tmp_path: Path) -> None:
    session = opened(load(write(tmp_path)))
    kept = {**session.config, "pipeline": {**session.config["pipeline"], "later": 1}}
    assert problems(lambda: session.reopen(kept))[0].startswith("the run's own configuration: later: unknown key")


def test_every_configuration_of_this_project_is_right() -> None:
    root = Path(__file__).parents[2]
    assert [one for one in project.examined(root, environ={}) if one.problems] == []
