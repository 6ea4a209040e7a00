"""A Vault's archives, over its API: all of them in order, through every failure it answers with."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Certified, certified
from tests.doubles.direct_data import Archive, Chain, Extract
from tests.doubles.direct_data_replay import Replay
from tests.doubles.vault import FakeVault, Held, vault_server
from tests.integration.test_tables import compare, held
from tests.integration.world import World

SOURCE: dict[str, Any] = {
    "models": None,
    "source": {"type": "vault", "connection": "my_vault"},
    "tables": {"removed": "drop"},
    "gate": {"max_reject_pct": 0},
}
PRODUCT = {"id": "ID", "name__v": "String"}
SECRET = "a secret, 1"
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    return certified(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def vault(world: World, certificate: Certified, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeVault]:
    monkeypatch.setenv("VAULT_PASSWORD", SECRET)
    with vault_server(certificate) as server:
        settle(world, server, certificate)
        world.set_up(SOURCE)
        yield server


def settle(world: World, server: FakeVault, certificate: Certified, **said: Any) -> None:
    login = {"username": server.username, "password": "${env:VAULT_PASSWORD}"}
    place = {"type": "vault", "dns": server.dns, "ca_file": str(certificate.certificate), "answer_timeout": "5s"}
    world.settle({"connections.my_vault": place | (said or login)})


def at(minutes: int) -> datetime:
    """So many minutes before now."""
    return NOW - timedelta(minutes=minutes)


def said(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%MZ}"


def full(stop: datetime, *rows: str, **more: Any) -> Held:
    made = Archive([Extract("Object.product__v", PRODUCT, [{"id": row, "name__v": "full"} for row in rows])])
    return Held(f"100123-{stop:%Y%m%d-%H%M}-F", "2000-01-01T00:00Z", said(stop), made.made(), **more)


def changes(stop: datetime, *rows: str, minutes: int = 15, **more: Any) -> Held:
    extract = Extract("Object.product__v", PRODUCT, [{"id": row, "name__v": "changed"} for row in rows])
    made = Archive([extract], full=False, everything={"Object.product__v": PRODUCT})
    start = said(stop - timedelta(minutes=minutes))
    return Held(f"100123-{stop:%Y%m%d-%H%M}-N", start, said(stop), made.made(), **more)


def rows(world: World) -> list[tuple[str, str]]:
    return sorted((row["id"], row["name__v"]) for row in held(world, "product__v"))


def key(stop: datetime, letter: str = "N") -> str:
    return f"{stop:%Y%m%d-%H%M}-{letter}"


# --- which archives there are -----------------------------------------------------------------------------------------


def test_the_newest_full_one_and_then_what_changes_in_order(world: World, vault: FakeVault) -> None:
    vault.newest_first = True
    vault.hold(full(at(3000), "old"), full(at(60), "1", "2", parts=3), changes(at(60), "never"), changes(at(45), "2"))
    vault.hold(changes(at(30), "3", seconds=True, checksums=False))
    answer = world.does("run", "p")
    assert [one["batch"] for one in answer["results"]] == [key(at(60), "F"), key(at(45)), key(at(30))]
    assert rows(world) == [("1", "full"), ("2", "changed"), ("3", "changed")]
    assert world.does("run", "p")["results"] == []
    # A full one that comes later is not taken: its changes are.
    vault.hold(full(at(15), "other"), changes(at(15), "4"))
    world.does("run", "p")
    assert rows(world) == [("1", "full"), ("2", "changed"), ("3", "changed"), ("4", "changed")]
    assert not any(one.startswith(full(at(15)).name) for one in vault.given)


def test_nothing_is_fetched_where_nothing_changed_and_the_checkpoint_moves(world: World, vault: FakeVault) -> None:
    vault.hold(full(at(60), "1"), changes(at(45), records=0), changes(at(30), "2"))
    world.does("run", "p")
    assert world.completions()[key(at(45)), "*"] == "empty"
    assert rows(world) == [("1", "full"), ("2", "changed")]
    assert [one.partition(".")[0] for one in vault.given] == [full(at(60)).name, changes(at(30)).name]
    vault.held = [changes(at(15), records=0)]
    world.does("run", "p")
    assert world.checkpoint() == key(at(15))


def test_an_archive_that_vault_could_not_make_holds_those_behind_it(world: World, vault: FakeVault) -> None:
    broken = changes(at(45), "2", error=True)
    vault.hold(full(at(60), "1"), broken, changes(at(30), "3"))
    world.does("run", "p")
    assert rows(world) == [("1", "full")]
    waiting = world.does("plan", "p")["not_yet"]
    assert any("could not make" in str(one) and "2026-01-15T06:15Z" in str(one) for one in waiting), waiting
    # Both are listed.
    vault.hold(changes(at(45), "2"))
    world.does("run", "p")
    assert rows(world) == [("1", "full"), ("2", "changed"), ("3", "changed")]


def test_a_gap_is_waited_for_and_an_expired_one_stops(world: World, vault: FakeVault) -> None:
    vault.hold(full(at(60), "1"), changes(at(30), "3"))
    world.does("run", "p")
    assert rows(world) == [("1", "full")]
    assert "is not in the list of Vault yet" in str(world.does("plan", "p")["not_yet"])
    vault.hold(changes(at(45), "2"))
    world.does("run", "p")
    assert rows(world) == [("1", "full"), ("2", "changed"), ("3", "changed")]
    vault.held = [changes(at(0), "4")]
    world.set_up(SOURCE | {"source": SOURCE["source"] | {"kept": "1m"}})
    told = world.refused(4, "run", "p")
    assert "in the list of Vault no more" in told
    assert "ingestkit run p --full-refresh" in told


def test_a_full_refresh_begins_again_with_the_newest_full_archive(world: World, vault: FakeVault) -> None:
    vault.hold(full(at(120), "1", "2"), changes(at(105), "3"))
    world.does("run", "p")
    # What came between is in no list any more.
    vault.held = [full(at(60), "1", "4"), changes(at(45), "5")]
    world.set_up(SOURCE | {"source": SOURCE["source"] | {"kept": "1m"}})
    world.refused(4, "run", "p")
    answer = world.does("run", "p", "--full-refresh")
    assert [one["batch"] for one in answer["results"]] == [key(at(60), "F"), key(at(45))]
    assert rows(world) == [("1", "full"), ("4", "full"), ("5", "changed")]
    # And again, though nothing is new: from the full one on.
    answer = world.does("run", "p", "--full-refresh")
    assert [one["batch"] for one in answer["results"]] == [key(at(60), "F"), key(at(45))]
    assert rows(world) == [("1", "full"), ("4", "full"), ("5", "changed")]
    decisions = world.state("SELECT kind, reason FROM decision ORDER BY number")
    assert decisions == [("reset", "full refresh")] * 2


def test_a_full_refresh_without_a_full_archive_changes_nothing(world: World, vault: FakeVault) -> None:
    vault.hold(full(at(120), "1"), changes(at(105), "2"))
    world.does("run", "p")
    vault.held = [changes(at(90), "3")]
    assert "lists no full archive to begin again with" in world.refused(4, "run", "p", "--full-refresh")
    world.set_up(SOURCE | {"source": SOURCE["source"] | {"look_back": "24h"}})
    assert "begins where source.look_back says" in world.refused(2, "run", "p", "--full-refresh")
    world.set_up(SOURCE)
    world.does("run", "p")
    assert rows(world) == [("1", "full"), ("2", "changed"), ("3", "changed")]
    assert world.state("SELECT kind FROM decision") == []


def test_a_full_refresh_is_of_vaults(world: World) -> None:
    told = world.refused(2, "run", "p", "--full-refresh")
    assert "has no full archives to begin again with" in told


def test_before_the_first_full_archive_there_is_nothing_to_do(world: World, vault: FakeVault) -> None:
    vault.initial = True
    assert world.does("run", "p")["results"] == []
    vault.initial = False
    vault.hold(full(at(60), "1"))
    world.does("run", "p")
    assert rows(world) == [("1", "full")]


@pytest.mark.parametrize("begins", ["start", "look_back"])
def test_it_may_begin_at_a_time_or_look_back(world: World, vault: FakeVault, begins: str) -> None:
    vault.hold(full(at(120), "never"), changes(at(60), "1"), changes(at(45), "2"))
    ago = (datetime.now(UTC) - at(60)).total_seconds()
    told = {"start": at(60).isoformat(), "look_back": f"{int(ago)}s"}
    world.set_up(SOURCE | {"source": SOURCE["source"] | {begins: told[begins]}})
    world.does("run", "p")
    assert rows(world) == [("2", "changed")]
    vault.hold(changes(at(15), "4"))
    # From then on there is no gap.
    world.does("run", "p")
    assert rows(world) == [("2", "changed")]
    vault.hold(changes(at(30), "3"))
    world.does("run", "p")
    assert rows(world) == [("2", "changed"), ("3", "changed"), ("4", "changed")]


def test_a_look_back_begins_with_what_there_is(world: World, vault: FakeVault) -> None:
    vault.hold(changes(at(45), "1"), changes(at(30), "2"))
    world.set_up(SOURCE | {"source": SOURCE["source"] | {"look_back": "24h"}})
    world.does("run", "p")
    assert rows(world) == [("1", "changed"), ("2", "changed")]


def test_a_start_before_what_there_is_waits(world: World, vault: FakeVault) -> None:
    vault.hold(changes(at(45), "1"))
    world.set_up(SOURCE | {"source": SOURCE["source"] | {"start": at(120).isoformat()}})
    assert world.does("run", "p")["results"] == []
    assert "is not in the list of Vault yet" in str(world.does("plan", "p")["not_yet"])


def log(day: int) -> Held:
    """The log of the day that ended so many days ago."""
    logs, stop = {"timestamp": "DateTime", "user": "String"}, at(day * 1440)
    extract = Extract("Log.login_audit", logs, [{"timestamp": "2026-01-15T00:00:00.000Z", "user": f"of {day}"}])
    made = Archive([extract], full=False, everything={"Log.login_audit": logs}).made()
    return Held(f"100123-{key(stop, 'L')}", said(stop - timedelta(days=1)), said(stop), made)


LOGS = SOURCE | {"source": SOURCE["source"] | {"extract": "log"}, "tables": {"load": "append"}}


def test_logs_are_taken_day_by_day(world: World, vault: FakeVault) -> None:
    world.set_up(LOGS)
    vault.hold(log(2), log(1))
    world.does("run", "p")
    assert world.table("login_audit", '"user"') == [("of 1",), ("of 2",)]
    assert world.does("run", "p")["results"] == []


def test_logs_that_are_listed_no_more_may_be_given_up(world: World, vault: FakeVault) -> None:
    world.set_up(LOGS)
    vault.hold(log(6))
    world.does("run", "p")
    vault.held = [log(2), log(1)]
    told = world.refused(4, "run", "p")
    hint = f"ingestkit state set p --batch {key(at(3 * 1440), 'L')} --reason '...'"
    assert "in the list of Vault no more" in told
    assert hint in told
    world.does(*hint.split()[1:], "--yes")
    world.does("run", "p")
    assert world.table("login_audit", '"user"') == [("of 1",), ("of 2",), ("of 6",)]


# --- logging in -------------------------------------------------------------------------------------------------------


def test_a_session_that_ends_is_begun_anew_once(world: World, vault: FakeVault) -> None:
    vault.hold(full(at(60), "1"), changes(at(45), "2"))
    vault.failures = ["INVALID_SESSION_ID"]
    world.does("run", "p")
    assert rows(world) == [("1", "full"), ("2", "changed")]
    assert vault.logins == 2
    assert vault.sessions == set()


def test_a_wrong_password_is_tried_once(world: World, vault: FakeVault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_PASSWORD", "wrong, and a secret too")
    told = world.refused(4, "run", "p")
    assert "USERNAME_OR_PASSWORD_INCORRECT" in told
    assert "wrong ones in a row lock the user out" in told
    assert "secret" not in told
    assert vault.logins == 1


def test_a_login_to_another_vault_is_refused(world: World, vault: FakeVault) -> None:
    vault.other_vault = True
    vault.hold(full(at(60), "1"))
    told = world.refused(4, "run", "p")
    assert f"the login leads to other.veevavault.com, and not to {vault.dns}" in told
    assert vault.given == []


@pytest.mark.parametrize("way", ["oauth", "session"])
def test_other_ways_in(
    world: World, vault: FakeVault, certificate: Certified, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", vault.token)
    monkeypatch.setenv("VAULT_SESSION", "GIVEN")
    vault.sessions.add("GIVEN")
    token = {"profile": "_9ad0", "token": "${env:VAULT_TOKEN}", "login_url": f"https://{vault.dns}"}
    login: dict[str, Any] = {"oauth": token} if way == "oauth" else {"session": "${env:VAULT_SESSION}"}
    settle(world, vault, certificate, **login)
    vault.hold(full(at(60), "1"))
    world.does("run", "p")
    assert rows(world) == [("1", "full")]
    assert vault.logins == (1 if way == "oauth" else 0)
    assert vault.sessions == {"GIVEN"}
    if way == "session":
        vault.end_sessions()
        assert "INVALID_SESSION_ID" in world.refused(4, "run", "p")
        vault.sessions.add("GIVEN")
        vault.other_vault = True
        assert "leads to other.veevavault.com" in world.refused(4, "run", "p")


def test_a_user_without_rights_is_told_which_page_lists_them(world: World, vault: FakeVault) -> None:
    vault.permitted = False
    told = world.refused(4, "run", "p")
    assert "INSUFFICIENT_ACCESS" in told
    assert "docs/vault.md" in told


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["API_LIMIT_EXCEEDED", "UNEXPECTED_ERROR", "OPERATION_IN_PROGRESS"])
def test_a_failure_that_passes_is_over_with_the_next_run(world: World, vault: FakeVault, kind: str) -> None:
    vault.hold(full(at(60), "1"))
    assert world.does("plan", "p")["waiting"] == 1
    vault.failures = [kind]
    assert kind in world.refused(4, "run", "p")
    world.does("run", "p")
    assert rows(world) == [("1", "full")]


@pytest.mark.parametrize("wrong", ["md5", "short", "cut", "long", "json"])
def test_parts_that_are_not_what_the_list_says_land_nothing(world: World, vault: FakeVault, wrong: str) -> None:
    archive = full(at(60), "1", parts=2)
    archive.wrong = {wrong}
    vault.hold(archive)
    world.refused(4, "run", "p")
    assert list((world.root / "lake").glob("raw/**/*.gz")) == []
    archive.wrong.clear()
    vault.given.clear()
    world.does("run", "p")
    assert rows(world) == [("1", "full")]


ITEM = full(at(60), "1", parts=2).item("https://elsewhere")


@pytest.mark.parametrize(
    ("path", "answer", "told"),
    [
        ("/auth", {"userId": 1}, "cannot be understood"),
        ("/auth", {"sessionId": "S", "vaultIds": None, "vaultId": 1}, "cannot be understood"),
        ("/auth", {"sessionId": "S", "vaultIds": [], "vaultId": 1}, "no Vault that it names"),
        ("/files", {"responseStatus": "FAILURE", "errors": ["oops"]}, "cannot be understood"),
        ("/files", {"responseStatus": "FAILURE", "errors": None}, "FAILURE"),
        ("/files", {"responseStatus": "EXCEPTION"}, "EXCEPTION"),
        ("/files", {"data": 7}, "cannot be understood"),
        ("/files", {"data": ["100123-20260115-0500-F"]}, "cannot be understood"),
        ("/files", {"data": [{"name": "100123-20260115-0500-F", "error": "oops"}]}, "cannot be understood"),
        ("/files", {"data": [{**ITEM, "start_time": "yesterday"}]}, "cannot be understood"),
        ("/files", {"data": [{**ITEM, "filepart_details": [{"filepart": 1}]}]}, "cannot be understood"),
        ("/files", {"data": [{**ITEM, "filepart_details": ITEM["filepart_details"][:1]}]}, "all of its parts"),
        ("/files", {"data": [{**ITEM, "name": "../../etc/passwd"}]}, "called as no archive is"),
    ],
)
def test_what_no_vault_answers_is_a_failure_and_no_bug(
    world: World, vault: FakeVault, path: str, answer: dict[str, Any], told: str
) -> None:
    vault.hold(full(at(60), "1"))
    vault.instead[path] = answer
    assert told in world.refused(4, "run", "p")
    vault.instead.clear()
    world.does("run", "p")
    assert rows(world) == [("1", "full")]


def test_what_was_fetched_of_an_archive_is_not_fetched_again(world: World, vault: FakeVault) -> None:
    archive = full(at(60), *map(str, range(2000)), parts=3)
    vault.hold(archive)
    first, second, last = (f"{archive.name}.{number:03}" for number in (1, 2, 3))
    vault.away.add(last)
    assert "answered 503" in world.refused(4, "run", "p")
    assert vault.given.count(first) == vault.given.count(second) == 1
    vault.away.clear()
    vault.given.clear()
    world.does("run", "p")
    assert vault.given == [last]
    assert len(rows(world)) == 2000
    assert list((world.root / "state/scratch/fetched/p").iterdir()) == []


def test_parts_of_an_archive_that_is_wanted_no_more_go_with_the_next(world: World, vault: FakeVault) -> None:
    old, new = full(at(60), *map(str, range(2000)), parts=3), full(at(30), "1")
    vault.hold(old)
    vault.away.add(f"{old.name}.003")
    world.refused(4, "run", "p")
    [left] = (world.root / "state/scratch/fetched/p").iterdir()
    assert left.name == old.name
    vault.held.clear()
    vault.hold(new)
    world.does("run", "p")
    assert not left.exists()


def test_where_nothing_is_kept_it_is_fetched_again_whatever_came_since(world: World, vault: FakeVault) -> None:
    world.set_up(SOURCE | {"keep": "none"})
    vault.hold(full(at(120), "1"), changes(at(105), "2"))
    world.does("run", "p", "--limit", "1")
    world.does("extract", "p", "--run-id", "mine")
    shutil.rmtree(world.root / "state/scratch")
    vault.hold(changes(at(90), "3"), changes(at(75), records=0), changes(at(60), records=0), full(at(60), "other"))
    world.does("run", "p", "--run-id", "mine")
    assert rows(world) == [("1", "full"), ("2", "changed"), ("3", "changed")]


def test_an_archive_that_was_skipped_may_be_wanted_after_all(world: World, vault: FakeVault) -> None:
    vault.hold(full(at(120), "1"), changes(at(105), "2"))
    world.does("run", "p", "--limit", "1")
    world.does("skip", "p", "--batch", key(at(105)), "--reason", "not yet")
    assert world.does("run", "p")["results"] == []
    vault.hold(full(at(60), "other"))
    world.does("backfill", "p", "--batch", key(at(105)))
    assert rows(world) == [("1", "full"), ("2", "changed")]


def test_a_folder_that_takes_no_parts_is_told(world: World, vault: FakeVault) -> None:
    archive = full(at(60), "1")
    vault.hold(archive)
    in_the_way = world.root / "state/scratch/fetched/p" / archive.name / f"{archive.name}.001/x"
    in_the_way.mkdir(parents=True)
    told = world.refused(4, "run", "p")
    assert "parts of archives cannot be kept in" in told
    assert "Is a directory" in told
    in_the_way.rmdir()
    in_the_way.parent.rmdir()
    world.does("run", "p")
    assert rows(world) == [("1", "full")]


def test_a_vault_that_is_away_is_told(world: World, vault: FakeVault) -> None:
    vault.statuses = [503] * 20
    assert "answered 503" in world.refused(4, "run", "p")
    vault.statuses = []
    vault.redirects = "https://127.0.0.1:1/"
    assert "answered 302" in world.refused(4, "run", "p")
    vault.redirects = None
    vault.hangs = True
    assert "cannot be reached, or went away" in world.refused(4, "run", "p")


def test_a_certificate_that_nobody_trusts_is_told(world: World, vault: FakeVault) -> None:
    login = {"username": vault.username, "password": "${env:VAULT_PASSWORD}"}
    world.settle({"connections.my_vault": {"type": "vault", "dns": vault.dns, **login}})
    told = world.refused(4, "run", "p")
    assert f"{vault.dns} shows a certificate that is not trusted" in told
    assert "ca_file of connection my_vault" in told
    assert vault.requests == []


def test_a_pause_that_vault_asks_for_is_made(world: World, vault: FakeVault) -> None:
    vault.hold(full(at(60), "1"))
    vault.delays = [10]
    ended = world.call("run", "p")
    assert ended.code == 0
    assert any("asks for a pause" in line["event"] for line in ended.log)


def test_check_says_whether_it_answers(world: World, vault: FakeVault) -> None:
    found = {row["what"]: row["status"] for row in world.does("check", "p")["rows"]}
    assert found["p: source"] == "ok"
    vault.permitted = False
    ended = world.call("check", "p")
    assert "INSUFFICIENT_ACCESS" in ended.out


def test_no_secret_is_told_or_kept(world: World, vault: FakeVault) -> None:
    vault.hold(full(at(60), "1"))
    vault.failures = ["INVALID_SESSION_ID"]
    ended = world.call("run", "p")
    told = ended.out + ended.err
    for path in [*world.root.glob("state/**/*"), *world.root.glob("lake/**/*")]:
        if path.is_file():
            told += path.read_bytes().decode("latin-1")
    assert SECRET not in told
    assert "SESSION0" not in told


def test_a_chain_ends_in_what_its_replay_gives(world: World, vault: FakeVault) -> None:
    chain, replay = Chain(7, at=NOW - timedelta(hours=4)), Replay()
    begins = "2000-01-01T00:00Z"
    for name, content in [chain.full(), *(chain.next() for _ in range(10))]:
        stop = said(chain.at)
        vault.hold(Held(name.removesuffix(".tar.gz"), begins, stop, content, parts=1 + len(vault.held) % 2))
        begins = stop
        replay.archive(name, content)
    # What the chain made at its beginning has the time of its beginning.
    for place, one in enumerate(vault.held):
        one.stop = said(NOW - timedelta(hours=4) + timedelta(minutes=15 * place))
        one.start = "2000-01-01T00:00Z" if place == 0 else vault.held[place - 1].stop
    world.does("run", "p")
    compare(world, replay)


def test_settings_that_cannot_be_meant_are_refused(world: World, vault: FakeVault, tmp_path: Path) -> None:
    del vault, tmp_path
    world.set_up(SOURCE | {"tables": {"load": "append"}})
    assert "logs are added" in world.refused(3, "run", "p")
    world.set_up(SOURCE | {"source": SOURCE["source"] | {"connection": "drop"}})
    assert "'drop' is of type local" in world.refused(3, "run", "p")
    world.set_up({"source.extract": "log"})
    assert "extract is of type: vault" in world.refused(3, "run", "p")
