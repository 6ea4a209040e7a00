"""Publishing into any warehouse: what happens between BEGIN and COMMIT, in an order that neither loses nor doubles.

What is to be written is told by DuckDB from valid Parquet; how it is written is each warehouse's own.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace as also
from datetime import datetime
from pathlib import Path
from typing import Protocol

import duckdb

from ingestkit import steps
from ingestkit.errors import Fenced, PlanAgain, WarehouseError
from ingestkit.model import Counts, Fence, LoadMode, Receipt
from ingestkit.ports import Bounds, Load, Publication, Rejects, TargetColumn
from ingestkit.settings import FLAG, MARK, OF_REJECTS
from ingestkit.warehouses import duckdb_sql as sql

Engine = duckdb.DuckDBPyConnection


@dataclass(frozen=True, slots=True)
class Rows:
    """A query of DuckDB's for the rows to write, their columns, and the key that tells them apart."""

    query: str
    columns: tuple[str, ...]
    key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Merged:
    """How many rows of a merge were written, how many of those were new keys, and how many were deleted."""

    loaded: int
    added: int
    deleted: int


class Transaction(Protocol):
    """A transaction that a warehouse has begun and will commit, in the words of publishing.

    Every figure is what the warehouse itself says that a statement did.
    """

    def raise_fence(self, mine: Fence) -> Sequence[str]:
        """Write the token into the model's fence row, where state and token let it; the tables of rows that answered.

        Whoever raises the same fence at the same time waits, or conflicts, until this transaction ends.
        """
        ...

    def fences(self, pipeline: str) -> Mapping[str, Fence]:
        """The pipeline's fence rows by model."""
        ...

    def receipt(self, pipeline: str, model: str, batch: str) -> Receipt | None:
        """The receipt that stands."""
        ...

    def write_receipt(self, receipt: Receipt) -> None:
        """Put the receipt in place of the one its (pipeline, model, batch) has."""
        ...

    def forget_receipts(self, pipeline: str, model: str) -> None:
        """Remove the receipts of a model."""
        ...

    def hold(self, table: str) -> int:
        """Keep others from changing the table until this transaction ends, and tell how many rows it holds."""
        ...

    def columns(self, table: str) -> Collection[str]:
        """The names of the table's columns."""
        ...

    def remake(self, table: str, gone: Collection[str], columns: Sequence[TargetColumn]) -> None:
        """Remove those of the columns that are there, and add these, without a value."""
        ...

    def count(self, table: str) -> int:
        """How many rows the table holds, as it will stand when this transaction is committed."""
        ...

    def same_table(self, one: str, other: str) -> bool:
        """Whether two names mean one table."""
        ...

    def replace(self, table: str, rows: Rows) -> int:
        """Put the rows in place of all there are; how many were written."""
        ...

    def insert(self, table: str, rows: Rows) -> int:
        """Add the rows; how many were written."""
        ...

    def delete_batch(self, table: str, batch: str) -> int:
        """Delete the rows of a batch; how many there were."""
        ...

    def delete_window(self, table: str, bounds: Bounds) -> int:
        """Delete the rows that lie within the bounds; how many there were."""
        ...

    def delete_others(self, table: str, kept: Rows) -> int:
        """Delete the rows that have none of these keys; how many there were."""
        ...

    def merge(self, table: str, rows: Rows, gone: str | None) -> Merged:
        """Delete the keys that the query `gone` names, then write the rows by key: over those there are, or as new."""
        ...

    def mark(self, table: str, gone: str, key: tuple[str, ...]) -> None:
        """Give rows of these keys the mark that stands beside each."""
        ...

    def finish(self) -> None:
        """Do what was put off so that readers wait as short as can be; nothing is counted behind it."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What a load writes, as its files alone tell: no target is asked for it."""

    load: Load
    batch: str
    rows: Rows
    staged: int
    key_nulls: int = 0
    key_duplicates: int = 0
    removed: int = 0
    """How many of what is staged are keys alone, whose rows go."""
    gone: str | None = None
    """Of a merge: the query for the keys that go."""
    deletes: int | None = None
    superseded: int | None = None
    left_behind: int | None = None
    kept: str | None = None
    """Of a replace: the query for keys that newer files of changes have spoken of, whose rows stay."""
    rejects: "Plan | None" = None
    """What goes into the table of rejects."""

    @property
    def writes(self) -> int:
        """How many rows are to be written: without those a newer batch has spoken of, and those that delete."""
        return self.staged - (self.superseded or 0) - (self.deletes or 0)

    @property
    def mergeable(self) -> bool:
        """Warehouses refuse to merge keys that come twice, in words that would hide the rule, or take any of them."""
        return self.load.mode is not LoadMode.MERGE or not self.key_duplicates


