"""A lake in a container of Azure storage, with or without a hierarchical namespace."""

import secrets
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from azure.core import MatchConditions
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from azure.storage.blob import BlobBlock, BlobClient, BlobServiceClient, ContainerClient
from azure.storage.filedatalake import DataLakeServiceClient, FileSystemClient

from ingestkit import steps
from ingestkit.errors import LakeError, ObjectExists
from ingestkit.files import shown
from ingestkit.pipeline import Stop
from ingestkit.ports import Stored
from ingestkit.settings import ADLS_URL, AdlsConnection
from ingestkit.stores import names
from ingestkit.stores.adls_login import Login, first_line, login, login_failure
from ingestkit.stores.remote import (
    AGAIN,
    OTHERS,
    Head,
    RemoteStore,
    Turns,
    gone,
    overwritten,
    sent_side_by_side,
    taken_over,
)

BLOCKS = 50_000
TRIES = 5
"""How often an object is sent because of others who send one of its name."""
CHUNK = 8 * 2**20
"""How much is asked for at once by who reads: a place in the middle is often read for a few bytes."""
SKEW = timedelta(minutes=10)
PROBES, PROBE = f"{names.INFLIGHT}/_check", b"ingestkit"
FORGOTTEN = timedelta(hours=1)

GRANT = 'grant "Storage Blob Data Contributor" (docs/lakes.md); a new grant takes up to ten minutes to hold'
SETTINGS = "see what its connection says, and docs/lakes.md"

# By the service's code: what is the matter, what helps, and whether trying again may.
TROUBLES: dict[str, tuple[str, str, bool]] = {
    "ContainerNotFound": ("does not exist", "have the container made, or name another in `url`", False),
    "AuthorizationPermissionMismatch": ("does not allow it", GRANT, False),
    "AuthorizationFailure": (
        "refuses these credentials, or whoever comes from here",
        "look at the account's network rules, and at the credentials' rights (docs/lakes.md)",
        False,
    ),
    "KeyBasedAuthenticationNotPermitted": (
        "takes no keys",
        "leave out connection_string of the connection, and see docs/lakes.md for identities",
        False,
    ),
    "AuthenticationFailed": (
        "does not take these credentials",
        "look at connection_string, or at `credential` and whose identity that is (docs/lakes.md)",
        False,
    ),
    "ExpiredToken": ("says that the credentials have expired", "renew them, then run again", True),
    "ClockSkewed": ("says that this machine's clock is wrong", "set the clock, then run again", True),
    "ServerBusy": ("is asked too much", "run again", True),
    "BlobArchived": ("has archived it", "have it rehydrated, and see docs/lakes.md for rules that archive", False),
    "HierarchicalNamespaceNotEnabled": (
        "does not rename: the account has no hierarchical namespace",
        "set rename: false in the connection",
        False,
    ),
}
ALIASES = {
    "FilesystemNotFound": "ContainerNotFound",
    "AuthorizationServiceMismatch": "AuthorizationPermissionMismatch",
    "AuthorizationResourceTypeMismatch": "AuthorizationPermissionMismatch",
    "InsufficientAccountPermissions": "AuthorizationPermissionMismatch",
    "InvalidAuthenticationInfo": "AuthenticationFailed",
    "NoAuthenticationInformation": "AuthenticationFailed",
    "OperationTimedOut": "ServerBusy",
    "SourcePathIsBeingDeleted": "ServerBusy",
    "DestinationPathIsBeingDeleted": "ServerBusy",
}
TAKEN = {"BlobAlreadyExists", "PathAlreadyExists", "ConditionNotMet"}
MISSING = {"BlobNotFound", "PathNotFound", "404"}
SOURCE_GONE = {"SourcePathNotFound", *MISSING}
NOT_IMPLEMENTED = 501
NO_PARENT = "RenameDestinationParentPathNotFound"
DISCARDED = "InvalidBlockList"
EXPIRED = ("expired", "not valid in the specified time frame")
"""What tokens and signatures are told by when their time is over."""


def opened(*, connection: AdlsConnection, scratch: Path, stop: Stop) -> RemoteStore:
    """The lake of a connection whose references are resolved; nothing is asked of it yet."""
    return RemoteStore(AdlsBucket(connection, Turns(stop)), scratch / "lake", stop)


