"""What the settings models allow at a place: names, values, and findings told with file, line, key and nearest name."""

import difflib
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ingestkit.layers import Keys, Node, below, dotted, plain

Checked = TypeVar("Checked", bound=BaseModel)


def checked(model: type[Checked], node: Node, at: Keys = ()) -> tuple[Checked | None, tuple[str, ...]]:
    """The validated model, or one line per problem; `at` are the keys above, for messages."""
    try:
        return model.model_validate(plain(node)), ()
    except ValidationError as error:
        lines = [_line(model, node, at, one) for one in error.errors(include_url=False)]
        return None, tuple(dict.fromkeys(lines))


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or what there is when nothing is near."""
    names = sorted(known)
    close = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(names)}" if names else ""


def fields(model: type[BaseModel]) -> Mapping[str, FieldInfo]:
    """The fields of a model by the names files use."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


def models(annotation: Any, there: Node | None = None) -> tuple[type[BaseModel], ...]:
    """The models an annotation allows; of several, the one the node's `type` names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    if get_origin(annotation) is Annotated:
        return models(get_args(annotation)[0], there)
    if get_origin(annotation) not in (Union, UnionType):
        return ()
    found = tuple(model for one in get_args(annotation) for model in models(one, there))
    kind = below(there, "type") if there is not None else None
    named = tuple(model for model in found if kind is not None and kind.value in _kinds(model))
    return named or found


def names(annotation: Any, there: Node | None) -> tuple[str, ...]:
    """The keys a mapping of this annotation may have; of a free mapping, those it has."""
    if held_type(annotation) is not None:
        return tuple(there.value) if there is not None and isinstance(there.value, dict) else ()
    return tuple(dict.fromkeys(name for model in models(annotation, there) for name in fields(model)))


def step(annotation: Any, key: str, there: Node | None) -> Any:
    """The annotation of what a key leads to, or None."""
    held = held_type(annotation)
    if held is not None:
        return held
    for model in models(annotation, there):
        info = fields(model).get(key)
        if info is not None:
            return info.annotation
    return None


def held_type(annotation: Any) -> Any:
    """What a free mapping's values are, or None when it is not one."""
    if get_origin(annotation) is Annotated:
        return held_type(get_args(annotation)[0])
    return get_args(annotation)[1] if get_origin(annotation) in (dict, Mapping) else None


def _kinds(model: type[BaseModel]) -> tuple[Any, ...]:
    info = model.model_fields.get("type")
    return get_args(info.annotation) if info is not None and get_origin(info.annotation) is Literal else ()


def _line(model: type[BaseModel], node: Node, at: Keys, found: ErrorDetails) -> str:
    keys, there, missing = _place(node, found["loc"])
    origin = there.origin
    where = f"{origin.place}: {dotted((*at, *keys))}".removesuffix(": ")
    match found["type"]:
        case "extra_forbidden":
            annotation, above = _annotation(model, node, keys[:-1])
            return f"{where}: unknown key{nearest(str(keys[-1]), names(annotation, above))}"
        case "missing":
            return f"{origin.place}: {dotted((*at, *keys, *missing))}: is needed here"
        case "literal_error" | "enum":
            allowed = _allowed(found)
            return f"{where}: {found['msg'].removeprefix('Input ')}{_close(found.get('input'), allowed)}"
        case "union_tag_not_found":
            return f"{where}.type: is needed here"
        case "union_tag_invalid":
            kinds = [word.strip("'") for word in found["ctx"]["expected_tags"].split(", ")]
            return f"{where}.type: there is no type {found['ctx']['tag']!r}{nearest(str(found['ctx']['tag']), kinds)}"
        case "model_attributes_type" | "model_type" | "dict_type":
            return f"{where}: should be a mapping"
        case "tuple_type" | "list_type":
            return f'{where}: should be a list, such as ["a", "b"]'
        case _:
            said = found["msg"].removeprefix("Value error, ").removeprefix("Input ")
            return f"{where}: {said}{_trap(found)}"


def _trap(found: ErrorDetails) -> str:
    if found["type"] != "string_type" or not isinstance(found.get("input"), bool | int | float):
        return ""
    return "; put it in quotes, unquoted YAML reads it as a number or true/false"


def _allowed(found: ErrorDetails) -> tuple[str, ...]:
    expected = str(found.get("ctx", {}).get("expected", ""))
    return tuple(word.strip("'") for word in expected.replace(" or ", ", ").split(", "))


def _close(value: Any, allowed: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(str(value).lower(), allowed, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _place(node: Node, location: tuple[int | str, ...]) -> tuple[Keys, Node, Keys]:
    """The keys of a finding, the nearest node there is, and the last key when it is missing.

    pydantic's locations also name the members of unions, and `[key]` for a mapping's key; neither is in the file.
    """
    keys: list[str | int] = []
    there = node
    for number, key in enumerate(location):
        inner = below(there, key)
        if inner is not None:
            keys.append(key)
            there = inner
        elif number == len(location) - 1 and key != "[key]" and isinstance(there.value, dict):
            return tuple(keys), there, (key,)
    return tuple(keys), there, ()


def _annotation(model: type[BaseModel], node: Node, keys: Keys) -> tuple[Any, Node | None]:
    annotation: Any = model
    there: Node | None = node
    for key in keys:
        annotation = get_args(annotation)[0] if isinstance(key, int) else step(annotation, key, there)
        there = below(there, key) if there is not None else None
    return annotation, there
