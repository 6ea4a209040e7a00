"""Azure's resource manager, as far as lifecycle rules: it keeps one document, and takes only whole ones."""

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.certificates import Certified
from tests.doubles.relay import Answer, Request, served

ACCOUNT = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/acme"


@dataclass(slots=True)
class ResourceManager:
    policy: dict[str, Any] | None = None
    endpoint: str = ""
    written: list[dict[str, Any]] = field(default_factory=list)
    refuses: str | None = None
    """A code with which everybody is refused."""
    says: tuple[int, str] | None = None
    """What it, or a proxy before it, answers to everything."""
    afterwards: Callable[[], None] = lambda: None
    """What happens right behind a write."""

    def answer(self, request: Request) -> Answer:
        if (trouble := self._trouble(request)) is not None:
            return _said(*trouble)
        if self.says is not None:
            return Answer(self.says[0], body=self.says[1].encode())
        match request.method:
            case "GET":
                return _said(404, "ManagementPolicyNotFound") if self.policy is None else self._shown()
            case "PUT":
                return self._write(json.loads(request.body))
            case "DELETE":
                self.policy = None
                return Answer(200)
        return _said(405, "MethodNotAllowed")

    def _trouble(self, request: Request) -> tuple[int, str] | None:
        token = (request.header("Authorization") or "").removeprefix("Bearer ")
        if token.count(".") != 2:
            return 401, "AuthenticationFailed"
        said = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(said + "=" * (-len(said) % 4)))
        if claims["aud"].rstrip("/") != self.endpoint or claims["exp"] < time.time():
            return 401, "InvalidAuthenticationToken"
        if self.refuses is not None:
            return 403, self.refuses
        if "api-version=" not in request.query:
            return 400, "MissingApiVersionParameter"
        return None if request.path == f"{ACCOUNT}/managementPolicies/default" else (404, "ResourceNotFound")

    def _write(self, body: dict[str, Any]) -> Answer:
        """What is not in it is gone; what is there must be a rule."""
        policy = body["properties"]["policy"]
        names = [rule["name"] for rule in policy.get("rules", ())]
        whole = all(
            rule["type"] == "Lifecycle"
            and rule["definition"]["actions"]
            and rule["definition"]["filters"]["blobTypes"]
            and len(rule["definition"]["filters"].get("prefixMatch", ())) <= 10
            and re.fullmatch(r"[A-Za-z0-9-]{1,256}", rule["name"])
            for rule in policy.get("rules", ())
        )
        if set(body) != {"properties"} or not names or len(set(names)) < len(names) or not whole:
            return _said(400, "InvalidManagementPolicy")
        self.written.append(policy)
        self.policy = policy
        self.afterwards()
        return self._shown()

    def _shown(self) -> Answer:
        told = {"policy": _counted(self.policy), "lastModifiedTime": f"2026-01-01T00:00:{len(self.written):02}Z"}
        whole = {"id": f"{ACCOUNT}/managementPolicies/default", "name": "DefaultManagementPolicy", "properties": told}
        return Answer(200, (("Content-Type", "application/json"),), json.dumps(whole).encode())


@contextmanager
def resource_manager(signed: Certified) -> Iterator[ResourceManager]:
    """A new one with one account; tokens are sent by TLS only."""
    made = ResourceManager()
    with served(made.answer, signed.server()) as port:
        made.endpoint = f"https://127.0.0.1:{port}"
        yield made


def _counted(value: Any) -> Any:
    """It gives whole numbers back as others."""
    if isinstance(value, dict):
        return {name: _counted(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_counted(one) for one in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _said(status: int, code: str) -> Answer:
    body = {"error": {"code": code, "message": f"{code}, it says"}}
    return Answer(status, (("Content-Type", "application/json"),), json.dumps(body).encode())
