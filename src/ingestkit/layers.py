"""Values with their origin: YAML read with line numbers, layers laid over each other. What they mean is `shapes`'."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import yaml

from ingestkit.errors import ConfigError

Keys: TypeAlias = tuple[str | int, ...]

PUT_RIGHT = "put it right, then: ingestkit config validate"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from: its layer, and the file and line or the variable that says it."""

    layer: str
    place: str


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it was said. Mappings and lists hold nodes."""

    value: Any
    origin: Origin


def mapping(origin: Origin, held: Mapping[str, Node] | None = None) -> Node:
    return Node(dict(held or {}), origin)


def built(value: Any, origin: Origin) -> Node:
    """Plain JSON as nodes, all of one origin."""
    if isinstance(value, Mapping):
        return Node({str(key): built(one, origin) for key, one in value.items()}, origin)
    if isinstance(value, list | tuple):
        return Node([built(one, origin) for one in value], origin)
    return Node(value, origin)


def labelled(node: Node, layer: str) -> Node:
    """The same values as another layer's, from the same places."""
    value = node.value
    if isinstance(value, dict):
        value = {key: labelled(one, layer) for key, one in value.items()}
    elif isinstance(value, list):
        value = [labelled(one, layer) for one in value]
    return Node(value, Origin(layer, node.origin.place))


def nested(keys: tuple[str, ...], node: Node) -> Node:
    """A node put below the mappings `keys` name."""
    for key in reversed(keys):
        node = mapping(node.origin, {key: node})
    return node


def plain(node: Node) -> Any:
    """The value without origins."""
    if isinstance(node.value, dict):
        return {key: plain(one) for key, one in node.value.items()}
    if isinstance(node.value, list):
        return [plain(one) for one in node.value]
    return node.value


def below(node: Node, key: str | int) -> Node | None:
    """The node a key or index leads to."""
    if isinstance(node.value, dict):
        found = node.value.get(key)
        return found if isinstance(found, Node) else None
    if isinstance(node.value, list) and isinstance(key, int) and 0 <= key < len(node.value):
        item: Node = node.value[key]
        return item
    return None


def find(node: Node, keys: Keys) -> Node | None:
    there: Node | None = node
    for key in keys:
        there = below(there, key) if there is not None else None
    return there


def without(node: Node, *keys: str) -> Node:
    """The mapping less some of its keys."""
    return Node({key: one for key, one in node.value.items() if key not in keys}, node.origin)


def leaves(node: Node, at: Keys = ()) -> Iterator[tuple[Keys, Node]]:
    """Every value that holds no other, with the keys that lead to it."""
    if isinstance(node.value, dict) and node.value:
        for key, one in node.value.items():
            yield from leaves(one, (*at, key))
    elif isinstance(node.value, list) and node.value:
        for number, one in enumerate(node.value):
            yield from leaves(one, (*at, number))
    else:
        yield at, node


def dotted(keys: Keys) -> str:
    return ".".join(str(key) for key in keys)


def lay(stronger: Node, weaker: Node, at: Keys = ()) -> Node:
    """One layer over another: mappings are merged key by key, anything else is replaced.

    An adapter of another `type` is replaced whole: the keys of a folder mean nothing to a server.
    """
    if (
        not isinstance(stronger.value, dict)
        or not isinstance(weaker.value, dict)
        or _another_kind(stronger, weaker, at)
    ):
        return stronger
    merged = dict(weaker.value)
    for key, node in stronger.value.items():
        merged[key] = lay(node, merged[key], (*at, key)) if key in merged else node
    return Node(merged, weaker.origin)


def _another_kind(stronger: Node, weaker: Node, at: Keys) -> bool:
    match at:
        case ("connections", _) | ("source",) | ("pipelines", _, "source"):
            new, old = below(stronger, "type"), below(weaker, "type")
            return new is not None and old is not None and bool(new.value != old.value)
        case _:
            return False


def read_file(path: Path, shown: str, layer: str) -> Node:
    """A YAML or JSON file as a mapping; `shown` is how messages name it."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{shown}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown}: is not UTF-8 at byte {error.start}", hint="save it as UTF-8") from error
    if path.suffix == ".json":
        text = _checked_json(text, shown)
    return read_text(text, shown, layer)


def read_text(text: str, shown: str, layer: str) -> Node:
    try:
        found = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark is not None else ""
        said = " ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{shown}{line}: not valid YAML: {said}", hint=PUT_RIGHT) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{shown}: not valid YAML: {' '.join(str(error).split())}", hint=PUT_RIGHT) from error
    whole = Origin(layer, f"{shown}:1")
    if found is None:
        return mapping(whole)
    node = _built(found, lambda line: Origin(layer, f"{shown}:{line}"), ())
    if node.value is None:
        return mapping(whole)
    if not isinstance(node.value, dict):
        raise ConfigError(f"{node.origin.place}: a mapping of keys to values is expected here", hint=PUT_RIGHT)
    return node


def _checked_json(text: str, shown: str) -> str:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{shown}:{error.lineno}: not valid JSON: {error.msg}", hint=PUT_RIGHT) from error
    # Inside a JSON string a tab is escaped; YAML takes no others.
    return text.replace("\t", " ")


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain values: `no` is a word, `2024-01-01` a text, and `0755` no octal number."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {  # type: ignore[misc]
        **{
            first: [("tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"))]
            for first in "tTfF"
        },
        **{
            first: [
                ("tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")),
                (
                    "tag:yaml.org,2002:float",
                    re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z"),
                ),
            ]
            for first in "-+.0123456789"
        },
        **{
            first: [("tag:yaml.org,2002:null", re.compile(r"(?:~|null|Null|NULL|)\Z"))] for first in ("~", "n", "N", "")
        },
    }


SCALARS: Mapping[str, Callable[[str], Any]] = {
    "tag:yaml.org,2002:str": str,
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
    "tag:yaml.org,2002:bool": lambda text: text.lower() == "true",
    "tag:yaml.org,2002:null": lambda _: None,
}


def _built(node: yaml.Node, at: Callable[[int], Origin], above: tuple[int, ...]) -> Node:
    origin = at(node.start_mark.line + 1)
    if id(node) in above:
        raise ConfigError(f"{origin.place}: an anchor holds itself", hint=PUT_RIGHT)
    inside = (*above, id(node))
    if isinstance(node, yaml.SequenceNode):
        return Node([_built(one, at, inside) for one in node.value], origin)
    if isinstance(node, yaml.MappingNode):
        return Node(_built_mapping(node, at, inside), origin)
    convert = SCALARS.get(node.tag)
    if convert is None:
        raise ConfigError(f"{origin.place}: the tag {node.tag.rsplit(':', 1)[-1]!r} is not used here", hint=PUT_RIGHT)
    try:
        return Node(convert(node.value), origin)
    except ValueError as error:
        raise ConfigError(f"{origin.place}: {node.value!r} is not what its tag says", hint=PUT_RIGHT) from error


def _built_mapping(node: yaml.MappingNode, at: Callable[[int], Origin], above: tuple[int, ...]) -> dict[str, Node]:
    held: dict[str, Node] = {}
    for key_node, value_node in node.value:
        origin = at(key_node.start_mark.line + 1)
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{origin.place}: a key is a plain word", hint=PUT_RIGHT)
        key = str(key_node.value)
        if key in held:
            raise ConfigError(
                f"{origin.place}: the key {key!r} is there already, at {held[key].origin.place}", hint=PUT_RIGHT
            )
        # A value's place is its key's line: that is where a reader looks.
        held[key] = Node(_built(value_node, at, above).value, origin)
    return held
