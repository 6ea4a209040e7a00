"""Environment variables as a layer of the settings: names matched to keys, values read by pydantic-settings."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dotenv.parser import parse_stream
from pydantic_settings import BaseSettings, EnvSettingsSource
from pydantic_settings.exceptions import SettingsError

from ingestkit import layers
from ingestkit.errors import ConfigError
from ingestkit.layers import Keys, Node, Origin, dotted
from ingestkit.shapes import held_type, names, nearest, step

PREFIX = "INGESTKIT__"
# Between keys for pydantic-settings; no name holds it, while a column's name may well hold two underscores.
BETWEEN = "\x1f"


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable, and what messages call it."""

    name: str
    text: str
    origin: Origin


def from_process(environ: Mapping[str, str]) -> tuple[Variable, ...]:
    return tuple(Variable(name, text, Origin("environment", name)) for name, text in environ.items())


def from_file(path: Path, shown: str) -> tuple[Variable, ...]:
    """The variables of a `config.env`; nothing in it is expanded, and a line that says nothing is refused."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{shown}: cannot be read: {error.strerror}", hint="name another with --env-file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown}: is not UTF-8 at byte {error.start}", hint="save it as UTF-8") from error
    found = []
    for binding in parse_stream(io.StringIO(text)):
        line = binding.original.line + _blank_lines(binding.original.string)
        if binding.error or (binding.key is not None and binding.value is None):
            raise ConfigError(
                f"{shown}:{line}: not NAME=value", hint="put it right, or leave the file out with --no-env-file"
            )
        if binding.key is not None and binding.value is not None:
            origin = Origin("env file", f"{shown}:{line} {binding.key}")
            found.append(Variable(binding.key, binding.value, origin))
    return tuple(found)


def _blank_lines(text: str) -> int:
    return text[: len(text) - len(text.lstrip())].count("\n")


def layer(variables: Iterable[Variable], shape: type[BaseSettings], tree: Node) -> tuple[Node, tuple[str, ...]]:
    """The settings the variables name, and one line per problem.

    `tree` holds what weaker layers say: a variable may use the names it has, whatever their case.
    """
    found = layers.mapping(Origin("environment", "environment"))
    problems: list[str] = []
    seen: dict[Keys, Variable] = {}
    # Shorter names first, so that a mapping given whole lies below its single keys.
    for variable in sorted(variables, key=lambda one: (one.name.count("__"), one.name)):
        try:
            keys = _keys(variable, shape, tree)
            if keys in seen:
                raise ConfigError(f"{variable.origin.place}: sets {dotted(keys)}, as {seen[keys].origin.place} does")
            value = _decoded(shape, keys, variable)
        except ConfigError as error:
            problems.append(error.message)
        else:
            seen[keys] = variable
            found = layers.lay(layers.nested(keys, layers.built(value, variable.origin)), found)
    return found, tuple(problems)


def ours(variables: Iterable[Variable]) -> tuple[Variable, ...]:
    """Those that name settings."""
    return tuple(one for one in variables if one.name.upper().startswith(PREFIX))


def rest(variable: Variable) -> str:
    """What stands behind the prefix."""
    return variable.name[len(PREFIX) :].lower()


def leading(text: str, names: Iterable[str]) -> str | None:
    """The longest of the names that `text` is or begins with; names may hold two underscores themselves."""
    fitting = [one for one in names if text == one.lower() or text.startswith(f"{one.lower()}__")]
    return max(fitting, key=len, default=None)


def _keys(variable: Variable, shape: type[BaseSettings], tree: Node) -> tuple[str, ...]:
    keys: tuple[str, ...] = ()
    left = rest(variable)
    annotation: Any = shape
    while left:
        there = layers.find(tree, keys)
        known = names(annotation, there)
        key = leading(left, known)
        if key is None:
            key = left.split("__", 1)[0]
            if not key or held_type(annotation) is None:
                below = f" in {dotted(keys)}" if keys else ""
                raise ConfigError(f"{variable.origin.place}: there is no setting {key!r}{below}{nearest(key, known)}")
        left = left[len(key) :].removeprefix("__")
        annotation = step(annotation, key, there)
        keys = (*keys, key)
    if not keys:
        raise ConfigError(f"{variable.origin.place}: names no setting; such as {PREFIX}JOBS")
    return keys


def _decoded(shape: type[BaseSettings], keys: tuple[str, ...], variable: Variable) -> Any:
    source = EnvSettingsSource(shape, case_sensitive=True, env_prefix="", env_nested_delimiter=BETWEEN)
    source.env_vars = {BETWEEN.join(keys): variable.text}
    try:
        value: Any = source()
    except SettingsError as error:
        if not variable.text.lstrip().startswith(("[", "{")):
            # One of a setting that may be one or several; where it may not, its own check says so.
            return variable.text
        raise ConfigError(
            f"{variable.origin.place}: {dotted(keys)} is a list or mapping, and the value is not JSON"
        ) from error
    for key in keys:
        value = value[key]
    return value
