"""Secrets are seen nowhere: not in what commands say or log, not in what they leave, nor in state and target."""

import itertools
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ingestkit import steps
from ingestkit.states import migrate
from tests.doubles.sftp import sftp_double
from tests.integration.world import FIRST, SECOND, Ended, World
from tests.services import PostgresServer, postgres
from tests.warehouses import warehouse_database

pytestmark = [pytest.mark.services, pytest.mark.slow]

NUMBERS = itertools.count(1)
DROP, PHRASE, TARGET, STATE = "DROP_PASSWORD", "KEY_PASSPHRASE", "WAREHOUSE_PASSWORD", "STATE_PASSWORD"
# Words that nobody else says; each wrong one is a right one of no other place.
RIGHT = {DROP: "sesame-right", PHRASE: "lynx-right", TARGET: "hunter-right", STATE: "vault-right"}
WRONG = {DROP: "sesame-wrong", PHRASE: "lynx-wrong", TARGET: "hunter-wrong", STATE: "vault-wrong"}
WORDS = sorted({word.split("-", maxsplit=1)[0] for word in (*RIGHT.values(), *WRONG.values())})
LOOKS = (
    "config show --origin",
    "config show --pipeline p --origin",
    "config validate",
    "check",
    "plan p",
    "runs list",
    "manifest show",
    "state show p",
    "state export",
)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that asks two of its users for their passwords."""
    with postgres() as started:
        rules = started.folder / "data/pg_hba.conf"
        asked = "".join(f"host all {name} 127.0.0.1/32 scram-sha-256\n" for name in ("sender", "keeper"))
        rules.write_text(asked + rules.read_text())
        started.control("reload")
        started.does(f"CREATE ROLE sender LOGIN PASSWORD '{RIGHT[TARGET]}'")
        started.does(f"CREATE ROLE keeper LOGIN SUPERUSER PASSWORD '{RIGHT[STATE]}'")
        yield started


@dataclass(frozen=True, slots=True)
class Guarded:
    """A project each of whose places asks for a secret, and everything its commands have said."""

    world: World
    server: PostgresServer
    databases: tuple[str, str]
    said: list[str]

    def call(self, *arguments: str) -> Ended:
        ended = self.world.call("--log-level", "debug", *arguments)
        self.said.append(f"{' '.join(arguments)}\n{ended.out}\n{ended.err}")
        return ended

    def places_of(self, word: str) -> list[str]:
        """Where a word stands: what was said, files that were left, rows."""
        told = [one for one in self.said if word in one]
        files = [path for path in self.world.root.rglob("*") if path.is_file()]
        told += [str(path) for path in files if word.encode() in str(path).encode() + path.read_bytes()]
        for name in self.databases:
            dump = [str(self.server.programs / "pg_dump"), "-d", self.server.url(name)]
            rows = subprocess.run(dump, check=True, capture_output=True, text=True).stdout
            told += [f"rows of {name}"] if word in rows else []
        return told


@pytest.fixture(params=["password", "whole address"])
def guarded(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Guarded]:
    """The state's password is said alone, or with the whole address in one variable."""
    number = next(NUMBERS)
    target, state = warehouse_database(server, f"target{number}"), f"state{number}"
    server.does("GRANT ingestkit_warehouse TO sender")
    server.does(f"CREATE DATABASE {state}")
    migrate.upgrade(server.url(state))
    for name, word in RIGHT.items():
        monkeypatch.setenv(name, word)
    # Outside of what is looked through, as it would be.
    (tmp_path / "keys").mkdir()
    key = tmp_path / "keys/client"
    made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", RIGHT[PHRASE], "-C", "client", "-f", str(key)]
    subprocess.run(made, check=True)
    url = f"postgresql://keeper:${{env:{STATE}}}@127.0.0.1:{server.port}/{state}"
    if request.param == "whole address":
        monkeypatch.setenv("STATE_URL", url.replace(f"${{env:{STATE}}}", RIGHT[STATE]))
        url = "${env:STATE_URL}"
    world = World(tmp_path / "project", capsys, url, server.url(target, "sender"))
    world.root.mkdir()
    with sftp_double(RIGHT[DROP]) as double:
        place = {"type": "sftp", "host": "127.0.0.1", "port": double.port, "user": "me", "path": f"{world.root}/drops"}
        login = {"key": str(key), "passphrase": f"${{env:{PHRASE}}}", "password": f"${{env:{DROP}}}"}
        drop = {**place, **login, "host_keys": double.fingerprint}
        world.settle({"connections.drop": drop, "connections.warehouse.password": f"${{env:{TARGET}}}"})
        world.set_up({"source.after_success": {"move": "done"}})
        yield Guarded(world, server, (target, state), [])


def test_a_secret_is_seen_nowhere_whatever_happens(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    world = guarded.world
    world.drop(FIRST)
    for look in LOOKS[:5]:
        assert guarded.call(*look.split()).code == 0, guarded.said[-1]
    assert guarded.call("run", "--dry-run=data").code == 0, guarded.said[-1]
    # The passwords are asked for indeed, and the passphrase too.
    for name, code in ((DROP, 4), (PHRASE, 3), (TARGET, 7), (STATE, 7)):
        if name == STATE and world.state_url == "${env:STATE_URL}":
            continue
        with monkeypatch.context() as patched:
            patched.setenv(name, WRONG[name])
            assert guarded.call("run").code == code, guarded.said[-1]
            assert guarded.call("check").code == code, guarded.said[-1]
        with monkeypatch.context() as patched:
            patched.delenv(name)
            assert guarded.call("run").code == 3, guarded.said[-1]

    def falls(step: str) -> None:
        if step == "load.fenced":
            raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(steps, "reached", falls)
        assert guarded.call("run").code == 1, guarded.said[-1]
    assert guarded.call("run").code == 0, guarded.said[-1]
    world.drop({"20260108/a.csv": "id,n\n1,no\n", "20260108/b.csv": SECOND["20260108/b.csv"]})
    assert guarded.call("run", "--output", "json").code == 5, guarded.said[-1]
    for look in LOOKS:
        assert guarded.call(*look.split()).code == 0, guarded.said[-1]
        if look != "state export":
            assert guarded.call(*look.split(), "--output", "json").code == 0, guarded.said[-1]
    for row in world.does("runs", "list")["rows"]:
        assert guarded.call("runs", "show", row["run_id"]).code == 0, guarded.said[-1]
        assert guarded.call("runs", "show", row["run_id"], "--output", "json").code == 0, guarded.said[-1]
    for word in WORDS:
        assert guarded.places_of(word) == []
    # Looked for in the right places: what is no secret is found there.
    found = guarded.places_of("20260101")
    assert {"rows of " + name for name in guarded.databases} < set(found)
    assert len(found) > 20


def test_a_server_that_is_gone_is_told_without_its_secrets(guarded: Guarded) -> None:
    guarded.world.drop(FIRST)
    guarded.server.control("-m", "fast", "stop")
    try:
        for command in ("run", "plan p", "check", "runs list"):
            assert guarded.call(*command.split()).code == 7, guarded.said[-1]
    finally:
        guarded.server.start()
    for word in WORDS:
        assert guarded.places_of(word) == []
