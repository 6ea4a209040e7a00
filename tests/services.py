"""Servers that tests speak to, each started once for a session on loopback, and ended with it."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

USER = "postgres"


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A PostgreSQL server of our own: its port, and where its programs are."""

    folder: Path
    programs: Path
    port: int

    def url(self, database: str = "postgres", user: str = USER) -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def does(self, statement: str, database: str = "postgres") -> str:
        """Ask by the server's own client; what it answers, one value a line."""
        command = [str(self.programs / "psql"), self.url(database), "-v", "ON_ERROR_STOP=1", "-qAtc", statement]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def schema(self, database: str) -> str:
        """Every table, index and constraint, as the server writes them down."""
        command = [str(self.programs / "pg_dump"), "--schema-only", "--no-owner", "-d", self.url(database)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return "\n".join(line for line in said.splitlines() if not line.startswith(("\\", "--")))

    def control(self, *arguments: str) -> None:
        command = [str(self.programs / "pg_ctl"), "-D", str(self.folder / "data"), "-w", "-s", *arguments]
        subprocess.run([*_as_postgres(), *command], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self.folder} -c fsync=off"
        self.control("-l", str(self.folder / "log"), "-o", options, "start")


def programs() -> Path | None:
    """Where PostgreSQL's programs lie; they are not in PATH everywhere."""
    for found in (shutil.which("pg_config"), *map(str, Path("/usr/lib/postgresql").glob("*/bin/pg_config"))):
        if found is not None:
            asked = subprocess.run([found, "--bindir"], check=True, capture_output=True, text=True)
            folder = Path(asked.stdout.strip())
            if (folder / "initdb").exists():
                return folder
    return None


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    """A new server, which is gone afterwards."""
    here = programs()
    if here is None:
        pytest.skip("PostgreSQL is not installed")
    with tempfile.TemporaryDirectory(prefix="ingestkit-postgres-") as name:
        folder = Path(name)
        if os.geteuid() == 0:
            shutil.chown(folder, USER)
        init = [str(here / "initdb"), "-D", str(folder / "data"), "-U", USER, "--auth=trust", "--no-sync", "-E", "UTF8"]
        # Words are sorted as people sort them, so that nothing comes to rely on the order of characters.
        init += ["--locale-provider=icu", "--icu-locale=en-US", "--locale=C.UTF-8"]
        subprocess.run([*_as_postgres(), *init], check=True, stdout=subprocess.DEVNULL, cwd="/")
        server = PostgresServer(folder, here, _free_port())
        server.start()
        try:
            yield server
        finally:
            server.control("-m", "immediate", "stop")


def _as_postgres() -> list[str]:
    """The server refuses to be root's."""
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"] if os.geteuid() == 0 else []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