Planner = Callable[[Load], Plan]


@dataclass(frozen=True, slots=True)
class Written:
    """What a mode's statements did, and how many rows the target must hold now."""

    expected: int
    loaded: int
    deleted: int = 0


def publish(transaction: Transaction, publication: Publication, plan: Planner, at: datetime) -> Mapping[str, Receipt]:
    """The port's `publish`, inside a transaction that the caller has begun and will commit."""
    loads = by_model(publication)
    for model, (load, *_) in loads.items():
        mine = Fence(
            publication.pipeline, model, publication.state_id, publication.token, load.fenced(publication.pipeline)
        )
        raise_fence(transaction, mine)
    steps.reached("load.fenced")
    standing = {model: standing_receipt(transaction, publication, load) for model, (load, *_) in loads.items()}
    stand: dict[str, Receipt] = {}
    for model, some in loads.items():
        stand[model] = standing[model] or publish_model(
            transaction, publication, [plan(_settled(transaction, load)) for load in some], at
        )
    transaction.finish()
    steps.reached("load.before_commit")
    return stand


def _settled(transaction: Transaction, load: Load) -> Load:
    """The load with those of its columns without a value that the table has."""
    if not load.beside:
        return load
    there = transaction.columns(load.table)
    return also(load, columns=(*load.columns, *(one for one in load.beside if one.name in there)), beside=())


def by_model(publication: Publication) -> dict[str, list[Load]]:
    """The loads of each model, in name order."""
    found: dict[str, list[Load]] = {}
    for load in sorted(publication.loads, key=lambda load: (load.intent.model, load.part)):
        found.setdefault(load.intent.model, []).append(load)
    return found


def raise_fence(transaction: Transaction, mine: Fence) -> None:
    """Take the model's fence row, so that an earlier owner updates none and a simultaneous one waits or conflicts."""
    who = f"{mine.pipeline}.{mine.model}"
    answered = transaction.raise_fence(mine)
    if len(answered) != 1:
        fence = transaction.fences(mine.pipeline).get(mine.model)
        raise Fenced(f"{who} was not published: {_refusal(fence, mine)}")
    if not transaction.same_table(answered[0], mine.table):
        raise WarehouseError(
            f"{who} is to be published into {mine.table}, but its fence row names {answered[0]}",
            hint="set the model's `table:` back",
        )


def _refusal(fence: Fence | None, mine: Fence) -> str:
    if fence is None:
        return "the warehouse has no fence row for it"
    if fence.state_id != mine.state_id:
        return f"the warehouse belongs to another state ({fence.state_id})"
    if fence.token > mine.token:
        return f"a later owner (token {fence.token}) came before this one ({mine.token})"
    return "the warehouse has more than one fence row for it"


def void(transaction: Transaction, mine: Fence) -> None:
    """The port's `void`, inside a transaction that the caller has begun and will commit."""
    raise_fence(transaction, mine)
    transaction.forget_receipts(mine.pipeline, mine.model)


def standing_receipt(transaction: Transaction, publication: Publication, load: Load) -> Receipt | None:
    """The receipt that says this work is done, or None when it has to be done."""
    model = load.intent.model
    receipt = transaction.receipt(publication.pipeline, model, publication.batch)
    if receipt is None:
        return None
    if receipt.answers(load.intent):
        return receipt
    if receipt.generation >= load.intent.generation:
        raise PlanAgain(
            f"{publication.pipeline}.{model} {publication.batch}: generation {receipt.generation} is in the warehouse "
            f"already, by run {receipt.run_id}; {load.intent.generation} was planned",
            hint="run again; it plans anew",
        )
    return None


