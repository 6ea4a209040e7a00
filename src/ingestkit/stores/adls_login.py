"""Who we are in Azure, and what is told of a login that fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError, ServiceResponseError
from azure.identity import (
    CredentialUnavailableError,
    DefaultAzureCredential,
    EnvironmentCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)

from ingestkit.errors import LakeError
from ingestkit.files import shown
from ingestkit.settings import AdlsConnection

LOGINS = "az login, an identity of this machine, or AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET"
CODE = "AADSTS"
"""What the code of a refused login begins with."""
UNANSWERED = (ServiceRequestError, ServiceResponseError)

# By the connection's `credential`: what it is, and what it calls the client's id of an identity.
CREDENTIALS: dict[str, tuple[Any, str]] = {
    "default": (DefaultAzureCredential, "managed_identity_client_id"),
    "environment": (EnvironmentCredential, ""),
    "workload_identity": (WorkloadIdentityCredential, "client_id"),
    "managed_identity": (ManagedIdentityCredential, "client_id"),
}


@dataclass(frozen=True, slots=True)
class Login:
    """A credential that says in its library's own words when a file it reads its token from is not to be read."""

    credential: Any

    def get_token(self, *scopes: str, **more: Any) -> Any:
        with self._read():
            return self.credential.get_token(*scopes, **more)

    def get_token_info(self, *scopes: str, **more: Any) -> Any:
        with self._read():
            return self.credential.get_token_info(*scopes, **more)

    @contextmanager
    def _read(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CredentialUnavailableError(message=f"{error.filename}: {error.strerror}") from error


def login(connection: AdlsConnection, place: str) -> Login:
    """The credential that the connection names; nobody is asked for a token yet."""
    kind, named = CREDENTIALS[connection.credential]
    try:
        # Said to be none, the libraries do not look into the environment for it.
        return Login(kind() if connection.client_id is None else kind(**{named: connection.client_id}))
    except ValueError as error:
        raise LakeError(f"lake {place}: no credentials, {first_line(error)}", hint=LOGINS) from error


def login_failure(error: ClientAuthenticationError, place: str) -> LakeError:
    """Whether it was refused, or not answered. Of a chain of credentials, the last that was tried counts."""
    tried = [line.strip() for line in str(error).splitlines() if line.startswith("\t")]
    failed = next((line for line in reversed(tried) if "unavailable" not in line), None)
    # Who is refused is told so by a code.
    if failed is None:
        told, unanswered = first_line(error), isinstance(error.__context__, UNANSWERED)
    else:
        told, unanswered = shown(failed), "HTTP" in failed and CODE not in failed
    if unanswered:
        return LakeError(f"lake {place}: no answer to a login, {told}", hint="look at the network", transient=True)
    return LakeError(f"lake {place}: no credentials, {told}", hint=LOGINS)


def first_line(error: Exception) -> str:
    """Of what the libraries say in many."""
    return shown(str(error).partition("\n")[0].strip())
