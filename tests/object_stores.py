"""Object stores that tests speak to by their vendors' own clients: processes on loopback, ended with the test."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
import pytest
from azure.storage.blob import BlobServiceClient
from azure.storage.filedatalake import DataLakeServiceClient
from botocore.config import Config

from tests.certificates import Certified, certified
from tests.doubles.identity import Identity, identity
from tests.services import free_port

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from types_boto3_s3 import S3Client

DOUBLES = Path(__file__).parent / "doubles"
# Where `make azurite` puts it.
AZURITE = Path(__file__).parents[1] / ".azurite/node_modules/azurite/dist/src/blob/main.js"
REGION: Final = "eu-central-1"
FOREIGN = ("COVERAGE_", "AWS_", "AZURE_", "RCLONE_", "MOTO_")


@dataclass(frozen=True, slots=True)
class S3Server:
    """Where an S3 server answers, and with which keys; its names go behind the address, not before it."""

    endpoint: str
    access_key: str = "AKIAIOSFODNN7EXAMPLE"
    secret_key: str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    region: str = REGION

    @property
    def port(self) -> int:
        return int(self.endpoint.rpartition(":")[2])

    @property
    def environment(self) -> dict[str, str]:
        """What the standard chain of credentials finds in the environment of a process."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, **more: Any) -> "S3Client":
        """The vendor's client, unmodified; more is said to its configuration."""
        config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}).merge(Config(**more))
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=config,
        )

    def bucket(self) -> str:
        """A new bucket, which nobody else knows."""
        name = f"lake-{uuid.uuid4().hex}"
        client = self.client()
        client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        client.close()
        return name

    def connection(self) -> dict[str, Any]:
        """What settings say of a lake in a new bucket."""
        keys = {"access_key": self.access_key, "secret_key": self.secret_key, "region": self.region}
        return {"type": "s3", "bucket": self.bucket(), "endpoint_url": self.endpoint, "path_style": True, **keys}


@contextmanager
def s3() -> Iterator[S3Server]:
    """A new moto, which keeps conditions of writes and does not look who signs; it is gone afterwards."""
    port = free_port()
    command = [sys.executable, str(DOUBLES / "s3.py"), str(port)]
    with _running(command, port):
        yield S3Server(f"http://127.0.0.1:{port}")


@contextmanager
def s3_without_conditions() -> Iterator[S3Server]:
    """A new rclone, which checks signatures, and writes over what is there whatever a condition says."""
    program = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
    if program is None:
        pytest.skip("rclone is not installed")
    port = free_port()
    server = S3Server(f"http://127.0.0.1:{port}")
    with tempfile.TemporaryDirectory(prefix="ingestkit-rclone-") as folder:
        command = [program, "serve", "s3", "--config", "", "--addr", f"127.0.0.1:{port}"]
        with _running([*command, "--auth-key", f"{server.access_key},{server.secret_key}", folder], port):
            yield server


@dataclass(frozen=True, slots=True)
class AzureServer:
    """Where an Azure storage account answers, and its key; over https also whom to trust, and who this machine is."""

    endpoint: str
    signed: Certified | None = None
    identity: Identity | None = None
    account: str = "devstoreaccount1"
    # The one that every Azurite has.
    key: str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    @property
    def connection_string(self) -> str:
        said = {
            "DefaultEndpointsProtocol": self.endpoint.partition(":")[0],
            "AccountName": self.account,
            "AccountKey": self.key,
            "BlobEndpoint": self.endpoint,
            "DfsEndpoint": self.endpoint,
        }
        return ";".join(f"{name}={value}" for name, value in said.items())

    @property
    def environment(self) -> dict[str, str]:
        """What the standard chain of credentials finds in a process's environment on a machine with an identity."""
        return {**(self.identity.environment if self.identity else {}), **self.trust}

    @property
    def trust(self) -> dict[str, str]:
        """Whom to trust, as whoever checks certificates finds it there."""
        return (
            dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), str(self.signed.certificate)) if self.signed else {}
        )

    def service(self, credential: "TokenCredential | str | None" = None) -> BlobServiceClient:
        """The vendor's client, unmodified, by the account's key unless something else is said."""
        return BlobServiceClient(self.endpoint, credential=credential or self.key, **self._options())

    def lake(self, credential: "TokenCredential | str | None" = None) -> DataLakeServiceClient:
        """The same for folders and renames, where something that has them stands in front."""
        return DataLakeServiceClient(self.endpoint, credential=credential or self.key, **self._options())

    def container(self) -> str:
        """A new container, which nobody else knows."""
        name = f"lake-{uuid.uuid4().hex}"
        with self.service() as service, service.create_container(name):
            return name

    def connection(self) -> dict[str, Any]:
        """What settings say of a lake in a new container."""
        url = f"abfss://{self.container()}@{self.account}.dfs.core.windows.net"
        return {"type": "adls", "url": url, "connection_string": self.connection_string}

    def _options(self) -> dict[str, Any]:
        trusting = {"connection_verify": str(self.signed.certificate)} if self.signed else {}
        return {"retry_total": 0, **trusting}


@contextmanager
def azurite() -> Iterator[AzureServer]:
    """A new account that is asked by its key; it is gone afterwards."""
    with _azurite() as port:
        yield AzureServer(f"http://127.0.0.1:{port}/devstoreaccount1")


@contextmanager
def azurite_with_identity() -> Iterator[AzureServer]:
    """The same over https, where who says by a token who it is is let in too."""
    with tempfile.TemporaryDirectory(prefix="ingestkit-azurite-") as name:
        signed = certified(Path(name))
        secured = ("--oauth", "basic", "--cert", str(signed.certificate), "--key", str(signed.key))
        with identity(signed) as mine, _azurite(*secured) as port:
            yield AzureServer(f"https://127.0.0.1:{port}/devstoreaccount1", signed, mine)


@contextmanager
def _azurite(*more: str) -> Iterator[int]:
    node = shutil.which("node")
    if node is None or not AZURITE.exists():
        pytest.skip("Azurite is not installed: make azurite")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="ingestkit-azurite-") as folder:
        command = [node, str(AZURITE), "--location", folder, "--blobHost", "127.0.0.1", "--blobPort", str(port)]
        # The libraries are newer than it is; what they say has not changed.
        with _running([*command, "--silent", "--disableTelemetry", "--skipApiVersionCheck", *more], port):
            yield port


@contextmanager
def _running(command: Sequence[str], port: int, **environment: str) -> Iterator[None]:
    """A process that answers at a port; what it says is kept for whoever has to find out why it does not."""
    # What is not ours is not measured, and takes no settings of whoever runs the tests.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**kept, **environment}
        )
        try:
            until = time.monotonic() + 60
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    raise AssertionError(log.read().decode())
                time.sleep(0.02)
            yield
        finally:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
