"""The page of archives that say their tables themselves: its pipeline loads, and its commands do what it says."""

import yaml

from ingestkit.settings import PipelineSettings, Tables
from tests.docs.pages import below, page, typed_below
from tests.docs.shop import Project
from tests.doubles.direct_data import Chain

PAGE = page("docs/archives.md")
HEADING = "Archives that say themselves what is in them"


def test_archives_are_taken_in_order_and_tables_built_again(shop: Project) -> None:
    pipeline = next(block.text for block in below(PAGE, HEADING) if block.language == "yaml")
    (shop.root / "config/pipelines/vault.yaml").write_text(pipeline)
    settings = shop.root / "config/settings.yaml"
    said = yaml.safe_load(settings.read_text())
    said["profiles"]["local"]["connections"]["vault_drop"] = {"type": "local", "path": "vault"}
    settings.write_text(yaml.safe_dump(said))
    drop, chain = shop.root / "vault", Chain(5)
    drop.mkdir()
    for name, content in (chain.full(), chain.next(), chain.next()):
        (drop / name).write_bytes(content)
    run, plan, again = typed_below(PAGE, HEADING)
    assert "3 batches done: 20260115-0500-F, 20260115-0515-N, 20260115-0530-N" in shop.does(run)
    assert "nothing new for vault" in shop.does(plan)
    (shop.root / "state/warehouse.duckdb").unlink()
    assert "3 batches" in shop.does(again)


def test_the_defaults_are_what_the_page_says() -> None:
    [block] = below(PAGE, "What may be said")
    said = yaml.safe_load(block.text)["tables"]
    contracts = said.pop("contracts")
    assert said == {name: value for name, value in Tables().model_dump().items() if name != "contracts"}
    pipeline = {"pipeline": "p", "source": {"connection": "d", "batches": {"files": "(?P<batch>.*)"}}}
    assert PipelineSettings.model_validate(pipeline | {"tables": said | {"contracts": contracts}}).tables is not None
