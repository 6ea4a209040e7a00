"""Nasty files: what each holds, what is to be taken from it, what rejected where and why, and how its lines add up."""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

COLUMNS: Mapping[str, Mapping[str, Any]] = {
    "id": {"type": "integer", "required": True},
    "name": {"type": "string"},
    "since": {"type": "date"},
}


@dataclass(frozen=True, slots=True)
class Nasty:
    """`rows` are (id, name), `rejects` (record, line, raw, codes); `lines` are as many as there are of each kind.

    Of `lines`, a header of one line and as many rejected ones as there are rejects need not be said.
    """

    name: str
    content: bytes
    rows: tuple[tuple[int, str | None], ...] = ()
    rejects: tuple[tuple[int, int, bytes, str], ...] = ()
    lines: Mapping[str, int] = field(default_factory=dict)
    csv: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: COLUMNS)
    path: str = "b/nasty.csv"


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that is refused whole, with what is said of it."""

    name: str
    content: bytes
    said: str
    csv: Mapping[str, Any] = field(default_factory=dict)
    path: str = "b/nasty.csv"


def text(*lines: str, end: str = "\n", encoding: str = "utf-8") -> bytes:
    return "".join(line + end for line in ("id,name,since", *lines)).encode(encoding)


MANY = tuple(f"{number},good,2026-01-05" for number in range(100, 160))
GOOD = tuple((number, "good") for number in range(100, 160))
LARGE = "x" * (1 << 20)
WIDE = {"id": {"type": "integer"}, "name": {"type": "string"}, **{f"c{n}": {"type": "string"} for n in range(498)}}

FILES = [
    Nasty("a header and no more", text(), lines={"valid": 0}),
    Nasty("a header without a line end", b"id,name,since", lines={"valid": 0}),
    Nasty("no line end at the end", b"id,name,since\n1,a,\n2,b,", rows=((1, "a"), (2, "b")), lines={"valid": 2}),
    Nasty("a byte order mark", b"\xef\xbb\xbf" + text("1,a,"), rows=((1, "a"),), lines={"valid": 1}),
    Nasty("columns in another order", b"name,since,id\na,,1\n", rows=((1, "a"),), lines={"valid": 1}),
    Nasty("blank lines", text("", "1,a,", "", "", "2,b,", ""), ((1, "a"), (2, "b")), lines={"valid": 2, "blank": 4}),
    # --- quotes
    Nasty(
        "two stray quotes far apart",
        text('1,5" nail,', *MANY, '2,6" nail,', "3,c,"),
        (*GOOD, (3, "c")),
        ((1, 2, b'1,5" nail,', "*:quote"), (62, 63, b'2,6" nail,', "*:quote")),
        {"valid": 61},
    ),
    Nasty(
        "two stray quotes far apart, each where one may open a value",
        text('1,"open,', *MANY, '2,"open,', "3,c,"),
        (*GOOD, (3, "c")),
        ((1, 2, b'1,"open,', "*:too_long"), (62, 63, b'2,"open,', "*:quote")),
        {"valid": 61},
    ),
    Nasty(
        "two stray quotes near each other, making one record of four lines that has too few columns",
        text("1,a,", '2,"open,', "3,c,", "4,d,", '5,"', "6,f,"),
        ((1, "a"), (3, "c"), (4, "d"), (6, "f")),
        ((2, 3, b'2,"open,', "*:columns"), (5, 6, b'5,"', "*:quote")),
        {"valid": 4},
    ),
    Nasty(
        "two stray quotes making one record of the right width whose date is none",
        text('1,a,"', "2,b,2026-01-05", "3,c,2026-01-06", '"', "4,d,"),
        ((2, "b"), (3, "c"), (4, "d")),
        ((1, 2, b'1,a,"', "since:type"), (4, 5, b'"', "*:quote")),
        {"valid": 3},
    ),
    Nasty(
        "a quote at the end of the file",
        text("1,a,") + b'"',
        ((1, "a"),),
        ((2, 3, b'"', "*:quote"),),
        {"valid": 1},
    ),
    Nasty(
        "never closed",
        text("1,a,", '2,"b,', "3,c,", "4,d,"),
        ((1, "a"), (3, "c"), (4, "d")),
        ((2, 3, b'2,"b,', "*:quote"),),
        {"valid": 3},
    ),
    Nasty(
        "text behind a closing quote, and a column too many or too few",
        text('1,"a"x,', "2,b,,many", "3", "4,d,"),
        ((4, "d"),),
        ((1, 2, b'1,"a"x,', "*:quote"), (2, 3, b"2,b,,many", "*:columns"), (3, 4, b"3", "*:columns")),
        {"valid": 1},
    ),
    # --- records of several lines
    Nasty(
        "line ends in values",
        b'id,name,since\r\n1,"a\r\nb\nc",\r\n2,d,\r\n',
        ((1, "a\r\nb\nc"), (2, "d")),
        lines={"valid": 4},
    ),
    Nasty(
        "a record of twenty lines and one of twenty-one",
        text('1,"' + "\n" * 19 + '",', '2,"' + "\n" * 20 + '",', "3,c,"),
        ((1, "\n" * 19), (3, "c")),
        ((2, 22, b'2,"', "*:too_long"), (3, 42, b'",', "*:quote")),
        {"valid": 21, "blank": 19},
    ),
    Nasty(
        "a record rejected for its first line, whose other lines are good rows",
        text('x,"', "2,b,", "3,c,", '4,"', "5,e,"),
        ((2, "b"), (3, "c"), (5, "e")),
        ((1, 2, b'x,"', "*:columns"), (4, 5, b'4,"', "*:quote")),
        {"valid": 3},
    ),
    Nasty(
        "two records opened again, each by itself",
        text('x,"a', '",', "2,b,", 'y,"c', '",', "3,d,"),
        ((2, "b"), (3, "d")),
        (
            (1, 2, b'x,"a', "id:type"),
            (2, 3, b'",', "*:quote"),
            (4, 5, b'y,"c', "id:type"),
            (5, 6, b'",', "*:quote"),
        ),
        {"valid": 2},
    ),
    Nasty(
        "doubled quotes in a record that is opened again",
        text('x,"', '2,""b', 'c"",', '",', "3,d,"),
        ((3, "d"),),
        (
            (1, 2, b'x,"', "id:type"),
            (2, 3, b'2,""b', "*:quote"),
            (3, 4, b'c"",', "*:quote"),
            (4, 5, b'",', "*:quote"),
        ),
        {"valid": 1},
    ),
    Nasty(
        "blank lines in a record that is opened again",
        text('x,"a', "", "", "2,b,", '",', "3,c,"),
        ((2, "b"), (3, "c")),
        ((1, 2, b'x,"a', "id:type"), (3, 6, b'",', "*:quote")),
        {"valid": 2, "blank": 2},
    ),
    # --- bytes
    Nasty("a field of 1 MB", text(f'1,"{LARGE}",', "2,b,"), ((1, LARGE), (2, "b")), lines={"valid": 2}),
    Nasty(
        "500 columns",
        b",".join(name.encode() for name in WIDE) + b"\n1,a" + b",x" * 498 + b"\n2,b" + b",x" * 497 + b"\n",
        ((1, "a"),),
        ((2, 3, b"2,b" + b",x" * 497, "*:columns"),),
        {"valid": 1},
        columns=WIDE,
    ),
    Nasty(
        "NUL bytes",
        text("1,\0,", "2,b,", '3,"\0', "4,d,", '",'),
        ((2, "b"), (4, "d")),
        ((1, 2, b"1,\0,", "*:nul"), (3, 4, b'3,"\0', "*:nul"), (5, 6, b'",', "*:quote")),
        {"valid": 2},
    ),
    Nasty(
        "bytes that are not UTF-8",
        b"id,name,since\n1,caf\xe9,\n2,caf\xc3\xa9,\n3,\xed\xa0\x80,\n4,\xc0\xaf,\n5,\xf4\x90\x80\x80,\n",
        ((2, "café"),),
        (
            (1, 2, b"1,caf\xe9,", "*:encoding"),
            (3, 4, b"3,\xed\xa0\x80,", "*:encoding"),
            (4, 5, b"4,\xc0\xaf,", "*:encoding"),
            (5, 6, b"5,\xf4\x90\x80\x80,", "*:encoding"),
        ),
        {"valid": 1},
    ),
    # --- encodings
    *(
        Nasty(
            f"{encoding} as {declared}",
            mark
            + text("1,caf\u00e9 \U0001f600 \u0a0a\u0d0d,", '2,5" nail,', '"x","\u20ac\n",', "3,c,")
            .decode()
            .encode(encoding),
            ((1, "caf\u00e9 \U0001f600 \u0a0a\u0d0d"), (3, "c")),
            (
                (2, 3, '2,5" nail,'.encode(encoding), "*:quote"),
                (3, 4, '"x","\u20ac'.encode(encoding), "id:type"),
                (4, 5, '",'.encode(encoding), "*:quote"),
            ),
            {"valid": 2},
            {"encoding": declared},
        )
        for declared, encoding, mark in (
            ("utf-16", "utf-16-le", b"\xff\xfe"),
            ("utf-16", "utf-16-be", b"\xfe\xff"),
            ("utf-16-le", "utf-16-le", b""),
            ("utf-16-be", "utf-16-be", b"\xfe\xff"),
        )
    ),
    Nasty(
        "UTF-16 with half a pair, and half a unit at the end",
        text("1,a,", "2,b,", encoding="utf-16-le") + b"3\0,\0\x00\xd8,\0\n\0" + b"4\0,\0d",
        ((1, "a"), (2, "b")),
        ((3, 4, b"3\0,\0\x00\xd8,\0", "*:encoding"), (4, 5, b"4\0,\0d", "*:encoding")),
        {"valid": 2},
        {"encoding": "utf-16-le"},
    ),
    Nasty(
        "Latin-1",
        text("1,caf\u00e9,", '2,\u00e95",', "3,\u0081,", encoding="latin-1"),
        ((1, "caf\u00e9"), (3, "\u0081")),
        ((2, 3, b'2,\xe95",', "*:quote"),),
        {"valid": 2},
        {"encoding": "latin-1"},
    ),
    Nasty(
        "cp1252 with bytes it does not define",
        b"id,name,since\n1,\x80 caf\xe9,\n2,\x81\xe9,\n3,\x9d,\n4,\xc3\x8f,\n5,\x9f,\n",
        ((1, "\u20ac caf\u00e9"), (5, "\u0178")),
        (
            (2, 3, b"2,\x81\xe9,", "*:encoding"),
            (3, 4, b"3,\x9d,", "*:encoding"),
            (4, 5, b"4,\xc3\x8f,", "*:encoding"),
        ),
        {"valid": 2},
        {"encoding": "cp1252"},
    ),
    # --- line ends
    Nasty("CRLF", text("1,a,", "2,b,", end="\r\n"), ((1, "a"), (2, "b")), lines={"valid": 2}),
    Nasty(
        "CR, with a line feed astray",
        text("1,a,", "2\n,b,", '3,"c\r\n\n",', "4,d,", end="\r"),
        ((1, "a"), (3, "c\r\n\n"), (4, "d")),
        ((2, 3, b"2\n,b,", "*:newline"),),
        {"valid": 4},
    ),
    Nasty(
        "mixed line ends, the odd ones rejected by name",
        b'id,name,since\n1,a,\r\n2,b,\r3,c,\n4,"\r",\n',
        ((1, "a"), (4, "\r")),
        ((2, 3, b"2,b,\r3,c,", "*:newline"),),
        {"valid": 2},
    ),
    Nasty(
        "mixed line ends, all of them accepted",
        b'id,name,since\n1,a,\r\n2,b,\r3,c,\n\r\r\n4,"\r\n\r\n\r",\r5,5",\rx,"\n6,f,\r\r",\r\n7,g,',
        ((1, "a"), (2, "b"), (3, "c"), (4, "\r\n\r\n\r"), (6, "f"), (7, "g")),
        ((5, 11, b'5,5",', "*:quote"), (6, 12, b'x,"', "id:type"), (8, 15, b'",', "*:quote")),
        {"valid": 9, "blank": 3},
        {"mixed_newlines": "accept"},
    ),
    # --- dialects
    Nasty(
        "tabs, without quotes",
        b'id\tname\tsince\n1\t5" nail\t\n2\t"b\t\n3\ta\tb\tc\n',
        ((1, '5" nail'), (2, '"b')),
        ((3, 4, b"3\ta\tb\tc", "*:columns"),),
        {"valid": 2},
        {"delimiter": "tab", "quote": "none"},
    ),
    Nasty(
        "backslashes, a line end escaped, and an escape that is none",
        b'id,name,since\n1,a\\,b,\n2,"c\\"d\\\\",\n3,e\\\nf,\n4,C:\\temp,\n5,\\N,\n6,"g\\",\n7,h,\n8,i\\',
        ((1, "a,b"), (2, 'c"d\\'), (3, "e\nf"), (7, "h")),
        (
            (4, 6, b"4,C:\\temp,", "*:escape"),
            (5, 7, b"5,\\N,", "*:escape"),
            (6, 8, b'6,"g\\",', "*:quote"),
            (8, 10, b"8,i\\", "*:escape"),
        ),
        {"valid": 5},
        {"escape": "backslash"},
    ),
    Nasty(
        "a record opened again and again, until each reject is one line",
        b"id,name,since\nx,a\\\ny,b\\\n2,c\\\nd,\n3,e,\n",
        ((2, "c\nd"), (3, "e")),
        ((1, 2, b"x,a\\", "*:columns"), (2, 3, b"y,b\\", "*:columns")),
        {"valid": 3},
        {"escape": "backslash", "quote": "none"},
    ),
    Nasty(
        "no header",
        b'1,a,\n2,"b\n",\n3,c\n',
        ((1, "a"), (2, "b\n")),
        ((3, 4, b"3,c", "*:columns"),),
        {"header": 0, "valid": 3},
        {"header": False},
    ),
    Nasty(
        "no header, and a stray quote first of all",
        b'1,"a,\r2,b,\r3,c,\r',
        ((2, "b"), (3, "c")),
        ((1, 1, b'1,"a,', "*:quote"),),
        {"header": 0, "valid": 2},
        {"header": False},
    ),
    Nasty(
        "a preamble with quotes in it, and a trailer that counts",
        b'-- "export\r\n-- \xe9\r\nid,name,since\r\n1,a,\r\n2,"\r\n",\r\nx,c,\r\nROWS 000003\r\n\r\n',
        ((1, "a"), (2, "\r\n")),
        ((3, 7, b"x,c,", "id:type"),),
        {"preamble": 2, "valid": 3, "trailer": 1, "blank": 1},
        {"preamble": 2, "trailer": "ROWS (?P<count>[0-9]+)"},
    ),
    Nasty(
        "a trailer of two lines behind a quote that is never closed",
        b'id,name,since\n1,"a,\n2,b,\nEND\n2 rows',
        ((2, "b"),),
        ((1, 2, b'1,"a,', "*:quote"),),
        {"valid": 1, "trailer": 2},
        {"trailer": ["END", "(?P<count>[0-9]+) rows"]},
    ),
    Nasty(
        "a trailer that counts a record of several lines once, though it is opened again",
        b'id,name,since\nx,"a\nb\nc",\n2,b,\nEND 2\n',
        ((2, "b"),),
        ((1, 2, b'x,"a', "id:type"), (2, 3, b"b", "*:columns"), (3, 4, b'c",', "*:quote")),
        {"valid": 1, "trailer": 1},
        {"trailer": "END (?P<count>[0-9]+)"},
    ),
    Nasty(
        "gzip in two parts",
        gzip.compress(text("1,a,")) + gzip.compress(b"2,b,\n"),
        ((1, "a"), (2, "b")),
        lines={"valid": 2},
        path="b/nasty.csv.gz",
    ),
]

BROKEN = [
    Broken("empty", b"", "is empty: it has not even a header"),
    Broken("a blank line first", b"\nid,name,since\n", "has a blank line where its header should be"),
    Broken("truncated gzip", gzip.compress(text(*MANY))[:-9], "is damaged", path="b/nasty.csv.gz"),
    Broken(
        "another delimiter",
        b"id;name;since\n1;a;\n",
        "has one column by the delimiter ',' of its dialect, and 3 by ';', where the contract has 3: "
        "csv.delimiter should be ';'",
    ),
    Broken("another delimiter without a header", b"1|a|\n", "csv.delimiter should be '|'", {"header": False}),
    Broken("UTF-16 as UTF-8", text("1,a,").decode().encode("utf-16"), "is UTF-16-LE by its byte order mark"),
    Broken("UTF-16 as UTF-8, unmarked", text(encoding="utf-16-be"), "begins as UTF-16 does"),
    Broken("UTF-8 as Latin-1", b"\xef\xbb\xbf" + text(), "is UTF-8 by its byte order mark", {"encoding": "latin-1"}),
    Broken("UTF-16 unmarked", text(encoding="utf-16-le"), "has no byte order mark", {"encoding": "utf-16"}),
    Broken("the other UTF-16", b"\xff\xfe" + text(encoding="utf-16-le"), "is UTF-16-LE", {"encoding": "utf-16-be"}),
    Broken("a header of Latin-1", "id,näme,since\n".encode("latin-1"), "has a header that is not UTF-8"),
    Broken("a header that is never closed", b'id,name,"since\n1,a,\n', "has a header that cannot be read"),
    Broken("shorter than its preamble", b"a\nb\n", "ends within its preamble of 3 lines", {"preamble": 3}),
    Broken(
        "a trailer that says another count",
        text("1,a,", "2,b,", "END 3"),
        "says in its trailer that it has 3 records, where 2 were found",
        {"trailer": "END (?P<count>[0-9]+)"},
    ),
    Broken("cut off before its trailer", text("1,a,", "2,b,"), "has no trailer", {"trailer": "END (?P<count>[0-9]+)"}),
    Broken(
        "a trailer without a number",
        text("END soon"),
        "has a trailer whose count is no number",
        {"trailer": "END (?P<count>.*)"},
    ),
]
