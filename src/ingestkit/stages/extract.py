"""Extract: new files of a batch stream into the lake, hashed on the way."""

import shlex
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ingestkit import steps
from ingestkit.errors import SourceError
from ingestkit.files import shown
from ingestkit.lake import BLOCK, UNMAPPED, HashingWriter, Landed, Written
from ingestkit.model import Artifact, ArtifactKind, Counts, FileStatus, FileVersion, Item, Work
from ingestkit.pipeline import Pipeline, RunContext


def extract(
    ctx: RunContext,
    model: str,
    wanted: Sequence[tuple[FileVersion, Item]],
    landed: Sequence[FileVersion],
    lost: Sequence[tuple[FileVersion, Item]] = (),
) -> Work:
    """Land the `wanted` files of a model; `landed` are the versions of its batch that are in the lake already.

    Of those, the `lost` are there no more, and are fetched once more as they were.
    The source gives one file after another. What is asked of the lake, and given to it, may go side by side.
    """
    again = [_fetched_again(ctx, model, *one) for one in lost]
    known = _latest([*landed, *again])
    done: list[FileVersion] = []
    with _hands(ctx) as lake:
        before = lake.map(lambda one: _landed_before(ctx, model, *one), wanted)
        sent: deque[Future[tuple[FileVersion, ...]]] = deque()
        for (version, item), there in zip(wanted, before, strict=True):
            # Who fails is heard soon, and not behind the last file.
            while len(sent) > 2 * ctx.lake.store.at_once:
                done += sent.popleft().result()
            at_hand = there or _written(ctx, model, version, item)
            sent.append(lake.submit(_landed, ctx, model, version, item, at_hand, known.get(version.path)))
        done += [file for left in sent for file in left.result()]
    new = [*again, *(file for file in done if file.raw is not None)]
    whole = {**known, **{file.path: file for file in new}}
    return Work(
        counts=Counts(files=len(whole), bytes=sum(file.size for file in whole.values())),
        files=(*again, *done),
        artifacts=tuple(_artifact(ctx, model, file) for file in new),
        skipped=None if wanted or again else "everything had landed",
    )


def keep(ctx: RunContext, model: str, unmapped: Sequence[tuple[FileVersion, Item]]) -> Work:
    """Land files that no model claims, with what `model` lands: they stay in quarantine, and can be taken in later.

    One that cannot be read holds nothing up: it is told of, and tried again only where that may help.
    """
    tried = [_kept(ctx, model, version, item) for version, item in unmapped]
    done = [file for file in tried if file is not None]
    artifacts = tuple(_artifact(ctx, UNMAPPED, file) for file in done if file.raw is not None)
    return Work(files=tuple(done), artifacts=artifacts)


def _kept(ctx: RunContext, model: str, version: FileVersion, item: Item) -> FileVersion | None:
    try:
        there = _landed_before(ctx, UNMAPPED, version, item) or _written(ctx, UNMAPPED, version, item, within=model)
    except SourceError as error:
        if ctx.stop.requested:
            # A time-out is none of the file's, but it may be what takes that long.
            error.hint = (
                f"{error.hint}; or let no file of no model be kept, as {shown(item.path)}: source.unmapped: list"
            )
            ctx.stop.check()
        why = f"{version.reason}, and it could not be kept: {error.message}"
        ctx.progress.warned(f"{shown(item.path)}: {why}")
        return None if error.transient else replace(version, reason=why, run_id=ctx.run_id, token=ctx.token)
    if isinstance(there, Written):
        there = ctx.lake.publish_written(there, _name(ctx, UNMAPPED, version, item))
    steps.reached("extract.copied")
    return replace(_taken(ctx, version, item, there.sha256), raw=there.name, reason=version.reason)


