"""What of a pipeline is done, in short: asked by every command, over its whole past, so nothing else is read."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import sqlalchemy as sql

from ingestkit.model import Completion, CompletionStatus, Counts, LoadMode, RunStatus, Stage, StageStatus, instant
from ingestkit.states.tables import completion, pipeline_run, pipeline_stage, run_model

Done: TypeAlias = Mapping[tuple[str, str], tuple[CompletionStatus, datetime]]
"""By (batch, model): how it was completed, and when."""

Order: TypeAlias = Callable[[str], Any]
"""Where a batch stands among others."""

# Each model of a run asks these, so that they are made once.
ALL = sql.select(completion).where(completion.c.pipeline == sql.bindparam("of"))
ANY_FULL = (
    sql.select(sql.literal(1))
    .where(
        completion.c.pipeline == sql.bindparam("of"),
        completion.c.model == sql.bindparam("one"),
        completion.c.mode == LoadMode.REPLACE.value,
        completion.c.status == CompletionStatus.DONE.value,
    )
    .limit(1)
)


def newest_after(conn: sql.Connection, pipeline: str, batch: str, order: Order) -> str | None:
    """The newest batch that was done, where that is a newer one."""
    ended = done(conn, pipeline).items()
    newer = (one for (one, _), (status, _) in ended if status is CompletionStatus.DONE and order(one) > order(batch))
    return max(newer, key=order, default=None)


def done(conn: sql.Connection, pipeline: str) -> Done:
    columns = completion.c
    query = sql.select(columns.batch, columns.model, columns.status, columns.at).where(columns.pipeline == pipeline)
    return {
        (batch, model): (CompletionStatus(status), at) for batch, model, status, at in conn.execute(query).fetchall()
    }


def windows(conn: sql.Connection, pipeline: str) -> dict[str, datetime]:
    """Where the windows that are done ended, by batch."""
    columns = completion.c
    query = (
        sql.select(columns.batch, columns.window_end)
        .distinct()
        .where(columns.pipeline == pipeline, columns.window_end.is_not(None))
    )
    return {row.batch: row.window_end for row in conn.execute(query)}


def window_end(conn: sql.Connection, pipeline: str, batch: str) -> datetime | None:
    """Where a window that is done ended."""
    query = sql.select(sql.func.max(completion.c.window_end))
    found: datetime | None = conn.execute(
        query.where(completion.c.pipeline == pipeline, completion.c.batch == batch)
    ).scalar()
    return found


def among(conn: sql.Connection, pipeline: str, batches: Sequence[str]) -> set[str]:
    """Those of a few batches of which anything is done."""
    columns = completion.c
    query = sql.select(columns.batch).where(columns.pipeline == pipeline, columns.batch.in_(batches))
    return set(conn.execute(query).scalars())


def any_full(conn: sql.Connection, pipeline: str, model: str) -> bool:
    """Whether any batch has replaced the whole model."""
    return conn.execute(ANY_FULL, {"of": pipeline, "one": model}).first() is not None


def is_any(conn: sql.Connection, pipeline: str) -> bool:
    """Whether anything of the pipeline is done."""
    query = sql.select(sql.literal(1)).select_from(completion).where(completion.c.pipeline == pipeline)
    return conn.execute(query.limit(1)).first() is not None


def newest(keys: Iterable[tuple[str, str]], order: Order) -> dict[str, str]:
    """The newest of these batches by model."""
    found: dict[str, str] = {}
    for batch, model in keys:
        if model not in found or order(found[model]) < order(batch):
            found[model] = batch
    return found


def whole(
    conn: sql.Connection, pipeline: str, batch: str | None = None, model: str | None = None
) -> dict[tuple[str, str], tuple[Completion, datetime]]:
    """The pipeline's completions by (batch, model), with when each was written; all, or those of one batch or model."""
    query, given = ALL, {"of": pipeline}
    if batch is not None:
        query, given = query.where(completion.c.batch == sql.bindparam("key")), given | {"key": batch}
    if model is not None:
        query, given = query.where(completion.c.model == sql.bindparam("one")), given | {"one": model}
    return {(one.batch, one.model): (one, at) for one, at in _completions(conn, query, given)}


def some(conn: sql.Connection, pipeline: str, batches: Collection[str]) -> dict[tuple[str, str], Completion]:
    """The completions of a few batches by (batch, model)."""
    query = ALL.where(completion.c.batch.in_(batches))
    return {(one.batch, one.model): one for one, _ in _completions(conn, query, {"of": pipeline})}


