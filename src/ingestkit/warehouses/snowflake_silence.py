"""How long a session of Snowflake's connector asks again when nothing answers: statements and uploads alike.

By itself the connector asks again for as long as a statement may take, and a stage ten minutes for each answer.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from snowflake.connector import SnowflakeConnection
from snowflake.connector.errorcode import ER_FAILED_TO_REQUEST
from snowflake.connector.errors import OperationalError
from snowflake.connector.network import is_retryable_http_code
from snowflake.connector.session_manager import ProxySupportAdapter
from snowflake.connector.vendored.requests.exceptions import ConnectionError as Unreachable
from snowflake.connector.vendored.requests.exceptions import Timeout
from snowflake.connector.vendored.requests.models import PreparedRequest, Response

Now = Callable[[], float]


@dataclass(slots=True)
class Silence:
    """Since when no request of a session has been answered in earnest."""

    patience: float
    now: Now = time.monotonic
    since: float | None = None

    def goes_on(self, began: float, what: str) -> None:
        self.since = began if self.since is None else self.since
        if self.now() - self.since >= self.patience:
            raise OperationalError(msg=f"no answer in {self.patience:g} s: {what}", errno=ER_FAILED_TO_REQUEST)


class Patient(ProxySupportAdapter):
    """Sends requests, each with a time-out for its answer, until silence has lasted too long."""

    def __init__(self, silence: Silence, answer_timeout: float, **more: Any) -> None:
        super().__init__(**more)  # type: ignore[no-untyped-call]
        self.silence, self.answer_timeout = silence, answer_timeout

    def send(self, request: PreparedRequest, *args: Any, **more: Any) -> Response:
        began = self.silence.now()
        try:
            answer: Response = super().send(request, *args, **{**more, "timeout": self.answer_timeout})  # type: ignore[no-untyped-call]
        except (Unreachable, Timeout) as error:
            self.silence.goes_on(began, type(error).__name__)
            raise
        if not is_retryable_http_code(answer.status_code or 0):
            self.silence.since = None
            return answer
        try:
            self.silence.goes_on(began, f"HTTP {answer.status_code}")
        except OperationalError:
            answer.close()  # type: ignore[no-untyped-call]
            raise
        return answer


def bound(connection: SnowflakeConnection, patience: float, answer_timeout: float) -> None:
    """From now on requests of this session, to whichever host, are given up after these times."""
    if connection.rest is None:
        return
    manager = connection.rest.session_manager
    manager.config = replace(manager.config, adapter_factory=partial(Patient, Silence(patience), answer_timeout))
    # What stands already would go on as before.
    manager.close()  # type: ignore[no-untyped-call]
