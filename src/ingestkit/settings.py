"""The pydantic models of everything in `config/`: names, ranges and defaults. Files and layers are `project`'s."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from ingestkit import layouts, textformat, windows
from ingestkit.model import ALL_STAGES, LoadMode, Stage, Window

LINEAGE = ("_batch", "_run_id", "_source_file", "_record_no")
FLAG = "_deleted"
MARK = "_deleted_at"
"""What a row says that stays, and whose key is gone."""
LINE = "_line"
"""Where valid rows say on which line they begin; no table has it."""
DURATION = r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)"
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def duration(value: Any) -> Any:
    """`90s`, `5m`, `6h`, `14d` as a timedelta; plain numbers are refused, since nobody knows their unit."""
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(DURATION, str(value))
    if match is None:
        raise ValueError("a duration is a number and one of ms, s, m, h, d, w, such as 90s or 5m")
    return timedelta(seconds=float(match[1]) * UNITS[match[2]])


def duration_text(value: timedelta) -> str:
    """The shortest text that `duration` reads back."""
    seconds = value.total_seconds()
    for unit in ("w", "d", "h", "m", "s"):
        if seconds and seconds % UNITS[unit] == 0:
            return f"{int(seconds // UNITS[unit])}{unit}"
    return f"{round(seconds * 1000)}ms" if seconds else "0s"


def moment(text: str, now: datetime) -> datetime:
    """An instant as it is typed: `2026-01-31`, `2026-01-31T18:00:00+02:00`, in UTC where nothing else is said; or, as
    `24h` and `7d`, so long before now."""
    try:
        if re.fullmatch(DURATION, text):
            said: timedelta = duration(text)
            return now - said
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no instant such as 2026-01-31T18:00:00Z, and no time ago such as 24h") from None


# What a validator takes before it has made it the value's type is told to it, for the schemas that editors read.
Duration = Annotated[
    timedelta,
    BeforeValidator(duration, json_schema_input_type=Annotated[str, Field(pattern=f"^{DURATION}$")]),
    PlainSerializer(duration_text),
]


def no_truth(value: Any) -> Any:
    """Python counts with `true` as 1; in a file it is a slip."""
    if isinstance(value, bool):
        raise ValueError("should be a number")
    return value


Whole = Annotated[int, BeforeValidator(no_truth)]
Number = Annotated[float, BeforeValidator(no_truth)]
Percent = Annotated[Number, Field(ge=0, le=100)]


def pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a pattern: {error}") from error
    return value


Pattern = Annotated[str, BeforeValidator(pattern)]


class Section(BaseModel):
    """A section of the configuration: unknown keys are refused, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


# --- a pipeline file -------------------------------------------------------------------------------------------------


def re2(value: str) -> str:
    """A pattern in RE2, which has no memory and does not look around, and so takes no text by surprise."""
    found = re.search(r"(?<!\\)(?:\\\\)*(\(\?(?:=|!|<=|<!|>|\(|P=)|\\[1-9]|\\Z|[*+?}]\+)", value)
    if found is not None:
        raise ValueError(f"not a pattern: RE2 has no {found[1]}")
    return value


Expression = Annotated[str, BeforeValidator(pattern), AfterValidator(re2)]
Normalisation = Literal["trim", "collapse_space", "upper", "lower", "nfc", "empty_to_null"]


def agreeing(value: tuple[Normalisation, ...]) -> tuple[Normalisation, ...]:
    if {"upper", "lower"} <= set(value):
        raise ValueError("upper and lower contradict each other")
    return value


def several(value: Any) -> Any:
    """One text as a list of one."""
    return (value,) if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(several, json_schema_input_type=str | tuple[str, ...])]
Normalisations = Annotated[
    tuple[Normalisation, ...],
    BeforeValidator(several, json_schema_input_type=Normalisation | tuple[Normalisation, ...]),
    AfterValidator(agreeing),
]


def exact(value: Any) -> Any:
    """A limit as it was written: a number with more digits than a double keeps has lost some already."""
    if isinstance(value, bool):
        raise ValueError("should be a number, or a text")
    if isinstance(value, float) and len(Decimal(repr(value)).normalize().as_tuple().digits) > 15:
        raise ValueError("has more digits than a number keeps: put it in quotes")
    return value


Limit = Annotated[int | float | str, BeforeValidator(exact)]


TYPES = ("string", "integer", "float", "boolean", "date", "timestamp", "local_timestamp", "json")
DECIMAL = r"decimal\((\d{1,2}),\s*(\d{1,2})\)"
Type = Annotated[str, WithJsonSchema({"anyOf": [{"enum": list(TYPES)}, {"type": "string", "pattern": f"^{DECIMAL}$"}]})]


class Column(Section):
    """One column of a contract."""

    type: Type = "string"
    required: bool = False
    unique: bool = False
    pattern: Expression | None = None
    min: Limit | None = None
    max: Limit | None = None
    min_length: Annotated[Whole, Field(ge=0)] | None = None
    max_length: Annotated[Whole, Field(ge=1)] | None = None
    timezone: str | None = None
    enum: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    format: Texts = ()
    """How dates and times are written, where not as ISO 8601 says."""
    decimal_point: Literal[".", ","] = "."
    thousands: Literal["", ".", ",", " ", "'"] = ""
    true_words: Texts = ()
    false_words: Texts = ()
    nulls: Texts | None = None
    """Texts that stand for a missing value besides the empty one; None: the model's."""
    normalise: Normalisations | None = None
    """What is done to a text before anything is asked of it; None: the model's, for a string."""
    pii: bool = False
    """Whether values tell of a person: commands then show them only when they are asked to reveal them."""
    references: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}\..+$")] | None = None
    """A column of a model of the same pipeline, as `model.column`, among whose values each is; dbt tests it."""

    @field_validator("type")
    @classmethod
    def known_type(cls, value: str) -> str:
        exact = re.fullmatch(DECIMAL, value)
        if exact:
            precision, scale = int(exact[1]), int(exact[2])
            if not (1 <= precision <= 38 and scale <= precision):
                raise ValueError("a decimal has 1 to 38 digits, and no more of them behind the point than it has")
        elif value not in TYPES:
            raise ValueError(f"unknown type {value!r}; known are {', '.join(TYPES)}, decimal(p,s)")
        return value

    @model_validator(mode="after")
    def settings_fit_the_type(self) -> "Column":
        numeric = self.type in ("integer", "float") or self.type.startswith("decimal")
        fitting = {
            "format": self.type in ("date", "timestamp", "local_timestamp"),
            "decimal_point": numeric and self.type != "integer",
            "thousands": numeric,
            "true_words": self.type == "boolean",
            "false_words": self.type == "boolean",
            "enum": self.type in ("string", "integer"),
            "timezone": self.type == "timestamp",
            "min_length": self.type in ("string", "json"),
            "max_length": self.type in ("string", "json"),
        }
        for name, fits in fitting.items():
            if not fits and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is nothing for type {self.type}")
        if self.type in ("boolean", "json") and (self.min is not None or self.max is not None):
            raise ValueError(f"min and max are nothing for type {self.type}")
        if self.type == "integer" and any(re.fullmatch(r"-?\d+", one) is None for one in self.enum or ()):
            raise ValueError("enum holds a value that is no integer")
        for least, most in ((self.min_length, self.max_length), (self.min, self.max)):
            if isinstance(least, int | float) and isinstance(most, int | float) and least > most:
                raise ValueError(f"nothing is both at least {least} and at most {most}")
        if self.thousands == self.decimal_point:
            raise ValueError("thousands and decimal_point are the same")
        if bool(self.true_words) != bool(self.false_words):
            raise ValueError("true_words and false_words come together")
        if {one.lower() for one in self.true_words} & {one.lower() for one in self.false_words}:
            raise ValueError("a word is both true and false")
        return self

    @model_validator(mode="after")
    def formats_are_told_apart(self) -> "Column":
        for form in self.format:
            if (wrong := textformat.refusal(form, self.type)) is not None:
                raise ValueError(wrong)
            if self.type == "timestamp" and "%z" not in form and self.timezone is None:
                raise ValueError(f"format {form!r} says no offset (%z), and the column names no timezone")
        if (both := textformat.ambiguous(self.format)) is not None:
            raise ValueError(f"a text may be written both as {both[0]!r} and as {both[1]!r}, and mean different times")
        return self


