"""A storage account with folders: Azurite, and before it what Azure's other endpoint does, which Azurite has not.

Requests of the blob kind are passed on as they came; what they make has folders above it, which stay, as in such an
account. Those of the DFS kind are kept by its rules: create, append, flush, rename, list, delete. A rename is a copy
and a delete inside. Both kinds list folder by folder: a/b, then a-b. One request is answered after another, so that
nobody who comes through here sees it half done; who asks Azurite itself does, and so does who looks after this process
was killed in the middle.

Not kept, and refused with 501: leases, access control, conditions on times and sources, `If-None-Match` but for `*` of
a file that is made, and listings of blobs in more than one page.
Not kept, and not noticed: content settings of files made by DFS, renames told in pieces, folders in batches of deletes,
and that a file written by the blob kind takes no appends.
"""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote
from xml.etree import ElementTree as ET

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobProperties, BlobServiceClient, ContainerClient

from tests.doubles.relay import Answer, Request, passed_on, served
from tests.object_stores import AzureServer

FOLDER = {"hdi_isfolder": "true"}
OWNED = (("x-ms-owner", "$superuser"), ("x-ms-group", "$superuser"), ("x-ms-permissions", "rwxr-x---"))
TIMES = ("If-Modified-Since", "If-Unmodified-Since")
SOURCES = tuple(f"x-ms-source-{name}" for name in ("lease-id", "If-Match", "If-None-Match", *TIMES))
ADMITTING = ("host", "authorization", "x-ms-version", "x-ms-date", "date")
CONTENT = ("content-encoding", "content-language", "content-length", "content-md5", "content-type")
SIGNED = (*CONTENT, "date", "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range")


