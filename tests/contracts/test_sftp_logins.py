"""Who is let in by an SFTP server, and which server is taken for itself."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingestkit.errors import ConfigError, IngestkitError, SourceError
from ingestkit.sources import hostkeys, ssh
from ingestkit.sources.hostkeys import HostKey
from ingestkit.sources.ssh import Server
from tests.contracts.test_sftp_source import connection
from tests.doubles.sftp import sftp_double
from tests.services import SftpServer, sftp

pytestmark = [pytest.mark.services, pytest.mark.slow]
ENGINES = pytest.mark.parametrize("engine", ["paramiko", "openssh"])


@pytest.fixture
def server() -> Iterator[SftpServer]:
    with sftp() as started:
        yield started


def reached(server: SftpServer, **more: Any) -> Server:
    """The server as a connection of these settings reaches it; the project lies in a folder of the server's own."""
    return Server(connection(server, server.folder, **more), server.folder / "project", "drop", "shop")


def trusts(server: SftpServer, *names: str) -> None:
    (server.folder / "project/config").mkdir(parents=True, exist_ok=True)
    (server.folder / "project/config/known_hosts").write_text(server.known(*names))


def connects(to: Server) -> None:
    client = ssh.connecting(to)()
    try:
        assert any(name == "log" for name, _ in client.entries(to.settings.path))
    finally:
        client.end()


def refused(to: Server, kind: type[IngestkitError] = SourceError) -> str:
    with pytest.raises(kind) as caught:
        connects(to)
    assert not caught.value.transient
    assert caught.value.hint
    return f"{caught.value.message}\n{caught.value.hint}"


@ENGINES
def test_a_server_that_is_unknown_is_not_spoken_to(server: SftpServer, engine: str) -> None:
    said = refused(reached(server, engine=engine))
    assert f"the host key of 127.0.0.1:{server.port} is unknown: it shows {server.fingerprint()}" in said
    assert "ingestkit check shop --pin" in said
    assert "Accepted" not in (server.folder / "log").read_text()


@ENGINES
def test_a_server_whose_key_has_changed_is_not_spoken_to(server: SftpServer, engine: str) -> None:
    trusts(server)
    connects(reached(server, engine=engine))
    server.key("other")
    server.stop()
    server.start("other")
    said = refused(reached(server, engine=engine))
    assert f"has changed: it shows {server.fingerprint('other')}" in said
    assert f"{server.fingerprint()} is known" in said
    assert "ingestkit check shop --pin" in said


@ENGINES
def test_a_server_is_known_by_any_of_several_fingerprints(server: SftpServer, engine: str) -> None:
    server.key("other")
    both = [server.fingerprint("other"), server.fingerprint()]
    connects(reached(server, engine=engine, host_keys=both))
    server.stop()
    server.start("other")
    connects(reached(server, engine=engine, host_keys=both))
    # The file is not asked where fingerprints are said.
    trusts(server, "other")
    assert "none of host_keys in connection drop" in refused(reached(server, engine=engine, host_keys=both[1:]))


@ENGINES
def test_a_server_of_several_keys_is_known_by_one_of_another_kind(server: SftpServer, engine: str) -> None:
    server.key("rsa", "-t", "rsa", "-b", "2048")
    server.stop()
    server.start("host", f"HostKey {server.folder}/rsa")
    trusts(server, "rsa")
    connects(reached(server, engine=engine))


@ENGINES
def test_a_fingerprint_may_be_of_any_of_the_servers_keys(server: SftpServer, engine: str) -> None:
    server.key("rsa", "-t", "rsa", "-b", "2048")
    server.key("ecdsa", "-t", "ecdsa")
    server.stop()
    server.start("host", f"HostKey {server.folder}/rsa", f"HostKey {server.folder}/ecdsa")
    for name in ("host", "rsa", "ecdsa"):
        connects(reached(server, engine=engine, host_keys=[server.fingerprint(name)]))
    server.key("stranger")
    said = refused(reached(server, engine=engine, host_keys=[server.fingerprint("stranger")]))
    assert all(server.fingerprint(name) in said for name in ("host", "rsa", "ecdsa"))


@ENGINES
def test_what_is_pinned_is_known_from_then_on(server: SftpServer, engine: str) -> None:
    to = reached(server, engine=engine)
    keys = ssh.presented(to)
    assert [key.fingerprint for key in keys] == [server.fingerprint()]
    assert not ssh.is_trusted(to, keys[0])
    file = ssh.pin(to, keys)
    assert file.read_text() == server.known()
    connects(to)


@ENGINES
def test_two_keys_are_tried_so_that_one_can_be_changed_for_the_other(server: SftpServer, engine: str) -> None:
    trusts(server)
    server.key("new")
    both = [str(server.folder / name) for name in ("new", "client")]
    to = reached(server, engine=engine, key=both)
    connects(to)
    server.lets_in("new")
    connects(to)
    server.lets_in()
    said = refused(to)
    assert f"127.0.0.1:{server.port} does not let {server.user} in" in said


