"""What Azure storage can do to a lake, with renames and without: requests refused, answers lost, links cut."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
from azure.core.pipeline.transport import HttpTransport
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from ingestkit.errors import LakeError
from ingestkit.lake import Lake, Landed
from ingestkit.pipeline import Stop
from ingestkit.settings import AdlsConnection
from ingestkit.stores import remote
from ingestkit.stores.adls import CHUNK, AdlsBucket
from ingestkit.stores.remote import RemoteStore, Turns
from tests.contracts.store import NAME, PLACE, names, put, read
from tests.doubles.dfs import hierarchical
from tests.doubles.httpfaults import (
    ANSWER_LOST,
    INTERNAL_ERROR,
    NEVER_ARRIVES,
    SERVER_BUSY,
    Fault,
    FaultyServer,
    Meanwhile,
    Said,
    faulty,
)
from tests.doubles.proxy import proxied
from tests.doubles.relay import Answer, served
from tests.faults.lakes import Container
from tests.faults.sights import watched
from tests.object_stores import AzureServer, azurite, azurite_with_identity

pytestmark = [pytest.mark.services, pytest.mark.slow]

SMALL, LARGE = Random(1).randbytes(100_000), Random(2).randbytes(2_500_000)
BLOCK = "comp=block&"
COMMIT = "comp=blocklist"
RENAME = "mode=legacy"
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
NO_RIGHTS = Said(403, "AuthorizationPermissionMismatch")


@dataclass(frozen=True, slots=True)
class Place:
    """A container of an account, and what stands before it."""

    account: AzureServer
    container: str
    rename: bool
    service: FaultyServer

    @property
    def last(self) -> str:
        """Of the requests by which a large object comes to be seen, the last."""
        return RENAME if self.rename else COMMIT

    def opened(self, folder: Path, stop: Stop | None = None, **otherwise: Any) -> RemoteStore:
        said = {
            "url": url(self.container),
            "connection_string": replace(self.account, endpoint=self.service.endpoint).connection_string,
            "rename": self.rename,
            "part_size": 2**20,
        }
        connection = AdlsConnection.model_validate(said | otherwise)
        return RemoteStore(AdlsBucket(connection, Turns(stop)), folder, stop or Stop())


def url(container: str) -> str:
    return f"abfss://{container}@devstoreaccount1.dfs.core.windows.net/lake"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vendor's own tries come without their waits."""
    monkeypatch.setattr(HttpTransport, "sleep", lambda *_: None)


@pytest.fixture(scope="module")
def flat() -> Iterator[AzureServer]:
    with azurite() as server:
        yield server


@pytest.fixture(scope="module")
def with_folders(flat: AzureServer) -> Iterator[AzureServer]:
    with hierarchical(flat) as server:
        yield server


@pytest.fixture(params=[False, True], ids=["commit", "rename"])
def place(
    request: pytest.FixtureRequest, flat: AzureServer, with_folders: AzureServer, tmp_path: Path
) -> Iterator[Place]:
    """Somebody lists the container all the time, and reads what is there: it must be whole from the first sight on."""
    account = with_folders if request.param else flat
    container = account.container()
    with faulty(account.endpoint) as service, watched(Container(account, container, tmp_path, request.param).listing):
        yield Place(account, container, request.param, service)


@pytest.fixture(scope="module")
def by_token() -> Iterator[AzureServer]:
    with azurite_with_identity() as server:
        yield server


@pytest.fixture
def store(place: Place, tmp_path: Path) -> RemoteStore:
    made = place.opened(tmp_path / "one")
    made.check()
    return made


def landed(store: RemoteStore, content: bytes) -> Landed:
    def fill(writer: Any) -> None:
        writer.write(content)

    return Lake(store).publish(PLACE, NAME, fill)


@pytest.mark.parametrize(
    ("fault", "target", "told", "passing"),
    [
        (INTERNAL_ERROR, BLOCK, "InternalError", True),
        (SERVER_BUSY, BLOCK, "asked too much", True),
        (NEVER_ARRIVES, BLOCK, "does not answer", True),
        (NO_RIGHTS, BLOCK, "does not allow it", False),
        (Said(403, "AuthorizationFailure"), COMMIT, "refuses these credentials", False),
        (Said(401, "InvalidAuthenticationInfo"), COMMIT, "does not take these credentials", False),
        (Said(403, "AuthenticationFailed", date=LONG_AGO), COMMIT, "clock is wrong", True),
        (Said(409, "ContainerBeingDeleted"), COMMIT, "ContainerBeingDeleted", False),
        (NO_RIGHTS, "", "does not allow it", False),
        (SERVER_BUSY, "", "asked too much", True),
        (NEVER_ARRIVES, "", "does not answer", True),
    ],
)
def test_an_upload_that_is_refused_in_its_midst_leaves_nothing(
    store: RemoteStore, place: Place, fault: Fault, target: str, told: str, passing: bool
) -> None:
    spared = 2 if target == BLOCK else 0
    place.service.breaks(fault, "PUT", target or place.last, spared=spared, times=None)
    with pytest.raises(LakeError, match=told) as refused:
        landed(store, LARGE)
    assert refused.value.transient is passing
    assert place.service.broken > 0
    place.service.heals()
    assert names(store) == []
    assert list(store.inflight("_inflight/")) == []
    assert not landed(store, LARGE).adopted
    assert read(store, NAME) == LARGE


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["whole", "blocks"])
def test_what_passes_is_tried_again(store: RemoteStore, place: Place, content: bytes) -> None:
    place.service.breaks(SERVER_BUSY, "PUT", times=2)
    assert not landed(store, content).adopted
    assert place.service.broken == 2
    assert read(store, NAME) == content