def each(conn: sql.Connection, pipeline: str, newest: Mapping[str, str]) -> dict[str, tuple[Completion, datetime]]:
    """The completion of each model in the batch that is named for it, with when it was written."""
    found = {batch: whole(conn, pipeline, batch) for batch in set(newest.values())}
    return {model: found[batch][batch, model] for model, batch in newest.items()}


def _completions(
    conn: sql.Connection, query: sql.Select[Any], given: Mapping[str, Any] | None = None
) -> Iterator[tuple[Completion, datetime]]:
    names = completion.columns.keys()
    for row in conn.execute(query, given).fetchall():
        fields = dict(zip(names, row, strict=True))
        at = fields.pop("at")
        mode = fields["mode"]
        fields["mode"] = LoadMode(mode) if mode else None
        fields["status"] = CompletionStatus(fields["status"])
        fields["counts"] = Counts.from_json(fields["counts"])
        yield Completion(**fields), at


MAY_PIN = ("as_of", "restore")
"""Kinds of runs that may publish the files of an earlier time."""
AT_ONCE = 50
"""So many loads are read at once while what ended a pin is looked for."""


@dataclass(frozen=True, slots=True)
class Published:
    """What a done completion says was published."""

    mode: LoadMode
    generation: int
    digest: str | None


def published(conn: sql.Connection, pipeline: str, models: Iterable[str]) -> dict[tuple[str, str], Published]:
    """By (batch, model): what every completion of status done published."""
    return _meant(conn, pipeline, models, CompletionStatus.DONE)


def superseded(conn: sql.Connection, pipeline: str, models: Iterable[str]) -> dict[tuple[str, str], Published]:
    """By (batch, model): what was not published, since what a newer batch had published stood over it."""
    return _meant(conn, pipeline, models, CompletionStatus.SUPERSEDED)


def _meant(
    conn: sql.Connection, pipeline: str, models: Iterable[str], status: CompletionStatus
) -> dict[tuple[str, str], Published]:
    columns = completion.c
    query = sql.select(columns.batch, columns.model, columns.mode, columns.generation, columns.digest).where(
        columns.pipeline == pipeline,
        columns.status == status.value,
        columns.model.in_(list(models)),
        # A snapshot that was passed over for one that waited was never meant for the target.
        columns.mode.is_not(None),
    )
    return {
        (batch, model): Published(LoadMode(mode), generation, digest)
        for batch, model, mode, generation, digest in conn.execute(query).fetchall()
    }


def unjudged(conn: sql.Connection, pipeline: str) -> dict[str, set[str]]:
    """By batch: the models whose newest content is published, and which no gate has let pass."""
    return _by_batch(conn, _not_completed(pipeline).where(pipeline_run.c.status.not_in(PASSED)))


def not_completed(conn: sql.Connection, pipeline: str) -> dict[str, set[str]]:
    """By batch: the models whose newest content is published and unjudged, or was done before a reset."""
    return _by_batch(conn, _not_completed(pipeline))


PASSED = (RunStatus.SUCCESS.value, RunStatus.SUCCESS_WITH_REJECTS.value)


def _not_completed(pipeline: str) -> sql.Select[Any]:
    done = sql.select(sql.literal(1)).where(
        completion.c.pipeline == run_model.c.pipeline,
        completion.c.batch == run_model.c.batch,
        completion.c.model == run_model.c.model,
        (completion.c.generation >= run_model.c.generation) | (completion.c.status != CompletionStatus.DONE.value),
    )
    loaded = sql.select(sql.literal(1)).where(
        pipeline_stage.c.run_id == run_model.c.run_id,
        pipeline_stage.c.model == run_model.c.model,
        pipeline_stage.c.stage == Stage.LOAD.value,
        # Skipped is also what found the receipt of a process that died behind its commit.
        pipeline_stage.c.status.in_([StageStatus.SUCCESS.value, StageStatus.SKIPPED.value]),
    )
    return (
        sql.select(run_model.c.batch, run_model.c.model)
        .join(pipeline_run, pipeline_run.c.run_id == run_model.c.run_id)
        .where(run_model.c.pipeline == pipeline, run_model.c.generation.is_not(None))
        .where(~sql.exists(done), sql.exists(loaded))
    )