class _Here(Executor):
    """Does what it is given at once, in the thread that gives it."""

    def submit(self, job: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(job(*args, **kwargs))
        return done


@contextmanager
def _hands(ctx: RunContext) -> Iterator[Executor]:
    """Who speaks to the lake. Behind a failure nothing new is begun, and what is under way comes to its end."""
    many = 1 if ctx.threads == 1 else ctx.lake.store.at_once
    with _Here() if many == 1 else ThreadPoolExecutor(many, "land") as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _name(ctx: RunContext, model: str, version: FileVersion, item: Item) -> str:
    return ctx.lake.raw_name(ctx.pipeline.name, model, version.batch, version.id, item.path, ctx.token)


def _written(ctx: RunContext, model: str, version: FileVersion, item: Item, *, within: str | None = None) -> Written:
    """Written in flight, among what is in flight of the model it is landed `within`."""
    name = _name(ctx, model, version, item)
    place = ctx.place(within or model)
    with ctx.watched(version):
        return ctx.lake.write(place, name, lambda writer: _copy(ctx, within or model, item, writer))


def _landed(
    ctx: RunContext, model: str, version: FileVersion, item: Item, there: Landed | Written, known: FileVersion | None
) -> tuple[FileVersion, ...]:
    """The version as it landed, or as skipped where the bytes are those of the version before it.

    Where that one is kept no longer, it has them again.
    """
    if isinstance(there, Written):
        taken = _taken(ctx, version, item, there.sha256)
        if known is not None and known.sha256 == there.sha256:
            same = replace(taken, status=FileStatus.SKIPPED, reason=f"same content as version {known.version}")
            if _is_held(ctx, known):
                ctx.lake.drop(there)
                return (same,)
            if not ctx.pipeline.keeps:
                return same, _put_back(ctx, model, known, there)
        there = ctx.lake.publish_written(there, _name(ctx, model, version, item))
    steps.reached("extract.copied")
    return (replace(_taken(ctx, version, item, there.sha256), status=FileStatus.LANDED, raw=there.name),)


def _fetched_again(ctx: RunContext, model: str, version: FileVersion, item: Item) -> FileVersion:
    """A version that landed before, with its bytes in the lake again."""
    name = _name_again(ctx, model, version)
    with ctx.watched(version):
        written = ctx.lake.write(ctx.place(model), name, lambda writer: _copy(ctx, model, item, writer))
    if written.sha256 != version.sha256:
        ctx.lake.drop(written)
        raise not_as_it_was(ctx.pipeline, version, "has other bytes at the source than when it was taken")
    return _put_back(ctx, model, version, written)


def _put_back(ctx: RunContext, model: str, version: FileVersion, written: Written) -> FileVersion:
    landed = ctx.lake.publish_written(written, _name_again(ctx, model, version))
    steps.reached("extract.copied")
    return replace(version, raw=landed.name, run_id=ctx.run_id, token=ctx.token)


def _name_again(ctx: RunContext, model: str, version: FileVersion) -> str:
    name = ctx.pipeline.name
    return ctx.lake.raw_name(name, model, ctx.batch, version.id, version.path, ctx.token, again=True)


def not_as_it_was(pipeline: Pipeline, file: FileVersion, what: str) -> SourceError:
    """Of a file that is needed once more."""
    skip = f"ingestkit skip {pipeline.name} --batch {shlex.quote(file.batch)} --reason '...'"
    keeps = "kept" if pipeline.keeps else "keeps"
    return SourceError(
        f"{shown(file.path)} {what}, and batch {file.batch} needs it once more: {pipeline.name} {keeps} no batch that "
        "is done or whose disk is gone (keep: none)",
        hint=f"have it delivered again as it was, and run again; or leave what is published as it is: {skip}",
    )


def _landed_before(ctx: RunContext, model: str, version: FileVersion, item: Item) -> Landed | None:
    """What an earlier try published under the version's id, so that it need not be copied again.

    Only an object younger than the sighting of this size and time can hold these bytes; where the pipeline does not
    trust sizes and times, none can.
    """
    name = _name(ctx, model, version, item)
    there = ctx.lake.store.stat(name) if ctx.pipeline.settings.source.trust == "stat" else None
    if there is None or there.bytes != item.size or there.at < version.sighted_at:
        return None
    if (version.size, version.mtime) != (item.size, item.mtime):
        return None
    ctx.progress.moved("extract", model, there.bytes)
    return Landed(name, there.bytes, ctx.lake.store.sha256(name), adopted=True)


def _copy(ctx: RunContext, model: str, item: Item, writer: HashingWriter) -> None:
    with ctx.source.open(item) as stream:
        while block := stream.read(BLOCK):
            ctx.stop.check()
            writer.write(block)
            ctx.progress.moved("extract", model, len(block))
    if writer.bytes != item.size:
        raise SourceError(
            f"{shown(item.path)} gave {writer.bytes} bytes where {item.size} were announced", transient=True
        )
    if item.digest is not None and item.digest != writer.sha256:
        raise SourceError(f"{shown(item.path)} is not what the source's own checksum says", transient=True)


def _taken(ctx: RunContext, version: FileVersion, item: Item, sha256: str) -> FileVersion:
    """The version with what is known once its bytes were read."""
    return replace(
        version, size=item.size, mtime=item.mtime, sha256=sha256, reason=None, run_id=ctx.run_id, token=ctx.token
    )


def _latest(files: Iterable[FileVersion]) -> dict[str, FileVersion]:
    """By path, the newest version that is in the lake."""
    return {file.path: file for file in sorted(files, key=lambda file: file.version) if file.raw is not None}


def _is_held(ctx: RunContext, file: FileVersion) -> bool:
    if file.raw is None or not ctx.lake.holds(file.raw, file.size):
        return False
    return ctx.is_ours(file) or ctx.lake.digest(file.raw) == file.sha256


def _artifact(ctx: RunContext, model: str, file: FileVersion) -> Artifact:
    return Artifact(
        path=file.raw or "",
        pipeline=ctx.pipeline.name,
        batch=file.batch,
        model=model,
        file_id=file.id,
        kind=ArtifactKind.RAW,
        sha256=file.sha256 or "",
        bytes=file.size,
        rows=None,
        settings=ctx.pipeline.extract_settings(),
        run_id=ctx.run_id,
        token=ctx.token,
    )
