"""Load: what is to be published of a batch, and the one transaction that publishes it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ingestkit.errors import ContractError, GateClosed, WarehouseError
from ingestkit.files import shown
from ingestkit.model import (
    Artifact,
    ArtifactKind,
    Counts,
    Fence,
    FileStatus,
    FileVersion,
    Intent,
    LoadMode,
    Receipt,
    Rule,
    Stage,
    Window,
    Work,
    digest_of,
)
from ingestkit.pipeline import Pipeline, RunContext
from ingestkit.ports import Load, Publication, Rejects, Said, TargetColumn, ValidFile
from ingestkit.stages import standing
from ingestkit.stages.tables import Table, evolve_all, loads, refuse_behind


@dataclass(frozen=True, slots=True)
class Stood:
    mode: LoadMode
    digest: str | None


@dataclass(frozen=True, slots=True)
class Given:
    """What the state knows of one model of the batch when its load is planned."""

    model: str
    files: tuple[FileVersion, ...]
    """The file set: every file the model is published from."""
    replaced: tuple[FileVersion, ...]
    """Older versions of these paths, whose place they take."""
    let_go: tuple[FileVersion, ...]
    """Forgotten versions whose rows are still published."""
    made: tuple[Artifact, ...]
    """What this run's validate left or reused: valid rows, rejects, and the records left out for their keys."""
    others: tuple[Artifact, ...]
    """Every other artifact of this batch and model."""
    kept: Intent | None
    """What this run, or the one it took over, meant to publish already."""
    redo: bool
    highest: int
    """The highest generation that completion or run_model knows."""
    newer: Mapping[str, tuple[Artifact, ...]]
    """What newer batches published, by batch: valid rows, and the records left out for their keys."""
    meant: Mapping[str, Mapping[str, tuple[str, ...]]]
    """What `delete_when` and `flag_when` say, in the words of valid rows."""
    evolved: tuple[str, ...] = ()
    """Columns beyond the contract's that files have added to the target."""
    stood: Stood | None = None
    """Of a target that is built again: what it held of this batch."""
    forgotten: frozenset[str] = frozenset()
    """Versions of the file set that stay forgotten, though an earlier time is put back that knew them."""
    puts_back: bool = False
    """Whether old content is wanted in place of what newer batches have said."""
    tables: tuple[Table, ...] = ()
    """Of a model of many tables: what its archive says of them."""
    behind: str | None = None
    """The newest batch that is done, where that is a newer one."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One model's load, of each of its tables, or the batch that supersedes it."""

    model: str
    intent: Intent
    loads: tuple[Load, ...] = ()
    superseded_by: str | None = None
    stays: Receipt | None = None
    """Of a superseded one: the receipt by which the target holds this batch all the same, since it was put back."""


@dataclass(frozen=True, slots=True)
class Published:
    """The receipts that now stand; and of the models published now, the rules judged before COMMIT and what is told."""

    receipts: Mapping[str, Receipt] = field(default_factory=dict)
    rules: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def intended(
    pipeline: Pipeline, batch: str, window: Window | None, given: Given, receipts: Sequence[Receipt]
) -> Intent:
    """Which generation of which content this run means to publish."""
    digest = digest_of(given.files)
    own = standing.own(receipts, given.model, batch)
    mode = _mode(pipeline, batch, given, digest, receipts)
    settings = pipeline.load_settings(given.model, window, mode)
    gone = own.generation if own is not None and _buried(pipeline, own, mode, receipts) else 0
    alike = own is not None and (own.digest, own.settings, own.mode) == (digest, settings, mode)
    if own is not None and alike and not (given.redo or gone):
        return Intent(given.model, own.generation, digest, settings, mode)
    kept = given.kept
    meant = (digest, settings, mode)
    if kept is not None and (kept.digest, kept.settings, kept.mode) == meant and kept.generation > gone:
        return kept
    highest = max(given.highest, own.generation if own else 0)
    return Intent(given.model, highest + 1, digest, settings, mode)


