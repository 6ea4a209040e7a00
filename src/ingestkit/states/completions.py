"""What of a pipeline is done, in short: asked by every command, over its whole past, so nothing else is read."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import sqlalchemy as sql

from ingestkit.model import Completion, CompletionStatus, Counts, LoadMode, Stage, StageStatus
from ingestkit.states.tables import completion, pipeline_stage, run_model

Done: TypeAlias = Mapping[tuple[str, str], tuple[CompletionStatus, datetime]]
"""By (batch, model): how it was completed, and when."""


def done(conn: sql.Connection, pipeline: str) -> Done:
    columns = completion.c
    query = sql.select(columns.batch, columns.model, columns.status, columns.at).where(columns.pipeline == pipeline)
    return {
        (batch, model): (CompletionStatus(status), at) for batch, model, status, at in conn.execute(query).fetchall()
    }


def newest(keys: Iterable[tuple[str, str]], order: Callable[[str], Any]) -> dict[str, str]:
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
    query = sql.select(completion).where(completion.c.pipeline == pipeline)
    if batch is not None:
        query = query.where(completion.c.batch == batch)
    if model is not None:
        query = query.where(completion.c.model == model)
    return {(one.batch, one.model): (one, at) for one, at in _completions(conn, query)}


def some(conn: sql.Connection, pipeline: str, model: str, batches: Sequence[str]) -> list[Completion]:
    """The completions of one model in a few batches."""
    query = sql.select(completion).where(
        completion.c.pipeline == pipeline, completion.c.model == model, completion.c.batch.in_(batches)
    )
    return [one for one, _ in _completions(conn, query)]


def _completions(conn: sql.Connection, query: sql.Select[Any]) -> Iterator[tuple[Completion, datetime]]:
    names = completion.columns.keys()
    for row in conn.execute(query).fetchall():
        fields = dict(zip(names, row, strict=True))
        at = fields.pop("at")
        mode = fields["mode"]
        fields["mode"] = LoadMode(mode) if mode else None
        fields["status"] = CompletionStatus(fields["status"])
        fields["counts"] = Counts.from_json(fields["counts"])
        yield Completion(**fields), at


@dataclass(frozen=True, slots=True)
class Published:
    """What a done completion says was published."""

    mode: LoadMode
    generation: int
    digest: str | None


def published(conn: sql.Connection, pipeline: str, models: Iterable[str]) -> dict[tuple[str, str], Published]:
    """By (batch, model): what every completion of status done published."""
    columns = completion.c
    query = sql.select(columns.batch, columns.model, columns.mode, columns.generation, columns.digest).where(
        columns.pipeline == pipeline,
        columns.status == CompletionStatus.DONE.value,
        columns.model.in_(list(models)),
    )
    return {
        (batch, model): Published(LoadMode(mode), generation, digest)
        for batch, model, mode, generation, digest in conn.execute(query).fetchall()
    }


def unjudged(conn: sql.Connection, pipeline: str) -> dict[str, set[str]]:
    """By batch: the models whose newest content is published, and which no gate has let pass."""
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
    query = sql.select(run_model.c.batch, run_model.c.model).where(
        run_model.c.pipeline == pipeline, run_model.c.generation.is_not(None), ~sql.exists(done), sql.exists(loaded)
    )
    found: dict[str, set[str]] = {}
    for batch, model in conn.execute(query):
        found.setdefault(batch, set()).add(model)
    return found
