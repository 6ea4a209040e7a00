"""The lake as a stage: what is to be loaded is put there through the lake's store, and an external stage shows it."""

import json
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from snowflake.connector import SnowflakeConnection

from ingestkit.errors import ConfigError, LakeError, WarehouseError
from ingestkit.lake import HashingWriter, Lake, Place
from ingestkit.ports import Publication
from ingestkit.settings import ADLS_URL, AdlsConnection, S3Connection
from ingestkit.warehouses import snowflake_sql as sql
from ingestkit.warehouses.snowflake_session import Account, execute
from ingestkit.warehouses.snowflake_stage import Sending

OF_S3 = ("s3", "s3gov", "s3china", "s3compat")


def location_of(connection: object) -> str:
    """Where a lake lies, in the words of stages."""
    match connection:
        case S3Connection():
            return f"s3://{connection.bucket}/{connection.prefix}"
        case AdlsConnection() if (found := ADLS_URL.fullmatch(connection.url)) is not None:
            # Whatever else the account speaks, stages name its blobs.
            host = found["host"].replace(".dfs.", ".blob.", 1)
            return f"azure://{host}/{found['container']}{found['prefix']}/"
        case _:
            raise ConfigError(
                "the connection of the warehouse names a stage on the lake, and the lake is a folder of this machine",
                hint="leave out `stage` of the connection, or have the lake in s3 or adls",
            )


@dataclass(frozen=True, slots=True)
class LakeStage:
    """An external stage that others have made and whose address is the lake's, or what the lake lies in."""

    account: Account
    name: str
    """As settings say it: `STAGE`, or with the schema and database it is in."""
    lake: Lake
    location: str

    def check(self, connection: SnowflakeConnection, role: str) -> None:
        """Others have made it, or nobody has."""
        self.look(connection, role)

    def look(self, connection: SnowflakeConnection, role: str) -> None:
        """Its address is the lake's, and the account may look into it."""
        del role
        place = self._place(connection)
        execute(connection, f"LIST {sql.text(f'{place}_staged/_check')}")

    def clear(self, connection: SnowflakeConnection, publication: Publication) -> str:
        """What a later owner has put there is not touched: only who wakes up too late could meet it."""
        place = self._place(connection)
        self._remove(publication)
        return place

    def send(
        self, connection: SnowflakeConnection, to: Sending, folder: Path, parallel: int
    ) -> tuple[str, Mapping[str, Path]]:
        del connection
        owner = Place(to.publication.pipeline, to.model, to.publication.run_id, to.publication.token)
        names = {path: f"_staged/{to.path}/{path.name}" for path in sorted(folder.glob("*.parquet"))}
        with ThreadPoolExecutor(min(parallel, self.lake.store.at_once), "stage") as pool:
            for _ in pool.map(partial(self._send, owner), names, names.values()):
                pass
        return f"{to.place}_staged/{to.path}/", {path.name: self.lake.store.path(name) for path, name in names.items()}

    def done(self, connection: SnowflakeConnection, publication: Publication) -> None:
        """Nothing stays in the lake that its retention does not know; the rows are published, whatever comes of it."""
        del connection
        try:
            self._remove(publication)
        except LakeError:
            # Who comes next removes it.
            return

    def _send(self, owner: Place, path: Path, name: str) -> None:
        def fill(writer: HashingWriter) -> None:
            with path.open("rb") as file:
                shutil.copyfileobj(file, writer, 1 << 20)

        self.lake.publish(owner, name, fill)
        # The store has a copy at hand.
        path.unlink()

    def _remove(self, publication: Publication) -> None:
        for load in publication.loads:
            self.lake.remove_staged(publication.pipeline, load.intent.model, publication.token)

    def _place(self, connection: SnowflakeConnection) -> str:
        """`@stage/` with the way from the stage's address to the lake."""
        names = self.account.names
        named = self.account.named(self.name) if "." not in self.name else names.one(*self.name.split("."))
        shown = _address(execute(connection, f"DESCRIBE STAGE {named}"))
        way = _way(shown, self.location)
        if way is None:
            what = f"shows {shown}" if shown else "is no external stage"
            raise WarehouseError(
                f"{self.account.place}: stage {self.name} {what}, and the lake is {self.location}",
                hint=f"name another as `stage`, or have it made: CREATE STAGE {self.name} URL = '{self.location}' "
                "STORAGE_INTEGRATION = …",
            )
        return f"@{named}/{way}"


def _address(described: list[dict[str, object]]) -> str:
    """The one address of a described stage; an internal one has none."""
    said = next(
        (str(row["property_value"] or "") for row in described if (row["parent_property"], row["property"]) == URL), ""
    )
    # A list, in JSON.
    return str(next(iter(json.loads(said)), "")) if said.startswith("[") else said


URL = ("STAGE_LOCATION", "URL")


def _way(shown: str, location: str) -> str | None:
    """What is between a stage's address and the lake; None where the one is not in the other."""
    stage, lake = urlsplit(shown), urlsplit(location)
    kinds = {OF_S3 if one.scheme.lower() in OF_S3 else one.scheme.lower() for one in (stage, lake)}
    if len(kinds) > 1 or stage.netloc.lower() != lake.netloc.lower():
        return None
    above, below = f"{stage.path.strip('/')}/".lstrip("/"), f"{lake.path.strip('/')}/".lstrip("/")
    return below.removeprefix(above) if below.startswith(above) else None
