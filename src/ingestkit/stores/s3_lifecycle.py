"""The lifecycle rules of a bucket of S3: read and written as the text they are, so that what is not ours stays so."""

import base64
import hashlib
import itertools
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
from ingestkit.ports import LakeRule, Loss, Need, Policy, ServiceRule
from ingestkit.settings import S3Connection
from ingestkit.stores.s3 import NO_SUCH_WORD, S3Bucket, error_code

RULE = re.compile(r"<Rule\b[^>]*>.*?</Rule>", re.DOTALL)
ROOT = "LifecycleConfiguration"
EMPTY = f'<{ROOT} xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></{ROOT}>'
NO_RULES = "it is another service, or a proxy before it: look at endpoint_url of the connection"
SMALLEST = "TransitionDefaultMinimumObjectSize"
"""What is said of all rules beside them, in a header."""
OLDER, NEWER = "<Prefix>{}</Prefix>", "<Filter><Prefix>{}</Prefix></Filter>"
ARCHIVES = {"GLACIER", "DEEP_ARCHIVE"}
"""What lies there is not read before somebody has it restored."""
NO_ACTIONS = {"ID", "Prefix", "Status"}
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
                if error_code(error) in NO_SUCH_WORD:
                    raise self._knows_none() from error
                raise
        return self._policy(answer["Document"].decode(), answer.get(SMALLEST))

    def _knows_none(self) -> LakeError:
        return LakeError(f"{self.place} knows no lifecycle rules", hint="leave it to ingestkit clean")

    @property
    def inflight(self) -> Need:
        kept = self.bucket.connection.lifecycle.abort_uploads_after
        return Need("_inflight/", kept, "marks of uploads are needed until lifecycle.abort_uploads_after voids those")

    def worded(self, rules: Sequence[LakeRule], beside: Sequence[ServiceRule]) -> list[ServiceRule]:
        # AWS takes a prefix of the older form in all rules or in none.
        older = [rule for rule in beside if _is_older(json.loads(rule.meaning))]
        found = [self._worded(rule, OLDER if older else NEWER) for rule in rules]
        if older:
            self._refuse_clashes(found, older)
        return found

    def _worded(self, rule: LakeRule, where: str) -> ServiceRule:
        where = where.format(escape(self.prefix + rule.prefix))
        action = ACTIONS[rule.does].format(rule.days)
        return self._rule(f"<Rule><ID>{escape(rule.name)}</ID>{where}<Status>Enabled</Status>{action}</Rule>")

    def _refuse_clashes(self, ours: Sequence[ServiceRule], older: Sequence[ServiceRule]) -> None:
        """Of the older form AWS takes no two rules that do one thing below one prefix."""
        for one, other in itertools.combinations((*older, *ours), 2):
            a, b = json.loads(one.meaning), json.loads(other.meaning)
            both = (set(a) & set(b)) - NO_ACTIONS
            if other in ours and both and (a["Prefix"].startswith(b["Prefix"]) or b["Prefix"].startswith(a["Prefix"])):
                raise LakeError(
                    f"rules {one.name} and {other.name} of {self.place} may not both say {min(both)} beside rules with "
                    f"a Prefix and no Filter, which others have written: {', '.join(rule.name for rule in older)}",
                    hint="have the others put their Prefix into a Filter, which means the same; or leave ours out",
                )

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
            raise self._knows_none()
        if sum(one.tag.rpartition("}")[2] == "Rule" for one in tree) != len(found):
            told = f"the lifecycle rules of {self.place} are written as nobody writes them: {shown(text)}"
            raise LakeError(told, hint=NO_RULES)
        # One without rules may be written as an empty element.
        text = re.sub(rf"<{ROOT}([^>]*)/>", rf"<{ROOT}\1></{ROOT}>", text)
        return Policy(tuple(self._rule(one) for one in found), _document(text, smallest))

    def _rule(self, text: str) -> ServiceRule:
        said = _plain(_tree(text, self.place))
        named = ServiceRule(str(said.get("ID", "")), text, json.dumps(said, sort_keys=True))
        return replace(named, losses=tuple(self._losses(said)))

    def _losses(self, said: dict[str, Any]) -> Iterator[Loss]:
        """What of the lake a rule takes; one of tags takes nothing, since what is written here has none."""
        where = said.get("Filter") or {}
        where = where.get("And") or where or {}
        prefix = str(where.get("Prefix") or said.get("Prefix") or "")
        there = prefix.startswith(self.prefix) or self.prefix.startswith(prefix)
        if said.get("Status") != "Enabled" or "Tag" in where or not there:
            return
        below = prefix.removeprefix(self.prefix) if prefix.startswith(self.prefix) else ""
        removes = said.get("Expiration") or {}
        if {"Days", "Date"} & set(removes):
            yield Loss("removes", below, int(removes.get("Days", 0)))
        for move in _listed(said.get("Transition") or []):
            if move["StorageClass"] in ARCHIVES:
                yield Loss("archives", below, int(move.get("Days", 0)))


def _is_older(said: dict[str, Any]) -> bool:
    return "Prefix" in said and "Filter" not in said


def _document(text: str, smallest: str | None) -> str:
    return json.dumps({"text": text, "smallest": smallest})


def _tree(text: str, place: str) -> ET.Element:
    try:
        # The vendor's client has parsed it likewise.
        return ET.fromstring(text)  # noqa: S314
    except ET.ParseError as error:
        raise LakeError(f"the lifecycle rules of {place} cannot be read: {error}", hint=NO_RULES) from error


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
