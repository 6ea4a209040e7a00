"""A lake in Azure storage keeps the contract of stores, with folders and without, by key and by identity."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ingestkit import steps
from ingestkit.errors import LakeError, ObjectExists
from ingestkit.lake import Lake
from ingestkit.ports import Store
from ingestkit.settings import AdlsConnection
from ingestkit.stores import adls
from ingestkit.stores.adls import AdlsBucket
from ingestkit.stores.remote import IN_MEMORY, RemoteStore, Turns
from tests.contracts.store import CONTENT, NAME, PLACE, StoreContract, fill, killed, names, put, read
from tests.doubles.dfs import hierarchical
from tests.doubles.httpfaults import FaultyServer, Meanwhile, faulty
from tests.doubles.identity import Identity
from tests.faults.lakes import Container, Listing
from tests.faults.sights import watched
from tests.object_stores import AzureServer, azurite, azurite_with_identity

pytestmark = [pytest.mark.services, pytest.mark.slow]

LARGE = Random(1).randbytes(2_500_000)
PART = 2**20
BEFORE = "raw/opendata/hcp/20260101/0-before.csv"
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


def url(container: str) -> str:
    return f"abfss://{container}@devstoreaccount1.dfs.core.windows.net/some/where"


def handle(said: dict[str, Any], folder: Path) -> RemoteStore:
    return RemoteStore(AdlsBucket(AdlsConnection.model_validate(said)), folder)


def opening_of(said: dict[str, Any], folder: Path) -> str:
    return OPENING.format(said=said, folder=str(folder)).strip().replace("\n", "; ")


class AdlsContract(StoreContract):
    early = False
    parts = True
    large = 3 * PART + 1

    @pytest.fixture
    def store(self, said: dict[str, Any], tmp_path: Path) -> Store:
        return handle(said, tmp_path / "one")

    @pytest.fixture
    def second(self, said: dict[str, Any], tmp_path: Path) -> Store:
        return handle(said, tmp_path / "two")

    @pytest.fixture
    def listing(self, account: AzureServer, container: str, tmp_path: Path) -> Listing:
        return Container(account, container, tmp_path, rename=False, prefix="some/where/").listing

    @pytest.fixture
    def opening(self, said: dict[str, Any], tmp_path: Path) -> str:
        return opening_of(said, tmp_path / "three")

    def test_what_a_killed_check_left_is_removed_by_a_later_one_when_it_is_old(
        self, store: Store, account: AzureServer, container: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        left = "_inflight/_check/0123456789ab"
        with account.service() as service:
            service.get_blob_client(container, f"some/where/{left}").upload_blob(b"")
        store.check()
        assert list(store.inflight("_inflight/")) == [left]
        monkeypatch.setattr(adls, "FORGOTTEN", timedelta(days=-1))
        store.check()
        assert list(store.inflight("_inflight/")) == []

    def test_in_a_container_that_is_not_there_it_is_the_container_that_is_missed(
        self, said: dict[str, Any], container: str, tmp_path: Path
    ) -> None:
        elsewhere = said["url"].replace(container, "nowhere-to-be-seen")
        store = handle({**said, "url": elsewhere}, tmp_path / "three")
        with pytest.raises(LakeError, match=r"nowhere-to-be-seen.* does not exist"):
            read(store, NAME)

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
        self, second: Store, opening: str, listing: Listing
    ) -> None:
        killed(opening, "store.sent", listing)
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

    @pytest.mark.parametrize("before", [0, 1000])
    def test_an_object_that_is_another_while_it_is_read_is_not_mixed(
        self, store: Store, second: Store, before: int
    ) -> None:
        content = LARGE * 4
        put(store, NAME, content)
        with second.open(NAME) as file:
            file.read(before)
            store.remove(NAME)
            put(store, NAME, content[::-1])
            with pytest.raises(LakeError, match="overwritten while it was read"):
                file.read()

    def test_what_is_sent_whole_waits_for_its_turn(self, said: dict[str, Any], second: Store, tmp_path: Path) -> None:
        turns = Turns()
        store = RemoteStore(AdlsBucket(AdlsConnection.model_validate(said), turns), tmp_path / "three")
        with ThreadPoolExecutor(1) as pool:
            with turns.one(IN_MEMORY):
                sent = pool.submit(put, store, NAME, CONTENT[:1000])
                assert not wait([sent], timeout=1).done
                assert second.stat(NAME) is None
            sent.result(60)
        assert read(second, NAME) == CONTENT[:1000]

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

    @pytest.mark.parametrize("content", [b"", b"small"])
    def test_blocks_that_nobody_commits_do_not_keep_a_name(
        self, store: Store, second: Store, monkeypatch: pytest.MonkeyPatch, content: bytes
    ) -> None:
        meanwhile(monkeypatch, lambda: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            put(second, NAME, LARGE, f"{PLACE.inflight()}/another")
        put(store, NAME, content)
        assert read(second, NAME) == content
        assert second.sha256(NAME) == hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def with_folders(flat: AzureServer) -> Iterator[AzureServer]:
    with hierarchical(flat) as server:
        yield server


@pytest.mark.slow
class TestCommittingWhereThereAreFolders(AdlsContract):
    """A hierarchical account that is not told to rename, which is the default."""

    @pytest.fixture
    def account(self, with_folders: AzureServer) -> AzureServer:
        return with_folders


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


def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Any, times: int = 1) -> None:
    """Let something happen when a sender comes to its last request, for the time that is said."""
    left = [times]

    def reached(step: str) -> None:
        if step == "store.sent":
            left[0] -= 1
            if not left[0]:
                act()

    monkeypatch.setattr(steps, "reached", reached)


@pytest.fixture
def identified(by_token: AzureServer, monkeypatch: pytest.MonkeyPatch) -> Identity:
    """This machine's identity, where the vendor's library finds it."""
    for name, value in by_token.environment.items():
        monkeypatch.setenv(name, value)
    assert by_token.identity
    # Changed by some, and put back behind them.
    monkeypatch.setattr(by_token.identity, "lifetime", by_token.identity.lifetime)
    return by_token.identity


@pytest.mark.slow
class TestByIdentity(AdlsContract):
    @pytest.fixture
    def account(self, by_token: AzureServer, identified: Identity) -> AzureServer:
        return by_token

    @pytest.fixture
    def said(self, account: AzureServer, container: str) -> dict[str, Any]:
        said = {"url": url(container), "endpoint": account.endpoint, "part_size": PART}
        return said | {"credential": "managed_identity"}

    @pytest.mark.parametrize("credential", ["default", "managed_identity", "workload_identity", "environment"])
    def test_whoever_the_chain_finds_writes_and_reads(
        self,
        said: dict[str, Any],
        identified: Identity,
        credential: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        found = {"workload_identity": identified.workload(tmp_path), "environment": identified.principal}
        if credential in found:
            for name in identified.environment:
                monkeypatch.delenv(name)
        for name, value in found.get(credential, {}).items():
            monkeypatch.setenv(name, value)
        store = handle(said | {"credential": credential}, tmp_path / "one")
        store.check()
        put(store, NAME, LARGE)
        assert read(handle(said | {"credential": credential}, tmp_path / "two"), NAME) == LARGE

    def test_with_a_token_that_has_run_out_it_is_told(
        self, said: dict[str, Any], identified: Identity, tmp_path: Path
    ) -> None:
        identified.lifetime = -1
        with pytest.raises(LakeError, match="expired") as refused:
            handle(said, tmp_path).check()
        assert refused.value.transient

    def test_without_any_credentials_it_says_what_to_do(self, said: dict[str, Any], tmp_path: Path) -> None:
        with pytest.raises(LakeError, match="no credentials") as refused:
            handle(said | {"credential": "environment"}, tmp_path).check()
        assert "az login" in (refused.value.hint or "")
        assert "\n" not in str(refused.value)


@pytest.mark.slow
class TestAnUploadByIdentity:
    """Over https and by tokens, to an account with folders and to one without; somebody looks all the time."""

    @pytest.fixture(params=[False, True], ids=["commit", "rename"])
    def rename(self, request: pytest.FixtureRequest) -> bool:
        return bool(request.param)

    @pytest.fixture
    def account(self, by_token: AzureServer, identified: Identity, rename: bool) -> Iterator[AzureServer]:
        with hierarchical(by_token) if rename else nullcontext(by_token) as server:
            yield server

    @pytest.fixture
    def service(self, account: AzureServer) -> Iterator[FaultyServer]:
        with faulty(account.endpoint, account.signed) as server:
            yield server

    @pytest.fixture
    def said(self, service: FaultyServer, container: str, rename: bool) -> dict[str, Any]:
        said = {"url": url(container), "endpoint": service.endpoint, "part_size": PART, "rename": rename}
        return said | {"credential": "managed_identity"}

    @pytest.fixture
    def listing(self, account: AzureServer, container: str, rename: bool, tmp_path: Path) -> Listing:
        return Container(account, container, tmp_path, rename, prefix="some/where/").listing

    @pytest.mark.faults
    @pytest.mark.parametrize("step", ["store.sent", "store.linked"])
    def test_killed_over_blocks_the_next_one_sends_or_finds_them(
        self, said: dict[str, Any], listing: Listing, tmp_path: Path, step: str
    ) -> None:
        killed(opening_of(said, tmp_path / "one"), step, listing)
        store = handle(said, tmp_path / "two")
        assert names(store) == [NAME] * (step == "store.linked")
        Lake(store).remove_inflight("opendata", "hcp", below=8)
        assert list(store.inflight("_inflight/")) == []
        assert Lake(store).publish(PLACE, NAME, fill).adopted is (step == "store.linked")
        store.let_go()
        assert read(store, NAME) == CONTENT

    @pytest.mark.parametrize(
        ("rename", "when", "told"),
        [
            (False, "between blocks", "have expired"),
            (False, "before the commit", "have expired"),
            (True, "between blocks", "have expired"),
            (True, "before the commit", "have expired"),
            # Here the answer does not say what is the matter with the token.
            (True, "before the rename", "does not take these credentials"),
        ],
        indirect=["rename"],
    )
    def test_a_token_that_runs_out_in_the_midst_is_renewed_and_otherwise_told(
        self,
        said: dict[str, Any],
        service: FaultyServer,
        listing: Listing,
        identified: Identity,
        when: str,
        told: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        store, content = handle(said, tmp_path), LARGE * 4
        # So short that each request asks for a new one.
        identified.lifetime = 60

        def run_out() -> None:
            identified.lifetime = -1

        with watched(listing):
            put(store, BEFORE, content)
            if when == "between blocks":
                service.breaks(Meanwhile(run_out), "PUT", "comp=block&", spared=1)
            else:
                meanwhile(monkeypatch, run_out, times=1 + (when == "before the rename"))
            with pytest.raises(LakeError, match=told) as refused:
                put(store, NAME, content)
            assert refused.value.transient is ("expired" in told)
            assert identified.lifetime == -1
            identified.lifetime = 60
            assert names(store) == [BEFORE]
            # Who could not remove it leaves it to who comes next.
            Lake(store).remove_inflight("opendata", "hcp", below=8)
            assert list(store.inflight("_inflight/")) == []
            put(store, NAME, content, f"{PLACE.inflight()}/again")
        store.let_go()
        assert read(store, NAME) == content
