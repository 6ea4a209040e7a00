"""What the Snowflake service says of data, as it is shown: without the values that it met."""

import pytest

from ingestkit.warehouses.snowflake_session import plainly

PLACE = (
    '\n  File \'p/a/r/part-0.parquet\', line 3, character 20\n  Row 3, column "T"["AMOUNT":4]\n  If you would like to '
)
RANGE = "Number out of representable range: type FIXED"


@pytest.mark.parametrize("place", ["", PLACE])
@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"{RANGE}[SB8](6,2){{nullable}}, value 12345678.90", f"{RANGE}[SB8](6,2){{nullable}}, value …"),
        (f"{RANGE}, value 1.23457e+12", f"{RANGE}, value …"),
        ("Failed to cast variant value 73 to DATE", "Failed to cast variant value …"),
        ('Failed to cast variant value {\n  "name": "Ada",\n  "age": 73\n} to FIXED', "Failed to cast variant value …"),
        ("Failed to cast variant value [73, 74] to OBJECT", "Failed to cast variant value …"),
        ('Failed to cast variant value "Ada" to TIMESTAMP_TZ(9)', "Failed to cast variant value …"),
        ("Numeric value 'Ada's 73' is not recognized", "Numeric value …"),
        ("User character length limit (10) exceeded by string 'Ada, 73'", "User character length limit (10) exceeded"),
    ],
)
def test_no_value_is_shown_whether_it_was_quoted_or_not(said: str, shown: str, place: str) -> None:
    told = plainly(f"{said}{place}")
    assert told.startswith(shown)
    assert not any(part in told for part in ("Ada", "age", "73", "74", "12345678", "1.23457")), told
    assert "\n" not in told


def test_the_type_that_a_value_was_to_be_is_shown() -> None:
    assert plainly("Failed to cast variant value 73 to DATE") == "Failed to cast variant value … to DATE"
    assert plainly('Failed to cast variant value "a" to FIXED') == "Failed to cast variant value … to FIXED"
