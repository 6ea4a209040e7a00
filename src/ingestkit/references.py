"""References to secrets, `${env:X}` and `${file:path}`: kept as they are until something is opened."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingestkit.errors import ConfigError

REFERENCE = re.compile(r"\$\{(?P<kind>[a-z][a-z0-9-]*):(?P<name>[^{}]*)\}")
KINDS = ("env", "file")


@dataclass(frozen=True, slots=True)
class Secrets:
    """Where references are looked up. Its repr shows none of them."""

    root: Path
    environ: Mapping[str, str] = field(repr=False)

    def resolve(self, value: Any, key: str) -> Any:
        """The value with its references replaced; `key` is the setting that needs them, for messages."""
        if isinstance(value, str):
            return REFERENCE.sub(lambda match: self._found(match["kind"], match["name"], key), value)
        if isinstance(value, Mapping):
            return {name: self.resolve(one, f"{key}.{name}") for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.resolve(one, f"{key}.{number}") for number, one in enumerate(value)]
        return value

    def _found(self, kind: str, name: str, key: str) -> str:
        match kind:
            case "env":
                return self._variable(name, key)
            case "file":
                return self._file(name, key)
            case _:
                raise ConfigError(unknown(kind, key))

    def _variable(self, name: str, key: str) -> str:
        found = self.environ.get(name)
        if found is None:
            raise ConfigError(
                f"{key} needs the environment variable {name}, which is not set", hint=f"export {name}=..."
            )
        return found

    def _file(self, name: str, key: str) -> str:
        path = self.root / name
        try:
            return path.read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise ConfigError(
                f"{key} needs the file {path}, which cannot be read: {error.strerror}", hint=f"ls -l {path}"
            ) from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{key} needs the file {path}, which is not UTF-8", hint=f"file {path}") from error


def problem(text: str, key: str, *, resolved: bool) -> str | None:
    """What is wrong with the references in a setting; `resolved` says whether its place is one that resolves them."""
    for match in REFERENCE.finditer(text):
        if match["kind"] not in KINDS:
            return unknown(match["kind"], key)
        if not resolved:
            places = "connections, state.url, metrics.otlp, alerts.channels and a pipeline's source"
            return f"{key}: a reference is resolved in {places}, not here"
    return None


def unknown(kind: str, key: str) -> str:
    return f"{key}: there are no references of kind {kind!r}; known are {', '.join(KINDS)}"
