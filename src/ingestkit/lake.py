"""The lake: names, artifacts and sidecars on top of a dumb Store."""

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from ingestkit import layouts, steps
from ingestkit.errors import Altered, LakeError, ObjectExists
from ingestkit.model import Artifact, ArtifactKind, Sidecar, safe_name
from ingestkit.ports import Store

BLOCK = 1 << 20
UNMAPPED = "_unmapped"
"""Stands where else the model does in the name of a raw object that is of none."""
OF_NO_MODEL = re.compile(rf"(?<![A-Za-z0-9]){UNMAPPED}(?![A-Za-z0-9_])")
"""It in a folder's name: no model begins so, and a layout lets no letter stand right before a model."""
BATCH_KINDS = tuple(kind.value for kind in ArtifactKind)
"""The folders that hold the artifacts of batches."""


@dataclass(frozen=True, slots=True)
class Place:
    """Whose in-flight folder an object is written in; a later owner removes folders of lower tokens."""

    pipeline: str
    model: str
    run_id: str
    token: int

    def inflight(self) -> str:
        owner = f"{safe_name(self.run_id)}.{self.token}.{secrets.token_hex(6)}"
        return f"_inflight/{self.pipeline}/{_part(self.model)}/{owner}"


@dataclass(frozen=True, slots=True)
class Written:
    """An object that is durable but in flight: nobody sees it before it is published."""

    inflight: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Landed:
    """An object of the lake as it was published or found there."""

    name: str
    bytes: int
    sha256: str
    adopted: bool


class HashingWriter:
    """A binary file that hashes and counts what goes through it."""

    closed = False

    def __init__(self, into: BinaryIO) -> None:
        self._into = into
        self._hash = hashlib.sha256()
        self.bytes = 0

    def write(self, block: bytes | bytearray | memoryview) -> int:
        view = memoryview(block).cast("B")
        self._hash.update(view)
        self._into.write(view)
        self.bytes += len(view)
        return len(view)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def tell(self) -> int:
        return self.bytes

    def flush(self) -> None:
        self._into.flush()

    def close(self) -> None:
        """Whoever opened the file closes it."""

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


def staged_folder(pipeline: str, model: str) -> str:
    """Where a warehouse that reads the lake itself finds what it is to load: no longer than a load lasts."""
    return f"_staged/{safe_name(pipeline)}/{safe_name(model)}/"


def token_of_staged(name: str) -> int:
    """The token in `_staged/<pipeline>/<model>/<run_id>.<token>.<random>/<file>`."""
    match = re.fullmatch(r"_staged/[^/]+/[^/]+/[^/]+\.(\d+)\.[0-9a-f]{12}/[^/]+", name)
    if match is None:
        raise LakeError(f"{name} in the lake was staged by nobody of ours: it is not named so", hint="move it away")
    return int(match[1])


def file_id_of(name: str) -> str:
    """The ledger id in the name of a raw object, or of what was valid of one."""
    return name.rsplit("/", 1)[-1].removesuffix(".parquet").split("-", 1)[0]


def layouts_folder(pipeline: str) -> str:
    return f"_layouts/{pipeline}/"


def runs_folder(pipeline: str, run_id: str) -> str:
    return f"_runs/{pipeline}/{safe_name(run_id)}/"


def shown_folder(folder: Path, pipeline: str, run_id: str) -> Path:
    """Where below the state's folder the copies of a run's sidecars for people lie."""
    return folder / "runs" / pipeline / safe_name(run_id)


def sidecar_name(sidecar: Sidecar) -> str:
    folder = runs_folder(sidecar.pipeline, sidecar.run_id)
    return f"{folder}{sidecar.stage.value}.{_part(sidecar.model)}.{sidecar.token:012d}-{sidecar.sequence:06d}.json"


DEEP = {ArtifactKind.RAW.value: 1, ArtifactKind.VALID.value: 2, ArtifactKind.REJECTS.value: 2}
"""How many parts a name has below its batch's folder."""


PASSING = "passing-"
"""What the file of an object in flight begins with that is needed only while its batch is at work."""