def named_tab(value: Any) -> Any:
    """`tab` by its name, since a bare tab in YAML is no value."""
    return "\t" if value == "tab" else value


class Dialect(Section):
    """How a text file is written. Nothing of it is guessed but which of the line ends it has."""

    delimiter: Annotated[
        str,
        Field(min_length=1, max_length=1),
        BeforeValidator(named_tab, json_schema_input_type=Annotated[str, Field(pattern="^(.|tab)$")]),
    ] = ","
    quote: Annotated[str, WithJsonSchema({"type": "string", "pattern": "^(.|none)$"})] = '"'
    escape: Literal["double", "backslash"] = "double"
    encoding: Literal["utf-8", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "cp1252"] = "utf-8"
    preamble: Annotated[Whole, Field(ge=0, le=10_000)] = 0
    header: bool = True
    trailer: Annotated[
        tuple[Pattern, ...],
        Field(max_length=100),
        BeforeValidator(several, json_schema_input_type=str | Annotated[tuple[str, ...], Field(max_length=100)]),
    ] = ()
    """The last lines of a file, each as a pattern of the whole line; a group `count` is how many records there are."""
    mixed_newlines: Literal["reject", "accept"] = "reject"

    @field_validator("quote")
    @classmethod
    def one_character_or_none(cls, value: str) -> str:
        if len(value) != 1 and value != "none":
            raise ValueError("should be one character, or none")
        return value

    @model_validator(mode="after")
    def characters_differ(self) -> "Dialect":
        taken: dict[str, str] = {"\\": "escape"} if self.escape == "backslash" else {}
        for name, character in (("delimiter", self.delimiter), ("quote", self.quote)):
            if character == "none":
                continue
            if not character.isascii() or character in "\r\n\0":
                raise ValueError(f"{name} {character!r} should be an ASCII character other than a line end")
            if character in taken:
                raise ValueError(f"{name} {character!r} is the {taken[character]} already")
            taken[character] = name
        return self

    @model_validator(mode="after")
    def one_count(self) -> "Dialect":
        if sum("count" in re.compile(line).groupindex for line in self.trailer) > 1:
            raise ValueError("trailer has more than one group named count")
        return self


Format = Literal["csv", "jsonl", "parquet"]


class Header(Section):
    """How exactly the names in a header must be those of the contract."""

    case: Literal["exact", "ignore"] = "exact"
    spaces: Literal["exact", "ignore"] = "exact"
    """`ignore`: around a name none count, and within it they and underscores are one."""
    style: Literal["plain", "report"] = "plain"
    """`report`: names may be written as reports write them, `hcp.vid__v (VID)`: behind the model, before a label."""


class Freshness(Section):
    """How old the newest value of a column may be when the batch is judged."""

    column: str
    max_age: Duration


class ModelGate(Section):
    """The limits of one model; what it does not say is the pipeline's."""

    max_reject_pct: Percent | None = None
    row_delta_pct: Annotated[Number, Field(ge=0)] | Literal["never"] | None = None
    min_rows: Annotated[Whole, Field(ge=0)] | None = None
    max_loss_pct: Percent | None = None
    freshness: Freshness | None = None


def a_file_size(value: str) -> str:
    said = re.fullmatch(FILE_SIZE, value)
    if said is None or not 1 <= int(said[1]) <= 5000:
        raise ValueError("is 1MB to 5000MB; 100MB to 250MB load best")
    return value


FILE_SIZE = r"([0-9]{1,4})(MB|MiB)"
FileSize = Annotated[str, WithJsonSchema({"type": "string", "pattern": f"^{FILE_SIZE}$"}), AfterValidator(a_file_size)]
Parallel = Annotated[Whole, Field(ge=1, le=99)]
LOSES = {
    "on_error": "a load takes every row or none, by ON_ERROR = ABORT_STATEMENT; anything else leaves rows out",
    "force": "it would load files a second time",
    "purge": "staged files are removed by who comes next, and a removal that fails would not be told",
    "size_limit": "files beyond it would be left out",
    "pattern": "each file is named, so that a missing one is an error",
    "validation_mode": "nothing would be loaded",
    "match_by_column_name": "a column that is not found would be loaded as NULL; columns are named one by one",
    "load_uncertain_files": "each load has a path of its own, of which nothing is uncertain",
    "truncatecolumns": "values would be cut",
    "enforce_length": "values would be cut",
    "trim_space": "values would be changed",
    "null_if": "values would become NULL; say nulls of the model, which counts them",
    "replace_invalid_characters": "values would be changed",
    "use_logical_type": "without it dates and instants would come as other values",
    "binary_as_text": "values would come as others",
}
"""Options of COPY by which a row or a value could be lost, each with how."""


class Copying(Section):
    """How a model's rows go into a warehouse that loads from staged files; None: as its connection says."""

    file_size: FileSize | None = None
    parallel: Parallel | None = None
    """How many files, or pieces of one, are uploaded at once."""
    scanner: Literal["standard", "vectorized"] = "standard"
    """Snowflake's reader of Parquet; the vectorized one is faster for many columns."""

    @model_validator(mode="before")
    @classmethod
    def loses_nothing(cls, said: Any) -> Any:
        for name in said if isinstance(said, dict) else ():
            if (why := LOSES.get(str(name).lower())) is not None:
                raise ValueError(f"{name} cannot be said: {why}")
        return said


OtherName = Annotated[str, Field(pattern=r"^[A-Za-z0-9](.*[A-Za-z0-9])?$")]
OtherNames = Annotated[
    tuple[OtherName, ...], BeforeValidator(several, json_schema_input_type=str | tuple[OtherName, ...])
]


OF_REJECTS = "__rejects"
"""By which a table of rejects ends, and no target: none can be both."""


def rejects_beside(table: str) -> str:
    """The table that says what of a target's files was rejected."""
    return table + OF_REJECTS


