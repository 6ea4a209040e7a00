"""Archives of Direct Data, made by us: single ones with every oddity, and chains of changes drawn by a seed."""

import csv
import io
import random
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

MANIFEST = ("extract", "extract_label", "type", "records", "file")
METADATA = (
    "modified_date",
    "extract",
    "extract_label",
    "column_name",
    "column_label",
    "type",
    "length",
    "related_extract",
)
PICKLIST = "Picklist.picklist__sys"
PICKLIST_KEY = ("object", "object_field", "picklist_value_name")
TYPES = ("String", "LongText", "Number", "Boolean", "Date", "DateTime", "Picklist", "Relationship", "Richtext")
TEXTS = ("NA", "00123", "0E5", "None", 'he said "x, y"', "two\nlines", "a\\\\b", "tab\there", " led by a space", "ß€𝄞")
NUMBERS = (
    "0",
    "2.5",
    "-3",
    "0.0000000001",
    "9007199254740993",
    "1234567890123456789012345678",
    "12345678901234567890123456789",
)
DATES = ("2024-02-29", "1600-01-01", "0001-01-01", "9999-12-31")
MOMENTS = (
    "2026-01-14T13:17:05.000Z",
    "1600-01-01T00:00:00.000Z",
    "0001-01-01T00:00:00.000Z",
    "2026-01-15T05:09:12.345Z",
)


def written(header: Sequence[str], rows: Iterable[Sequence[str]], end: str = "\n") -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=end)
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def packed(members: Iterable[tuple[str, str | bytes]], *, folders: bool = False) -> bytes:
    """The members in this order, in a `.tar.gz`; with `folders` as entries of their own."""
    out = io.BytesIO()
    known: set[str] = set()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as archive:
        for name, content in members:
            folder = name.rpartition("/")[0]
            if folders and folder and folder not in known:
                known.add(folder)
                made = tarfile.TarInfo(folder)
                made.type = tarfile.DIRTYPE
                archive.addfile(made)
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


@dataclass(slots=True)
class Extract:
    """What an archive holds of one table."""

    name: str
    columns: Mapping[str, str]
    """By name, the type that metadata say."""
    rows: Sequence[Mapping[str, str]] = ()
    deletes: Sequence[Sequence[str]] = ()
    key: tuple[str, ...] = ("id",)
    records: int | None = None
    """What the manifest says, where that is not so."""

    @property
    def file(self) -> str:
        return self.name.replace(".", "/", 1) + ".csv"

    @property
    def deletes_file(self) -> str:
        return self.file.removesuffix(".csv") + "_deletes.csv"


