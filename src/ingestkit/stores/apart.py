"""A lake of which what is passing lies apart, in a folder of this machine, for as long as its batch is at work."""

import heapq
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from ingestkit.errors import ObjectExists
from ingestkit.lake import PASSING, is_passing
from ingestkit.ports import Store, Stored
from ingestkit.stores import names


@dataclass(frozen=True, slots=True)
class ApartStore:
    """For pipelines that keep nothing. What is passing and lies in the lake all the same, such as files that were
    quarantined whole, is read there."""

    here: Store
    lake: Store

    def check(self) -> None:
        self.here.check()
        self.lake.check()

    def expect(self, incoming: int) -> None:
        self.here.expect(incoming)

    def write(self, inflight: str) -> AbstractContextManager[BinaryIO]:
        return self._written_in(inflight).write(inflight)

    def publish(self, inflight: str, name: str, sha256: str) -> None:
        part = self._written_in(inflight)
        try:
            part.publish(inflight, name, sha256)
        except ObjectExists:
            self._alone(part, name)
            raise
        self._alone(part, name)

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        return self._of(name).open(name)

    def stat(self, name: str) -> Stored | None:
        return self._of(name).stat(name)

    def sha256(self, name: str) -> str:
        return self._of(name).sha256(name)

    def path(self, name: str) -> Path:
        return self._of(name).path(name)

    def list(self, prefix: str) -> Iterator[Stored]:
        before = None
        for one in heapq.merge(self.here.list(prefix), self.lake.list(prefix), key=lambda one: one.name):
            if one.name != before:
                yield one
            before = one.name

    def inflight(self, prefix: str) -> Iterator[str]:
        return chain(self.here.inflight(prefix), self.lake.inflight(prefix))

    def remove(self, name: str) -> None:
        if name.startswith(f"{names.INFLIGHT}/"):
            self._written_in(name).remove(name)
            return
        if is_passing(name):
            self.here.remove(name)
        self.lake.remove(name)

    @property
    def keeps_names(self) -> bool:
        return self.lake.keeps_names

    @property
    def at_once(self) -> int:
        return self.lake.at_once

    def let_go(self) -> None:
        self.lake.let_go()

    def _of(self, name: str) -> Store:
        return self.here if is_passing(name) and self.here.stat(name) is not None else self.lake

    def _written_in(self, inflight: str) -> Store:
        return self.here if inflight.rsplit("/", 1)[-1].startswith(PASSING) else self.lake

    def _alone(self, part: Store, name: str) -> None:
        """What was put into the lake to stay there lies nowhere else."""
        if part is self.lake and is_passing(name):
            self.here.remove(name)
