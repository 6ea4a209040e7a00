"""What the reference says is what the program does."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from ingestkit.cli.main import call
from ingestkit.csvvalues import MESSAGES
from ingestkit.settings import (
    Dialect,
    PipelineSettings,
    PostgresqlConnection,
    Section,
    SftpConnection,
    SnowflakeConnection,
)
from ingestkit.states import queries
from ingestkit.warehouses.postgresql_sql import PLAIN_TYPES
from tests.docs.pages import ROOT, Block, below, blocks, page, table, typed_below
from tests.docs.shop import Project

REFERENCE = page("docs/reference.md")


def lines(heading: str) -> list[str]:
    return typed_below(REFERENCE, heading)


def test_the_table_of_queries_is_what_their_files_say() -> None:
    known = queries.known(Path("nowhere")).values()
    assert table(REFERENCE, "query") == [[f"`{one.name}`", one.shows] for one in known]


def test_what_a_run_would_do_is_told_before_it(shop: Project) -> None:
    waiting, sensed, tried, some, again = lines("Before a run")
    shop.refused(sensed, 99)
    shop.drop("2026-01-12")
    told = json.loads(shop.does(waiting))
    keys = {key for row in table(REFERENCE, "key") for key in re.findall(r"`(\w+)`", row[0])}
    assert told["waiting"] == 1
    assert keys <= set(told)
    shop.does(sensed, tried, some)
    assert not (shop.root / "state/warehouse.duckdb").exists()
    shop.does("ingestkit run shop")
    assert "customers.csv" in shop.does(again)


def test_questions_to_the_state_are_answered(shop: Project) -> None:
    shop.drop("2026-01-05")
    shop.does("ingestkit run shop")
    every, failed, slow = lines("Questions to the state")
    assert "failed-runs" in shop.does(every)
    assert "no rows" in shop.does(failed)
    shop.does(slow)


def test_a_query_of_ones_own_is_asked_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [said] = [block.text for block in below(REFERENCE, "Questions to the state") if block.language == "sql"]
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "sql" / "ops").mkdir(parents=True)
    (tmp_path / "sql" / "ops" / "by-hand.sql").write_text(said)
    monkeypatch.chdir(tmp_path)
    assert call(["query", "by-hand"]) == 0
    assert capsys.readouterr().out == "no rows\n"


def test_the_defaults_of_a_pipeline_are_what_the_page_says() -> None:
    files = {block.text.split("\n", 1)[0]: yaml.safe_load(block.text) for block in blocks(REFERENCE) if is_yaml(block)}
    shop, defaults = files["# config/pipelines/shop.yaml"], files["# defaults"]
    said = {**shop, **defaults, "source": {**shop["source"], **defaults["source"]}}
    assert PipelineSettings.model_validate(said) == PipelineSettings.model_validate(shop)
    assert PipelineSettings.model_validate({**said, "publish": "model"}) != PipelineSettings.model_validate(shop)


def test_the_defaults_of_a_text_file_are_what_the_page_says() -> None:
    [text] = [block.text for block in blocks(REFERENCE) if block.text.startswith("# defaults of a model")]
    said = yaml.safe_load(text)
    assert set(said["csv"]) == set(Dialect.model_fields)
    assert Dialect.model_validate(said["csv"]) == Dialect()


def test_the_defaults_of_warehouses_on_servers_are_what_the_page_says() -> None:
    kinds: list[tuple[type[Section], set[str]]] = [
        (PostgresqlConnection, {"sslrootcert"}),
        (SnowflakeConnection, {"stage", "token", "endpoint", "answer_timeout"}),
    ]
    blocks = [*below(REFERENCE, "The warehouse"), *below(REFERENCE, "Snowflake")]
    shown_blocks = [one for one in blocks if "# defaults" in one.text]
    for block, (kind, unsaid) in zip(shown_blocks, kinds, strict=True):
        shown = (block.text, block.text.split("# defaults")[0])
        said, bare = (yaml.safe_load(one)["connections"]["warehouse"] for one in shown)
        assert {*kind.model_fields} - {"schema_", *unsaid} == {*said} - {"schema"}
        assert kind.model_validate(said) == kind.model_validate(bare)
    several = re.findall(r"^\* \*\*Types\.\*\* (.*?)^\*", REFERENCE, re.MULTILINE | re.DOTALL)
    assert len(several) == len(kinds)
    assert all(set(PLAIN_TYPES) <= set(re.findall(r"\w+", types)) for types in several)


def test_the_defaults_of_a_drop_on_a_server_are_what_the_page_says() -> None:
    [text] = [block.text for block in below(REFERENCE, "A drop on an SFTP server")]
    said, bare = (yaml.safe_load(one)["connections"]["drop"] for one in (text, text.split("# defaults")[0]))
    assert {*SftpConnection.model_fields} - {"password", "passphrase", "options"} == {*said}
    assert SftpConnection.model_validate(said) == SftpConnection.model_validate(bare)
    assert all(f"`{name}: " in REFERENCE for name in ("password", "passphrase", "options"))


def test_every_code_of_a_record_that_cannot_be_read_is_in_the_page() -> None:
    assert all(f"| `{code}` |" in REFERENCE for code in (*MESSAGES, "encoding", "columns"))


def test_the_settings_are_shown_with_their_origin(shop: Project) -> None:
    jobs, percent, flag = lines("Settings")
    assert "INGESTKIT__JOBS" in shop.does(jobs)
    assert "INGESTKIT__PIPELINES__SHOP__GATE__MAX_REJECT_PCT" in shop.does(percent)
    shop.does(flag)


def test_stages_under_one_id_leave_what_a_run_leaves(shop: Project) -> None:
    shop.drop("2026-01-05")
    shop.does(*lines("One command per stage"))
    assert shop.customers() == [1, 2]
    assert "nothing new" in shop.does("ingestkit run shop")
    assert "done already" in shop.does(lines("One command per stage")[2])
    for line in lines("One command per stage"):
        again = line.replace("2026-01-12", "2026-01-19")
        shop.does(again)
        shop.refused(f"{again} --skip-exit-code 99", 99)


def is_yaml(block: Block) -> bool:
    return block.language == "yaml"
