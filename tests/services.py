"""Servers that tests speak to, each started once for a session on loopback, and ended with it."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

USER = "postgres"


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A PostgreSQL server of our own: its port, and where its programs are."""

    folder: Path
    programs: Path
    port: int
    copies: list[str] = field(default_factory=list)
    """Databases that are of one test alone, so that a thousand tests leave no more behind than one."""

    def drop_copies(self) -> None:
        while self.copies:
            self.does(f"DROP DATABASE IF EXISTS {self.copies.pop()} WITH (FORCE)")

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

    def wait_for_a_lock(self, database: str) -> None:
        """Come back once a session of that database waits for another one's lock."""
        until = time.monotonic() + 60
        asked = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND wait_event_type = 'Lock'"
        while self.does(asked).strip() == "0":
            assert time.monotonic() < until, "nobody waits for a lock"
            time.sleep(0.02)

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
        server = PostgresServer(folder, here, free_port())
        server.start()
        try:
            yield server
        finally:
            server.control("-m", "immediate", "stop")


def _as_postgres() -> list[str]:
    """The server refuses to be root's."""
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"] if os.geteuid() == 0 else []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class SftpServer:
    """An OpenSSH server of our own, which lets in whoever has the key `client`, and shows the host key `host`."""

    folder: Path
    port: int
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def user(self) -> str:
        return getpass.getuser()

    def key(self, name: str, *more: str) -> Path:
        """A new private key, with its public half beside it; by `more` of another kind than usual."""
        path = self.folder / name
        command = ["ssh-keygen", "-q", *(more or ("-t", "ed25519")), "-C", name, "-f", str(path)]
        subprocess.run(command if "-N" in more else [*command, "-N", ""], check=True)
        return path

    def lets_in(self, *names: str) -> None:
        public = [(self.folder / f"{name}.pub").read_text() for name in names]
        (self.folder / "authorized").write_text("".join(public))

    def fingerprint(self, name: str = "host") -> str:
        command = ["ssh-keygen", "-l", "-f", str(self.folder / f"{name}.pub")]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[1]

    def known(self, *names: str, port: int | None = None) -> str:
        """What a file of known hosts says of the server where these are its host keys."""
        public = [(self.folder / f"{name}.pub").read_text().split()[:2] for name in names or ("host",)]
        return "".join(f"[127.0.0.1]:{port or self.port} {kind} {key}\n" for kind, key in public)

    def start(self, host_key: str = "host", *more: str) -> None:
        config = {
            "ListenAddress": f"127.0.0.1:{self.port}",
            "HostKey": self.folder / host_key,
            "AuthorizedKeysFile": self.folder / "authorized",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PermitRootLogin": "prohibit-password",
            "PasswordAuthentication": "no",
            "Subsystem": "sftp internal-sftp",
        }
        lines = [*(f"{name} {value}" for name, value in config.items()), *more]
        (self.folder / "config").write_text("\n".join(lines) + "\n")
        command = [_sshd(), "-D", "-f", str(self.folder / "config"), "-E", str(self.folder / "log")]
        self.started.append(subprocess.Popen(command))
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self) -> None:
        """End the server and the connections it has."""
        while self.started:
            program = self.started.pop()
            for process in (program.pid, *_below(program.pid)):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            program.wait()


def _below(process: int) -> list[int]:
    """What a process has started, and what that has."""
    try:
        children = [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return [*children, *(one for child in children for one in _below(child))]


def _sshd() -> str:
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or ""


@contextmanager
def sftp() -> Iterator[SftpServer]:
    """A new server, which is gone afterwards."""
    if not _sshd():
        pytest.skip("OpenSSH's server is not installed")
    if os.geteuid() == 0:
        # Where it puts itself away before a login; elsewhere the system has made it.
        Path("/run/sshd").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ingestkit-sshd-") as name:
        server = SftpServer(Path(name), free_port())
        server.key("host")
        server.key("client")
        server.lets_in("client")
        server.start()
        try:
            yield server
        finally:
            server.stop()
