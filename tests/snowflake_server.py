"""A Snowflake account that tests speak to by the service's connector: a process on loopback, ended with the test."""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import snowflake.connector
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from snowflake.connector import SnowflakeConnection
from snowflake.connector.errors import Error

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

ROOT = Path(__file__).parents[1]
DRIVE = ROOT / "sql/drive/snowflake.sql"
FOREIGN = ("COVERAGE_", "SNOWFLAKE_", "INGESTKIT_")


@dataclass(frozen=True, slots=True)
class Fault:
    """What befalls a statement; logins and what ends sessions are found as LOGIN and LOGOUT."""

    fate: Literal["cut", "lost", "status", "refused", "expired", "delayed", "vanished", "taken", "short", "aborted"]
    said: dict[str, Any]


NEVER_ARRIVES = Fault("cut", {"for_good": False})
# However often it is sent.
LINE_CUT = Fault("cut", {"for_good": True})
# Who asks again by the same request is told what it missed.
ANSWER_LATE = Fault("lost", {"for_good": False})
ANSWER_LOST = Fault("lost", {"for_good": True})
# It is done, and who asks again is told that the session is over.
ENDED_MEANWHILE = Fault("lost", {"for_good": False, "ends": True})
SERVER_ERROR = Fault("status", {"status": 500})
SESSION_EXPIRED = Fault("expired", {"for_good": False})
LOGIN_EXPIRED = Fault("expired", {"for_good": True})
TOO_MANY_WAIT = Fault(
    "refused",
    {
        "code": 625,
        "state": "57014",
        "message": "Your statement was aborted because the number of waiters for this lock exceeds the 20 statements "
        "limit.",
    },
)


# Other files lie where those of a PUT are to.
NAMES_TAKEN = Fault("taken", {})
# Somebody else ends the transaction that the statement is of, before it is done.
ABORTED = Fault("aborted", {})


def short_of(rows: int) -> Fault:
    """COPY tells of fewer rows of its last file; of 0 that it does not tell of the file."""
    return Fault("short", {"rows": rows})


def status(code: int) -> Fault:
    return Fault("status", {"status": code})


def refused(code: int, state: str, message: str) -> Fault:
    return Fault("refused", {"code": code, "state": state, "message": message})


def delayed(seconds: float) -> Fault:
    return Fault("delayed", {"seconds": seconds})


def vanished(file: str) -> Fault:
    """Files of stages whose path the pattern is found in are gone when the statement runs."""
    return Fault("vanished", {"file": file})


@dataclass(frozen=True, slots=True)
class Sent:
    """A statement as it arrived, and what became of it: `done`, the code of an error, or what befell it."""

    sql: str
    session: int
    tag: str
    user: str
    query: str
    request: str
    outcome: str


@dataclass(frozen=True, slots=True)
class SnowflakeServer:
    """Where the account answers, and who is let in: LOADER, by the private key."""

    port: int
    certificate: Path
    folder: Path
    host: str = "127.0.0.1"
    protocol: str = "http"
    account: str = "ingestkit"
    user: str = "LOADER"
    role: str = "LOADER"
    warehouse: str = "LOADING"

    @property
    def private_key(self) -> Path:
        return self.folder / "loader.p8"

    @property
    def environment(self) -> dict[str, str]:
        """Whom a client's process must trust to upload to stages, and that it shall not look where it runs."""
        trust = dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), str(self.certificate))
        return {**trust, "SNOWFLAKE_DISABLE_PLATFORM_DETECTION": "true"}

    def settings(self, database: str | None = None, **more: Any) -> dict[str, Any]:
        """What the connector is told to log in by the key."""
        said: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "protocol": self.protocol,
            "account": self.account,
            "user": self.user,
            "role": self.role,
            "warehouse": self.warehouse,
            "authenticator": "SNOWFLAKE_JWT",
            "private_key_file": str(self.private_key),
            "login_timeout": 10,
            "network_timeout": 20,
        }
        if database is not None:
            said |= {"database": database, "schema": "PUBLIC"}
        return {name: value for name, value in {**said, **more}.items() if value is not None}

    def connection(self, database: str, **more: Any) -> dict[str, Any]:
        """What a project says of it."""
        said = {
            "type": "snowflake",
            "account": self.account,
            "user": self.user,
            "role": self.role,
            "warehouse": self.warehouse,
            "database": database,
            "private_key": str(self.private_key),
            "endpoint": f"{self.protocol}://{self.host}:{self.port}",
            "lock_timeout": "30s",
            "network_timeout": "20s",
        }
        return said | more

    def connect(self, database: str | None = None, **more: Any) -> SnowflakeConnection:
        """The service's own connector, unmodified."""
        return snowflake.connector.connect(**self.settings(database, **more))

    def database(self) -> str:
        """A new database with a schema PUBLIC, which nobody else knows."""
        name = f"D{uuid.uuid4().hex[:12].upper()}"
        self._tell("databases", name=name)
        return name

    def copied(self, database: str) -> str:
        """A new database that holds what another one does now, with what was loaded and what lies in its stages."""
        name = f"D{uuid.uuid4().hex[:12].upper()}"
        self._tell("copies", database=database, name=name)
        return name

    def knows(self, name: str, **how: Any) -> None:
        """A user is let in by `public_keys` (PEM), `token` (`token_expired`), `password` or `saml`, or not at all.

        The last is what a browser brings.
        """
        self._tell("users", name=name, **how)

    def breaks(self, fault: Fault, statement: str = "", *, spared: int = 0, times: int | None = 1) -> None:
        """A fault for statements in which the pattern is found: the first `spared` pass, the next `times` do not."""
        self._tell("rules", fate=fault.fate, said=fault.said, statement=statement, spared=spared, times=times)

    def heals(self) -> None:
        self._tell("heal")

    def takes(self, privilege: str, kind: str, name: str = "*", to: str = "") -> None:
        """A right that the role has no more; names are dotted and upper case. It may be given to another: `SHARE S`."""
        self._tell("rights", privilege=privilege, kind=kind, name=name, to=to)

    def sets(self, **defaults: Any) -> None:
        """What the account has set for all that begins from now on, until it `heals`."""
        self._tell("defaults", **defaults)

    def streams(self, name: str, table: str) -> None:
        """There is a stream on a table, which is said with its database and schema."""
        self._tell("streams", name=name, table=table)

    def reads(self, *, s3: dict[str, Any] | None = None, azure: str | None = None) -> None:
        """Where stages with `s3://` lie, as boto3's client is told, and those with `azure://`, a connection string.

        Their storage integration is called LAKE.
        """
        self._tell("outside", s3=s3, azure=azure)

    def patience(self, seconds: float) -> None:
        """So long a session that says nothing may hold a table that others wait for."""
        self._tell("times", patience=seconds)

    def keeps_aborts_to_itself(self) -> None:
        """No session hears of it when others have ended its transaction."""
        self._tell("times", told=False)

    def begins_with_changes_alone(self) -> None:
        """Without AUTOCOMMIT no query begins a transaction, as it does else: the service's pages tell of both."""
        self._tell("times", queries=False)

    def holds_answers(self, seconds: float) -> None:
        """So long a client is left waiting for a statement's answer before it is told to ask again."""
        self._tell("times", held=seconds)

    @property
    def sent(self) -> list[Sent]:
        """Every statement, in the order they came."""
        return [Sent(**one) for one in self._tell("statements")["statements"]]

    @property
    def logins(self) -> list[dict[str, Any]]:
        """What clients said of themselves, but for secrets."""
        found: list[dict[str, Any]] = self._tell("logins")["logins"]
        return found

    @property
    def broken(self) -> int:
        """How many requests a fault has befallen."""
        return int(self._tell("broken")["broken"])

    @property
    def uploads(self) -> list[int]:
        """How many uploads were under way at the beginning of each."""
        found: list[int] = self._tell("uploads")["parallel"]
        return found

    def _tell(self, what: str, **said: Any) -> dict[str, Any]:
        address = f"http://{self.host}:{self.port}/double/{what}"
        with urllib.request.urlopen(urllib.request.Request(address, json.dumps(said).encode())) as answer:
            found: dict[str, Any] = json.load(answer)
        assert found.get("success", True), found["message"]
        return found


