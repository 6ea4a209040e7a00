"""Transactions that a process left open when it died or lost its line: known by name, and ended by who comes next.

Snowflake itself ends them only when they were silent for five minutes and others wait for what they hold. Names tell
whose they are: `INGESTKIT_<place, pipeline and state, as a hash>_<token>_<models, each as a hash>`. A user sees and may
end its own.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from snowflake.connector import SnowflakeConnection
from snowflake.connector.errors import ProgrammingError

from ingestkit.model import Fence
from ingestkit.warehouses.snowflake_session import Account, Writing, changed, execute
from ingestkit.warehouses.snowflake_sql import LONGEST_NAME

GRACE = 30.0
"""Seconds for whoever has lost its lease and is about to commit."""
CANCELLED = 604


@dataclass(frozen=True, slots=True)
class Work:
    """What a transaction is for: models of a pipeline, under a token."""

    account: Account
    pipeline: str
    state_id: str
    token: int
    models: frozenset[str]

    @property
    def name(self) -> str:
        """As many of the models as have room: those that have none are waited for, as whoever is not known."""
        name = f"{self._whose}_{self.token}"
        for model in sorted(_short(one) for one in self.models):
            if len(name) + 1 + len(model) <= LONGEST_NAME:
                name += f"_{model}"
        return name

    def precedes(self, name: str) -> bool:
        """Whether a transaction of that name can only be one that nobody waits for any more.

        Who holds the lease of one of its models has the higher token, or is itself the one that lost the line.
        """
        if not name.upper().startswith(f"{self._whose}_"):
            return False
        token, *models = name.upper().removeprefix(f"{self._whose}_").split("_")
        mine = {_short(one) for one in self.models}
        return token.isdigit() and int(token) <= self.token and not mine.isdisjoint(models)

    @property
    def _whose(self) -> str:
        spelled = map(self.account.names.spelled, (self.account.database, self.account.schema))
        place = (*spelled, self.pipeline, self.state_id)
        return f"INGESTKIT_{_short(*place)}"


def patiently(writing: Writing, work: Work, statement: str, *values: Any) -> int:
    """How many rows the first statement of a transaction changed, where it waits for its table.

    Who holds it may be at work, and is given some time; what was left of the same work is ended then.
    """
    connection = writing.connection
    count = _within_grace(connection, work.account, statement, *values)
    if count is not None:
        return count
    execute(connection, "ROLLBACK")
    _end_those_left(connection, [work])
    # To end those may have begun one here, within which BEGIN would be ignored.
    execute(connection, "ROLLBACK")
    writing.begin()
    return changed(connection, statement, *values)


def works_of(account: Account, fences: Iterable[Fence]) -> list[Work]:
    """What whoever has these fences may do, for each pipeline, state and token."""
    models: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    for one in fences:
        models[one.pipeline, one.state_id, one.token].add(one.model)
    return [Work(account, *whose, frozenset(some)) for whose, some in models.items()]


def alone(connection: SnowflakeConnection, works: Sequence[Work], statement: str, *values: Any) -> int:
    """The same for a statement that is in no transaction. Without any work, none can be known to be left."""
    count = _within_grace(connection, works[0].account, statement, *values) if works else None
    if count is not None:
        return count
    _end_those_left(connection, works)
    return changed(connection, statement, *values)


def _within_grace(connection: SnowflakeConnection, account: Account, statement: str, *values: Any) -> int | None:
    try:
        return changed(connection, statement, *values, within=max(1, round(min(GRACE, account.lock_timeout / 2))))
    except ProgrammingError as error:
        if error.errno != CANCELLED:
            raise
    return None


def _end_those_left(connection: SnowflakeConnection, works: Sequence[Work]) -> None:
    if not works:
        return
    for row in execute(connection, "SHOW TRANSACTIONS"):
        others = int(row["session"]) != connection.session_id
        if others and any(work.precedes(str(row["name"])) for work in works):
            # It may have ended by itself. One that cannot be ended is waited for, as any that holds what is wanted.
            with suppress(ProgrammingError):
                execute(connection, f"SELECT SYSTEM$ABORT_TRANSACTION({int(row['id'])})")


def _short(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8].upper()
