"""A session of a Vault: logs in once, asks, and hears failures wherever they stand. What is asked is the source's."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from ingestkit.errors import SourceError
from ingestkit.files import shown
from ingestkit.pipeline import Clock, Progress
from ingestkit.settings import VaultConnection

EXPIRED = "INVALID_SESSION_ID"
PASSING = {"API_LIMIT_EXCEEDED", "OPERATION_IN_PROGRESS", "RACE_CONDITION", "UNEXPECTED_ERROR"}
"""Types of failures that may be over when the same is asked again."""
REFUSED = {
    "USERNAME_OR_PASSWORD_INCORRECT",
    "USER_LOCKED_OUT",
    "PASSWORD_CHANGE_REQUIRED",
    "INACTIVE_USER",
    "NO_PASSWORD_PROVIDED",
}
"""Types of failures that no second try cures: each wrong password counts against the user."""
RETRIED = {429, 500, 502, 503, 504}
LONGEST_PAUSE = 60.0
BLOCK = 1 << 20
JSON = "application/json"


class _Session(AuthBase):
    """The session's header, and nothing of what this machine keeps of passwords."""

    def __init__(self, value: str) -> None:
        self._value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._value
        return request


@dataclass(slots=True)
class Vault:
    """One login for as long as it is open. Nothing is tried twice, but once with a new session where one has ended."""

    connection: VaultConnection
    name: str
    clock: Clock
    progress: Progress
    web: requests.Session = field(default_factory=requests.Session, repr=False)
    _session: str | None = field(default=None, repr=False)
    _pause: float = 0.0

    @property
    def place(self) -> str:
        return f"https://{self.connection.dns}"

    def asked(self, path: str, **parameters: str) -> Mapping[str, Any]:
        """What the API answers with; a failure that stands in the answer is one."""
        found: Mapping[str, Any] = self._again(lambda: self._json("GET", f"{self._api}/{path}", params=parameters))
        return found

    @contextmanager
    def downloaded(self, path: str) -> Iterator[Iterator[bytes]]:
        """The bytes of a file, as they come. JSON where bytes were expected is a failure."""
        with self._again(lambda: self._begun(path)) as response:
            try:
                yield self._blocks(response)
            finally:
                response.close()

    def _blocks(self, response: requests.Response) -> Iterator[bytes]:
        try:
            yield from response.iter_content(BLOCK)
        except (requests.RequestException, OSError) as error:
            raise self._lost(error) from error

    def check(self) -> None:
        """Prove that the login is taken, and is one to this Vault."""
        self._again(lambda: self._json("GET", f"{self.place}/api/"))

    def close(self) -> None:
        """End a session of ours."""
        if self._session is not None and self.connection.session is None:
            try:
                self._json("DELETE", f"{self._api}/session")
            except _Ended:
                pass
            except SourceError as error:
                self.progress.warned(f"the session at {self.connection.dns} could not be ended: {error.message}")
        self._session = None
        self.web.close()

    @property
    def _api(self) -> str:
        return f"{self.place}/api/{self.connection.version}"

    @contextmanager
    def understood(self) -> Iterator[None]:
        """What is not as an answer of Vault is to be is a failure of Vault's."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise self._failure("answered in a way that cannot be understood", transient=True) from error

    def _again(self, ask: Callable[[], Any]) -> Any:
        """The same once more with a new session, where the one there was has ended."""
        try:
            self._log_in()
            return ask()
        except _Ended as ended:
            if self.connection.session is not None:
                raise self._failure(ended.told, transient=False) from ended
        self._session = None
        try:
            self._log_in()
            return ask()
        except _Ended as ended:
            raise self._failure(ended.told, transient=False) from ended

    def _log_in(self) -> None:
        if self._session is not None:
            return
        said = self.connection
        if said.session is not None:
            self._session = said.session
            found = self._json("GET", f"{self.place}/api/")
            with self.understood():
                urls = [str(url) for url in found["values"].values()]
            self._refuse_other(urls)
            return
        body = {"vaultDNS": said.dns}
        if said.oauth is not None:
            body |= {"client_id": said.oauth.client_id} if said.oauth.client_id else {}
            url = f"{said.oauth.login_url.rstrip('/')}/auth/oauth/session/{said.oauth.profile}"
            found = self._json("POST", url, data=body, auth=_Session(f"Bearer {said.oauth.token}"))
        else:
            body |= {"username": said.username or "", "password": said.password or ""}
            found = self._json("POST", f"{self._api}/auth", data=body, auth=_Session(""))
        with self.understood():
            mine = [str(one["url"]) for one in found["vaultIds"] if one["id"] == found["vaultId"]]
            session = str(found["sessionId"])
        self._refuse_other(mine)
        self._session = session

    def _refuse_other(self, urls: list[str]) -> None:
        """Who may not enter this Vault is let into another one, and is told nothing of it."""
        hosts = {urlsplit(url).netloc.lower() for url in urls}
        if hosts != {self.connection.dns.lower()}:
            other = ", ".join(sorted(hosts - {""})) or "no Vault that it names"
            self._session = None
            raise SourceError(
                f"connection {self.name}: the login leads to {other}, and not to {self.connection.dns}",
                hint="have the user be given access to this Vault, or put right what the connection says: "
                "ingestkit config show",
            )

    def _begun(self, path: str) -> requests.Response:
        response = self._sent("GET", f"{self._api}/{path}", stream=True)
        if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() == JSON:
            self._heard(response)
            raise self._failure(f"answered with JSON where the file {shown(path)} was expected", transient=True)
        return response

    def _json(self, method: str, url: str, **given: Any) -> Mapping[str, Any]:
        return self._heard(self._sent(method, url, **given))

    def _sent(self, method: str, url: str, **given: Any) -> requests.Response:
        if self._pause:
            self.progress.said(f"{self.connection.dns} asks for a pause of {self._pause:.1f} s")
            self.clock.sleep(self._pause)
            self._pause = 0.0
        said = self.connection
        headers = {"Accept": JSON, "X-VaultAPI-ClientID": said.client_id}
        given.setdefault("auth", _Session(self._session or ""))
        patience = (said.connect_timeout.total_seconds(), said.answer_timeout.total_seconds())
        verify = str(said.ca_file) if said.ca_file is not None else True
        try:
            response = self.web.request(
                method, url, headers=headers, timeout=patience, allow_redirects=False, verify=verify, **given
            )
        except (requests.RequestException, OSError) as error:
            raise self._lost(error) from error
        delay = response.headers.get("X-VaultAPI-ResponseDelay", "")
        if re.fullmatch(r"\d{1,9}", delay):
            self._pause = min(LONGEST_PAUSE, int(delay) / 1000)
        if response.status_code in RETRIED:
            response.close()
            raise self._failure(f"answered {response.status_code}", transient=True)
        if response.status_code != requests.codes.ok:
            response.close()
            raise self._failure(f"answered {response.status_code}", transient=False)
        return response

    def _heard(self, response: requests.Response) -> Mapping[str, Any]:
        """The answer, unless it tells of a failure: that comes with the status 200, too."""
        try:
            found = response.json()
        except (ValueError, requests.RequestException) as error:
            raise self._failure("answered with what is no JSON", transient=True) from error
        status = found.get("responseStatus") if isinstance(found, dict) else None
        if status in ("SUCCESS", "WARNING"):
            return dict(found)
        with self.understood():
            said = (found.get("errors") or [{}])[0]
            kind, message = str(said.get("type", status)), str(said.get("message", ""))
        told = f"{shown(kind)}: {shown(message)}" if message else shown(kind)
        if kind == EXPIRED:
            raise _Ended(told)
        raise self._failure(told, transient=kind in PASSING or status == "EXCEPTION", kind=kind)

    def _failure(self, told: str, *, transient: bool, kind: str = "") -> SourceError:
        hint = "run again later" if transient else "ingestkit check"
        if kind in REFUSED:
            hint = "put the login right first: wrong ones in a row lock the user out"
        if kind == "INSUFFICIENT_ACCESS":
            hint = "give the user the permissions that docs/vault.md lists"
        return VaultFailure(f"{self.connection.dns}: {told}", hint=hint, transient=transient)

    def _lost(self, error: Exception) -> SourceError:
        # Its text may name an address with parameters.
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return SourceError(
                f"{self.connection.dns} shows a certificate that is not trusted, and was sent nothing",
                hint=f"if an authority of yours has signed it, name its certificate: ca_file of connection {self.name}",
            )
        return SourceError(
            f"{self.connection.dns} cannot be reached, or went away ({type(error).__name__})",
            hint="run again later; ingestkit check says whether it answers",
            transient=True,
        )


class VaultFailure(SourceError):
    """A failure that Vault has told of; its message begins with the type and Vault's own words."""


class _Ended(Exception):
    def __init__(self, told: str) -> None:
        super().__init__(told)
        self.told = told
