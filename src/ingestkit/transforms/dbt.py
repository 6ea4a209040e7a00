"""dbt, called as the program it is: what it built, and how its tests ended. No row of a table passes through here."""

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingestkit import steps
from ingestkit.errors import ConfigError, WarehouseError
from ingestkit.model import Built
from ingestkit.ports import Stopping
from ingestkit.transforms import child

SAID = 300
"""So much of what dbt says of an error is told, in characters."""
LINES = 4
NO_PROGRAM = (126, 127)
BROKEN = 2
"""How dbt ends that could not begin; 1 is of what it did."""
UNREACHABLE = re.compile(
    r"could not (set lock|connect)|connection (refused|to server|timed out)|server closed|deadlock|timeout expired",
    re.IGNORECASE,
)
# What databases say of names and statements, and of no value.
OF_NO_VALUE = re.compile(
    r"(Catalog|Binder|Parser|Permission|IO) Error: .*"
    r"|(relation|column|schema|function|type|database|role|table) .* (does not exist|already exists)"
    r"|connection to server at .*|syntax error at or near .*|permission denied .*|division by zero"
)
KIND = re.compile(r"[A-Z][A-Za-z]+(?: [A-Z][A-Za-z]+)* Error")
OVER = re.compile(r"(!=|>=?)\s*(\d+)")


@dataclass(slots=True)
class _Heard:
    """What of its events is kept: its own errors, and what it said before the first of them where there is none."""

    tell: Callable[[str], None]
    broken: list[str] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)
    events: int = 0
    invocation: str | None = None

    def hear(self, line: str) -> None:
        try:
            event = json.loads(line)
            info, data = event["info"], event["data"]
        except (ValueError, TypeError, KeyError):
            self.plain = [*self.plain[-LINES:], line]
            return
        self.events += 1
        self.invocation = info.get("invocation_id") or self.invocation
        if info.get("name") == "MainEncounteredError":
            self.broken.append(str(data.get("exc", "")))
        node = data.get("node_info")
        if isinstance(node, dict) and re.fullmatch(r"Log\w*Result", str(info.get("name"))):
            self.tell(f"dbt: {_name(str(node.get('unique_id')))} {node.get('node_status')}")


@dataclass(frozen=True, slots=True)
class Dbt:
    """One project of dbt, and how it is called."""

    program: str
    project: Path
    profiles: Path
    target: str | None
    select: tuple[str, ...]
    vars: Mapping[str, Any]
    environ: Mapping[str, str] = field(repr=False)

    def check(self) -> None:
        self._found()
        for folder, file, setting in (
            (self.project, "dbt_project.yml", "dbt.project"),
            (self.profiles, "profiles.yml", "dbt.profiles"),
        ):
            if not (folder / file).is_file():
                raise ConfigError(f"dbt: {folder} has no {file}", hint=f"name the folder that has it as {setting}")

    def prove(self, scratch: Path, stop: Stopping) -> None:
        with _folder(scratch) as target:
            heard = _Heard(_nobody)
            code = self._call(["parse"], target, stop, heard)
            if code:
                raise self._broken(code, heard)

    def build(self, scratch: Path, stop: Stopping, tell: Callable[[str], None]) -> tuple[Built, ...]:
        select = ["--select", *self.select] if self.select else []
        with _folder(scratch) as target:
            heard = _Heard(tell)
            code = self._call(["build", "--write-json", *select], target, stop, heard)
            found = _read(target / "run_results.json")
            if code == BROKEN or found is None:
                raise self._broken(code, heard)
            if heard.invocation not in (None, found["metadata"]["invocation_id"]):
                raise ConfigError("dbt left results of another call than its own", hint="look at its flags")
            manifest = _read(target / "manifest.json") or {}
        return tuple(_built(one, manifest) for one in found["results"])

    def _found(self) -> str:
        """The program's path. A name with a slash is a path already."""
        found = shutil.which(self.program, path=self.environ.get("PATH"))
        if found is None:
            raise ConfigError(
                f"dbt: there is no program {self.program}",
                hint="install it in a virtual environment of its own, and name its path as dbt.program",
            )
        return found

    def _call(self, words: Sequence[str], target: Path, stop: Stopping, heard: _Heard) -> int:
        self.check()
        flags = ["--log-format", "json", "--log-level", "info", "--log-level-file", "none", "--no-use-colors"]
        flags += ["--no-send-anonymous-usage-stats"]
        places = ["--project-dir", str(self.project), "--profiles-dir", str(self.profiles)]
        places += ["--target-path", str(target), "--log-path", str(target)]
        said = [f"--target={self.target}"] if self.target is not None else []
        said += ["--vars", json.dumps(dict(self.vars))] if self.vars else []
        return child.run(
            [self._found(), *flags, *words, *places, *said],
            folder=self.project,
            environ={**self.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"},
            stop=stop,
            hear=heard.hear,
            started=lambda: steps.reached("dbt.started"),
        )

    def _broken(self, code: int, heard: _Heard) -> ConfigError | WarehouseError:
        """Why dbt could not do what it was called for."""
        # Of what is no event only that of its command line is told, which comes alone.
        said = "\n".join(heard.broken) or ("" if heard.events else "\n".join(heard.plain))
        told = f"dbt ended with exit {code}: {_shortened(said) or 'it said nothing'}"
        if code in NO_PROGRAM:
            return ConfigError(f"dbt: {self.program} cannot be run", hint="ls -l it, and what its first line names")
        if UNREACHABLE.search(said):
            return WarehouseError(told, hint="dbt debug says more", transient=True)
        return ConfigError(told, hint=f"put it right; dbt parse --project-dir {self.project} says more")


def _nobody(told: str) -> None:
    """Nobody is told."""
    del told


@contextmanager
def _folder(scratch: Path) -> Iterator[Path]:
    """A new folder for what dbt writes, so that no results of another call are ever read."""
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dbt-", dir=scratch, ignore_cleanup_errors=True) as name:
        yield Path(name)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"dbt left a {path.name} that cannot be read: {error}", hint="look at its flags") from error
    return found


