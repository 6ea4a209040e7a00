"""The lifecycle rules of an account of Azure storage: one document, which its resource manager keeps."""

import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from azure.core import PipelineClient
from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RetryPolicy
from azure.core.rest import HttpRequest

from ingestkit.errors import ConfigError, LakeError
from ingestkit.files import shown
from ingestkit.ports import LakeRule, Loss, Need, Policy, ServiceRule
from ingestkit.settings import ADLS_URL, AdlsConnection
from ingestkit.stores.adls_login import first_line, login, login_failure
from ingestkit.stores.remote import AGAIN

VERSION = "2023-05-01"
NONE_YET = "ManagementPolicyNotFound"
GRANT = 'grant "Storage Account Contributor" on the account (docs/lakes.md)'
SAID = "see what its connection says under `lifecycle`, and docs/lakes.md"
UPLOAD = timedelta(days=7)
LOSSES: dict[str, Literal["removes", "archives"]] = {"delete": "removes", "tierToArchive": "archives"}
ACTIONS = {
    "expire": ("baseBlob", "daysAfterModificationGreaterThan"),
    "expire_noncurrent": ("version", "daysAfterCreationGreaterThan"),
}


def opened(*, connection: AdlsConnection, name: str) -> "AdlsLifecycle":
    found = ADLS_URL.fullmatch(connection.url)
    assert found is not None, "settings have looked at it"
    if connection.account_id is None or not connection.account_id.endswith(f"/{found['account']}"):
        raise ConfigError(
            f"connection {name} does not say where the rules of account {found['account']} are kept",
            hint=f"say its resource id: az storage account show --name {found['account']} --query id, as account_id",
        )
    return AdlsLifecycle(connection)


@dataclass(frozen=True, slots=True)
class AdlsLifecycle:
    connection: AdlsConnection

    @property
    def place(self) -> str:
        return str(self._parts["host"])

    @property
    def prefix(self) -> str:
        """What prefixes of rules begin with, the container before all."""
        folder = (self._parts["prefix"] or "").strip("/")
        return f"{self._parts['container']}/{folder}/" if folder else f"{self._parts['container']}/"

    def read(self) -> Policy:
        status, text = self._asked("GET")
        if status == 404 and _code(text) == NONE_YET:
            return Policy((), "{}")
        if status != 200:
            raise self._refused(status, text)
        try:
            return Policy(tuple(self._rule(one) for one in _policy(text).get("rules", ())), text)
        except (ValueError, TypeError, AttributeError) as error:
            raise LakeError(
                f"{self.connection.management_endpoint} answers with what are no lifecycle rules of {self.place}",
                hint="it is another service, or a proxy before it: look at management_endpoint of the connection",
            ) from error

    @property
    def inflight(self) -> Need:
        return Need("_inflight/", UPLOAD, "an upload may go on for as long as Azure keeps what was sent of it, a week")

    def worded(self, rules: Sequence[LakeRule], beside: Sequence[ServiceRule]) -> list[ServiceRule]:  # noqa: ARG002 - all may
        return [self._worded(rule) for rule in rules]

    def _worded(self, rule: LakeRule) -> ServiceRule:
        kind, counted = ACTIONS[rule.does]
        return self._rule(
            {
                "enabled": True,
                "name": rule.name,
                "type": "Lifecycle",
                "definition": {
                    "filters": {"blobTypes": ["blockBlob"], "prefixMatch": [self.prefix + rule.prefix]},
                    "actions": {kind: {"delete": {counted: rule.days}}},
                },
            }
        )

    def write(self, before: Policy, drop: Collection[str], put: Sequence[ServiceRule]) -> None:
        rules = [json.loads(one.text) for one in (*(rule for rule in before.rules if rule.name not in drop), *put)]
        if not rules:
            # A policy without rules is refused.
            status, text = self._asked("DELETE")
        else:
            whole = {"properties": {"policy": {**_policy(before.document), "rules": rules}}}
            status, text = self._asked("PUT", whole)
        if status not in (200, 204):
            raise self._refused(status, text)

    @property
    def _parts(self) -> Mapping[str, str | None]:
        found = ADLS_URL.fullmatch(self.connection.url)
        assert found is not None, "settings have looked at it"
        return found.groupdict()

    def _asked(self, method: str, body: Any = None) -> tuple[int, str]:
        said, base = self.connection, self.connection.management_endpoint.rstrip("/")
        url = f"{base}{said.account_id}/managementPolicies/default"
        request = HttpRequest(method, url, params={"api-version": VERSION}, json=body)
        # A token is of the same chain as for what is stored.
        vouching = BearerTokenCredentialPolicy(login(said, self.place), f"{base}/.default")
        policies = [RetryPolicy(retry_total=2), vouching]
        try:
            client: PipelineClient[HttpRequest, Any] = PipelineClient(base, policies=policies)
            with client:
                answer = client.send_request(
                    request,
                    connection_timeout=said.connect_timeout.total_seconds(),
                    read_timeout=said.answer_timeout.total_seconds(),
                )
                return answer.status_code, answer.text()
        except ClientAuthenticationError as error:
            raise login_failure(error, self.place) from error
        except AzureError as error:
            raise LakeError(
                f"{base} does not answer while looking after the lifecycle rules of {self.place}: {first_line(error)}",
                hint="look at the network and at management_endpoint of the connection",
                transient=True,
            ) from error

    def _refused(self, status: int, text: str) -> LakeError:
        code = _code(text)
        doing = f"looking after the lifecycle rules of {self.place}"
        if status == 401 and "expired" in code.lower():
            return LakeError(f"the credentials have expired for {doing}: {code}", hint="renew them, then type it again")
        if status in (401, 403):
            return LakeError(f"the account does not allow {doing}: {code}", hint=GRANT)
        if status == 404:
            return LakeError(
                f"there is no such account for {doing}: {code}", hint="look at account_id of the connection"
            )
        told = shown(str(_error(text).get("message", "")))
        passing = status >= 500 or status in (409, 429)
        return LakeError(f"failed while {doing}: {code}, {told}", hint=AGAIN if passing else SAID, transient=passing)

    def _rule(self, said: Mapping[str, Any]) -> ServiceRule:
        meaning = json.dumps(_whole(said), sort_keys=True)
        return ServiceRule(str(said.get("name", "")), json.dumps(said), meaning, tuple(self._losses(said)))

    def _losses(self, said: Mapping[str, Any]) -> Iterator[Loss]:
        """What of the lake a rule takes; one of tags takes nothing, since what is written here has none."""
        definition = said.get("definition", {})
        where = definition.get("filters") or {}
        actions = definition.get("actions", {}).get("baseBlob") or {}
        if not said.get("enabled", True) or where.get("blobIndexMatch"):
            return
        for prefix, (action, does) in itertools.product(where.get("prefixMatch") or [""], LOSSES.items()):
            if actions.get(action) and (prefix.startswith(self.prefix) or self.prefix.startswith(prefix)):
                below = prefix.removeprefix(self.prefix) if prefix.startswith(self.prefix) else ""
                yield Loss(does, below, min(int(value) for value in actions[action].values()))


def _policy(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text).get("properties", {}).get("policy", {})
    return found


def _error(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    error = found.get("error", {}) if isinstance(found, dict) else {}
    return error if isinstance(error, dict) else {}


def _code(text: str) -> str:
    return str(_error(text).get("code", "no reason given"))


def _whole(value: Any) -> Any:
    """The same with whole numbers as such: the service gives 90 back as 90.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {name: _whole(one) for name, one in value.items()}
    return [_whole(one) for one in value] if isinstance(value, list) else value
