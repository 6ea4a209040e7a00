"""The configuration of a project: file, profile, environment and flags laid over each other, checked, and explained."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any

from pydantic import BaseModel

from ingestkit import layers, references, variables
from ingestkit.errors import ConfigError
from ingestkit.layers import PUT_RIGHT, Keys, Node, Origin, dotted
from ingestkit.model import SqlCheck
from ingestkit.settings import (
    AdlsConnection,
    Everything,
    LocalConnection,
    PipelineSettings,
    PostgresqlConnection,
    S3Connection,
    Settings,
    SftpConnection,
    SnowflakeConnection,
    VaultConnection,
    Warehouse,
    rejects_beside,
)
from ingestkit.shapes import checked, nearest
from ingestkit.variables import Variable

DEFAULT_PROFILE = "local"
SUFFIXES = (".yaml", ".yml", ".json")
SECRET_HEADER = re.compile(r"auth|key|token|secret|password|cookie", re.IGNORECASE)
SECRETS = ("password", "passphrase", "connection_string", "secret_key", "token")
"""Settings of connections that are only said by reference."""
URL_PASSWORD = re.compile(r"://[^:/@]*:([^@]*)@|[?&](?:ssl)?password=([^&]*)")
LONGEST_IDENTIFIER = 63
LONGEST_IN_SNOWFLAKE = 255
SYSTEM_COLUMNS = ("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid")
MODELS_OF_CHECK = re.compile(r"\s*--\s*models:\s*(\S.*)")


@dataclass(frozen=True, slots=True)
class Configuration:
    """The layers of a project, and the settings they make. A pipeline's are made when it is asked for."""

    root: Path
    profile: str
    tree: Node = field(repr=False)
    settings: Settings
    overlay: Node = field(repr=False)
    """What the profile says below `pipelines`."""
    environment: tuple[tuple[Variable, ...], ...] = field(repr=False)
    """The variables that name settings: those of `config.env`, then the stronger ones of the process."""
    flags: Node = field(repr=False)


@dataclass(frozen=True, slots=True)
class Setting:
    """A value as it stands, and where it came from."""

    key: str
    value: Any
    layer: str
    place: str


def read(
    root: Path,
    profile: str | None,
    in_file: tuple[Variable, ...],
    environ: Mapping[str, str],
    flags: Mapping[str, Any],
) -> Configuration:
    """The configuration below `root`; ConfigError with one line per problem in its settings."""
    written = _written(root)
    environment = (in_file, variables.from_process(environ))
    chosen = _chosen(profile, environment, layers.below(written, "profile"))
    overlay = _overlay(written, chosen)
    tree = layers.lay(layers.without(overlay, "pipelines"), layers.without(written, "profiles"))
    tree, problems = _environment(tree, [_about_settings(each) for each in environment])
    asked = layers.mapping(Origin("flag", "flag"))
    for name, value in flags.items():
        origin = Origin("flag", f"--{name.replace('.', '-').replace('_', '-')}")
        asked = layers.lay(layers.nested(tuple(name.split(".")), layers.built(value, origin)), asked)
    tree = layers.lay(layers.without(asked, "pipelines"), tree)
    tree = layers.lay(layers.mapping(tree.origin, {"profile": chosen}), tree)
    settings, wrong = checked(Settings, tree)
    known = pipeline_files(root)
    strangers = (*_unknown_pipelines(overlay, known), *_astray(environment, known))
    problems = (*problems, *wrong, *_references(tree), *strangers)
    if settings is None or problems:
        raise ConfigError("\n".join(problems), hint=PUT_RIGHT)
    ours = tuple(variables.ours(each) for each in environment)
    below = layers.below(overlay, "pipelines") or layers.mapping(overlay.origin)
    return Configuration(root, chosen.value, tree, settings, below, ours, asked)


def pipeline_files(root: Path) -> Mapping[str, Path]:
    """The pipelines of the project and the files they stand in, by name."""
    folder = root / "config" / "pipelines"
    found: dict[str, Path] = {}
    try:
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise ConfigError(f"{shown(root, folder)} cannot be read: {error.strerror}", hint=f"ls -ld {folder}") from error
    for path in paths:
        if path.suffix not in SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            raise ConfigError(
                f"{shown(root, path)} and {shown(root, found[path.stem])} are of the same name", hint="keep one of them"
            )
        found[path.stem] = path
    return found


