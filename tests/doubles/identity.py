"""The endpoint where a machine in Azure asks for tokens of its managed identity."""

import base64
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from tests.doubles.relay import Answer, Request, served


@dataclass(slots=True)
class Identity:
    """Who a machine is, and what its tokens say; changes hold for tokens asked for from then on."""

    endpoint: str = ""
    secret: str = field(default_factory=lambda: uuid.uuid4().hex)
    lifetime: float = 3600.0
    """Seconds for which a token holds; one below zero has run out."""
    audience: str | None = None
    """For whom tokens are, in place of whom they were asked for."""
    refuses: bool = False
    """As if the machine had no such identity."""
    asked: list[str] = field(default_factory=list)
    """For whom tokens were asked for until now."""

    @property
    def environment(self) -> dict[str, str]:
        """What the platform puts into the environment of a process."""
        return {"IDENTITY_ENDPOINT": self.endpoint, "IDENTITY_HEADER": self.secret}

    def answer(self, request: Request) -> Answer:
        if request.header("X-IDENTITY-HEADER") != self.secret:
            return _said(401, {"statusCode": 401, "message": "the header of this identity is another"})
        resource = parse_qs(request.query)["resource"][0]
        self.asked.append(resource)
        if self.refuses:
            return _said(400, {"statusCode": 400, "message": "No managed identity was found"})
        until = int(time.time() + self.lifetime)
        token = _token(self.audience or resource, until)
        said: dict[str, object] = {
            "access_token": token,
            "expires_on": str(until),
            "resource": resource,
            "token_type": "Bearer",
        }
        return _said(200, said)


@contextmanager
def identity() -> Iterator[Identity]:
    """A new identity, which is gone afterwards."""
    mine = Identity()
    with served(mine.answer) as port:
        mine.endpoint = f"http://127.0.0.1:{port}/msi/token"
        yield mine


def _token(audience: str, until: int) -> str:
    """As Microsoft's, but for the signature: nobody here has the key to check it."""
    issuer = "https://sts.windows.net/00000000-0000-0000-0000-000000000000/"
    claims = {"aud": audience, "iss": issuer, "iat": until - 7200, "nbf": until - 7200, "exp": until}
    return ".".join(map(_encoded, (json.dumps({"alg": "RS256", "typ": "JWT"}), json.dumps(claims), "unsigned")))


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _said(status: int, content: dict[str, object]) -> Answer:
    return Answer(status, (("Content-Type", "application/json"),), json.dumps(content).encode())