def planned(engine: Engine, publication: Publication, load: Load) -> Plan:
    """What the load writes. Files that do not fit their contract, and rows outside of their window, are refused."""
    absent = check_files(engine, load)
    query = sql.stage(load, publication.batch, publication.run_id, absent)
    staged, nulls, duplicates = figures(engine, sql.key_facts(query, load.key))
    removed = 0
    if load.removed and load.mode is LoadMode.MERGE:
        removed, nameless, _ = figures(engine, sql.key_facts(sql.removed(load), load.key))
        nulls += nameless
    columns = (*(column.name for column in load.columns), *load.lineage)
    rows = Rows(query, columns, load.key)
    plan = Plan(load, publication.batch, rows, staged + removed, nulls, duplicates, removed=removed)
    if load.rejects is not None:
        plan = also(plan, rejects=_of_rejects(engine, publication, load, load.rejects))
    match load.mode:
        case LoadMode.WINDOW:
            _refuse_strangers(engine, plan)
        case LoadMode.MERGE if plan.mergeable:
            return _to_merge(engine, plan)
        case LoadMode.REPLACE if load.deletes or load.newer.files:
            return _to_replace(engine, plan)
    return plan


def _of_rejects(engine: Engine, publication: Publication, load: Load, said: Rejects) -> Plan:
    query = sql.rejects(said, publication.batch, publication.run_id)
    columns = (*(column.name for column in said.columns), *said.lineage)
    beside = also(
        load,
        intent=also(load.intent, mode=LoadMode.APPEND),
        table=said.table,
        columns=said.columns,
        lineage=said.lineage,
        files=(),
        rejects=None,
    )
    (staged,) = figures(engine, sql.count(query))
    return Plan(beside, publication.batch, Rows(query, columns), staged)


def publish_model(transaction: Transaction, publication: Publication, plans: Sequence[Plan], at: datetime) -> Receipt:
    """Write one model's rows, have them judged, and write the receipt."""
    counts = [publish_load(transaction, publication, plan) for plan in plans]
    load = plans[0].load
    if load.part and load.intent.mode is LoadMode.REPLACE:
        transaction.forget_receipts(publication.pipeline, load.intent.model)
    receipt = Receipt(
        publication.pipeline,
        load.intent.model,
        publication.batch,
        load.intent.generation,
        load.intent.digest,
        load.intent.settings,
        load.intent.mode,
        publication.run_id,
        publication.token,
        # Of many tables some may be untouched: how many rows all hold is not known.
        also(Counts.total(counts), target=None) if load.part else counts[0],
        at,
    )
    transaction.write_receipt(receipt)
    return receipt


def publish_load(transaction: Transaction, publication: Publication, plan: Plan) -> Counts:
    """Write the rows of one table, and have them judged."""
    load = plan.load
    before = transaction.hold(load.table)
    if load.remade:
        transaction.remake(load.table, load.remade, [one for one in load.columns if one.name in load.remade])
    written = WRITERS[load.mode](transaction, plan, before) if plan.mergeable else Written(expected=before, loaded=0)
    if plan.rejects is not None:
        _write_rejects(transaction, plan.rejects)
    steps.reached("load.rows_written")
    after = transaction.count(load.table)
    counts = Counts(
        staged=plan.staged,
        loaded=written.loaded,
        deleted=written.deleted,
        superseded=plan.superseded,
        left_behind=plan.left_behind,
        deletes=plan.deletes,
        target=after,
    )
    facts = {
        "key_nulls": plan.key_nulls,
        "key_duplicates": plan.key_duplicates,
        "expected_target": written.expected,
    }
    publication.judge(load.name, counts, facts)
    if not plan.mergeable:
        raise WarehouseError(
            f"{load.table}: {plan.key_duplicates} rows have a key that came before; they cannot be merged"
        )
    return counts


def _write_rejects(transaction: Transaction, plan: Plan) -> None:
    """What was rejected of a batch, in place of what was said of it before."""
    transaction.delete_batch(plan.load.table, plan.batch)
    written = transaction.insert(plan.load.table, plan.rows)
    if written != plan.staged:
        raise WarehouseError(f"{plan.load.table}: of {plan.staged} rows {written} were written; nothing was published")


