"""Publishing into DuckDB: what happens between BEGIN and COMMIT, in the order that neither loses nor doubles a row."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import duckdb

from ingestkit import steps
from ingestkit.errors import Fenced, PlanAgain, WarehouseError
from ingestkit.model import Counts, Fence, LoadMode, Receipt
from ingestkit.ports import Load, Publication
from ingestkit.warehouses import duckdb_sql as sql
from ingestkit.warehouses import duckdb_tables

Connection = duckdb.DuckDBPyConnection


@dataclass(frozen=True, slots=True)
class Target:
    """Where a load goes, what is to be published there, and what was there before."""

    schema: str
    load: Load
    rows: str
    columns: tuple[str, ...]
    batch: str
    staged: int
    before: int

    @property
    def table(self) -> str:
        return sql.name(self.schema, self.load.table)


@dataclass(frozen=True, slots=True)
class Written:
    """What a mode's statements did, and how many rows the target must hold now."""

    expected: int
    loaded: int
    deleted: int = 0
    superseded: int | None = None
    left_behind: int | None = None
    deletes: int | None = None


def publish(connection: Connection, schema: str, publication: Publication, at: datetime) -> Mapping[str, Receipt]:
    """The port's `publish`, inside a transaction that the caller has begun and will commit."""
    loads = sorted(publication.loads, key=lambda load: load.intent.model)
    for load in loads:
        model, table = load.intent.model, load.table
        raise_fence(
            connection,
            schema,
            Fence(publication.pipeline, model, publication.state_id, publication.token, table),
        )
    steps.reached("load.fenced")
    standing = {load.intent.model: standing_receipt(connection, schema, publication, load) for load in loads}
    stand: dict[str, Receipt] = {}
    for load in loads:
        model = load.intent.model
        stand[model] = standing[model] or publish_load(connection, schema, publication, load, at)
    steps.reached("load.before_commit")
    return stand


def raise_fence(connection: Connection, schema: str, mine: Fence) -> None:
    """Take the model's fence row, so that an earlier owner updates none and a simultaneous one conflicts."""
    who = f"{mine.pipeline}.{mine.model}"
    answered = connection.execute(
        f"UPDATE {sql.name(schema, sql.FENCES)} SET token = $token WHERE pipeline = $pipeline AND model = $model "
        'AND state_id = $state_id AND token <= $token RETURNING "table"',
        {"token": mine.token, "pipeline": mine.pipeline, "model": mine.model, "state_id": mine.state_id},
    ).fetchall()
    if len(answered) != 1:
        raise Fenced(f"{who} was not published: {_refusal(connection, schema, mine)}")
    if answered[0][0].lower() != mine.table.lower():
        raise WarehouseError(
            f"{who} is to be published into {mine.table}, but its fence row names {answered[0][0]}",
            hint="set the model's `table:` back",
        )


def _refusal(connection: Connection, schema: str, mine: Fence) -> str:
    fence = duckdb_tables.fences(connection, schema, mine.pipeline).get(mine.model)
    if fence is None:
        return "the warehouse has no fence row for it"
    if fence.state_id != mine.state_id:
        return f"the warehouse belongs to another state ({fence.state_id})"
    if fence.token > mine.token:
        return f"a later owner (token {fence.token}) came before this one ({mine.token})"
    return "the warehouse has more than one fence row for it"


def void(connection: Connection, schema: str, mine: Fence) -> None:
    """The port's `void`, inside a transaction that the caller has begun and will commit."""
    raise_fence(connection, schema, mine)
    connection.execute(
        f"DELETE FROM {sql.name(schema, sql.RECEIPTS)} WHERE pipeline = ? AND model = ?", [mine.pipeline, mine.model]
    )


def standing_receipt(connection: Connection, schema: str, publication: Publication, load: Load) -> Receipt | None:
    """The receipt that says this work is done, or None when it has to be done."""
    model = load.intent.model
    receipt = duckdb_tables.receipt(connection, schema, publication.pipeline, model, publication.batch)
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


def publish_load(connection: Connection, schema: str, publication: Publication, load: Load, at: datetime) -> Receipt:
    """Write one model's rows, have them judged, and write the receipt."""
    absent = check_files(connection, load)
    rows = sql.stage(load, publication.batch, publication.run_id, absent)
    staged, nulls, duplicates = _figures(connection, sql.key_facts(rows, load.key))
    table = sql.name(schema, load.table)
    columns = (*(column.name for column in load.columns), *load.lineage)
    (before,) = _figures(connection, f"SELECT count(*) FROM {table}")
    target = Target(schema, load, rows, columns, publication.batch, staged, before)
    if load.intent.mode is LoadMode.MERGE and duplicates:
        # DuckDB refuses to merge them, in words that would hide the rule they break.
        written = Written(expected=before, loaded=0)
    else:
        written = WRITERS[load.intent.mode](connection, target)
    steps.reached("load.rows_written")
    (after,) = _figures(connection, f"SELECT count(*) FROM {table}")
    counts = Counts(
        staged=staged,
        loaded=written.loaded,
        deleted=written.deleted,
        superseded=written.superseded,
        left_behind=written.left_behind,
        deletes=written.deletes,
        target=after,
    )
    facts = {"key_nulls": nulls, "key_duplicates": duplicates, "expected_target": written.expected}
    publication.judge(load.intent.model, counts, facts)
    if load.intent.mode is LoadMode.MERGE and duplicates:
        raise WarehouseError(f"{load.table}: {duplicates} rows have a key that came before; they cannot be merged")
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
        counts,
        at,
    )
    duckdb_tables.write_receipt(connection, schema, receipt)
    return receipt


