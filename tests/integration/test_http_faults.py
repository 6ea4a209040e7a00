"""What breaks before a cloud's endpoint, as the vendors' own clients meet it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ServiceResponseError
from botocore.exceptions import ClientError, ConnectionClosedError

from tests.doubles.httpfaults import (
    ACCESS_DENIED,
    ANSWER_LOST,
    CLOCK_SKEWED,
    CONFLICT,
    EXPIRED_TOKEN,
    INTERNAL_ERROR,
    NEVER_ARRIVES,
    SERVER_BUSY,
    SLOW_DOWN,
    FaultyServer,
    Meanwhile,
    Said,
    faulty,
)
from tests.object_stores import AzureServer, S3Server, azurite, azurite_with_identity, s3_without_conditions

Account = Callable[[], AbstractContextManager[AzureServer]]
REFUSALS = (SLOW_DOWN, INTERNAL_ERROR, EXPIRED_TOKEN, ACCESS_DENIED, CLOCK_SKEWED, CONFLICT)

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def behind() -> Iterator[S3Server]:
    """One that checks signatures, as moto does not."""
    with s3_without_conditions() as server:
        yield server


@pytest.fixture
def proxy(behind: S3Server) -> Iterator[FaultyServer]:
    with faulty(behind.endpoint) as server:
        yield server


@pytest.fixture
def server(behind: S3Server, proxy: FaultyServer) -> S3Server:
    return replace(behind, endpoint=proxy.endpoint)


@pytest.fixture
def bucket(behind: S3Server) -> str:
    return behind.bucket()


def keys(server: S3Server, bucket: str) -> list[str]:
    return [one["Key"] for one in server.client().list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_what_is_not_broken_passes_as_it_came(
    behind: S3Server, server: S3Server, proxy: FaultyServer, bucket: str
) -> None:
    # rclone tells the sum of a whole object with a part of it too.
    client = server.client(response_checksum_validation="when_required")
    client.put_object(Bucket=bucket, Key="a name +%20ü", Body=b"content", Metadata={"sha256": "of it"})
    head = client.head_object(Bucket=bucket, Key="a name +%20ü")
    same = behind.client().head_object(Bucket=bucket, Key="a name +%20ü")
    assert (head["ContentLength"], head["ETag"], head["Metadata"]) == (7, same["ETag"], same["Metadata"])
    ranged = client.get_object(Bucket=bucket, Key="a name +%20ü", Range="bytes=3-")
    assert ranged["Body"].read() == b"tent"
    assert keys(server, bucket) == ["a name +%20ü"]
    assert [one.split()[0] for one in proxy.seen] == ["PUT", "HEAD", "GET", "GET"]
    assert proxy.broken == 0


@pytest.mark.parametrize(
    "said",
    [SLOW_DOWN, INTERNAL_ERROR, EXPIRED_TOKEN, ACCESS_DENIED, CLOCK_SKEWED, CONFLICT],
    ids=lambda said: said.code,
)
def test_a_refusal_is_worded_as_s3_does_and_nothing_is_done(
    server: S3Server, proxy: FaultyServer, bucket: str, said: Said
) -> None:
    proxy.breaks(said, "PUT", "/name$")
    with pytest.raises(ClientError) as refused:
        server.client().put_object(Bucket=bucket, Key="name", Body=b"content")
    answer = refused.value.response
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (said.code, said.status)
    assert keys(server, bucket) == []
    server.client().put_object(Bucket=bucket, Key="name", Body=b"content")
    assert keys(server, bucket) == ["name"]


def test_a_request_without_a_body_to_its_answer_is_refused_by_status(
    server: S3Server, proxy: FaultyServer, bucket: str
) -> None:
    proxy.breaks(ACCESS_DENIED, "HEAD")
    with pytest.raises(ClientError) as refused:
        server.client().head_object(Bucket=bucket, Key="name")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_a_request_that_never_arrives_does_nothing(server: S3Server, proxy: FaultyServer, bucket: str) -> None:
    proxy.breaks(NEVER_ARRIVES, "PUT")
    with pytest.raises(ConnectionClosedError):
        server.client().put_object(Bucket=bucket, Key="name", Body=b"content")
    assert keys(server, bucket) == []


def test_a_request_whose_answer_is_lost_was_done(server: S3Server, proxy: FaultyServer, bucket: str) -> None:
    proxy.breaks(ANSWER_LOST, "PUT")
    with pytest.raises(ConnectionClosedError):
        server.client().put_object(Bucket=bucket, Key="name", Body=b"content")
    assert keys(server, bucket) == ["name"]


def test_a_server_may_refuse_after_it_did_what_it_was_asked_for(
    server: S3Server, proxy: FaultyServer, bucket: str
) -> None:
    proxy.breaks(replace(INTERNAL_ERROR, done=True), "PUT")
    with pytest.raises(ClientError, match="InternalError"):
        server.client().put_object(Bucket=bucket, Key="name", Body=b"content")
    assert keys(server, bucket) == ["name"]


def test_the_vendor_s_client_gets_over_what_passes(behind: S3Server, proxy: FaultyServer, bucket: str) -> None:
    client = replace(behind, endpoint=proxy.endpoint).client(retries={"total_max_attempts": 3})
    proxy.breaks(ANSWER_LOST, "PUT")
    proxy.breaks(INTERNAL_ERROR, "PUT")
    client.put_object(Bucket=bucket, Key="name", Body=b"content")
    assert [one for one in proxy.seen if one.startswith("PUT")] == [f"PUT /{bucket}/name"] * 3


def test_some_are_spared_and_so_many_are_broken(server: S3Server, proxy: FaultyServer, bucket: str) -> None:
    client = server.client()
    proxy.breaks(SLOW_DOWN, "PUT", r"/part-\d", spared=1, times=2)
    done = []
    for number in range(5):
        try:
            client.put_object(Bucket=bucket, Key=f"part-{number}", Body=b"content")
        except ClientError:
            continue
        done.append(number)
    assert done == [0, 3, 4]
    assert proxy.broken == 2


def test_a_fault_may_last_until_it_is_healed(server: S3Server, proxy: FaultyServer, bucket: str) -> None:
    client = server.client()
    proxy.breaks(SLOW_DOWN, times=None)
    for _ in range(3):
        with pytest.raises(ClientError, match="SlowDown"):
            client.list_objects_v2(Bucket=bucket)
    proxy.heals()
    client.list_objects_v2(Bucket=bucket)


def test_another_may_act_before_a_request_is_passed_on(
    behind: S3Server, server: S3Server, proxy: FaultyServer, bucket: str
) -> None:
    def rival() -> None:
        behind.client().put_object(Bucket=bucket, Key="rival", Body=b"content")

    proxy.breaks(Meanwhile(rival), "GET")
    assert keys(server, bucket) == ["rival"]


def test_one_request_that_waits_keeps_no_other_waiting(server: S3Server, proxy: FaultyServer, bucket: str) -> None:
    released = threading.Event()
    proxy.breaks(Meanwhile(lambda: released.wait(60)), "PUT", "/slow")
    slow = threading.Thread(target=server.client().put_object, kwargs={"Bucket": bucket, "Key": "slow", "Body": b""})
    slow.start()
    try:
        server.client().put_object(Bucket=bucket, Key="quick", Body=b"")
        assert keys(server, bucket) == ["quick"]
    finally:
        released.set()
        slow.join()
    assert keys(server, bucket) == ["quick", "slow"]


def test_a_server_that_is_gone_is_a_connection_that_is_cut() -> None:
    with s3_without_conditions() as behind:
        gone = behind
    with faulty(gone.endpoint) as proxy, pytest.raises(ConnectionClosedError):
        replace(gone, endpoint=proxy.endpoint).client().list_buckets()


def uploaded(server: AzureServer, container: str) -> list[str]:
    with server.service() as service, service.get_container_client(container) as client:
        return [blob.name for blob in client.list_blobs()]


@pytest.mark.parametrize("start", [azurite, azurite_with_identity])
def test_azure_s_client_meets_the_same_over_http_and_https(
    start: Account,
) -> None:
    with start() as behind, faulty(behind.endpoint, behind.signed) as proxy:
        container = behind.container()
        server = replace(behind, endpoint=proxy.endpoint)
        with server.service() as service:
            blob = service.get_blob_client(container, "a name")
            proxy.breaks(SERVER_BUSY, "PUT", "/a%20name")
            with pytest.raises(HttpResponseError) as refused:
                blob.upload_blob(b"content")
            assert refused.value.status_code == 503
            assert "ErrorCode:ServerBusy" in str(refused.value)
            proxy.breaks(NEVER_ARRIVES, "PUT")
            with pytest.raises(ServiceResponseError):
                blob.upload_blob(b"content")
            assert uploaded(behind, container) == []
            proxy.breaks(ANSWER_LOST, "PUT")
            with pytest.raises(ServiceResponseError):
                blob.upload_blob(b"content")
            assert uploaded(behind, container) == ["a name"]
            with pytest.raises(ResourceExistsError):
                blob.upload_blob(b"content")
