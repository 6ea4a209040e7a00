"""Draws results on standard output, as text, JSON or NDJSON; what they mean was settled before."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ingestkit.cli import handler
from ingestkit.cli.options import Output
from ingestkit.errors import TargetError
from ingestkit.observe.text import printable

if TYPE_CHECKING:
    from ingestkit.outcome import Outcome

SCHEMA_VERSION = 1

Row: TypeAlias = Mapping[str, Any]

SIZES = frozenset({"bytes", "size"})
GOOD = frozenset({"done", "success", "passed", "loaded", "nothing new", "ok"})
BAD = frozenset({"failed", "interrupted", "quarantined", "fail", "bug"})
SPLIT = ("duplicates", "superseded")
"""What is lost for a reason of its own: shown where there is any."""
SHOWN = ("model", "batch", "stage", "status", "rows", "rejected", *SPLIT, "bytes", "seconds", "detail")
JUDGED = ("batch", "model", "name", "figure", "limit", "judged")
HEADINGS = {"seconds": "time", "expected_seconds": "expected"}


def emit(
    shown: Row | Sequence[Row],
    output: Output,
    *,
    columns: Sequence[str] | None = None,
    empty: str = "nothing to show",
) -> None:
    """Draw one thing or a list of things of one kind. `columns` are those the text table shows; JSON holds all."""
    if output is not Output.TEXT:
        write(machine(shown, output))
    elif isinstance(shown, Mapping):
        write(_thing(shown))
    else:
        write(table(shown, columns or _columns(shown)) if shown else f"{empty}\n")


def machine(shown: Row | Sequence[Row], output: Output) -> str:
    """JSON of one thing or of a list: one document, or with NDJSON a line for each."""
    if isinstance(shown, Mapping):
        return json_text({"schema_version": SCHEMA_VERSION, **shown}, output)
    if output is Output.JSON:
        return json_text({"schema_version": SCHEMA_VERSION, "rows": list(shown)}, output)
    return "".join(json_text({"schema_version": SCHEMA_VERSION, **row}, output) for row in shown)


def outcome(ended: "Outcome", output: Output) -> None:
    """Draw how a command ended: what each model did, then one line. NDJSON ends with the summary as its last line."""
    from dataclasses import asdict

    results = [asdict(result) for result in ended.results]
    summary: dict[str, Any] = {
        "command": ended.command,
        "pipeline": ended.pipeline,
        "status": ended.status,
        "message": ended.message,
        "exit_code": ended.exit_code,
        "run_ids": list(ended.run_ids),
        "warnings": list(ended.warnings),
    }
    if ended.failed:
        summary["failed"] = [dict(one) for one in ended.failed]
    if ended.rules:
        summary["rules"] = [dict(rule) for rule in ended.rules]
    match output:
        case Output.JSON:
            write(json_text({"schema_version": SCHEMA_VERSION, **summary, "results": results}, output))
        case Output.NDJSON:
            emit([*({"kind": "model", **row} for row in results), {"kind": "outcome", **summary}], output)
        case Output.TEXT:
            tables = [table(results, _worth_showing(results))] if results else []
            tables += [table(ended.rules, JUDGED)] if ended.rules else []
            write("".join(f"{one}\n" for one in tables) + f"{printable(ended.message)}\n")


def picked(found: Row, tables: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The same with only these columns of its tables: what people look for, where JSON holds everything."""
    rows = {
        name: [{one: row[one] for one in columns if one in row} for row in found[name]]
        for name, columns in tables.items()
    }
    return {**found, **rows}


def json_text(value: Any, output: Output) -> str:
    """JSON for people to read on a terminal; else one line, since that is what schedulers and pipes take."""
    import json

    indent = 2 if output is Output.JSON and sys.stdout.isatty() else None
    return json.dumps(value, indent=indent, ensure_ascii=sys.stdout.encoding != "utf-8", default=_plain) + "\n"


