"""What the double of a storage account with folders keeps, seen by the vendor's own clients."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.identity import ManagedIdentityCredential
from azure.storage.blob import ContainerClient
from azure.storage.filedatalake import DataLakeServiceClient, FileSystemClient

from tests.doubles.dfs import hierarchical
from tests.object_stores import AzureServer, azurite, azurite_with_identity

pytestmark = pytest.mark.services


@dataclass(frozen=True, slots=True)
class System:
    """A new file system, through both kinds of client."""

    name: str
    files: FileSystemClient
    blobs: ContainerClient

    def write(self, path: str, content: bytes = b"content") -> None:
        self.blobs.upload_blob(path, content, metadata={"sha256": "of it"})

    def rename(self, path: str, to: str) -> None:
        """On the condition that the new name is free."""
        self.files.get_file_client(path).rename_file(f"{self.name}/{to}", match_condition=MatchConditions.IfMissing)

    def paths(self, *, folders: bool = True) -> list[str]:
        return [one.name for one in self.files.get_paths() if folders or not one.is_directory]

    def content(self, path: str) -> bytes:
        return self.files.get_file_client(path).download_file().readall()


@pytest.fixture(scope="module")
def account() -> Iterator[AzureServer]:
    with azurite() as flat, hierarchical(flat) as server:
        yield server


@pytest.fixture
def system(account: AzureServer) -> Iterator[System]:
    name = account.container()
    with account.lake() as lake, account.service() as service:
        yield System(name, lake.get_file_system_client(name), service.get_container_client(name))


def code(refused: pytest.ExceptionInfo[HttpResponseError]) -> str:
    return str(refused.value).rpartition("ErrorCode:")[2].split()[0].strip("()")


def test_the_account_says_that_it_has_folders(account: AzureServer) -> None:
    with account.service() as service:
        assert service.get_account_information()["is_hns_enabled"]


def test_a_file_is_renamed_with_content_and_metadata(system: System) -> None:
    system.write("_inflight/a name ü")
    system.files.create_directory("raw")
    system.rename("_inflight/a name ü", "raw/another %20 name")
    assert system.paths() == ["_inflight", "raw", "raw/another %20 name"]
    assert system.content("raw/another %20 name") == b"content"
    known = system.blobs.get_blob_client("raw/another %20 name").get_blob_properties()
    assert known.metadata == {"sha256": "of it"}


def test_a_rename_onto_a_name_that_is_taken_is_refused_on_that_condition_only(system: System) -> None:
    system.write("first", b"first")
    system.write("second", b"second")
    with pytest.raises(ResourceExistsError) as refused:
        system.rename("second", "first")
    assert (refused.value.status_code, code(refused)) == (409, "PathAlreadyExists")
    assert (system.content("first"), system.content("second")) == (b"first", b"second")
    system.files.get_file_client("second").rename_file(f"{system.name}/first")
    assert (system.paths(), system.content("first")) == (["first"], b"second")


def test_a_source_that_is_missing_is_said(system: System) -> None:
    with pytest.raises(ResourceNotFoundError) as refused:
        system.rename("nothing", "something")
    assert (refused.value.status_code, code(refused)) == (404, "SourcePathNotFound")


def test_a_folder_that_is_missing_above_the_new_name_is_said(system: System) -> None:
    system.write("name")
    with pytest.raises(ResourceNotFoundError) as refused:
        system.rename("name", "raw/name")
    assert (refused.value.status_code, code(refused)) == (404, "RenameDestinationParentPathNotFound")


def test_a_folder_is_renamed_with_all_that_is_in_it(system: System) -> None:
    system.write("old/a/1")
    system.write("old/2")
    system.write("older")
    system.files.get_directory_client("old").rename_directory(f"{system.name}/new")
    assert system.paths() == ["new", "new/2", "new/a", "new/a/1", "older"]


def test_a_folder_is_renamed_neither_into_itself_nor_onto_one_that_is_not_empty(system: System) -> None:
    system.write("old/1")
    system.write("new/2")
    folder = system.files.get_directory_client("old")
    for to in ("old", "old/deeper", "new"):
        with pytest.raises(ResourceExistsError):
            folder.rename_directory(f"{system.name}/{to}")
    assert system.paths(folders=False) == ["new/2", "old/1"]


def test_of_two_who_rename_to_one_name_one_wins(system: System) -> None:
    outcomes = []

    def rename(path: str) -> None:
        try:
            system.rename(path, "name")
        except ResourceExistsError:
            return
        outcomes.append(path)

    for name in "abcd":
        system.write(name, name.encode())
    writers = [threading.Thread(target=rename, args=(name,)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(outcomes) == 1
    assert system.content("name") == outcomes[0].encode()


def test_nobody_sees_a_rename_half_done(account: AzureServer, system: System) -> None:
    """Each listing holds the file under one of its names."""
    seen: set[tuple[str, ...]] = set()
    done = threading.Event()

    def look() -> None:
        with account.service() as service, service.get_container_client(system.name) as container:
            while not done.is_set():
                seen.add(tuple(blob.name for blob in container.list_blobs()))

    system.write("a")
    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(15):
            system.rename("a", "b")
            system.rename("b", "a")
    finally:
        done.set()
        looking.join()
    assert seen <= {("a",), ("b",)}


def test_what_is_appended_is_in_the_file_when_it_is_flushed(system: System) -> None:
    file = system.files.create_file("folder/file", metadata={"sha256": "of it"})
    assert system.content("folder/file") == b""
    file.append_data(b"one", 0)
    file.append_data(b"two", 3)
    assert system.content("folder/file") == b""
    with pytest.raises(HttpResponseError) as refused:
        file.flush_data(7)
    assert (refused.value.status_code, code(refused)) == (400, "InvalidFlushPosition")
    file.flush_data(6)
    assert system.content("folder/file") == b"onetwo"
    assert file.get_file_properties().metadata == {"sha256": "of it"}


def test_the_vendor_s_own_upload_writes_a_file(system: System) -> None:
    for content in (b"first" * 100_000, b"second"):
        system.files.get_file_client("file").upload_data(content, overwrite=True, chunk_size=65536)
        assert system.content("file") == content


def test_a_flush_of_a_file_that_was_changed_is_refused_on_that_condition(system: System) -> None:
    file = system.files.create_file("file")
    etag = file.get_file_properties().etag
    file.create_file()
    file.append_data(b"one", 0)
    with pytest.raises(ResourceModifiedError):
        file.flush_data(3, etag=etag, match_condition=MatchConditions.IfNotModified)


def test_folders_are_made_above_what_is_written_and_stay(system: System) -> None:
    system.write("a/b/c")
    assert [(one.name, one.is_directory) for one in system.files.get_paths()] == [
        ("a", True), ("a/b", True), ("a/b/c", False),
    ]  # fmt: skip
    # Whoever asks by the other kind of client has to know a folder by its mark.
    marked = {blob.name: blob.metadata.get("hdi_isfolder") for blob in system.blobs.list_blobs(include=["metadata"])}
    assert marked == {"a": "true", "a/b": "true", "a/b/c": None}
    system.blobs.delete_blob("a/b/c")
    assert system.paths() == ["a", "a/b"]


def test_a_folder_that_is_not_empty_is_deleted_only_with_all_that_is_in_it(system: System) -> None:
    system.write("a/b")
    with pytest.raises(ResourceExistsError):
        system.blobs.delete_blob("a")
    system.files.get_directory_client("a").delete_directory()
    assert system.paths() == []
    with pytest.raises(ResourceNotFoundError):
        system.files.get_directory_client("a").delete_directory()


def test_paths_are_listed_by_folder_and_in_pages(system: System) -> None:
    for name in ("a/1", "a/2", "a/b/3", "ab"):
        system.write(name)
    pages = system.files.get_paths("a", max_results=2).by_page()
    assert [[one.name for one in page] for page in pages] == [["a/1", "a/2"], ["a/b", "a/b/3"]]
    assert [one.name for one in system.files.get_paths(recursive=False)] == ["a", "ab"]
    with pytest.raises(ResourceNotFoundError) as refused:
        list(system.files.get_paths("b"))
    assert code(refused) == "PathNotFound"


def test_both_kinds_of_client_are_told_folder_by_folder(system: System) -> None:
    names = ["a", "a/c", "a/d", "a/d/e", "a-b", "a.b", "ab"]
    for name in ("a-b", "a.b", "a/c", "a/d/e", "ab"):
        system.write(name)
    assert system.paths() == names
    assert [blob.name for blob in system.blobs.list_blobs()] == names
    pages = system.files.get_paths(max_results=3).by_page()
    assert [one.name for page in pages for one in page] == names
    assert [blob.name for blob in system.blobs.list_blobs(name_starts_with="a/")] == names[1:4]


def test_a_file_system_that_is_missing_is_said(account: AzureServer) -> None:
    with account.lake() as lake, pytest.raises(ResourceNotFoundError) as refused:
        list(lake.get_file_system_client("nothing").get_paths())
    assert code(refused) == "FilesystemNotFound"


def test_what_the_double_does_not_keep_is_refused(system: System) -> None:
    system.write("name")
    for unknown in ({"source_etag": "x", "source_match_condition": MatchConditions.IfNotModified}, {"lease": "x"}):
        with pytest.raises(HttpResponseError) as refused:
            system.files.get_file_client("name").rename_file(f"{system.name}/another", **unknown)
        assert refused.value.status_code == 501
    with pytest.raises(HttpResponseError):
        system.files.get_file_client("name").set_access_control(permissions="rwxrwxrwx")
    assert system.paths() == ["name"]


def test_another_key_is_refused(account: AzureServer, system: System) -> None:
    with replace(account, key="bm90IGl0").lake() as lake, pytest.raises(ClientAuthenticationError):
        lake.get_file_system_client(system.name).create_file("name")
    assert system.paths() == []


def test_a_token_is_let_in_for_renames_and_another_s_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with azurite_with_identity() as flat, hierarchical(flat) as account:
        for name, value in account.environment.items():
            monkeypatch.setenv(name, value)
        name = account.container()

        def renamed(old: str, new: str) -> None:
            with (
                ManagedIdentityCredential() as credential,
                DataLakeServiceClient(account.endpoint, credential=credential, retry_total=0) as lake,
            ):
                lake.get_file_client(name, old).rename_file(f"{name}/{new}")

        with account.service() as service:
            service.get_blob_client(name, "old").upload_blob(b"content")
        renamed("old", "new")
        assert account.identity
        account.identity.audience = "https://vault.azure.net"
        with pytest.raises(ClientAuthenticationError):
            renamed("new", "newer")
        with account.service() as service:
            assert service.get_blob_client(name, "new").exists()