def _buried(pipeline: Pipeline, own: Receipt, mode: LoadMode, receipts: Sequence[Receipt]) -> bool:
    """Whether an older snapshot was put in place of what this batch has published, where no newer one stands over it.

    Its receipt is there and its rows are not.
    """
    changes = own.mode is LoadMode.MERGE or pipeline.model(own.model).takes_changes
    if changes or standing.newer_content(pipeline, own.batch, own.model, mode, receipts):
        # Beside files of changes, an older full file takes the place of its own rows alone.
        return False
    order = pipeline.order
    return any(
        one.mode is LoadMode.REPLACE and order(one.batch) < order(own.batch) and one.since > own.since
        for one in receipts
        if one.model == own.model
    )


def _mode(pipeline: Pipeline, batch: str, given: Given, digest: str, receipts: Sequence[Receipt]) -> LoadMode:
    """How these files are loaded: as their names say; what is built again, as it was."""
    stood, own = given.stood, standing.own(receipts, given.model, batch)
    if stood is not None and (stood.digest == digest or not given.files):
        return stood.mode
    mode = pipeline.mode(given.model, given.files)
    before = stood.mode if stood is not None else own.mode if own is not None else mode
    if mode is before:
        return mode
    if mode is LoadMode.MERGE and pipeline.model(given.model).takes_changes:
        raise ContractError(
            f"{given.model}: batch {batch} was published as all there is, and its files hold changes alone now: what "
            "they had replaced is not known any more",
            hint="have the full file delivered again, or the changes as a batch of their own",
        )
    known = {file.path for file in (*given.files, *given.replaced) if file.loaded is not None}
    here = sorted(known & {file.path for file in given.files})
    widened = here and (before, mode) == (LoadMode.MERGE, LoadMode.REPLACE)
    if widened and standing.newer_content(pipeline, batch, given.model, mode, receipts) is None:
        raise ContractError(
            f"{given.model}: {shown(here[0])} was published as changes, and is a full file by the model as it is now",
            hint=f"set `load` and `delta` of the model back to what they were then, or keep what is published: "
            f"ingestkit skip {pipeline.name} --batch {batch} --reason '...'",
        )
    return mode


def _has_full(pipeline: Pipeline, model: str, receipts: Sequence[Receipt]) -> bool:
    """Whether changes are all that is ever said, or there is something that they change."""
    if not pipeline.model(model).takes_changes:
        return True
    return any(one.mode is LoadMode.REPLACE for one in receipts if one.model == model)


def plan(ctx: RunContext, given: Given, receipts: Sequence[Receipt]) -> Planned:
    """The load of one model, as its target stands now."""
    intent = intended(ctx.pipeline, ctx.batch, ctx.window, given, receipts)
    if ctx.pipeline.many:
        refuse_behind(ctx, given.behind, intent.mode)
        [file] = given.files
        return Planned(given.model, intent, tuple(loads(ctx, intent, given.tables, file.id, given.made)))
    alone = standing.stands_alone(ctx.pipeline, ctx.batch, given.model, intent.mode, receipts)
    goes_before = given.puts_back and alone
    by = None if goes_before else standing.superseded_by(ctx.pipeline, ctx.batch, intent, receipts)
    if by is not None:
        return Planned(given.model, intent, (), by, stays=_put_back(receipts, given.model, ctx.batch))
    current = _valid_files(ctx, given)
    newer: list[Artifact] = []
    previous: Said | None = Said()
    own = standing.own(receipts, given.model, ctx.batch)
    published = own is not None and own.answers(intent)
    if own is None and intent.mode is LoadMode.MERGE and not _has_full(ctx.pipeline, given.model, receipts):
        ctx.progress.warned(
            f"{given.model}: batch {ctx.batch} holds changes, and no full file was loaded before: rows that no change "
            "speaks of are not in the table",
            hint="have a full file delivered; it takes the place of all rows but those of newer changes",
        )
    behind = intent.mode is LoadMode.MERGE or (intent.mode is LoadMode.REPLACE and not alone)
    if behind and not published:
        for receipt in standing.newer_than(ctx.pipeline, ctx.batch, given.model, receipts):
            found = given.newer.get(receipt.batch, ())
            if not any(one.kind is ArtifactKind.VALID for one in found) and (receipt.counts.staged or 0) > 0:
                raise _gone(ctx, given.model, receipt.batch)
            newer.extend(found)
        _hold(ctx, given.model, newer)
        previous = _previous(ctx, given, own) if intent.mode is LoadMode.MERGE else previous
    contract = ctx.pipeline.columns(given.model)
    known = {column.name.casefold() for column in contract}
    evolved = tuple(name for name in given.evolved if name.casefold() not in known)
    load = Load(
        intent=intent,
        table=ctx.pipeline.table(given.model),
        columns=(*contract, *(TargetColumn(name, "string") for name in evolved)),
        deletes=given.meant["delete_when"],
        flags=given.meant["flag_when"],
        evolved=evolved,
        key=ctx.pipeline.model(given.model).key,
        files=current,
        losers=_losers(ctx, given),
        newer=_said(ctx, newer),
        previous=previous,
        lineage=ctx.pipeline.lineage(),
        bounds=ctx.pipeline.bounds(given.model, ctx.window),
        copying=ctx.pipeline.copying(given.model),
        rejects=_rejects(ctx, given),
    )
    return Planned(given.model, intent, (load,))