def table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """A table: drawn by rich on a terminal, aligned lines elsewhere."""
    values = [[row.get(name) for row in rows] for name in columns]
    cells = [_cells(name, column) for name, column in zip(columns, values, strict=True)]
    right = [all(isinstance(value, int | float | None) for value in column) for column in values]
    headings = [HEADINGS.get(name, name).replace("_", " ") for name in columns]
    if sys.stdout.isatty():
        return _rich_table(headings, list(zip(*cells, strict=True)), right)
    aligned = [_aligned([heading, *column], end) for heading, column, end in zip(headings, cells, right, strict=True)]
    return "".join("  ".join(line).rstrip() + "\n" for line in zip(*aligned, strict=True))


def _cells(name: str, values: Iterable[Any]) -> list[str]:
    """A column as people read it. A ledger is long, and most of its columns hold the same few values."""
    same = lru_cache(maxsize=None, typed=True)(partial(cell, name))
    return [same(value) if isinstance(value, str | int | None) else cell(name, value) for value in values]


def cell(name: str, value: Any) -> str:
    """A value as people read it; unknown is a dash, and a counted zero is a zero."""
    from datetime import UTC, datetime

    match value:
        case None:
            return "-"
        case str():
            return printable(value)
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return number(name, value)
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
        case list() | tuple() if all(isinstance(one, str) for one in value):
            return printable(", ".join(value)) or "-"
        case list() | tuple() | Mapping():
            return printable(json_text(value, Output.NDJSON).strip()) if value else "-"
        case _:
            return printable(str(value))


def number(name: str, value: float) -> str:
    if name in SIZES:
        return size(value)
    if name == "seconds" or name.endswith("_seconds"):
        return duration(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def write(text: str) -> None:
    """Write to standard output; a reader that left misses it, and the command's exit code stays its own."""
    try:
        sys.stdout.write(text)
    except BrokenPipeError:
        handler.forget_output()
    except OSError as error:
        raise TargetError(f"standard output cannot be written: {error.strerror}") from error


def say(text: str) -> None:
    """Write so that it is read at once. A reader that left has seen what it wanted, and ends the command."""
    write(text)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise TargetError(f"standard output cannot be written: {error.strerror}") from error


def amounts(counts: Mapping[str, int]) -> dict[str, int | None]:
    """Of a stage's counts what a line has room for: rows are what came out of it."""
    came = next((counts[name] for name in ("loaded", "valid", "records") if name in counts), None)
    return {"rows": came, "rejected": counts.get("rejected"), "bytes": counts.get("bytes")}


def _worth_showing(results: Sequence[Row]) -> list[str]:
    """Columns in which something stands; the stage only where it is not the same everywhere."""
    stages = {row["stage"] for row in results}
    filled = [name for name in SHOWN if any(row[name] if name in SPLIT else row[name] is not None for row in results)]
    return [name for name in filled if name != "stage" or len(stages) > 1]


def _thing(shown: Row) -> str:
    """A mapping as aligned names and values, then what is nested in it under headings of its own."""
    plain = {name: value for name, value in shown.items() if not _nests(value)}
    width = max(map(len, plain), default=0)
    blocks = ["".join(f"{name:<{width}}  {cell(name, value)}\n" for name, value in plain.items())]
    for name, value in shown.items():
        if _nests(value):
            inside = _thing(value) if isinstance(value, Mapping) else table(value, _columns(value))
            blocks.append(f"{name}\n" + "".join(f"  {line}".rstrip() + "\n" for line in inside.splitlines()))
    return "\n".join(block for block in blocks if block)


def _nests(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value)
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(one, Mapping) for one in value)


def _columns(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _aligned(column: Sequence[str], right: bool) -> list[str]:
    width = max(map(len, column))
    return [text.rjust(width) if right else text.ljust(width) for text in column]


def _rich_table(headings: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, end in zip(headings, right, strict=True):
        drawn.add_column(heading, justify="right" if end else "left", overflow="fold")
    for line in cells:
        drawn.add_row(*(Text(text, style=style(text)) for text in line))
    console = Console()
    with console.capture() as captured:
        console.print(drawn)
    return captured.get()


def style(text: str) -> str:
    word = text.lower()
    if word in GOOD:
        return "green"
    return "red" if word in BAD else ""


def _plain(value: object) -> Any:
    from datetime import UTC, datetime

    match value:
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case Path():
            return str(value)
        case Mapping():
            return dict(value)
        case set() | frozenset() | tuple():
            return list(value)
        case _:
            raise TypeError(f"{type(value).__name__} has no JSON form")
