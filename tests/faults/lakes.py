"""Where the lake of a small project may lie, for who breaks the project and for who looks at it from outside."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobProperties, ContainerClient

from tests.object_stores import AzureServer, S3Server

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

LAKE_VARIABLE = "FAULTS_LAKE"


class Found(NamedTuple):
    """An object as it was read."""

    content: bytes
    sha256: str | None
    """What lies with it, empty if nothing does; a folder keeps no such thing."""


class Sight(NamedTuple):
    """An object as it was listed."""

    name: str
    size: int
    facts: tuple[object, ...]
    """What changes when the object does."""
    read: Callable[[], Found]
    """What is gone by then is a FileNotFoundError."""


Listing = Callable[[], AbstractContextManager[Callable[[], Iterator[Sight]]]]
"""Opened once, it tells as often as it is asked all objects that readers see."""


class Objects(Protocol):
    """A lake that lies in a service."""

    @property
    def place(self) -> str:
        """What the variable of its settings says."""
        ...

    @property
    def location(self) -> str:
        """Where it lies, as stages of Snowflake say it."""
        ...

    def settings(self) -> str: ...

    def copied(self) -> "Objects": ...

    def names(self) -> set[str]: ...

    def listing(self) -> AbstractContextManager[Callable[[], Iterator[Sight]]]: ...


@dataclass(frozen=True, slots=True)
class Bucket:
    server: S3Server
    place: str
    secret: Path | None = None
    """The file that its settings refer to."""
    prefix: str = "lake/"

    @property
    def location(self) -> str:
        return f"s3://{self.place}/{self.prefix}"

    def settings(self) -> str:
        said = {
            "endpoint_url": self.server.endpoint,
            "region": self.server.region,
            "access_key": self.server.access_key,
            "secret_key": f"'${{file:{self.secret}}}'",
        }
        told = ", ".join(f"{name}: {value}" for name, value in said.items())
        return f"{{type: s3, bucket: '${{env:{LAKE_VARIABLE}}}', prefix: {self.prefix}, path_style: true, {told}}}"

    def copied(self) -> "Bucket":
        copy = replace(self, place=self.server.bucket())
        with closing(self.server.client()) as client:
            for key in self._keys(client):
                client.copy_object(Bucket=copy.place, Key=key, CopySource={"Bucket": self.place, "Key": key})
        return copy

    def names(self) -> set[str]:
        with closing(self.server.client()) as client:
            return {key.removeprefix(self.prefix) for key in self._keys(client)}

    @contextmanager
    def listing(self) -> Iterator[Callable[[], Iterator[Sight]]]:
        with closing(self.server.client()) as client:
            yield partial(self._published, client)

    def _published(self, client: "S3Client") -> Iterator[Sight]:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=self.place):
            for one in page.get("Contents", ()):
                name, facts = one["Key"].removeprefix(self.prefix), (one["ETag"], one["LastModified"])
                if not name.startswith("_inflight/"):
                    yield Sight(name, one["Size"], facts, partial(self._read, client, one["Key"]))

    def _keys(self, client: "S3Client") -> list[str]:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.place)
        return [one["Key"] for page in pages for one in page.get("Contents", ())]

    def _read(self, client: "S3Client", key: str) -> Found:
        try:
            answer = client.get_object(Bucket=self.place, Key=key)
            told = {name.lower(): value for name, value in answer["Metadata"].items()}
            return Found(answer["Body"].read(), told.get("sha256", ""))
        except client.exceptions.NoSuchKey as error:
            raise FileNotFoundError(key) from error


@dataclass(frozen=True, slots=True)
class Container:
    server: AzureServer
    place: str
    secret: Path
    """A file that holds the account's connection string."""
    rename: bool
    prefix: str = "lake/"

    @property
    def location(self) -> str:
        return f"azure://{self.server.account}.blob.core.windows.net/{self.place}/{self.prefix}"

    def settings(self) -> str:
        url = f"abfss://${{env:{LAKE_VARIABLE}}}@{self.server.account}.dfs.core.windows.net/{self.prefix}"
        rename = str(self.rename).lower()
        return f"{{type: adls, url: '{url}', connection_string: '${{file:{self.secret}}}', rename: {rename}}}"

    def copied(self) -> "Container":
        copy = replace(self, place=self.server.container())
        with self._opened() as source, copy._opened() as target:
            for one in source.list_blobs(include=["metadata"]):
                status = target.get_blob_client(one.name).start_copy_from_url(source.get_blob_client(one.name).url)
                assert status["copy_status"] == "success"
        return copy

    def names(self) -> set[str]:
        with self._opened() as container:
            return {one.name.removeprefix(self.prefix) for one in self._objects(container)}

    @contextmanager
    def listing(self) -> Iterator[Callable[[], Iterator[Sight]]]:
        with self._opened() as container:
            yield partial(self._published, container)

    def _published(self, container: ContainerClient) -> Iterator[Sight]:
        for one in self._objects(container):
            name, facts = one.name.removeprefix(self.prefix), (one.etag, one.last_modified)
            if not name.startswith("_inflight/"):
                yield Sight(name, one.size, facts, partial(self._read, container, one.name))

    @contextmanager
    def _opened(self) -> Iterator[ContainerClient]:
        with self.server.service() as service, service.get_container_client(self.place) as container:
            yield container

    def _objects(self, container: ContainerClient) -> Iterator[BlobProperties]:
        for one in container.list_blobs(include=["metadata"]):
            if (one.metadata or {}).get("hdi_isfolder") != "true":
                yield one

    def _read(self, container: ContainerClient, name: str) -> Found:
        try:
            answer = container.download_blob(name)
            return Found(answer.readall(), (answer.properties.metadata or {}).get("sha256", ""))
        except ResourceNotFoundError as error:
            raise FileNotFoundError(name) from error


def in_a_folder(lake: Path) -> Listing:
    return lambda: nullcontext(partial(_in_a_folder, str(lake)))


def _in_a_folder(folder: str, above: str = "") -> Iterator[Sight]:
    """Without paths that are taken apart and put together: it is asked a hundred times a second."""
    # Gone again, or never made.
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            name = above + entry.name
            if name == "_inflight":
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _in_a_folder(entry.path, f"{name}/")
                continue
            with suppress(FileNotFoundError):
                found = entry.stat()
                facts = (found.st_ino, found.st_size, found.st_mtime_ns)
                yield Sight(name, found.st_size, facts, partial(_read, entry.path))


def _read(path: str) -> Found:
    return Found(Path(path).read_bytes(), None)
