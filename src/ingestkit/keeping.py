"""What a pipeline that keeps nothing (`keep: none`) needs once more: which files, and where the source has them."""

from collections.abc import Sequence

from ingestkit.active import FROM_LAKE, Active, Known
from ingestkit.errors import NotArrived, SourceError
from ingestkit.model import FileVersion, Item, Stage
from ingestkit.stages.extract import not_as_it_was
from ingestkit.states import ledger, runs
from ingestkit.windowing import shows


def lost(active: Active, known: Known, model: str, wanted: Sequence[tuple[FileVersion, Item]]) -> list[FileVersion]:
    """The files that the model is validated from and that are there no more, but for those that are fetched anyhow."""
    if model in active.unit.newer:
        return []
    lake, replaced = active.session.lake, {version.path for version, _ in wanted}
    files = [file for file in ledger.candidates(known.meant, model) if file.path not in replaced]
    if active.session.pipeline.keeps:
        files = _never_kept(active, files)
    return [
        file for file in files if file.raw is None or file.raw in known.leaving or not lake.holds(file.raw, file.size)
    ]


def _never_kept(active: Active, files: Sequence[FileVersion]) -> list[FileVersion]:
    """What landed when the pipeline kept nothing yet: that the lake has none of it is no loss."""
    before = {file.run_id for file in files if file.run_id is not None} - {active.run.run_id}
    if active.run.kind in FROM_LAKE or not before:
        return []
    with active.session.state.read() as conn:
        landed_by = [runs.run(conn, run_id) for run_id in sorted(before)]
    passing = {run.run_id for run in landed_by if run is not None and run.config["pipeline"].get("keep") == "none"}
    return [file for file in files if file.run_id in passing]


def at_the_source(active: Active, files: Sequence[FileVersion]) -> tuple[tuple[FileVersion, Item], ...]:
    """Each of these with what the source has of it; one that is gone or has changed is a SourceError."""
    if not files:
        return ()
    there = _shown(active)
    found = []
    for file in files:
        item = there.get(file.path)
        if item is None:
            raise not_as_it_was(active.session.pipeline, file, "is gone from the source")
        if item.size != file.size:
            what = f"has changed at the source since it was taken ({file.size} → {item.size} bytes)"
            raise not_as_it_was(active.session.pipeline, file, what)
        found.append((file, item))
    return tuple(found)


def _shown(active: Active) -> dict[str, Item]:
    session, batch, window = active.session, active.batch, active.run.window
    if window is None and not shows(session, batch):
        return {}
    try:
        return {item.path: item for item in session.source.items(batch, window)}
    except NotArrived as error:
        raise SourceError(
            f"batch {batch}: {error.message}", hint=f"ingestkit run {active.pipeline_name}, later"
        ) from error


def with_their_input(active: Active, stages: Sequence[Stage]) -> Sequence[Stage]:
    """The stages, behind those that make again what they read where it is there no more."""
    before = {Stage.VALIDATE: [Stage.EXTRACT], Stage.LOAD: [Stage.EXTRACT, Stage.VALIDATE]}
    if active.session.pipeline.keeps:
        return stages
    return [*before.get(stages[0], []), *stages]
