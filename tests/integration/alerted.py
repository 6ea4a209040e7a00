"""A project with a webhook, and what that was told."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.doubles.receivers import Receiver
from tests.integration.world import BREAKS, FIRST, Ended, World

SECRET = "s3cr3t-of-the-channel"
CELL = "cell-of-a-customer"


@dataclass(frozen=True, slots=True)
class Told:
    """A project with a webhook, and what that was told."""

    world: World
    receiver: Receiver

    def settle(self, changes: Mapping[str, Any] | None = None) -> None:
        channel = {"type": "webhook", "url": "${env:HOOK}", "headers": {"Authorization": "${env:HOOK_TOKEN}"}}
        said = {"alerts": {"channels": {"ops": channel}, "patience": "10s"}}
        self.world.settle(said | dict(changes or {}))

    def run(self, code: int, *arguments: str) -> Ended:
        ended = self.world.call(*(arguments or ("run", "p")))
        assert ended.code == code, (ended.code, ended.err)
        return ended

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.receiver.bodies]

    @property
    def kinds(self) -> list[tuple[str, str]]:
        return [(one["kind"], one["status"]) for one in self.messages]

    def closes_the_gate(self) -> None:
        path = self.world.root / "sql/gate/p/none.sql"
        path.parent.mkdir(parents=True)
        path.write_text("-- models: a\nSELECT * FROM a")

    def breaks(self) -> None:
        """A batch that breaks its contract, in cells that nobody is to see."""
        wrong = BREAKS.replace("one", CELL).replace("two", CELL)
        self.world.drop({"20260101/a.csv": wrong, "20260101/b.csv": FIRST["20260101/b.csv"]})

    def heals(self) -> None:
        self.world.drop(FIRST)
