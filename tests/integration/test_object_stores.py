"""What object stores beside the tests keep and do not keep, seen by the vendors' own clients."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.object_stores import S3Server, s3, s3_without_conditions

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Server]:
    with s3() as server:
        yield server


@pytest.fixture(scope="module")
def rclone() -> Iterator[S3Server]:
    with s3_without_conditions() as server:
        yield server


def code(refused: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    answer = refused.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


def content(client: "S3Client", bucket: str, key: str) -> bytes:
    return client.get_object(Bucket=bucket, Key=key)["Body"].read()


def upload(client: "S3Client", bucket: str, key: str, part: bytes) -> Callable[[], object]:
    """An upload in parts that only has to be completed, on the condition that the name is free."""
    begun = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    sent = client.upload_part(Bucket=bucket, Key=key, UploadId=begun, PartNumber=1, Body=part)
    return partial(
        client.complete_multipart_upload,
        Bucket=bucket,
        Key=key,
        UploadId=begun,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": sent["ETag"]}]},
        IfNoneMatch="*",
    )


def test_each_bucket_is_new_and_empty(moto: S3Server) -> None:
    client = moto.client()
    first, second = moto.bucket(), moto.bucket()
    client.put_object(Bucket=first, Key="name", Body=b"content")
    assert client.list_objects_v2(Bucket=second)["KeyCount"] == 0


def test_moto_refuses_a_put_on_a_name_that_is_taken(moto: S3Server) -> None:
    client, bucket = moto.client(), moto.bucket()
    client.put_object(Bucket=bucket, Key="name", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=bucket, Key="name", Body=b"second", IfNoneMatch="*")
    assert code(refused) == ("PreconditionFailed", 412)
    assert content(client, bucket, "name") == b"first"


def test_moto_refuses_to_complete_an_upload_on_a_name_that_was_taken_meanwhile(moto: S3Server) -> None:
    client, bucket = moto.client(), moto.bucket()
    complete = upload(client, bucket, "name", b"second")
    client.put_object(Bucket=bucket, Key="name", Body=b"first")
    with pytest.raises(ClientError) as refused:
        complete()
    assert code(refused) == ("PreconditionFailed", 412)
    assert content(client, bucket, "name") == b"first"


def test_of_writers_who_complete_one_name_at_once_one_wins(moto: S3Server) -> None:
    client, bucket = moto.client(), moto.bucket()
    # Large enough that putting together takes a while, in which others are let in by a server that does not look again.
    waiting = [upload(client, bucket, "name", bytes([number]) * (8 << 20)) for number in range(4)]

    def completed(complete: Callable[[], object]) -> int:
        try:
            complete()
        except ClientError as refused:
            return refused.response["ResponseMetadata"]["HTTPStatusCode"]
        return 200

    with ThreadPoolExecutor(4) as writers:
        assert sorted(writers.map(completed, waiting)) == [200, 412, 412, 412]


def test_rclone_writes_over_a_name_whatever_the_condition(rclone: S3Server) -> None:
    client, bucket = rclone.client(), rclone.bucket()
    client.put_object(Bucket=bucket, Key="name", Body=b"first", IfNoneMatch="*")
    client.put_object(Bucket=bucket, Key="name", Body=b"second", IfNoneMatch="*")
    assert content(client, bucket, "name") == b"second"
    upload(client, bucket, "name", b"third")()
    assert content(client, bucket, "name") == b"third"


def test_rclone_refuses_a_signature_by_another_key(rclone: S3Server) -> None:
    bucket = rclone.bucket()
    with pytest.raises(ClientError) as refused:
        replace(rclone, secret_key="another").client().list_objects_v2(Bucket=bucket)
    assert code(refused) == ("SignatureDoesNotMatch", 403)


def test_the_standard_chain_of_credentials_finds_a_server_s_keys(
    moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto.environment.items():
        monkeypatch.setenv(name, value)
    client = boto3.Session().client("s3", endpoint_url=moto.endpoint)
    bucket = moto.bucket()
    assert bucket in [one["Name"] for one in client.list_buckets()["Buckets"]]
