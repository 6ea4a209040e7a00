"""The DuckDB in memory that types and compares for validate; the warehouse is another one."""

import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute

from ingestkit.columnsql import literal
from ingestkit.contract import ERRORS, Contract, compile_contract
from ingestkit.errors import ConfigError
from ingestkit.layers import PUT_RIGHT
from ingestkit.pipeline import RunContext
from ingestkit.settings import Model

NORMALISE: Mapping[str, Callable[[pa.ChunkedArray], pa.ChunkedArray]] = {
    "trim": pyarrow.compute.utf8_trim_whitespace,
    "collapse_space": partial(pyarrow.compute.replace_substring_regex, pattern=r"[\s\pZ]+", replacement=" "),
    "upper": pyarrow.compute.utf8_upper,
    "lower": pyarrow.compute.utf8_lower,
    "nfc": partial(pyarrow.compute.utf8_normalize, form="NFC"),
    "empty_to_null": lambda texts: pyarrow.compute.if_else(
        pyarrow.compute.equal(texts, ""), pa.scalar(None, pa.string()), texts
    ),
}


def _differs(before: pa.ChunkedArray, after: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which texts a step has changed; one that was missing has not been."""
    same = pyarrow.compute.fill_null(pyarrow.compute.equal(before, after), fill_value=False)
    return pyarrow.compute.and_(pyarrow.compute.is_valid(before), pyarrow.compute.invert(same))


def _without(texts: pa.ChunkedArray, nulls: tuple[str, ...]) -> pa.ChunkedArray:
    """The texts, but for those that stand for a missing value."""
    if not nulls:
        return texts
    missing = pyarrow.compute.is_in(texts, pa.array(nulls, pa.string()))
    return pyarrow.compute.if_else(missing, pa.scalar(None, pa.string()), texts)


def prove(model: str, settings: Model) -> None:
    """Prove that the engine takes a model's contract, before there is any file."""
    if not settings.columns:
        # Its archives say them.
        return
    with duckdb.connect(":memory:") as db:
        _prove(db, compile_contract(model, settings))
    meant(model, settings)


def meant(model: str, settings: Model) -> dict[str, dict[str, tuple[str, ...]]]:
    """What `delete_when` and `flag_when` say, each text read as a cell of its column is, and as its value is written.

    A text that no valid cell reads as would leave in the target what it is to take away, and nobody would know.
    """
    said = {"delete_when": settings.delete_when, "flag_when": settings.flag_when}
    if not any(said.values()):
        return {name: {} for name in said}
    contract = compile_contract(model, settings)
    with duckdb.connect(":memory:", config={"autoinstall_known_extensions": "false", "TimeZone": "UTC"}) as db:
        return {
            name: {
                column.name: _read(db, replace(contract, columns=(column,)), texts[column.name], name)
                for column in contract.columns
                if column.name in texts
            }
            for name, texts in said.items()
        }


def _read(db: duckdb.DuckDBPyConnection, contract: Contract, said: tuple[str, ...], where: str) -> tuple[str, ...]:
    """The values of these texts as cells of the one column of a contract."""
    [column] = contract.columns
    texts = pa.chunked_array([said], pa.string())
    for step in column.normalise:
        texts = NORMALISE[step](texts)
    texts = _without(texts, ("", *column.nulls))
    table = pa.table({column.name: texts})
    errors = _answer(db, contract.errors_sql("text"), table).column("errors").to_pylist()
    for text, cell, wrong in zip(said, texts.to_pylist(), errors, strict=True):
        why = "a missing value" if cell is None else wrong[0]["message"] if wrong else None
        if why is not None:
            raise ConfigError(
                f"models.{contract.model}.{where}.{column.name}: {text!r} is {why}: no row says so",
                hint=PUT_RIGHT,
            )
    values = _answer(db, f"SELECT CAST({column.value} AS VARCHAR) AS value FROM text", table)
    return tuple(values.column("value").to_pylist())


def _prove(db: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    # A time, since zones are looked up only when one is converted.
    probe = pa.table({column.name: ["2024-01-01T00:00:00"] for column in contract.columns})
    try:
        _answer(db, contract.errors_sql("text"), probe)
    except duckdb.Error as error:
        where, told = f"model {contract.model}", error
        for column in contract.columns:
            alone = replace(contract, columns=(column,))
            try:
                _answer(db, alone.errors_sql("text"), probe.select([column.name]))
            except duckdb.Error as its_own:
                where, told = f"{where}: column {column.name}", its_own
                break
        said = str(told).splitlines()[0]
        raise ConfigError(f"{where}: the contract cannot be compiled: {said}", hint=PUT_RIGHT) from error


def _answer(db: duckdb.DuckDBPyConnection, statement: str, text: pa.Table) -> pa.Table:
    db.register("text", text)
    try:
        return db.sql(statement).to_arrow_table()
    finally:
        db.unregister("text")


class Engine:
    """One for a model, with a connection for each thread."""

    def __init__(self, ctx: RunContext, contract: Contract) -> None:
        ctx.scratch.mkdir(parents=True, exist_ok=True)
        # A folder of its own: two engines spilling into one would write the same files.
        self.folder = Path(tempfile.mkdtemp(prefix=f"{contract.model}.{ctx.token}.", dir=ctx.scratch))
        self.contract = contract
        self.threads = max(1, ctx.threads)
        self._db = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": ctx.memory_limit,
                "threads": self.threads,
                "temp_directory": str(self.folder / "spill"),
                "autoinstall_known_extensions": "false",
                "TimeZone": "UTC",
            },
        )
        self._idle: deque[duckdb.DuckDBPyConnection] = deque()

    @contextmanager
    def connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        db = self._idle.pop() if self._idle else self._new()
        try:
            yield db
        finally:
            self._idle.append(db)

    def under(self, contract: Contract) -> "Engine":
        """The same engine under another contract; it is closed with this one."""
        other = copy(self)
        other.contract = contract
        return other

    def _new(self) -> duckdb.DuckDBPyConnection:
        db = self._db.cursor()
        # Left alone, it draws a bar of its own on stdout; the setting belongs to each connection.
        db.execute("SET enable_progress_bar = false")
        return db

    def check(self) -> None:
        """Prove that the contract's SQL is one the engine takes."""
        with self.connection() as db:
            _prove(db, self.contract)

    def normalised(self, text: pa.Table) -> tuple[pa.Table, dict[str, dict[str, pa.ChunkedArray]]]:
        """The texts as the contract wants them before anything is asked of them, and which each step has changed."""
        changed: dict[str, dict[str, pa.ChunkedArray]] = {}
        for column in self.contract.columns:
            if not column.normalise and not column.nulls:
                continue
            at = text.schema.get_field_index(column.name)
            texts = text.column(at)
            for step in column.normalise:
                after = NORMALISE[step](texts)
                changed.setdefault(column.name, {})[step] = _differs(texts, after)
                texts = after
            text = text.set_column(at, column.name, _without(texts, column.nulls))
        return text, changed

    def typed(self, text: pa.Table) -> tuple[pa.Table, pa.ChunkedArray | None]:
        """Values by column, and which rows are valid; None for all of them.

        Columns that can be told at a glance are not asked about; the engine types and proves the others.
        """
        columns = self.contract.columns
        told = {one.name: values for one in columns if (values := one.at_a_glance(text.column(one.name))) is not None}
        asked = [column for column in columns if column.name not in told]
        statement = self.contract.typing_sql("text", asked)
        found = self._ask(statement, text) if statement is not None else None
        valid = found.column("_valid") if found is not None else None
        at = 0
        for column in asked:
            told[column.name] = text.column(column.name)
            if column.typed and found is not None:
                told[column.name] = found.column(at)
                at += 1
        typed = pa.table({column.name: told[column.name] for column in columns})
        return typed, None if valid is None or pyarrow.compute.all(valid).as_py() is not False else valid

    def errors(self, text: pa.Table) -> pa.ChunkedArray:
        return self._ask(self.contract.errors_sql("text"), text).column("errors").cast(ERRORS)

    def reasons(self, source: str) -> list[tuple[str, str, str, str, int, tuple[tuple[int, int], ...]]]:
        """File, path, column, code, count and three samples (record and line) of the errors in a query of rejects."""
        statement = (
            'SELECT file_id, path, error."column", error.code, count(*), arg_min([record, line], record, 3) '
            f"FROM (SELECT * EXCLUDE (errors), unnest(errors) AS error FROM ({source})) GROUP BY ALL"
        )
        with self.connection() as db:
            found = db.sql(statement).fetchall()
        return [(*row[:-1], tuple((record, line) for record, line in row[-1])) for row in found]

    def _ask(self, statement: str, text: pa.Table) -> pa.Table:
        with self.connection() as db:
            return _answer(db, statement, text)

    def close(self) -> None:
        self._db.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def parquet(path: Path) -> str:
    """SQL that reads one Parquet file, whatever its folders are called."""
    exact = "".join(f"[{char}]" if char in "*?[" else char for char in str(path))
    return f"read_parquet({literal(exact)}, hive_partitioning=false)"
