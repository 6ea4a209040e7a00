"""What a report of an export may say, and what is none."""

import json

import pytest

from ingestkit.errors import SourceError
from ingestkit.sources.totals import LARGEST, counts_in, read


def said(content: bytes, at: str = "n") -> dict[str, int]:
    return counts_in("exp.json", read("exp.json", content, SourceError), at, SourceError)


def test_numbers_are_read_wherever_they_stand_and_as_texts_too() -> None:
    assert said(b'{"n": {"HCP": 1060, "HCO": "0"}}') == {"HCP": 1060, "HCO": 0}
    assert said(b'{"a": {"b c": {"HCP": 1}}}', "a.b c") == {"HCP": 1}
    assert said(b"\xef\xbb\xbf" + b'{"n": {}}') == {}
    assert said('{"n": {"HCP": 1}}'.encode("utf-16")) == {"HCP": 1}
    assert said(json.dumps({"n": {"HCP": 1}}).encode().ljust(LARGEST)) == {"HCP": 1}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is no JSON, or says something twice"),
        (b'{"n": {"HCP":', "it is no JSON, or says something twice"),
        (b"\xff\xfe\xfd", "it is no JSON, or says something twice"),
        (b"[" * 100_000, "it is no JSON, or says something twice"),
        (b'{"n": {"\\ud800": 4}}', "it is no JSON, or says something twice"),
        (b'{"n": {"HCP": 3, "HCP": 4}}', "it is no JSON, or says something twice"),
        (b'{"n": {"HCP": ' + b"9" * 5_000 + b"}}", "it is no JSON, or says something twice"),
        (b'{"n": 7}', "it has no numbers by name at n"),
        (b'{"m": {"HCP": 7}}', "it has no numbers by name at n"),
        (b"[]", "it has no numbers by name at n"),
        (b'{"n": {"HCP": -3}}', "what it says of HCP is no count"),
        (b'{"n": {"HCP": true}}', "what it says of HCP is no count"),
        (b'{"n": {"HCP": null}}', "what it says of HCP is no count"),
        (b'{"n": {"HCP": 3.0}}', "what it says of HCP is no count"),
        (b'{"n": {"HCP": NaN}}', "what it says of HCP is no count"),
        (b'{"n": {"HCP": "three"}}', "what it says of HCP is no count"),
        (b'{"n": {"HCP": ""}}', "what it says of HCP is no count"),
        ('{"n": {"HCP": "٣"}}'.encode(), "what it says of HCP is no count"),
        (b'{"n": {"HCP": 1000000000000000}}', "what it says of HCP is no count"),
        (b'{"n": {"HCP": 1}}'.ljust(LARGEST + 1), "it has more than 1,048,576 bytes"),
    ],
    ids=range(20),
)
def test_what_is_no_report_is_refused_with_what_is_wrong(content: bytes, why: str) -> None:
    with pytest.raises(SourceError) as refused:
        said(content)
    assert refused.value.message == f"exp.json is no report of counts: {why}"
