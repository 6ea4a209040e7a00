"""The lifecycle rules of a bucket of S3: read and written as the text they are, so that what is not ours stays so."""

import base64
import hashlib
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from botocore.exceptions import ClientError

from ingestkit.errors import LakeError
from ingestkit.files import shown
from ingestkit.ports import LakeRule, Policy, ServiceRule
from ingestkit.settings import S3Connection
from ingestkit.stores.s3 import S3Bucket, error_code

RULE = re.compile(r"<Rule\b[^>]*>.*?</Rule>", re.DOTALL)
ROOT = "LifecycleConfiguration"
EMPTY = f'<{ROOT} xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></{ROOT}>'
SMALLEST = "TransitionDefaultMinimumObjectSize"
"""What is said of all rules beside them, in a header."""
ACTIONS = {
    "expire": "<Expiration><Days>{}</Days></Expiration>",
    "abort_uploads": "<AbortIncompleteMultipartUpload><DaysAfterInitiation>{}</DaysAfterInitiation>"
    "</AbortIncompleteMultipartUpload>",
    # A mark that nothing is there any more is removed with the last version it hid.
    "expire_noncurrent": "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"
    "<NoncurrentVersionExpiration><NoncurrentDays>{}</NoncurrentDays></NoncurrentVersionExpiration>",
}


def opened(*, connection: S3Connection, root: Path) -> "S3Lifecycle":
    vouching = None if connection.ca_file is None else root / connection.ca_file
    return S3Lifecycle(S3Bucket(connection.model_copy(update={"ca_file": vouching})))


@dataclass(frozen=True, slots=True)
class S3Lifecycle:
    bucket: S3Bucket

    @property
    def place(self) -> str:
        return f"s3://{self.bucket.connection.bucket}"

    @property
    def prefix(self) -> str:
        return self.bucket.connection.prefix

    def read(self) -> Policy:
        def noted(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
            customized_response_dict["Document"] = response_dict["body"]

        with self._asked("before-parse", "GetBucketLifecycleConfiguration", noted) as client:
            try:
                answer = client.get_bucket_lifecycle_configuration(Bucket=self.bucket.connection.bucket)
            except ClientError as error:
                if error_code(error) == "NoSuchLifecycleConfiguration":
                    return Policy((), _document(EMPTY, None))
                raise
        return self._policy(answer["Document"].decode(), answer.get(SMALLEST))

    def worded(self, rule: LakeRule) -> ServiceRule:
        prefix = escape(self.prefix + rule.prefix)
        action = ACTIONS[rule.does].format(rule.days)
        text = f"<Rule><ID>{escape(rule.name)}</ID><Filter><Prefix>{prefix}</Prefix></Filter>"
        return self._rule(f"{text}<Status>Enabled</Status>{action}</Rule>")

    def write(self, before: Policy, drop: Collection[str], put: Sequence[ServiceRule]) -> None:
        said = json.loads(before.document)
        text = RULE.sub(lambda one: "" if self._rule(one[0]).name in drop else one[0], said["text"])
        text = text.replace(f"</{ROOT}>", "".join(rule.text for rule in put) + f"</{ROOT}>")
        body = text.encode()

        def worded(params: dict[str, Any], **_: Any) -> None:
            params["body"] = body
            # Some services ask for this one whatever else is sent.
            params["headers"]["Content-MD5"] = base64.b64encode(
                hashlib.md5(body, usedforsecurity=False).digest()
            ).decode()

        with self._asked("before-call", "PutBucketLifecycleConfiguration", worded) as client:
            if RULE.search(text) is None:
                # A policy without rules is refused.
                client.delete_bucket_lifecycle(Bucket=self.bucket.connection.bucket)
                return
            more = {} if said["smallest"] is None else {SMALLEST: said["smallest"]}
            client.put_bucket_lifecycle_configuration(
                Bucket=self.bucket.connection.bucket, LifecycleConfiguration={"Rules": []}, **more
            )

    @contextmanager
    def _asked(self, moment: str, operation: str, change: Any) -> Iterator[Any]:
        """The client, with its words for one operation taken from or put into what is sent."""
        with self.bucket.translated("looking after its lifecycle rules"):
            client, event = self.bucket.client, f"{moment}.s3.{operation}"
            client.meta.events.register(event, change)
            try:
                yield client
            finally:
                client.meta.events.unregister(event, change)

    def _policy(self, text: str, smallest: str | None) -> Policy:
        tree, found = _tree(text, self.place), RULE.findall(text)
        if tree.tag.rpartition("}")[2] != ROOT:
            raise LakeError(f"{self.place} knows no lifecycle rules", hint="leave it to ingestkit clean")
        if sum(one.tag.rpartition("}")[2] == "Rule" for one in tree) != len(found):
            raise LakeError(f"the lifecycle rules of {self.place} are written as nobody writes them: {shown(text)}")
        # One without rules may be written as an empty element.
        text = re.sub(rf"<{ROOT}([^>]*)/>", rf"<{ROOT}\1></{ROOT}>", text)
        return Policy(tuple(self._rule(one) for one in found), _document(text, smallest))

    def _rule(self, text: str) -> ServiceRule:
        said = _plain(_tree(text, self.place))
        named = ServiceRule(str(said.get("ID", "")), text, json.dumps(said, sort_keys=True))
        return replace(named, expires=self._expires(said))

    def _expires(self, said: dict[str, Any]) -> tuple[str, int] | None:
        """What of the lake a rule removes; one of tags removes nothing, since what is written here has none."""
        found, where = said.get("Expiration") or {}, said.get("Filter") or {}
        where = where.get("And") or where or {}
        if said.get("Status") != "Enabled" or "Tag" in where or not {"Days", "Date"} & set(found):
            return None
        prefix = str(where.get("Prefix") or said.get("Prefix") or "")
        if not (prefix.startswith(self.prefix) or self.prefix.startswith(prefix)):
            return None
        return prefix.removeprefix(self.prefix) if prefix.startswith(self.prefix) else "", int(found.get("Days", 0))


def _document(text: str, smallest: str | None) -> str:
    return json.dumps({"text": text, "smallest": smallest})


def _tree(text: str, place: str) -> ET.Element:
    try:
        # The vendor's client has parsed it likewise.
        return ET.fromstring(text)  # noqa: S314
    except ET.ParseError as error:
        raise LakeError(f"the lifecycle rules of {place} cannot be read: {error}") from error


def _plain(element: ET.Element) -> Any:
    """An element as nested names and values; of several of one name, a list."""
    if not len(element):
        return (element.text or "").strip()
    found: dict[str, Any] = {}
    for one in element:
        name, value = one.tag.rpartition("}")[2], _plain(one)
        found[name] = value if name not in found else [*_listed(found[name]), value]
    return found


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