class Model(Section):
    """One logical table of a pipeline."""

    files: Pattern | None = None
    names: Annotated[
        tuple[OtherName, ...], BeforeValidator(several, json_schema_input_type=str | tuple[OtherName, ...])
    ] = ()
    """What its files, and in reports its columns, may be called besides."""
    key: tuple[str, ...] = ()
    load: LoadMode = LoadMode.REPLACE
    delta: Pattern | None = None
    """With `load: replace`: what is found in the paths of files that hold changes alone; these are merged by key."""
    delta_by_report: bool = False
    """The same, said by `source.totals.full` of the reports and not by names."""
    window_column: str | None = None
    """With `load: window`: the date or timestamp by which a row belongs to its window."""
    table: str | None = None
    absent: Literal["keep", "warn", "fail"] = "keep"
    allow_empty: bool = False
    format: Format | None = None
    """What its files are written as; None: what their names say."""
    csv: Dialect = Dialect()
    nulls: Texts = ()
    """Texts that stand for a missing value in every column, besides the empty one."""
    normalise: Normalisations = ()
    """What is done to the texts of every string column that does not say it itself."""
    delete_when: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """Values by column that say of a row that its key is gone: merged, it goes; of a whole table, it is left out."""
    flag_when: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """The same of rows that stay, with true in the column `_deleted` of the target."""
    header: Header = Header()
    drift: Literal["freeze", "evolve", "ignore"] = "freeze"
    """What a column that is in no contract does: fail its file, become a column of the target, or be left out."""
    gate: ModelGate = ModelGate()
    copy_: Copying = Field(default=Copying(), alias="copy")
    rejects_table: Literal["off", "places", "raw"] = "off"
    """Whether the target has a table of rejects beside it, and whether that holds the records' texts."""
    columns: dict[str, Column] = Field(min_length=1)

    @field_validator("columns")
    @classmethod
    def names_differ(cls, columns: dict[str, Column]) -> dict[str, Column]:
        """Warehouses take names without regard to case, and lineage columns have theirs."""
        taken = {name: f"the lineage column {name}" for name in (*LINEAGE, LINE)}
        for name in columns:
            if (other := taken.get(name.casefold())) is not None:
                raise ValueError(f"column {name!r} has the name of {other}; case does not tell them apart")
            taken[name.casefold()] = f"column {name!r}"
        return columns

    @property
    def takes_changes(self) -> bool:
        """Whether some of its files replace the table, and others are merged into it."""
        return self.delta is not None or self.delta_by_report

    @model_validator(mode="after")
    def rows_belong_to_windows(self) -> "Model":
        if (self.window_column is None) == (self.load is LoadMode.WINDOW):
            raise ValueError("load: window needs a window_column, and no other load has one")
        if self.window_column is not None:
            dated = self.columns.get(self.window_column)
            if dated is None or dated.type not in ("date", "timestamp"):
                raise ValueError(f"window_column: {self.window_column!r} is no column of type date or timestamp")
        return self

    @model_validator(mode="after")
    def changes_have_keys(self) -> "Model":
        said = "delta" if self.delta is not None else "delta_by_report"
        if self.takes_changes and self.load is not LoadMode.REPLACE:
            raise ValueError(f"{said} is of load: replace, and this is {self.load.value}")
        if self.takes_changes and not self.key and self.columns:
            raise ValueError(f"{said} needs a key: changes are merged by it")
        if self.delta is not None and self.delta_by_report:
            raise ValueError("what holds changes is told by names or by reports: delta or delta_by_report")
        if self.delete_when and self.load not in (LoadMode.MERGE, LoadMode.REPLACE):
            raise ValueError(f"delete_when is of load: merge or replace, and this is {self.load.value}")
        if self.flag_when and FLAG in {name.casefold() for name in self.columns}:
            raise ValueError(f"flag_when makes a column {FLAG}, and there is one among the columns")
        for said, columns in (("delete_when", self.delete_when), ("flag_when", self.flag_when)):
            for name in columns:
                if name not in self.columns:
                    raise ValueError(f"{said}: {name!r} is not among the columns")
        return self

    @model_validator(mode="after")
    def keys_are_columns(self) -> "Model":
        for name in self.key:
            if name not in self.columns:
                raise ValueError(f"key column {name!r} is not among the columns")
        if self.load is LoadMode.MERGE and not self.key:
            raise ValueError("load: merge needs a key")
        if self.gate.freshness is not None:
            dated = self.columns.get(self.gate.freshness.column)
            if dated is None or dated.type not in ("date", "timestamp"):
                named = self.gate.freshness.column
                raise ValueError(f"gate.freshness: {named!r} is no column of type date or timestamp")
        return self


MANY = "*"
"""The model of a pipeline whose archives say which tables there are; it is all of them."""


CHANGES = r"-N\.[^/]*$"
"""How the names of archives end that hold changes alone."""


class Many(Model):
    """All tables of a pipeline whose archives say which there are, with which columns and keys."""

    columns: dict[str, Column] = Field(default_factory=dict)
    gate: ModelGate = ModelGate(row_delta_pct="never")


class Tables(Section):
    """What becomes of the tables of archives that say themselves which there are, with which columns."""

    prefix: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,30})?$")] = ""
    """What the name of each begins with."""
    load: Literal["merge", "append"] = "merge"
    """`append`: each archive holds what no other does, such as the logs of a day."""
    number_type: Annotated[str, Field(pattern=f"^(string|float|{DECIMAL})$")] = "decimal(38,10)"
    """What a column of numbers becomes, once and for good; a number that it cannot hold stands beside it as text."""
    removed: Literal["keep", "drop"] = "keep"
    """What becomes of columns and tables that an archive says are gone."""
    deleted: Literal["remove", "mark"] = "remove"
    """What becomes of rows that are gone: `mark` keeps them, with the time in the column `_deleted_at`."""
    double_backslashes: bool = False
    """Whether a backslash within a value is written as two."""
    contracts: dict[str, dict[str, Column]] = Field(default_factory=dict)
    """By table, the columns that are to be otherwise than the archives say."""

    @property
    def every(self) -> Model:
        """The one model that all of them are. Which archives hold changes alone, their names say."""
        if self.load == "append":
            return Many(load=LoadMode.APPEND)
        return Many(load=LoadMode.REPLACE, delta=CHANGES, allow_empty=True)


KEYS = {
    "text": re.compile(r".{1,250}", re.DOTALL),
    "integer": re.compile(r"[0-9]{1,18}"),
    "hex": re.compile(r"(?:0x)?[0-9a-f]{1,64}", re.IGNORECASE),
    "date": re.compile(r"([0-9]{4})([-_.]?)([0-9]{2})\2([0-9]{2})"),
}
"""How a batch key of each kind is written."""


COUNTED = ("integer", "hex")


@dataclass(frozen=True, slots=True)
class Hole:
    """Keys that have not come, of batches that count up by one."""

    first: str
    last: str
    count: int

    def __str__(self) -> str:
        return self.first if self.count == 1 else f"{self.first} to {self.last}"


WEEK = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
OF_WINDOWS = ("timezone", "start", "start_of_week", "lag", "catchup", "at")


def length(value: Any) -> Any:
    windows.length_of(str(value))
    return str(value)


def zone(value: str) -> str:
    windows.zone_of(value)
    return value


Zone = Annotated[str, AfterValidator(zone)]


class PathTime(Section):
    """How the group `at` of a path says a time."""

    format: str
    timezone: Zone | None = None
    """Whose clock it shows; None: the zone in which windows are cut."""

    @field_validator("format")
    @classmethod
    def format_says_a_day(cls, value: str) -> str:
        """A day or an hour is enough: it then says its first moment."""
        said = set(textformat.DIRECTIVE.findall(value))
        whole = value if "M" in said else f"{value}%M"
        wrong = textformat.refusal(whole, "timestamp") if said & set("HIpMSfz") else textformat.refusal(value, "date")
        if wrong is not None:
            raise ValueError(wrong)
        return value


class Batches(Section):
    """How a batch is recognised: a named group `batch` in the folder's or the file's path; or that time is cut."""

    folders: Pattern | None = None
    files: Pattern | None = None
    kind: Literal["text", "integer", "hex", "date"] = "text"
    holes: Literal["wait", "step_over"] | None = None
    """Where keys count up by one: what a batch does whose predecessor is not there; None: keys need not follow."""
    window: Annotated[str, BeforeValidator(length)] | None = None
    """How long a window is: then a batch is a piece of time, and a path belongs to it by its group `at`."""
    timezone: Zone = "UTC"
    start: str | None = None
    start_of_week: Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"] = "monday"
    lag: Duration = timedelta(0)
    """How long after its end a window is taken."""
    catchup: bool = True
    """Whether windows that were missed are done; if not, all but the newest are stepped over."""
    at: PathTime | None = None

    @model_validator(mode="after")
    def one_of_them(self) -> "Batches":
        chosen = self.folders or self.files
        if (self.folders is None) == (self.files is None) or chosen is None:
            raise ValueError("name either `folders` or `files`")
        group = "batch" if self.window is None else "at"
        if group not in re.compile(chosen).groupindex:
            raise ValueError(f"the pattern needs a group named {group}: (?P<{group}>...)")
        return self

    @model_validator(mode="after")
    def a_window_is_said_whole(self) -> "Batches":
        if self.holes is not None and self.kind not in COUNTED:
            raise ValueError(f"holes are of batches that are counted: kind {' or '.join(COUNTED)}")
        if self.window is None:
            for name in OF_WINDOWS:
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is of windows, and no `window` is said, such as window: daily")
            return self
        if self.kind != "text":
            raise ValueError("kind is nothing for windows: their key is their start in UTC")
        if self.start_of_week != "monday" and windows.length_of(self.window).unit != "week":
            raise ValueError("start_of_week is of weekly windows")
        if self.start is None:
            raise ValueError("windows need a `start`, such as start: 2026-01-01")
        if self.at is None:
            raise ValueError("windows of files need `at`: how a path says its time, such as at: {format: '%Y-%m-%d'}")
        try:
            self.cut()
        except ValueError as error:
            raise ValueError(f"start: {error}") from error
        return self

    def cut(self) -> windows.Cut:
        """Where time is cut, of a pipeline of windows."""
        assert self.window is not None
        assert self.start is not None
        if self.start.lower() in WEEK:
            weekday = f"the day that weeks begin on is start_of_week: {self.start.lower()}"
            raise ValueError(f"{self.start!r} is not when the first window begins, such as 2026-01-01; {weekday}")
        where = windows.zone_of(self.timezone)
        start = windows.instant_of(self.start, where)
        return windows.Cut(windows.length_of(self.window), start, where, WEEK.index(self.start_of_week))

    def key(self, text: str) -> str:
        """The one way to write a batch key of this kind; ValueError when the text is none.

        Of a window any date or time will do at which it begins.
        """
        if self.window is not None:
            begins = windows.instant_of(text, windows.zone_of(self.timezone))
            return Window(begins, begins).key
        match = KEYS[self.kind].fullmatch(text)
        if match is None:
            raise ValueError(text)
        match self.kind:
            case "integer":
                return str(int(text))
            case "hex":
                return format(int(text, 16), "x")
            case "date":
                return date(int(match[1]), int(match[3]), int(match[4])).isoformat()
            case _:
                return text

    def order(self, key: str) -> tuple[int, str]:
        """Where a key stands among others of its kind."""
        match self.kind:
            case "integer":
                return int(key), key
            case "hex":
                return int(key, 16), key
            case _:
                return 0, key

    def hole(self, after: str, before: str, keys: Iterable[str]) -> Hole | None:
        """The first keys between these two, which count up, that are not among those given."""
        start, end = self.order(after)[0] + 1, self.order(before)[0]
        write = "x" if self.kind == "hex" else "d"
        for number in [*sorted(place for key in keys if start <= (place := self.order(key)[0]) < end), end]:
            if number > start:
                return Hole(format(start, write), format(number - 1, write), number - start)
            start = number + 1
        return None


