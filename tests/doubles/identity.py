"""Where Azure hands out tokens: the endpoint a machine asks for its own identity, and Entra for everybody else."""

import base64
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs

from tests.certificates import Certified
from tests.doubles.relay import Answer, Request, served

# Of the tenants, the vendor's library asks this one where its endpoints are without asking the world first.
TENANT = "adfs"


@dataclass(slots=True)
class Identity:
    """Who we are, and what tokens say of it; changes hold for tokens asked for from then on."""

    endpoint: str = ""
    authority: str = ""
    client: str = "00000000-0000-0000-0000-00000000c11e"
    secret: str = field(default_factory=lambda: uuid.uuid4().hex)
    """What the platform, the principal and the workload each have to know."""
    lifetime: float = 3600.0
    """Seconds for which a token holds; one below zero has run out."""
    audience: str | None = None
    """For whom tokens are, in place of whom they were asked for."""
    refuses: bool = False
    """As if there were no such identity."""
    asked: list[str] = field(default_factory=list)
    """For whom tokens were asked for until now."""

    @property
    def environment(self) -> dict[str, str]:
        """What the platform puts into the environment of a process on a machine with an identity."""
        return {"IDENTITY_ENDPOINT": self.endpoint, "IDENTITY_HEADER": self.secret}

    @property
    def principal(self) -> dict[str, str]:
        """What people put there for a service principal with a secret."""
        return {**self._known, "AZURE_CLIENT_SECRET": self.secret}

    def workload(self, folder: Path) -> dict[str, str]:
        """What Kubernetes puts there, with the file of its own token."""
        token = folder / "token"
        token.write_text(self.secret)
        return {**self._known, "AZURE_FEDERATED_TOKEN_FILE": str(token)}

    @property
    def _known(self) -> dict[str, str]:
        return {"AZURE_AUTHORITY_HOST": self.authority, "AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": self.client}

    def answer_machine(self, request: Request) -> Answer:
        if request.header("X-IDENTITY-HEADER") != self.secret:
            return _said(401, {"statusCode": 401, "message": "the header of this identity is another"})
        resource = parse_qs(request.query)["resource"][0]
        self.asked.append(resource)
        if self.refuses:
            return _said(400, {"statusCode": 400, "message": "No managed identity was found"})
        token, until = self._token(resource)
        return _said(
            200, {"access_token": token, "expires_on": str(until), "resource": resource, "token_type": "Bearer"}
        )

    def answer(self, request: Request) -> Answer:
        """What Entra says: where it is asked, and tokens to who knows the secret."""
        if request.path.endswith("/.well-known/openid-configuration"):
            base = f"{self.authority}/{TENANT}"
            told = {"token_endpoint": f"{base}/oauth2/token", "authorization_endpoint": f"{base}/oauth2/authorize"}
            return _said(200, {**told, "issuer": base})
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        resource = form["scope"].removesuffix("/.default")
        self.asked.append(resource)
        known = form.get("client_secret") or form.get("client_assertion")
        if self.refuses or (form["client_id"], known) != (self.client, self.secret):
            return _said(401, {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret"})
        token, until = self._token(resource)
        return _said(200, {"access_token": token, "expires_in": int(until - time.time()), "token_type": "Bearer"})

    def _token(self, resource: str) -> tuple[str, int]:
        """As Microsoft's, but for the signature: nobody here has the key to check it."""
        until = int(time.time() + self.lifetime)
        issuer = "https://sts.windows.net/00000000-0000-0000-0000-000000000000/"
        begun = {"iat": until - 7200, "nbf": until - 7200}
        claims = {"aud": self.audience or resource, "iss": issuer, **begun, "exp": until}
        head = {"alg": "RS256", "typ": "JWT"}
        return ".".join((_encoded(json.dumps(head)), _encoded(json.dumps(claims)), _encoded("unsigned"))), until


@contextmanager
def identity(signed: Certified) -> Iterator[Identity]:
    """A new identity, which is gone afterwards; Entra's endpoint is by TLS, as its clients demand."""
    mine = Identity()
    with served(mine.answer_machine) as machine, served(mine.answer, signed.server()) as entra:
        mine.endpoint = f"http://127.0.0.1:{machine}/msi/token"
        mine.authority = f"https://127.0.0.1:{entra}"
        yield mine


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _said(status: int, content: dict[str, str | int]) -> Answer:
    return Answer(status, (("Content-Type", "application/json"),), json.dumps(content).encode())