def publish(ctx: RunContext, planned: Sequence[Planned], expected: Mapping[str, int]) -> Published:
    """Publish these models in one transaction; `expected` is how many valid rows each load must stage, by its name."""
    every = tuple(load for one in sorted(planned, key=lambda one: one.model) for load in one.loads)
    if not every:
        return Published()
    _evolve(ctx, every)
    # What is built again is loaded as it was, whatever its model says now.
    written = {table: modes for one in every for table, modes in ctx.pipeline.written(one.intent.model).items()}
    written |= {load.table: written.get(load.table, frozenset()) | {load.intent.mode} for load in every}
    for remark in ctx.warehouse.remarks(ctx.pipeline.name, written):
        ctx.progress.warned(remark)
    by_name = {load.name: load.intent for load in every}
    rules: dict[str, tuple[Rule, ...]] = {}
    facts: dict[str, Mapping[str, Any]] = {}

    def judge(name: str, counts: Counts, figures: Mapping[str, int]) -> None:
        emptied = _emptied(ctx.pipeline, by_name[name], counts)
        rules[name] = (*judged(name, counts, figures, expected[name]), *emptied)
        for rule in rules[name]:
            if rule.passed is False:
                error = GateClosed(
                    f"{name}: {rule.name} is {rule.figure:g} where {rule.limit:g} is the limit; nothing was published",
                    hint=f"ingestkit runs show {ctx.run_id}",
                )
                error.incident = "counts" if rule.name in OF_COUNTS else None
                raise error

    publication = Publication(
        pipeline=ctx.pipeline.name,
        batch=ctx.batch,
        run_id=ctx.run_id,
        state_id=ctx.state_id,
        token=ctx.token,
        loads=every,
        judge=judge,
        told=facts.__setitem__,
    )
    return Published(ctx.warehouse.publish(publication), rules, facts)


def _evolve(ctx: RunContext, loads: Sequence[Load]) -> None:
    """Make the tables that are to be published into, or add what they lack; nothing where one of them is another's."""
    if ctx.pipeline.many:
        evolve_all(ctx, loads)
        return
    for load in loads:
        if load.rejects is not None:
            standing.refuse_of_another(ctx.warehouse, (ctx.pipeline.name, load.intent.model), load.rejects.table)
    for load in loads:
        ctx.stop.check()
        mine = Fence(ctx.pipeline.name, load.intent.model, ctx.state_id, ctx.token, load.table)
        wanted = [(load.table, load.columns, load.lineage)]
        if load.rejects is not None:
            wanted.append((load.rejects.table, load.rejects.columns, load.rejects.lineage))
        for table, columns, lineage in wanted:
            for statement in ctx.warehouse.evolve(table, columns, lineage, mine=mine):
                ctx.progress.said(f"changed {table}", ddl=statement)


OF_COUNTS = ("valid_not_staged", "target_unaccounted")


def judged(model: str, counts: Counts, facts: Mapping[str, int], expected: int) -> tuple[Rule, ...]:
    """The rules no approval reaches: every valid row staged, the target accounted for, keys unique and not null."""
    staged, target = counts.staged or 0, counts.target or 0
    figures = {
        "valid_not_staged": expected - staged,
        "target_unaccounted": facts["expected_target"] - target,
        "key_nulls": facts["key_nulls"],
        "key_duplicates": facts["key_duplicates"],
    }
    return tuple(
        Rule(name, Stage.LOAD, model, float(figure), 0.0, figure == 0, approvable=False)
        for name, figure in figures.items()
    )


