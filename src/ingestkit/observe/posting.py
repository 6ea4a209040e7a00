"""One POST to an address that may be a secret: what is wrong is told without it."""

import ssl
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib import error as failures
from urllib import request as requests

from ingestkit.errors import TargetError


class Straight(requests.HTTPRedirectHandler):
    """Headers and address are for one host alone."""

    def redirect_request(self, *_: Any) -> None:
        return None


def post(url: str, body: bytes, headers: Mapping[str, str], ca_file: Path | None, patience: float) -> None:
    """Send it and be told that it was taken; any answer but one of 200 to 299 is an error."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
        opener = requests.build_opener(Straight(), requests.HTTPSHandler(context=context))
        # The settings take addresses of http and https alone; a resolved reference is looked at here.
        if not url.startswith(("http://", "https://")):
            raise TargetError("its url is no address of http or https")
        asked = requests.Request(url, data=body, headers=dict(headers), method="POST")  # noqa: S310 - see above
        with opener.open(asked, timeout=patience):
            return
    except failures.HTTPError as error:
        error.close()
        raise TargetError(f"answered {error.code}") from None
    except (OSError, ValueError, HTTPException) as error:
        # Its text may name the address, which may hold a secret.
        raise TargetError(f"cannot be reached ({type(error).__name__})") from None
