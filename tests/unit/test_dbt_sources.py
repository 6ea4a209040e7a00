from typing import Any

import yaml

from ingestkit.dbt_sources import Target, text
from ingestkit.pipeline import Pipeline
from ingestkit.settings import PipelineSettings
from tests.integration.world import PIPELINE, changed

HERE = Target("main")


def made(changes: dict[str, Any], target: Target = HERE) -> tuple[str, dict[str, dict[str, Any]]]:
    """The text, and the tables in it by name."""
    said = text(Pipeline(PipelineSettings.model_validate(changed(PIPELINE, changes))), target)
    [source] = yaml.safe_load(said)["sources"]
    return said, {table["name"]: table for table in source["tables"]}


def asked_of(table: dict[str, Any]) -> dict[str, Any]:
    return {column["name"]: column.get("data_tests", []) for column in table["columns"]}


def test_contracts_become_tests() -> None:
    columns = {
        "id": {"required": True},
        "kind": {"enum": ["x", "y"]},
        "size": {"type": "integer", "enum": ["1", "02"], "required": True},
        "other": {"references": "b.id"},
        "plain": {},
    }
    _, tables = made({"models.a.columns": columns})
    assert asked_of(tables["a"]) == {
        "id": ["not_null", "unique"],
        "kind": [{"accepted_values": {"arguments": {"values": ["x", "y"]}}}],
        "size": ["not_null", {"accepted_values": {"arguments": {"values": [1, 2], "quote": False}}}],
        "other": [{"relationships": {"arguments": {"to": "source('p', 'b')", "field": '"id"'}}}],
        "plain": [],
    }
    assert asked_of(tables["b"]) == {"id": ["not_null", "unique"], "d": []}


def test_what_each_batch_holds_once_and_the_table_may_not_is_not_tested() -> None:
    unique = {"models.a.columns.n.unique": True, "models.b.columns.d.unique": True}
    _, tables = made(unique)
    assert asked_of(tables["a"])["n"] == ["unique"]
    assert asked_of(tables["b"])["d"] == []
    _, tables = made(unique | {"models.a.load": "append"})
    assert asked_of(tables["a"]) == {"id": ["not_null"], "n": []}
    _, tables = made(unique | {"models.a.delta": "change"})
    assert asked_of(tables["a"]) == {"id": ["not_null", "unique"], "n": []}
    said, tables = made(unique | {"models.a.key": ["id", "n"]})
    assert asked_of(tables["a"]) == {"id": ["not_null"], "n": ["not_null", "unique"]}
    assert "# Their key is of several columns, which dbt has no test for: a.\n" in said


def test_freshness_is_that_of_the_gate() -> None:
    said, tables = made({"models.b.gate": {"freshness": {"column": "d", "max_age": "36h"}}})
    wanted = {
        "loaded_at_field": 'cast("d" as timestamp)',
        "freshness": {"error_after": {"count": 36, "period": "hour"}},
    }
    assert tables["b"]["config"] == wanted
    assert "config" not in tables["a"]
    assert "# Without freshness, since their gate says none: a.\n" in said
    ages = {"14d": (14, "day"), "90m": (90, "minute"), "90s": (2, "minute"), "1s": (1, "minute"), "0s": (1, "minute")}
    for age, (count, period) in ages.items():
        _, tables = made({"models.b.gate": {"freshness": {"column": "d", "max_age": age}}})
        assert tables["b"]["config"]["freshness"]["error_after"] == {"count": count, "period": period}


def test_names_are_as_the_target_spells_them() -> None:
    odd = {"models.a.table": 'Odd "table', "models.a.columns": {"id": {}, "{{ n }}": {"references": "b.id"}}}
    said, tables = made(odd)
    assert "\n- name: p\n  schema: main\n" in said
    assert tables["a"]["identifier"] == 'Odd ""table'
    assert tables["a"]["columns"][1]["name"] == "{{ '{{' }} n }}"
    said, tables = made(odd, Target("Mart", "shop", upper=True))
    assert "\n- name: p\n  database: SHOP\n  schema: MART\n" in said
    assert tables["a"]["identifier"] == 'ODD ""TABLE'
    assert tables["b"]["identifier"] == "B"
    assert tables["a"]["columns"][0]["name"] == "ID"
    assert tables["a"]["columns"][1]["data_tests"][0]["relationships"]["arguments"]["field"] == '"ID"'


def test_the_text_is_the_same_each_time() -> None:
    said, _ = made({})
    assert said == made({})[0]
    assert said.startswith("# written by `ingestkit dbt sources p`; when a contract changes, write it again.\n")
