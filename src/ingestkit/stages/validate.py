"""Validate: raw files become typed Parquet and rejects, and every figure is read back from what was left."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import pyarrow.parquet

from ingestkit import steps
from ingestkit.contract import compile_contract
from ingestkit.csvframe import broken
from ingestkit.errors import ContractError, TargetError
from ingestkit.files import shown
from ingestkit.formats import format_of, records_in
from ingestkit.header import HeaderBroken
from ingestkit.model import (
    Artifact,
    ArtifactKind,
    Counts,
    Drift,
    FileStatus,
    FileVersion,
    Quarantined,
    Rule,
    Stage,
    Work,
    digest_of,
)
from ingestkit.pipeline import RunContext
from ingestkit.settings import Format
from ingestkit.stages.validate_engine import Engine, parquet
from ingestkit.stages.validate_file import Facts, Reader, make_artifacts, rejected_in, summed
from ingestkit.stages.validate_json import read_json
from ingestkit.stages.validate_keys import Candidate, keys_artifact
from ingestkit.stages.validate_parquet import read_parquet
from ingestkit.stages.validate_rules import judged, percent
from ingestkit.stages.validate_text import read_text

READERS: Mapping[Format, Reader] = {"csv": read_text, "jsonl": read_json, "parquet": read_parquet}


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the set, as its artifacts show it."""

    candidate: Candidate
    rejects: Artifact | None
    """None where there are none, and nobody has to find that they were looked for."""
    valid_rows: int
    rejected_rows: int
    rejected_lines: int
    made: bool

    @property
    def file(self) -> FileVersion:
        return self.candidate.file

    @property
    def facts(self) -> Facts:
        return self.candidate.facts

    @property
    def artifacts(self) -> list[Artifact]:
        return [self.candidate.valid, *([self.rejects] if self.rejects is not None else [])]

    @property
    def reject_percent(self) -> float:
        return percent(self.rejected_rows, self.facts.records)


def validate(
    ctx: RunContext, model: str, files: Sequence[FileVersion], known: Sequence[Artifact], *, again: bool = False
) -> Work:
    """Validate the whole file set of a model, making only what `known` lacks, or everything `again`."""
    with in_scratch(ctx, model):
        return _validate(ctx, model, files, () if again else known)


@contextmanager
def in_scratch(ctx: RunContext, what: str) -> Iterator[None]:
    """What the engine or the disk it works on refuses is told as that."""
    try:
        yield
    except (duckdb.Error, OSError) as error:
        told = str(error).splitlines()[0]
        raise TargetError(
            f"{what} cannot be validated in {shown(ctx.scratch)}: {told}",
            hint="make room there, or set scratch or memory_limit in config/settings.yaml; then: ingestkit check",
        ) from error


@dataclass(frozen=True, slots=True)
class Broken:
    """A file of which nothing can be read as rows, or whose lines are not accounted for."""

    file: FileVersion
    told: str
    drift: tuple[Drift, ...]
    records: int | None
    """How many records it seems to have; None where not even that can be told."""

    @property
    def path(self) -> str:
        return self.file.path


