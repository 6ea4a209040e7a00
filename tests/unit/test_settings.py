"""What the settings refuse by themselves."""

import pytest
from pydantic import ValidationError

from ingestkit.settings import Dialect, Model


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
