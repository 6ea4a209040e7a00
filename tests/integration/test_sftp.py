"""A pipeline whose drop is on an SFTP server, from the first look at its host key to the tables."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ingestkit.sources.sftp import SftpDrop
from tests.doubles.proxy import proxied
from tests.integration.world import FIRST, SECOND, THIRD, World
from tests.services import SftpServer, sftp

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def server() -> Iterator[SftpServer]:
    with sftp() as started:
        yield started


def on(server: SftpServer, world: World, **more: Any) -> dict[str, Any]:
    """The settings that put the world's drop on the server."""
    said = {"type": "sftp", "host": "127.0.0.1", "port": server.port, "user": server.user}
    return {"connections.drop": {**said, "path": f"{world.root}/drops", "key": str(server.folder / "client"), **more}}


@pytest.mark.parametrize("engine", ["paramiko", "openssh"])
def test_a_drop_is_pinned_planned_and_loaded(server: SftpServer, world: World, engine: str) -> None:
    world.settle(on(server, world, engine=engine))
    world.drop(FIRST)
    said = world.refused(4, "run")
    assert server.fingerprint() in said
    assert "ingestkit check p --pin" in said
    assert "--yes" in world.refused(2, "check", "p", "--pin")
    assert not (world.root / "config/known_hosts").exists()
    told = world.call("check", "p", "--pin", "--yes")
    assert told.code == 0, told.err
    assert f"host key {server.fingerprint()} of 127.0.0.1:{server.port} is in" in told.out
    assert (world.root / "config/known_hosts").read_text() == server.known()
    assert "host key" not in world.call("check", "p", "--pin").out
    assert world.does("plan")["batches"][0]["batch"] == "20260101"
    assert world.does("run")["status"] == "done"
    assert world.table("a", "id", "n") == [("1", 10), ("2", 20)]
    assert world.does("run")["status"] == "nothing new"
    world.drop(SECOND, {"20260101/a.csv": "id,n\n1,100\n2,20\n7,70\n"})
    assert world.does("run")["status"] == "done"
    assert world.table("a", "id", "n") == [("1", 11), ("3", 30)]
    assert world.table("b", "id") == [("x",), ("y",), ("z",)]
    for one in threading.enumerate():
        if "Transport" in type(one).__name__:
            # It was told to end, and is on its way.
            one.join(10)
            assert not one.is_alive()


def test_an_empty_file_fails_its_batch_and_is_taken_when_it_is_whole(server: SftpServer, world: World) -> None:
    world.settle(on(server, world, host_keys=server.fingerprint()))
    world.drop({"20260101/a.csv": "", "20260101/b.csv": FIRST["20260101/b.csv"]})
    assert "20260101/a.csv" in world.refused(5, "run")
    world.drop(FIRST)
    assert world.does("run")["status"] == "done"
    assert world.table("a", "id", "n") == [("1", 10), ("2", 20)]


def test_folders_of_batches_that_were_done_long_ago_are_not_listed(
    server: SftpServer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.settle(on(server, world, host_keys=server.fingerprint()))
    world.set_up({"source.late_scan": "0s"})
    world.drop(FIRST, SECOND)
    assert world.does("run")["status"] == "done"
    listed: set[str] = set()
    listing = SftpDrop.entries

    def noting(self: SftpDrop, folder: str) -> object:
        listed.add(folder)
        return listing(self, folder)

    monkeypatch.setattr(SftpDrop, "entries", noting)
    assert world.does("run")["status"] == "nothing new"
    assert listed == {""}
    world.drop(THIRD)
    assert world.does("run")["status"] == "done"
    assert listed == {"", "20260115"}


def test_a_changed_host_key_stops_the_run_until_it_is_pinned(server: SftpServer, world: World) -> None:
    world.settle(on(server, world))
    world.drop(FIRST)
    (world.root / "config/known_hosts").write_text(server.known())
    server.key("other")
    server.stop()
    server.start("other")
    try:
        assert "has changed" in world.refused(4, "run")
        told = world.call("check", "--pin", "--yes", "--output", "json")
        assert told.code == 0
        assert world.does("run")["status"] == "done"
    finally:
        server.stop()
        server.start()
    assert world.does("run")["status"] == "nothing new"


def test_fingerprints_of_the_settings_are_not_added_to(server: SftpServer, world: World) -> None:
    world.settle(on(server, world, host_keys=["SHA256:" + "A" * 43]))
    world.drop(FIRST)
    assert "none of host_keys in connection drop" in world.refused(4, "run")
    assert "says its host_keys itself" in world.refused(3, "check", "--pin", "--yes")
    world.settle(on(server, world, host_keys=server.fingerprint()))
    assert world.does("run")["status"] == "done"


def test_a_run_over_a_link_that_is_cut_takes_every_byte(server: SftpServer, world: World) -> None:
    rows = "".join(f"{number},{number * 7}\n" for number in range(300_000))
    with proxied("127.0.0.1", server.port) as between:
        world.settle(on(server, world, port=between.port, host_keys=server.fingerprint()))
        world.drop(FIRST | {"20260101/a.csv": f"id,n\n{rows}"})
        between.faults.cuts_down = [1_500_000, 9_000, 700_000, 800, 400_000]
        assert world.does("run")["status"] == "done"
        assert between.faults.cuts_down == []
    assert world.target("SELECT count(*), sum(n) FROM a") == [(300_000, 7 * 300_000 * 299_999 // 2)]


def test_a_secret_may_not_stand_in_the_settings(server: SftpServer, world: World) -> None:
    for name in ("password", "passphrase"):
        world.settle(on(server, world, **{name: "open sesame"}))
        said = world.refused(3, "run")
        assert f"connections.drop.{name}: is a secret" in said
        assert "sesame" not in said


def test_a_connection_without_a_way_in_is_refused(server: SftpServer, world: World) -> None:
    world.settle(on(server, world, key=[]))
    assert "say how to log in" in world.refused(3, "run")
    world.settle(on(server, world, options={"HostKeyAlgorithms": "+ssh-rsa"}))
    assert "options are of engine: openssh" in world.refused(3, "run")


def test_a_password_is_warned_of(server: SftpServer, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROP_PASSWORD", "open sesame")
    world.settle(on(server, world, host_keys=server.fingerprint(), password="${env:DROP_PASSWORD}"))
    world.drop(FIRST)
    ended = world.call("run")
    assert ended.code == 0
    assert any("logs in by a password; a key is safer" in str(line) for line in ended.log)
    assert "sesame" not in ended.out + ended.err
    assert b"sesame" not in b"".join(one.read_bytes() for one in (world.root / "state").rglob("*") if one.is_file())
