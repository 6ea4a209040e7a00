"""The tables of a Snowflake warehouse: fences and receipts, of each pipeline its own, and targets that grow.

Whoever changes a row there holds the whole table until the transaction ends: pipelines would wait for each other.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from snowflake.connector import SnowflakeConnection

from ingestkit.errors import WarehouseError
from ingestkit.model import Counts, Fence, LoadMode, Receipt
from ingestkit.warehouses import snowflake_sql as sql
from ingestkit.warehouses.publishing import unlike
from ingestkit.warehouses.snowflake_detached import Work, alone, works_of
from ingestkit.warehouses.snowflake_rights import OF_FENCES, OF_RECEIPTS, Owned, needed_for, owned_by_another, role_of
from ingestkit.warehouses.snowflake_session import Account, changed, execute

FENCE = "ingestkit_fence_"
RECEIPT = "ingestkit_receipt_"
OWN = "ingestkit_"
MOST = 10_000
"""So many tables SHOW tells of; of others it says nothing, nor that there are any."""
SWITCHED_ON = ("ON", "Y", "YES", "TRUE")

FENCE_COLUMNS = {
    "model": "VARCHAR",
    "state_id": "VARCHAR",
    "token": "NUMBER(19,0)",
    "table": "VARCHAR",
}
RECEIPT_COLUMNS = {
    "model": "VARCHAR",
    "batch": "VARCHAR",
    "generation": "NUMBER(19,0)",
    "digest": "VARCHAR",
    "settings": "VARCHAR",
    "mode": "VARCHAR",
    "run_id": "VARCHAR",
    "token": "NUMBER(19,0)",
    "counts": "VARCHAR",
    "at": "TIMESTAMP_TZ",
}
SEEN_BY_STREAMS = {
    LoadMode.REPLACE: "which loads replace: it shows every row deleted and inserted again",
    LoadMode.MERGE: "which each load merges into: it shows every row of a batch changed, whether it differs or not",
    LoadMode.WINDOW: "of which each load replaces a window: it shows every row of that deleted and inserted again",
    LoadMode.APPEND: "which is added to: of a batch that is done again it shows every row deleted and inserted again",
}


def fence_table(account: Account, pipeline: str) -> str:
    return account.named(FENCE + pipeline)


def receipt_table(account: Account, pipeline: str) -> str:
    return account.named(RECEIPT + pipeline)


def owners(account: Account, connection: SnowflakeConnection, like: str = "%") -> dict[str, str]:
    """The names of the schema's tables, as they are spelled there, and the role that each belongs to."""
    pattern = sql.text(account.names.spelled(like))
    found = execute(connection, f"SHOW TABLES LIKE {pattern} IN SCHEMA {account.named()}")
    return {row["name"]: row["owner"] for row in found}


def has(account: Account, connection: SnowflakeConnection, table: str) -> bool:
    """LIKE takes names without regard to case, and an underscore for any sign."""
    return account.names.spelled(table) in owners(account, connection, table)


