"""A delimited text file read for validate: its header compared, its lines counted, its records typed."""

from collections.abc import Iterator
from contextlib import contextmanager

from ingestkit.csvfile import Block, TextFile, blocks, open_text, unpacked
from ingestkit.csvframe import broken
from ingestkit.csvvalues import texts
from ingestkit.header import Compared, compare_header
from ingestkit.model import FileVersion
from ingestkit.pipeline import RunContext
from ingestkit.stages.validate_blocks import Parsed, by_block, convert_block, converted
from ingestkit.stages.validate_engine import Engine
from ingestkit.stages.validate_file import Facts, Reading


@contextmanager
def read_text(ctx: RunContext, file: FileVersion, engine: Engine) -> Iterator[Reading]:
    """Open a raw text file under its model's contract; what its header lacks is known before a record is read."""
    if file.raw is None:
        raise broken(file.path, "is not in the lake")
    settings = ctx.pipeline.model(engine.contract.model)
    limit = ctx.pipeline.settings.validation.max_record_lines
    columns = [column.name for column in engine.contract.columns]
    with ctx.lake.open(file.raw) as raw, unpacked(file.path, raw) as stream:
        text = open_text(file.path, stream, settings.csv, columns, max_record_lines=limit)
        if not text.names and not settings.allow_empty:
            raise broken(file.path, "is empty: it has not even a header")
        header = Compared((), (), ())
        if text.names:
            header = compare_header(engine.contract, settings, file.path, file.id, text.names)
            text.names = header.names

        def parse(block: Block) -> Parsed:
            return Parsed(*texts(text, block))

        yield Reading(
            blocks=converted(
                ctx,
                engine,
                by_block(raw, blocks(text)),
                lambda block: convert_block(text, block, engine, header.extra, parse),
            ),
            facts=lambda records: facts_of(text, records, header),
            seen=lambda records: facts_seen(text, records, header),
            first_line=text.preamble_lines + text.header_lines + 1,
            extra=header.extra,
        )


def facts_seen(text: TextFile, records: int, header: Compared) -> Facts:
    """What is known of the file when only its first records were read."""
    return Facts(
        lines=0,
        preamble=text.preamble_lines,
        header=text.header_lines,
        blank=0,
        trailer=0,
        records=records,
        newline=text.newline,
        encoding=text.encoding,
        newlines={},
        drift=header.drift,
        extra=header.extra,
        partial=True,
    )


def facts_of(text: TextFile, records: int, header: Compared) -> Facts:
    """What is known of the file when its last block has been read, `records` of them in all."""
    census = text.census
    said = census.trailer.count
    # What was opened again may have been one record to whoever counted, or as many as lines.
    if said is not None and said not in (census.records, records):
        raise broken(
            text.path, f"says in its trailer that it has {said:,} records, where {census.records:,} were found"
        )
    return Facts(
        lines=census.lines(text.newline),
        preamble=text.preamble_lines,
        header=text.header_lines,
        blank=census.blank + census.trailer.blank,
        trailer=census.trailer.lines,
        records=records,
        newline=text.newline,
        encoding=text.encoding,
        newlines=census.newlines(),
        drift=header.drift,
        extra=header.extra,
    )