MARKED = re.compile(r"\{(?:name|stem)\}")


class Settle(Section):
    """How a file shows that all of it has come."""

    quiet: Duration = timedelta(seconds=60)
    marker: str | None = None
    """`{name}.done` beside each file, `{stem}.ok` without the file's own ending, or `_SUCCESS` in a batch's folder."""
    checksum: Literal["if_there", "required", "ignore"] = "if_there"
    """Of a `.sha256` or `.md5` beside a file."""

    @field_validator("marker")
    @classmethod
    def marker_is_a_name(cls, said: str | None) -> str | None:
        if said is not None and ("/" in said or said in ("", "{name}") or re.search(r"[{}]", MARKED.sub("", said))):
            raise ValueError("a marker is a file's name, such as {name}.done, {stem}.ok or _SUCCESS")
        return said


class Totals(Section):
    """Reports that say how many records were exported of each thing."""

    report: Annotated[str, Field(pattern=r"^[^/]+\.json$")]
    """`{stem}.json` beside each file or archive, or in the archive; a name of its own once in a batch's folder."""
    counts: Annotated[str, Field(min_length=1)]
    """Where in it the numbers stand by name, such as jobExportCount, or job.counts for an object in another."""
    full: Annotated[str, Field(min_length=1)] | None = None
    """Where in it stands true of an export of all there is and false of one of changes, such as exportFull."""

    @field_validator("report")
    @classmethod
    def report_is_a_name(cls, said: str) -> str:
        if re.search(r"[{}]", MARKED.sub("", said)):
            raise ValueError("a report is a JSON file's name, such as {stem}.json or export.json")
        return said


class Archives(Section):
    """How much a zip archive may hold; more is taken for a trap."""

    max_members: Annotated[Whole, Field(ge=1)] = 10_000
    max_ratio: Annotated[Number, Field(ge=1)] = 200
    """How many times as large a member of more than 1 MiB may be when it is unpacked."""
    max_bytes: Annotated[Whole, Field(ge=1)] = 100_000_000_000
    """Of all its members together, unpacked."""


# Files that end so are read, or say what others must be: what was renamed to it would hide what comes.
DATA = (".csv", ".tsv", ".txt", ".dat", ".json", ".jsonl", ".ndjson", ".parquet", ".gz", ".zip", ".md5", ".sha256")


class AfterSuccess(Section):
    """What becomes of files at the source when their batch is done."""

    move: Annotated[str, Field(min_length=1)] | None = None
    """Into this folder, under the path they had; one that begins with `/` may lie outside of the connection's."""
    rename: Annotated[str, Field(pattern=r"^[^/]+$")] | None = None
    """By this behind their name, such as .loaded."""
    delete: bool = False

    @model_validator(mode="after")
    def one_of_them(self) -> "AfterSuccess":
        if sum((self.move is not None, self.rename is not None, self.delete)) != 1:
            raise ValueError("name one: move: FOLDER, rename: SUFFIX or delete: true")
        return self

    @field_validator("rename")
    @classmethod
    def no_name_of_data(cls, said: str | None) -> str | None:
        if said is not None and said.lower().endswith(DATA):
            raise ValueError(f"{said} is how files are named that are data, such as .loaded is not")
        return said

    @field_validator("move")
    @classmethod
    def a_plain_folder(cls, said: str | None) -> str | None:
        parts = said.strip("/").split("/") if said is not None else []
        if said is not None and ({"", ".", ".."} & set(parts)):
            raise ValueError("a folder is named without . and .., such as done or /archive/done")
        return said and said.rstrip("/")


OF_VAULT = ("extract", "start", "look_back", "kept")


class Source(Section):
    type: Literal["files", "vault"] = "files"
    connection: str
    extract: Literal["incremental", "log"] = "incremental"
    """Of a Vault: the newest full archive and then what changes, or the logs of each day."""
    start: datetime | None = None
    """Of a Vault: where the first window begins; None: with the newest full archive, or the oldest log."""
    look_back: Duration | None = None
    """The same, so long before the first run."""
    kept: Duration | None = None
    """Of a Vault: for how long it lists an archive; None: ten days, and logs two."""
    batches: Batches
    settle: Settle = Settle()
    totals: Totals | None = None
    """Reports that are waited for, and whose numbers what was read must be."""
    overdue: Duration | None = None
    """A batch that has waited for so long for what is missing of it is a failure."""
    trust: Literal["stat", "checksum"] = "stat"
    on_changed: Literal["new_version", "ignore", "fail"] = "new_version"
    late: Literal["report", "load", "fail"] = "report"
    late_scan: Duration = timedelta(days=30)
    empty_batch: Literal["skip", "fail", "wait"] = "skip"
    ignore: tuple[Pattern, ...] = (r"\..*", r".*\.(tmp|part|partial|filepart)", r".*~", r"~.*")
    expect: tuple[str, ...] = ()
    unmapped: Literal["keep", "list"] = "keep"
    """Whether files that no model claims are landed too, so that they can be taken in later."""
    archives: Archives = Archives()
    after_success: AfterSuccess | None = None

    @model_validator(mode="before")
    @classmethod
    def vaults_say_their_batches(cls, said: Any) -> Any:
        """Their archives are there whole, and never late."""
        if isinstance(said, dict) and said.get("type") == "vault":
            return {"batches": {"files": "(?P<batch>.+)"}, "settle": {"quiet": "0s"}, "late_scan": "0s"} | said
        return said

    @property
    def listed_for(self) -> timedelta:
        return self.kept or timedelta(days=2 if self.extract == "log" else 10)

    @model_validator(mode="after")
    def what_is_of_vaults_is_said_of_them(self) -> "Source":
        mine = [name for name in OF_VAULT if getattr(self, name) != type(self).model_fields[name].default]
        if mine and self.type != "vault":
            raise ValueError(f"{mine[0]} is of type: vault")
        if self.start is not None and (self.look_back is not None or self.start.tzinfo is None):
            raise ValueError("start is a time with its offset, such as 2026-01-15T05:00Z, and goes without look_back")
        return self

    @model_validator(mode="after")
    def markers_are_seen(self) -> "Source":
        marker = MARKED.sub("a", self.settle.marker) if self.settle.marker is not None else None
        report = MARKED.sub("a", self.totals.report) if self.totals is not None else None
        for said, name in (("settle.marker", marker), ("totals.report", report)):
            hides = next((one for one in self.ignore if name is not None and re.fullmatch(one, name)), None)
            if hides is not None:
                raise ValueError(f"{said} names files that ignore leaves out, by {hides!r}")
        renamed = self.after_success.rename if self.after_success is not None else None
        if marker is not None and renamed is not None and marker.endswith(renamed):
            raise ValueError(f"after_success.rename: {renamed} would make markers of files, by settle.marker")
        return self