def remarks(
    account: Account,
    connection: SnowflakeConnection,
    role: str,
    pipeline: str,
    tables: Mapping[str, Collection[LoadMode]],
) -> tuple[str, ...]:
    """What is set on the tables that changes what publishing into them means."""
    own = {FENCE + pipeline: OF_FENCES, RECEIPT + pipeline: OF_RECEIPTS}
    needed = {account.names.spelled(table): (table, rights) for table, rights in own.items()}
    by_name = {account.names.spelled(table): (table, modes) for table, modes in tables.items()}
    rows = execute(connection, f"SHOW TABLES IN SCHEMA {account.named()}")
    if len(rows) >= MOST:
        each = (f"SHOW TABLES LIKE {sql.text(name)} IN SCHEMA {account.named()}" for name in (*by_name, *needed))
        rows = [row for statement in each for row in execute(connection, statement)]
    # Older accounts do not tell; their sessions opt out like all.
    logging = [row["name"] for row in rows if str(row.get("error_logging")).upper() in SWITCHED_ON]
    found = [
        f"table {by_name[name][0]} logs errors: loads opt out of it and fail where a row does not fit, but what others "
        "write there leaves such rows out without a word"
        for name in logging
        if name in by_name
    ]
    for row in rows:
        if (known := needed.get(row["name"])) is not None:
            owned_by_another(account, connection, role, Owned("TABLE", known[0], row["owner"]), known[1])
        if row["name"] in by_name:
            table, modes = by_name[row["name"]]
            owned = Owned("TABLE", table, row["owner"])
            cure = owned_by_another(account, connection, role, owned, needed_for(modes))
            so = f"table {table} belongs to role {row['owner']}: no column can be added or widened until that says "
            found.extend([so + cure] if cure else [])
    for row in _streams(account, connection):
        on = str(row["table_name"]).replace('"', "")
        here = f"{account.names.spelled(account.database)}.{account.names.spelled(account.schema)}."
        table, modes = by_name.get(on.removeprefix(here), ("", ())) if on.startswith(here) else ("", ())
        # The first of them shows the most.
        if seen := [told for mode, told in SEEN_BY_STREAMS.items() if mode in modes]:
            found.append(f"stream {row['name']} is on table {table}, {seen[0]}")
    return tuple(found)


def _streams(account: Account, connection: SnowflakeConnection) -> list[dict[str, Any]]:
    """Those that the role may see, in any schema; of an account with more than SHOW tells of, the nearer ones."""
    rows: list[dict[str, Any]] = []
    for place in ("ACCOUNT", f"DATABASE {account.names.one(account.database)}", f"SCHEMA {account.named()}"):
        rows = execute(connection, f"SHOW STREAMS IN {place}")
        if len(rows) < MOST:
            break
    return rows


def missing(account: Account, connection: SnowflakeConnection, wanted: Iterable[str]) -> frozenset[str]:
    """Those that do not exist."""
    found = owners(account, connection)
    if len(found) >= MOST:
        return frozenset(table for table in wanted if not has(account, connection, table))
    return frozenset(table for table in wanted if account.names.spelled(table) not in found)


def make(account: Account, connection: SnowflakeConnection, pipeline: str, works: Sequence[Work]) -> None:
    """Nothing where both are there: even then CREATE TABLE wants its right."""
    own = {FENCE + pipeline: FENCE_COLUMNS, RECEIPT + pipeline: RECEIPT_COLUMNS}
    lacking = missing(account, connection, own)
    for table in (one for one in own if one in lacking):
        named = {account.names.one(column): kind for column, kind in own[table].items()}
        alone(connection, works, sql.created(f"TABLE IF NOT EXISTS {account.named(table)}", named))


def fences(account: Account, connection: SnowflakeConnection, pipeline: str) -> dict[str, Fence]:
    rows = execute(
        connection, f"SELECT {account.names.several(FENCE_COLUMNS)} FROM {fence_table(account, pipeline)} ORDER BY 1"
    )
    found = (dict(zip(FENCE_COLUMNS, row.values(), strict=True)) for row in rows)
    return {row["model"]: Fence(pipeline, **row) for row in found}


def owner(account: Account, connection: SnowflakeConnection, table: str) -> tuple[str, str] | None:
    """Whose fence row names the table, of all pipelines there."""
    prefix = account.names.spelled(FENCE)
    known = sorted(name for name in owners(account, connection, f"{FENCE}%") if name.startswith(prefix))
    if not known:
        return None
    model, said = account.names.one("model"), account.names.one("table")
    each = (
        f"SELECT {sql.text(name.removeprefix(prefix))} AS pipeline, {model} AS model, {said} AS target "
        f"FROM {account.named()}.{sql.quoted(name)}"
        for name in known
    )
    # Compared here, and not by the UPPER of the service: the name of the table was not made by that.
    wanted = account.names.spelled(table)
    for pipeline, of_model, target in (row.values() for row in execute(connection, " UNION ALL ".join(each))):
        if account.names.spelled(target) == wanted:
            return (pipeline if account.names.exact else pipeline.lower(), of_model)
    return None


