"""What the Snowflake service says, as it is shown: without the values that it met, and with what helps."""

import pytest
from snowflake.connector.errors import DatabaseError, Error, ForbiddenError, InterfaceError, ProgrammingError

from ingestkit.errors import Busy, WarehouseError
from ingestkit.warehouses.snowflake_session import TROUBLES, Account, plainly
from ingestkit.warehouses.snowflake_sql import Names

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
        ("Date out of range: 7374", "Date out of range: …"),
        ("Conversion of -73.74e+3 to fixed failed", "Conversion of … to fixed failed"),
        ("7374-12-31 is before 2026-01-01", "… is before …"),
        ("Numeric value 'Ada's 73' is not recognized", "Numeric value …"),
        ("User character length limit (10) exceeded by string 'Ada, 73'", "User character length limit (10) exceeded"),
    ],
)
def test_no_value_is_shown_whether_it_was_quoted_or_not(said: str, shown: str, place: str) -> None:
    told = plainly(f"{said}{place}")
    assert told.startswith(shown)
    assert not any(part in told for part in ("Ada", "age", "73", "74", "12345678", "1.23457")), told
    assert "\n" not in told


def test_places_types_and_lengths_are_shown() -> None:
    for said in ("Failed at line 3, character 20, row 7", "type FIXED[SB8](6,2){nullable} ends at (10)"):
        assert plainly(said) == said


def test_the_type_that_a_value_was_to_be_is_shown() -> None:
    assert plainly("Failed to cast variant value 73 to DATE") == "Failed to cast variant value … to DATE"
    assert plainly('Failed to cast variant value "a" to FIXED') == "Failed to cast variant value … to FIXED"


ACCOUNT = Account("snowflake acme/D.S", "D", "S", Names(), 1, 1, 1, 1, {})
KNOWN = [ProgrammingError(msg="it says", errno=int(code)) for code, *_ in TROUBLES]


@pytest.mark.parametrize(
    "error",
    [
        *KNOWN,
        ForbiddenError(msg="it says", errno=250_001),
        ProgrammingError(msg="invalid identifier 'X'", errno=904, sqlstate="42000", sfqid="q"),
        ProgrammingError(msg="it says", errno=904, sqlstate="42000"),
        ProgrammingError(msg="exceeds the number of waiters", errno=625, sqlstate="57014"),
        ProgrammingError(msg="Deadlock detected", errno=2, sqlstate="57014"),
        ProgrammingError(msg="it says", errno=625, sqlstate="57014"),
        ProgrammingError(msg="it says", errno=604, sqlstate="57014"),
        ProgrammingError(msg="it says", errno=3001, sqlstate="42501"),
        InterfaceError(msg="it says", errno=250_002),
        DatabaseError(msg="it says", errno=2),
    ],
    ids=lambda error: f"{type(error).__name__}-{error.errno}",
)
def test_every_error_of_the_service_comes_with_what_helps(error: Error) -> None:
    with pytest.raises((WarehouseError, Busy)) as told, ACCOUNT.translated():
        raise error
    assert told.value.hint
