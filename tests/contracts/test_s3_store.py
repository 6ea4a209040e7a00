"""A lake in S3 keeps the contract of stores, with a service that refuses taken names and with one that does not."""

import hashlib
import io
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from urllib3 import HTTPResponse

from ingestkit import steps
from ingestkit.errors import ConfigError, LakeError, ObjectExists
from ingestkit.lake import Lake, Landed, file_id_of
from ingestkit.ports import Store
from ingestkit.settings import S3Connection
from ingestkit.stores import s3 as s3_module
from ingestkit.stores.remote import RemoteStore
from ingestkit.stores.s3 import S3Bucket
from tests.certificates import certified
from tests.contracts.store import CONTENT, DIGEST, NAME, PLACE, StoreContract, killed, names, put, read
from tests.doubles.relay import Answer, Request, passed_on, served
from tests.faults.lakes import Bucket, Listing
from tests.faults.sights import watched
from tests.object_stores import S3Server, s3, s3_without_conditions

pytestmark = [pytest.mark.services, pytest.mark.slow]

LARGE = Random(1).randbytes(12_000_000)
PART = 5 * 2**20
OPENING = """
from pathlib import Path
from ingestkit.settings import S3Connection
from ingestkit.stores.remote import RemoteStore
from ingestkit.stores.s3 import S3Bucket
store = RemoteStore(S3Bucket(S3Connection.model_validate({said!r})), Path({folder!r}))
"""


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Server]:
    with s3() as server:
        yield server


@pytest.fixture(scope="module")
def rclone() -> Iterator[S3Server]:
    with s3_without_conditions() as server:
        yield server


@pytest.fixture
def said(moto: S3Server) -> dict[str, Any]:
    return said_of(moto)


def said_of(server: S3Server) -> dict[str, Any]:
    """A connection to a new bucket."""
    return {
        "bucket": server.bucket(),
        "prefix": "some/where/",
        "endpoint_url": server.endpoint,
        "path_style": True,
        "part_size": PART,
        "region": server.region,
        "access_key": server.access_key,
        "secret_key": server.secret_key,
    }


def handle(said: dict[str, Any], folder: Path) -> RemoteStore:
    return RemoteStore(S3Bucket(S3Connection.model_validate(said)), folder)


def as_aws(sent: list[AWSPreparedRequest], request: AWSPreparedRequest, **_: Any) -> AWSResponse:
    """What AWS would answer to an upload in parts. Nobody else takes so exactly what its parts are checked by."""
    sent.append(request)
    headers: Any = {}
    body = b""
    if request.url.endswith("?uploads"):
        body = b"<InitiateMultipartUploadResult><UploadId>U</UploadId></InitiateMultipartUploadResult>"
    elif "partNumber=" in request.url:
        headers = {"ETag": '"e"', "x-amz-checksum-crc32": "AAAAAA=="}
    elif request.method == "POST":
        body = b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
    return AWSResponse(request.url, 200, headers, HTTPResponse(io.BytesIO(body), preload_content=False))