@pytest.mark.parametrize("fault", [ANSWER_LOST, Said(500, "OperationTimedOut", done=True)], ids=["cut", "timed out"])
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["whole", "blocks"])
def test_what_was_done_and_not_answered_is_done_once(
    store: RemoteStore, place: Place, tmp_path: Path, content: bytes, fault: Fault
) -> None:
    put(store, NAME + ".before", b"")
    place.service.breaks(fault, "PUT", RENAME if place.rename else "lake/raw/" if content is SMALL else COMMIT)
    assert landed(store, content).adopted
    assert place.service.broken == 1
    second = place.opened(tmp_path / "two")
    assert names(second) == [NAME, NAME + ".before"]
    assert read(second, NAME) == content
    assert list(second.inflight("_inflight/")) == []


def test_a_failure_is_told_though_nothing_can_be_removed_behind_it(place: Place, tmp_path: Path) -> None:
    store = place.opened(tmp_path)
    place.service.breaks(NO_RIGHTS, "PUT", place.last, times=None)
    place.service.breaks(NEVER_ARRIVES, "DELETE", times=None)
    with pytest.raises(LakeError, match="does not allow it"):
        landed(store, LARGE)
    place.service.heals()
    assert len(list(store.inflight("_inflight/opendata/hcp/"))) == place.rename
    Lake(store).remove_inflight("opendata", "hcp", below=8)
    assert list(store.inflight("_inflight/")) == []


def test_who_has_no_rights_is_told_which_are_needed(store: RemoteStore, place: Place) -> None:
    place.service.breaks(NO_RIGHTS, "HEAD", times=None)
    with pytest.raises(LakeError, match="does not allow it") as refused:
        store.stat(NAME)
    assert "Storage Blob Data Contributor" in (refused.value.hint or "")
    assert "docs/lakes.md" in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (400, "InvalidHeaderValue", "docs/lakes.md"),
        (501, "NotImplemented", "docs/lakes.md"),
        (500, "InternalError", "run again"),
    ],
)
def test_whatever_the_service_says_there_is_something_to_do(
    store: RemoteStore, place: Place, status: int, code: str, hint: str
) -> None:
    place.service.breaks(Said(status, code), "PUT", times=None)
    with pytest.raises(LakeError) as refused:
        store.check()
    assert hint in (refused.value.hint or "")
    assert refused.value.transient == (code == "InternalError")


def test_an_object_that_is_gone_or_another_by_now_is_told_with_what_helps(
    store: RemoteStore, place: Place, tmp_path: Path
) -> None:
    second = place.opened(tmp_path / "two")
    put(store, NAME, SMALL)
    place.service.breaks(Said(412, "ConditionNotMet"), "GET", NAME, times=None)
    with pytest.raises(LakeError, match="was overwritten while it was read") as other:
        second.path(NAME)
    place.service.heals()
    place.service.breaks(Said(404, "BlobNotFound"), "GET", NAME, times=None)
    with pytest.raises(LakeError, match="holds no") as removed:
        second.path(NAME)
    assert all("who else removes or writes there" in (one.value.hint or "") for one in (other, removed))


def test_what_has_no_folders_at_all_is_told_to_go_without_renames(flat: AzureServer, tmp_path: Path) -> None:
    said = {"url": url(flat.container()), "connection_string": flat.connection_string, "rename": True}
    store = RemoteStore(AdlsBucket(AdlsConnection.model_validate(said), Turns()), tmp_path, Stop())
    with pytest.raises(LakeError, match="does not rename") as refused:
        store.check()
    assert refused.value.hint == "set rename: false in the connection"


def test_what_a_rule_has_archived_is_told_as_that(store: RemoteStore, place: Place, tmp_path: Path) -> None:
    put(store, NAME, SMALL)
    place.service.breaks(Said(409, "BlobArchived"), "GET", NAME, times=None)
    with pytest.raises(LakeError, match="has archived it") as refused:
        read(place.opened(tmp_path / "two"), NAME)
    assert not refused.value.transient
    assert "rehydrated" in (refused.value.hint or "")