def write_fences(account: Account, connection: SnowflakeConnection, rows: Sequence[Fence], *, adopt: bool) -> None:
    for pipeline in sorted({row.pipeline for row in rows}):
        theirs = [row for row in rows if row.pipeline == pipeline]
        works = works_of(account, theirs)
        make(account, connection, pipeline, works)
        for row in theirs:
            _refuse_taken(account, connection, row)
        columns = account.names.several(FENCE_COLUMNS)
        shown = ", ".join(f"? AS {account.names.one(column)}" for column in FENCE_COLUMNS)
        said = " UNION ALL ".join([f"SELECT {shown}"] * len(theirs))
        values = [value for row in theirs for value in (row.model, row.state_id, row.token, row.table)]
        model = account.names.one("model")
        others = [account.names.one(column) for column in FENCE_COLUMNS if column != "model"]
        over = f"WHEN MATCHED THEN UPDATE SET {', '.join(f'{one} = said.{one}' for one in others)} " if adopt else ""
        added = ", ".join(f"said.{account.names.one(column)}" for column in FENCE_COLUMNS)
        alone(
            connection,
            works,
            f"MERGE INTO {fence_table(account, pipeline)} AS fence USING ({said}) AS said "
            f"ON fence.{model} = said.{model} {over}WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({added})",
            *values,
        )


def refuse_own(table: str) -> None:
    """No model publishes into what is named as fences and receipts are."""
    if table.casefold().startswith(OWN):
        raise WarehouseError(
            f"no model can publish into {table}: names that begin with {OWN} are ingestkit's own",
            hint="give the model another `table:`",
        )


