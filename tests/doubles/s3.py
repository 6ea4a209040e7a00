"""moto's S3 server, answering one request at a time: of two who write one name at once, moto alone lets both win."""

import io
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class InTurn:
    """Bodies and answers of many requests travel side by side; what happens in between happens to one after another."""

    application: Application
    turn: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: dict[str, Any], begin: Any) -> Iterable[bytes]:
        # Who sends slowly must not be waited for by others.
        request["wsgi.input"] = io.BytesIO(request["wsgi.input"].read(int(request.get("CONTENT_LENGTH") or 0)))
        with self.turn:
            return list(self.application(request, begin))


def main(port: int) -> None:
    served = InTurn(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", port, served, threaded=True, request_handler=MotoRequestHandler)


if __name__ == "__main__":
    main(int(sys.argv[1]))