class Refused(Exception):
    """What the endpoint says no to, in its own words."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


class Place(NamedTuple):
    """A path in a file system, which is a container."""

    system: str
    path: str

    @property
    def parents(self) -> list[str]:
        parts = self.path.split("/")[:-1]
        return ["/".join(parts[: length + 1]) for length in range(len(parts))]


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The account behind, and what was appended to its files and not flushed."""

    account: AzureServer
    blobs: BlobServiceClient
    turn: threading.Lock = field(default_factory=threading.Lock)
    appended: dict[Place, dict[int, bytes]] = field(default_factory=dict)

    def answer(self, request: Request) -> Answer:
        with self.turn:
            try:
                return self._answer(request)
            except Refused as refused:
                return _refused(refused)
            except ResourceNotFoundError:
                return _refused(Refused(404, "FilesystemNotFound"))

    def _answer(self, request: Request) -> Answer:
        query = dict(parse_qsl(request.query, keep_blank_values=True))
        place = _place(request.path)
        if not _of_folders(request, query):
            return self._blob(request, query, place)
        self._admit(request)
        self._judge_conditions(request, place)
        match request.method, query.get("resource"), query.get("action"):
            case "PUT", None, None:
                return self._rename(request, place)
            case "PUT", "file" | "directory" as kind, None:
                return self._create(request, place, folder=kind == "directory")
            case "PATCH", None, "append" if "flush" not in query:
                return self._append(request, place, int(query["position"]))
            case "PATCH", None, "flush":
                return self._flush(place, int(query["position"]))
            case "GET", "filesystem", None:
                return self._list(place.system, query)
            case "HEAD", None, "getAccessControl":
                if place.path and self._kind(place) is None:
                    raise Refused(404, "PathNotFound")
                return Answer(200, OWNED, b"")
            case "DELETE", None, None:
                return self._delete(place, recursive=query["recursive"] == "true")
        raise Refused(501, "NotImplemented")

    def _judge_conditions(self, request: Request, place: Place) -> None:
        unknown = any(request.header(name) for name in ("x-ms-lease-id", *TIMES, *SOURCES))
        if unknown or request.header("If-None-Match") not in (None, "*" if request.method == "PUT" else None):
            raise Refused(501, "NotImplemented")
        expected = request.header("If-Match")
        if expected and (self._kind(place) is None or self._known(place).etag != expected):
            raise Refused(412, "ConditionNotMet")

    def _blob(self, request: Request, query: dict[str, str], place: Place) -> Answer:
        """A request of the blob kind; those of the vendor's clients see here that the account has folders."""
        if request.method == "DELETE" and place.path and not query and self._within(place):
            raise Refused(409, "DirectoryIsNotEmpty")
        answer = self._passed_on(request)
        made = request.method == "PUT" and query.get("comp", "blocklist") == "blocklist" and answer.status == 201
        if made and place.path:
            self._make_parents(place)
        if query.get("comp") == "list" and place.system:
            return _by_folder(answer) if answer.status == 200 else answer
        if query.get("restype") == "account":
            told = [(name, value) for name, value in answer.headers if name.lower() != "x-ms-is-hns-enabled"]
            return replace(answer, headers=(*told, ("x-ms-is-hns-enabled", "true")))
        return answer

    def _rename(self, request: Request, place: Place) -> Answer:
        said = request.header("x-ms-rename-source") or ""
        source = Place(*_halves(unquote(said.partition("?")[0]).lstrip("/")))
        kind = self._kind(source)
        if kind is None:
            raise Refused(404, "SourcePathNotFound")
        if place.parents and self._kind(place._replace(path=place.parents[-1])) != "directory":
            raise Refused(404, "RenameDestinationParentPathNotFound")
        there = self._kind(place)
        if there and request.header("If-None-Match") == "*":
            raise Refused(409, "PathAlreadyExists")
        if there and there != kind:
            raise Refused(409, "InvalidSourceOrDestinationResourceType")
        if place == source or place.path.startswith(f"{source.path}/"):
            raise Refused(409, "InvalidRenameSourcePath")
        if there == "directory" and self._within(place):
            raise Refused(409, "PathAlreadyExists")
        self._move(source, place)
        return self._made(place)

    def _move(self, source: Place, place: Place) -> None:
        old, new = self._container(source), self._container(place)
        names = [source.path, *(blob.name for blob in self._within(source))]
        for name in names:
            copied = new.get_blob_client(place.path + name[len(source.path) :])
            status = copied.start_copy_from_url(old.get_blob_client(name).url)["copy_status"]
            assert status == "success", f"Azurite copied {name}: {status}"
        for name in names:
            old.delete_blob(name)

    def _create(self, request: Request, place: Place, *, folder: bool) -> Answer:
        there = self._kind(place)
        if there and (request.header("If-None-Match") == "*" or (there == "directory") != folder):
            raise Refused(409, "PathAlreadyExists")
        if there != "directory":
            self._make_parents(place)
            self.appended.pop(place, None)
            metadata = {**_properties(request.header("x-ms-properties")), **(FOLDER if folder else {})}
            self._container(place).upload_blob(place.path, b"", overwrite=True, metadata=metadata)
        return self._made(place)

    def _append(self, request: Request, place: Place, position: int) -> Answer:
        if self._kind(place) != "file":
            raise Refused(404, "PathNotFound")
        self.appended.setdefault(place, {})[position] = request.body
        return Answer(202)

    def _flush(self, place: Place, position: int) -> Answer:
        if self._kind(place) != "file":
            raise Refused(404, "PathNotFound")
        blob = self._container(place).get_blob_client(place.path)
        metadata = self._known(place).metadata
        content = bytearray(blob.download_blob().readall())
        for start, block in sorted(self.appended.get(place, {}).items()):
            if start != len(content):
                raise Refused(400, "InvalidFlushPosition")
            content += block
        if position != len(content):
            raise Refused(400, "InvalidFlushPosition")
        blob.upload_blob(bytes(content), overwrite=True, metadata=metadata)
        self.appended.pop(place, None)
        return replace(self._made(place), status=200)

    def _list(self, system: str, query: dict[str, str]) -> Answer:
        above = Place(system, query.get("directory", "").strip("/"))
        if above.path and self._kind(above) != "directory":
            raise Refused(404, "PathNotFound")
        found = sorted(self._within(above), key=lambda blob: _in_turn(blob.name))
        if query["recursive"] != "true":
            depth = above.path.count("/") + 1 if above.path else 0
            found = [blob for blob in found if blob.name.count("/") == depth]
        begun = unquote(query.get("continuation", ""))
        limit = int(query.get("maxResults", "5000"))
        found = [blob for blob in found if _in_turn(blob.name) > _in_turn(begun)]
        more = (("x-ms-continuation", quote(found[limit - 1].name)),) if len(found) > limit else ()
        paths = [_told(blob) for blob in found[:limit]]
        return Answer(200, (*more, ("Content-Type", "application/json")), json.dumps({"paths": paths}).encode())

    def _delete(self, place: Place, *, recursive: bool) -> Answer:
        if self._kind(place) is None:
            raise Refused(404, "PathNotFound")
        within = [blob.name for blob in self._within(place)]
        if within and not recursive:
            raise Refused(409, "DirectoryNotEmpty")
        for name in (*reversed(within), place.path):
            self._container(place).delete_blob(name)
        return Answer(200)

    def _container(self, place: Place) -> ContainerClient:
        return self.blobs.get_container_client(place.system)

    def _known(self, place: Place) -> BlobProperties:
        return self._container(place).get_blob_client(place.path).get_blob_properties()

    def _kind(self, place: Place) -> str | None:
        try:
            known = self._known(place)
        except ResourceNotFoundError as missing:
            if "ErrorCode:ContainerNotFound" in str(missing):
                raise
            return None
        return "directory" if _is_folder(known) else "file"

    def _within(self, place: Place) -> list[BlobProperties]:
        above = f"{place.path}/" if place.path else None
        return list(self._container(place).list_blobs(name_starts_with=above, include=["metadata"]))

    def _make_parents(self, place: Place) -> None:
        for path in place.parents:
            if self._kind(place._replace(path=path)) is None:
                self._container(place).upload_blob(path, b"", metadata=FOLDER)

    def _made(self, place: Place) -> Answer:
        known = self._known(place)
        changed = known.last_modified.strftime("%a, %d %b %Y %H:%M:%S GMT")
        return Answer(201, (("ETag", known.etag), ("Last-Modified", changed)))

    def _admit(self, request: Request) -> None:
        """Who has neither a token that Azurite takes nor a signature by the account's key has no business here."""
        said = request.header("Authorization") or ""
        if said.startswith("Bearer "):
            kept = tuple((name, value) for name, value in request.headers if name.lower() in ADMITTING)
            looked = self._passed_on(Request("GET", f"/{self.account.account}/?comp=list", kept, b""))
            if looked.status in (401, 403):
                raise Refused(looked.status, dict(looked.headers).get("x-ms-error-code", "AuthenticationFailed"))
        elif said != f"SharedKey {self.account.account}:{signature(request, self.account)}":
            raise Refused(403, "AuthenticationFailed")

    def _passed_on(self, request: Request) -> Answer:
        trusted = str(self.account.signed.certificate) if self.account.signed else None
        return passed_on(request, self.account.endpoint, trusted)


