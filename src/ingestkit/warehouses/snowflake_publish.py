"""How Snowflake writes what is published: all that is staged lies there before the transaction begins."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from snowflake.connector import SnowflakeConnection
from snowflake.connector.errors import DatabaseError

from ingestkit.errors import WarehouseError
from ingestkit.model import Fence, Receipt
from ingestkit.ports import Bounds, TargetColumn
from ingestkit.warehouses import snowflake_misfit, snowflake_tables
from ingestkit.warehouses import snowflake_sql as sql
from ingestkit.warehouses.publishing import Merged, Rows
from ingestkit.warehouses.snowflake_detached import Work, patiently
from ingestkit.warehouses.snowflake_session import Account, Writing, answered, changed, execute
from ingestkit.warehouses.snowflake_stage import Staged, copy


@dataclass(frozen=True, slots=True)
class Prepared:
    """What one model's load has in the stage, and where that is to be merged from a table."""

    model: str
    staged: Staged
    types: Mapping[str, str]
    writes: int
    """Of the rows staged, how many are to be written; the others delete."""
    merging: str | None = None
    keeping: str | None = None
    """The table of the keys whose rows stay where all others are replaced."""
    queries: list[str] = field(default_factory=list)
    """The ids of those that wrote the rows."""
    aside: bool = False
    """Whether it is of a table beside the model's own."""


