"""A run being worked on: what a stage of it is given, and what the state knows of it."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from statistics import median

from ingestkit.errors import LakeError
from ingestkit.files import shown
from ingestkit.model import (
    Artifact,
    FileStatus,
    FileVersion,
    LoadMode,
    Stage,
    safe_name,
)
from ingestkit.pipeline import RunContext
from ingestkit.session import Session
from ingestkit.sighting import Unit
from ingestkit.states import completions, ledger, stage_rows
from ingestkit.states.lease import Lease
from ingestkit.states.runs import Run
from ingestkit.states.stage_rows import StageRow

FROM_LAKE = ("restore", "from_lake", "as_of", "replay")
"""Kinds of runs that ask no source."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the state knows of a run and its batch where a stage begins; nobody else changes it under the lease."""

    rows: Mapping[tuple[Stage, str], StageRow]
    files: Sequence[FileVersion]
    meant: Sequence[FileVersion]
    """The files this run is about: those of the ledger, or those it knew at the run's instant."""
    leaving: AbstractSet[str] = frozenset()
    """Raw objects that a clean has let go of: they may lie there still, and be taken away at any moment."""
    made: Sequence[Artifact] = ()

    def candidates(self, model: str) -> tuple[FileVersion, ...]:
        """The files the model is validated from; LakeError where one of them is about to go."""
        found = ledger.candidates(self.meant, model)
        lost = [shown(file.raw) for file in found if file.raw is not None and file.raw in self.leaving]
        if lost:
            raise LakeError(
                f"batch {found[0].batch} is not kept any more: {lost[0]} was let go of, and could not be removed",
                hint="let the lake allow it to be removed (docs/lakes.md), then run again",
            )
        return found

    def forgotten(self) -> frozenset[str]:
        """The ids of what a person has forgotten."""
        return frozenset(file.id for file in self.files if file.status is FileStatus.FORGOTTEN)

    def artifacts(self, model: str) -> list[Artifact]:
        return [one for one in self.made if one.model == model]

    def landed(self, model: str) -> list[FileVersion]:
        """The files of the model that are in the lake to stay."""
        return [file for file in ledger.candidates(self.meant, model) if file.raw not in self.leaving]


@dataclass(frozen=True, slots=True)
class Active:
    """A run being worked on: its models that are open and held, and what this command has recorded of it."""

    session: Session
    lease: Lease
    run: Run
    models: tuple[str, ...]
    unit: Unit
    again: frozenset[Stage] = frozenset()
    """Stages to be done again whatever is there."""
    usual_rows: Mapping[str, float] = field(default_factory=dict)
    """The median of the rows of some done batches before this one, by model: what a row delta is judged against."""
    rows_at_most: int | None = None
    """How many records of each file a rehearsal reads."""
    sequence: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def batch(self) -> str:
        assert self.run.batch is not None
        return self.run.batch

    @property
    def pipeline_name(self) -> str:
        return self.session.pipeline.name

    def context(self) -> RunContext:
        session = self.session
        return RunContext(
            pipeline=session.pipeline,
            run_id=self.run.run_id,
            batch=self.batch,
            token=self.lease.token,
            state_id=self.lease.state_id,
            source=session.source,
            lake=session.lake,
            warehouse=session.warehouse,
            scratch=session.scratch / safe_name(f"{self.run.run_id}.{self.lease.token}"),
            clock=session.clock,
            stop=session.stop,
            progress=session.progress,
            threads=session.jobs,
            memory_limit=_share(session.settings.memory_limit, min(session.jobs, len(self.models))),
            window=self.run.window,
            facts={"usual_rows": self.usual_rows, "rows_at_most": self.rows_at_most},
        )

    def known(self, *, raw: bool = False, made: bool = False) -> Known:
        """What the state says of the batch; who counts on its raw objects is told which are about to go.

        And of what was `made` of it, where that is wanted.
        """
        with self.session.state.read() as conn:
            leaving = ledger.raw_being_removed(conn, self.pipeline_name, self.batch, self.models) if raw else ()
            files = ledger.versions(conn, self.pipeline_name, [self.batch])
            meant = files
            if self.run.as_of is not None:
                meant = ledger.versions_at(conn, self.pipeline_name, self.batch, self.run.as_of)
            there = ledger.artifacts(conn, self.pipeline_name, [self.batch], self.models) if made else ()
            return Known(stage_rows.of_run(conn, self.run.run_id), files, meant, frozenset(leaving), there)


def usual_rows(
    session: Session, before: str | None, tried: Mapping[str, Mapping[str, int]] | None = None
) -> dict[str, float]:
    """The median of the rows of the newest done batches before this one, or of all, by model.

    `tried` are rows by batch and model that a rehearsal takes for done.
    """
    order, name = session.pipeline.order, session.pipeline.name
    among = session.pipeline.settings.gate.row_delta_batches
    with session.state.read() as conn:
        # Of changes alone there are as many as there are.
        older = {
            (batch, model)
            for (batch, model), done in completions.published(conn, name, session.pipeline.models).items()
            if session.pipeline.model(model).load is not LoadMode.REPLACE or done.mode is LoadMode.REPLACE
        }
        rehearsed = {(batch, model) for batch, rows in (tried or {}).items() for model in rows}
        newest: dict[str, list[str]] = {}
        for model in session.pipeline.models:
            batches = {batch for batch, of in older if of == model and (before is None or order(batch) < order(before))}
            batches |= {batch for batch, of in rehearsed if of == model}
            newest[model] = sorted(batches, key=order)[-among:]
        known = completions.some(conn, name, {batch for batches in newest.values() for batch in batches})
    valid = {key: one.counts.valid for key, one in known.items()}
    valid |= {(batch, model): rows for batch, some in (tried or {}).items() for model, rows in some.items()}
    found: dict[str, float] = {}
    for model, batches_ in newest.items():
        if rows := [one for batch in batches_ if (one := valid.get((batch, model))) is not None]:
            found[model] = median(rows)
    return found


def _share(limit: str, among: int) -> str:
    """An equal part of a memory limit for each of so many models side by side."""
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]+)", limit)
    assert match is not None
    return (
        f"{float(match[1]) / among:.0f}{match[2]}" if match[2][0] == "M" else f"{float(match[1]) / among:.3f}{match[2]}"
    )
