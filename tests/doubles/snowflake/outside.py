"""Object stores that external stages lie in, read by their vendors' clients."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from azure.storage.blob import BlobServiceClient, ContainerClient

from tests.doubles.snowflake.answers import Refused, missing


@dataclass(slots=True)
class Outside:
    s3: dict[str, Any] | None = None
    """What boto3's client is told."""
    azure: str | None = None
    """A connection string."""

    def names(self, url: str, beginning: str) -> list[str]:
        """What lies below the address, by names relative to it that begin so."""
        place = urlsplit(url)
        found = self._in_s3 if place.scheme == "s3" else self._in_azure
        below = place.path.strip("/") if place.scheme == "s3" else place.path.strip("/").partition("/")[2]
        prefix = f"{below}/" if below else ""
        return sorted(name.removeprefix(prefix) for name in found(url, f"{prefix}{beginning}"))

    def fetch(self, url: str, name: str, file: Path) -> None:
        place = urlsplit(url)
        with file.open("wb") as made:
            if place.scheme == "s3":
                prefix = place.path.strip("/")
                with closing(self._client(url)) as client:
                    client.download_fileobj(place.netloc, f"{prefix}/{name}" if prefix else name, made)
            else:
                prefix = place.path.strip("/").partition("/")[2]
                with self._container(url) as container:
                    container.download_blob(f"{prefix}/{name}" if prefix else name).readinto(made)

    def _in_s3(self, url: str, prefix: str) -> Iterator[str]:
        with closing(self._client(url)) as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=urlsplit(url).netloc, Prefix=prefix)
            for page in pages:
                yield from (one["Key"] for one in page.get("Contents", ()))

    def _in_azure(self, url: str, prefix: str) -> Iterator[str]:
        with self._container(url) as container:
            yield from container.list_blob_names(name_starts_with=prefix)

    def _client(self, url: str) -> Any:
        if self.s3 is None:
            raise _unreachable(url)
        return boto3.client("s3", **self.s3)

    def _container(self, url: str) -> ContainerClient:
        place = urlsplit(url)
        if self.azure is None or place.scheme != "azure":
            raise _unreachable(url)
        service = BlobServiceClient.from_connection_string(self.azure)
        # The endpoint is that of blobs, whatever else the account speaks.
        if place.netloc != f"{service.account_name}.blob.core.windows.net":
            raise _unreachable(url)
        return service.get_container_client(place.path.strip("/").partition("/")[0])


def integrated(name: str | None, known: list[str]) -> None:
    """An external stage needs a storage integration that is there."""
    if name is None:
        raise Refused(393_950, "0A000", "SQL compilation error:\nan external stage takes a STORAGE_INTEGRATION here.")
    if name.upper() not in known:
        raise missing("Integration", name.upper())


def _unreachable(url: str) -> Refused:
    return Refused(91_003, "22000", f"Failure using stage area. Cause: [{url} cannot be reached]")