def test_an_account_without_folders_is_told_to_go_without_renames(place: Place, tmp_path: Path) -> None:
    store = place.opened(tmp_path, rename=True)
    # Which account has no folders shows by this; what it would make of a rename is another thing.
    place.service.breaks(Said(400, "HierarchicalNamespaceNotEnabled"), "HEAD", "getAccessControl", times=None)
    with pytest.raises(LakeError, match="does not rename") as refused:
        store.check()
    assert refused.value.hint == "set rename: false in the connection"


def test_a_container_that_is_not_there_is_named(place: Place, tmp_path: Path) -> None:
    store = place.opened(tmp_path, url=url("no-such"))
    for ask in (store.check, lambda: store.stat(NAME), lambda: names(store), lambda: put(store, NAME)):
        with pytest.raises(LakeError, match=r"abfss://no-such@.* does not exist") as missing:
            ask()
        assert not missing.value.transient


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.matrix) for seed in range(1, 20))])
def test_reading_goes_on_behind_a_link_that_is_cut(place: Place, flat: AzureServer, tmp_path: Path, seed: int) -> None:
    content = LARGE * 4
    put(place.opened(tmp_path / "one"), NAME, content)
    # It is asked for in chunks; those that have come are not asked for again.
    at = Random(seed).randrange(CHUNK + 100_000, len(content))
    print(f"seed {seed}: cut behind {at} bytes")
    behind = urlsplit(flat.endpoint)
    with proxied("127.0.0.1", behind.port or 0) as proxy:
        account = replace(flat, endpoint=f"http://127.0.0.1:{proxy.port}{behind.path}")
        far = place.opened(tmp_path / "far", connection_string=account.connection_string)
        assert far.stat(NAME) is not None
        proxy.faults.cut_down = at
        assert read(far, NAME) == content
        assert far.path(NAME).read_bytes() == content
        far.let_go()
        proxy.faults.cut_down = 100_000
        with pytest.raises(LakeError, match="does not answer") as cut:
            read(far, NAME)
        assert cut.value.transient


@pytest.mark.parametrize(
    ("here", "told"), [(True, "does not take these credentials"), (False, "this machine's clock is wrong")]
)
def test_a_wrong_clock_is_told_from_wrong_credentials(tmp_path: Path, *, here: bool, told: str) -> None:
    when = datetime.now(UTC) if here else LONG_AGO
    said = (("x-ms-error-code", "AuthenticationFailed"), ("Date", format_datetime(when, usegmt=True)))
    with served(lambda _: Answer(403, said)) as port:
        account = AzureServer(f"http://127.0.0.1:{port}/devstoreaccount1")
        store = opened(tmp_path, account.connection_string)
        with pytest.raises(LakeError, match=told) as refused:
            put(store, NAME)
    assert refused.value.transient is not here


def test_another_key_is_refused(flat: AzureServer, tmp_path: Path) -> None:
    wrong = replace(flat, key="bm90IGl0").connection_string
    with pytest.raises(LakeError, match="credentials") as refused:
        opened(tmp_path, wrong, flat.container()).check()
    assert "bm90IGl0" not in str(refused.value)


