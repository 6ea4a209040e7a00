"""What the settings refuse by themselves."""

import pytest
from pydantic import ValidationError

from ingestkit.settings import Model


@pytest.mark.parametrize("names", [("id", "ID"), ("id", "_Batch"), ("_record_no",)])
def test_columns_that_case_alone_tells_apart_or_named_like_lineage_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="case does not tell them apart"):
        Model.model_validate({"columns": {name: {} for name in names}})


def test_columns_beginning_with_an_underscore_of_their_own_are_taken() -> None:
    assert list(Model.model_validate({"columns": {"_id": {}, "id": {}}}).columns) == ["_id", "id"]
