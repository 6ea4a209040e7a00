"""The schemas take what the loader takes, and refuse what it refuses where a schema can tell."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ingestkit import layers, project, schemas
from ingestkit.cli.main import call
from ingestkit.errors import ConfigError
from ingestkit.settings import PipelineSettings
from ingestkit.shapes import checked
from tests.docs.pages import FOR_USERS, ROOT, Block, blocks, page
from tests.integration.world import PIPELINE, changed

SOURCE = "source: {connection: d, batches: {folders: '(?P<batch>x)'}}"
MODELS = "models: {m: {columns: {a: {}}}}"
WHOLE = f"pipeline: p\n{SOURCE}\n{MODELS}\n"

TAKEN = [
    WHOLE,
    f"{WHOLE}gate: {{max_reject_pct: 0, row_delta_pct: never}}",
    f"{WHOLE}gate: {{max_reject_pct: '0.5'}}",
    f"{WHOLE}retry: {{attempts: '3', first_wait: 1.5s, hold_after: null}}",
    f"{WHOLE}timeouts: {{validate: 5m}}",
    f"{WHOLE}lineage: {{run_id: no, record_no: 'True', source_file: 0}}",
    f"pipeline: p\n{SOURCE}\nmodels: {{m: {{nulls: NA, normalise: trim, columns: {{a: {{type: 'decimal(9, 2)'}}}}}}}}",
    f"pipeline: p\n{SOURCE}\nmodels: {{m: {{nulls: [NA, '-'], columns: {{a: {{normalise: [trim, nfc]}}}}}}}}",
    WHOLE.replace("{a: {}}", "{a: {}}, csv: {delimiter: tab, quote: none, trailer: END}"),
    f"pipeline: p\n{SOURCE}\nmodels: {{m: {{columns: {{a: {{type: integer, min: '0', max: 10}}}}}}}}",
    f"pipeline: p\n{SOURCE}\nmodels: {{m: {{columns: {{required: {{}}, 'a b': {{}}, minProperties: {{}}}}}}}}",
    "pipeline: p\nsource: {connection: '${env:WHERE}', batches: {files: '(?P<batch>x)'}}\n" + MODELS,
]
REFUSED = [
    SOURCE,
    f"{SOURCE}\n{MODELS}",
    f"{WHOLE}gates: {{}}",
    f"{WHOLE}gate: {{max_reject_pct: 101}}",
    f"{WHOLE}gate: {{max_reject_pct: true}}",
    f"{WHOLE}gate: {{row_delta_pct: often}}",
    f"{WHOLE}retry: {{attempts: 0}}",
    f"{WHOLE}retry: {{attempts: 1.5}}",
    f"{WHOLE}retry: {{first_wait: 90}}",
    f"{WHOLE}retry: {{first_wait: 90 seconds}}",
    f"{WHOLE}timeouts: {{validate_: 5m}}",
    f"{WHOLE}lineage: {{run_id: perhaps}}",
    f"{WHOLE}publish: both",
    f"{WHOLE}lake: 7",
    WHOLE.replace("pipeline: p", "pipeline: P"),
    WHOLE.replace("{m:", "{M:"),
    WHOLE.replace("{a: {}}", "{}"),
    WHOLE.replace("{a: {}}", "[a]"),
    WHOLE.replace("{a: {}}", "{a: {type: text}}"),
    WHOLE.replace("{a: {}}", "{a: {type: decimal}}"),
    WHOLE.replace("{a: {}}", "{a: {enum: []}}"),
    WHOLE.replace("{a: {}}", "{a: {min: true}}"),
    WHOLE.replace("{a: {}}", "{a: {normalise: shout}}"),
    WHOLE.replace("{a: {}}", "{a: {}}, csv: {delimiter: ';;'}"),
    WHOLE.replace("{a: {}}", "{a: {}}, csv: {quote: ''}"),
    WHOLE.replace("{a: {}}", "{a: {}}, load: upsert"),
    WHOLE.replace("connection: d", "type: carrier_pigeon, connection: d"),
]

SETTINGS_TAKEN = [
    "jobs: 4",
    "jobs: '4'",
    "state: {lease: {ttl: 3m}}",
    "connections: {lake: {type: local, path: '${env:LAKE}'}}",
    "connections: {w: {type: duckdb, path: w.db, schema: main, lock_timeout: 1m}}",
    # The profile completes what the file began.
    "connections: {lake: {type: local}}\nprofiles: {local: {connections: {lake: {path: lake}}}}",
    "profiles: {local: null, prod: {jobs: 8, pipelines: {p: {gate: {min_rows: 1}, models: {m: {load: append}}}}}}",
]
SETTINGS_REFUSED = [
    "job: 4",
    "jobs: 0",
    "jobs: many",
    "state: {lease: {ttl: 3 m}}",
    "connections: {lake: {type: ftp, path: lake}}",
    "connections: {lake: {type: local, path: lake, schema: main}}",
    "pipelines: {p: {gate: {min_rows: 1}}}",
    "profiles: {local: {profile: prod}}",
    "profiles: {local: {profiles: {}}}",
    "profiles: {local: {memory_limit: lots}}",
]


def tree(text: str) -> Any:
    return layers.plain(layers.read_text(text, "a file", "file"))


def fits(schema: schemas.Schema, held: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(held))


def loads(root: Path, settings: str) -> bool:
    (root / "config/pipelines").mkdir(parents=True)
    (root / "config/settings.yaml").write_text(settings)
    (root / "config/pipelines/p.yaml").write_text(yaml.safe_dump(PIPELINE))
    try:
        project.load(root, environ={})
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("kind", schemas.KINDS)
def test_a_schema_is_one_itself(kind: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schemas.KINDS[kind]())


@pytest.mark.parametrize("text", TAKEN)
def test_a_pipeline_that_loads_fits(text: str) -> None:
    assert checked(PipelineSettings, layers.read_text(text, "a file", "file"))[1] == ()
    assert fits(schemas.pipeline(), tree(text))


@pytest.mark.parametrize("text", REFUSED)
def test_a_pipeline_that_is_refused_does_not_fit(text: str) -> None:
    assert checked(PipelineSettings, layers.read_text(text, "a file", "file"))[1] != ()
    assert not fits(schemas.pipeline(), tree(text))


@pytest.mark.parametrize("text", SETTINGS_TAKEN)
def test_settings_that_load_fit(tmp_path: Path, text: str) -> None:
    assert loads(tmp_path, text)
    assert fits(schemas.project(), tree(text))


@pytest.mark.parametrize("text", SETTINGS_REFUSED)
def test_settings_that_are_refused_do_not_fit(tmp_path: Path, text: str) -> None:
    assert not loads(tmp_path, text)
    assert not fits(schemas.project(), tree(text))


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("**/*.yaml")), ids=lambda path: path.name)
def test_every_file_of_the_configuration_fits(path: Path) -> None:
    kind = "pipeline" if path.parent.name == "pipelines" else "settings"
    assert fits(schemas.KINDS[kind](), tree(path.read_text()))


def test_the_pipeline_that_tests_are_made_of_fits_with_any_change_that_loads() -> None:
    assert fits(schemas.pipeline(), PIPELINE)
    assert fits(schemas.pipeline(), changed(PIPELINE, {"models.a.columns.id": None, "models.a.key": None}))
    assert not fits(schemas.pipeline(), changed(PIPELINE, {"models.a.colums": {"id": {}}}))


EXAMPLES = [block for name in FOR_USERS for block in blocks(page(name)) if block.language == "yaml"]


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: block.text.splitlines()[0])
def test_every_example_of_the_pages_fits(block: Block) -> None:
    held = tree(block.text)
    first = block.text.splitlines()[0]
    if "config/settings.yaml" in first:
        assert fits(schemas.project(), held)
    elif first.startswith("# config/pipelines/"):
        assert fits(schemas.pipeline(), held)
    else:
        part = {"models": {"m": held}} if "of a model" in first else held
        assert fits(schemas.project(), {"profiles": {"local": {"pipelines": {"p": part}}}})


def test_what_stands_below_a_setting_in_the_code_is_what_an_editor_shows() -> None:
    made = schemas.pipeline()["$defs"]
    assert made["Column"]["properties"]["format"]["description"].startswith("How dates and times are written")
    assert made["Model"]["properties"]["drift"]["description"].startswith("What a column that is in no contract does")
    assert made["Settle"]["properties"]["quiet"]["default"] == "1m"


def test_schemas_are_written_where_an_editor_finds_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/settings.yaml").write_text("jobs: 1\n")
    folder = tmp_path / "config/schemas"
    assert call(["--project", str(tmp_path), "config", "schema", "--output-dir", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "# yaml-language-server: $schema=schemas/settings.schema.json" in shown
    assert "# yaml-language-server: $schema=../schemas/pipeline.schema.json" in shown
    assert tree((folder / "pipeline.schema.json").read_text()) == schemas.pipeline()


def test_one_schema_is_told_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["config", "schema", "settings"]) == 0
    assert tree(capsys.readouterr().out) == schemas.project()
    assert call(["config", "schema", "setting"]) == 2
    assert "there is no schema 'setting'; there are settings, pipeline" in capsys.readouterr().err
