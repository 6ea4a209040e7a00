"""Which generation a load means to publish, by what the receipts say is in the target."""

from datetime import UTC, datetime, timedelta
from typing import Any

from ingestkit.model import Counts, Intent, LoadMode, Receipt, digest_of
from ingestkit.pipeline import Pipeline
from ingestkit.settings import PipelineSettings
from ingestkit.stages.load import Given, intended

NOW = datetime(2026, 6, 1, tzinfo=UTC)
EMPTY = digest_of(())


def pipeline(mode: str = "replace") -> Pipeline:
    settings: dict[str, Any] = {
        "pipeline": "p",
        "source": {"connection": "drop", "batches": {"folders": r"(?P<batch>\d+)", "kind": "integer"}},
        "models": {"a": {"key": ["id"], "load": mode, "columns": {"id": {}}}},
    }
    return Pipeline(PipelineSettings.model_validate(settings))


def receipt(
    batch: str, token: int, minutes: int = 0, mode: LoadMode = LoadMode.REPLACE, generation: int = 1
) -> Receipt:
    settings = pipeline(mode.value).load_settings("a", None)
    at = NOW + timedelta(minutes=minutes)
    return Receipt("p", "a", batch, generation, EMPTY, settings, mode, f"p.{batch}.1", token, Counts(), at)


def meant(*receipts: Receipt, batch: str = "10", mode: str = "replace", kept: int | None = None) -> int:
    """The generation a run of a batch whose files are those of its receipt means to publish."""
    settings = pipeline(mode).load_settings("a", None)
    before = Intent("a", kept, EMPTY, settings, LoadMode(mode)) if kept is not None else None
    given = Given("a", (), (), (), (), (), before, redo=False, highest=kept or 0, newer={}, meant={})
    return intended(pipeline(mode), batch, None, given, receipts).generation


def test_what_stands_is_not_published_again() -> None:
    assert meant(receipt("9", 1), receipt("10", 2)) == 1
    assert meant(receipt("9", 1), receipt("10", 1, minutes=1)) == 1
    assert meant(receipt("10", 2), receipt("11", 3)) == 1, "what is newer took its place by rights"


def test_what_an_older_snapshot_was_put_over_is_published_again() -> None:
    assert meant(receipt("9", 3), receipt("10", 2)) == 2
    assert meant(receipt("9", 2, minutes=1), receipt("10", 2)) == 2, "within one command the time tells"
    merged = receipt("10", 2, mode=LoadMode.MERGE)
    assert meant(receipt("9", 3), merged, mode="merge") == 1, "it was put under what newer files had merged"


def test_rows_that_were_merged_or_added_put_nothing_away() -> None:
    merged = receipt("9", 3, mode=LoadMode.MERGE)
    assert meant(merged, receipt("10", 2, mode=LoadMode.MERGE), mode="merge") == 1


def test_of_several_snapshots_under_an_older_one_only_the_newest_comes_back() -> None:
    stand = (receipt("9", 4), receipt("10", 2), receipt("11", 3))
    assert meant(*stand, batch="10") == 1
    assert meant(*stand, batch="11") == 2


def test_a_generation_that_was_put_away_is_not_taken_up_by_the_run_that_meant_it() -> None:
    assert meant(receipt("9", 3), receipt("10", 2), kept=1) == 2
    assert meant(receipt("9", 3), receipt("10", 2), kept=5) == 5, "what was not published yet is still meant"
