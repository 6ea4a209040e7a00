"""Runs as they are shown in Snowflake: events in a table that an operator has made, and none is ever changed.

To change a row would hold the whole table, and pipelines would wait for each other.
"""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from snowflake.connector import SnowflakeConnection
from snowflake.connector.errors import ProgrammingError

from ingestkit.errors import WarehouseError
from ingestkit.pipeline import Clock
from ingestkit.ports import RunEvent
from ingestkit.settings import SnowflakeConnection as Connection
from ingestkit.warehouses import snowflake_sql as sql
from ingestkit.warehouses.snowflake_login import account_of
from ingestkit.warehouses.snowflake_rights import refuse_without
from ingestkit.warehouses.snowflake_session import Account, changed

# As the script spells it, however the names of contracts are spelled.
EVENTS = sql.quoted("INGESTKIT_RUN_EVENT")
UNKNOWN = (2003, 3001)
AT_ONCE = 1000
PATIENCE = 60
"""Seconds. No run waits longer for a statement that only others wait for."""


def opened(*, connection: Connection, root: Path, clock: Clock) -> "SnowflakeRuns":
    """The mirror beside a warehouse whose references are resolved; nothing is asked of it yet."""
    return SnowflakeRuns(account_of(connection, root), clock)


@dataclass(frozen=True, slots=True)
class SnowflakeRuns:
    account: Account
    clock: Clock

    def check(self) -> None:
        with self.account.session() as connection:
            self._ids(connection, "")
            hint = "let its owner grant it, as the last line of sql/drive/snowflake.sql does"
            refuse_without(self.account, connection, "INSERT", f"TABLE {self._table}", hint)

    def add_missing(
        self, pipeline: str, events: Collection[str], told: Callable[[Collection[str]], Sequence[RunEvent]]
    ) -> int:
        with self.account.session() as connection:
            known = self._ids(connection, pipeline)
            missing = [one for one in events if one not in known]
            parts = (missing[start : start + AT_ONCE] for start in range(0, len(missing), AT_ONCE))
            return sum(self._add(connection, pipeline, told(part)) for part in parts)

    @property
    def _table(self) -> str:
        return f"{self.account.named()}.{EVENTS}"

    def _ids(self, connection: SnowflakeConnection, pipeline: str) -> frozenset[str]:
        with connection.cursor() as cursor:
            try:
                cursor.execute(f"SELECT EVENT_ID FROM {self._table} WHERE PIPELINE = ?", (pipeline,), timeout=PATIENCE)
            except ProgrammingError as error:
                if error.errno not in UNKNOWN:
                    raise
                raise WarehouseError(
                    f"{self.account.place} shows no runs: INGESTKIT_RUN_EVENT is not there, or not for this role "
                    f"(query {error.sfqid})",
                    hint="make it by sql/drive/snowflake.sql, or set mirror_runs: false in the connection",
                ) from error
            return frozenset(event for (event,) in cursor.fetchall())

    def _add(self, connection: SnowflakeConnection, pipeline: str, events: Sequence[RunEvent]) -> int:
        """By one statement, which leaves out what somebody else has added meanwhile."""
        said = [
            {
                "event_id": one.event_id,
                "run_id": one.run_id,
                "token": one.token,
                "touched_at": one.touched_at.isoformat(),
                "run": one.run,
            }
            for one in events
        ]
        statement = (
            f"INSERT INTO {self._table} (EVENT_ID, PIPELINE, RUN_ID, TOKEN, TOUCHED_AT, ADDED_AT, MODELS, RUN) "
            "SELECT said.value:event_id::VARCHAR, CAST(? AS VARCHAR), said.value:run_id::VARCHAR, "
            "said.value:token::NUMBER(19,0), said.value:touched_at::TIMESTAMP_TZ, CAST(? AS TIMESTAMP_TZ), "
            "said.value:run:models::ARRAY, said.value:run FROM TABLE(FLATTEN(INPUT => PARSE_JSON(?))) AS said "
            f"WHERE said.value:event_id::VARCHAR NOT IN (SELECT EVENT_ID FROM {self._table} WHERE PIPELINE = ?)"
        )
        now = self.clock.now().isoformat()
        return changed(connection, statement, pipeline, now, json.dumps(said), pipeline, within=PATIENCE)
