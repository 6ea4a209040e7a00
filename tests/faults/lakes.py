"""Where the lake of a small project may lie, for who breaks the project and for who looks at it from outside."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobProperties, ContainerClient

from tests.object_stores import AzureServer, S3Server

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

LAKE_VARIABLE = "FAULTS_LAKE"

Sight = tuple[str, tuple[object, ...], Callable[[], bytes]]
"""A name, facts that change when the object does, and its bytes."""


class Objects(Protocol):
    """A lake that lies in a service."""

    @property
    def place(self) -> str:
        """What the variable of its settings says."""
        ...

    def settings(self) -> str: ...

    def copied(self) -> "Objects": ...

    def names(self) -> set[str]: ...

    def published(self) -> Iterator[Sight]:
        """All objects that readers see; what is gone when it is to be read is a FileNotFoundError."""
        ...


@dataclass(frozen=True, slots=True)
class Bucket:
    server: S3Server
    place: str
    secret: Path | None = None
    """The file that its settings refer to."""

    def settings(self) -> str:
        said = {
            "endpoint_url": self.server.endpoint,
            "region": self.server.region,
            "access_key": self.server.access_key,
            "secret_key": f"'${{file:{self.secret}}}'",
        }
        told = ", ".join(f"{name}: {value}" for name, value in said.items())
        return f"{{type: s3, bucket: '${{env:{LAKE_VARIABLE}}}', prefix: lake/, path_style: true, {told}}}"

    def copied(self) -> "Bucket":
        copy = Bucket(self.server, self.server.bucket(), self.secret)
        with closing(self.server.client()) as client:
            for key in self._keys(client):
                client.copy_object(Bucket=copy.place, Key=key, CopySource={"Bucket": self.place, "Key": key})
        return copy

    def names(self) -> set[str]:
        with closing(self.server.client()) as client:
            return {key.removeprefix("lake/") for key in self._keys(client)}

    def published(self) -> Iterator[Sight]:
        with closing(self.server.client()) as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.place, Prefix="lake/")
            for page in pages:
                for one in page.get("Contents", ()):
                    name = one["Key"].removeprefix("lake/")
                    if not name.startswith("_inflight/"):
                        yield name, (one["ETag"], one["LastModified"]), partial(self._read, client, one["Key"])

    def _keys(self, client: "S3Client") -> list[str]:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.place)
        return [one["Key"] for page in pages for one in page.get("Contents", ())]

    def _read(self, client: "S3Client", key: str) -> bytes:
        try:
            return client.get_object(Bucket=self.place, Key=key)["Body"].read()
        except client.exceptions.NoSuchKey as error:
            raise FileNotFoundError(key) from error


@dataclass(frozen=True, slots=True)
class Container:
    server: AzureServer
    place: str
    secret: Path
    """A file that holds the account's connection string."""
    rename: bool

    def settings(self) -> str:
        url = f"abfss://${{env:{LAKE_VARIABLE}}}@{self.server.account}.dfs.core.windows.net/lake"
        rename = str(self.rename).lower()
        return f"{{type: adls, url: '{url}', connection_string: '${{file:{self.secret}}}', rename: {rename}}}"

    def copied(self) -> "Container":
        copy = Container(self.server, self.server.container(), self.secret, self.rename)
        with self._opened() as source, copy._opened() as target:
            for one in source.list_blobs(include=["metadata"]):
                status = target.get_blob_client(one.name).start_copy_from_url(source.get_blob_client(one.name).url)
                assert status["copy_status"] == "success"
        return copy

    def names(self) -> set[str]:
        with self._opened() as container:
            return {one.name.removeprefix("lake/") for one in self._objects(container)}

    def published(self) -> Iterator[Sight]:
        with self._opened() as container:
            for one in self._objects(container):
                name = one.name.removeprefix("lake/")
                if not name.startswith("_inflight/"):
                    yield name, (one.etag, one.last_modified), partial(self._read, container, one.name)

    @contextmanager
    def _opened(self) -> Iterator[ContainerClient]:
        with self.server.service() as service, service.get_container_client(self.place) as container:
            yield container

    def _objects(self, container: ContainerClient) -> Iterator[BlobProperties]:
        for one in container.list_blobs(include=["metadata"]):
            if (one.metadata or {}).get("hdi_isfolder") != "true":
                yield one

    def _read(self, container: ContainerClient, name: str) -> bytes:
        try:
            return container.download_blob(name).readall()
        except ResourceNotFoundError as error:
            raise FileNotFoundError(name) from error


def in_a_folder(lake: Path) -> Iterator[Sight]:
    for folder, folders, files in os.walk(lake):
        if Path(folder) == lake and "_inflight" in folders:
            folders.remove("_inflight")
        for name in files:
            path = Path(folder) / name
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            yield str(path.relative_to(lake)), (found.st_ino, found.st_size, found.st_mtime_ns), path.read_bytes
