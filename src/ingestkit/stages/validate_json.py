"""JSON lines read for validate: each line an object, its keys compared with the contract, every line counted."""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow as pa

from ingestkit import jsonlines
from ingestkit.csvfile import Block, blocks, unpacked
from ingestkit.csvframe import broken
from ingestkit.csvmarks import Flags, Positions
from ingestkit.csvvalues import Flaw
from ingestkit.files import shown
from ingestkit.formats import in_order, open_lines
from ingestkit.header import Compared, compare_header, folding
from ingestkit.model import FileVersion
from ingestkit.pipeline import RunContext
from ingestkit.settings import Model
from ingestkit.stages.validate_blocks import Misfit, Parsed, by_block, convert_block, converted, misfits_of
from ingestkit.stages.validate_engine import Engine
from ingestkit.stages.validate_file import Facts, Reading
from ingestkit.stages.validate_text import facts_of, facts_seen


@contextmanager
def read_json(ctx: RunContext, file: FileVersion, engine: Engine) -> Iterator[Reading]:
    """Open a raw file of JSON lines under its model's contract; the keys of its first lines are its header."""
    if file.raw is None:
        raise broken(file.path, "is not in the lake")
    settings = ctx.pipeline.model(engine.contract.model)
    with ctx.lake.open(file.raw) as raw, unpacked(file.path, raw) as stream:
        text = open_lines(file.path, stream)
        found = blocks(text)
        first = list(itertools.islice(found, 1))
        if not first and not settings.allow_empty:
            raise broken(file.path, "is empty: it has not even one record")
        reader = _Objects(engine, settings)
        header = reader.compared(file, first[0]) if first else Compared((), (), ())
        yield Reading(
            blocks=converted(
                ctx,
                engine,
                by_block(raw, itertools.chain(first, found)),
                lambda block: convert_block(text, block, engine, header.extra, reader.parse),
            ),
            facts=lambda records: reader.facts(facts_of(text, records, header)),
            seen=lambda records: reader.facts(facts_seen(text, records, header)),
            first_line=1,
            extra=header.extra,
        )


class _Objects:
    """How the lines of one file become columns, and which of the contract's columns have been seen in them."""

    def __init__(self, engine: Engine, settings: Model) -> None:
        self.engine = engine
        self.settings = settings
        self.folded = folding(settings, engine.contract.model)
        self.raw = {column.name for column in engine.contract.columns if column.type == "json"}
        self.names: tuple[str, ...] = ()
        self.place: Mapping[str, int] = {}
        self.seen: set[str] = set()

    def compared(self, file: FileVersion, first: Block) -> Compared:
        """The keys of the first lines beside the contract; an object has no order."""
        contract = self.engine.contract
        with self.engine.connection() as db:
            whole, found = self._objects(db, first)
        if not len(whole):
            told = f"has no line that is a JSON object among its first {len(first.records):,}"
            raise broken(file.path, f"{told}; see format")
        keys = in_order(found.keys, [column.name for column in contract.columns], self.folded)
        header = compare_header(contract, self.settings, file.path, file.id, keys)
        self.names = tuple(dict.fromkeys((*(column.name for column in contract.columns), *header.extra)))
        self.place = {self.folded(name): place for place, name in enumerate(self.names)}
        return header

    def facts(self, facts: Facts) -> Facts:
        """Keys that the first lines lacked may have come later."""
        drift = tuple(one for one in facts.drift if one.kind != "missing" or one.column not in self.seen)
        return replace(facts, drift=drift)

    def parse(self, block: Block) -> Parsed:
        messages = {"nul": "the line holds a NUL byte", "encoding": "the line is not UTF-8"}
        flaws = {
            index: Flaw(index, code, messages.get(code, f"the line has a flaw: {code}"))
            for index, code in block.records.flaws.items()
        }
        with self.engine.connection() as db:
            kept, found = self._objects(db, block)
            for index in np.setdiff1d(np.arange(len(block.records)), kept):
                flaws.setdefault(int(index), Flaw(int(index), "json", "the line is no JSON object"))
            columns = self._columns(found)
            table, misfits = self._texts(db, found, columns, len(kept))
        good = np.ones(len(kept), np.bool_)
        for flaw in self._odd(found, columns, kept):
            flaws.setdefault(flaw.index, flaw)
            good[np.searchsorted(kept, flaw.index)] = False
        if not good.all():
            table, kept = table.filter(pa.array(good)), kept[good]
            misfits = tuple(replace(one, records=one.records[good]) for one in misfits)
        return Parsed(table, kept, [flaws[index] for index in sorted(flaws)], misfits)

    def _objects(self, db: duckdb.DuckDBPyConnection, block: Block) -> tuple[Positions, jsonlines.Members]:
        """Which records of a block are objects, and their members."""
        indexes, starts, ends = block.records.readable()
        whole, found = jsonlines.objects(db, block.data, starts, ends)
        return indexes[whole], found

    def _columns(self, found: jsonlines.Members) -> Positions:
        """The column of each key, or -1."""
        columns = np.array([self.place.get(self.folded(key), -1) for key in found.keys], np.int64)
        self.seen.update(self.names[place] for place in columns if place >= 0)
        return columns

    def _texts(
        self, db: duckdb.DuckDBPyConnection, found: jsonlines.Members, columns: Positions, records: int
    ) -> tuple[pa.Table, tuple[Misfit, ...]]:
        of_column = columns[found.key] if len(found.keys) else found.key
        texts: dict[str, pa.Array] = {}
        nested: dict[str, Flags] = {}
        for place, name in enumerate(self.names):
            chosen = of_column == place
            texts[name], nested[name] = jsonlines.texts_of(db, found, chosen, records, raw=name in self.raw)
        table = pa.table(texts)
        return table, misfits_of(self.engine.contract, table, nested)

    def _odd(self, found: jsonlines.Members, columns: Positions, kept: Positions) -> Iterator[Flaw]:
        """Objects that cannot be read as rows: with a key twice, or with one in no contract that comes late."""
        if not len(found.keys):
            return
        for row in jsonlines.doubled(found, columns):
            yield Flaw(int(kept[row]), "json", "the object has a key twice")
        if self.settings.drift == "ignore" or (columns >= 0).all():
            return
        unknown = columns[found.key] < 0
        rows, at = np.unique(found.record[unknown], return_index=True)
        for row, key in zip(rows, found.key[unknown][at], strict=True):
            told = f"the object has {shown(found.keys[key])!r}, which is in no contract"
            yield Flaw(int(kept[row]), "columns", told)
