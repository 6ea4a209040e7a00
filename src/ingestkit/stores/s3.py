"""A lake in a bucket of S3, or of what speaks like it."""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    InvalidConfigError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as NoConnection
from urllib3.exceptions import HTTPError

from ingestkit import steps
from ingestkit.errors import ConfigError, LakeError, ObjectExists
from ingestkit.files import shown
from ingestkit.pipeline import Stop
from ingestkit.ports import Stored
from ingestkit.settings import S3Connection
from ingestkit.stores import names
from ingestkit.stores.remote import (
    AGAIN,
    OTHERS,
    SENT_AT_ONCE,
    Head,
    RemoteStore,
    Turns,
    gone,
    overwritten,
    sent_side_by_side,
    taken_over,
)

PARTS = 10_000
CONFLICTS = 5
"""How often an object is sent again because another request for its name was under way."""
PROBES, PROBE = f"{names.INFLIGHT}/_check", b"ingestkit"
FORGOTTEN = timedelta(hours=1)
PIECE = 256 * 1024
"""So much is read of an answer at once; behind a cut what is missing of it comes again."""
LONGEST_MARK = 64 * 1024

SETTINGS = "see what its connection says, and docs/lakes.md"
NETWORK = "look at network, region and endpoint_url of the connection"
CERTIFICATES = "look at ca_file of the connection, and at the certificate that endpoint_url shows"

# By the service's code: what is the matter, what helps, and whether trying again may.
TROUBLES: dict[str, tuple[str, str, bool]] = {
    "NoSuchBucket": ("does not exist", "have the bucket made, or name another as `bucket` of the connection", False),
    "AccessDenied": ("does not allow it", "grant what docs/lakes.md lists to these credentials", False),
    "InvalidAccessKeyId": (
        "does not know these credentials",
        "aws sts get-caller-identity shows whose they are",
        False,
    ),
    "SignatureDoesNotMatch": ("does not take these credentials", "look at the secret key", False),
    "ExpiredToken": ("says that the credentials have expired", "renew them, then run again", True),
    "RequestTimeTooSkewed": ("says that this machine's clock is wrong", "set the clock, then run again", True),
    "SlowDown": ("is asked too much", "run again", True),
    "PermanentRedirect": ("is in another region", "name it as `region` of the connection", False),
    "InvalidObjectState": ("has archived it", "have it restored, and see docs/lakes.md for rules that archive", False),
}
CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    SSOError,
    InvalidConfigError,
)
"""What is told where none are found, or whoever gives them out does not."""
KEYS = "KMS."
"""What the codes of whoever keeps the keys begin with."""
NO_SUCH_WORD = {"NotImplemented", "501"}
ALIASES = {
    "InvalidToken": "InvalidAccessKeyId",
    "403": "AccessDenied",
    "Forbidden": "AccessDenied",
    "AllAccessDisabled": "AccessDenied",
    "ExpiredTokenException": "ExpiredToken",
    "TokenRefreshRequired": "ExpiredToken",
    "RequestExpired": "ExpiredToken",
    "ServiceUnavailable": "SlowDown",
    "Throttling": "SlowDown",
    "RequestLimitExceeded": "SlowDown",
    "TooManyRequests": "SlowDown",
    "429": "SlowDown",
    "RequestTimeout": "SlowDown",
    "301": "PermanentRedirect",
    "AuthorizationHeaderMalformed": "PermanentRedirect",
}
TAKEN = {"PreconditionFailed", "412"}
CONFLICT = {"ConditionalRequestConflict", "409", "OperationAborted"}
MISSING = {"NoSuchKey", "404", "NotFound"}
GIVEN_UP = "NoSuchUpload"
CHECKSUM = "ChecksumCRC32"


def opened(*, connection: S3Connection, root: Path, scratch: Path, stop: Stop) -> RemoteStore:
    """The lake of a connection whose references are resolved; nothing is asked of it yet."""
    vouching = None if connection.ca_file is None else root / connection.ca_file
    bucket = S3Bucket(connection.model_copy(update={"ca_file": vouching}), Turns(stop))
    return RemoteStore(bucket, scratch / "lake", stop)