def _emptied(pipeline: Pipeline, intent: Intent, counts: Counts) -> tuple[Rule, ...]:
    """The rule for full files whose rows may all say that their keys are gone: as of a file without rows."""
    if intent.mode is not LoadMode.REPLACE or counts.deletes is None or pipeline.model(intent.model).allow_empty:
        return ()
    # A key of which newer changes speak is not gone by this file.
    left = (counts.loaded or 0) + (counts.superseded or 0) > 0 or not counts.deletes
    return (Rule("all_gone", Stage.LOAD, intent.model, float(not left), 0.0, left, approvable=False),)


def read_back(ctx: RunContext, given: Given, planned: Planned, published: Published) -> Work:
    """The rows a published, or superseded, model leaves in the state."""
    known = [*given.made, *given.others]
    receipt = published.receipts.get(given.model)
    rules = tuple(rule for load in planned.loads for rule in published.rules.get(load.name, ()))
    details = {"intent": _shown(planned.intent)}
    if receipt is None:
        return _superseded(ctx, given, planned, details)
    used = {file.id for file in given.files}
    current = {one.path for one in given.made}
    current |= {one.path for one in given.others if one.kind is ArtifactKind.RAW and one.file_id in used}
    return Work(
        counts=receipt.counts,
        files=(
            *(
                # Rows that a newer batch or a deletion left unwritten are known file by file only where there is one.
                replace(
                    _now(ctx, file, FileStatus.LOADED),
                    loaded=receipt.counts.loaded if len(given.files) == 1 else file.valid,
                )
                for file in given.files
                if file.id not in given.forgotten
            ),
            *(_now(ctx, file, FileStatus.FORGOTTEN) for file in given.files if file.id in given.forgotten),
            *(_now(ctx, file, FileStatus.SUPERSEDED) for file in given.replaced),
            *let_go(ctx, given.let_go),
        ),
        artifacts=tuple(
            replace(one, status="published" if one.path in current else "superseded", token=ctx.token) for one in known
        ),
        rules=rules,
        details={
            **details,
            "receipt_run": receipt.run_id,
            "published": {"token": receipt.token, "at": receipt.at.isoformat()},
            **({"warehouse": dict(published.facts[given.model])} if given.model in published.facts else {}),
        },
        skipped=None if rules else f"published already by {receipt.run_id}",
    )


def _superseded(ctx: RunContext, given: Given, planned: Planned, details: Mapping[str, Any]) -> Work:
    """What a superseded model leaves; of a batch that was put back, what stands in the target is left as it is."""
    known, by = [*given.made, *given.others], planned.superseded_by
    told, stays = f"superseded by {by}", planned.stays
    details = {**details, "superseded_by": by}
    standing = [one for one in known if stays is not None and one.status == "published"]
    published = {one.file_id for one in standing if one.kind is ArtifactKind.VALID}
    mine = [file for file in given.files if file.id not in given.forgotten]
    if stays is not None:
        told += "; what was put back stays"
        details["stays"] = stays.generation
    return Work(
        files=(
            *(_now(ctx, file, FileStatus.LOADED) for file in mine if file.id in published),
            *(replace(_now(ctx, file, FileStatus.SUPERSEDED), loaded=0) for file in mine if file.id not in published),
            *(_now(ctx, file, FileStatus.FORGOTTEN) for file in given.files if file.id in given.forgotten),
            *(_now(ctx, file, FileStatus.SUPERSEDED) for file in given.replaced if file.id not in published),
            *let_go(ctx, [file for file in given.let_go if file.id not in published]),
        ),
        artifacts=tuple(replace(one, status="superseded", token=ctx.token) for one in known if one not in standing),
        details=details,
        skipped=told,
    )


def let_go(ctx: RunContext, files: Sequence[FileVersion]) -> tuple[FileVersion, ...]:
    """Forgotten versions that the batch has gone on without."""
    return tuple(replace(_now(ctx, file, FileStatus.FORGOTTEN), loaded=0) for file in files)


