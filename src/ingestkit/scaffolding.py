"""A new project's files, from the templates that come with the program; what is there is never written over."""

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ingestkit import files
from ingestkit.errors import UsageError

TEMPLATE = Path(__file__).parent / "template"
IGNORED = Path(".gitignore")
SAMPLE = "opendata"
"""The sample pipeline that the line for cron runs; a project of one needs no name in it."""
NAMED = 3
"""How many files a refusal names."""


@dataclass(frozen=True, slots=True)
class Laid:
    """The files of a new project: those written now, and those that were there already as they should be."""

    folder: Path
    written: tuple[Path, ...]
    there: tuple[Path, ...]
    unignored: tuple[str, ...]
    """Lines that a `.gitignore` which was there, and was left as it is, lacks."""


def lay_out(folder: Path, *, sample: bool) -> Laid:
    """Write a project, with a sample pipeline or with none; nothing at all where a file there says something else.

    Each file appears whole. What was cut short is finished by the same call, as files that are equal are left.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{files.shown(folder)} is no folder", hint="name one: ingestkit init DIR")
    contents = dict(_contents(folder, sample=sample))
    unignored: tuple[str, ...] = ()
    if (folder / IGNORED).is_file():
        unignored = _lacking((folder / IGNORED).read_bytes(), contents.pop(IGNORED))
    there = tuple(name for name in contents if (folder / name).exists() or (folder / name).is_symlink())
    taken = [name for name in there if not _is(folder / name, contents[name])]
    if taken:
        more = f" and {len(taken) - NAMED} more" if len(taken) > NAMED else ""
        named = ", ".join(files.shown(folder / name) for name in taken[:NAMED])
        raise UsageError(
            f"{named}{more}: there already, and nothing is written over",
            hint="take a new folder: ingestkit init DIR",
        )
    written = tuple(name for name in contents if name not in there)
    for name in written:
        files.create_whole(folder / name, contents[name])
    return Laid(folder, written, there, unignored)


def _contents(folder: Path, *, sample: bool) -> Iterator[tuple[Path, bytes]]:
    """What a project begins with, by its place. The settings come last: with them a folder is a project."""
    yield IGNORED, (TEMPLATE / "gitignore").read_bytes()
    yield Path("config.env.example"), (TEMPLATE / "config.env.example").read_bytes()
    yield Path("crontab.example"), _crontab(folder, f" {SAMPLE}" if sample else "")
    if not sample:
        yield Path("config/settings.yaml"), (TEMPLATE / "settings.yaml").read_bytes()
        return
    samples = _samples()
    for below in ("sql/gate", "config"):
        for path in sorted((samples / below).rglob("*"), key=lambda one: (one.parent == samples / "config", one)):
            if path.is_file():
                yield path.relative_to(samples), path.read_bytes()


def _samples() -> Path:
    """Where the sample project lies: in a wheel beside the other templates, in a source tree at its top."""
    return TEMPLATE if (TEMPLATE / "config").is_dir() else TEMPLATE.parents[2]


def _crontab(folder: Path, pipeline: str) -> bytes:
    facts: Mapping[str, str] = {
        "{pipeline}": pipeline,
        "{folder}": shlex.quote(str(folder.absolute())),
        "{program}": shlex.quote(shutil.which("ingestkit", path=str(Path(sys.executable).parent)) or "ingestkit"),
    }
    text = (TEMPLATE / "crontab.example").read_text(encoding="utf-8")
    for field, value in facts.items():
        # To cron a bare percent sign is the end of the line.
        text = text.replace(field, value.replace("%", r"\%"))
    return text.encode()


def _is(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def _lacking(there: bytes, wanted: bytes) -> tuple[str, ...]:
    said = {line.strip().strip(b"/") for line in there.splitlines()}
    lines = [line for line in wanted.splitlines() if not line.startswith(b"#")]
    return tuple(line.decode() for line in lines if line.strip(b"/") not in said)