def _built(said: Mapping[str, Any], manifest: Mapping[str, Any]) -> Built:
    unique = str(said["unique_id"])
    node: Mapping[str, Any] = manifest.get("nodes", {}).get(unique) or manifest.get("unit_tests", {}).get(unique) or {}
    status, failures = str(said["status"]), said.get("failures")
    return Built(
        name=_name(unique),
        unique=unique,
        kind=unique.partition(".")[0],
        status=status,
        failures=None if failures is None else int(failures),
        limit=_limit(node.get("config", {})),
        seconds=float(said.get("execution_time") or 0),
        tables=tuple(sorted(_tables(unique, manifest))),
        told=_cleaned(str(said.get("message") or "")) if status in Built.ERRORS else None,
    )


def _name(unique: str) -> str:
    """The node's own name: of `test.mart.not_null_hcp_id.1a2b3c` the third part."""
    parts = unique.split(".")
    return parts[2] if len(parts) > 2 else unique


def _limit(config: Mapping[str, Any]) -> float | None:
    """The most failures with which a test passes; None where it only warns, or counts in a way of its own."""
    match = OVER.fullmatch(str(config.get("error_if", "!= 0")).strip())
    if match is None or str(config.get("severity", "error")).lower() != "error":
        return None
    return float(match[2]) - (1 if match[1] == ">=" else 0)


def _tables(unique: str, manifest: Mapping[str, Any]) -> set[str]:
    """The tables of sources that a node stands on, however far below."""
    parents, sources = manifest.get("parent_map", {}), manifest.get("sources", {})
    seen, left = {unique}, [unique]
    while left:
        above = [one for one in parents.get(left.pop(), ()) if one not in seen]
        seen.update(above)
        left += above
    return {str(sources[one]["identifier"]).replace('""', '"') for one in seen if one in sources}


def _shortened(text: str) -> str:
    """The first lines of an error of dbt, without those of a database that may tell of a value."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" -")]
    if any(line.startswith("Database Error") for line in lines):
        return _cleaned(text)
    return "; ".join(lines[:LINES])[:SAID]


def _cleaned(message: str) -> str:
    """What may be told of an error that a database raised over rows: its kind, and what speaks of names alone."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    kinds = [found[0] for line in lines[:2] if (found := KIND.match(line))]
    fitting = (found[0] for line in lines[1:] if (found := OF_NO_VALUE.match(line)))
    return (next(fitting, None) or (kinds[-1] if kinds else "an error"))[:SAID]