@dataclass(slots=True)
class SnowflakeTransaction:
    account: Account
    connection: SnowflakeConnection
    writing: Writing
    work: Work
    batch: str
    prepared: Mapping[str, Prepared]
    """By table."""
    raised: Mapping[str, Fence] = field(default_factory=dict)
    standing: Mapping[str, Receipt] = field(default_factory=dict)
    before: Mapping[str, int] = field(default_factory=dict)
    """By model, as the fence found it."""
    made: list[Receipt] = field(default_factory=list)

    def raise_fence(self, mine: Fence) -> Sequence[str]:
        """Who raises a fence of the same pipeline waits for the table, and then looks at it as it was committed."""
        one = self.account.names.one
        update = (
            f"UPDATE {snowflake_tables.fence_table(self.account, mine.pipeline)} SET {one('token')} = ? "
            f"WHERE {one('model')} = ? AND {one('state_id')} = ? AND {one('token')} <= ?"
        )
        values = (mine.token, mine.model, mine.state_id, mine.token)
        if self.raised:
            count = changed(self.connection, update, *values)
        else:
            count = patiently(self.writing, self.work, update, *values)
            self._look_around(mine.pipeline)
        known = self.raised.get(mine.model)
        return [known.table if known else ""] * count

    def _look_around(self, pipeline: str) -> None:
        """All that is to be known of the pipeline, as it stays while its fence is held here.

        An account may let a session see late what another one committed. Then a load is done again that stands already,
        and puts the same rows in the place of the same rows.
        """
        targets = {ready.model: table for table, ready in self.prepared.items() if not ready.aside}
        found = snowflake_tables.standing(self.account, self.connection, pipeline, self.batch, targets)
        self.raised = {one.model: one for one in found.fences}
        self.standing = {one.model: one for one in found.receipts}
        self.before = found.targets
        if found.fences:
            self.writing.demand(found.transaction)

    def fences(self, pipeline: str) -> Mapping[str, Fence]:
        return snowflake_tables.fences(self.account, self.connection, pipeline)

    def receipt(self, pipeline: str, model: str, batch: str) -> Receipt | None:
        """All of the batch were asked for with the fences."""
        del pipeline, batch
        return self.standing.get(model)

    def write_receipt(self, receipt: Receipt) -> None:
        self.made.append(receipt)

    def forget_receipts(self, pipeline: str, model: str) -> None:
        table, where = snowflake_tables.receipt_table(self.account, pipeline), f"{self.account.names.one('model')} = ?"
        self.writing.matters = True
        delete = f"DELETE FROM {table} WHERE {where} AND CURRENT_TRANSACTION() = ?"
        execute(self.connection, delete, model, self.writing.number)

    def hold(self, table: str) -> int:
        """Nothing keeps others from adding rows here: what they add is found when the rows are counted afterwards."""
        return self.before[self.prepared[table].model]

    def mark(self, table: str, gone: str, key: tuple[str, ...]) -> None:
        del gone, key
        raise _of_archives(table)

    def columns(self, table: str) -> Collection[str]:
        raise _of_archives(table)

    def remake(self, table: str, gone: Collection[str], columns: Sequence[TargetColumn]) -> None:
        del gone, columns
        raise _of_archives(table)

    def count(self, table: str) -> int:
        [row] = execute(self.connection, f"SELECT count(*) AS n FROM {self.account.named(table)}")
        (found,) = row.values()
        return int(found)

    def same_table(self, one: str, other: str) -> bool:
        return self.account.names.spelled(one) == self.account.names.spelled(other)

    def replace(self, table: str, rows: Rows) -> int:
        """Within the transaction, in which TRUNCATE can be taken back; grants, policies and streams stay."""
        execute(self.connection, f"TRUNCATE TABLE {self.account.named(table)}")
        return self.insert(table, rows)

    def insert(self, table: str, rows: Rows) -> int:
        del rows
        ready = self.prepared[table]
        ready.queries.extend(copy(self.account, self.connection, self.account.named(table), ready.types, ready.staged))
        return ready.staged.rows

    def delete_batch(self, table: str, batch: str) -> int:
        where = f"{self.account.names.one('_batch')} = ?"
        return changed(self.connection, f"DELETE FROM {self.account.named(table)} WHERE {where}", batch)

    def delete_window(self, table: str, bounds: Bounds) -> int:
        where = sql.within(self.account.names, bounds)
        return changed(self.connection, f"DELETE FROM {self.account.named(table)} WHERE {where}")

    def delete_others(self, table: str, kept: Rows) -> int:
        keeping = self.prepared[table].keeping
        key = [self.account.names.one(column) for column in kept.key]
        if keeping is None:
            return changed(self.connection, f"DELETE FROM {self.account.named(table)}")
        return changed(self.connection, sql.delete_others(self.account.named(table), keeping, key))

    def merge(self, table: str, rows: Rows, gone: str | None) -> Merged:
        del gone
        ready = self.prepared[table]
        if ready.merging is None or not ready.staged.rows:
            return Merged(0, 0, 0)
        columns = [self.account.names.one(column) for column in rows.columns]
        key = [self.account.names.one(column) for column in rows.key]
        try:
            told = answered(self.connection, sql.merge(self.account.named(table), ready.merging, columns, key))
        except DatabaseError as error:
            files, into = [*ready.staged.copies.values()], self.account.named(table)
            raise snowflake_misfit.found(self.account, self.connection, into, table, files, error) from error
        ready.queries.append(told.query)
        done = {name.rpartition(" ")[2]: int(count) for name, count in told.rows[0].items()}
        added, known = done.get("inserted", 0), done.get("updated", 0)
        if added + known != ready.writes:
            raise WarehouseError(
                f"{self.account.place}: of {ready.writes} rows to merge into {table}, {added + known} were written; "
                "nothing was published",
                hint=f"see what leaves rows out there: SHOW TABLES LIKE {sql.text(table)}, column error_logging",
            )
        return Merged(known + added, added, done.get("deleted", 0))

    def finish(self) -> None:
        """Receipts come last, and only under the fence that was raised: what was written without it is rolled back."""
        if not self.made:
            return
        self.writing.matters = True
        written = snowflake_tables.write_receipts(self.account, self.connection, self.made, self.writing.number)
        if written != len(self.made):
            raise self.writing.ended()


def _of_archives(table: str) -> WarehouseError:
    """The configuration refuses them before."""
    return WarehouseError(f"{table}: what archives say of their columns is not taken here")