def check_files(connection: Connection, load: Load) -> frozenset[str]:
    """Refuse files whose columns are not exactly the contract's: a conversion could round or cut.

    Gives the evolved columns that none of the files has.
    """
    if not load.files:
        return frozenset()
    paths = [file.path for file in load.files]
    found = connection.execute(
        "SELECT name, list(DISTINCT duckdb_type), count(*) "
        f"FROM parquet_schema({sql.file_list(paths)}) WHERE duckdb_type IS NOT NULL GROUP BY name"
    ).fetchall()
    # The engine takes names without regard to case, and files of one added column may differ in it.
    kinds: dict[str, tuple[list[str], int]] = {}
    for column, types, files in found:
        others, count = kinds.get(column.casefold(), ([], 0))
        kinds[column.casefold()] = (sorted({*others, *types}), count + files)
    wanted = sql.column_types(load.columns, ()) | {"_record_no": "BIGINT"}
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


def replace(connection: Connection, target: Target) -> Written:
    """Put the rows in place of all that is there: beside and renamed, or emptied first if dropping would lose more."""
    if duckdb_tables.stands_alone(connection, target.schema, target.load.table):
        beside = sql.name(target.schema, f"{target.load.table}__ingestkit_new")
        connection.execute(f"CREATE TABLE {beside} AS SELECT * FROM {target.table} WITH NO DATA")
        (loaded,) = _figures(connection, sql.insert(beside, target.columns, target.rows))
        connection.execute(f"DROP TABLE {target.table}")
        connection.execute(f"ALTER TABLE {beside} RENAME TO {sql.name(target.load.table)}")
    else:
        connection.execute(f"TRUNCATE {target.table}")
        (loaded,) = _figures(connection, sql.insert(target.table, target.columns, target.rows))
    return Written(expected=target.staged, loaded=loaded, deleted=target.before)


def append(connection: Connection, target: Target) -> Written:
    """Write the batch's rows in place of those it wrote before."""
    (deleted,) = _figures(connection, f'DELETE FROM {target.table} WHERE "_batch" = {sql.text(target.batch)}')
    (loaded,) = _figures(connection, sql.insert(target.table, target.columns, target.rows))
    return Written(expected=target.before - deleted + target.staged, loaded=loaded, deleted=deleted)


def window(connection: Connection, target: Target) -> Written:
    """Write the rows of a window in place of all that lie in it, whichever batch wrote them."""
    bounds = target.load.bounds
    if bounds is None:
        raise WarehouseError(f"{target.load.table}: nothing says which window its rows are of")
    (outside,) = _figures(connection, sql.count(f"SELECT * FROM ({target.rows}) WHERE NOT {sql.within(bounds)}"))
    if outside:
        raise WarehouseError(
            f"{target.load.table}: {outside} rows lie outside of their window, and would stay when it is replaced",
            hint="validate again: ingestkit validate --force",
        )
    (deleted,) = _figures(connection, f"DELETE FROM {target.table} WHERE {sql.within(bounds)}")
    (loaded,) = _figures(connection, sql.insert(target.table, target.columns, target.rows))
    return Written(expected=target.before - deleted + target.staged, loaded=loaded, deleted=deleted)


def merge(connection: Connection, target: Target) -> Written:
    """Write the rows by key, but for keys of which a newer batch has spoken."""
    load = target.load
    newer = sql.keys_of(load.newer, load.key) if load.newer.files else None
    rows = sql.without(target.rows, newer, load.key) if newer else target.rows
    (published,) = _figures(connection, sql.count(rows)) if newer else (target.staged,)
    deleted, deletes = 0, None
    if load.deletes:
        gone = f"SELECT * FROM ({rows}) WHERE {sql.says_gone(load.deletes)}"
        rows = f"SELECT * FROM ({rows}) WHERE NOT {sql.says_gone(load.deletes)}"
        (deletes,) = _figures(connection, sql.count(gone))
        (deleted,) = _figures(connection, sql.delete(target.table, gone, load.key))
    here = f"SELECT {sql.names(load.key)} FROM {target.table}"
    (added,) = _figures(connection, sql.count(sql.without(rows, here, load.key)))
    (loaded,) = _figures(connection, sql.merge(target.table, target.columns, load.key, rows))
    left_behind = None if load.previous is None else 0
    if load.previous is not None and load.previous.files:
        left = sql.without(sql.keys_of(load.previous, load.key), target.rows, load.key)
        (left_behind,) = _figures(connection, sql.count(sql.without(left, newer, load.key) if newer else left))
    return Written(
        expected=target.before + added - deleted,
        loaded=loaded,
        deleted=deleted,
        deletes=deletes,
        superseded=target.staged - published,
        left_behind=left_behind,
    )


WRITERS = {LoadMode.REPLACE: replace, LoadMode.APPEND: append, LoadMode.MERGE: merge, LoadMode.WINDOW: window}


def _figures(connection: Connection, statement: str) -> tuple[int, ...]:
    """The figures a statement answers with; those that write answer with how many rows they wrote."""
    answer = connection.execute(statement).fetchone()
    if answer is None:
        raise WarehouseError(f"DuckDB gave no answer to {statement.split(maxsplit=1)[0]}")
    return tuple(int(figure) for figure in answer)
