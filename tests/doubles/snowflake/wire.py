"""The requests that clients send, and those by which a test sets the double up and looks at it."""

import gzip
import json
import re
import secrets
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs

from fakesnow.converter import from_binding

from tests.doubles.relay import Answer, Request
from tests.doubles.snowflake.account import Account, where, written
from tests.doubles.snowflake.answers import Data, Refused, shortened
from tests.doubles.snowflake.engine import Asked
from tests.doubles.snowflake.faults import Faults, Rule
from tests.doubles.snowflake.login import User, Users
from tests.doubles.snowflake.outside import Outside
from tests.doubles.snowflake.parameters import folded
from tests.doubles.snowflake.reading import statement
from tests.doubles.snowflake.sessions import PATIENCE, Session
from tests.doubles.snowflake.statements import run

# By them a client knows that it has to ask for the outcome by the id of the query: at once, and after a while.
NOT_WAITED_FOR: Final = "333334"
IN_PROGRESS: Final = "333333"
# Seconds until who waits is told to ask again.
HELD: Final = 45.0
RESULT_SCAN: Final = re.compile(r"SELECT \* FROM TABLE\(RESULT_SCAN\('([\w-]+)'\)\)", re.IGNORECASE)
EXPIRED: Final = Refused(390_112, "08001", "Session token has expired.")
GONE: Final = Refused(390_104, "08001", "User must login again to access the service.")
MASTER_EXPIRED: Final = Refused(390_114, "08001", "Authentication token has expired. The user must authenticate again.")


SECRETS: Final = ("TOKEN", "PASSWORD", "PROOF_KEY", "SESSION_PARAMETERS")


class Instead(Exception):
    """A request that reaches nobody is answered so; without an answer its connection is cut."""

    def __init__(self, answer: Answer | None = None) -> None:
        super().__init__()
        self.answer = answer


@dataclass(slots=True)
class Said:
    """A statement as it arrived, and what became of it."""

    sql: str
    session: int
    tag: str
    user: str
    query: str
    request: str
    outcome: str = "running"
    """`done`, the code of the error, or what befell it before it ran."""