@dataclass(slots=True)
class Archive:
    """An archive to be made: what it holds, and how it is written."""

    extracts: Sequence[Extract]
    full: bool = True
    changed: Sequence[tuple[str, str, str]] = ()
    """Of one that is not full: (extract, column, type) of what metadata say is new."""
    removed: Sequence[tuple[str, str]] = ()
    everything: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Of one that is not full: the types of all columns there are."""
    typed: bool = True
    """Whether the manifest has the column `type`."""
    suffixed: bool = False
    """Whether what is gone is told by the extract's name, and not by the type alone."""
    dated: str = "modified_date"
    """How metadata call their first column."""
    formula: bool = False
    """Whether metadata have one more column than is documented."""
    last: Sequence[str] = ()
    """Members that come at the end."""
    end: str = "\n"
    folders: bool = False
    at: str = "2026-01-15T05:03:11.000Z"

    def members(self) -> list[tuple[str, str]]:
        lines: list[tuple[str, ...]] = []
        found: list[tuple[str, str]] = []
        everything = {one.name: one.columns for one in self.extracts} if self.full else self.everything
        changes = [(name, column, kind) for name, columns in everything.items() for column, kind in columns.items()]
        said = changes if self.full else list(self.changed)
        if self.full or said:
            lines.append(self._line("Metadata.metadata", "updates", len(said), "Metadata/metadata.csv"))
            found.append(("Metadata/metadata.csv", self._metadata(said, "" if self.full else self.at)))
        if self.removed:
            gone = [(*one, self.at) for one in self.removed]
            lines.append(self._line("Metadata.metadata", "deletes", len(gone), "Metadata/metadata_deletes.csv"))
            header = ("extract", "column_name", "deleted_date")
            found.append(("Metadata/metadata_deletes.csv", written(header, gone, self.end)))
        for one in self.extracts:
            records = len(one.rows) if one.records is None else one.records
            if self.full or one.rows:
                lines.append(self._line(one.name, "updates", records, one.file if one.rows else ""))
            if one.rows:
                cells = ([row.get(column, "") for column in one.columns] for row in one.rows)
                found.append((one.file, written(list(one.columns), cells, self.end)))
            if one.deletes:
                lines.append(self._line(one.name, "deletes", len(one.deletes), one.deletes_file))
                keys = ((*row, self.at) for row in one.deletes)
                found.append((one.deletes_file, written((*one.key, "deleted_date"), keys, self.end)))
        named = [name for name in MANIFEST if self.typed or name != "type"]
        found.insert(0, ("manifest.csv", written(named, lines, self.end)))
        if not self.full:
            found.insert(1, ("metadata_full.csv", self._metadata(changes, "")))
        late = {name: at for at, name in enumerate(self.last)}
        return sorted(found, key=lambda one: late.get(one[0], -1))

    def made(self) -> bytes:
        return packed(self.members(), folders=self.folders)

    def _line(self, extract: str, kind: str, records: int, file: str) -> tuple[str, ...]:
        name = f"{extract}_deletes" if self.suffixed and kind == "deletes" else extract
        line = (name, extract.rpartition(".")[2], kind, str(records), file)
        return line if self.typed else (*line[:2], *line[3:])

    def _metadata(self, rows: Iterable[tuple[str, str, str]], at: str) -> str:
        header = (self.dated, *METADATA[1:], *(("formula_of_some_name",) if self.formula else ()))
        more = ("false",) if self.formula else ()
        each = ((at, name, name, column, column, kind, "1", "", *more) for name, column, kind in rows)
        return written(header, each, self.end)