def _validate(ctx: RunContext, model: str, files: Sequence[FileVersion], known: Sequence[Artifact]) -> Work:
    ordered = sorted(files, key=lambda file: file.path)
    engine = Engine(ctx, compile_contract(model, ctx.pipeline.model(model), ctx.pipeline.bounds(model, ctx.window)))
    try:
        engine.check()
        found = [_part(ctx, model, file, known, engine) for file in ordered]
        parts = [one for one in found if isinstance(one, Part)]
        broken = [one for one in found if isinstance(one, Broken)]
        limit = ctx.pipeline.settings.validation.max_file_reject_pct
        over = [part for part in parts if part.reject_percent > limit]
        kept = [part for part in parts if part not in over]
        candidates = [part.candidate for part in kept]
        keys, keys_made = keys_artifact(ctx, model, candidates, known, engine)
        for raw in (*(part.file.raw for part in over), *(one.file.raw for one in broken)):
            # Somebody is to look at it, and it may be taken in yet.
            if raw is not None:
                ctx.lake.keep(ctx.place(model), raw)
        steps.reached("validate.keys_compared")
        work = _work(ctx, engine, Files(kept, over, broken), keys)
    finally:
        engine.close()
    if broken or keys_made or not parts or any(part.made for part in parts):
        return work
    runs = sorted({part.candidate.valid.run_id for part in parts})
    return replace(work, skipped=f"artifacts of {', '.join(runs)} hold")


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a model told apart: those to publish, and those kept out whole for their rejects or altogether."""

    kept: Sequence[Part]
    over: Sequence[Part]
    broken: Sequence[Broken]

    @property
    def read(self) -> list[Part]:
        return sorted((*self.kept, *self.over), key=lambda part: part.file.path)

    @property
    def every(self) -> list[Part | Broken]:
        return [*self.read, *self.broken]

    @property
    def refused(self) -> list[Part | Broken]:
        return [*self.over, *self.broken]


def _part(ctx: RunContext, model: str, file: FileVersion, known: Iterable[Artifact], engine: Engine) -> Part | Broken:
    """A file as its artifacts show it, or what is wrong with all of it: that is a finding, and no failure of ours."""
    ctx.stop.check()
    try:
        return _read(ctx, model, file, known, engine)
    except ContractError as error:
        drift = error.drift if isinstance(error, HeaderBroken) else ()
        return Broken(file, error.message, drift, _counted(ctx, model, file))


def _counted(ctx: RunContext, model: str, file: FileVersion) -> int | None:
    if file.raw is None:
        return None
    limit = ctx.pipeline.settings.validation.max_record_lines
    with ctx.lake.open(file.raw) as raw:
        return records_in(ctx.pipeline.model(model), file.path, raw, max_record_lines=limit)


def _read(ctx: RunContext, model: str, file: FileVersion, known: Iterable[Artifact], engine: Engine) -> Part:
    pair = _reusable(ctx, model, file, known)
    made = pair is None
    if pair is None:
        with ctx.watched(file):
            pair = make_artifacts(ctx, model, file, engine, READERS[format_of(ctx.pipeline.model(model), file.path)])
        steps.reached("validate.file_done")
    else:
        ctx.progress.moved("validate", model, file.size)
    valid, rejects = pair
    path = ctx.lake.store.path(valid.path)
    facts = Facts.read(path)
    valid_rows = pyarrow.parquet.read_metadata(path).num_rows
    if facts.cut is None:
        rejected_rows, rejected_lines = rejected_in(ctx.lake.store.path(rejects.path), facts)
    else:
        rejected_rows, rejected_lines = facts.cut.rows, facts.cut.lines
    part = Part(Candidate(file, valid, path, facts), rejects, valid_rows, rejected_rows, rejected_lines, made)
    prove(part)
    return part


def _reusable(
    ctx: RunContext, model: str, file: FileVersion, known: Iterable[Artifact]
) -> tuple[Artifact, Artifact] | None:
    """The newest pair of artifacts made from this file under today's contract, if the lake still holds it."""
    settings = ctx.pipeline.validate_settings(model, ctx.window)
    found: dict[tuple[str, int], dict[ArtifactKind, Artifact]] = {}
    for one in known:
        if one.file_id == file.id and one.settings == settings and one.kind is not ArtifactKind.RAW:
            found.setdefault((one.run_id, one.token), {})[one.kind] = one
    for _, pair in sorted(found.items(), key=lambda item: item[0][1], reverse=True):
        valid, rejects = pair.get(ArtifactKind.VALID), pair.get(ArtifactKind.REJECTS)
        if valid is not None and rejects is not None and all(map(ctx.holds, pair.values())):
            return valid, rejects
    return None


def prove(part: Part) -> None:
    """Every line and every record of the file is accounted for, or the file fails."""
    facts = part.facts
    if facts.partial:
        return
    explained = facts.lines_before + facts.blank + facts.trailer + facts.valid_lines + part.rejected_lines
    if facts.lines != explained or facts.records != part.valid_rows + part.rejected_rows:
        raise broken(
            part.file.path,
            f"is not accounted for: the line proof of {shown(part.file.path)} does not close: {facts.lines} lines, of "
            f"which {facts.preamble} preamble, {facts.header} header, {facts.blank} blank, {facts.trailer} trailer, "
            f"{facts.valid_lines} valid and {part.rejected_lines} rejected; {facts.records} records, of "
            f"which {part.valid_rows} valid and {part.rejected_rows} rejected",
        )


