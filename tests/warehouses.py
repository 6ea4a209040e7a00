"""PostgreSQL warehouses for tests: a database of their own, and a role with the rights of sql/grants/ and no other."""

import subprocess
from pathlib import Path

from ingestkit.pipeline import SystemClock
from ingestkit.warehouses.postgresql import PostgresqlWarehouse
from ingestkit.warehouses.postgresql_session import Server
from tests.services import PostgresServer

GRANTS = Path(__file__).parents[1] / "sql/grants/warehouse_postgresql.sql"
LOADER = "loader"


def warehouse_database(server: PostgresServer, name: str, schema: str = "public") -> str:
    """A new database, in which `loader` may do what a warehouse's role may."""
    server.does(f"CREATE DATABASE {name}")
    # What everybody may do by default is no right that the script gives.
    server.does(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
    server.does("REVOKE ALL ON SCHEMA public FROM PUBLIC", name)
    command = [str(server.programs / "psql"), server.url(name), "-q", "-v", "ON_ERROR_STOP=1"]
    schema_said = ["-v", f"schema={schema}"] if schema != "public" else []
    subprocess.run([*command, *schema_said, "-f", str(GRANTS)], check=True, capture_output=True)
    if not server.does(f"SELECT 1 FROM pg_roles WHERE rolname = '{LOADER}'"):
        server.does(f"CREATE ROLE {LOADER} LOGIN IN ROLE ingestkit_warehouse")
    return name


def postgresql_warehouse(
    server: PostgresServer,
    database: str,
    scratch: Path,
    *,
    schema: str = "public",
    lock_timeout: float = 30.0,
    port: int | None = None,
) -> PostgresqlWarehouse:
    """A warehouse as `loader`, by another port where something stands in between."""
    parameters = {
        "host": "127.0.0.1",
        "port": port or server.port,
        "dbname": database,
        "user": LOADER,
        "connect_timeout": 10,
        "application_name": "ingestkit",
    }
    place = Server(f"127.0.0.1/{database}", schema, lock_timeout, parameters)
    return PostgresqlWarehouse(place, "300MiB", 2, SystemClock(), scratch)