@dataclass
class S3Bucket:
    """Not frozen: its client is made at the first question, and what the endpoint keeps to is learnt once."""

    connection: S3Connection = field(repr=False)
    turns: Turns = field(default_factory=Turns, repr=False)

    @property
    def place(self) -> str:
        return f"s3://{self.connection.bucket}/{self.connection.prefix}".rstrip("/")

    def check(self) -> None:
        with self.translated("checking it"), self._probe(**self._if_absent()) as name:
            probes = {one.name: one.at for one in self.list(f"{PROBES}/")}
            self.client.get_object(**self._named(name))["Body"].read()
            # The right to void what a killed process has begun to send is missed only behind a kill.
            self._void({**self._named(name), "UploadId": self._begun(name)})
            self._void_uploads(name)
            for other, at in probes.items():
                # Left by a process that was killed; the service's own clock tells.
                if name in probes and probes[name] - at > FORGOTTEN:
                    self.client.delete_object(**self._named(other))
        self.keeps_names()

    @contextmanager
    def _probe(self, **condition: str) -> Iterator[str]:
        """An object that is gone behind it, whatever fails."""
        name = f"{PROBES}/{secrets.token_hex(6)}"
        # Nobody else takes such a name: where it is taken, an answer to ours was lost.
        with _unless(*TAKEN):
            self.client.put_object(**self._named(name), Body=PROBE, **self._sealed(), **condition)
        try:
            yield name
        finally:
            self.client.delete_object(**self._named(name))

    def keeps_names(self) -> bool:
        return self._refuses_taken

    def put(self, inflight: str, name: str, file: Path, sha256: str) -> None:
        size = file.stat().st_size
        if not self._refuses_taken and self.head(name) is not None:
            raise self._exists(name)
        with self.translated(f"publishing {shown(name)}"):
            for _ in range(CONFLICTS):
                # Of two requests for a name one is told to come again. What was sent in parts is void then.
                with suppress(_Conflict):
                    if size <= self.connection.part_size:
                        self._send_whole(name, file, sha256)
                    else:
                        self._send_parts(inflight, name, file, size, sha256)
                    return
        told = f"lake {self.place} is asked for {shown(name)} by others again and again"
        raise LakeError(told, hint=OTHERS, transient=True)

    def head(self, name: str) -> Head | None:
        with self.translated(f"looking at {shown(name)}"):
            try:
                found = self.client.head_object(**self._named(name))
            except ClientError as error:
                if error_code(error) in MISSING:
                    return None
                if error_code(error).isdigit():
                    # An answer without a body has a number for a reason; one with a body says it.
                    with _unless(*MISSING):
                        self.client.get_object(**self._named(name), Range="bytes=0-0")
                raise
        stored = Stored(name, found["ContentLength"], found["LastModified"])
        # Some services write the names of metadata their own way.
        told = {key.lower(): value for key, value in found["Metadata"].items()}
        return Head(stored, told.get("sha256"), found["ETag"])

    def read(self, name: str, tag: str, start: int, behind: int) -> "S3Body":
        with self.translated(f"reading {shown(name)}"):
            try:
                answer = self.client.get_object(**self._named(name), Range=f"bytes={start}-{behind - 1}", IfMatch=tag)
            except ClientError as error:
                if error_code(error) in MISSING:
                    raise gone(self.place, name) from error
                if error_code(error) in TAKEN:
                    raise overwritten(self.place, name) from error
                raise
        if answer["ETag"] != tag:
            # Some services take the condition and do not keep to it.
            raise overwritten(self.place, name)
        if not answer.get("ContentRange", "").startswith(f"bytes {start}-"):
            raise LakeError(
                f"lake {self.place} answers with other bytes of {shown(name)} than it is asked for",
                hint="it, or a proxy before it, does not know ranges: look at endpoint_url of the connection",
            )
        return S3Body(self, name, answer["Body"])

    def list(self, prefix: str) -> Iterator[Stored]:
        pages = self.client.get_paginator("list_objects_v2")
        asked = pages.paginate(Bucket=self.connection.bucket, Prefix=self.connection.prefix + prefix)
        answers = iter(asked)
        while True:
            with self.translated(f"listing {shown(prefix) or 'it'}"):
                page = next(answers, None)
            if page is None:
                return
            for one in page.get("Contents", ()):
                yield Stored(one["Key"].removeprefix(self.connection.prefix), one["Size"], one["LastModified"])

    def delete(self, name: str) -> None:
        with self.translated(f"removing {shown(name)}"):
            self.client.delete_object(**self._named(name))

    def let_go(self, inflight: str) -> None:
        """Void the uploads of the object that the mark speaks of, whoever goes on with them."""
        with self.translated(f"removing {shown(inflight)}"):
            try:
                mark = self.client.get_object(**self._named(inflight))["Body"].read(LONGEST_MARK)
            except ClientError as error:
                if error_code(error) in MISSING:
                    return
                raise
            # What others have put there is no mark, and of no upload.
            with suppress(ValueError, KeyError, TypeError):
                self._void_uploads(json.loads(mark)["name"])
            self.client.delete_object(**self._named(inflight))

    def _send_whole(self, name: str, file: Path, sha256: str) -> None:
        with file.open("rb") as body, self._conditional(name):
            self.client.put_object(
                **self._named(name), Body=body, Metadata={"sha256": sha256}, **self._sealed(), **self._if_absent()
            )

    def _send_parts(self, inflight: str, name: str, file: Path, size: int, sha256: str) -> None:
        """What is under way has a mark, by which a later owner finds and voids it."""
        part = max(self.connection.part_size, -(-size // PARTS))
        mark = json.dumps({"name": name}).encode()
        with suppress(ObjectExists), self._conditional(name):
            self.client.put_object(**self._named(inflight), Body=mark, **self._sealed(), **self._if_absent())
        upload: dict[str, Any] = self._named(name)

        def send(number: int) -> Mapping[str, Any]:
            with file.open("rb") as body:
                body.seek((number - 1) * part)
                content = body.read(part)
            with self._conditional(name):
                answer = self.client.upload_part(**upload, PartNumber=number, Body=content, **self._checked())
            # What a part was checked by is asked for again with the last request.
            checked = {CHECKSUM: answer[CHECKSUM]} if CHECKSUM in answer else {}
            return {"PartNumber": number, "ETag": answer["ETag"], **checked}

        try:
            upload["UploadId"] = self._begun(name, Metadata={"sha256": sha256})
            sent = sent_side_by_side(size, part, send, self.turns)
            steps.reached("store.sent")
            with self._conditional(name, sha256):
                self.client.complete_multipart_upload(**upload, MultipartUpload={"Parts": sent}, **self._if_absent())
        except BaseException:
            # The first error counts. Where voiding fails too, who comes next finds the mark.
            with suppress(ClientError, BotoCoreError):
                if "UploadId" in upload:
                    self._void(upload)
                self.client.delete_object(**self._named(inflight))
            raise
        # It is published: a mark that stays is removed by who comes next.
        with suppress(ClientError, BotoCoreError):
            self.client.delete_object(**self._named(inflight))

    def _begun(self, name: str, **more: Any) -> str:
        """The id of an upload in parts."""
        said = {**self._named(name), **self._sealed(), **self._checked(), **more}
        return str(self.client.create_multipart_upload(**said)["UploadId"])

    def _checked(self) -> dict[str, str]:
        """AWS takes parts with a checksum only of an upload that was begun with it; others may know none."""
        return {"ChecksumAlgorithm": "CRC32"} if self.connection.endpoint_url is None else {}

    def _void(self, upload: Mapping[str, Any]) -> None:
        with _unless(GIVEN_UP):
            self.client.abort_multipart_upload(**upload)

    def _void_uploads(self, name: str) -> None:
        named, pages = self._named(name), self.client.get_paginator("list_multipart_uploads")
        with _unless(GIVEN_UP):
            for page in pages.paginate(Bucket=named["Bucket"], Prefix=named["Key"]):
                for one in page.get("Uploads", ()):
                    if one["Key"] == named["Key"]:
                        self._void({**named, "UploadId": one["UploadId"]})

    @cached_property
    def _refuses_taken(self) -> bool:
        """Learnt by trying, at endpoints other than AWS: some take `If-None-Match` and overwrite all the same."""
        if self.connection.endpoint_url is None:
            return True
        with self.translated("trying what it keeps to"):
            try:
                # With the condition: of a bucket whose policy asks for it, nothing else is taken.
                with self._probe(IfNoneMatch="*") as name:
                    return self._refuses(name)
            except ClientError as error:
                if error_code(error) in NO_SUCH_WORD:
                    return False
                raise

    def _refuses(self, name: str) -> bool:
        """Whether a name that is taken is refused to what is sent whole and to what is sent in parts."""
        again = partial(self.client.put_object, **self._named(name), Body=PROBE, IfNoneMatch="*", **self._sealed())
        if not self._refused(again):
            return False
        upload = {**self._named(name), "UploadId": self._begun(name)}
        try:
            part = self.client.upload_part(**upload, PartNumber=1, Body=PROBE)
            parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
            return self._refused(
                partial(self.client.complete_multipart_upload, **upload, MultipartUpload=parts, IfNoneMatch="*")
            )
        finally:
            self._void(upload)

    def _refused(self, ask: Callable[[], object]) -> bool:
        try:
            ask()
        except ClientError as error:
            if error_code(error) in TAKEN | CONFLICT:
                return True
            # Not a word that it knows: then it keeps nothing.
            if error_code(error) in NO_SUCH_WORD:
                return False
            raise
        return False

    @cached_property
    def client(self) -> Any:
        said = self.connection
        seconds = said.connect_timeout.total_seconds(), said.answer_timeout.total_seconds()
        foreign = said.endpoint_url is not None
        # What others than AWS make of its newer checksums differs; a signature over the bytes they all know.
        checked: Literal["when_required", "when_supported"] = "when_required" if foreign else "when_supported"
        config = Config(  # type: ignore[call-arg]  # its types are behind it
            connect_timeout=seconds[0],
            read_timeout=seconds[1],
            retries={"mode": "standard", "total_max_attempts": 5},
            max_pool_connections=2 * SENT_AT_ONCE,
            # A service that was not named in the connection would be taken for AWS, and not be tried.
            ignore_configured_endpoint_urls=True,
            tcp_keepalive=True,
            s3={"addressing_style": "path" if said.path_style else "auto", "payload_signing_enabled": foreign},
            request_checksum_calculation=checked,
            response_checksum_validation=checked,
        )
        if said.ca_file is not None and not said.ca_file.is_file():
            raise ConfigError(f"lake {self.place}: ca_file {said.ca_file} is not there", hint="look at the connection")
        with self.translated("looking for credentials"):
            session: Any = boto3.Session(
                aws_access_key_id=said.access_key,
                aws_secret_access_key=said.secret_key,
                profile_name=said.profile,
                region_name=said.region,
            )
            vouching = None if said.ca_file is None else str(said.ca_file)
            try:
                return session.client("s3", endpoint_url=said.endpoint_url, verify=vouching, config=config)
            except ValueError as error:
                raise ConfigError(
                    f"lake {self.place}: {error}", hint="look at region and endpoint_url of the connection"
                ) from error

    def _named(self, name: str) -> dict[str, str]:
        return {"Bucket": self.connection.bucket, "Key": self.connection.prefix + name}

    def _sealed(self) -> dict[str, str]:
        """How what is written is to be encrypted there."""
        said = {"ServerSideEncryption": self.connection.sse, "SSEKMSKeyId": self.connection.kms_key}
        return {key: value for key, value in said.items() if value is not None}

    def _if_absent(self) -> dict[str, str]:
        return {"IfNoneMatch": "*"} if self._refuses_taken else {}

    @contextmanager
    def _conditional(self, name: str, sha256: str | None = None) -> Iterator[None]:
        """`sha256` is said of what may be there by an answer that was lost."""
        try:
            yield
        except ClientError as error:
            if error_code(error) in TAKEN:
                raise self._exists(name) from error
            if error_code(error) in CONFLICT:
                raise _Conflict from error
            if error_code(error) == GIVEN_UP:
                there = self.head(name)
                if there is None or sha256 is None or there.sha256 != sha256:
                    raise taken_over(name) from error
                return
            raise

    def _exists(self, name: str) -> ObjectExists:
        return ObjectExists(f"{shown(name)} is in lake {self.place} already")

    @contextmanager
    def translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise self._refusal(error, doing) from error
        except ProfileNotFound as error:
            raise ConfigError(
                f"lake {self.place}: {error}",
                hint="name one as `profile` of the connection, or in AWS_PROFILE: aws configure list-profiles",
            ) from error
        except CREDENTIALS as error:
            raise LakeError(
                f"lake {self.place}: {error}",
                hint="aws configure, a role of this machine, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            ) from error
        except (HTTPClientError, NoConnection) as error:
            raise self._silent(error, doing) from error
        except BotoCoreError as error:
            raise LakeError(f"lake {self.place} failed while {doing}: {error}", hint=SETTINGS) from error

    def _silent(self, error: Exception, doing: str) -> LakeError:
        return LakeError(
            f"lake {self.place} does not answer while {doing}: {error}",
            hint=CERTIFICATES if isinstance(error, SSLError) else NETWORK,
            transient=True,
        )

    def _refusal(self, error: ClientError, doing: str) -> LakeError:
        code = error_code(error)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if (known := TROUBLES.get(ALIASES.get(code, code))) is not None:
            what, hint, passing = known
            return LakeError(f"lake {self.place} {what} (while {doing})", hint=hint, transient=passing)
        said = shown(error.response.get("Error", {}).get("Message") or code)
        told = f"lake {self.place} failed while {doing}: {code}, {said}"
        if code.startswith(KEYS):
            return LakeError(told, hint="look at kms_key of the connection, whether it is enabled, and at its grants")
        passing = status >= 500 and code not in NO_SUCH_WORD
        return LakeError(told, hint=AGAIN if passing else SETTINGS, transient=passing)


@dataclass(frozen=True, slots=True)
class S3Body:
    bucket: S3Bucket
    name: str
    stream: Any

    def read(self, size: int) -> bytes:
        try:
            found: bytes = self.stream.read(min(size, PIECE))
        except (BotoCoreError, HTTPError, OSError) as error:
            raise self.bucket._silent(error, f"reading {shown(self.name)}") from error  # noqa: SLF001 - its own part
        return found

    def close(self) -> None:
        self.stream.close()


class _Conflict(Exception):
    """Another request for the same name was under way."""


@contextmanager
def _unless(*codes: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if error_code(error) not in codes:
            raise


def error_code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