def is_passing(name: str) -> bool:
    """Whether an object is needed only while its batch is at work, where a pipeline keeps no more."""
    kind, *folders = name.rpartition("/")[0].split("/")
    # The first is the pipeline's.
    return kind in (ArtifactKind.RAW, ArtifactKind.VALID) and not any(OF_NO_MODEL.search(one) for one in folders[1:])


@dataclass(frozen=True, slots=True)
class Lake:
    store: Store
    layout: str = layouts.DEFAULT
    """The folders of what is written from now on; what is there is found by the path that was recorded for it."""
    aside: Store | None = None
    """Where what is passing lies, of a store that has it apart."""

    def raw_name(
        self, pipeline: str, model: str, batch: str, file_id: str, path: str, token: int, *, again: bool = False
    ) -> str:
        """Of each owner its own where the store does not refuse a taken name: none overwrites another's then.

        And where a file is fetched `again`: a clean that wakes up late may remove what lay there before.
        """
        name = f"{file_id}-{safe_name(path.rsplit('/', 1)[-1])}"
        if again or not self.store.keeps_names:
            name = f"{file_id}-{token:012d}-{name.removeprefix(f'{file_id}-')}"
        return f"{_folder(self.layout, 'raw', pipeline, model, batch)}/{name}"

    def made_name(self, kind: str, place: Place, batch: str, name: str) -> str:
        """Where what a run made lies: `valid/…/<run_id>.<token>/<name>`."""
        folder = _folder(self.layout, kind, place.pipeline, place.model, batch)
        return f"{folder}/{safe_name(place.run_id)}.{place.token}/{name}"

    def of_batch(self, kind: str, pipeline: str, model: str, batch: str) -> Iterator[str]:
        """The objects of a batch of a model, in the folders of every layout there ever was."""
        for template in self._layouts(pipeline):
            folder = _folder(template, kind, pipeline, model, batch)
            for stored in self.store.list(f"{folder}/"):
                # Deeper ones are of another layout and another batch.
                if stored.name.removeprefix(f"{folder}/").count("/") + 1 == DEEP[kind]:
                    yield stored.name

    def note_layout(self, place: Place) -> None:
        """Write down, before anything is laid out so, that it will be: a layout that is given up must be remembered."""
        name = f"{layouts_folder(place.pipeline)}{hashlib.sha256(self.layout.encode()).hexdigest()[:16]}"
        if self.layout != layouts.DEFAULT and self.store.stat(name) is None:
            self.publish(place, name, lambda writer: cast("None", writer.write(self.layout.encode())))

    def _layouts(self, pipeline: str) -> tuple[str, ...]:
        noted = [layouts.DEFAULT, self.layout]
        for stored in self.store.list(layouts_folder(pipeline)):
            with self.store.open(stored.name) as file:
                noted.append(file.read().decode())
        return tuple(dict.fromkeys(noted))

    def publish(self, place: Place, name: str, fill: Callable[[HashingWriter], None]) -> Landed:
        """Write an object in flight and publish it whole under `name`.

        An object already there is adopted when its size and sha256 are those just written; another is a LakeError.
        """
        return self.publish_written(self.write(place, name, fill), name)

    def write(self, place: Place, name: str, fill: Callable[[HashingWriter], None]) -> Written:
        """Write an object in flight, to be published under `name` or dropped, as its content says."""
        label = PASSING if is_passing(name) else ""
        return self._written(f"{place.inflight()}/{label}{name.rsplit('/', 1)[-1]}", fill)

    def keep(self, place: Place, name: str) -> None:
        """Have an object stay when its batch is done; in a store that has nothing apart it does so by itself."""
        if self.aside is None or self.aside.stat(name) is None:
            return
        with self.aside.open(name) as file:
            fill = partial(shutil.copyfileobj, file, length=BLOCK)
            written = self._written(f"{place.inflight()}/{name.rsplit('/', 1)[-1]}", fill)
        self.publish_written(written, name)

    def _written(self, inflight: str, fill: Callable[[HashingWriter], None]) -> Written:
        with self.store.write(inflight) as file:
            writer = HashingWriter(file)
            fill(writer)
        steps.reached("lake.written")
        return Written(inflight, writer.bytes, writer.sha256)

    def publish_written(self, written: Written, name: str) -> Landed:
        """Publish what was written, or adopt the object of that name as `publish` does."""
        adopted = False
        try:
            self.store.publish(written.inflight, name, written.sha256)
        except ObjectExists:
            there = self.store.stat(name)
            if there is None or there.bytes != written.bytes or self.store.sha256(name) != written.sha256:
                raise LakeError(
                    f"{name} is in the lake already, with other content than this run made",
                    hint="nothing was overwritten; move the object away, then run again",
                ) from None
            adopted = True
        steps.reached("lake.published")
        return Landed(name, written.bytes, written.sha256, adopted)

    def drop(self, written: Written) -> None:
        """Forget what was written; nobody has seen it."""
        self.store.remove(written.inflight)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        with self.store.open(name) as file:
            yield file

    def holds(self, name: str, size: int) -> bool:
        """Whether the object is there with that size."""
        there = self.store.stat(name)
        return there is not None and there.bytes == size

    def is_whole(self, artifact: Artifact) -> bool:
        """Whether the object is there with the bytes it was made with."""
        return self.holds(artifact.path, artifact.bytes) and self.digest(artifact.path) == artifact.sha256

    def digest(self, name: str) -> str:
        """The sha256 of the bytes that lie there, whatever else is told of them."""
        with suppress(Altered), self.store.path(name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
        with self.store.open(name) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]

    def write_sidecar(self, place: Place, sidecar: Sidecar) -> str:
        name = sidecar_name(sidecar)
        content = json.dumps(sidecar.to_json()).encode()
        self.publish(place, name, lambda writer: cast("None", writer.write(content)))
        return name

    def sidecars(self, pipeline: str, run_id: str | None = None) -> Iterator[Sidecar]:
        """The sidecars of one run, or of all runs of the pipeline, oldest (token, sequence) first."""
        prefix = runs_folder(pipeline, run_id) if run_id is not None else f"_runs/{pipeline}/"
        names = [stored.name for stored in self.store.list(prefix) if stored.name.endswith(".json")]
        yield from sorted(map(self._sidecar, names), key=lambda one: (one.token, one.sequence))

    def first_sidecar(self, pipeline: str) -> str | None:
        """The name of any sidecar of the pipeline, where there is one."""
        return next((one.name for one in self.store.list(f"_runs/{pipeline}/") if one.name.endswith(".json")), None)

    def remove_inflight(self, pipeline: str, model: str, below: int) -> int:
        """Remove in-flight folders of the model whose token is lower; their owners are gone."""
        removed = 0
        for name in list(self.store.inflight(f"_inflight/{pipeline}/{_part(model)}/")):
            if token_of(name) < below:
                self.store.remove(name)
                removed += 1
        return removed

    def remove_staged(self, pipeline: str, model: str, upto: int) -> None:
        """Remove what was staged of the model under these tokens: it is loaded, or its owners are gone."""
        for stored in list(self.store.list(staged_folder(pipeline, model))):
            if token_of_staged(stored.name) <= upto:
                self.store.remove(stored.name)

    def _sidecar(self, name: str) -> Sidecar:
        with self.store.open(name) as file:
            content = file.read()
        try:
            return Sidecar.from_json(json.loads(content))
        except (ValueError, KeyError, TypeError) as error:
            raise LakeError(
                f"{name} in the lake is no sidecar: {error}",
                hint="nothing of ours writes it so; put the object back or move it away, then run again",
            ) from error


def token_of(inflight: str) -> int:
    """The token in an in-flight name: `_inflight/<pipeline>/<model>/<run_id>.<token>.<random>/<file>`."""
    match = re.fullmatch(r"_inflight/[^/]+/[^/]+/[^/]+\.(\d+)\.[0-9a-f]{12}(?:/.*)?", inflight)
    if match is None:
        raise LakeError(f"{inflight} in the lake is not in flight: it is not named so", hint="move it away")
    return int(match[1])


def _folder(template: str, kind: str, pipeline: str, model: str, batch: str) -> str:
    return f"{kind}/{pipeline}/{layouts.folder(template, _part(model), batch)}"


def _part(model: str) -> str:
    """A model as part of a name; `*` stands for what belongs to all of them."""
    return "_all" if model == "*" else model
