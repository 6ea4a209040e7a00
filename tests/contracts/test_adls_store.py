"""A lake in Azure storage keeps the contract of stores, with folders and without, by key and by identity."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ingestkit import steps
from ingestkit.errors import LakeError, ObjectExists
from ingestkit.lake import Lake
from ingestkit.ports import Store
from ingestkit.settings import AdlsConnection
from ingestkit.stores.adls import AdlsBucket
from ingestkit.stores.remote import RemoteStore
from tests.contracts.store import CONTENT, NAME, PLACE, StoreContract, fill, killed, names, put, read
from tests.doubles.dfs import hierarchical
from tests.doubles.httpfaults import ANSWER_LOST, NEVER_ARRIVES, SERVER_BUSY, FaultyServer, Said, faulty
from tests.doubles.relay import Answer, served
from tests.object_stores import AzureServer, azurite, azurite_with_identity

pytestmark = pytest.mark.services

LARGE = Random(1).randbytes(2_500_000)
PART = 2**20
OPENING = """
from pathlib import Path
from ingestkit.settings import AdlsConnection
from ingestkit.stores.adls import AdlsBucket
from ingestkit.stores.remote import RemoteStore
store = RemoteStore(AdlsBucket(AdlsConnection.model_validate({said!r})), Path({folder!r}))
"""


@pytest.fixture(scope="module")
def flat() -> Iterator[AzureServer]:
    with azurite() as server:
        yield server


@pytest.fixture(scope="module")
def by_token() -> Iterator[AzureServer]:
    with azurite_with_identity() as server:
        yield server


@pytest.fixture
def account(flat: AzureServer) -> AzureServer:
    return flat


@pytest.fixture
def container(account: AzureServer) -> str:
    return account.container()


@pytest.fixture
def said(account: AzureServer, container: str) -> dict[str, Any]:
    return {"url": url(container), "connection_string": account.connection_string, "part_size": PART}


@pytest.fixture
def store(said: dict[str, Any], tmp_path: Path) -> Store:
    return handle(said, tmp_path / "one")


@pytest.fixture
def second(said: dict[str, Any], tmp_path: Path) -> Store:
    return handle(said, tmp_path / "two")


def url(container: str) -> str:
    return f"abfss://{container}@devstoreaccount1.dfs.core.windows.net/some/where"


def handle(said: dict[str, Any], folder: Path) -> RemoteStore:
    return RemoteStore(AdlsBucket(AdlsConnection.model_validate(said)), folder)


class AdlsContract(StoreContract):
    early = False

    @pytest.fixture
    def store(self, said: dict[str, Any], tmp_path: Path) -> Store:
        return handle(said, tmp_path / "one")

    @pytest.fixture
    def second(self, said: dict[str, Any], tmp_path: Path) -> Store:
        return handle(said, tmp_path / "two")

    @pytest.fixture
    def opening(self, said: dict[str, Any], tmp_path: Path) -> str:
        return OPENING.format(said=said, folder=str(tmp_path / "three")).strip().replace("\n", "; ")

    def test_a_large_object_is_sent_in_blocks_and_read_in_ranges(
        self, store: Store, second: Store, account: AzureServer, container: str
    ) -> None:
        put(store, NAME, LARGE)
        assert read(second, NAME) == LARGE
        assert second.path(NAME).read_bytes() == LARGE
        assert second.sha256(NAME) == hashlib.sha256(LARGE).hexdigest()
        with account.service() as service:
            blob = service.get_blob_client(container, f"some/where/{NAME}")
            assert blob.get_blob_properties().metadata == {"sha256": hashlib.sha256(LARGE).hexdigest()}
        assert list(second.inflight("_inflight/")) == []

    def test_the_hash_lies_with_the_object(self, store: Store, account: AzureServer, container: str) -> None:
        put(store, NAME, CONTENT[:1000])
        with account.service() as service:
            found = service.get_blob_client(container, f"some/where/{NAME}").get_blob_properties()
        assert found.metadata == {"sha256": hashlib.sha256(CONTENT[:1000]).hexdigest()}

    @pytest.mark.faults
    def test_who_is_killed_before_the_last_request_leaves_nothing_that_is_read(
        self, second: Store, opening: str
    ) -> None:
        killed(opening, "store.sent")
        assert names(second) == []
        Lake(second).remove_inflight("opendata", "hcp", below=8)
        assert list(second.inflight("_inflight/")) == []
        assert not Lake(second).publish(PLACE, NAME, fill).adopted
        self.is_whole_and_clean(second)

    def test_of_large_objects_of_one_name_the_first_stays(self, store: Store, second: Store) -> None:
        put(store, NAME, LARGE)
        with pytest.raises(ObjectExists, match=NAME):
            put(second, NAME, LARGE[::-1])
        assert read(second, NAME) == LARGE
        assert list(second.inflight("_inflight/")) == []

    def test_a_name_taken_while_blocks_were_sent_is_kept(
        self, store: Store, second: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        meanwhile(monkeypatch, lambda: put(second, NAME, LARGE[::-1], f"{PLACE.inflight()}/another"))
        with pytest.raises(ObjectExists, match=NAME):
            put(store, NAME, LARGE)
        assert read(store, NAME) == LARGE[::-1]
        assert list(second.inflight("_inflight/")) == []

    def test_blocks_of_who_was_killed_over_the_same_name_are_not_taken_for_ours(
        self, store: Store, second: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def die() -> None:
            meanwhile(monkeypatch, lambda: pytest.fail("killed"))
            with pytest.raises(pytest.fail.Exception):
                put(second, NAME, LARGE[::-1], f"{PLACE.inflight()}/another")

        meanwhile(monkeypatch, die)
        put(store, NAME, LARGE)
        assert read(second, NAME) == LARGE

    def test_a_part_of_an_object_is_read_where_it_is_asked_for(self, store: Store, second: Store) -> None:
        put(store, NAME, LARGE)
        with second.open(NAME) as file:
            file.seek(1_500_000)
            assert file.read(1000) == LARGE[1_500_000:1_501_000]
            file.seek(-10, 2)
            assert file.read() == LARGE[-10:]

    def test_an_object_that_is_another_while_it_is_read_is_not_mixed(
        self, store: Store, second: Store, said: dict[str, Any], tmp_path: Path
    ) -> None:
        content = LARGE * 4
        put(store, NAME, content)
        with second.open(NAME) as file:
            file.read(1000)
            store.remove(NAME)
            put(store, NAME, content[::-1])
            with pytest.raises(LakeError, match="overwritten while it was read"):
                file.read()

    def test_what_was_written_by_folders_of_the_account_is_no_object(
        self, store: Store, account: AzureServer, container: str
    ) -> None:
        put(store, NAME)
        with account.service() as service:
            folder = service.get_blob_client(container, "some/where/raw/empty")
            folder.upload_blob(b"", metadata={"hdi_isfolder": "true"})
        assert names(store) == [NAME]
        assert store.stat("raw/empty") is None

    @pytest.mark.parametrize("name", ["raw/a b", "raw/50%25", "raw/a%2Fb", "raw/what?x=y", "raw/#é+&"])
    def test_a_name_is_taken_as_it_is_written(self, store: Store, second: Store, name: str) -> None:
        put(store, name, b"x", f"{PLACE.inflight()}/{name.rpartition('/')[2]}")
        assert names(second) == [name]
        assert read(second, name) == b"x"


class TestByConnectionString(AdlsContract):
    def test_blocks_that_were_discarded_are_sent_again(
        self, store: Store, second: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def come_and_go() -> None:
            put(second, NAME, LARGE[::-1], f"{PLACE.inflight()}/another")
            second.remove(NAME)

        meanwhile(monkeypatch, come_and_go)
        put(store, NAME, LARGE)
        assert read(second, NAME) == LARGE


@pytest.fixture(scope="module")
def with_folders(flat: AzureServer) -> Iterator[AzureServer]:
    with hierarchical(flat) as server:
        yield server


@pytest.mark.slow
class TestRenaming(AdlsContract):
    @pytest.fixture
    def account(self, with_folders: AzureServer) -> AzureServer:
        return with_folders

    @pytest.fixture
    def said(self, account: AzureServer, container: str) -> dict[str, Any]:
        said = {"url": url(container), "connection_string": account.connection_string, "part_size": PART}
        return said | {"rename": True}

    @pytest.mark.parametrize("content", [CONTENT, b"small"])
    def test_who_is_taken_over_before_the_rename_publishes_nothing(
        self, store: Store, second: Store, monkeypatch: pytest.MonkeyPatch, content: bytes
    ) -> None:
        def take_over() -> None:
            assert Lake(second).remove_inflight("opendata", "hcp", below=8) == 1

        meanwhile(monkeypatch, take_over, times=1 + (len(content) > PART))
        with pytest.raises(LakeError, match="another owner"):
            put(store, NAME, content)
        assert names(second) == []
        assert list(second.inflight("_inflight/")) == []

    def test_a_rename_whose_answer_was_lost_is_recognised(
        self, account: AzureServer, container: str, tmp_path: Path
    ) -> None:
        with faulty(account.endpoint) as proxy:
            said = {"url": url(container), "rename": True}
            lake = Lake(handle(said | {"connection_string": through(proxy, account)}, tmp_path / "one"))
            lake.publish(PLACE, "raw/opendata/hcp/20260101/0-hcp.csv", fill)
            proxy.breaks(ANSWER_LOST, "PUT", "/raw/.*mode=")
            assert lake.publish(PLACE, NAME, fill).adopted
            assert proxy.broken == 1
            assert list(lake.store.inflight("_inflight/")) == []


def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Any, times: int = 1) -> None:
    """Let something happen when a sender comes to its last request, for the time that is said."""
    left = [times]

    def reached(step: str) -> None:
        if step == "store.sent":
            left[0] -= 1
            if not left[0]:
                act()

    monkeypatch.setattr(steps, "reached", reached)


def through(proxy: FaultyServer, account: AzureServer) -> str:
    return replace(account, endpoint=proxy.endpoint).connection_string


@pytest.fixture
def proxy(flat: AzureServer) -> Iterator[FaultyServer]:
    with faulty(flat.endpoint) as server:
        yield server


@pytest.fixture
def broken(flat: AzureServer, container: str, proxy: FaultyServer, tmp_path: Path) -> RemoteStore:
    """A store that the proxy stands before."""
    said = {"url": url(container), "connection_string": through(proxy, flat), "part_size": PART}
    return handle(said, tmp_path / "broken")


@pytest.mark.slow
class TestTroubles:
    @pytest.mark.parametrize("content", [CONTENT, b"small"])
    def test_a_write_whose_answer_was_lost_is_adopted(
        self, broken: RemoteStore, proxy: FaultyServer, content: bytes
    ) -> None:
        proxy.breaks(ANSWER_LOST, "PUT", "hcp.csv$" if content == b"small" else "comp=blocklist")
        assert Lake(broken).publish(PLACE, NAME, lambda writer: (writer.write(content), None)[1]).adopted
        assert proxy.broken == 1
        assert read(broken, NAME) == content

    def test_a_service_that_is_asked_too_much_once_is_asked_again(
        self, broken: RemoteStore, proxy: FaultyServer
    ) -> None:
        proxy.breaks(SERVER_BUSY, "PUT", "comp=block&", spared=1)
        put(broken, NAME, LARGE)
        assert proxy.broken == 1
        assert read(broken, NAME) == LARGE

    @pytest.mark.parametrize(
        ("fault", "told", "hint", "transient"),
        [
            (Said(401, "InvalidAuthenticationInfo"), "does not take these credentials", "credential", False),
            (Said(403, "AuthorizationPermissionMismatch"), "allow", "Storage Blob Data Contributor", False),
            (Said(403, "AuthorizationFailure"), "refuses these credentials", "network rules", False),
            (Said(400, "InvalidHeaderValue"), "InvalidHeaderValue", None, False),
        ],
    )
    def test_a_refusal_of_the_last_block_publishes_nothing_and_says_what_helps(
        self, broken: RemoteStore, proxy: FaultyServer, fault: Said, told: str, hint: str | None, transient: bool
    ) -> None:
        proxy.breaks(fault, "PUT", "comp=block&", spared=2, times=None)
        with pytest.raises(LakeError, match=told) as refused:
            put(broken, NAME, LARGE)
        assert refused.value.transient is transient
        assert (hint or "") in (refused.value.hint or "")
        proxy.heals()
        assert names(broken) == []

    @pytest.mark.parametrize(
        ("here", "told"), [(True, "does not take these credentials"), (False, "this machine's clock is wrong")]
    )
    def test_a_wrong_clock_is_told_from_wrong_credentials(self, tmp_path: Path, *, here: bool, told: str) -> None:
        when = datetime.now(UTC) if here else datetime(2026, 1, 1, tzinfo=UTC)
        said = (("x-ms-error-code", "AuthenticationFailed"), ("Date", format_datetime(when, usegmt=True)))
        with served(lambda _: Answer(403, said)) as port:
            account = AzureServer(f"http://127.0.0.1:{port}/devstoreaccount1")
            store = handle({"url": url("lake"), "connection_string": account.connection_string}, tmp_path)
            with pytest.raises(LakeError, match=told) as refused:
                put(store, NAME)
        assert refused.value.transient is not here

    def test_another_key_is_refused(self, flat: AzureServer, container: str, tmp_path: Path) -> None:
        wrong = replace(flat, key="bm90IGl0").connection_string
        with pytest.raises(LakeError, match="credentials") as refused:
            handle({"url": url(container), "connection_string": wrong}, tmp_path).check()
        assert "bm90IGl0" not in str(refused.value)

    def test_a_container_that_is_not_there_is_named(self, flat: AzureServer, tmp_path: Path) -> None:
        store = handle({"url": url("no-such"), "connection_string": flat.connection_string}, tmp_path)
        for ask in (store.check, lambda: store.stat(NAME), lambda: names(store)):
            with pytest.raises(LakeError, match=r"abfss://no-such@.* does not exist"):
                ask()

    def test_a_connection_string_of_another_account_is_refused(
        self, flat: AzureServer, container: str, tmp_path: Path
    ) -> None:
        said = {"url": url(container).replace("devstoreaccount1", "another")}
        with pytest.raises(LakeError, match="of the account devstoreaccount1"):
            handle(said | {"connection_string": flat.connection_string}, tmp_path).check()

    def test_a_connection_string_that_is_none_is_refused_and_not_shown(self, container: str, tmp_path: Path) -> None:
        with pytest.raises(LakeError, match="cannot be opened") as refused:
            handle({"url": url(container), "connection_string": "AccountKey:geheim"}, tmp_path).check()
        assert "geheim" not in str(refused.value)

    def test_a_service_that_is_gone_does_not_answer(self, broken: RemoteStore, proxy: FaultyServer) -> None:
        proxy.breaks(NEVER_ARRIVES, "HEAD", times=None)
        with pytest.raises(LakeError, match="does not answer") as refused:
            broken.stat(NAME)
        assert refused.value.transient


@pytest.mark.slow
class TestByIdentity:
    @pytest.fixture
    def account(self, by_token: AzureServer, monkeypatch: pytest.MonkeyPatch) -> AzureServer:
        for name, value in by_token.trust.items():
            monkeypatch.setenv(name, value)
        return by_token

    @pytest.fixture
    def said(self, account: AzureServer, container: str) -> dict[str, Any]:
        return {"url": url(container), "endpoint": account.endpoint, "part_size": PART}

    @pytest.mark.parametrize("credential", ["default", "managed_identity", "workload_identity", "environment"])
    def test_whoever_the_chain_finds_writes_and_reads(
        self,
        said: dict[str, Any],
        by_token: AzureServer,
        credential: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        assert by_token.identity
        found = {
            "workload_identity": by_token.identity.workload(tmp_path),
            "environment": by_token.identity.principal,
        }
        for name, value in found.get(credential, by_token.environment).items():
            monkeypatch.setenv(name, value)
        store = handle(said | {"credential": credential}, tmp_path / "one")
        store.check()
        put(store, NAME, LARGE)
        assert read(handle(said | {"credential": credential}, tmp_path / "two"), NAME) == LARGE

    def test_with_a_token_that_has_run_out_it_is_told(
        self, said: dict[str, Any], by_token: AzureServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert by_token.identity
        for name, value in by_token.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(by_token.identity, "lifetime", -1)
        with pytest.raises(LakeError, match="expired") as refused:
            handle(said | {"credential": "managed_identity"}, tmp_path).check()
        assert refused.value.transient

    def test_without_any_credentials_it_says_what_to_do(self, said: dict[str, Any], tmp_path: Path) -> None:
        with pytest.raises(LakeError, match="no credentials") as refused:
            handle(said | {"credential": "environment"}, tmp_path).check()
        assert "az login" in (refused.value.hint or "")
        assert "\n" not in str(refused.value)