class Gate(Section):
    max_reject_pct: Percent = 5
    row_delta_pct: Annotated[Number, Field(ge=0)] | Literal["never"] | None = None
    """How much a model may grow or shrink; None: by 50 % where it is replaced, else not judged."""
    row_delta_batches: Annotated[Whole, Field(ge=1, le=100)] = 5
    """Against how many done batches before it: their median."""
    min_rows: Annotated[Whole, Field(ge=0)] | None = None
    max_loss_pct: Percent | None = None
    """How much of the source may be missing from the target for whatever reason."""


class Validation(Section):
    max_file_reject_pct: Percent = 50
    on_bad_file: Literal["fail", "publish_rest"] = "fail"
    max_record_lines: Annotated[Whole, Field(ge=1)] = 20


class Retry(Section):
    attempts: Annotated[Whole, Field(ge=1, le=100)] = 4
    first_wait: Duration = timedelta(seconds=2)
    cap: Duration = timedelta(minutes=2)
    backoff: Literal["exponential", "linear", "none"] = "exponential"
    hold_after: Annotated[Whole, Field(ge=1)] | None = None


class Timeouts(Section):
    extract: Duration | None = None
    validate_: Duration | None = Field(default=None, alias="validate")
    load: Duration | None = None
    gate: Duration | None = None
    clean: Duration | None = None
    grace: Duration = timedelta(seconds=30)


class Lineage(Section):
    """Which lineage columns a target carries besides `_batch`, which it always does."""

    run_id: bool = True
    source_file: bool = True
    record_no: bool = True


class Retention(Section):
    """How long artifacts stay that a newer full batch has made dispensable; what a target is rebuilt from stays."""

    replay_window: Duration = timedelta(days=90)
    keep: Duration | None = None
    """Shorter than `replay_window` where a pipeline may do without replaying; None keeps that."""
    keep_batches: Annotated[Whole, Field(ge=0)] = 0
    """Of each model so many of the newest batches stay besides, whatever their age."""


CRON_FIELDS = 5


def timetable(value: str) -> str:
    try:
        known = CronSim(value, datetime(2026, 1, 1, tzinfo=UTC)) if len(value.split()) == CRON_FIELDS else None
    except CronSimError as error:
        raise ValueError(f"{value!r} is no cron: {str(error).lower()}") from error
    if known is None:
        raise ValueError(f"{value!r} is no cron: minute, hour, day of the month, month, day of the week")
    return value