class TestS3Store(StoreContract):
    early = False
    parts = True
    large = 3 * PART + 1

    @pytest.fixture
    def store(self, said: dict[str, Any], tmp_path: Path) -> Store:
        return handle(said, tmp_path / "one")

    @pytest.fixture
    def second(self, said: dict[str, Any], tmp_path: Path) -> Store:
        return handle(said, tmp_path / "two")

    def test_what_a_killed_check_left_is_removed_by_a_later_one_when_it_is_old(
        self, store: RemoteStore, moto: S3Server, said: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        left = "_inflight/_check/0123456789ab"
        moto.client().put_object(Bucket=said["bucket"], Key=f"some/where/{left}")
        store.check()
        assert list(store.inflight("_inflight/")) == [left]
        monkeypatch.setattr(s3_module, "FORGOTTEN", timedelta(days=-1))
        store.check()
        assert list(store.inflight("_inflight/")) == []

    def test_in_a_bucket_that_is_not_there_it_is_the_bucket_that_is_missed(
        self, said: dict[str, Any], tmp_path: Path
    ) -> None:
        store = handle({**said, "bucket": "nowhere-to-be-seen"}, tmp_path / "three")
        with pytest.raises(LakeError, match="s3://nowhere-to-be-seen/some/where does not exist"):
            read(store, NAME)

    @pytest.fixture
    def listing(self, moto: S3Server, said: dict[str, Any]) -> Listing:
        return Bucket(moto, said["bucket"], prefix=said["prefix"]).listing

    @pytest.fixture
    def opening(self, said: dict[str, Any], tmp_path: Path) -> str:
        return OPENING.format(said=said, folder=str(tmp_path / "three")).strip().replace("\n", "; ")

    def test_a_large_object_is_sent_in_parts_and_read_in_ranges(
        self, store: Store, second: Store, moto: S3Server, said: dict[str, Any]
    ) -> None:
        put(store, NAME, LARGE)
        assert read(second, NAME) == LARGE
        assert second.path(NAME).read_bytes() == LARGE
        assert second.sha256(NAME) == hashlib.sha256(LARGE).hexdigest()
        found = moto.client().head_object(Bucket=said["bucket"], Key=f"some/where/{NAME}")
        assert found["ETag"].endswith('-3"')
        assert list(second.inflight("_inflight/")) == []

    @pytest.mark.faults
    def test_parts_of_who_was_killed_are_voided_by_who_comes_next(
        self, store: Store, second: Store, opening: str, listing: Listing, moto: S3Server, said: dict[str, Any]
    ) -> None:
        child = f"{opening}; CONTENT = bytes(12_000_000)"
        killed(child, "store.sent", listing)
        assert names(second) == []
        assert len(list(second.inflight("_inflight/opendata/hcp/"))) == 1
        assert Lake(second).remove_inflight("opendata", "hcp", below=8) == 1
        assert list(second.inflight("_inflight/")) == []
        assert moto.client().list_multipart_uploads(Bucket=said["bucket"]).get("Uploads", []) == []

    def test_of_large_objects_of_one_name_the_first_stays(self, store: Store, second: Store) -> None:
        put(store, NAME, LARGE)
        with pytest.raises(ObjectExists, match=NAME):
            put(second, NAME, LARGE[::-1])
        assert read(second, NAME) == LARGE
        assert list(second.inflight("_inflight/")) == []

    def test_what_was_published_here_is_not_read_back(self, store: Store, second: Store) -> None:
        put(store, NAME, CONTENT)
        second.remove(NAME)
        assert store.path(NAME).read_bytes() == CONTENT
        assert read(store, NAME) == CONTENT
        store.let_go()
        with pytest.raises(LakeError, match=NAME):
            store.path(NAME)

    def test_a_part_of_an_object_is_read_where_it_is_asked_for(self, store: Store, second: Store) -> None:
        put(store, NAME, LARGE)
        with second.open(NAME) as file:
            file.seek(7_000_000)
            assert file.read(1000) == LARGE[7_000_000:7_001_000]
            file.seek(-10, 2)
            assert file.read() == LARGE[-10:]

    def test_what_others_made_in_the_bucket_is_no_object_and_stops_nobody(
        self, store: Store, moto: S3Server, said: dict[str, Any]
    ) -> None:
        strays = ("raw/opendata/hcp/", "_inflight/opendata/hcp/", f"{PLACE.inflight()}/1-hcp.csv")
        for name in strays:
            moto.client().put_object(Bucket=said["bucket"], Key=f"some/where/{name}", Body=b"\x00no mark")
        assert names(store) == []
        assert Lake(store).remove_inflight("opendata", "hcp", below=8) == 1
        assert list(store.inflight("_inflight/")) == []

    def test_a_copy_is_whole_or_is_none(
        self, store: Store, second: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(store, NAME, CONTENT)
        write = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda file, block, at: write(file, block[:1000], at))
        assert second.path(NAME).read_bytes() == CONTENT
        second.let_go()
        monkeypatch.setattr(os, "pwrite", lambda _file, block, _at: len(block))
        with pytest.raises(LakeError, match="otherwise than it was written"):
            second.path(NAME)
        assert [path for path in (tmp_path / "two").rglob("*") if path.is_file()] == []

    def test_an_upload_to_aws_says_at_its_beginning_and_end_what_its_parts_are_checked_by(
        self, said: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        bucket = S3Bucket(S3Connection.model_validate(said | {"endpoint_url": None, "part_size": PART}))
        sent: list[AWSPreparedRequest] = []
        bucket.client.meta.events.register("before-send.s3", partial(as_aws, sent))
        (tmp_path / "large").write_bytes(LARGE)
        bucket.put("_inflight/1/large", NAME, tmp_path / "large", hashlib.sha256(LARGE).hexdigest())
        _, begun, *parts, completed, _ = sent
        assert begun.headers["x-amz-checksum-algorithm"] == b"CRC32"
        assert len(parts) == 3
        assert {part.headers["x-amz-sdk-checksum-algorithm"] for part in parts} == {b"CRC32"}
        assert {part.headers["x-amz-trailer"] for part in parts} == {b"x-amz-checksum-crc32"}
        assert str(completed.body).count("<ChecksumCRC32>AAAAAA==</ChecksumCRC32>") == 3

    def test_only_the_connection_says_where_the_service_is(
        self, said: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
        bucket = S3Bucket(S3Connection.model_validate(said | {"endpoint_url": None}))
        assert bucket.client.meta.endpoint_url == "https://s3.eu-central-1.amazonaws.com"

    @pytest.mark.parametrize(
        ("wrong", "told"),
        [({"ca_file": "none.pem"}, "ca_file none.pem is not"), ({"endpoint_url": "http://:9"}, "http://:9")],
    )
    def test_a_connection_that_cannot_be_is_a_mistake_of_the_settings(
        self, said: dict[str, Any], tmp_path: Path, wrong: dict[str, Any], told: str
    ) -> None:
        with pytest.raises(ConfigError, match=told):
            handle(said | wrong, tmp_path).check()

    def test_of_a_region_that_cannot_be_the_region_is_to_be_looked_at(
        self, said: dict[str, Any], tmp_path: Path
    ) -> None:
        with pytest.raises(ConfigError) as refused:
            handle(said | {"region": "no where"}, tmp_path).check()
        assert "region" in str(refused.value.hint)

    def test_of_a_certificate_that_is_not_trusted_the_authority_is_to_be_looked_at(
        self, said: dict[str, Any], tmp_path: Path
    ) -> None:
        with (
            served(lambda _: None, certified(tmp_path).server()) as port,
            pytest.raises(LakeError, match="does not answer") as refused,
        ):
            handle(said | {"endpoint_url": f"https://127.0.0.1:{port}"}, tmp_path / "lake").check()
        assert "ca_file" in str(refused.value.hint)

    def test_the_hash_lies_with_the_object(self, store: Store, moto: S3Server, said: dict[str, Any]) -> None:
        put(store, NAME, CONTENT)
        found = moto.client().head_object(Bucket=said["bucket"], Key=f"some/where/{NAME}")
        assert found["Metadata"] == {"sha256": DIGEST}

    @pytest.mark.parametrize("content", [CONTENT, LARGE], ids=["whole", "parts"])
    def test_it_is_encrypted_there_as_the_connection_says(
        self, said: dict[str, Any], moto: S3Server, tmp_path: Path, content: bytes
    ) -> None:
        put(handle(said | {"sse": "aws:kms", "kms_key": "alias/lake"}, tmp_path), NAME, content)
        found = moto.client().head_object(Bucket=said["bucket"], Key=f"some/where/{NAME}")
        assert (found["ServerSideEncryption"], found["SSEKMSKeyId"]) == ("aws:kms", "alias/lake")

    def test_a_bucket_that_takes_nothing_without_the_condition_is_written_with_it(
        self, said: dict[str, Any], moto: S3Server, tmp_path: Path
    ) -> None:
        def answer(request: Request) -> Answer | None:
            if request.method == "PUT" and "partNumber" not in request.query and not request.header("If-None-Match"):
                return Answer(403, (("Content-Type", "application/xml"),), b"<Error><Code>AccessDenied</Code></Error>")
            return passed_on(request, moto.endpoint)

        with served(answer) as port:
            store = handle({**said, "endpoint_url": f"http://127.0.0.1:{port}"}, tmp_path / "three")
            store.check()
            put(store, NAME)
            put(store, f"{NAME}.large", LARGE)
            assert read(store, f"{NAME}.large") == LARGE

    def test_credentials_are_found_where_the_vendors_own_tools_find_them(
        self, said: dict[str, Any], moto: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bare = {name: value for name, value in said.items() if name not in {"access_key", "secret_key", "region"}}
        with pytest.raises(LakeError, match="Unable to locate credentials") as missing:
            handle(bare | {"region": moto.region}, tmp_path).check()
        assert missing.value.hint is not None
        for name, value in moto.environment.items():
            monkeypatch.setenv(name, value)
        handle(bare, tmp_path).check()


class TestEndpointThatIgnoresConditions:
    @pytest.fixture
    def said(self, rclone: S3Server) -> dict[str, Any]:
        return said_of(rclone) | {"prefix": ""}

    def test_it_is_found_out(self, said: dict[str, Any], moto: S3Server, tmp_path: Path) -> None:
        store = handle(said, tmp_path)
        store.check()
        assert not store.keeps_names
        assert names(store) == []
        assert list(store.inflight("_inflight/")) == []
        assert handle(said_of(moto), tmp_path).keeps_names

    @pytest.mark.parametrize("content", [CONTENT, LARGE])
    def test_a_taken_name_is_seen_before_it_is_written(
        self, said: dict[str, Any], tmp_path: Path, content: bytes
    ) -> None:
        one, other = handle(said, tmp_path / "one"), handle(said, tmp_path / "two")
        put(one, NAME, content)
        head = other.bucket.head(NAME)
        assert head is not None
        assert head.sha256 == hashlib.sha256(content).hexdigest()
        with pytest.raises(ObjectExists, match=NAME):
            put(other, NAME, b"other")
        assert read(other, NAME) == content

    def test_what_two_owners_land_has_a_name_of_each(
        self, said: dict[str, Any], moto: S3Server, tmp_path: Path
    ) -> None:
        lake = Lake(handle(said, tmp_path))
        first, second = (lake.raw_name("opendata", "hcp", "b1", "f1", "HCP.csv", token) for token in (7, 8))
        assert first != second
        assert {file_id_of(first), file_id_of(second)} == {"f1"}
        sure = Lake(handle(said_of(moto), tmp_path))
        assert sure.raw_name("opendata", "hcp", "b1", "f1", "HCP.csv", 7) == f"{first.rpartition('/')[0]}/f1-HCP.csv"

    def test_two_owners_who_land_a_file_at_once_both_keep_what_they_landed(
        self, said: dict[str, Any], rclone: S3Server, tmp_path: Path
    ) -> None:
        """One of them is only taken for dead: each goes by its own token, and reads back its own bytes."""
        contents = {token: str(token).encode() * 100_000 for token in (7, 8)}
        lakes = {token: Lake(handle(said, tmp_path / str(token))) for token in contents}
        together = threading.Barrier(2)
        assert not any(lake.store.keeps_names for lake in lakes.values())

        def land(attempt: int, token: int) -> Landed:
            name = lakes[token].raw_name("opendata", "hcp", "race", f"f{attempt}", "HCP.csv", token)
            place = replace(PLACE, token=token)
            together.wait(60)
            return lakes[token].publish(place, name, lambda into: cast("None", into.write(contents[token])))

        bucket = Bucket(rclone, said["bucket"], prefix="")
        with watched(bucket.listing, *contents.values()), ThreadPoolExecutor(2) as pool:
            for attempt in range(25):
                landed = dict(zip(contents, pool.map(partial(land, attempt), contents), strict=True))
                fresh = handle(said, tmp_path / "fresh")
                for token, one in landed.items():
                    assert not one.adopted
                    assert read(fresh, one.name) == contents[token]
                fresh.close()
        assert len(names(handle(said, tmp_path / "fresh"), "raw/")) == 50

    def test_who_is_taken_over_while_parts_are_sent_publishes_nothing(
        self, said: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store, second = handle(said, tmp_path / "one"), handle(said, tmp_path / "two")

        def take_over(step: str) -> None:
            if step == "store.sent":
                assert Lake(second).remove_inflight("opendata", "hcp", below=8) == 1

        monkeypatch.setattr(steps, "reached", take_over)
        with pytest.raises(LakeError, match="another owner"):
            put(store, NAME, LARGE)
        assert names(second) == []
        assert list(second.inflight("_inflight/")) == []