def _work(ctx: RunContext, engine: Engine, files: Files, keys: Artifact | None) -> Work:
    losers = _losers_by_file(ctx, engine, keys)
    rows = sorted(
        [
            *(_file_row(ctx, part, FileStatus.VALIDATED, losers.get(part.file.id, 0)) for part in files.kept),
            *(_file_row(ctx, part, FileStatus.QUARANTINED, part.valid_rows) for part in files.over),
            *(_broken_row(ctx, one) for one in files.broken),
        ],
        key=lambda file: file.path,
    )
    counts = Counts(
        files=len(rows),
        bytes=sum(row.size for row in rows),
        lines=sum(part.facts.lines for part in files.read),
        records=sum(row.read or 0 for row in rows),
        valid=sum(row.valid or 0 for row in rows),
        rejected=sum(row.rejected or 0 for row in rows),
        duplicates=sum(losers.values()),
    )
    model = engine.contract.model
    # The valid rows of a file quarantined whole are no artifact of the run: nothing may ever load them.
    artifacts = [one for part in files.kept for one in part.artifacts]
    artifacts += [part.rejects for part in files.over if part.rejects is not None]
    reasons = quarantine(ctx, engine, files.read, keys)
    whole = (_whole(ctx, model, part.file, part.valid_rows) for part in files.over)
    unread = (_whole(ctx, model, one.file, one.records or 0) for one in files.broken)
    uncounted = any(one.records is None for one in files.broken)
    percents = [part.reject_percent for part in files.kept]
    stood = ctx.facts.get("stood")
    if stood is not None and stood.digest == digest_of(part.file for part in files.kept):
        mode = stood.mode
    else:
        mode = ctx.pipeline.mode(model, rows)
    read = {part.file.path: part.facts.records for part in files.kept}
    rules = judged(ctx, model, counts, percents, mode, read, uncounted=uncounted)
    return Work(
        counts=counts,
        files=tuple(rows),
        artifacts=(*artifacts, *((keys,) if keys else ())),
        quarantine=(*reasons, *whole, *unread),
        drift=tuple(one for part in files.every for one in _drift_of(part)),
        rules=(*rules, *_refused(ctx, model, files, reasons)),
        details={"proof": proof(files.read), **_normalised(files.read)},
    )


def _drift_of(one: Part | Broken) -> tuple[Drift, ...]:
    return one.drift if isinstance(one, Broken) else one.facts.drift


def _refused(ctx: RunContext, model: str, files: Files, reasons: Sequence[Quarantined]) -> list[Rule]:
    """The rule of files kept out whole: it fails by policy, or where there is no other file to publish."""
    if not files.refused:
        return []
    told = [one.told for one in files.broken]
    told += [_over_limit(ctx, part, reasons) for part in files.over]
    if files.kept and ctx.pipeline.settings.validation.on_bad_file == "publish_rest":
        for each in told:
            ctx.progress.warned(f"{model}: kept out whole: {each}")
        return [Rule("whole_files", Stage.VALIDATE, model, len(told), len(files.every) - 1, passed=True)]
    more = f"; and {len(told) - 1} more of its files" if len(told) > 1 else ""
    rule = Rule("whole_files", Stage.VALIDATE, model, len(told), 0, passed=False, approvable=False)
    return [replace(rule, contract=True, told=told[0] + more)]


def _over_limit(ctx: RunContext, part: Part, reasons: Sequence[Quarantined]) -> str:
    limit = ctx.pipeline.settings.validation.max_file_reject_pct
    most = max((one for one in reasons if one.file_id == part.file.id), key=lambda one: one.count)
    return (
        f"{shown(part.file.path)}: {part.rejected_rows:,} of {part.facts.records:,} records "
        f"({part.reject_percent:.1f} %) break the contract, where validation.max_file_reject_pct is {limit:g} %; "
        f"most often {most.code} in {most.column} ({most.count:,} records, the first on line {most.samples[0][1]})"
    )