def some_time(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("0s is no time at all")
    return value


MAILBOX = r"^[^\s@<>,;:\"]+@[^\s@<>,;:\"]+$"


class Schedule(Section):
    """When a scheduler is to start the pipeline."""

    cron: Annotated[str, AfterValidator(timetable)]
    timezone: Annotated[str, AfterValidator(zone)] = "UTC"
    """By whose clock."""
    start: date = date(2026, 1, 1)
    """Airflow: from which day on."""
    catchup: bool = False
    """Airflow: whether every time since then is made up for. Batches that wait are taken in any case."""
    timeout: Annotated[Duration, AfterValidator(some_time)] = timedelta(days=1)
    """Airflow: how long all tasks of one time may take together."""
    wait: Annotated[Duration, AfterValidator(some_time)] | None = None
    """Airflow: how long a sensor looks out for something to arrive; None: what has not is taken the next time."""
    look: Annotated[Duration, AfterValidator(some_time)] = timedelta(minutes=5)
    """How long that sensor waits between two looks."""
    tags: tuple[str, ...] = ()


Word = Annotated[str, Field(pattern=r"^[^-\s]\S*$")]
Words = Annotated[tuple[Word, ...], BeforeValidator(several, json_schema_input_type=Word | tuple[Word, ...])]


class Dbt(Section):
    """A project of dbt that is built on what a run has published, before the gate judges."""

    project: Path = Path("dbt")
    """The folder of dbt_project.yml."""
    profiles: Path | None = None
    """The folder of profiles.yml; None: the project's."""
    target: Word | None = None
    """Which of its outputs; None: the one the profile says."""
    select: Words = ()
    """What is built, as its command line says it; nothing: all of the project."""
    program: str = "dbt"
    """The program, by its path where it is not found on PATH."""
    timeout: Annotated[Duration, AfterValidator(some_time)] | None = None
    """How long it may take; then it is ended, with all that it has started."""
    vars: dict[str, str | bool | int | float | tuple[str, ...]] = Field(default_factory=dict)


def laid_out(value: str) -> str:
    if (wrong := layouts.refusal(value)) is not None:
        raise ValueError(wrong)
    return value


IncidentKind = Literal[
    "failed",
    "gate",
    "row_delta",
    "counts",
    "missing",
    "repeated",
    "held",
    "late",
    "drift",
    "slow",
    "stale",
    "overdue",
    "hangs",
    "silent",
    "success_rate",
]


class SuccessRate(Section):
    """How many of the runs that ended lately must have ended well."""

    least_pct: Annotated[float, Field(gt=0, le=100)]
    over: Annotated[Duration, AfterValidator(some_time)] = timedelta(days=7)
    runs: Annotated[Whole, Field(ge=1)] = 5
    """Of fewer runs nothing is said."""


class PipelineAlerts(Section):
    """Who is told of what goes wrong with the pipeline. Who owns it says `owner`."""

    channels: tuple[str, ...] | None = None
    """Names of `alerts.channels`; None: all of them."""
    emails: tuple[Annotated[str, Field(pattern=MAILBOX)], ...] = ()
    """Who has it from channels of mail beside those that the channel names."""
    kinds: tuple[IncidentKind, ...] = get_args(IncidentKind)
    recovered: bool = True
    """Whether it is told too that something is over."""
    repeated: Annotated[Whole, Field(ge=2)] = 3
    """How many failed commands one after another are told as such."""
    freshness: Annotated[Duration, AfterValidator(some_time)] | None = None
    """For how long nothing need be done before `alerts check` tells of it; None: for ever."""
    overdue: Annotated[Duration, AfterValidator(some_time)] | None = None
    """How long a window may have ended, or a batch been seen, without being done; None: for ever."""
    slow: Annotated[float, Field(gt=1)] | None = 2
    """How many times longer than usual a stage may take; None: as long as it likes."""
    slow_from: Duration = timedelta(minutes=1)
    """A stage that takes less is not slow, whatever is usual."""
    success_rate: SuccessRate | None = None
    on_success: Literal["nothing", "summary"] = "nothing"
    """Whether it is told what a command that ended well has done."""
    remind: Annotated[Duration, AfterValidator(some_time)] | None = None
    """After how long something that goes on is told again, when it is seen again; None: never."""


class PipelineSettings(Section):
    """One file of `config/pipelines/`."""

    pipeline: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
    source: Source
    models_: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")], Model] = Field(
        default_factory=dict, alias="models"
    )
    tables: Tables | None = None
    """Instead of models, where each archive says itself which tables there are."""
    lake: str = "lake"
    warehouse: str = "warehouse"
    layout: Annotated[str, AfterValidator(laid_out)] = layouts.DEFAULT
    """The folders of a batch in the lake, below `raw/<pipeline>/`, `valid/…` and `rejects/…`: {model}, {batch}, and of
    batches that are dates {year}, {month} and {day}."""
    keep: Literal["all", "none"] = "all"
    """Whether raw and valid objects of a batch stay in the lake, or lie in scratch and go when the batch is done."""
    publish: Literal["batch", "model"] = "batch"
    catch_up: Literal["every", "newest"] = "every"
    lineage: Lineage = Lineage()
    validation: Validation = Validation()
    gate: Gate = Gate()
    retry: Retry = Retry()
    timeouts: Timeouts = Timeouts()
    retention: Retention = Retention()
    schedule: Schedule | None = None
    owner: str | None = None
    dbt: Dbt | None = None
    alerts: PipelineAlerts = PipelineAlerts()

    @property
    def models(self) -> dict[str, Model]:
        return self.models_ if self.tables is None else {MANY: self.tables.every}

    @model_validator(mode="after")
    def there_is_something_to_load(self) -> "PipelineSettings":
        if self.tables is None and not self.models_:
            raise ValueError("models: say at least one; or tables, where archives say themselves which there are")
        if self.source.type == "vault" and self.tables is None:
            raise ValueError("archives of a Vault say themselves which tables there are: tables in place of models")
        if self.source.type == "vault" and (self.source.extract == "log") != (
            self.tables and self.tables.load == "append"
        ):
            raise ValueError("logs are added (tables.load: append), and what changes is merged")
        if self.tables is not None and self.models_:
            raise ValueError("a pipeline says its models, or by tables that its archives do; not both")
        return self

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What a run of it goes through, in order."""
        return tuple(one for one in ALL_STAGES if one is not Stage.DBT or self.dbt is not None)

    @model_validator(mode="after")
    def dates_have_years(self) -> "PipelineSettings":
        dated = [name for name in layouts.fields(self.layout) if name in layouts.OF_DATES]
        if dated and self.source.batches.kind != "date":
            raise ValueError(f"layout: {{{dated[0]}}} is of batches of kind date")
        return self

    @model_validator(mode="after")
    def what_is_kept_is_there(self) -> "PipelineSettings":
        said = "keep" if self.retention.keep is not None else "keep_batches" if self.retention.keep_batches else None
        if self.keep == "none" and said is not None:
            raise ValueError(
                f"retention.{said} says how long batches stay in the lake, and by keep: none no batch does"
            )
        return self

    @model_validator(mode="after")
    def reports_say_what_is_asked_of_them(self) -> "PipelineSettings":
        asking = [name for name, model in self.models.items() if model.delta_by_report]
        if asking and (self.source.totals is None or self.source.totals.full is None):
            raise ValueError(f"models.{asking[0]}.delta_by_report needs source.totals.full: where reports say it")
        return self

    @model_validator(mode="after")
    def references_are_there(self) -> "PipelineSettings":
        for name, model in self.models.items():
            for column, said in model.columns.items():
                other, _, named = (said.references or "").partition(".")
                if other and (other not in self.models or named not in self.models[other].columns):
                    raise ValueError(f"models.{name}.columns.{column}.references: there is no column {said.references}")
        return self

    @model_validator(mode="after")
    def names_fit(self) -> "PipelineSettings":
        for name in self.source.expect:
            if name not in self.models:
                raise ValueError(f"source.expect names {name!r}, which is not a model")
        self._windows_fit()
        owners: dict[str, str] = {}
        for name, model in self.models.items():
            table = (model.table or name).casefold()
            if table.endswith(OF_REJECTS):
                said = f"{self.pipeline}.{name} cannot publish into {model.table or name!r}"
                raise ValueError(
                    f"{said}: tables that end in {OF_REJECTS} hold what was rejected; set models.{name}.table"
                )
            if table in owners:
                raise ValueError(f"models {owners[table]!r} and {name!r} both publish into table {table!r}")
            owners[table] = name
        return self

    def _windows_fit(self) -> None:
        window = self.source.batches.window
        for name, model in self.models.items():
            if model.window_column is None:
                continue
            if window is None:
                raise ValueError(f"model {name!r} has load: window, and source.batches.window is not said")
            elapsed = windows.length_of(window).elapsed
            dated = model.columns[model.window_column].type == "date"
            if dated and elapsed is not None and elapsed < timedelta(days=1):
                raise ValueError(f"model {name!r}: window_column is a date, and windows are shorter than a day")


# --- config/settings.yaml --------------------------------------------------------------------------------------------


class LocalConnection(Section):
    """A folder of this machine: a drop or a lake."""

    type: Literal["local"] = "local"
    path: Path


Named = Annotated[str, Field(pattern=r"^[^-\s]\S*$")]
"""A name that no program takes for an option of its own."""
FINGERPRINT = r"SHA256:[A-Za-z0-9+/]{43}"


class SftpConnection(Section):
    """A folder of an SFTP server: a drop."""

    type: Literal["sftp"] = "sftp"
    host: Named
    port: Annotated[Whole, Field(ge=1, le=65535)] = 22
    user: Named
    path: Annotated[str, Field(min_length=1)] = "."
    """The drop; relative to where the login leads."""
    key: Texts = ()
    """Files of private keys, tried in this order: while keys are changed, the new one and the old one."""
    passphrase: Annotated[str | None, Field(repr=False)] = None
    agent: bool = False
    """Whether the keys of a running ssh-agent are tried too."""
    password: Annotated[str | None, Field(repr=False)] = None
    known_hosts: Path = Path("config/known_hosts")
    """The file of host keys that are trusted; `check --pin` writes it."""
    host_keys: Annotated[tuple[Annotated[str, Field(pattern=f"^{FINGERPRINT}=?$")], ...], BeforeValidator(several)] = ()
    """Fingerprints of the host keys that are trusted; where some are said, `known_hosts` is not looked at."""
    engine: Literal["paramiko", "openssh"] = "paramiko"
    """`openssh`: the `ssh` program of this machine, for servers that speak only what is old."""
    options: dict[Named, str] = Field(default_factory=dict)
    """With `engine: openssh`: options as ssh_config knows them, such as HostKeyAlgorithms."""
    connect_timeout: Duration = timedelta(seconds=15)
    login_timeout: Duration = timedelta(seconds=30)
    answer_timeout: Duration = timedelta(seconds=60)
    keepalive: Duration = timedelta(seconds=30)

    @model_validator(mode="after")
    def engines_are_said_what_they_take(self) -> "SftpConnection":
        if self.options and self.engine != "openssh":
            raise ValueError("options are of engine: openssh")
        if self.engine == "openssh" and (self.password or self.passphrase):
            raise ValueError("engine: openssh logs in by a key without passphrase, or by the agent's")
        if not (self.key or self.agent or self.password):
            raise ValueError("say how to log in: key, agent: true, or password")
        return self


class OauthLogin(Section):
    """A session for a token that an identity provider has given."""

    profile: Named
    """The id of the profile, `_9ad0a091-…`."""
    token: Annotated[str, Field(repr=False)]
    client_id: str | None = None
    login_url: Annotated[str, Field(pattern=r"^https://\S+$")] = "https://login.veevavault.com"


class VaultConnection(Section):
    """A Veeva Vault: a source."""

    type: Literal["vault"] = "vault"
    dns: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+(:\d{1,5})?$")]
    """The host's name, such as acme-clinical.veevavault.com; the session is sent nowhere else."""
    version: Annotated[str, Field(pattern=r"^v\d{2}\.\d$")] = "v25.2"
    client_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")] = "ingestkit"
    """How Vault's logs of use call who asks."""
    username: str | None = None
    password: Annotated[str | None, Field(repr=False)] = None
    oauth: OauthLogin | None = None
    session: Annotated[str | None, Field(repr=False)] = None
    """One that somebody else has begun and will end."""
    ca_file: Path | None = None
    """Certificates of those who may vouch for the host."""
    connect_timeout: Duration = timedelta(seconds=15)
    answer_timeout: Duration = timedelta(minutes=5)
    """Vault holds answers back where much is asked of it."""

    @model_validator(mode="after")
    def there_is_one_way_in(self) -> "VaultConnection":
        ways = [self.username is not None, self.oauth is not None, self.session is not None]
        if sum(ways) != 1 or (self.username is None) != (self.password is None):
            raise ValueError("say how to log in: username and password, oauth, or session")
        return self


def ends_with_a_slash(value: str) -> str:
    if value and "${" not in value and (value[-1] != "/" or value[0] == "/" or "//" in value):
        raise ValueError("is what names begin with: it ends with a slash, and begins with none")
    return value


