"""Who is let in: key pairs are verified, tokens and passwords compared."""

import base64
import hashlib
import secrets
import time
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from tests.doubles.snowflake.answers import Refused

ALGORITHMS: Final = ("RS256", "ES256", "ES384", "ES512")
# An hour is what the service grants at most.
LONGEST: Final = 3600


@dataclass(slots=True)
class User:
    """What somebody may say to be let in; nothing is accepted that is not written here."""

    public_keys: list[str] = field(default_factory=list)
    token: str | None = None
    """Of OAuth."""
    token_expired: bool = False
    password: str | None = None
    saml: str | None = None
    """What the identity provider gives this user's browser."""


@dataclass(slots=True)
class Users:
    account: str
    known: dict[str, User] = field(default_factory=dict)
    proofs: set[str] = field(default_factory=set)
    """Keys of logins by browser that have begun, each for once."""

    def begun(self) -> str:
        proof = secrets.token_urlsafe(24)
        self.proofs.add(proof)
        return proof

    def let_in(self, said: dict[str, Any]) -> str:
        """The user's name, for what a client says of itself."""
        name = str(said.get("LOGIN_NAME", "")).upper()
        user = self.known.get(name, User())
        match str(said.get("AUTHENTICATOR", "")).upper():
            case "SNOWFLAKE_JWT":
                self._verify(str(said.get("TOKEN", "")), name, user)
            case "OAUTH":
                return self._by_token(str(said.get("TOKEN", "")), name)
            case "EXTERNALBROWSER":
                proof = str(said.get("PROOF_KEY", ""))
                if proof not in self.proofs or user.saml is None or said.get("TOKEN") != user.saml:
                    raise Refused(390_190, "08001", "There was an error related to the SAML Identity Provider.")
                self.proofs.discard(proof)
            case _:
                if user.password is None or said.get("PASSWORD") != user.password:
                    raise Refused(390_100, "08001", "Incorrect username or password was specified.")
        return name

    def _by_token(self, token: str, name: str) -> str:
        """A token says by itself whose it is."""
        found = next((known for known, user in self.known.items() if user.token and user.token == token), None)
        if found is None or (name and found != name):
            raise Refused(390_303, "08001", "Invalid OAuth access token.")
        if self.known[found].token_expired:
            raise Refused(390_318, "08001", "OAuth access token expired.")
        return found

    def _verify(self, token: str, name: str, user: User) -> None:
        subject = f"{self.account.upper()}.{name}"
        try:
            claimed = jwt.decode(token, options={"verify_signature": False})
        except jwt.InvalidTokenError as error:
            raise _invalid() from error
        issuer, _, fingerprint = str(claimed.get("iss", "")).rpartition(".")
        if issuer != subject or claimed.get("sub") != subject:
            raise _invalid()
        key = next((key for key in user.public_keys if _fingerprint(key) == fingerprint), None)
        if key is None:
            raise _invalid(394_304)
        try:
            jwt.decode(token, key, algorithms=list(ALGORITHMS), options={"require": ["exp", "iat", "iss", "sub"]})
        except jwt.InvalidTokenError as error:
            raise _invalid() from error
        if claimed["exp"] - claimed["iat"] > LONGEST or claimed["iat"] > time.time() + 60:
            raise _invalid()


def _invalid(code: int = 390_144) -> Refused:
    return Refused(code, "08001", "JWT token is invalid.")


def _fingerprint(pem: str) -> str:
    der = load_pem_public_key(pem.encode()).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "SHA256:" + base64.b64encode(hashlib.sha256(der).digest()).decode()