def _broken_row(ctx: RunContext, one: Broken) -> FileVersion:
    return replace(
        one.file,
        status=FileStatus.QUARANTINED,
        read=one.records,
        valid=0,
        rejected=one.records,
        reason=one.told,
        run_id=ctx.run_id,
        token=ctx.token,
    )


def _file_row(ctx: RunContext, part: Part, status: FileStatus, left_out: int) -> FileVersion:
    """The ledger row of a file; `left_out` are valid rows that are not published all the same."""
    reason = None
    if status is FileStatus.QUARANTINED:
        reason = f"{part.reject_percent:.1f} % of its records break the contract"
    return replace(
        part.file,
        status=status,
        read=part.facts.records,
        valid=part.valid_rows - left_out,
        rejected=part.rejected_rows + left_out,
        reason=reason,
        run_id=ctx.run_id,
        token=ctx.token,
    )


def _losers_by_file(ctx: RunContext, engine: Engine, keys: Artifact | None) -> dict[str, int]:
    if keys is None:
        return {}
    source = parquet(ctx.lake.store.path(keys.path))
    with engine.connection() as db:
        return dict(db.sql(f"SELECT file_id, count(*) FROM {source} GROUP BY ALL").fetchall())


def quarantine(
    ctx: RunContext, engine: Engine, parts: Sequence[Part], keys: Artifact | None
) -> tuple[Quarantined, ...]:
    """One row per file, column and code, with three places to look at."""
    sources = [
        f"SELECT file_id, path, record, line, errors FROM {parquet(ctx.lake.store.path(part.rejects.path))}"
        for part in parts
        if part.rejects is not None and part.rejected_rows and part.facts.cut is None
    ]
    if keys is not None:
        source = parquet(ctx.lake.store.path(keys.path))
        sources.append(f"SELECT file_id, path, record_no AS record, line, errors FROM {source}")
    found = engine.reasons(" UNION ALL ".join(sources)) if sources else []
    cut = [
        (part.file.id, part.file.path, one.column, one.code, one.count, one.samples)
        for part in parts
        if part.facts.cut is not None
        for one in part.facts.cut.reasons
    ]
    return tuple(
        Quarantined(
            run_id=ctx.run_id,
            pipeline=ctx.pipeline.name,
            batch=ctx.batch,
            model=engine.contract.model,
            file_id=file_id,
            path=path,
            column=column,
            code=code,
            count=count,
            samples=samples,
            token=ctx.token,
        )
        for file_id, path, column, code, count, samples in sorted([*found, *cut], key=lambda one: one[1:4])
    )


def _whole(ctx: RunContext, model: str, file: FileVersion, count: int) -> Quarantined:
    """What would be valid of a file that was left out whole, or all of one that could not be read."""
    return Quarantined(
        run_id=ctx.run_id,
        pipeline=ctx.pipeline.name,
        batch=ctx.batch,
        model=model,
        file_id=file.id,
        path=file.path,
        column="*",
        code="file",
        count=count,
        token=ctx.token,
    )


def _normalised(parts: Sequence[Part]) -> dict[str, Any]:
    """How many values each normalisation has changed, where there is any."""
    found = summed(part.facts.normalised for part in parts)
    return {"normalised": found} if found else {}


def proof(parts: Sequence[Part]) -> dict[str, Any]:
    each: list[dict[str, Any]] = [
        {
            "path": part.file.path,
            "lines": part.facts.lines,
            "preamble": part.facts.preamble,
            "header": part.facts.header,
            "blank": part.facts.blank,
            "trailer": part.facts.trailer,
            "valid_lines": part.facts.valid_lines,
            "rejected_lines": part.rejected_lines,
            "newlines": part.facts.newlines,
        }
        for part in parts
    ]
    names = ("lines", "preamble", "header", "blank", "trailer", "valid_lines", "rejected_lines")
    return {**{name: sum(part[name] for part in each) for name in names}, "files": each}
