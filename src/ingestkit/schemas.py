"""JSON Schemas of what may stand in `config/`, for editors; made from the settings models and their docstrings."""

import ast
import copy
import inspect
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeAlias

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from ingestkit import settings
from ingestkit.settings import PipelineSettings, Settings

Schema: TypeAlias = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
# A number or a truth in quotes is taken for what it says: environment variables have no other way to say it.
QUOTED_NUMBER = {"type": "string", "pattern": r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$"}
TRUTHS = ("true", "t", "yes", "y", "on", "1", "false", "f", "no", "n", "off", "0")
QUOTED_TRUTH = {
    "type": "string",
    "pattern": f"^({'|'.join(''.join(f'[{one}{one.upper()}]' for one in word) for word in TRUTHS)})$",
}
LIMITS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}


def pipeline() -> Schema:
    """What a file of `config/pipelines/` may say. What only a profile says, it cannot know of."""
    models, shared = _models()
    return {"$schema": DIALECT, **models["PipelineSettings"], "title": "ingestkit pipeline", "$defs": shared}


def project() -> Schema:
    """What `config/settings.yaml` may say. A profile may complete anything, so nothing of it is demanded."""
    models, shared = _models()
    whole, described = models["Settings"], models["PipelineSettings"]
    profile = copy.deepcopy(whole)
    # A profile cannot choose a profile.
    del profile["properties"]["profile"]
    parts = {"type": ["object", "null"], "additionalProperties": described}
    profile["properties"]["pipelines"] = {**parts, "description": "What a pipeline's own file may say, laid over it."}
    profile |= {"type": ["object", "null"], "title": "profile", "description": "Anything this file says, but profiles."}
    whole["properties"]["profiles"] = {
        "type": "object",
        "description": "What differs from place to place; the chosen one is laid over the rest of the file.",
        "additionalProperties": profile,
    }
    whole["description"] = "What all pipelines of a project share."
    for part in (whole, shared):
        _walk(part, _undemanding)
    return {"$schema": DIALECT, **whole, "title": "ingestkit settings", "$defs": shared}


KINDS: Mapping[str, Callable[[], Schema]] = {"settings": project, "pipeline": pipeline}


class _Generator(GenerateJsonSchema):
    """As pydantic describes the models, but for values it takes and does not tell of."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - called by pydantic
        return False

    def bool_schema(self, schema: core_schema.BoolSchema) -> JsonSchemaValue:
        return {"anyOf": [super().bool_schema(schema), QUOTED_TRUTH, {"enum": [0, 1]}]}

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        return {"anyOf": [super().int_schema(schema), QUOTED_NUMBER]}

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return {"anyOf": [super().float_schema(schema), QUOTED_NUMBER]}

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        # Each of them names its type by a constant; the keyword beside that is another standard's.
        return {"anyOf": super().tagged_union_schema(schema)["oneOf"]}

    def encode_default(self, dft: Any) -> Any:
        return settings.duration_text(dft) if isinstance(dft, timedelta) else super().encode_default(dft)


def _models() -> tuple[dict[str, Schema], Schema]:
    """The two models by name, and the definitions they share."""
    wanted: Any = [(Settings, "validation"), (PipelineSettings, "validation")]
    _, made = models_json_schema(wanted, by_alias=True, schema_generator=_Generator)
    shared = made["$defs"]
    _walk(shared, _completed)
    for name, said in _docstrings().items():
        for field, text in said.items():
            if name in shared and field in shared[name].get("properties", {}):
                shared[name]["properties"][field]["description"] = text
    # Which batches there are a Vault says itself.
    source = shared["Source"]
    source["required"].remove("batches")
    source["if"] = {"properties": {"type": {"const": "vault"}}, "required": ["type"]}
    source["else"] = {"required": ["batches"]}
    return {name: shared.pop(name) for name in ("Settings", "PipelineSettings")}, shared


def _completed(schema: Schema) -> None:
    """Limits and names of keys, in the schema's own words."""
    for said, meant in LIMITS.items():
        if said in schema:
            schema[meant] = schema.pop(said)
    if "patternProperties" in schema:
        schema["additionalProperties"] = False


def _undemanding(schema: Schema) -> None:
    for demand in ("required", "minProperties"):
        schema.pop(demand, None)


def _walk(schema: Any, change: Callable[[Schema], None]) -> None:
    """Change every schema within, but not the mappings from names to schemas: a name may be any word."""
    if isinstance(schema, list):
        for one in schema:
            _walk(one, change)
    elif isinstance(schema, dict):
        change(schema)
        for key, one in schema.items():
            if key in ("properties", "patternProperties", "$defs"):
                for named in one.values():
                    _walk(named, change)
            elif key not in ("default", "enum", "const"):
                _walk(one, change)


def _docstrings() -> dict[str, dict[str, str]]:
    """By model and field, the text that stands below the field."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(settings)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        said = found.setdefault(node.name, {})
        for pair in zip(node.body, node.body[1:], strict=False):
            match pair:
                case ast.AnnAssign(target=ast.Name(id=field)), ast.Expr(value=ast.Constant(value=str(text))):
                    said[field] = " ".join(text.split())
    return found
