"""The tables that an archive says there are: what validate leaves word of, and what load makes of it."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from ingestkit import steps
from ingestkit.errors import UsageError, WarehouseError
from ingestkit.model import Artifact, Fence, Intent, Json, LoadMode
from ingestkit.pipeline import RunContext
from ingestkit.ports import Load, ManyTables, TargetColumn, ValidFile, Wanted
from ingestkit.settings import MARK
from ingestkit.stages import standing

DELETED_AT = "deleted_date"
"""Where files of keys that are gone say when."""
TABLES = "tables"
"""Under what the sidecar of validate tells of them."""


@dataclass(frozen=True, slots=True)
class Made:
    """A valid artifact, by its name in the lake, and the member it was made from."""

    path: str
    source: str
    rows: int


@dataclass(frozen=True, slots=True)
class Table:
    """One table as an archive speaks of it."""

    name: str
    columns: tuple[tuple[str, str], ...]
    """By name, the contract's type."""
    key: tuple[str, ...]
    rows: Made | None = None
    """What it holds, or what of it has changed; None for no row."""
    removed: Made | None = None
    """The keys of rows that are gone."""
    dropped: tuple[str, ...] = ()
    """Columns that are gone."""
    beside: tuple[str, ...] = ()
    """Texts beside numbers, of which this archive has none."""
    again: tuple[str, ...] = ()
    """Columns that were gone and are there again: what they held before is not theirs."""
    gone: bool = False
    """Whether all of it is."""
    afresh: bool = False
    """Whether it was gone and is there again."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Json) -> Self:
        made = {name: Made(**row[name]) if row[name] else None for name in ("rows", "removed")}
        columns = tuple((column, kind) for column, kind in row["columns"])
        lists = {name: tuple(row[name]) for name in ("key", "dropped", "beside", "again")}
        return cls(**{**row, **made, **lists, "columns": columns})

    @property
    def targets(self) -> tuple[TargetColumn, ...]:
        return tuple(TargetColumn(column, kind) for column, kind in self.columns)


def tables_of(details: Json) -> tuple[Table, ...]:
    """What the sidecar of a validate says of them."""
    return tuple(Table.from_json(one) for one in details.get(TABLES, ()))


def refuse_behind(ctx: RunContext, newer: str | None, mode: LoadMode) -> None:
    """Of archives that change what is there, none is loaded again behind a newer one: that has spoken since."""
    if newer is None or mode is LoadMode.APPEND:
        return
    raise out_of_order(ctx.pipeline.name, ctx.batch, newer)


def out_of_order(pipeline: str, batch: str, newer: str) -> UsageError:
    return UsageError(
        f"batch {batch} of {pipeline} comes before {newer}, which is done: archives are loaded in order",
        hint="what newer ones said stands; once its tables are dropped, all of them are built again, in order: "
        f"ingestkit backfill {pipeline} --from-lake",
    )


def loads(
    ctx: RunContext, intent: Intent, tables: Iterable[Table], file_id: str, made: Sequence[Artifact]
) -> Iterator[Load]:
    """What is to be written of each table that is there."""
    known = {one.path: one for one in made}
    said = ctx.pipeline.settings.tables
    marked = said is not None and said.load == "merge" and said.deleted == "mark"
    for table in tables:
        if table.gone:
            continue
        yield Load(
            intent=intent,
            table=table.name,
            columns=(*table.targets, *([TargetColumn(MARK, "timestamp")] if marked else [])),
            key=table.key,
            files=_valid(ctx, known, file_id, table.rows),
            losers=None,
            lineage=ctx.pipeline.lineage(),
            part=table.name,
            removed=_valid(ctx, known, file_id, table.removed),
            marks=DELETED_AT if marked else None,
            remade=table.again,
            beside=tuple(TargetColumn(name, "string") for name in table.beside),
            afresh=table.afresh,
        )


def evolve_all(ctx: RunContext, loads: Sequence[Load]) -> None:
    """Make the tables, or add what they lack; it is written down before whose they are, in fence rows of their own."""
    known = {fence.table for fence in ctx.warehouse.fences(ctx.pipeline.name).values()}
    if new := [load.table for load in loads if load.table not in known]:
        _register(ctx, new)
    ctx.stop.check()
    # What is made anew is so within the transaction.
    wanted = [
        Wanted(load.table, tuple(one for one in load.columns if one.name not in load.remade), load.lineage)
        for load in loads
    ]
    assert isinstance(ctx.warehouse, ManyTables)
    for table, statements in ctx.warehouse.evolve_all(wanted).items():
        for statement in statements:
            ctx.progress.said(f"changed {table}", ddl=statement)


def _register(ctx: RunContext, new: Sequence[str]) -> None:
    """Write down whose tables they will be, unless somebody else has made one of them."""
    for table in new:
        standing.refuse_of_another(ctx.warehouse, (ctx.pipeline.name, table), table, part=True)
    if there := sorted(set(new) - ctx.warehouse.missing(tuple(new))):
        raise WarehouseError(
            f"table {there[0]} is there already, and was not made for {ctx.pipeline.name}",
            hint=f"take it away, or let tables begin with a name of their own: tables.prefix in {ctx.pipeline.name}",
        )
    ctx.warehouse.fence(tuple(Fence(ctx.pipeline.name, one, ctx.state_id, ctx.token, one) for one in new))


def drop(ctx: RunContext, model: str, tables: Iterable[Table]) -> None:
    """Remove what the archive says is gone, behind what was published; a kill before it is made up for by a retry."""
    said = ctx.pipeline.settings.tables
    if said is None or said.removed == "keep":
        return
    mine = Fence(ctx.pipeline.name, model, ctx.state_id, ctx.token, ctx.pipeline.table(model))
    assert isinstance(ctx.warehouse, ManyTables)
    for table in tables:
        if not (table.gone or table.dropped):
            continue
        steps.reached("load.dropping")
        for statement in ctx.warehouse.drop(mine, table.name, () if table.gone else table.dropped):
            ctx.progress.said(f"changed {table.name}", ddl=statement)


def expected(tables: Iterable[Table]) -> dict[str, int]:
    """How many rows of each table must be staged: those that come, and those that go."""
    each = {table.name: (table.rows, table.removed) for table in tables if not table.gone}
    return {name: sum(made.rows for made in some if made is not None) for name, some in each.items()}


def _valid(ctx: RunContext, known: Mapping[str, Artifact], file_id: str, made: Made | None) -> tuple[ValidFile, ...]:
    if made is None:
        return ()
    artifact = known.get(made.path)
    if artifact is None or not ctx.holds(artifact):
        again = f"ingestkit validate {ctx.pipeline.name} --run-id {shlex.quote(ctx.run_id)} --force"
        raise WarehouseError(f"the valid rows of {made.source} are not in the lake as they were made", hint=again)
    return (ValidFile(ctx.lake.store.path(made.path), made.source, file_id, made.rows),)
