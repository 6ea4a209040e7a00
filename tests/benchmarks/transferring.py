"""Sends one file to a lake in a service, or fetches it, by our store or by the vendor's own transfer manager.

python -m tests.benchmarks.transferring OURS|VENDOR SEND|LAND|FETCH CONNECTION FILE FOLDER

`send` begins with a file on this machine, as a transfer manager does; of ours the hash is known by then. `land` begins
with a stream from elsewhere, which is hashed on its way into such a file by either, and the hash becomes metadata of
the object. Of what is fetched ours compares the hash, and theirs does not.

A process of its own, for its memory. The connection is JSON as in the settings. It says the seconds and the seconds of
processors that it took, imports and the first word with the service left out.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from azure.storage.blob import BlobServiceClient
from botocore.config import Config

from ingestkit.lake import BLOCK, HashingWriter, Lake, Place
from ingestkit.settings import ADLS_URL, AdlsConnection, S3Connection
from ingestkit.stores.adls import AdlsBucket
from ingestkit.stores.remote import RemoteStore
from ingestkit.stores.s3 import S3Bucket

NAME = "raw/bench/large/1/0-large.bin"
Transfer = Callable[[], object]


def of_ours(direction: str, connection: dict[str, Any], file: Path, folder: Path) -> Transfer:
    if connection["type"] == "s3":
        store = RemoteStore(S3Bucket(S3Connection.model_validate(connection)), folder)
    else:
        store = RemoteStore(AdlsBucket(AdlsConnection.model_validate(connection)), folder)
    store.check()

    def fill(writer: HashingWriter) -> None:
        with file.open("rb") as source:
            shutil.copyfileobj(source, writer, BLOCK)

    lake, place = Lake(store), Place("bench", "large", "bench.1.1", 1)
    if direction == "send":
        written = lake.write(place, NAME, fill)
        return lambda: lake.publish_written(written, NAME)
    return (lambda: lake.publish(place, NAME, fill)) if direction == "land" else (lambda: store.path(NAME))


def of_boto3(direction: str, connection: dict[str, Any], file: Path, folder: Path) -> Transfer:
    client: Any = boto3.client(
        "s3",
        endpoint_url=connection["endpoint_url"],
        aws_access_key_id=connection["access_key"],
        aws_secret_access_key=connection["secret_key"],
        region_name=connection["region"],
        config=Config(s3={"addressing_style": "path"}),
    )
    bucket = connection["bucket"]
    client.head_bucket(Bucket=bucket)

    def land() -> None:
        said = {"Metadata": {"sha256": _hashed_copy(file, folder / "landed")}}
        client.upload_file(str(folder / "landed"), bucket, NAME, ExtraArgs=said)

    return {
        "send": lambda: client.upload_file(str(file), bucket, NAME),
        "land": land,
        "fetch": lambda: client.download_file(bucket, NAME, str(folder / "fetched")),
    }[direction]


def of_azure(direction: str, connection: dict[str, Any], file: Path, folder: Path) -> Transfer:
    found = ADLS_URL.fullmatch(connection["url"])
    assert found is not None
    service = BlobServiceClient.from_connection_string(connection["connection_string"])
    blob = service.get_blob_client(found["container"], NAME)
    blob.exists()

    def send() -> None:
        with file.open("rb") as source:
            blob.upload_blob(source, max_concurrency=4, overwrite=True)

    def land() -> None:
        said = {"sha256": _hashed_copy(file, folder / "landed")}
        with (folder / "landed").open("rb") as source:
            blob.upload_blob(source, max_concurrency=4, metadata=said, overwrite=True)

    def fetch() -> None:
        with (folder / "fetched").open("wb") as copy:
            blob.download_blob(max_concurrency=4).readinto(copy)

    return {"send": send, "land": land, "fetch": fetch}[direction]


def _hashed_copy(file: Path, copy: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as source, copy.open("wb") as into:
        while block := source.read(BLOCK):
            digest.update(block)
            into.write(block)
    return digest.hexdigest()


VENDORS = {"s3": of_boto3, "adls": of_azure}


def main(who: str, direction: str, said: str, file: str, folder: str) -> None:
    connection = json.loads(said)
    made = of_ours if who == "ours" else VENDORS[connection["type"]]
    transfer = made(direction, connection, Path(file), Path(folder))
    # What was written before is none of it; ours has made a file by now where theirs has not.
    os.sync()
    began, worked = time.perf_counter(), time.process_time()
    transfer()
    print(json.dumps([time.perf_counter() - began, time.process_time() - worked]))


if __name__ == "__main__":
    main(*sys.argv[1:])
