"""A lake laid over another: what is written goes to the upper one, what is read is found in either."""

import heapq
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ingestkit.errors import ObjectExists
from ingestkit.ports import Store, Stored


@dataclass(frozen=True, slots=True)
class OverlayStore:
    """For rehearsals: nothing of the lower store is ever changed."""

    upper: Store
    lower: Store

    def check(self) -> None:
        self.upper.check()

    def expect(self, incoming: int) -> None:
        self.upper.expect(incoming)

    def write(self, inflight: str) -> AbstractContextManager[BinaryIO]:
        return self.upper.write(inflight)

    def publish(self, inflight: str, name: str, sha256: str) -> None:
        if self.lower.stat(name) is not None:
            self.upper.remove(inflight)
            raise ObjectExists(f"{name} is in the lake already")
        self.upper.publish(inflight, name, sha256)

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        return self._of(name).open(name)

    def stat(self, name: str) -> Stored | None:
        return self.upper.stat(name) or self.lower.stat(name)

    def sha256(self, name: str) -> str:
        return self._of(name).sha256(name)

    def path(self, name: str) -> Path:
        return self._of(name).path(name)

    def list(self, prefix: str) -> Iterator[Stored]:
        return heapq.merge(self.upper.list(prefix), self.lower.list(prefix), key=lambda one: one.name)

    def inflight(self, prefix: str) -> Iterator[str]:
        return self.upper.inflight(prefix)

    def remove(self, name: str) -> None:
        self.upper.remove(name)

    @property
    def keeps_names(self) -> bool:
        return self.upper.keeps_names

    @property
    def at_once(self) -> int:
        return self.upper.at_once

    def let_go(self) -> None:
        self.upper.let_go()
        self.lower.let_go()

    def _of(self, name: str) -> Store:
        return self.upper if self.upper.stat(name) is not None else self.lower
