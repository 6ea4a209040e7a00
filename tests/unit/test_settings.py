"""What the settings refuse by themselves."""

import pytest
from pydantic import ValidationError

from ingestkit.settings import Batches, Dialect, Model, PipelineSettings


@pytest.mark.parametrize("names", [("id", "ID"), ("id", "_Batch"), ("_record_no",), ("_LINE",)])
def test_columns_that_case_alone_tells_apart_or_named_like_lineage_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="case does not tell them apart"):
        Model.model_validate({"columns": {name: {} for name in names}})


def test_columns_beginning_with_an_underscore_of_their_own_are_taken() -> None:
    assert list(Model.model_validate({"columns": {"_id": {}, "id": {}}}).columns) == ["_id", "id"]


@pytest.mark.parametrize(
    ("dialect", "said"),
    [
        ({"delimiter": "||"}, "at most 1 character"),
        ({"delimiter": "§"}, "delimiter '§' should be an ASCII character"),
        ({"delimiter": "\n"}, "other than a line end"),
        ({"delimiter": '"'}, "quote '\"' is the delimiter already"),
        ({"quote": "nothing"}, "should be one character, or none"),
        ({"quote": "\\", "escape": "backslash"}, "is the escape already"),
        ({"encoding": "utf-7"}, "'utf-8', 'utf-16'"),
        ({"trailer": "END ("}, "not a pattern"),
        ({"trailer": ["(?P<count>.)", "(?P<count>.)"]}, "more than one group named count"),
        ({"preamble": -1}, "greater than or equal to 0"),
    ],
)
def test_a_dialect_that_cannot_be_is_refused(dialect: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Dialect.model_validate(dialect)
    assert said in str(refused.value)


def test_a_dialect_is_what_it_was_after_it_has_been_kept() -> None:
    dialect = Dialect.model_validate({"delimiter": "tab", "quote": "none", "trailer": "END", "escape": "backslash"})
    assert (dialect.delimiter, dialect.trailer) == ("\t", ("END",))
    assert Dialect.model_validate(dialect.model_dump(mode="json")) == dialect


WINDOWS = {
    "folders": r"(?P<at>\d{4}-\d\d-\d\d)",
    "at": {"format": "%Y-%m-%d"},
    "window": "daily",
    "timezone": "Europe/Berlin",
    "start": "2026-03-01",
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"window": "fortnightly"}, "is no window; one is hourly, daily"),
        ({"window": 15}, "'15' is no window"),
        ({"timezone": "Europe/Berlni"}, "no time zone 'Europe/Berlni'"),
        ({"start": None}, "windows need a `start`"),
        ({"start": "Monday"}, "the day that weeks begin on is start_of_week: monday"),
        ({"start": "tomorrow"}, "start: .tomorrow. is no date or time"),
        ({"at": None}, "how a path says its time"),
        ({"at": {"format": "%d.%m."}}, "does not say the year"),
        ({"at": {"format": "%Y%m%d%M"}}, "does not say the hour and the minute"),
        ({"folders": r"(?P<batch>\d+)"}, "a group named at"),
        ({"start_of_week": "sunday"}, "is of weekly windows"),
        ({"kind": "date"}, "kind is nothing for windows"),
        ({"window": None, "folders": "(?P<batch>.+)"}, "timezone is of windows"),
    ],
)
def test_windows_that_cannot_be_cut_are_refused(change: dict[str, object], said: str) -> None:
    told = {name: value for name, value in (WINDOWS | change).items() if value is not None}
    with pytest.raises(ValidationError, match=said):
        Batches.model_validate(told)


def test_windows_are_what_they_were_after_they_have_been_kept() -> None:
    batches = Batches.model_validate(WINDOWS | {"lag": "2h", "window": "weekly", "start_of_week": "sunday"})
    assert Batches.model_validate(batches.model_dump(mode="json")) == batches


@pytest.mark.parametrize(
    "text", ["20260301T230000Z", "2026-03-02", "2026-03-02T00:00:00+01:00", "2026-03-01T23:00:00Z"]
)
def test_a_window_may_be_named_by_any_writing_of_its_start(text: str) -> None:
    assert Batches.model_validate(WINDOWS).key(text) == "20260301T230000Z"


@pytest.mark.parametrize(
    ("batches", "column", "said"),
    [
        (WINDOWS, {"type": "string"}, "no column of type date or timestamp"),
        (WINDOWS | {"window": "hourly"}, {"type": "date"}, "windows are shorter than a day"),
        ({"folders": "(?P<batch>.+)"}, {"type": "date"}, "source.batches.window is not said"),
    ],
)
def test_rows_of_windows_need_windows_and_a_time(
    batches: dict[str, object], column: dict[str, object], said: str
) -> None:
    model = {"load": "window", "window_column": "day", "columns": {"day": column}}
    source = {"connection": "drop", "batches": batches}
    with pytest.raises(ValidationError, match=said):
        PipelineSettings.model_validate({"pipeline": "p", "source": source, "models": {"m": model}})


@pytest.mark.parametrize("model", [{"load": "window"}, {"window_column": "day"}])
def test_a_window_column_comes_with_its_load(model: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="load: window needs a window_column"):
        Model.model_validate({**model, "columns": {"day": {"type": "date"}}})


@pytest.mark.parametrize(
    ("copy", "said"),
    [
        ({"on_error": "continue"}, "on_error cannot be said: a load takes every row or none"),
        ({"FORCE": True}, "FORCE cannot be said: it would load files a second time"),
        ({"null_if": [""]}, "null_if cannot be said: values would become NULL"),
        ({"file_size": "100KB"}, "100MB to 250MB load best"),
        ({"file_size": "9000MB"}, "100MB to 250MB load best"),
        ({"parallel": 100}, "less than or equal to 99"),
        ({"streams": 1}, "Extra inputs"),
    ],
)
def test_how_rows_are_copied_cannot_be_said_so_that_one_is_lost(copy: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Model.model_validate({"columns": {"a": {}}, "copy": copy})
    assert said in str(refused.value)