def _valid_files(ctx: RunContext, given: Given) -> tuple[ValidFile, ...]:
    """The valid rows of each file of the set, in path order."""
    made = {one.file_id: one for one in given.made if one.kind is ArtifactKind.VALID}
    files = []
    for file in given.files:
        artifact = made.get(file.id)
        if artifact is None or not ctx.holds(artifact):
            raise WarehouseError(
                f"the valid rows of {file.path} are not in the lake as they were made",
                hint=f"ingestkit validate {ctx.pipeline.name} --run-id {ctx.run_id} --force",
            )
        files.append(ValidFile(ctx.lake.store.path(artifact.path), file.path, file.id, artifact.rows or 0))
    return tuple(files)


def _losers(ctx: RunContext, given: Given) -> Path | None:
    keys = [one for one in given.made if one.kind is ArtifactKind.REJECTS and one.file_id is None]
    _hold(ctx, given.model, keys)
    return ctx.lake.store.path(keys[0].path) if keys else None


def _rejects(ctx: RunContext, given: Given) -> Rejects | None:
    """What validate rejected of the batch, where the target has a table for it."""
    beside = ctx.pipeline.rejects(given.model)
    if beside is None:
        return None
    made = [one for one in given.made if one.kind is ArtifactKind.REJECTS and one.file_id is not None]
    _hold(ctx, given.model, made)
    return replace(beside, files=tuple(ctx.lake.store.path(one.path) for one in made), losers=_losers(ctx, given))


def _previous(ctx: RunContext, given: Given, own: Receipt | None) -> Said | None:
    """What the batch's earlier generation said; None where the lake does not hold all of it any more."""
    found = [one for one in given.others if one.status == "published" and tells_keys(one)]
    told = own is None or not own.counts.staged or any(one.kind is ArtifactKind.VALID for one in found)
    if told and all(ctx.holds(one) for one in found):
        return _said(ctx, found)
    if own is not None and not (given.replaced or given.let_go) and _is_judged_as(ctx, given, own):
        # All its files are of this generation too, and say again what they said.
        return Said()
    ctx.progress.warned(
        f"{given.model}: what the batch said before is no longer in the lake; what of it stays is unknown"
    )
    return None


def _is_judged_as(ctx: RunContext, given: Given, own: Receipt) -> bool:
    return own.settings == ctx.pipeline.load_settings(given.model, ctx.window, own.mode)


def tells_keys(artifact: Artifact) -> bool:
    """Whether an artifact says which keys a batch speaks of: valid rows do, and the records left out of them."""
    return artifact.kind is ArtifactKind.VALID or (artifact.kind is ArtifactKind.REJECTS and artifact.file_id is None)


def _said(ctx: RunContext, artifacts: Sequence[Artifact]) -> Said:
    place = ctx.lake.store.path
    return Said(
        tuple(
            ValidFile(place(one.path), "", one.file_id, one.rows or 0) for one in artifacts if one.file_id is not None
        ),
        tuple(place(one.path) for one in artifacts if one.file_id is None),
    )


def _hold(ctx: RunContext, model: str, artifacts: Sequence[Artifact]) -> None:
    for one in artifacts:
        if not ctx.holds(one):
            raise _gone(ctx, model, one.batch)


def _gone(ctx: RunContext, model: str, batch: str) -> WarehouseError:
    again = f"to make them again: {ctx.pipeline.done_again(batch, '--model', model)}"
    skip = f"ingestkit skip {ctx.pipeline.name} --batch {shlex.quote(ctx.batch)} --reason '...'"
    return WarehouseError(
        f"{model}: batch {ctx.batch} cannot be merged after {batch}, whose valid rows are no longer in the lake"
        f"{'' if ctx.pipeline.keeps else ' (keep: none)'}",
        hint=again if ctx.pipeline.keeps else f"to leave what is published as it is: {skip}",
    )


def _put_back(receipts: Sequence[Receipt], model: str, batch: str) -> Receipt | None:
    """The receipt of a snapshot that was published after all others of its model: it is what the target holds."""
    newest = max((one for one in receipts if one.model == model), key=lambda one: one.since, default=None)
    stands = newest is not None and newest.batch == batch and newest.mode is LoadMode.REPLACE
    return newest if stands else None


def _now(ctx: RunContext, file: FileVersion, status: FileStatus) -> FileVersion:
    return replace(file, status=status, run_id=ctx.run_id, token=ctx.token)


def _shown(intent: Intent) -> dict[str, object]:
    return {
        "generation": intent.generation,
        "digest": intent.digest,
        "settings": intent.settings,
        "mode": intent.mode.value,
    }