@dataclass(slots=True)
class Chain:
    """A vault that changes: its full archive, and then what has changed in each quarter of an hour."""

    seed: int
    at: datetime = datetime(2026, 1, 15, 5, tzinfo=UTC)
    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    rows: dict[str, dict[tuple[str, ...], dict[str, str]]] = field(default_factory=dict)
    made: int = 0
    draw: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        for name in ("Object.product__v", "Object.3d_model__c", "Object.user__sys", "Workflow.workflow__sys"):
            self._begin(name)
        self.columns[PICKLIST] = {
            "modified_date__v": "DateTime",
            **dict.fromkeys(PICKLIST_KEY, "String"),
            "label": "String",
        }
        self.rows[PICKLIST] = {}
        for _ in range(6):
            self._insert(PICKLIST)

    def full(self) -> tuple[str, bytes]:
        extracts = [
            Extract(name, self.columns[name], list(self.rows[name].values()), key=self._key(name))
            for name in self.columns
        ]
        return f"100123-{self.at:%Y%m%d-%H%M}-F.tar.gz", Archive(extracts, last=self._last()).made()

    def next(self) -> tuple[str, bytes]:
        """What changes in the next quarter of an hour."""
        self.at += timedelta(minutes=15)
        changed: list[tuple[str, str, str]] = []
        removed: list[tuple[str, str]] = []
        gone = self._change_columns(changed, removed)
        found: list[Extract] = []
        for name in list(self.columns):
            deletes = [key for key in list(self.rows[name]) if self.draw.random() < 0.15]
            before = {key: self.rows[name].pop(key) for key in deletes}
            touched = [self._insert(name) for _ in range(self.draw.randrange(3))]
            touched += [self._update(name, key) for key in list(self.rows[name]) if self.draw.random() < 0.2]
            for key in deletes:
                if self.draw.random() < 0.3:
                    self.rows[name][key] = self._values(name, key, before[key])
                    touched.append(key)
            rows = [self.rows[name][key] for key in dict.fromkeys(touched)]
            found.append(Extract(name, self._shuffled(self.columns[name]), rows, deletes, self._key(name)))
        archive = Archive(
            [one for one in found if one.rows or one.deletes],
            full=False,
            changed=list(dict.fromkeys(changed)),
            removed=[*removed, *gone],
            everything=self.columns,
            suffixed=self.draw.random() < 0.5,
            dated=self.draw.choice(("modified_date", "modified_date__v")),
            formula=self.draw.random() < 0.5,
            last=self._last(),
            end=self.draw.choice(("\n", "\r\n")),
            folders=self.draw.random() < 0.5,
        )
        return f"100123-{self.at:%Y%m%d-%H%M}-N.tar.gz", archive.made()

    def _change_columns(
        self, changed: list[tuple[str, str, str]], removed: list[tuple[str, str]]
    ) -> list[tuple[str, str]]:
        """New objects and columns, some gone, some gone and made anew."""
        objects = [name for name in self.columns if name.startswith("Object.")]
        if self.draw.random() < 0.2:
            name = f"Object.new_{self.made}__c"
            self._begin(name)
            changed += [(name, column, kind) for column, kind in self.columns[name].items()]
        if self.draw.random() < 0.3:
            name = self.draw.choice(objects)
            self.made += 1
            column, kind = f"field_{self.made}__c", self.draw.choice(TYPES)
            self.columns[name][column] = kind
            changed.append((name, column, kind))
        for name in objects:
            own = [column for column in self.columns[name] if column.startswith("field_")]
            if own and self.draw.random() < 0.15:
                column = self.draw.choice(own)
                removed.append((name, column))
                kind = self.columns[name].pop(column)
                for row in self.rows[name].values():
                    row.pop(column, None)
                if self.draw.random() < 0.5:
                    self.columns[name][column] = kind
                    changed.append((name, column, kind))
        if len(objects) > 3 and self.draw.random() < 0.15:
            name = objects[-1]
            gone = [(name, column) for column in self.columns.pop(name)]
            del self.rows[name]
            return gone
        return []

    def _begin(self, name: str) -> None:
        self.made += 1
        self.columns[name] = {
            "id": self.draw.choice(("ID", "Number", "String")),
            "modified_date__v": "DateTime",
            "name__v": "String",
        }
        self.columns[name] |= {f"field_{self.made}_{kind.lower()}__c": kind for kind in self.draw.sample(TYPES, 5)}
        self.rows[name] = {}
        for _ in range(self.draw.randrange(8)):
            self._insert(name)

    def _key(self, name: str) -> tuple[str, ...]:
        return PICKLIST_KEY if name == PICKLIST else ("id",)

    def _insert(self, name: str) -> tuple[str, ...]:
        self.made += 1
        key: tuple[str, ...] = (f"00{self.made:013}",)
        if name == PICKLIST:
            key = ("product__v", f"field{self.made % 3}", f"value {self.made}")
        self.rows[name][key] = self._values(name, key, {})
        return key

    def _update(self, name: str, key: tuple[str, ...]) -> tuple[str, ...]:
        self.rows[name][key] = self._values(name, key, self.rows[name][key])
        return key

    def _values(self, name: str, key: tuple[str, ...], before: Mapping[str, str]) -> dict[str, str]:
        keys = dict(zip(self._key(name), key, strict=True))
        found = {}
        for column, kind in self.columns[name].items():
            stays = column in before and self.draw.random() < 0.5
            found[column] = keys.get(column) or (before[column] if stays else self._value(kind))
        return found

    def _value(self, kind: str) -> str:
        if self.draw.random() < 0.2:
            return ""
        words = {"Number": NUMBERS, "Boolean": ("true", "false"), "Date": DATES, "DateTime": MOMENTS}
        return self.draw.choice(words.get(kind, TEXTS))

    def _shuffled(self, columns: Mapping[str, str]) -> dict[str, str]:
        names = list(columns)
        self.draw.shuffle(names)
        return {name: columns[name] for name in names}

    def _last(self) -> Sequence[str]:
        return self.draw.choice(
            ((), ("metadata_full.csv", "Metadata/metadata.csv", "Metadata/metadata_deletes.csv", "manifest.csv"))
        )