@dataclass(slots=True)
class Wire:
    account: Account
    users: Users
    faults: Faults = field(default_factory=Faults)
    statements: list[Said] = field(default_factory=list)
    logins: list[Data] = field(default_factory=list)
    """What was said at each login, but for secrets."""
    uploads: list[int] = field(default_factory=list)
    """How many uploads were under way at the beginning of each."""
    results: dict[str, Data] = field(default_factory=dict)
    """What queries answered, by their ids."""
    answers: dict[str, "Future[Answer]"] = field(default_factory=dict)
    """The same as it is told over the wire, once it is known."""
    held: float = HELD
    _lock: threading.Lock = field(default_factory=threading.Lock)
    # No session is renewed any more.
    _expired: bool = False
    _under_way: int = 0

    def answer(self, request: Request) -> Answer | None:
        try:
            found = self._handler(request.path)
            return found(request) if found else _json({"success": False, "message": request.path}, 404)
        except Instead as instead:
            return instead.answer
        except Refused as refused:
            return _json(refused.body)
        except Exception:  # noqa: BLE001 - whoever wrote the test shall read it, and not wait for a client to give up
            return _json(Refused(603, "XX000", f"the double is broken:\n{traceback.format_exc()}").body)

    def _handler(self, path: str) -> Callable[[Request], Answer] | None:
        if path.startswith("/double/"):
            return self._controlled
        if path.startswith("/monitoring/queries/"):
            return self._monitored
        if re.fullmatch(r"/queries/[\w-]+/result", path):
            return self._asked_again
        return {
            "/session/v1/login-request": self._login,
            "/session/authenticator-request": self._by_browser,
            "/session": self._session,
            "/session/heartbeat": self._session,
            "/session/token-request": self._renewed,
            "/queries/v1/query-request": self._query,
            "/queries/v1/abort-request": self._cancelled,
            "/telemetry/send": self._nothing,
        }.get(path)

    def _login(self, request: Request) -> Answer:
        said = _body(request)["data"]
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        parameters = said.get("SESSION_PARAMETERS") or {}
        shown = {name: value for name, value in said.items() if name not in SECRETS}
        self.logins.append({**shown, **query, "parameters": parameters})
        if (rule := self.faults.befalling("LOGIN")) is not None:
            self._befall(rule)
        user = self.users.let_in(said)
        asked = {"role": query.get("roleName"), "warehouse": query.get("warehouse"), "parameters": parameters}
        session = self.account.open(user, asked, _plain(query.get("databaseName")), _plain(query.get("schemaName")))
        return _json({"success": True, "data": self._told(session)})

    def _by_browser(self, request: Request) -> Answer:
        """Where a browser shall go; it brings the identity provider's token to the port of who asks."""
        port = int(_body(request)["data"]["BROWSER_MODE_REDIRECT_PORT"])
        proof = self.users.begun()
        return _json({"success": True, "data": {"ssoUrl": f"https://sso.invalid/login?port={port}", "proofKey": proof}})

    def _told(self, session: Session) -> Data:
        return {
            "token": session.token,
            "masterToken": session.master,
            "validityInSeconds": 3600,
            "masterValidityInSeconds": 14_400,
            "displayUserName": session.user,
            "serverVersion": "9.0.0",
            "sessionId": session.number,
            "parameters": [
                {"name": "AUTOCOMMIT", "value": session.autocommit},
                {"name": "CLIENT_SESSION_KEEP_ALIVE_HEARTBEAT_FREQUENCY", "value": 3600},
                {"name": "CLIENT_STAGE_ARRAY_BINDING_THRESHOLD", "value": 0},
                {"name": "TIMEZONE", "value": "Etc/UTC"},
            ],
            "sessionInfo": {
                "databaseName": session.fake.database,
                "schemaName": session.fake.schema,
                "warehouseName": session.warehouse,
                "roleName": session.role,
            },
        }

    def _session(self, request: Request) -> Answer:
        session = self._known(request)
        session.touched = time.monotonic()
        if "delete=true" in request.query.lower():
            if (rule := self.faults.befalling("LOGOUT")) is not None:
                self._befall(rule)
            self.account.close(session)
        return _json({"success": True, "data": None})

    def _renewed(self, request: Request) -> Answer:
        master = _token(request)
        with self.account.turn:
            found = next((one for one in self.account.sessions.values() if one.master == master), None)
            if found is None or self._expired:
                return _json(MASTER_EXPIRED.body)
            del self.account.sessions[found.token]
            found.token, found.master = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
            self.account.sessions[found.token] = found
        data = {
            "sessionToken": found.token,
            "masterToken": found.master,
            "validityInSecondsST": 3600,
            "validityInSecondsMT": 14_400,
            "sessionId": found.number,
        }
        return _json({"success": True, "data": data})

    def _known(self, request: Request) -> Session:
        found = self.account.sessions.get(_token(request))
        if found is None:
            raise GONE
        return found

    def _query(self, request: Request) -> Answer:
        session, body = self._known(request), _body(request)
        session.touched = time.monotonic()
        name = parse_qs(request.query).get("requestId", [uuid.uuid4().hex])[0]
        with self._lock:
            lost, first = name in session.lost, name not in session.requests
            outcome: Future[Answer] = session.requests.setdefault(name, Future())
        if lost:
            raise Instead
        if not first and outcome.done() and outcome.exception() is not None:
            # It never ran.
            first, outcome = True, Future()
            session.requests[name] = outcome
        if not first:
            return outcome.result()
        said = Said(
            body["sqlText"], session.number, session.parameters["QUERY_TAG"], session.user, str(uuid.uuid4()), name
        )
        with self._lock:
            self.statements.append(said)
            self.answers[said.query] = outcome
        threading.Thread(target=self._settled, args=(session, said, body, outcome), daemon=True).start()
        if body.get("asyncExec"):
            return _later(said.query, NOT_WAITED_FOR)
        answer = self._held(said.query)
        if name in session.lost or said.outcome == "lost":
            raise Instead
        return answer

    def _asked_again(self, request: Request) -> Answer:
        """Its faults are found as RESULT, with the statement."""
        self._known(request).touched = time.monotonic()
        query = request.path.split("/")[2]
        asked = next((one.sql for one in self.statements if one.query == query), "")
        if (rule := self.faults.befalling(f"RESULT {asked}")) is not None:
            self._befall(rule)
        return self._held(query)

    def _held(self, query: str) -> Answer:
        """The outcome, or after a while that it is not known yet."""
        try:
            return self.answers[query].result(self.held)
        except TimeoutError:
            return _later(query, IN_PROGRESS)

    def _settled(self, session: Session, said: Said, body: Data, outcome: "Future[Answer]") -> None:
        """The outcome has an answer, or what became of the request instead."""
        try:
            outcome.set_result(self._done(session, said, body))
        except BaseException as error:  # noqa: BLE001 - who asks is told by asking the outcome
            outcome.set_exception(error)

    def _done(self, session: Session, said: Said, body: Data) -> Answer:
        rule = self.faults.befalling(said.sql)
        if rule is not None:
            if rule.fate == "cut" and rule.said["for_good"]:
                session.lost.add(said.request)
            self._befall(rule, said)
            self._others_do(rule, session, said)
        self.account.outcomes[said.query] = "RUNNING"
        try:
            data = self._again(said.sql) or run(self.account, self._asked(session, said, body))
            if rule is not None and rule.fate == "short":
                data = shortened(data, int(rule.said["rows"]))
            said.outcome = "done"
            self.results[said.query] = data
            self.account.outcomes[said.query] = "SUCCESS"
        except Refused as refused:
            said.outcome = f"{refused.code:06d}"
            self.account.outcomes[said.query] = "FAILED_WITH_ERROR"
            refusal = refused.body
            refusal["data"]["queryId"] = said.query
            return _json(refusal)
        finally:
            session.touched, session.last_query = time.monotonic(), said.query
        if rule is not None and rule.fate == "lost":
            said.outcome = "lost"
            if rule.said["for_good"]:
                session.lost.add(said.request)
            if rule.said.get("ends"):
                self.account.sessions.pop(session.token)
        now = {"finalDatabaseName": session.fake.database, "finalSchemaName": session.fake.schema}
        now |= {"finalRoleName": session.role, "finalWarehouseName": session.warehouse}
        parameters = [{"name": "TIMEZONE", "value": "Etc/UTC"}, {"name": "AUTOCOMMIT", "value": session.autocommit}]
        whole = {"parameters": parameters, **now, "queryId": said.query, **data}
        return _json({"success": True, "code": None, "message": None, "data": whole})

    def _others_do(self, rule: Rule, session: Session, said: Said) -> None:
        if rule.fate == "taken":
            self.account.stages.take(statement(said.sql), session.number, session.user, *where(session))
        if rule.fate == "aborted" and session.transaction is not None:
            with self.account.turn:
                self.account.abort(session.transaction)

    def _again(self, sql: str) -> Data | None:
        """What an earlier query answered, where that is all that is asked for."""
        if (found := RESULT_SCAN.fullmatch(sql.strip())) is None:
            return None
        if found[1] not in self.results:
            raise Refused(709, "02000", f"Statement {found[1]} not found")
        return {name: value for name, value in self.results[found[1]].items() if name != "queryId"}

    def _befall(self, rule: Rule, said: Said | None = None) -> None:
        """What befalls a request before it does anything."""
        if said is not None:
            said.outcome = rule.fate
        match rule.fate:
            case "cut":
                raise Instead
            case "status":
                raise Instead(_json({"success": False}, int(rule.said["status"])))
            case "refused":
                raise Refused(int(rule.said["code"]), rule.said["state"], rule.said["message"])
            case "expired":
                self._expired = self._expired or bool(rule.said["for_good"])
                raise EXPIRED
            case "delayed":
                time.sleep(float(rule.said["seconds"]))
            case "vanished":
                pattern = re.compile(rule.said["file"])
                for one in self.account.stages.folder.rglob("*"):
                    if one.is_file() and pattern.search(one.as_posix()):
                        one.unlink()

    def _asked(self, session: Session, said: Said, body: Data) -> Asked:
        bindings = body.get("bindings") or {}
        values = [bindings[str(place)] for place in range(1, len(bindings) + 1)]
        asked = statement(folded(said.sql, session.parameters))
        if any(isinstance(one["value"], list) for one in values):
            columns = [[_bound({**one, "value": value}) for value in one["value"]] for one in values]
            return Asked(session, asked, said.query, batch=list(zip(*columns, strict=True)))
        return Asked(session, asked, said.query, [_bound(one) for one in values] or None)

    def _monitored(self, request: Request) -> Answer:
        self._known(request)
        query = request.path.rpartition("/")[2]
        status = self.account.outcomes.get(query)
        found = [{"id": query, "status": status, "state": status}] if status else []
        return _json({"success": True, "data": {"queries": found}})

    def _cancelled(self, request: Request) -> Answer:
        """Who waits for a lock waits no longer; what runs is not stopped."""
        self._known(request)
        name = _body(request)["requestId"]
        self.account.locks.cancelled.update(one.query for one in self.statements if one.request == name)
        return _json({"success": True, "data": None})

    def storage(self, request: Request) -> Answer | None:
        """What clients upload to; its faults are found by `UPLOAD` and the path."""
        if request.method != "PUT":
            return self.account.stages.answer(request)
        with self._lock:
            self._under_way += 1
            self.uploads.append(self._under_way)
        try:
            return self._uploaded(request)
        finally:
            with self._lock:
                self._under_way -= 1

    def _uploaded(self, request: Request) -> Answer | None:
        rule = self.faults.befalling(f"UPLOAD {request.path}")
        if rule is not None and rule.fate != "delayed":
            return Answer(int(rule.said["status"])) if rule.fate == "status" else None
        time.sleep(float(rule.said["seconds"]) if rule else 0)
        return self.account.stages.answer(request)

    def _nothing(self, _: Request) -> Answer:
        return _json({"success": True, "data": None})

    def _controlled(self, request: Request) -> Answer:
        what = request.path.removeprefix("/double/")
        said = _body(request)
        if (found := self._looked_at().get(what)) is not None:
            return _json(found())
        self._set_up(what, said)
        return _json({})

    def _looked_at(self) -> dict[str, Callable[[], Data]]:
        return {
            "statements": lambda: {"statements": [asdict(one) for one in self.statements]},
            "logins": lambda: {"logins": self.logins},
            "broken": lambda: {"broken": self.faults.broken},
            "uploads": lambda: {"parallel": self.uploads},
        }

    def _set_up(self, what: str, said: Data) -> None:
        account = self.account
        match what:
            case "rules":
                self.faults.add(said)
            case "heal":
                self.faults.heal()
                self._expired = False
                account.locks.patience = PATIENCE
                account.tells_of_aborts = account.queries_begin = True
                self.held = HELD
                account.defaults.clear()
            case "users":
                name = said.pop("name").upper()
                self.users.known[name] = User(**said)
            case "times":
                self.held = said.get("held", self.held)
                account.locks.patience = said.get("patience", account.locks.patience)
                account.tells_of_aborts = said.get("told", account.tells_of_aborts)
                account.queries_begin = said.get("queries", account.queries_begin)
            case _:
                self._set_up_account(what, said)

    def _set_up_account(self, what: str, said: Data) -> None:
        account = self.account
        match what:
            case "databases":
                account.create_database(said["name"])
            case "copies":
                account.copy_database(said["database"], said["name"])
            case "rights":
                account.rights.take(said["privilege"], said["kind"], said["name"], said["to"])
            case "streams":
                account.streams.append((said["name"], said["table"]))
            case "defaults":
                account.defaults.update({name.upper(): written(value) for name, value in said.items()})
            case "outside":
                account.stages.outside = Outside(**said)
            case _:
                raise ValueError(what)


def _token(request: Request) -> str:
    found = re.fullmatch(r'Snowflake Token="(.*)"', request.header("Authorization") or "")
    return found[1] if found else ""


def _body(request: Request) -> Data:
    packed = request.header("Content-Encoding") == "gzip"
    read: Data = json.loads(gzip.decompress(request.body) if packed else request.body)
    return read


def _json(said: Data, status: int = 200) -> Answer:
    return Answer(status, (("Content-Type", "application/json"),), json.dumps(said).encode())


def _later(query: str, code: str) -> Answer:
    where = {"queryId": query, "getResultUrl": f"/queries/{query}/result"}
    return _json({"success": True, "code": code, "message": None, "data": where})


def _plain(name: str | None) -> str | None:
    """A name as it is said at login, as an identifier."""
    if name is None:
        return None
    return name[1:-1] if name.startswith('"') else name.upper()


def _bound(said: dict[str, Any]) -> object:
    return None if said["value"] is None else from_binding(said)
