"""What retention lets go of, and what it never does."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from ingestkit.model import Completion, CompletionStatus, LoadMode
from ingestkit.pipeline import Pipeline
from ingestkit.settings import PipelineSettings
from ingestkit.stages.clean import expired

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def pipeline(**retention: str | int) -> Pipeline:
    batches = {"folders": r"(?P<batch>\d+)", "kind": "integer"}
    settings: dict[str, Any] = {
        "pipeline": "p",
        "source": {"connection": "drop", "batches": batches},
        "models": {"a": {"columns": {"id": {}}}},
        "retention": retention,
    }
    return Pipeline(PipelineSettings.model_validate(settings))


def done(
    batch: int, mode: LoadMode, days: int, status: CompletionStatus = CompletionStatus.DONE
) -> tuple[str, tuple[Completion, datetime]]:
    key = str(batch)
    one = Completion("p", key, "a", status, mode, 1, "digest", "settings", f"p.{key}.1")
    return key, (one, NOW - timedelta(days=days))


def test_old_full_batches_behind_a_newer_one_expire_in_the_order_of_their_keys() -> None:
    history = dict(done(batch, LoadMode.REPLACE, 400 - batch) for batch in (8, 9, 10, 11))
    assert expired(pipeline(), history, NOW) == ["8", "9", "10"]


def test_what_is_younger_than_the_replay_window_stays() -> None:
    history = dict([done(1, LoadMode.REPLACE, 91), done(2, LoadMode.REPLACE, 89), done(3, LoadMode.REPLACE, 1)])
    assert expired(pipeline(), history, NOW) == ["1"]
    assert expired(pipeline(keep="7d"), history, NOW) == ["1", "2"]


@pytest.mark.parametrize("mode", [LoadMode.MERGE, LoadMode.APPEND])
def test_batches_that_add_up_stay_back_to_the_newest_full_one(mode: LoadMode) -> None:
    history = dict(done(batch, mode, 900 - batch) for batch in (1, 2, 3))
    assert expired(pipeline(), history, NOW) == []
    history |= dict([done(2, LoadMode.REPLACE, 800)])
    assert expired(pipeline(), history, NOW) == ["1"]


def test_a_full_batch_that_was_stepped_over_makes_nothing_dispensable() -> None:
    history = dict([done(1, LoadMode.REPLACE, 900), done(2, LoadMode.REPLACE, 800, CompletionStatus.SUPERSEDED)])
    assert expired(pipeline(), history, NOW) == []


@pytest.mark.parametrize(("batches", "gone"), [(1, ["8", "9", "10"]), (2, ["8", "9"]), (4, []), (6, [])])
def test_the_newest_batches_stay_whatever_their_age_and_the_others_by_it(batches: int, gone: list[str]) -> None:
    history = dict(done(batch, LoadMode.REPLACE, 400 - batch) for batch in (8, 9, 10, 11))
    assert expired(pipeline(keep="0s", keep_batches=batches), history, NOW) == gone
    assert expired(pipeline(keep_batches=batches), history, NOW) == gone
    assert expired(pipeline(keep="400d", keep_batches=batches), history, NOW) == []


def test_keeping_the_newest_batches_takes_nothing_from_what_else_is_kept() -> None:
    history = dict([done(1, LoadMode.REPLACE, 91), done(2, LoadMode.REPLACE, 89), done(3, LoadMode.REPLACE, 1)])
    assert expired(pipeline(keep_batches=1), history, NOW) == ["1"]
    history |= dict(done(batch, LoadMode.MERGE, 900) for batch in (4, 5, 6))
    assert expired(pipeline(keep="0s", keep_batches=1), history, NOW) == ["1", "2"]


def test_batches_that_brought_nothing_are_none_of_the_newest() -> None:
    history = dict(done(batch, LoadMode.REPLACE, 400) for batch in (1, 2, 3, 4))
    history |= dict([done(5, LoadMode.REPLACE, 1, CompletionStatus.ABSENT)])
    history |= dict([done(3, LoadMode.REPLACE, 400, CompletionStatus.SKIPPED)])
    assert expired(pipeline(keep_batches=2), history, NOW) == ["1"]


@pytest.mark.parametrize("wrong", [-1, 1.5, True])
def test_keep_batches_is_a_whole_number(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        pipeline(keep_batches=wrong)