def asked(link: SnowflakeConnection, sql: str, *bound: object) -> list[tuple[Any, ...]]:
    """What a statement answers."""
    with link.cursor() as cursor:
        found = cursor.execute(sql, bound or None)
        assert found is not None
        return list(found.fetchall())


def answered(link: SnowflakeConnection, sql: str) -> list[dict[str, Any]]:
    """The same by the names of the columns."""
    with link.cursor() as cursor:
        found = cursor.execute(sql)
        assert found is not None
        return [dict(zip([one.name for one in cursor.description], row, strict=True)) for row in found.fetchall()]


def error_code(link: SnowflakeConnection, sql: str) -> int | None:
    """The number of the error that a statement ends with."""
    with pytest.raises(Error) as refused:
        asked(link, sql)
    return refused.value.errno


def brings(token: str, address: str) -> bool:
    """A browser that is sent to an address for signing in, and comes back with what the identity provider gives."""

    def come_back() -> None:
        with urllib.request.urlopen(f"http://localhost:{address.rpartition('=')[2]}/?token={token}") as answer:
            answer.read()

    threading.Thread(target=come_back, daemon=True).start()
    return True


def key_pair(file: Path, password: bytes | None = None) -> str:
    """A new private key in a file; its public half, as the service is told of it."""
    return written(rsa.generate_private_key(public_exponent=65_537, key_size=2048), file, password)


def written(key: PrivateKey, file: Path, password: bytes | None = None) -> str:
    """The same for a key of any kind."""
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how))
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


@contextmanager
def snowflake_server() -> Iterator[SnowflakeServer]:
    """A new account; it is gone afterwards."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    command = [sys.executable, "-m", "tests.doubles.snowflake", "ingestkit"]
    with tempfile.TemporaryDirectory(prefix="ingestkit-snowflake-") as name, tempfile.TemporaryFile() as log:
        folder = Path(name)
        public = key_pair(folder / "loader.p8")
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=kept | {"TMPDIR": name}, cwd=ROOT
        )
        with process:
            try:
                said = process.stdout.readline() if process.stdout else b""
                if not said:
                    log.seek(0)
                    raise AssertionError(log.read().decode())
                told = json.loads(said)
                server = SnowflakeServer(told["port"], Path(told["certificate"]), folder)
                server.knows(server.user, public_keys=[public])
                yield server
            finally:
                process.kill()


def made_by(ask: Callable[[str], object], script: Path, **values: str) -> None:
    """Do what a script for the service's own client does, but for its grants: the double's roles have all rights."""
    text = re.sub(r"^--.*\n", "", script.read_text(), flags=re.MULTILINE)
    for name, value in values.items():
        text = text.replace(f"<% {name} %>", value)
    for one in filter(None, map(str.strip, text.split(";"))):
        if not one.startswith("GRANT"):
            ask(one)
