"""How dates and times may be written: each directive with the one pattern that its part must match."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

HALF = ("January", "February", "March", "April", "May", "June")
MONTHS = (*HALF, "July", "August", "September", "October", "November", "December")
PARTS = {
    "Y": r"\d{4}",
    "y": r"\d{2}",
    "m": r"(?:0[1-9]|1[0-2])",
    "b": f"(?i:{'|'.join(month[:3] for month in MONTHS)})",
    "B": f"(?i:{'|'.join(MONTHS)})",
    "d": r"(?:0[1-9]|[12]\d|3[01])",
    "H": r"(?:[01]\d|2[0-3])",
    "I": r"(?:0[1-9]|1[0-2])",
    "p": r"(?i:AM|PM)",
    "M": r"[0-5]\d",
    "S": r"[0-5]\d",
    "f": r"\d{1,6}",
    "z": r"[+-](?:0\d|1[0-4]):?[0-5]\d",
    "%": "%",
}
DIRECTIVE = re.compile(r"%(.)", re.DOTALL)
OF_A_DAY = ("Yy", "mbB", "d")
OF_A_TIME = ("H", "M")
SAMPLES = tuple(
    datetime(year, month, day, hour, 59, 58, tzinfo=UTC)
    for year, month, day, hour in ((2001, 2, 3, 4), (2011, 10, 12, 13), (1999, 1, 31, 0), (2012, 11, 10, 9))
)


def pattern_of(form: str) -> str:
    """The pattern that all of a text written so must match."""
    found, at = [], 0
    for directive in DIRECTIVE.finditer(form):
        found += [re.escape(form[at : directive.start()]), PARTS[directive[1]]]
        at = directive.end()
    return "".join((*found, re.escape(form[at:])))


def refusal(form: str, kind: str) -> str | None:
    """What is wrong with a format of a type, or None."""
    said = DIRECTIVE.findall(form)
    unknown = sorted({one for one in said if one not in PARTS})
    if form.replace("%%", "").endswith("%"):
        return f"format {form!r} ends within a directive"
    if unknown:
        return f"format {form!r}: there is no %{unknown[0]}; known are {', '.join('%' + one for one in PARTS)}"
    parts = [one for one in said if one != "%"]
    if len(set(parts)) != len(parts):
        return f"format {form!r} says a part twice"
    lacking = [one for one in OF_A_DAY if not set(one) & set(parts)]
    if lacking:
        return f"format {form!r} does not say the {('year', 'month', 'day')[OF_A_DAY.index(lacking[0])]}"
    timed = set(parts) & set("HIpMSfz")
    if kind == "date":
        return f"format {form!r} says a time, and a date has none" if timed else None
    if not ({"H", "M"} <= timed or {"I", "p", "M"} <= timed):
        return f"format {form!r} does not say the hour and the minute"
    if kind == "local_timestamp" and "z" in timed:
        return f"format {form!r} says an offset, and a local_timestamp has none"
    return None


def ambiguous(forms: Sequence[str]) -> tuple[str, str] | None:
    """Two formats in which one text may mean two different times."""
    for number, one in enumerate(forms):
        for other in forms[number + 1 :]:
            for sample in SAMPLES:
                written = sample.strftime(one)
                if re.fullmatch(pattern_of(other), written) and _read(written, one) != _read(written, other):
                    return one, other
    return None


def _read(text: str, form: str) -> datetime | None:
    try:
        return datetime.strptime(text, form).replace(tzinfo=UTC)
    except ValueError:
        return None
