"""What may befall a statement on its way, as a test says it over HTTP."""

import re
import threading
from dataclasses import dataclass, field
from typing import Any, Literal

Fate = Literal["cut", "lost", "status", "refused", "expired", "delayed", "vanished", "taken", "short", "aborted"]


@dataclass(slots=True)
class Rule:
    """Which statements something befalls, and which of those are spared."""

    fate: Fate
    statement: re.Pattern[str]
    spared: int
    left: int | None
    said: dict[str, Any]

    def befalls(self, sql: str) -> bool:
        if self.left == 0 or not self.statement.search(sql):
            return False
        if self.spared:
            self.spared -= 1
            return False
        if self.left is not None:
            self.left -= 1
        return True


@dataclass(slots=True)
class Faults:
    """The rules in force; the first that fits counts."""

    rules: list[Rule] = field(default_factory=list)
    broken: int = 0
    """How many requests something has befallen."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, rule: dict[str, Any]) -> None:
        pattern = re.compile(rule["statement"], re.IGNORECASE | re.DOTALL)
        made = Rule(rule["fate"], pattern, rule["spared"], rule["times"], rule["said"])
        with self._lock:
            self.rules.append(made)

    def heal(self) -> None:
        with self._lock:
            self.rules.clear()

    def befalling(self, sql: str) -> Rule | None:
        with self._lock:
            found = next((rule for rule in self.rules if rule.befalls(sql)), None)
            self.broken += found is not None
            return found
