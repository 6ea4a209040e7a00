"""What object stores beside the tests keep and do not keep, seen by the vendors' own clients."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from azure.core import MatchConditions
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceExistsError
from azure.identity import DefaultAzureCredential, ManagedIdentityCredential
from azure.storage.blob import BlobBlock, BlobServiceClient
from botocore.exceptions import ClientError

from tests.doubles.identity import Identity
from tests.object_stores import AzureServer, S3Server, azurite, azurite_with_identity, s3, s3_without_conditions

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


@pytest.fixture(scope="module")
def by_key() -> Iterator[AzureServer]:
    with azurite() as server:
        yield server


@pytest.fixture(scope="module")
def by_token() -> Iterator[AzureServer]:
    with azurite_with_identity() as server:
        yield server


@pytest.fixture
def machine(by_token: AzureServer, monkeypatch: pytest.MonkeyPatch) -> Identity:
    """The identity of this machine, as the clouds' own libraries find it."""
    for name, value in by_token.environment.items():
        monkeypatch.setenv(name, value)
    assert by_token.identity
    monkeypatch.setattr(by_token.identity, "audience", None)
    monkeypatch.setattr(by_token.identity, "lifetime", 3600.0)
    return by_token.identity


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


def test_azurite_commits_blocks_of_a_name_once(by_key: AzureServer) -> None:
    with BlobServiceClient.from_connection_string(by_key.connection_string, retry_total=0) as service:
        blob = service.get_blob_client(by_key.container(), "name")
        blob.stage_block("MQ==", b"first")
        assert not blob.exists()
        blob.commit_block_list([BlobBlock("MQ==")], match_condition=MatchConditions.IfMissing)
        blob.stage_block("MQ==", b"second")
        with pytest.raises(ResourceExistsError) as refused:
            blob.commit_block_list([BlobBlock("MQ==")], match_condition=MatchConditions.IfMissing)
        assert refused.value.status_code == 409
        assert blob.download_blob().readall() == b"first"


def test_azurite_refuses_another_key(by_key: AzureServer) -> None:
    with replace(by_key, key="bm90IGl0").service() as service, pytest.raises(HttpResponseError) as refused:
        list(service.list_containers())
    assert refused.value.status_code == 403


@pytest.mark.parametrize("kind", [DefaultAzureCredential, ManagedIdentityCredential])
def test_the_identity_of_a_machine_is_let_in(
    by_token: AzureServer, machine: Identity, kind: type[DefaultAzureCredential | ManagedIdentityCredential]
) -> None:
    container = by_token.container()
    with kind() as credential, BlobServiceClient(by_token.endpoint, credential=credential, retry_total=0) as service:
        service.get_blob_client(container, "name").upload_blob(b"content")
        assert service.get_blob_client(container, "name").download_blob().readall() == b"content"
    assert set(machine.asked) == {"https://storage.azure.com"}


@pytest.mark.parametrize("kind", ["principal", "workload"])
def test_who_is_known_to_entra_is_let_in_and_who_knows_another_secret_is_not(
    by_token: AzureServer, machine: Identity, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IDENTITY_ENDPOINT")
    said = machine.principal if kind == "principal" else machine.workload(tmp_path)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with DefaultAzureCredential() as credential, by_token.service(credential) as service:
        list(service.list_containers())
    monkeypatch.setattr(machine, "secret", "another")
    with (
        DefaultAzureCredential() as credential,
        by_token.service(credential) as service,
        pytest.raises(ClientAuthenticationError, match="Invalid client secret"),
    ):
        list(service.list_containers())


def refused_by_token(server: AzureServer) -> str:
    with (
        ManagedIdentityCredential() as credential,
        server.service(credential) as service,
        pytest.raises(ClientAuthenticationError) as refused,
    ):
        list(service.list_containers())
    return str(refused.value)


def test_a_token_for_another_audience_is_refused(by_token: AzureServer, machine: Identity) -> None:
    machine.audience = "https://vault.azure.net"
    assert "audience" in refused_by_token(by_token)


def test_a_token_that_has_run_out_is_refused(by_token: AzureServer, machine: Identity) -> None:
    machine.lifetime = -1
    assert "expired" in refused_by_token(by_token)


def test_a_machine_without_the_identity_gets_no_token(
    by_token: AzureServer, machine: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "refuses", True)
    with ManagedIdentityCredential() as credential, pytest.raises(ClientAuthenticationError):
        credential.get_token("https://storage.azure.com/.default")


def test_who_does_not_know_the_secret_of_the_platform_gets_no_token(
    machine: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDENTITY_HEADER", "another")
    with ManagedIdentityCredential() as credential, pytest.raises(ClientAuthenticationError):
        credential.get_token("https://storage.azure.com/.default")