def signature(request: Request, account: AzureServer) -> str:
    """How the account's key signs a request."""
    sent = {name.lower(): value.strip() for name, value in request.headers}
    # A body that is none has no length here, and the other date stands in Azure's own header.
    sent |= {"content-length": sent.get("content-length", "").removeprefix("0"), "date": ""}
    plain = [sent.get(name, "") for name in SIGNED]
    own = [f"{name}:{sent[name]}" for name in sorted(sent) if name.startswith("x-ms-")]
    asked = [f"{name.lower()}:{value}" for name, value in sorted(parse_qsl(request.query, keep_blank_values=True))]
    text = "\n".join([request.method, *plain, *own, f"/{account.account}{request.path}", *asked])
    return base64.b64encode(hmac.digest(base64.b64decode(account.key), text.encode(), hashlib.sha256)).decode()


@contextmanager
def hierarchical(account: AzureServer) -> Iterator[AzureServer]:
    """The same account, as one with folders."""
    tls = account.signed.server() if account.signed else None
    with account.service() as blobs, served(Hierarchy(account, blobs).answer, tls) as port:
        scheme = account.endpoint.partition(":")[0]
        yield replace(account, endpoint=f"{scheme}://127.0.0.1:{port}/{account.account}")


def _place(path: str) -> Place:
    """Behind the account's name come the file system's and the path."""
    return Place(*_halves(unquote(path).lstrip("/").partition("/")[2]))


def _halves(text: str) -> tuple[str, str]:
    system, _, path = text.partition("/")
    return system, path.strip("/")


def _of_folders(request: Request, query: dict[str, str]) -> bool:
    renaming = request.method == "PUT" and request.header("x-ms-rename-source") is not None
    deleting = request.method == "DELETE" and "recursive" in query
    return renaming or deleting or "action" in query or "resource" in query


def _in_turn(path: str) -> list[str]:
    """By this a path stands behind its folder and what is in that, and not behind all that begins like it."""
    return path.split("/")


def _by_folder(listing: Answer) -> Answer:
    """The same blobs as such an account tells them."""
    told = ET.fromstring(listing.body)
    if told.findtext("NextMarker"):
        raise Refused(501, "NotImplemented")
    blobs = told.find("Blobs")
    assert blobs is not None
    blobs[:] = sorted(blobs, key=lambda one: _in_turn(one.findtext("Name") or ""))
    kept = tuple((name, value) for name, value in listing.headers if name.lower() != "content-length")
    return Answer(listing.status, kept, ET.tostring(told, "utf-8", xml_declaration=True))


def _properties(said: str | None) -> dict[str, str]:
    pairs = (one.partition("=") for one in (said or "").split(",") if one)
    return {name.strip(): base64.b64decode(value).decode() for name, _, value in pairs}


def _is_folder(blob: BlobProperties) -> bool:
    return (blob.metadata or {}).get("hdi_isfolder") == "true"


def _told(blob: BlobProperties) -> dict[str, str]:
    changed = blob.last_modified.strftime("%a, %d %b %Y %H:%M:%S GMT")
    told = {"name": blob.name, "contentLength": str(blob.size), "etag": blob.etag, "lastModified": changed}
    return {**told, "isDirectory": "true"} if _is_folder(blob) else told


def _refused(refused: Refused) -> Answer:
    text = json.dumps({"error": {"code": refused.code, "message": refused.code}})
    return Answer(
        refused.status, (("Content-Type", "application/json"), ("x-ms-error-code", refused.code)), text.encode()
    )