def _refuse_taken(account: Account, connection: SnowflakeConnection, row: Fence) -> None:
    refuse_own(row.table)
    found = owner(account, connection, row.table)
    if found not in (None, (row.pipeline, row.model)):
        raise WarehouseError(
            f"table {row.table} belongs to {'.'.join(found or ())}; {row.pipeline}.{row.model} cannot have it too",
            hint=f"give model {row.model} another `table:`",
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """What a transaction sees of a pipeline, and which transaction that is; "" where there is none."""

    transaction: str
    fences: tuple[Fence, ...]
    receipts: tuple[Receipt, ...]
    targets: Mapping[str, int]
    """How many rows the tables of models hold."""


def standing(
    account: Account, connection: SnowflakeConnection, pipeline: str, batch: str, targets: Mapping[str, str]
) -> Standing:
    """Fences, the receipts of a batch, and the rows of the tables that models have, by one statement."""
    names = account.names
    shown = [f"fence.{names.one(column)} AS fence_{column}" for column in FENCE_COLUMNS]
    shown += [f"receipt.{names.one(column)} AS receipt_{column}" for column in RECEIPT_COLUMNS]
    model, of_batch = names.one("model"), names.one("batch")
    counted = " UNION ALL ".join(
        f"SELECT {sql.text(one)} AS target_model, count(*) AS target_rows FROM {account.named(table)}"
        for one, table in targets.items()
    )
    if counted:
        shown.append("target.target_rows")
        counted = f"LEFT JOIN ({counted}) AS target ON target.target_model = fence.{model} "
    rows = execute(
        connection,
        f"SELECT CURRENT_TRANSACTION() AS transaction_id, {', '.join(shown)} "
        f"FROM {fence_table(account, pipeline)} AS fence LEFT JOIN {receipt_table(account, pipeline)} AS receipt "
        f"ON receipt.{model} = fence.{model} AND receipt.{of_batch} = ? {counted}ORDER BY 2",
        batch,
    )
    cells = [list(row.values()) for row in rows]
    end = 1 + len(FENCE_COLUMNS)
    last = end + len(RECEIPT_COLUMNS)
    fences = (Fence(pipeline, **dict(zip(FENCE_COLUMNS, row[1:end], strict=True))) for row in cells)
    found = tuple(_receipt(pipeline, row[end:last]) for row in cells if row[end] is not None)
    number = next((str(row[0]) for row in cells if row[0] is not None), "")
    held = {row[1]: int(row[last]) for row in cells if row[1] in targets}
    return Standing(number, tuple(fences), found, held)


def receipts(account: Account, connection: SnowflakeConnection, pipeline: str) -> tuple[Receipt, ...]:
    columns = account.names.several(RECEIPT_COLUMNS)
    rows = execute(connection, f"SELECT {columns} FROM {receipt_table(account, pipeline)} ORDER BY 1, 2")
    return tuple(_receipt(pipeline, row.values()) for row in rows)


def _receipt(pipeline: str, row: Iterable[Any]) -> Receipt:
    values = dict(zip(RECEIPT_COLUMNS, row, strict=True))
    read = {"mode": LoadMode(values["mode"]), "counts": Counts.from_json(json.loads(values["counts"]))}
    return Receipt(pipeline, **{**values, **read})


def write_receipts(account: Account, connection: SnowflakeConnection, rows: Sequence[Receipt], transaction: str) -> int:
    """Put each in the place of the one its (model, batch) has, by one statement, where this is that transaction.

    How many were written: all or none.
    """
    names = account.names
    shown = ", ".join(f"CAST(? AS {kind}) AS {names.one(column)}" for column, kind in RECEIPT_COLUMNS.items())
    said = " UNION ALL ".join([f"SELECT {shown}"] * len(rows))
    same = " AND ".join(f"receipt.{one} = said.{one}" for one in map(names.one, ("model", "batch")))
    others = [names.one(column) for column in RECEIPT_COLUMNS if column not in ("model", "batch")]
    added = ", ".join(f"said.{names.one(column)}" for column in RECEIPT_COLUMNS)
    return changed(
        connection,
        f"MERGE INTO {receipt_table(account, rows[0].pipeline)} AS receipt "
        f"USING (SELECT * FROM ({said}) WHERE CURRENT_TRANSACTION() = ?) AS said ON {same} "
        f"WHEN MATCHED THEN UPDATE SET {', '.join(f'{one} = said.{one}' for one in others)} "
        f"WHEN NOT MATCHED THEN INSERT ({names.several(RECEIPT_COLUMNS)}) VALUES ({added})",
        *(value for row in rows for value in _values(row)),
        transaction,
    )


def _values(row: Receipt) -> list[Any]:
    known = {one.name: getattr(row, one.name) for one in fields(row)}
    known |= {"mode": row.mode.value, "counts": json.dumps(row.counts.to_json()), "at": row.at.isoformat()}
    return [known[column] for column in RECEIPT_COLUMNS]


def changes(
    account: Account, connection: SnowflakeConnection, table: str, wanted: Mapping[str, str]
) -> tuple[str, ...]:
    """The statements by which the table becomes what the contract wants."""
    for name in (table, *wanted):
        if len(account.names.spelled(name)) > sql.LONGEST_NAME:
            raise WarehouseError(
                f"{table}: {name!r} is longer than the {sql.LONGEST_NAME} characters of a name in Snowflake",
                hint="give it a shorter name, or leave it out",
            )
    refuse_own(table)
    target, owner = account.named(table), owners(account, connection, table).get(account.names.spelled(table))
    if owner is None:
        shown = {account.names.one(column): kind for column, kind in wanted.items()}
        return (sql.created(f"TABLE {target}", shown),)
    found = {row["name"]: row["type"] for row in execute(connection, f"DESCRIBE TABLE {target}")}
    statements, added = [], []
    for column, kind in wanted.items():
        has_kind, named = found.get(account.names.spelled(column)), account.names.one(column)
        if has_kind is None:
            added.append(f"{named} {kind}")
        elif sql.serves(has_kind, kind):
            continue
        elif sql.widens(has_kind, kind):
            statements.append(f"ALTER TABLE {target} ALTER COLUMN {named} SET DATA TYPE {kind}")
        else:
            raise unlike(table, column, has_kind, kind, sql.unmade(has_kind, kind), target)
    if added:
        # One statement adds them all.
        statements.insert(0, f"ALTER TABLE {target} ADD COLUMN {', '.join(added)}")
    if statements:
        owned_by_another(account, connection, role_of(connection), Owned("TABLE", table, owner), ("OWNERSHIP",))
    return tuple(statements)