def pipeline_tree(configuration: Configuration, name: str) -> tuple[Node, tuple[str, ...]]:
    """A pipeline's layers laid over each other, and the problems in their variables."""
    root, files = configuration.root, pipeline_files(configuration.root)
    if name not in files:
        known = nearest(name, files) or "; config/pipelines/ holds none"
        raise ConfigError(f"there is no pipeline {name!r}{known}", hint=f"write config/pipelines/{name}.yaml")
    tree = layers.read_file(files[name], shown(root, files[name]), "file")
    overlay = layers.below(configuration.overlay, name)
    tree = layers.lay(overlay, tree) if overlay is not None else tree
    whole = layers.nested(("pipelines", name), tree)
    whole, problems = _environment(whole, [_about(each, name, files) for each in configuration.environment])
    tree = layers.find(whole, ("pipelines", name)) or tree
    asked = layers.find(configuration.flags, ("pipelines", name))
    return (layers.lay(asked, tree) if asked is not None else tree), problems


def pipeline(configuration: Configuration, name: str) -> PipelineSettings:
    """A pipeline's settings; ConfigError with one line per problem."""
    tree, problems = pipeline_tree(configuration, name)
    settings, wrong = checked(PipelineSettings, tree)
    problems = (*problems, *wrong, *_references(tree, ("pipelines", name)))
    if settings is not None:
        problems = (*problems, *_unfitting(configuration, name, settings, tree))
    if settings is None or problems:
        raise ConfigError("\n".join(problems), hint=PUT_RIGHT)
    return settings


def gate_checks(root: Path, settings: PipelineSettings) -> tuple[SqlCheck, ...]:
    """The pipeline's own queries over what is published, each with the models it names in its first line."""
    return tuple(
        _gate_check(root, path, settings) for path in sorted((root / "sql" / "gate" / settings.pipeline).glob("*.sql"))
    )


def _gate_check(root: Path, path: Path, settings: PipelineSettings) -> SqlCheck:
    name = shown(root, path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name} cannot be read: {error}", hint=PUT_RIGHT) from error
    named = MODELS_OF_CHECK.match(text)
    if named is None:
        raise ConfigError(
            f"{name}: its first line must name the models it looks at, such as `-- models: hcp, hco`", hint=PUT_RIGHT
        )
    models = tuple(dict.fromkeys(word.strip() for word in named[1].split(",")))
    for model in models:
        if model not in settings.models:
            raise ConfigError(f"{name}: there is no model {model!r}{nearest(model, settings.models)}", hint=PUT_RIGHT)
    return SqlCheck(name, models, text.strip().removesuffix(";"))


def explained(model: BaseModel, tree: Node, at: Keys = ()) -> tuple[Setting, ...]:
    """Every value of a checked model, with where it came from; references as references."""
    held = layers.built(model.model_dump(mode="json", by_alias=True), Origin("default", ""))
    found = []
    for keys, leaf in layers.leaves(held):
        said = layers.find(tree, keys)
        origin = said.origin if said is not None else leaf.origin
        found.append(Setting(dotted((*at, *keys)), leaf.value, origin.layer, origin.place))
    return tuple(found)


def settings_file(root: Path) -> Path | None:
    found = [path for suffix in SUFFIXES if (path := root / "config" / f"settings{suffix}").is_file()]
    if len(found) > 1:
        raise ConfigError(
            f"{shown(root, found[0])} and {shown(root, found[1])} are both there", hint="keep one of them"
        )
    return found[0] if found else None


def profiles(root: Path) -> tuple[str, ...]:
    """The profiles settings.yaml has."""
    held = layers.below(_written(root), "profiles")
    return tuple(held.value) if held is not None and isinstance(held.value, dict) else ()


