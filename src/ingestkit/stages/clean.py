"""Clean: removes what a run left behind and nobody needs. Nothing hangs on it; what it misses, the next one finds."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from ingestkit.lake import BATCH_KINDS, file_id_of, is_passing
from ingestkit.model import Artifact, ArtifactKind, Completion, CompletionStatus, FileStatus, FileVersion
from ingestkit.pipeline import Pipeline, RunContext


def lying(ctx: RunContext, model: str, batch: str) -> list[tuple[str, str]]:
    """The objects of a batch and model that are in the lake, each with its kind."""
    found = []
    for kind in BATCH_KINDS:
        for name in ctx.lake.of_batch(kind, ctx.pipeline.name, model, batch):
            ctx.stop.check()
            found.append((kind, name))
    return found


def debris(there: Iterable[tuple[str, str]], files: Sequence[FileVersion], artifacts: Sequence[Artifact]) -> list[str]:
    """Objects of a batch and model that no row needs: never registered, or of an attempt that was not published.

    `files` and `artifacts` are rows younger than `there`: what is on its way into the lake has its row before.
    The rows say which of the registered ones, not the lake: one that is gone already may still be marked as there.
    Raw objects stay as long as their file is in the ledger: they are what everything else can be made from.
    """
    registered = {one.path for one in artifacts}
    known = {file.id: file for file in files}
    found = [one.path for one in artifacts if one.kind is not ArtifactKind.RAW and one.status in ("made", "superseded")]
    for kind, name in there:
        file = known.get(file_id_of(name)) if kind == ArtifactKind.RAW else None
        # Where its file has landed elsewhere since, in a folder of another layout, or is not waited for, it is not.
        needed = file is not None and (file.raw == name or (file.raw is None and file.status is FileStatus.SEEN))
        if name not in registered and not needed:
            found.append(name)
    return found


def apart(ctx: RunContext) -> list[str]:
    """What the pipeline has lying apart from the lake, of any batch."""
    if ctx.lake.aside is None:
        return []
    kinds = (ArtifactKind.RAW, ArtifactKind.VALID)
    return [one.name for kind in kinds for one in ctx.lake.aside.list(f"{kind}/{ctx.pipeline.name}/")]


def passing(artifacts: Sequence[Artifact], files: Sequence[FileVersion]) -> list[str]:
    """Of a batch that is done, what is not kept any longer: all but rejects, and files that were quarantined whole."""
    whole = {file.raw for file in files if file.status is FileStatus.QUARANTINED}
    return [one.path for one in artifacts if is_passing(one.path) and one.path not in whole]


def expired(pipeline: Pipeline, done: Mapping[str, tuple[Completion, datetime]], now: datetime) -> list[str]:
    """The batches whose artifacts of one model retention no longer keeps.

    What the target can be rebuilt from stays whatever its age: everything from the newest full (replace) batch on. So
    does everything from the oldest of the newest `keep_batches` on that were done, which asks for more, never for less.
    """
    settings = pipeline.settings.retention
    since = now - (settings.replay_window if settings.keep is None else settings.keep)
    order = pipeline.order
    good = {batch: one for batch, (one, _) in done.items() if one.status is CompletionStatus.DONE}
    full = [batch for batch, one in good.items() if one.mode == "replace"]
    if not full:
        return []
    newest = sorted(good, key=order, reverse=True)[: settings.keep_batches]
    first = min(order(batch) for batch in (max(full, key=order), *newest))
    return [batch for batch, (_, at) in done.items() if order(batch) < first and at < since]


def remove_scratch(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