@pytest.mark.parametrize("wrong", ["AccountKey:geheim", "AccountName=devstoreaccount1;AccountKey=geheim", "geheim;=;"])
def test_a_connection_string_that_is_none_is_refused_and_not_shown(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(LakeError) as refused:
        opened(tmp_path, wrong).check()
    assert "geheim" not in f"{refused.value} {refused.value.hint}"
    assert "\n" not in str(refused.value)


def test_a_connection_string_of_another_account_is_refused(tmp_path: Path) -> None:
    other = "AccountName=another;AccountKey=bm90IGl0"
    with pytest.raises(LakeError, match="of the account another"):
        opened(tmp_path, other).check()


def test_a_service_that_is_not_there_is_told_as_that(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="does not answer") as silent:
        opened(tmp_path, AzureServer("http://127.0.0.1:9/devstoreaccount1").connection_string).check()
    assert silent.value.transient


def opened(folder: Path, connection_string: str, container: str = "lake") -> RemoteStore:
    said = AdlsConnection(url=url(container), connection_string=connection_string)
    return RemoteStore(AdlsBucket(said), folder)


def test_what_is_there_by_an_answer_that_was_lost_is_not_read_back(place: Place, tmp_path: Path) -> None:
    store = place.opened(tmp_path / "one")
    # Its folder is there: what is lost is the answer of the rename itself.
    landed_as(store, f"{NAME}.other")
    place.service.breaks(ANSWER_LOST, "PUT", RENAME if place.rename else "lake/raw/")
    assert landed(store, SMALL).adopted
    asked = len(place.service.seen)
    assert read(store, NAME) == SMALL
    assert store.path(NAME).read_bytes() == SMALL
    assert len(place.service.seen) == asked


def test_of_renames_no_folders_stay_behind(with_folders: AzureServer, tmp_path: Path) -> None:
    container = with_folders.container()
    said = {"url": url(container), "connection_string": with_folders.connection_string, "rename": True}
    store = RemoteStore(AdlsBucket(AdlsConnection.model_validate(said)), tmp_path)
    for number in range(3):
        landed_as(store, f"raw/{number}")
    with store.write(f"{PLACE.inflight()}/left") as file:
        file.write(SMALL)
    with with_folders.service() as service:
        found = service.get_container_client(container).list_blobs("lake/_inflight/", include=["metadata"])
        folders = [one.name for one in found]
    assert folders == ["lake/_inflight/opendata", "lake/_inflight/opendata/hcp"]


def landed_as(store: RemoteStore, name: str) -> None:
    def fill(writer: Any) -> None:
        writer.write(SMALL)

    Lake(store).publish(PLACE, name, fill)


def token_store(by_token: AzureServer, folder: Path, credential: str) -> RemoteStore:
    said = {"url": url(by_token.container()), "endpoint": by_token.endpoint, "credential": credential}
    return RemoteStore(AdlsBucket(AdlsConnection.model_validate(said)), folder)


@pytest.fixture
def principal(by_token: AzureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert by_token.identity
    for name, value in {**by_token.trust, **by_token.identity.principal}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("principal")
@pytest.mark.parametrize("credential", ["environment", "default"])
def test_a_login_that_is_not_answered_may_be_tried_again_and_one_that_is_refused_not(
    by_token: AzureServer, tmp_path: Path, credential: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as otherwise:
        otherwise.setenv("AZURE_CLIENT_SECRET", "wrong")
        with pytest.raises(LakeError, match="AADSTS7000215: Invalid client secret") as refused:
            token_store(by_token, tmp_path, credential).check()
    assert not refused.value.transient
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://127.0.0.1:9")
    with pytest.raises(LakeError, match="no answer to a login") as unanswered:
        token_store(by_token, tmp_path, credential).check()
    assert unanswered.value.transient


def test_a_token_file_that_is_not_there_is_named_by_whoever_meets_it(
    by_token: AzureServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert by_token.identity
    for name, value in {**by_token.trust, **by_token.identity.workload(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "token").unlink()
    store = token_store(by_token, tmp_path / "lake", "workload_identity")
    for ask in (store.check, lambda: put(store, NAME, SMALL)):
        with pytest.raises(LakeError, match=f"no credentials, {tmp_path}/token: No such file or directory"):
            ask()


def test_a_signature_whose_time_is_over_is_told_as_that(tmp_path: Path) -> None:
    text = (
        "<?xml version='1.0'?><Error><Code>AuthenticationFailed</Code><Message>Server failed to authenticate the "
        "request.</Message><AuthenticationErrorDetail>Signature not valid in the specified time frame: Start [Mon, 01 "
        "Jan 2026 00:00:00 GMT] - Expiry [Mon, 01 Jan 2026 01:00:00 GMT]</AuthenticationErrorDetail></Error>"
    )
    head = (("x-ms-error-code", "AuthenticationFailed"), ("Content-Type", "application/xml"))
    with served(lambda _: Answer(403, head, text.encode())) as port:
        endpoint = f"http://127.0.0.1:{port}/devstoreaccount1"
        signed = generate_container_sas(
            "devstoreaccount1",
            "lake",
            AzureServer(endpoint).key,
            permission=ContainerSasPermissions(list=True),
            expiry=datetime.now(UTC) - timedelta(hours=1),
        )
        said = {"url": url("lake"), "connection_string": f"BlobEndpoint={endpoint};SharedAccessSignature={signed}"}
        with pytest.raises(LakeError, match="credentials have expired"):
            names(RemoteStore(AdlsBucket(AdlsConnection.model_validate(said)), tmp_path))


def test_who_is_asked_to_stop_sends_and_fetches_no_more(
    store: RemoteStore, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = bytes(12 * 2**20)
    stop = Stop()
    stopped = place.opened(tmp_path / "two", stop)
    stopped.check()
    place.service.breaks(Meanwhile(partial(stop.request, Asked)), "PUT", BLOCK)
    with pytest.raises(Asked):
        landed(stopped, many)
    assert sum(re.search(BLOCK, one) is not None for one in place.service.seen) < 12
    assert names(store) == []
    place.service.heals()
    landed(store, many)
    monkeypatch.setattr(remote, "RANGE", 2**20)
    with pytest.raises(Asked):
        stopped.path(NAME)


class Asked(Exception):
    """Why it is to stop."""