def _by_batch(conn: sql.Connection, query: sql.Select[Any]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for batch, model in conn.execute(query):
        found.setdefault(batch, set()).add(model)
    return found


def left_behind(conn: sql.Connection, pipeline: str, batch: str, model: str) -> int | None:
    """How many keys a batch has left in the target since that was last built again; None where it is unknown of any.

    One that came back is counted all the same.
    """
    columns = pipeline_stage.c
    loads = (
        sql.select(columns.sidecar, pipeline_run.c.kind)
        .join(pipeline_run, pipeline_run.c.run_id == columns.run_id)
        .where(pipeline_run.c.pipeline == pipeline, pipeline_run.c.batch == batch)
        .where(columns.stage == Stage.LOAD.value, columns.model == model, columns.sidecar.is_not(None))
        .order_by(pipeline_run.c.number)
    )
    # What was found published already is the receipt of an earlier load again.
    merged: dict[tuple[int, datetime], int | None] = {}
    for sidecar, kind in conn.execute(loads):
        made = _loaded(batch, sidecar)
        if kind == "restore":
            merged.clear()
        elif made is not None and made.mode is LoadMode.MERGE:
            merged[made.since] = sidecar["counts"].get("left_behind")
    known = [keys for keys in merged.values() if keys is not None]
    return sum(known) if len(known) == len(merged) else None


@dataclass(frozen=True, slots=True)
class Pin:
    """A batch of a model that stands in the target with the files of an earlier time, by a person's decision."""

    model: str
    batch: str
    as_of: datetime
    run_id: str
    since: datetime


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What a load left in the target: its receipt's token and time, and those of what was written down of it."""

    batch: str
    mode: LoadMode
    alone: bool
    """Whether what it left is all that the table held then, and not beside what newer changes had said."""
    since: tuple[int, datetime]
    recorded: tuple[int, datetime]

    @property
    def order(self) -> tuple[tuple[int, datetime], ...]:
        return self.since, self.recorded


def pins(conn: sql.Connection, pipeline: str, order: Order) -> list[Pin]:
    """The pins in force: what they published has not been published again since, nor a snapshot over it."""
    columns = pipeline_stage.c
    loaded = (
        sql.select(columns.batch, columns.model, columns.run_id, columns.sidecar, pipeline_run.c.config)
        .join(pipeline_run, pipeline_run.c.run_id == columns.run_id)
        .where(pipeline_run.c.pipeline == pipeline, pipeline_run.c.kind.in_(MAY_PIN))
        .where(columns.stage == Stage.LOAD.value, columns.sidecar.is_not(None))
    )
    put_back: dict[tuple[str, str], tuple[_Loaded, Pin]] = {}
    for row in conn.execute(loaded):
        made, as_of = _loaded(row.batch, row.sidecar), row.config.get("as_of")
        if made is None or not as_of:
            continue
        pin = Pin(row.model, row.batch, instant(as_of), row.run_id, made.since[1])
        before = put_back.get((row.model, row.batch))
        if before is None or before[0].order < made.order:
            put_back[row.model, row.batch] = made, pin
    return [pin for _, (made, pin) in sorted(put_back.items()) if not _ended(conn, pipeline, pin.model, made, order)]


def _ended(conn: sql.Connection, pipeline: str, model: str, put_back: _Loaded, order: Order) -> bool:
    columns = pipeline_stage.c
    # A row's token is never below that of what it was last written from. What ended a pin is mostly the newest.
    later = (
        sql.select(columns.batch, columns.sidecar)
        .where(columns.pipeline == pipeline, columns.stage == Stage.LOAD.value, columns.model == model)
        .where(columns.sidecar.is_not(None), columns.token >= put_back.since[0])
        .order_by(columns.token.desc())
        .execution_options(yield_per=AT_ONCE)
    )
    with conn.execute(later) as rows:
        others = (_loaded(row.batch, row.sidecar) for row in rows)
        return any(one is not None and _ends(one, put_back, order) for one in others)


def _loaded(batch: str, sidecar: Mapping[str, Any]) -> _Loaded | None:
    """What a load published, or found published; None where there was nothing to publish."""
    details = sidecar["details"]
    if "intent" not in details or details.get("superseded_by"):
        return None
    recorded = sidecar["token"], instant(sidecar["at"])
    # Sidecars that say nothing of it are of a time when nobody asked.
    said = details.get("published")
    since = (said["token"], instant(said["at"])) if said else recorded
    alone = sidecar["counts"].get("superseded") is None
    return _Loaded(batch, LoadMode(details["intent"]["mode"]), alone, since, recorded)


def _ends(other: _Loaded, put_back: _Loaded, order: Order) -> bool:
    """Whether a load ended a pin: a snapshot published over it, or its batch loaded again where that is no snapshot.

    A newer batch's snapshot does, also where it went under changes that are newer still.
    """
    over = other.alone or order(other.batch) >= order(put_back.batch)
    if other.mode is LoadMode.REPLACE and over:
        return other.since > put_back.since
    return other.batch == put_back.batch and other.recorded > put_back.recorded
