"""Who logs in to Snowflake, by what, and for how long a service is waited for that does not answer."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from ingestkit import steps
from tests.integration.at_snowflake import AtSnowflake, account, at_snowflake
from tests.snowflake_server import Fault, PrivateKey, SnowflakeServer, delayed, key_pair, refused, status, written

pytestmark = [pytest.mark.services, pytest.mark.slow]

server = account

ONCE = {"retry.attempts": 1}
PHRASE, TOKEN = "lynx-of-the-key", "tiger-of-the-service"


@pytest.fixture
def world(
    server: SnowflakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[AtSnowflake]:
    with at_snowflake(server, tmp_path, capsys, monkeypatch) as made:
        made.set_up(ONCE)
        made.waits(1)
        yield made


def by_token(world: AtSnowflake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNOWFLAKE_TOKEN_OF_TESTS", TOKEN)
    world.server.knows("BEARER", token=TOKEN)
    said = {"user": "BEARER", "login": "oauth", "token": "${env:SNOWFLAKE_TOKEN_OF_TESTS}", "private_key": None}
    world.settle({f"connections.warehouse.{name}": value for name, value in said.items()})


def seen_nowhere(world: AtSnowflake, word: str, *said: str) -> None:
    files = [path for path in world.root.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]
    assert files == []
    assert not any(word in one for one in said)


def test_an_encrypted_key_is_opened_by_a_reference(world: AtSnowflake, monkeypatch: pytest.MonkeyPatch) -> None:
    world.server.knows("LOCKED", public_keys=[key_pair(world.root / "locked.p8", PHRASE.encode())])
    monkeypatch.setenv("SNOWFLAKE_PHRASE_OF_TESTS", PHRASE)
    said = {"user": "LOCKED", "private_key": "locked.p8", "passphrase": "${env:SNOWFLAKE_PHRASE_OF_TESTS}"}
    world.settle({f"connections.warehouse.{name}": value for name, value in said.items()})
    ended = world.call("--log-level", "debug", "run")
    assert ended.code == 0, ended.err
    assert {one.user for one in world.sent} == {"LOCKED"}
    seen_nowhere(world, PHRASE, ended.out, ended.err)
    monkeypatch.setenv("SNOWFLAKE_PHRASE_OF_TESTS", "another")
    world.waits(2)
    told = world.refused(3, "run")
    assert "locked.p8 cannot be read with the passphrase that was said" in told


@pytest.mark.parametrize(
    ("key", "passphrase", "words"),
    [
        ("nowhere.p8", None, "nowhere.p8 cannot be read: No such file or directory"),
        ("locked.p8", None, "locked.p8 needs its passphrase"),
        ("plain.p8", "${env:SNOWFLAKE_PHRASE_OF_TESTS}", "plain.p8 is not encrypted, but a passphrase is said"),
        ("text.p8", None, "text.p8 is no private key in PEM"),
    ],
)
def test_a_key_that_cannot_be_read_is_named(
    world: AtSnowflake, monkeypatch: pytest.MonkeyPatch, key: str, passphrase: str | None, words: str
) -> None:
    monkeypatch.setenv("SNOWFLAKE_PHRASE_OF_TESTS", PHRASE)
    key_pair(world.root / "locked.p8", PHRASE.encode())
    key_pair(world.root / "plain.p8")
    (world.root / "text.p8").write_text("no key")
    world.settle({"connections.warehouse.private_key": key, "connections.warehouse.passphrase": passphrase})
    told = world.refused(3, "run")
    assert words in told
    assert "hint: " in told


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("make", [ed25519.Ed25519PrivateKey.generate, partial(ec.generate_private_key, ec.SECP256K1())])
def test_a_key_of_a_kind_that_the_service_does_not_take_is_refused(
    world: AtSnowflake, make: Callable[[], PrivateKey], command: str
) -> None:
    written(make(), world.root / "other.p8")
    world.settle({"connections.warehouse.private_key": "other.p8"})
    ended = world.call(command)
    assert ended.code == 3
    told = ended.out + ended.err
    assert "other.p8 is of a kind that Snowflake does not take" in told
    assert "make one of RSA: openssl genpkey" in told


def test_a_key_on_a_curve_logs_in(world: AtSnowflake) -> None:
    public = written(ec.generate_private_key(ec.SECP384R1()), world.root / "curve.p8")
    world.server.knows("CURVED", public_keys=[public])
    world.settle({"connections.warehouse.user": "CURVED", "connections.warehouse.private_key": "curve.p8"})
    world.does("run")
    world.has(1)


def test_a_token_logs_in_by_a_reference(world: AtSnowflake, monkeypatch: pytest.MonkeyPatch) -> None:
    by_token(world, monkeypatch)
    ended = world.call("--log-level", "debug", "run")
    assert ended.code == 0, ended.err
    assert {one.user for one in world.sent} == {"BEARER"}
    seen_nowhere(world, TOKEN, ended.out, ended.err)


def test_a_token_that_expires_in_the_midst_of_a_run_is_told_and_the_next_run_does_the_work(
    world: AtSnowflake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is logged in by then stays so; the next login is refused."""
    by_token(world, monkeypatch)
    world.does("run")
    world.waits(2)

    def expire(step: str) -> None:
        if step == "load.begun":
            world.server.knows("BEARER", token=TOKEN, token_expired=True)

    monkeypatch.setattr(steps, "reached", expire)
    told = world.refused(7, "run")
    assert "says that the token has expired" in told
    assert "hint: renew `token` of the connection, then run again" in told
    seen_nowhere(world, TOKEN, told)
    world.has(1)
    monkeypatch.undo()
    for name, value in world.server.environment.items():
        monkeypatch.setenv(name, value)
    by_token(world, monkeypatch)
    world.does("run")
    world.has(1, 2)