def check_files(engine: Engine, load: Load) -> frozenset[str]:
    """Refuse files whose columns are not exactly the contract's: a conversion could round or cut.

    Gives the evolved columns that none of the files has.
    """
    if not load.files:
        return frozenset()
    paths = [file.path for file in load.files]
    found = engine.execute(
        "SELECT name, list(DISTINCT duckdb_type), count(*) "
        f"FROM parquet_schema({sql.file_list(paths)}) WHERE duckdb_type IS NOT NULL GROUP BY name"
    ).fetchall()
    # The engine takes names without regard to case, and files of one added column may differ in it.
    kinds: dict[str, tuple[list[str], int]] = {}
    for column, types, files in found:
        others, count = kinds.get(column.casefold(), ([], 0))
        kinds[column.casefold()] = (sorted({*others, *types}), count + files)
    wanted = sql.column_types(load.columns, ()) | {"_record_no": "BIGINT"}
    if load.flags:
        del wanted[FLAG]
    if load.marks is not None:
        del wanted[MARK]
    for column, target_kind in wanted.items():
        kind = sql.IN_FILES.get(target_kind, target_kind)
        types, files = kinds.get(column.casefold(), ([], 0))
        if column in load.evolved and types in ([], [kind]):
            continue
        if types != [kind] or files != len(paths):
            shown = ", ".join(sorted(types)) or "missing"
            lacking = f" and missing in {len(paths) - files} of {len(paths)} files" if 0 < files < len(paths) else ""
            raise WarehouseError(
                f"{load.table}.{column} is {kind} by the contract, but {shown} in the valid files{lacking}",
                hint="validate again: ingestkit validate --force",
            )
    return frozenset(name for name in load.evolved if name.casefold() not in kinds)


def replace(transaction: Transaction, plan: Plan, before: int) -> Written:
    """Put the rows in place of all that is there."""
    if plan.kept is None:
        loaded = transaction.replace(plan.load.table, plan.rows)
        return Written(expected=plan.writes, loaded=loaded, deleted=before)
    deleted = transaction.delete_others(plan.load.table, Rows(plan.kept, plan.rows.key, plan.rows.key))
    loaded = transaction.insert(plan.load.table, plan.rows)
    return Written(expected=before - deleted + plan.writes, loaded=loaded, deleted=deleted)


def append(transaction: Transaction, plan: Plan, before: int) -> Written:
    """Write the batch's rows in place of those it wrote before."""
    deleted = transaction.delete_batch(plan.load.table, plan.batch)
    loaded = transaction.insert(plan.load.table, plan.rows)
    return Written(expected=before - deleted + plan.staged, loaded=loaded, deleted=deleted)


def window(transaction: Transaction, plan: Plan, before: int) -> Written:
    """Write the rows of a window in place of all that lie in it, whichever batch wrote them."""
    deleted = transaction.delete_window(plan.load.table, _bounds(plan.load))
    loaded = transaction.insert(plan.load.table, plan.rows)
    return Written(expected=before - deleted + plan.staged, loaded=loaded, deleted=deleted)


def merge(transaction: Transaction, plan: Plan, before: int) -> Written:
    """Write the rows by key."""
    gone = plan.gone
    if gone is not None and plan.load.marks is not None:
        transaction.mark(plan.load.table, gone, plan.load.key)
        gone = None
    merged = transaction.merge(plan.load.table, plan.rows, gone)
    return Written(expected=before + merged.added - merged.deleted, loaded=merged.loaded, deleted=merged.deleted)


def _bounds(load: Load) -> Bounds:
    if load.bounds is None:
        raise WarehouseError(f"{load.table}: nothing says which window its rows are of")
    return load.bounds


def _refuse_strangers(engine: Engine, plan: Plan) -> None:
    outside = f"SELECT * FROM ({plan.rows.query}) WHERE NOT {sql.within(_bounds(plan.load))}"
    (strangers,) = figures(engine, sql.count(outside))
    if strangers:
        raise WarehouseError(
            f"{plan.load.table}: {strangers} rows lie outside of their window, and would stay when it is replaced",
            hint="validate again: ingestkit validate --force",
        )