@dataclass
class AdlsBucket:
    """Not frozen: its clients are made at the first question."""

    connection: AdlsConnection = field(repr=False)
    turns: Turns = field(default_factory=Turns, repr=False)

    @property
    def place(self) -> str:
        return self.connection.url.rstrip("/")

    def check(self) -> None:
        name = f"{PROBES}/{secrets.token_hex(6)}"
        with self._translated("checking it"):
            self._blob(name).upload_blob(PROBE, length=len(PROBE), overwrite=True)
            try:
                probes = {one.name: one.at for one in self.list(f"{PROBES}/")}
                self._blob(name).download_blob().readall()
                if self.connection.rename:
                    self._refuse_flat()
                    self._rename(name, f"{name}.renamed")
            except BaseException:
                # The failure is what there is to tell; what stays is removed by a later check.
                with suppress(AzureError):
                    self._remove(name)
                raise
            self._remove(f"{name}.renamed" if self.connection.rename else name)
            for other, at in probes.items():
                # Left by a process that was killed; the service's own clock tells.
                if name in probes and probes[name] - at > FORGOTTEN:
                    self._remove(other)

    def keeps_names(self) -> bool:
        return True

    def put(self, inflight: str, name: str, file: Path, sha256: str) -> None:
        with self._translated(f"publishing {shown(name)}"):
            for attempt in range(TRIES):
                try:
                    if self.connection.rename:
                        self._send_aside(inflight, name, file, sha256)
                    else:
                        self._send(name, file, sha256, whole=attempt == 0)
                except HttpResponseError as error:
                    if _code(error) not in TAKEN | {DISCARDED}:
                        raise
                    if self.head(name) is not None:
                        raise ObjectExists(f"{shown(name)} is in lake {self.place} already") from error
                    # Gone again, or never there: blocks that wait for a commit which nobody sends keep a name from
                    # what is sent whole, and a commit of others has discarded ours.
                    continue
                return
        told = f"lake {self.place} is asked for {shown(name)} by others again and again"
        raise LakeError(told, hint=OTHERS, transient=True)

    def head(self, name: str) -> Head | None:
        with self._translated(f"looking at {shown(name)}"):
            try:
                found = self._blob(name).get_blob_properties()
            except HttpResponseError as error:
                if _code(error) in MISSING:
                    return None
                raise
        if _is_folder(found.metadata):
            return None
        return Head(Stored(name, found.size, found.last_modified), _told(found.metadata, "sha256"), found.etag)

    def read(self, name: str, tag: str, start: int, behind: int) -> "AdlsBody":
        with self.reading(name):
            stream = self._blob(name).download_blob(
                offset=start,
                length=behind - start,
                etag=tag,
                match_condition=MatchConditions.IfNotModified,
                # As it lies there, whatever encoding others may have written with it.
                decompress=False,
            )
        return AdlsBody(self, name, stream.chunks())

    def list(self, prefix: str) -> Iterator[Stored]:
        above = self._prefix
        with self._translated(f"listing {shown(prefix) or 'it'}"):
            told = self._container.list_blobs(name_starts_with=above + prefix, include=["metadata"])
            found = [
                Stored(one.name.removeprefix(above), one.size, one.last_modified)
                for one in told
                if not _is_folder(one.metadata)
            ]
        # A hierarchical namespace is told folder by folder: raw/a/c, then raw/a-b.
        yield from sorted(found, key=lambda stored: stored.name)

    def delete(self, name: str) -> None:
        with self._translated(f"removing {shown(name)}"):
            self._remove(name)

    def let_go(self, inflight: str) -> None:
        """Of blocks that wait for their commit there is nothing to remove: the service discards them after a week."""
        with self._translated(f"removing {shown(inflight)}"):
            self._remove(inflight)
            if self.connection.rename:
                self._remove_folder(inflight)

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Say of an object that is gone, or another one by now, that it is."""
        with self._translated(f"reading {shown(name)}"):
            try:
                yield
            except HttpResponseError as error:
                if _code(error) in MISSING:
                    raise gone(self.place, name) from error
                if _code(error) in TAKEN:
                    raise overwritten(self.place, name) from error
                raise

    def _send(self, name: str, file: Path, sha256: str, *, whole: bool = True, overwrite: bool = False) -> None:
        size, blob, metadata = file.stat().st_size, self._blob(name), {"sha256": sha256}
        if whole and size <= self.connection.part_size:
            # Its client reads all of it before it is sent.
            with file.open("rb") as body, self.turns.one(size):
                blob.upload_blob(body, length=size, metadata=metadata, overwrite=overwrite)
            return
        part = max(self.connection.part_size, -(-size // BLOCKS))
        # Whoever else sends blocks of this name has others: of equal ones the later would count for both.
        ours = secrets.token_hex(8)

        def send(number: int) -> BlobBlock:
            with file.open("rb") as body:
                body.seek((number - 1) * part)
                content = body.read(part)
            block = b64encode(f"{ours}{number:08d}".encode()).decode()
            blob.stage_block(block, content, length=len(content))
            return BlobBlock(block)

        blocks = sent_side_by_side(size, part, send, self.turns)
        steps.reached("store.sent")
        condition = None if overwrite else MatchConditions.IfMissing
        blob.commit_block_list(blocks, metadata=metadata, match_condition=condition)

    def _send_aside(self, inflight: str, name: str, file: Path, sha256: str) -> None:
        """Write it where nobody looks, then rename it."""
        try:
            self._send(inflight, file, sha256, overwrite=True)
            steps.reached("store.sent")
            self._rename(inflight, name)
        except HttpResponseError as error:
            if _code(error) not in SOURCE_GONE:
                raise
            # Renamed already, where the answer was lost; or removed by who works on it now.
            if self.head(name) is not None:
                raise ObjectExists(f"{shown(name)} is in lake {self.place} already") from error
            raise taken_over(name) from error
        finally:
            # Whatever became of it: the folder would stay behind each object. Its loss is worth no failure.
            with suppress(AzureError):
                self._remove_folder(inflight)

    def _refuse_flat(self) -> None:
        """A flat account may rename too, but by copying. Only one with folders can say whose its topmost one is."""
        try:
            self._folders.get_directory_client("/").get_access_control()
        except HttpResponseError as error:
            # What has no folders at all, as an emulator, knows of no topmost one.
            if error.status_code != 400 and _code(error) not in MISSING:
                raise
            raise LakeError(
                f"lake {self.place} does not rename in one step: the account has no hierarchical namespace",
                hint="set rename: false in the connection",
            ) from error

    def _rename(self, name: str, new: str) -> None:
        # Of the source the client undoes a quoting first, which a name may only look like.
        source = self._folders.get_file_client(quote(self._prefix + name))
        target = f"{self._folders.file_system_name}/{self._prefix}{new}"
        try:
            source.rename_file(target, match_condition=MatchConditions.IfMissing)
        except HttpResponseError as error:
            if _code(error) != NO_PARENT:
                raise
            self._make_folder((self._prefix + new).rpartition("/")[0])
            source.rename_file(target, match_condition=MatchConditions.IfMissing)

    def _make_folder(self, path: str) -> None:
        try:
            self._folders.get_directory_client(path).create_directory(match_condition=MatchConditions.IfMissing)
        except HttpResponseError as error:
            if _code(error) not in TAKEN:
                raise

    def _remove_folder(self, inflight: str) -> None:
        """Remove the folder that what is written has for itself, and what is in it."""
        try:
            self._folders.get_directory_client(self._prefix + inflight.rpartition("/")[0]).delete_directory()
        except HttpResponseError as error:
            if _code(error) not in MISSING:
                raise

    def _remove(self, name: str) -> None:
        try:
            self._blob(name).delete_blob()
        except HttpResponseError as error:
            if _code(error) not in MISSING:
                raise

    def _blob(self, name: str) -> BlobClient:
        return self._container.get_blob_client(self._prefix + name)

    @property
    def _prefix(self) -> str:
        prefix = (self._parts["prefix"] or "").strip("/")
        return f"{prefix}/" if prefix else ""

    @cached_property
    def _parts(self) -> dict[str, str]:
        found = ADLS_URL.fullmatch(self.connection.url)
        assert found is not None, "settings have looked at it"
        return found.groupdict()

    @cached_property
    def _container(self) -> ContainerClient:
        service: BlobServiceClient = self._service(BlobServiceClient, "blob")
        return service.get_container_client(self._parts["container"])

    @cached_property
    def _folders(self) -> FileSystemClient:
        service: DataLakeServiceClient = self._service(DataLakeServiceClient, "dfs")
        return service.get_file_system_client(self._parts["container"])

    def _service(self, kind: Any, endpoint: str) -> Any:
        said = self.connection
        options = {
            "connection_timeout": said.connect_timeout.total_seconds(),
            "read_timeout": said.answer_timeout.total_seconds(),
            # Waits of 2 and 4 seconds; what takes longer is for the runner to try again.
            "retry_total": 2,
            "initial_backoff": 0,
            "increment_base": 2,
            "random_jitter_range": 1,
            "max_single_put_size": said.part_size,
            "max_single_get_size": CHUNK,
            "max_chunk_get_size": CHUNK,
            "connection_data_block_size": 2**20,
        }
        try:
            if said.connection_string is None:
                host = self._parts["host"].replace(".dfs.", f".{endpoint}.", 1)
                return kind(said.endpoint or f"https://{host}", credential=self._login, **options)
            service = kind.from_connection_string(said.connection_string, **options)
        except ValueError as error:
            # Of what they make nothing of, they do not repeat the values.
            raise LakeError(f"lake {self.place} cannot be opened: {first_line(error)}", hint=SETTINGS) from error
        if service.account_name != self._parts["account"]:
            raise LakeError(
                f"connection_string is of the account {shown(str(service.account_name))}, and not that of {self.place}",
                hint="let url and connection_string of the connection name the same account",
            )
        return service

    @cached_property
    def _login(self) -> Login:
        return login(self.connection, self.place)

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except AzureError as error:
            raise self._failure(error, doing) from error

    def _failure(self, error: AzureError, doing: str) -> LakeError:
        if isinstance(error, HttpResponseError) and error.response is not None:
            return self._refusal(error, doing)
        if isinstance(error, ClientAuthenticationError):
            return login_failure(error, self.place)
        # What was cut while it came is told as an answer too, but has none.
        return LakeError(
            f"lake {self.place} does not answer while {doing}: {first_line(error)}",
            hint="look at the network, and at the account's name in `url`",
            transient=True,
        )

    def _refusal(self, error: HttpResponseError, doing: str) -> LakeError:
        code, status = _code(error), error.status_code or 0
        if (known := TROUBLES.get(_trouble(error, code))) is not None:
            what, hint, passing = known
            return LakeError(f"lake {self.place} {what} (while {doing})", hint=hint, transient=passing)
        passing = status >= 500 and status != NOT_IMPLEMENTED
        told = f"lake {self.place} failed while {doing}: {code}, {first_line(error)}"
        return LakeError(told, hint=AGAIN if passing else SETTINGS, transient=passing)


@dataclass(slots=True)
class AdlsBody:
    bucket: AdlsBucket
    name: str
    chunks: Iterator[bytes]
    left: bytes | memoryview = b""
    """Of the chunk that came last: its client's own way of reading parts copies each byte twice more."""

    def read(self, size: int) -> bytes | memoryview:
        if not self.left:
            with self.bucket.reading(self.name):
                self.left = memoryview(next(self.chunks, b""))
        found, self.left = self.left[:size], self.left[size:]
        return found

    def close(self) -> None:
        """Nothing is open: it is asked for in chunks."""


def _is_folder(metadata: dict[str, str] | None) -> bool:
    return _told(metadata, "hdi_isfolder") == "true"


def _told(metadata: dict[str, str] | None, name: str) -> str | None:
    """What metadata says, in whatever case it has come to write its names."""
    return next((value for known, value in (metadata or {}).items() if known.lower() == name), None)


def _code(error: HttpResponseError) -> str:
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or error.status_code)


def _trouble(error: HttpResponseError, code: str) -> str:
    code = ALIASES.get(code, code)
    if code != "AuthenticationFailed":
        return code
    # One code stands for all of it.
    if _skewed(error.response):
        return "ClockSkewed"
    return "ExpiredToken" if any(word in str(error.message).lower() for word in EXPIRED) else code


def _skewed(response: Any) -> bool:
    """Whether the request was signed at another time than the service has, by its answer."""
    asked, answered = response.request.headers.get("x-ms-date"), response.headers.get("Date")
    if not asked or not answered:
        return False
    return abs(parsedate_to_datetime(asked) - parsedate_to_datetime(answered)) > SKEW