def test_a_token_that_nobody_gave_is_told(world: AtSnowflake, monkeypatch: pytest.MonkeyPatch) -> None:
    by_token(world, monkeypatch)
    world.server.knows("BEARER", token="another")
    assert "does not take this token" in world.refused(7, "run")


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(
    ("fault", "words", "hint"),
    [
        (status(404), "is not known where it was looked for", "look at `account` of the connection"),
        (status(403), "lets nobody in from here, or is not there", "look at `account` of the connection"),
        (refused(390_189, "08001", "Role 'LOADER' is not authorized."), "does not give this user its role", "`role`"),
        (refused(390_422, "08001", "Not allowed to access Snowflake."), "lets nobody in from here", "network policies"),
    ],
)
def test_a_login_that_is_refused_says_why_and_what_helps(
    world: AtSnowflake, fault: Fault, words: str, hint: str, command: str
) -> None:
    world.server.breaks(fault, "LOGIN", times=None)
    ended = world.call(command)
    assert ended.code == 7
    assert words in ended.out + ended.err
    assert hint in ended.out + ended.err


def test_a_table_that_is_named_as_our_own_are_is_refused_by_check_and_by_a_run(world: AtSnowflake) -> None:
    world.set_up({"models.a.table": "Ingestkit_people"})
    for command in ("check", "run"):
        ended = world.call(command)
        assert ended.code == 7
        assert "no model can publish into Ingestkit_people" in ended.out + ended.err
        assert "give the model another `table:`" in ended.out + ended.err


def test_a_login_by_browser_needs_a_person(world: AtSnowflake) -> None:
    world.settle({"connections.warehouse.login": "browser", "connections.warehouse.private_key": None})
    told = world.refused(3, "run")
    assert "a login by browser needs a person at a terminal" in told
    assert "hint: set login: key_pair" in told


def test_statements_carry_the_run_id_and_logins_their_time_outs(world: AtSnowflake) -> None:
    logins = len(world.server.logins)
    world.does("run", "--run-id", "nightly 7")
    tags = [one.tag for one in world.server.sent[world.begun :]]
    # Before a batch is opened there is no run: rights are looked at then, and fences and receipts.
    before = tags.index("ingestkit nightly 7")
    assert set(tags[:before]) == {"ingestkit"}
    assert set(tags[before:]) == {"ingestkit nightly 7"}
    made = world.server.logins[logins:]
    assert made
    for login in made:
        told = login["CLIENT_ENVIRONMENT"]
        assert [told[f"{name}_TIMEOUT"] for name in ("LOGIN", "NETWORK", "SOCKET")] == [3, 2, 2]
        assert {name: value for name, value in login["parameters"].items() if name in SETTLED} == SETTLED


SETTLED = {
    "LOCK_TIMEOUT": 4,
    "STATEMENT_TIMEOUT_IN_SECONDS": 4 * 3600,
    "TIMEZONE": "UTC",
    "DATE_INPUT_FORMAT": "AUTO",
    "TIME_INPUT_FORMAT": "AUTO",
    "TIMESTAMP_INPUT_FORMAT": "AUTO",
    "QUOTED_IDENTIFIERS_IGNORE_CASE": False,
    "TRANSACTION_ABORT_ON_ERROR": False,
    "ERROR_ON_NONDETERMINISTIC_MERGE": True,
    "OPT_OUT_ERROR_LOGGING": True,
    "ABORT_DETACHED_QUERY": True,
    "CLIENT_SESSION_KEEP_ALIVE": False,
    "CLIENT_TELEMETRY_ENABLED": False,
}
"""What a session must not take from its account or user."""


@contextmanager
def silent() -> Iterator[int]:
    """The port of a server that takes every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        taken: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    taken.append(listener.accept()[0])
                except OSError:
                    return

        threading.Thread(target=take, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            for one in taken:
                one.close()
            listener.shutdown(socket.SHUT_RDWR)


def test_a_server_that_takes_a_login_and_says_nothing_is_given_up(world: AtSnowflake) -> None:
    with silent() as port:
        world.settle({"connections.warehouse.endpoint": f"http://127.0.0.1:{port}"})
        began = time.monotonic()
        told = world.refused(7, "run")
    assert "does not answer" in told
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("^COPY", "does not answer"),
        ("UPLOAD", "does not take what is put into its stage"),
        ("^COMMIT", "while a COMMIT was under way"),
    ],
)
def test_a_service_that_falls_silent_is_given_up(world: AtSnowflake, statement: str, words: str) -> None:
    """After the time-outs of one request; the double says something in the end, but to nobody."""
    world.server.holds_answers(60)
    world.server.breaks(delayed(20), statement, times=None)
    began = time.monotonic()
    told = world.refused(7, "run")
    assert time.monotonic() - began < 18
    assert words in told
    assert "hint: " in told
    world.server.heals()
    world.server.holds_answers(1)
    world.does("run")
    world.has(1)


def test_a_statement_that_takes_longer_than_any_request_is_waited_for(world: AtSnowflake) -> None:
    world.server.breaks(delayed(5), "^COPY")
    world.does("run")
    world.has(1)