def _to_replace(engine: Engine, plan: Plan) -> Plan:
    """All there is, but for keys of which newer changes have spoken, and for rows that say their key is gone."""
    load, rows = plan.load, plan.rows.query
    kept = sql.keys_of(load.newer, load.key) if load.newer.files else None
    superseded = deletes = None
    if kept is not None:
        rows = sql.without(rows, kept, load.key)
        (published,) = figures(engine, sql.count(rows))
        superseded = plan.staged - published
    if load.deletes:
        gone = sql.says_gone(load.deletes)
        (deletes,) = figures(engine, sql.count(f"SELECT * FROM ({rows}) WHERE {gone}"))
        rows = f"SELECT * FROM ({rows}) WHERE NOT {gone}"
    left = Rows(rows, plan.rows.columns, load.key)
    return also(plan, rows=left, kept=kept, deletes=deletes, superseded=superseded)


def _to_merge(engine: Engine, plan: Plan) -> Plan:
    """Rows by key, but for keys of which a newer batch has spoken."""
    load, key = plan.load, plan.load.key
    newer = sql.keys_of(load.newer, key) if load.newer.files else None
    rows = sql.without(plan.rows.query, newer, key) if newer else plan.rows.query
    (published,) = figures(engine, sql.count(rows)) if newer else (plan.staged - plan.removed,)
    gone, deletes = None, None
    if load.deletes:
        gone = f"SELECT * FROM ({rows}) WHERE {sql.says_gone(load.deletes)}"
        rows = f"SELECT * FROM ({rows}) WHERE NOT {sql.says_gone(load.deletes)}"
        (deletes,) = figures(engine, sql.count(gone))
    if load.removed:
        keys = sql.removed(load)
        gone = keys if gone is None else f"SELECT {sql.names(key)} FROM ({gone}) UNION ALL {keys}"
        deletes = plan.removed + (deletes or 0)
    left_behind = None if load.previous is None else 0
    if load.previous is not None and load.previous.files:
        left = sql.without(sql.keys_of(load.previous, key), plan.rows.query, key)
        (left_behind,) = figures(engine, sql.count(sql.without(left, newer, key) if newer else left))
    return also(
        plan,
        rows=Rows(rows, plan.rows.columns, key),
        gone=gone,
        deletes=deletes,
        superseded=plan.staged - plan.removed - published,
        left_behind=left_behind,
    )


WRITERS = {LoadMode.REPLACE: replace, LoadMode.APPEND: append, LoadMode.MERGE: merge, LoadMode.WINDOW: window}


def unlike(table: str, column: str, has: str, wanted: str, why: str, target: str) -> WarehouseError:
    """Of a column of another type than what is to be written, which it cannot become. `target` is the table quoted."""
    yourself = f"or change the column yourself: ALTER TABLE {target} ..."
    if table.casefold().endswith(OF_REJECTS):
        what, hint = f"{wanted} in a table of rejects", f"rename it, and the next load makes another, {yourself}"
    else:
        what, hint = f"{wanted} by the contract", f"set the contract's type back, {yourself}"
    return WarehouseError(f"{table}.{column} is {has} in the warehouse and {what}: {why}", hint=hint)


def figures(engine: Engine, statement: str) -> tuple[int, ...]:
    """The figures a statement of DuckDB's answers with; those that write answer with how many rows they wrote."""
    answer = engine.execute(statement).fetchone()
    if answer is None:
        raise WarehouseError(f"DuckDB gave no answer to {statement.split(maxsplit=1)[0]}")
    return tuple(int(figure) for figure in answer)


@contextmanager
def opened_engine(memory_limit: str, threads: int, scratch: Path) -> Iterator[Engine]:
    """The DuckDB that reads valid files, and writes what goes into a warehouse that is none itself."""
    scratch.mkdir(parents=True, exist_ok=True)
    engine = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": memory_limit,
            "threads": threads,
            "temp_directory": str(scratch / "duckdb-publish"),
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        },
    )
    try:
        engine.execute("SET TimeZone = 'UTC'")
        yield engine
    finally:
        engine.close()