@pytest.mark.parametrize(
    "kind",
    [
        ("-t", "rsa", "-b", "2048", "-m", "PEM"),
        ("-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "secret word"),
        ("-t", "rsa", "-b", "2048", "-m", "PKCS8"),
        ("-t", "ecdsa", "-m", "PEM", "-N", "secret word"),
        ("-t", "ecdsa", "-m", "PKCS8", "-N", "secret word"),
        ("-t", "ed25519", "-N", "secret word"),
        ("-t", "rsa", "-b", "2048"),
    ],
    ids=" ".join,
)
def test_keys_of_all_usual_forms_are_read(server: SftpServer, kind: tuple[str, ...]) -> None:
    trusts(server)
    server.key("mine", *kind)
    server.lets_in("mine")
    mine = str(server.folder / "mine")
    connects(reached(server, key=mine, passphrase="secret word"))
    if "-N" in kind:
        assert "needs its passphrase" in refused(reached(server, key=mine), ConfigError)
        wrong = refused(reached(server, key=mine, passphrase="other word"), ConfigError)
        assert "cannot be read with the passphrase that was said" in wrong
        assert "word" not in wrong


@pytest.mark.parametrize("content", [None, b"", b"hello", b"-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n"])
def test_a_key_that_is_none_is_an_error_that_shows_nothing_of_it(server: SftpServer, content: bytes | None) -> None:
    trusts(server)
    path = server.folder / "mine"
    if content is not None:
        path.write_bytes(content)
    said = refused(reached(server, key=str(path)), ConfigError)
    assert str(path) in said
    assert "secret" not in said


@ENGINES
def test_keys_of_an_agent_are_only_tried_where_that_is_said(
    server: SftpServer, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusts(server)
    place = server.folder / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(place)], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
        while not place.exists():
            assert agent.poll() is None
        subprocess.run(["ssh-add", "-q", str(server.folder / "client")], check=True, stderr=subprocess.DEVNULL)
        other = str(server.key("other"))
        assert "does not let" in refused(reached(server, engine=engine, key=other))
        connects(reached(server, engine=engine, key=(), agent=True))
    finally:
        agent.kill()
        agent.wait()


def test_a_server_that_speaks_only_what_is_old_is_reached_by_openssh(server: SftpServer) -> None:
    server.key("rsa", "-t", "rsa", "-b", "2048")
    server.stop()
    server.start("rsa", "HostKeyAlgorithms ssh-rsa")
    trusts(server, "rsa")
    said = refused(reached(server))
    assert "speaks only what is too old for paramiko" in said
    assert "engine: openssh" in said
    assert "in `options` of the connection" in refused(reached(server, engine="openssh"))
    connects(reached(server, engine="openssh", options={"HostKeyAlgorithms": "+ssh-rsa"}))


@ENGINES
def test_no_option_undoes_the_check_of_the_host_key(server: SftpServer, engine: str) -> None:
    server.key("other")
    trusts(server, "other")
    options = {"stricthostkeychecking": "no", "UserKnownHostsFile": "/dev/null"} if engine == "openssh" else {}
    assert "has changed" in refused(reached(server, engine=engine, options=options))


@pytest.mark.parametrize(("host", "said"), [("127.0.0.1", "refuses connections"), ("localhost.invalid", "no address")])
def test_a_server_that_is_not_there_is_an_error_that_names_it(
    server: SftpServer, host: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.stop()
    with pytest.raises(SourceError, match=said) as caught:
        connects(reached(server, host=host))
    assert host in caught.value.message
    assert caught.value.hint


def test_a_password_lets_in_and_is_not_told(server: SftpServer) -> None:
    with sftp_double("open sesame") as double:
        more = {"port": double.port, "key": (), "host_keys": [double.fingerprint]}
        connects(reached(server, password="open sesame", **more))
        to = reached(server, password="wrong word", **more)
        said = refused(to)
        assert "does not let" in said
        assert "by the password" in said
        assert "wrong word" not in said + repr(to)


KEY = HostKey("ssh-ed25519", b"one")
OTHER = HostKey("ssh-rsa", b"two")


@pytest.mark.parametrize(
    ("written", "port", "expected"),
    [
        ("drop.example.com {one}", 22, [KEY]),
        ("DROP.example.com,10.0.0.1 {one}", 22, [KEY]),
        ("drop.example.com {one}", 2222, []),
        ("[drop.example.com]:2222 {one}", 2222, [KEY]),
        ("[drop.example.com]:2222 {one}\n[drop.example.com]:2222 {two}", 2222, [KEY, OTHER]),
        ("*.example.com,!drop.example.com {one}", 22, []),
        ("*.example.com {one}", 22, [KEY]),
        ("drop.example.com {one}\n@revoked * {one}", 22, []),
        ("@cert-authority *.example.com {one}", 22, []),
        ("# drop.example.com {one}\n\ndrop.example.com ssh-rsa !!!\nnonsense", 22, []),
        ("d[r]op.example.com {one}", 22, []),
    ],
)
def test_known_hosts_are_read_as_openssh_reads_them(
    tmp_path: Path, written: str, port: int, expected: list[HostKey]
) -> None:
    file = tmp_path / "known_hosts"
    one, two = (key.line("x", 22).removeprefix("x ") for key in (KEY, OTHER))
    file.write_text(written.format(one=one, two=two))
    assert list(hostkeys.known(file, "drop.Example.com", port)) == expected


def test_hashed_names_are_known_and_what_is_pinned_stands_beside_them(tmp_path: Path) -> None:
    file = tmp_path / "new" / "known_hosts"
    hostkeys.pin(file, "drop.example.com", 2222, [KEY])
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
    assert "example" not in file.read_text()
    assert hostkeys.known(file, "drop.example.com", 2222) == (KEY,)
    assert hostkeys.known(file, "other.example.com", 2222) == ()
    hostkeys.pin(file, "drop.example.com", 2222, [OTHER])
    assert hostkeys.known(file, "drop.example.com", 2222) == (KEY, OTHER)
