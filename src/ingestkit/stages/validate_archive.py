"""Validate of archives that say themselves which tables they hold: each member becomes typed Parquet as it goes by."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import IO, BinaryIO

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from ingestkit import directdata, steps
from ingestkit.contract import compile_contract
from ingestkit.csvfile import Block, TextFile, blocks, open_text
from ingestkit.csvframe import broken
from ingestkit.csvvalues import texts
from ingestkit.directdata import Contents, Entry
from ingestkit.errors import ContractError
from ingestkit.files import shown
from ingestkit.header import Compared
from ingestkit.model import Artifact, Counts, Drift, FileStatus, FileVersion, LoadMode, Rule, Stage, Work, safe_name
from ingestkit.pipeline import RunContext
from ingestkit.settings import Column, Dialect, Model
from ingestkit.settings import Tables as Settings
from ingestkit.stages.tables import DELETED_AT, TABLES, Made, Table
from ingestkit.stages.validate import Part, in_scratch, proof, prove, quarantine
from ingestkit.stages.validate_blocks import Parsed, convert_block, converted
from ingestkit.stages.validate_engine import Engine
from ingestkit.stages.validate_file import (
    Facts,
    Reading,
    prove_landed,
    publish_rejects,
    publish_valid,
    rejected_in,
)
from ingestkit.stages.validate_keys import Candidate
from ingestkit.stages.validate_rules import judged
from ingestkit.stages.validate_text import facts_of, facts_seen

BESIDE = "_text"
"""What stands behind the name of a column of numbers in that of the texts it cannot hold."""
DIALECT = Dialect(mixed_newlines="accept")


def validate(
    ctx: RunContext, model: str, files: Sequence[FileVersion], known: Sequence[Artifact], *, again: bool = False
) -> Work:
    """Validate the one archive that a batch is; its artifacts are made together, and so all anew."""
    del known, again
    if len(files) != 1:
        names = ", ".join(shown(file.path) for file in files)
        raise ContractError(
            f"batch {ctx.batch} has {len(files)} archives, and each is a batch of its own: {names}",
            hint="make source.batches match one of them, or take the others away",
        )
    [file] = files
    said = ctx.pipeline.settings.tables
    assert said is not None
    with in_scratch(ctx, shown(file.path)):
        prove_landed(ctx, file)
        with ctx.watched(file):
            return _Validation(ctx, model, file, said, ctx.pipeline.mode(model, (file,))).work()


@dataclass(frozen=True, slots=True)
class Read:
    """A member as it was read."""

    entry: Entry
    part: Part
    columns: tuple[tuple[str, str], ...]
    beside: tuple[str, ...]
    """Texts beside numbers, of which there is none."""

    @property
    def made(self) -> Made | None:
        if not self.part.valid_rows:
            return None
        return Made(self.part.candidate.valid.path, self.part.file.path, self.part.valid_rows)


@dataclass(slots=True)
class _Validation:
    ctx: RunContext
    model: str
    file: FileVersion
    said: Settings
    mode: LoadMode
    members: dict[tuple[str, str], Read] = field(default_factory=dict)
    unlisted: list[str] = field(default_factory=list)

    def work(self) -> Work:
        path = self.file.path
        archive = directdata.Archive(path, self.file.size, self._opened, self.ctx.pipeline.settings.source.archives)
        contents = directdata.contents_of(archive, whole=self.mode is LoadMode.REPLACE)
        _refuse_alike(path, contents)
        engine = Engine(self.ctx, compile_contract(self.model, self.ctx.pipeline.model(self.model)))
        try:
            listed = {entry.file: entry for entry in contents.entries if entry.file}
            about = {directdata.MANIFEST, directdata.EVERYTHING}
            for name, _, stream in directdata.members(archive):
                entry = listed.get(name)
                if entry is not None:
                    self.members[entry.extract, entry.kind] = self._read(engine, contents, entry, stream)
                elif name not in about:
                    self.unlisted.append(name)
            self._refuse_missing(contents)
            reasons = quarantine(self.ctx, engine, [one.part for one in self.members.values()], None)
        finally:
            engine.close()
        steps.reached("validate.archive_read")
        for name in self.unlisted:
            self.ctx.progress.warned(f"{shown(path)}: its manifest does not name {shown(name)}, which is left out")
        tables = tuple(self._tables(contents))
        return replace(
            self._work(contents),
            quarantine=reasons,
            drift=tuple(_drift(self.model, self.file, contents, self.said)),
            details={
                "proof": proof([one.part for one in self.members.values()]),
                TABLES: [table.to_json() for table in tables],
            },
        )

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        assert self.file.raw is not None
        with self.ctx.lake.open(self.file.raw) as raw:
            yield raw

    def _read(self, engine: Engine, contents: Contents, entry: Entry, stream: IO[bytes]) -> Read:
        """One member, made into its artifacts."""
        ctx = self.ctx
        ctx.stop.check()
        member = replace(self.file, path=f"{self.file.path}!{entry.file}")
        limit = ctx.pipeline.settings.validation.max_record_lines
        text = open_text(member.path, stream, DIALECT, (), max_record_lines=limit)
        if not text.names:
            raise broken(member.path, "is empty: it has not even a header")
        contract, numbers = self._contract(entry, contents, text)
        own = engine.under(compile_contract(self.model, contract))
        beside = {name: f"{name}{BESIDE}" for name in numbers}

        def parse(block: Block) -> Parsed:
            table, kept, flaws = texts(text, block)
            if self.said.double_backslashes:
                table = _single(table)
            for name, other in beside.items():
                table = _told_apart(table, name, other, numbers[name])
            return Parsed(table, kept, flaws)

        @contextmanager
        def read(_: RunContext, file: FileVersion, engine: Engine) -> Iterator[Reading]:
            del file
            header, extra = Compared(text.names, (), ()), tuple(beside.values())
            yield Reading(
                blocks=converted(
                    ctx,
                    engine,
                    ((block, 0) for block in blocks(text)),
                    lambda block: convert_block(text, block, engine, extra, parse),
                ),
                facts=lambda records: replace(facts_of(text, records, header), extra=extra),
                seen=lambda records: facts_seen(text, records, header),
                first_line=text.preamble_lines + text.header_lines + 1,
                extra=extra,
            )

        name = f"{self.file.id}.{safe_name(entry.extract)}.{entry.kind}"
        valid, aside = publish_valid(ctx, self.model, member, name, own, read)
        path = ctx.lake.store.path(valid.path)
        facts, metadata = Facts.read(path), pyarrow.parquet.read_metadata(path)
        rejected, lines = rejected_in(aside, facts)
        rejects = None
        if rejected:
            rejects = publish_rejects(ctx, self.model, member, name, aside, path)
        if facts.cut is not None:
            rejected, lines = facts.cut.rows, facts.cut.lines
        part = Part(Candidate(member, valid, path, facts), rejects, metadata.num_rows, rejected, lines, made=True)
        prove(part)
        if facts.records != entry.records and not facts.partial:
            raise broken(
                member.path, f"has {facts.records:,} records, where the manifest says that it has {entry.records:,}"
            )
        steps.reached("validate.member_done")
        filled = [other for other in beside.values() if _is_any(metadata, other)]
        columns = [(name, column.type) for name, column in contract.columns.items()]
        columns += [(other, "string") for other in filled]
        return Read(entry, part, tuple(columns), tuple(other for other in beside.values() if other not in filled))

    def _contract(self, entry: Entry, contents: Contents, text: TextFile) -> tuple[Model, dict[str, str]]:
        """What the columns of a header hold, and of those of numbers the pattern of what they hold exactly."""
        types = contents.columns.get(entry.extract, {}) if entry.kind == "updates" else {}
        own = self.said.contracts.get(self._table(entry.extract), {}) if entry.kind == "updates" else {}
        columns, numbers = {}, {}
        for name in text.names:
            kind = directdata.type_of(entry.extract, name, types.get(name), self.said.number_type)
            if entry.kind == "deletes" and name == DELETED_AT:
                kind = "timestamp"
            columns[name] = own.get(name) or Column(type=kind)
            if types.get(name) == "Number" and name not in own and kind not in ("string", "float"):
                numbers[name] = _exactly(kind)
        if len({name.casefold() for name in columns}) != len(text.names):
            raise broken(text.path, "has two columns of one name in its header")
        key = directdata.key_of(entry.extract)
        if entry.kind == "updates":
            key = self._key(entry.extract, {*text.names, *types})
        marks = entry.kind == "deletes" and self.said.deleted == "mark"
        if missing := [name for name in (*key, *([DELETED_AT] if marks else [])) if name not in columns]:
            raise broken(text.path, f"has no column {', '.join(missing)}, by which its rows are known")
        return Model(columns=columns, key=key, csv=DIALECT), numbers

    def _key(self, extract: str, columns: Collection[str]) -> tuple[str, ...]:
        """By what rows of a table are known; by nothing where there is no id and each archive holds the whole."""
        key = directdata.key_of(extract)
        whole = self.mode is LoadMode.REPLACE and directdata.ID in key and directdata.ID not in columns
        return key if self.said.load == "merge" and not whole else ()

    def _table(self, extract: str) -> str:
        return self.said.prefix + extract.rpartition(".")[2]

    def _refuse_missing(self, contents: Contents) -> None:
        for entry in contents.entries:
            if entry.records and (entry.extract, entry.kind) not in self.members:
                raise broken(self.file.path, f"has no {shown(entry.file)}, which its manifest names")

    def _tables(self, contents: Contents) -> Iterator[Table]:
        """All tables that the archive speaks of."""
        spoken = [entry.extract for entry in contents.entries if self.mode is LoadMode.REPLACE or entry.records]
        spoken += [*contents.changed, *contents.removed]
        for extract in dict.fromkeys(spoken):
            rows, removed = (self.members.get((extract, kind)) for kind in ("updates", "deletes"))
            types = contents.columns.get(extract, {})
            known = [
                (name, directdata.type_of(extract, name, said, self.said.number_type)) for name, said in types.items()
            ]
            gone, changed = contents.removed.get(extract, ()), contents.changed.get(extract, ())
            again = tuple(name for name in gone if name in changed)
            whole = directdata.ID in gone
            columns = rows.columns if rows is not None else tuple(known)
            key = self._key(extract, {*types, *(name for name, _ in columns)})
            if not columns and removed is None and not whole:
                continue
            named = {name for name, _ in columns}
            yield Table(
                name=self._table(extract),
                columns=(*((name, "string") for name in key if name not in named), *columns),
                key=key,
                rows=rows.made if rows is not None else None,
                removed=removed.made if removed is not None else None,
                beside=rows.beside if rows is not None else (),
                dropped=() if whole else _with_texts((name for name in gone if name not in again), types),
                again=() if whole else _with_texts(again, types),
                gone=whole and directdata.ID not in changed,
                afresh=whole and directdata.ID in changed,
            )

    def _work(self, contents: Contents) -> Work:
        ctx, parts = self.ctx, [one.part for one in self.members.values()]
        counts = Counts(
            files=1,
            bytes=self.file.size,
            lines=sum(part.facts.lines for part in parts),
            records=sum(part.facts.records for part in parts),
            valid=sum(part.valid_rows for part in parts),
            rejected=sum(part.rejected_rows for part in parts),
            duplicates=0,
        )
        row = replace(
            self.file,
            status=FileStatus.VALIDATED,
            read=counts.records,
            valid=counts.valid,
            rejected=counts.rejected,
            reason=None,
            run_id=ctx.run_id,
            token=ctx.token,
        )
        percents = [part.reject_percent for part in parts]
        rules = judged(ctx, self.model, counts, percents, self.mode, {self.file.path: counts.records or 0})
        listed = sum(entry.records for entry in contents.entries)
        off = float(abs(listed - (counts.records or 0)))
        # Of a rehearsal's first rows nothing of the whole can be told.
        passed = not off if ctx.facts.get("rows_at_most") is None else None
        manifest = Rule("manifest", Stage.VALIDATE, self.model, off, 0, passed, approvable=False)
        artifacts = [one for part in parts for one in part.artifacts]
        return Work(counts=counts, files=(row,), artifacts=tuple(artifacts), rules=(*rules, manifest))


def _refuse_alike(path: str, contents: Contents) -> None:
    """Two tables that would be one."""
    known: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    for entry in contents.entries:
        if (entry.extract, entry.kind) in seen:
            raise broken(path, f"names {shown(entry.extract)} twice in its manifest")
        seen.add((entry.extract, entry.kind))
        if (other := known.setdefault(entry.name.casefold(), entry.extract)) != entry.extract:
            raise broken(path, f"holds {shown(other)} and {shown(entry.extract)}, which would be one table")


def _exactly(kind: str) -> str:
    """The pattern of the numbers that a decimal holds as they are."""
    digits, scale = (int(one) for one in kind.removeprefix("decimal(").rstrip(")").split(","))
    return (
        rf"^[+-]?0*[0-9]{{1,{digits - scale}}}(\.[0-9]{{1,{scale}}}0*)?$" if scale else rf"^[+-]?0*[0-9]{{1,{digits}}}$"
    )


def _told_apart(table: pa.Table, name: str, other: str, exactly: str) -> pa.Table:
    """Texts that a column cannot hold stand in one beside it, and there alone."""
    values = table.column(name)
    fits = pyarrow.compute.match_substring_regex(values, exactly)
    if pyarrow.compute.all(fits).as_py() is not False:
        return table.append_column(other, pa.nulls(table.num_rows, pa.string()))
    nothing = pa.scalar(None, pa.string())
    beside = pyarrow.compute.if_else(fits, nothing, values)
    held = pyarrow.compute.if_else(fits, values, nothing)
    return table.set_column(table.schema.get_field_index(name), name, held).append_column(other, beside)


def _single(table: pa.Table) -> pa.Table:
    """Two backslashes are one."""
    for at, name in enumerate(table.column_names):
        values = pyarrow.compute.replace_substring(table.column(name), "\\\\", "\\")
        table = table.set_column(at, name, values)
    return table


def _with_texts(columns: Iterable[str], known: Collection[str]) -> tuple[str, ...]:
    """The columns, and what may stand beside each and is none that is known."""
    each = ((name, f"{name}{BESIDE}") for name in columns)
    return tuple(one for name, beside in each for one in (name, beside) if one == name or one not in known)


def _is_any(metadata: pyarrow.parquet.FileMetaData, column: str) -> bool:
    """Whether a column of a Parquet file holds any value."""
    at = metadata.schema.names.index(column)
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    # A group without a row says nothing of its columns.
    return any(group.num_rows and group.column(at).statistics.null_count < group.num_rows for group in groups)


def _drift(model: str, file: FileVersion, contents: Contents, said: Settings) -> Iterator[Drift]:
    """What the archive says has changed of its tables."""
    for extract, columns in contents.changed.items():
        types = contents.columns.get(extract, {})
        for name in columns:
            yield Drift(model, file.id, "changed", f"{extract}.{name}", None, types.get(name), "evolve")
    action = "drop" if said.removed == "drop" else "keep"
    for extract, columns in contents.removed.items():
        for name in columns:
            yield Drift(model, file.id, "removed", f"{extract}.{name}", name, None, action)
