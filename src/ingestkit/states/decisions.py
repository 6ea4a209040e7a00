"""Decisions of people: who decided what about a pipeline and why, in a chain of hashes nobody can edit unseen."""

import os
import pwd
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Self, TypeAlias

import sqlalchemy as sql

from ingestkit.errors import StateError
from ingestkit.model import Json, instant, sha256_of
from ingestkit.states.tables import decision as table

FIRST = "0" * 64
"""What the first decision of a pipeline has for the hash before it."""

Kind: TypeAlias = Literal[
    "approve", "assign", "skip", "pin", "forget", "discard", "pause", "resume", "adopt", "set", "reset", "release"
]


@dataclass(frozen=True, slots=True)
class Decision:
    """One link of a pipeline's chain; `subject` names what was decided about."""

    pipeline: str
    number: int
    kind: str
    subject: Json
    reason: str | None
    by: str | None
    os_user: str
    at: datetime
    previous: str
    hash: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"at": self.at.astimezone(UTC).isoformat()}

    @classmethod
    def from_json(cls, row: Json) -> Self:
        return cls(**{**row, "at": instant(row["at"])})

    def lake_name(self) -> str:
        """Where the lake keeps its copy, so that a lost state gets its decisions back."""
        return f"_decisions/{self.pipeline}/{self.number:06d}-{self.hash[:8]}.json"


def record(
    conn: sql.Connection,
    pipeline: str,
    kind: Kind,
    subject: Json,
    *,
    reason: str | None,
    by: str | None,
    at: datetime,
) -> Decision:
    """Add a decision to the end of the pipeline's chain."""
    query = sql.select(table).where(table.c.pipeline == pipeline).order_by(table.c.number.desc()).limit(1)
    last = conn.execute(query).one_or_none()
    facts: dict[str, Any] = {
        "pipeline": pipeline,
        "number": last.number + 1 if last else 1,
        "kind": kind,
        "subject": dict(subject),
        "reason": reason,
        "by": by,
        "os_user": os_user(),
        "at": at.astimezone(UTC),
        "previous": last.hash if last else FIRST,
    }
    made = Decision(**facts, hash=hash_of(facts))
    conn.execute(sql.insert(table).values(**asdict(made)))
    return made


def chain(conn: sql.Connection, pipeline: str) -> tuple[Decision, ...]:
    """All decisions about the pipeline, oldest first."""
    query = sql.select(table).where(table.c.pipeline == pipeline).order_by(table.c.number)
    return tuple(Decision(**row) for row in conn.execute(query).mappings())


def verify(decisions: Sequence[Decision]) -> None:
    """Prove that a pipeline's whole chain is as it was written; StateError names the first link that is not."""
    previous = FIRST
    for number, one in enumerate(decisions, start=1):
        facts = {name: value for name, value in asdict(one).items() if name != "hash"}
        if (one.number, one.previous, one.hash) != (number, previous, hash_of(facts)):
            raise StateError(
                f"decision {one.number} of {one.pipeline} was changed, or one before it is missing",
                hint="compare it with its copy in the lake under _decisions/",
            )
        previous = one.hash


def restore(conn: sql.Connection, decisions: Iterable[Decision]) -> int:
    """Put decisions back that the state lacks; one it has otherwise is a StateError. Returns how many were put back."""
    restored = 0
    for one in sorted(decisions, key=lambda decision: decision.number):
        here = sql.and_(table.c.pipeline == one.pipeline, table.c.number == one.number)
        known = conn.execute(sql.select(table.c.hash).where(here)).scalar_one_or_none()
        if known is None:
            conn.execute(sql.insert(table).values(**asdict(one)))
            restored += 1
        elif known != one.hash:
            raise StateError(
                f"decision {one.number} of {one.pipeline} is another one in the lake ({one.hash[:8]}) "
                f"than in the state ({known[:8]})",
                hint="two states have decided about one pipeline; keep one and remove the other's copies",
            )
    return restored


def hash_of(facts: Json) -> str:
    return sha256_of({**facts, "at": facts["at"].astimezone(UTC).isoformat()})


def os_user() -> str:
    """The user by the system's word, not by the environment's, which anybody may set."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