def whole_days(value: timedelta) -> timedelta:
    if value < timedelta(days=1) or value % timedelta(days=1):
        raise ValueError("services count in whole days, such as 30d")
    return value


Days = Annotated[Duration, AfterValidator(whole_days)]


def is_a_folder(value: str) -> str:
    if re.fullmatch(r"(_runs|_inflight)/|(raw|valid|rejects|_runs|_inflight)/[a-z][a-z0-9_]{0,62}/", value) is None:
        raise ValueError(
            "is _runs/ or _inflight/, or a pipeline's folder there or in raw/, valid/ or rejects/: raw/shop/"
        )
    return value


Kept = Annotated[str, AfterValidator(is_a_folder)]
"""A folder of the lake, or that of a pipeline in it."""


class Lifecycle(Section):
    """What a lake's service removes by itself, by age alone, once `ingestkit lake lifecycle apply` has told it to."""

    keep: dict[Kept, Days] = Field(default_factory=dict)
    """By folder, such as `_runs/` or `raw/shop/`: how long an object stays."""
    noncurrent_versions: Days | None = None
    """Where the service keeps what was removed: how long."""
    abort_uploads_after: Days | None = None


class S3Connection(Section):
    """A bucket of S3, or of what speaks like it: a lake."""

    type: Literal["s3"] = "s3"
    bucket: Named
    prefix: Annotated[str, AfterValidator(ends_with_a_slash)] = ""
    """What all names begin with; it ends with a slash."""
    region: str | None = None
    endpoint_url: Annotated[str | None, Field(pattern=r"^(https?://|\$\{)\S+$")] = None
    """Of another service than AWS."""
    path_style: bool = False
    """Whether the bucket stands in the path, not in the host's name."""
    profile: str | None = None
    """One of ~/.aws/config; without one, what the standard chain of credentials finds."""
    access_key: str | None = None
    secret_key: Annotated[str | None, Field(repr=False)] = None
    """References, such as ${env:LAKE_SECRET}; a role of the machine is safer."""
    sse: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = None
    kms_key: str | None = None
    ca_file: Path | None = None
    """Certificates of those who may vouch for the endpoint."""
    part_size: Annotated[Whole, Field(ge=5 * 2**20, le=32 * 2**20)] = 8 * 2**20
    """Bytes; what is longer is sent in parts of as many, eight at once."""
    connect_timeout: Duration = timedelta(seconds=10)
    answer_timeout: Duration = timedelta(seconds=60)
    lifecycle: Lifecycle = Lifecycle()

    @model_validator(mode="after")
    def says_whole_credentials(self) -> "S3Connection":
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key are said together")
        if self.kms_key is not None and (self.sse is None or not self.sse.startswith("aws:kms")):
            raise ValueError("kms_key is of sse: aws:kms")
        return self


ADLS_URL = re.compile(
    r"abfss://(?P<container>[a-z0-9](?:-?[a-z0-9]){2,62})@"
    r"(?P<host>(?P<account>[a-z0-9]{3,24})(?:\.[a-z0-9-]+)*?\.dfs\.[a-z0-9.-]+)"
    r"(?P<prefix>(?:/(?!\.{1,2}(?:/|$))[^/\s?#]+)*)/?"
)


def of_a_container(value: str) -> str:
    if "${" not in value and ADLS_URL.fullmatch(value) is None:
        raise ValueError("is written as abfss://container@account.dfs.core.windows.net/folder")
    return value


def of_an_account(value: str) -> str:
    form = r"/subscriptions/[^/\s]+/resourceGroups/[^/\s]+/providers/Microsoft\.Storage/storageAccounts/[a-z0-9]{3,24}"
    if "${" not in value and re.fullmatch(form, value, re.IGNORECASE) is None:
        raise ValueError(
            "is a resource id: /subscriptions/…/resourceGroups/…/providers/Microsoft.Storage/storageAccounts/…"
        )
    return value


class AdlsConnection(Section):
    """A container of Azure storage: a lake."""

    type: Literal["adls"] = "adls"
    url: Annotated[str, AfterValidator(of_a_container)]
    """abfss://container@account.dfs.core.windows.net/folder, the folder being optional."""
    rename: bool = False
    """Whether objects are written aside and renamed, which takes a hierarchical namespace."""
    credential: Literal["default", "environment", "workload_identity", "managed_identity"] = "default"
    """Who we are: one way of azure-identity, or the first of them that knows."""
    client_id: str | None = None
    """Of a user-assigned identity."""
    connection_string: Annotated[str | None, Field(repr=False)] = None
    """A reference, such as ${env:LAKE_CONNECTION_STRING}, for accounts that know no identities."""
    endpoint: Annotated[str | None, Field(pattern=r"^(https://|\$\{)\S+$")] = None
    """Of an emulator, which has one for all. Its client gives no token to what is not encrypted."""
    part_size: Annotated[Whole, Field(ge=2**20, le=32 * 2**20)] = 8 * 2**20
    """Bytes; what is longer is sent in blocks of as many, eight at once."""
    connect_timeout: Duration = timedelta(seconds=10)
    answer_timeout: Duration = timedelta(seconds=60)
    lifecycle: Lifecycle = Lifecycle()
    account_id: Annotated[str, AfterValidator(of_an_account)] | None = None
    """The account's resource id, as the portal shows it; lifecycle rules are of the account, and asked for by it."""
    management_endpoint: Annotated[str, Field(pattern=r"^(https://|\$\{)\S+$")] = "https://management.azure.com"

    @model_validator(mode="after")
    def has_rules_that_there_are(self) -> "AdlsConnection":
        if self.lifecycle.abort_uploads_after is not None:
            raise ValueError(
                "lifecycle.abort_uploads_after: Azure discards after a week what was sent and not committed"
            )
        return self

    @model_validator(mode="after")
    def says_one_credential(self) -> "AdlsConnection":
        if self.connection_string is not None and (self.endpoint, self.client_id, self.credential) != (
            None,
            None,
            "default",
        ):
            raise ValueError("connection_string stands alone: it brings endpoint and credentials")
        if self.client_id is not None and self.credential == "environment":
            raise ValueError("client_id is of workload_identity and managed_identity; the environment names its own")
        return self


class DuckdbConnection(Section):
    """A DuckDB file: the embedded warehouse."""

    type: Literal["duckdb"] = "duckdb"
    path: Path
    lock_timeout: Duration = timedelta(minutes=5)
    schema_: str = Field(default="main", alias="schema")


def identifier(value: str) -> str:
    if len(value.encode()) > 63:
        raise ValueError("is longer than the 63 bytes of a name in PostgreSQL")
    return value


class PostgresqlConnection(Section):
    """A database of a PostgreSQL server: a warehouse that several machines share."""

    type: Literal["postgresql"] = "postgresql"
    host: str = "localhost"
    port: Annotated[Whole, Field(ge=1, le=65535)] = 5432
    database: str
    user: str
    password: str | None = None
    """A reference, such as ${env:WAREHOUSE_PASSWORD}; without one, what libpq finds by itself: ~/.pgpass."""
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    sslrootcert: Path | None = None
    """Certificates of those who may vouch for the server, for verify-ca and verify-full."""
    schema_: Annotated[str, Field(min_length=1), AfterValidator(identifier)] = Field(default="public", alias="schema")
    lock_timeout: Duration = timedelta(minutes=1)
    """How long to wait for a table that others read or write. Who comes later waits behind, so it is not long."""
    connect_timeout: Duration = timedelta(seconds=10)


