"""The sample pipeline in profiles of several machines, on servers of its own on loopback: `make prod`, `make cloud`."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg

from tests.object_stores import azurite
from tests.services import PostgresServer, SftpServer, postgres, sftp
from tests.snowflake_server import SnowflakeServer, asked, snowflake_server
from tests.warehouses import LOADER, warehouse_database

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "config/samples/opendata"
PACKAGES = ROOT / "config/samples/network"
COMMANDS = ("state upgrade --yes", "check --pin --yes", "run opendata", "run opendata", "runs list opendata")
TABLES = ("address", "hco", "hcp", "license", "parenthco")
LAKE, TARGET = (f"INGESTKIT__CONNECTIONS__{name}" for name in ("LAKE", "WAREHOUSE"))

Ask = Callable[[str], list[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class Place:
    """Servers that stand for those of a profile."""

    profile: str
    said: Mapping[str, str]
    """Where they are, as config.env says it."""
    ask: Ask
    """Rows of a query in the warehouse."""
    account: SnowflakeServer | None = None

    def project(self, folder: Path) -> None:
        shutil.copytree(ROOT / "config", folder / "config")
        (folder / "config.env").write_text("".join(f"{key}={value}\n" for key, value in self.said.items()))

    def does(self, folder: Path, *arguments: str) -> int:
        """How a command ends in a process of its own, that has nothing at hand."""
        words = [sys.executable, "-c", "from ingestkit.cli.main import main; main()", "--profile", self.profile]
        return subprocess.run([*words, *arguments], cwd=folder, check=False).returncode


@contextmanager
def prod(samples: Path = SAMPLES) -> Iterator[Place]:
    """Files from SFTP, a lake in a folder, state and tables in PostgreSQL."""
    with sftp() as drop, postgres() as database:
        database.does("CREATE DATABASE state")
        warehouse_database(database, "warehouse")
        said = {
            **_known(drop, samples, database),
            "WAREHOUSE_PASSWORD": "none",
            f"{TARGET}__HOST": "127.0.0.1",
            f"{TARGET}__PORT": str(database.port),
            f"{TARGET}__USER": LOADER,
            f"{LAKE}__PATH": "state/lake",
        }
        with psycopg.connect(database.url("warehouse"), autocommit=True) as link:
            yield Place("prod", said, lambda query: link.execute(query.encode()).fetchall())


@contextmanager
def cloud(samples: Path = SAMPLES) -> Iterator[Place]:
    """Files from SFTP, a lake in Azure's storage, tables in Snowflake, the state in PostgreSQL."""
    with sftp() as drop, postgres() as database, azurite() as storage, snowflake_server() as account:
        database.does("CREATE DATABASE state")
        name = account.database()
        said = {
            **_known(drop, samples, database),
            "LAKE_CONNECTION_STRING": storage.connection_string,
            f"{LAKE}__URL": f"abfss://{storage.container()}@{storage.account}.dfs.core.windows.net/opendata",
            f"{LAKE}__CONNECTION_STRING": "${env:LAKE_CONNECTION_STRING}",
            f"{TARGET}__ENDPOINT": f"{account.protocol}://{account.host}:{account.port}",
            f"{TARGET}__ACCOUNT": account.account,
            f"{TARGET}__DATABASE": name,
            f"{TARGET}__ROLE": account.role,
            f"{TARGET}__PRIVATE_KEY": str(account.private_key),
        }
        # Whom to trust is for this process and those it starts.
        with patch.dict(os.environ, account.environment), closing(account.connect(name)) as link:
            yield Place("cloud", said, lambda query: asked(link, query), account)


PLACES: Mapping[str, Callable[[], AbstractContextManager[Place]]] = {"prod": prod, "cloud": cloud}


def _known(drop: SftpServer, samples: Path, database: PostgresServer) -> dict[str, str]:
    """Where the files are, and the state."""
    said = {"STATE_URL": database.url("state")}
    for name, folder in (("OPENDATA", samples), ("NETWORK", PACKAGES)):
        source = f"INGESTKIT__CONNECTIONS__{name}_DROP"
        said |= {
            f"{source}__HOST": "127.0.0.1",
            f"{source}__PORT": str(drop.port),
            f"{source}__USER": drop.user,
            f"{source}__PATH": str(folder),
            f"{source}__KEY": json.dumps([str(drop.folder / "client")]),
            # Nobody is writing to the samples.
            f"INGESTKIT__PIPELINES__{name}__SOURCE__SETTLE__QUIET": "0s",
        }
    return said


def main(profile: str) -> int:
    with tempfile.TemporaryDirectory(prefix="ingestkit-prod-") as name, PLACES[profile]() as place:
        project = Path(name)
        place.project(project)
        for line in COMMANDS:
            print(f"$ ingestkit --profile {profile} {line}", flush=True)
            code = place.does(project, *line.split())
            if code:
                return code
        for table in TABLES:
            [[rows]] = place.ask(f"SELECT count(*) FROM {table}")
            print(f"{table}: {rows} rows", flush=True)
    return 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main(sys.argv[1]))