def shown(root: Path, path: Path) -> str:
    """A path as messages name it."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _written(root: Path) -> Node:
    path = settings_file(root)
    return layers.read_file(path, shown(root, path), "file") if path else layers.mapping(Origin("file", "config"))


def _chosen(flag: str | None, environment: Iterable[tuple[Variable, ...]], written: Node | None) -> Node:
    if flag:
        return Node(flag, Origin("flag", "--profile"))
    for each in reversed(tuple(environment)):
        for variable in each:
            if variable.name.upper() in ("INGESTKIT_PROFILE", "INGESTKIT__PROFILE") and variable.text:
                return Node(variable.text, variable.origin)
    return written if written is not None and written.value else Node(DEFAULT_PROFILE, Origin("default", ""))


def _overlay(written: Node, chosen: Node) -> Node:
    held = layers.below(written, "profiles") or layers.mapping(written.origin)
    if not isinstance(held.value, dict):
        raise ConfigError(f"{held.origin.place}: profiles: should be a mapping of names to settings", hint=PUT_RIGHT)
    overlay = layers.below(held, str(chosen.value))
    if overlay is None and (chosen.value != DEFAULT_PROFILE or chosen.origin.layer in ("flag", "environment")):
        known = nearest(str(chosen.value), held.value) or "; settings.yaml has no profiles"
        raise ConfigError(f"{chosen.origin.place}: there is no profile {chosen.value!r}{known}", hint=PUT_RIGHT)
    if overlay is None or overlay.value is None:
        return layers.mapping(held.origin)
    if not isinstance(overlay.value, dict):
        raise ConfigError(
            f"{overlay.origin.place}: profiles.{chosen.value}: should be a mapping of settings", hint=PUT_RIGHT
        )
    if stray := layers.below(overlay, "profile") or layers.below(overlay, "profiles"):
        raise ConfigError(f"{stray.origin.place}: a profile cannot choose a profile", hint=PUT_RIGHT)
    return layers.labelled(overlay, f"profile {chosen.value}")


def _environment(tree: Node, each: Iterable[tuple[Variable, ...]]) -> tuple[Node, tuple[str, ...]]:
    problems: tuple[str, ...] = ()
    for one in each:
        layer, wrong = variables.layer(one, Everything, tree)
        tree = layers.lay(layer, tree)
        problems = (*problems, *wrong)
    return tree, problems


def _about_settings(each: tuple[Variable, ...]) -> tuple[Variable, ...]:
    return tuple(
        one
        for one in variables.ours(each)
        # The profile was chosen before: an empty one chooses nothing.
        if variables.leading(variables.rest(one), ("pipelines", "profile")) is None
    )


def _about(each: tuple[Variable, ...], name: str, known: Iterable[str]) -> tuple[Variable, ...]:
    return tuple(one for one in each if variables.leading(_aim(one), known) == name)


def _aim(variable: Variable) -> str:
    left = variables.rest(variable)
    return left.removeprefix("pipelines__") if left.startswith("pipelines__") else ""


def _astray(environment: Iterable[tuple[Variable, ...]], known: Mapping[str, Path]) -> tuple[str, ...]:
    return tuple(
        f"{one.origin.place}: there is no pipeline {word!r}{nearest(word, known)}"
        for each in environment
        for one in variables.ours(each)
        if variables.leading(variables.rest(one), ("pipelines",)) and variables.leading(_aim(one), known) is None
        for word in (_aim(one).split("__", 1)[0],)
    )


def _unknown_pipelines(overlay: Node, known: Mapping[str, Path]) -> tuple[str, ...]:
    held = layers.below(overlay, "pipelines")
    if held is None or held.value is None:
        return ()
    if not isinstance(held.value, dict):
        return (f"{held.origin.place}: pipelines: should be a mapping of names to settings",)
    return tuple(
        f"{node.origin.place}: there is no pipeline {name!r}{nearest(name, known)}"
        for name, node in held.value.items()
        if name not in known
    )


def _references(tree: Node, at: Keys = ()) -> tuple[str, ...]:
    found = []
    for keys, leaf in layers.leaves(tree):
        resolved = keys[:1] == ("source",) if at else keys[:1] == ("connections",) or keys == ("state", "url")
        resolved = resolved or (not at and keys[:2] in (("metrics", "otlp"), ("alerts", "channels")))
        if isinstance(leaf.value, str):
            wrong = references.problem(leaf.value, dotted(keys), resolved=resolved)
            wrong = wrong or (_open_secret(keys, leaf.value) if not at else None)
            found.extend([f"{leaf.origin.place}: {wrong}"] if wrong else [])
    return tuple(found)


def _open_secret(keys: Keys, value: str) -> str | None:
    """A secret that stands in a file would be read by whoever reads that."""
    if keys == ("state", "url"):
        said = [match[1] or match[2] or "" for match in URL_PASSWORD.finditer(value)]
        if all(not one or references.REFERENCE.search(one) for one in said):
            return None
        return (
            "state.url: its password is a secret, and is only said where it is found: user:${env:STATE_PASSWORD}@host"
        )
    is_secret = keys[:1] == ("connections",) and keys[-1] in SECRETS
    if keys[:3] == ("metrics", "otlp", "headers"):
        is_secret = SECRET_HEADER.search(str(keys[-1])) is not None
    if keys[:2] == ("alerts", "channels"):
        # Who knows the address of a webhook may post there.
        is_secret = keys[3:] in (("url",), ("password",))
        is_secret = is_secret or (keys[3:4] == ("headers",) and SECRET_HEADER.search(str(keys[-1])) is not None)
    if not is_secret or references.REFERENCE.search(value):
        return None
    return f"{dotted(keys)}: is a secret, and is only said where it is found, such as ${{env:{str(keys[-1]).upper()}}}"


def _unfitting(configuration: Configuration, name: str, settings: PipelineSettings, tree: Node) -> list[str]:
    """What a pipeline names that is not there, or is of another kind."""
    found = []
    if settings.pipeline != name:
        where = (layers.below(tree, "pipeline") or tree).origin.place
        found.append(f"{where}: pipeline: says {settings.pipeline!r}, but the file is named for {name!r}")
    drops = VaultConnection if settings.source.type == "vault" else LocalConnection | SftpConnection
    wanted: tuple[tuple[Keys, str, type[BaseModel] | UnionType], ...] = (
        (("source", "connection"), settings.source.connection, drops),
        (("lake",), settings.lake, LocalConnection | S3Connection | AdlsConnection),
        (("warehouse",), settings.warehouse, Warehouse),
    )
    known = configuration.settings.alerts.channels
    found += [
        f"{(layers.find(tree, ('alerts', 'channels')) or tree).origin.place}: alerts.channels: there is no channel"
        f" {channel!r}{nearest(channel, known)}"
        for channel in settings.alerts.channels or ()
        if channel not in known
    ]
    connections = configuration.settings.connections
    for keys, connection, kind in wanted:
        where = f"{(layers.find(tree, keys) or tree).origin.place}: {dotted(keys)}"
        held = connections.get(connection)
        if held is None:
            profile = f"profile {configuration.profile} has no connection {connection!r}"
            found.append(f"{where}: {profile}{nearest(connection, connections)}")
        elif not isinstance(held, kind):
            found.append(f"{where}: connection {connection!r} is of type {held.type}, which does not serve here")
        elif isinstance(held, PostgresqlConnection):
            found.extend(_not_in_postgresql(settings, tree))
        elif isinstance(held, SnowflakeConnection) and settings.tables is not None:
            found.append(f"{where}: tables that archives say are loaded into DuckDB or PostgreSQL")
        elif isinstance(held, SnowflakeConnection):
            found.extend(_too_long(settings, tree))
            found.extend(_one_in_upper_case(settings, tree) if held.names == "upper" else ())
    return found


def _named(settings: PipelineSettings) -> Iterator[tuple[Keys, str]]:
    """What is a name in the warehouse, of each model: its tables and columns."""
    for name, model in settings.models.items():
        table = model.table or name
        yield ("models", name, "table"), table
        if model.rejects_table != "off":
            yield ("models", name, "rejects_table"), rejects_beside(table)
        yield from ((("models", name, "columns", column), column) for column in model.columns)


def _too_long(settings: PipelineSettings, tree: Node) -> Iterator[str]:
    """Names that Snowflake refuses."""
    for keys, said in _named(settings):
        if len(said) > LONGEST_IN_SNOWFLAKE:
            where = f"{(layers.find(tree, keys) or tree).origin.place}: {dotted(keys)}"
            yield f"{where}: a name in Snowflake has at most {LONGEST_IN_SNOWFLAKE} characters, and {said!r} more"


def _one_in_upper_case(settings: PipelineSettings, tree: Node) -> Iterator[str]:
    """Names that differ in case alone, and would be one in upper case."""
    for name, model in settings.models.items():
        known: dict[str, str] = {}
        for column in model.columns:
            keys = ("models", name, "columns", column)
            if (other := known.setdefault(column.upper(), column)) != column:
                where = f"{(layers.find(tree, keys) or tree).origin.place}: {dotted(keys)}"
                yield f"{where}: {column!r} and {other!r} would be one column in Snowflake; set names: exact there"


def _not_in_postgresql(settings: PipelineSettings, tree: Node) -> Iterator[str]:
    """Names that PostgreSQL would cut short or has taken itself, and keys it cannot compare."""
    for keys, said in _named(settings):
        model = settings.models[str(keys[1])]
        where = f"{(layers.find(tree, keys) or tree).origin.place}: {dotted(keys)}"
        if len(said.encode()) > LONGEST_IDENTIFIER:
            yield f"{where}: a name in PostgreSQL has at most {LONGEST_IDENTIFIER} bytes, and {said!r} more"
        if keys[2] == "columns" and said in SYSTEM_COLUMNS:
            yield f"{where}: every table in PostgreSQL has a column {said!r} of its own already"
        if said in model.key and model.columns[said].type == "json":
            yield f"{where}: PostgreSQL compares no values of type json, so {said!r} cannot be of the key"