class SnowflakeConnection(Section):
    """A schema of a Snowflake account. It takes `pip install 'ingestkit[snowflake]'`."""

    type: Literal["snowflake"] = "snowflake"
    account: str
    """The account's identifier, such as acme-eu1."""
    user: str
    role: str | None = None
    warehouse: str | None = None
    """What computes; without one, the user's own."""
    database: str
    schema_: str = Field(default="PUBLIC", alias="schema")
    login: Literal["key_pair", "oauth", "browser"] = "key_pair"
    private_key: Path | None = None
    """A file with a PKCS#8 key, for key_pair."""
    passphrase: Annotated[str | None, Field(repr=False)] = None
    """A reference, such as ${env:SNOWFLAKE_PASSPHRASE}, where the key is encrypted."""
    token: Annotated[str | None, Field(repr=False)] = None
    """A reference, for oauth."""
    stage: Annotated[str, Field(pattern=r'^[^."\s]+(\.[^."\s]+){0,2}$')] | None = None
    """An external stage whose URL is the lake, or what the lake lies in: then nothing is uploaded to the account."""
    names: Literal["upper", "exact"] = "upper"
    """How all names are spelled there: in upper case, as people write them, or as contracts and this connection do."""
    file_size: FileSize = "128MB"
    """Of the files that are staged, in which a model's rows are cut; 100 to 250 MB load best."""
    parallel: Parallel = 4
    """How many of them, or pieces of one, are uploaded at once."""
    mirror_runs: bool = False
    """Whether runs are shown there too, in the tables that sql/drive/snowflake.sql makes."""
    lock_timeout: Duration = timedelta(minutes=10)
    """How long to wait for a table that others change. What a dead process of the same user left open is ended."""
    statement_timeout: Duration = timedelta(hours=4)
    login_timeout: Duration = timedelta(seconds=60)
    network_timeout: Duration = timedelta(minutes=5)
    """How long requests are tried again that nobody answers, of uploads too."""
    answer_timeout: Duration = timedelta(seconds=60)
    """How long one of them waits; a statement may take longer, the service says so meanwhile."""
    endpoint: Annotated[str | None, Field(pattern=r"^(https?://|\$\{)\S+$")] = None
    """Of an emulator, or of a private link."""

    @model_validator(mode="after")
    def has_what_its_login_takes(self) -> "SnowflakeConnection":
        if self.login == "key_pair" and self.private_key is None:
            raise ValueError("private_key is missing: login is key_pair")
        if self.login == "oauth" and self.token is None:
            raise ValueError("token is missing: login is oauth")
        return self


Connection = Annotated[
    LocalConnection
    | SftpConnection
    | VaultConnection
    | S3Connection
    | AdlsConnection
    | DuckdbConnection
    | PostgresqlConnection
    | SnowflakeConnection,
    Field(discriminator="type"),
]
Warehouse = DuckdbConnection | PostgresqlConnection | SnowflakeConnection
"""Connections that models can be published into."""


class LeaseSettings(Section):
    ttl: Duration = timedelta(seconds=90)
    beat: Duration = timedelta(seconds=20)

    @model_validator(mode="after")
    def beats_fit(self) -> "LeaseSettings":
        if self.ttl < 3 * self.beat:
            raise ValueError("ttl must be at least three beats")
        return self


class StateSettings(Section):
    url: str = "sqlite:///state/ingestkit.db"
    busy_timeout: Duration = timedelta(seconds=10)
    lease: LeaseSettings = LeaseSettings()
    idle_after: Duration = timedelta(hours=6)
    stale_after: Duration = timedelta(days=14)
    folder: Path = Path("state")
    """Where the pending queue, the sidecars for people and the JSON mirror live."""


TagName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
OWN_TAGS = {"pipeline", "model", "stage", "status", "batch", "run_id", "file", "file_id", "bytes"}


class OtlpSettings(Section):
    """An OpenTelemetry collector, spoken to by protobuf over HTTP. It takes `pip install 'ingestkit[otel]'`."""

    endpoint: Annotated[str, Field(pattern=r"^(https?://|\$\{)\S+$", repr=False)]
    """Without v1/metrics and v1/traces, which are put behind it."""
    headers: Annotated[dict[str, str], Field(repr=False)] = Field(default_factory=dict)
    """Those that are secrets as references, such as ${env:OTLP_TOKEN}."""
    ca_file: Path | None = None
    """Certificates of those who may vouch for the endpoint."""
    traces: bool = True
    """Whether spans of runs, stages and files are sent too."""


class StatsdSettings(Section):
    """A statsd, or what understands it."""

    host: Named = "127.0.0.1"
    port: Annotated[Whole, Field(ge=1, le=65535)] = 8125
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] = "ingestkit"
    tags: Literal["datadog", "names"] = "datadog"
    """`names`: pipeline, model and stage become parts of names, for those that know no tags."""


class TextfileSettings(Section):
    """A folder in which node_exporter's textfile collector looks."""

    folder: Path


def of_seconds(value: timedelta) -> timedelta:
    if not timedelta(0) < value <= timedelta(seconds=10):
        raise ValueError("is more than 0s, and at most 10s")
    return value


class MetricsSettings(Section):
    """Who is told figures at the end of each command that works."""

    otlp: OtlpSettings | None = None
    statsd: StatsdSettings | None = None
    textfile: TextfileSettings | None = None
    tags: dict[TagName, str] = Field(default_factory=dict)
    """Put on each figure, such as which environment it is of."""
    patience: Annotated[Duration, AfterValidator(of_seconds)] = timedelta(seconds=3)
    """How long the end of a command waits for all of them together."""

    @model_validator(mode="after")
    def tags_are_its_own(self) -> "MetricsSettings":
        if taken := sorted(OWN_TAGS & set(self.tags)):
            raise ValueError(f"tags: {taken[0]} is a tag already")
        return self


WEB = r"^(https?://|\$\{)\S+$"


class SlackChannel(Section):
    """An incoming webhook of Slack."""

    type: Literal["slack"]
    url: Annotated[str, Field(pattern=WEB, repr=False)]
    """As a reference, since who knows it may post: ${env:SLACK_URL}."""
    ca_file: Path | None = None


class WebhookChannel(Section):
    """Anything that takes a JSON object by POST."""

    type: Literal["webhook"]
    url: Annotated[str, Field(pattern=WEB, repr=False)]
    """As a reference."""
    headers: Annotated[dict[str, str], Field(repr=False)] = Field(default_factory=dict)
    """Those that are secrets as references."""
    ca_file: Path | None = None


class EmailChannel(Section):
    """A mail server, spoken to within TLS alone."""

    type: Literal["email"]
    host: Named
    port: Annotated[Whole, Field(ge=1, le=65535)] = 587
    tls: Literal["starttls", "tls"] = "starttls"
    """`tls`: from the first byte, as on port 465."""
    user: str | None = None
    password: Annotated[str | None, Field(repr=False)] = None
    sender: Annotated[str, Field(pattern=MAILBOX)]
    to: tuple[Annotated[str, Field(pattern=MAILBOX)], ...] = ()
    """Who has every message; pipelines may name more."""
    ca_file: Path | None = None
    """Certificates of those who may vouch for the server."""


class SnsChannel(Section):
    """A topic of Amazon SNS. It takes `pip install 'ingestkit[aws]'`, and logs in as the machine does."""

    type: Literal["sns"]
    topic: Named
    region: Named | None = None
    endpoint_url: str | None = None


Channel = Annotated[SlackChannel | WebhookChannel | EmailChannel | SnsChannel, Field(discriminator="type")]


class AlertsSettings(Section):
    """Who can be told of what goes wrong."""

    channels: dict[TagName, Channel] = Field(default_factory=dict)
    patience: Annotated[Duration, AfterValidator(of_seconds)] = timedelta(seconds=5)
    """How long the end of a command waits for all of them together."""
    check: Annotated[str, AfterValidator(timetable)] = "*/5 * * * *"
    """When `alerts check` is to be started, in UTC."""


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"


class Settings(Section):
    """`config/settings.yaml` without its profiles, which `project` has laid over it."""

    profile: str = "local"
    connections: dict[str, Connection] = Field(default_factory=dict)
    state: StateSettings = StateSettings()
    jobs: Annotated[Whole, Field(ge=1, le=64)] = 2
    memory_limit: Annotated[str, Field(pattern=r"^\d+(\.\d+)?(MiB|GiB|MB|GB)$")] = "600MiB"
    scratch: Path = Path("state/scratch")
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    alerts: AlertsSettings = AlertsSettings()


class Everything(BaseSettings, Settings):
    """All there is to set, as one tree; environment variables are matched against it. Never made, only looked at."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    pipelines: dict[str, PipelineSettings] = Field(default_factory=dict)
