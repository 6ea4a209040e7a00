"""What an account has set for all its sessions and tables, as far as it changes what statements mean."""

import datetime as dt
import re
from collections.abc import Mapping
from typing import Final

from tests.doubles.snowflake.answers import Refused
from tests.doubles.snowflake.reading import literal

AUTO: Final = "AUTO"
ELEMENTS: Final = {"YYYY": "%Y", "MM": "%m", "DD": "%d", "HH24": "%H", "MI": "%M", "SS": "%S", "TZH:TZM": "%z", '"': ""}
ELEMENT: Final = re.compile("|".join(ELEMENTS))
SAID: Final = re.compile(r"'(?P<value>[^']*)'::(?P<kind>DATE|TIMESTAMP_\w+)", re.IGNORECASE)
BOUND: Final = re.compile(r"CAST\(\?\s+AS\s+(DATE|TIMESTAMP)", re.IGNORECASE)
QUOTED: Final = re.compile(r"""'(?:[^'\\]|''|\\.)*'|"(?:[^"]|"")*\"""")
COLLATION: Final = re.compile(r"\s*\bDEFAULT_DDL_COLLATION\s*=\s*'(?P<said>[^']*)'", re.IGNORECASE)


def folded(sql: str, parameters: Mapping[str, str]) -> str:
    """Where QUOTED_IDENTIFIERS_IGNORE_CASE is set, quoted names are upper case like others."""
    if parameters["QUOTED_IDENTIFIERS_IGNORE_CASE"] != "true":
        return sql
    return QUOTED.sub(lambda found: found[0].upper() if found[0].startswith('"') else found[0], sql)


def dated(sql: str, parameters: Mapping[str, str]) -> str:
    """What the input formats make of texts that are cast to dates and instants."""
    form = {kind: parameters[f"{kind}_INPUT_FORMAT"] for kind in ("DATE", "TIMESTAMP")}

    def read(found: re.Match[str]) -> str:
        written = form["DATE" if found["kind"].upper() == "DATE" else "TIMESTAMP"]
        if written.upper() == AUTO:
            return found[0]
        return f"{literal(_read(found['value'], written))}::{found['kind']}"

    if (bound := BOUND.search(sql)) and form[bound[1].upper()].upper() != AUTO:
        raise Refused(2, "0A000", "the double reads what is bound by no format but AUTO")
    return SAID.sub(read, sql)


def collated(sql: str, default: str) -> str:
    """CREATE TABLE, whose texts are compared without case where its collation says so, or else the account's."""
    said = COLLATION.search(sql)
    kept = COLLATION.sub("", sql)
    if "ci" not in (said["said"] if said else default).split("-"):
        return kept
    return re.sub(r"\bVARCHAR\b(\(\d+\))?", r"VARCHAR\1 COLLATE NOCASE", kept, flags=re.IGNORECASE)


def _read(value: str, written: str) -> str:
    pattern = ELEMENT.sub(lambda found: ELEMENTS[found[0]], written)
    try:
        return dt.datetime.strptime(value, pattern).isoformat()  # noqa: DTZ007 - the pattern may say the zone
    except ValueError as error:
        raise Refused(100_040, "22007", f"Date '{value}' is not recognized") from error
