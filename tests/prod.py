"""The sample pipeline in profile prod, on servers of its own on loopback: `make prod`."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.services import PostgresServer, SftpServer, postgres, sftp
from tests.warehouses import LOADER, warehouse_database

ROOT = Path(__file__).parents[1]
COMMANDS = ("state upgrade --yes", "check --pin --yes", "run opendata", "run opendata", "runs list opendata")
TABLES = ("address", "hco", "hcp", "license", "parenthco")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="ingestkit-prod-") as name, sftp() as drop, postgres() as database:
        project = Path(name)
        shutil.copytree(ROOT / "config", project / "config")
        database.does("CREATE DATABASE state")
        warehouse_database(database, "warehouse")
        (project / "config.env").write_text("".join(f"{key}={value}\n" for key, value in said(drop, database).items()))
        for line in COMMANDS:
            print(f"$ ingestkit --profile prod {line}", flush=True)
            words = [sys.executable, "-c", "from ingestkit.cli.main import main; main()", "--profile", "prod"]
            code = subprocess.run([*words, *line.split()], cwd=project, check=False).returncode
            if code:
                return code
        for table in TABLES:
            print(f"{table}: {database.does(f'SELECT count(*) FROM {table}', 'warehouse').strip()} rows", flush=True)
    return 0


def said(drop: SftpServer, database: PostgresServer) -> dict[str, str]:
    """Where the servers are, as config.env says it."""
    source, target = "INGESTKIT__CONNECTIONS__OPENDATA_DROP", "INGESTKIT__CONNECTIONS__WAREHOUSE"
    return {
        "STATE_URL": database.url("state"),
        "WAREHOUSE_PASSWORD": "none",
        f"{source}__HOST": "127.0.0.1",
        f"{source}__PORT": str(drop.port),
        f"{source}__USER": drop.user,
        f"{source}__PATH": str(ROOT / "config/samples/opendata"),
        f"{source}__KEY": json.dumps([str(drop.folder / "client")]),
        f"{target}__HOST": "127.0.0.1",
        f"{target}__PORT": str(database.port),
        f"{target}__USER": LOADER,
        "INGESTKIT__CONNECTIONS__LAKE__PATH": "state/lake",
        # Nobody is writing to the samples.
        "INGESTKIT__PIPELINES__OPENDATA__SOURCE__SETTLE__QUIET": "0s",
    }


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
