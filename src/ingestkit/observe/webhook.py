"""Alerts as one JSON object each, sent to any address."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ingestkit.observe.posting import post
from ingestkit.ports import Message


@dataclass(frozen=True, slots=True)
class Webhook:
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    ca_file: Path | None
    patience: float

    def send(self, message: Message) -> None:
        body = json.dumps(message.facts(), ensure_ascii=False).encode()
        headers = {**self.headers, "Content-Type": "application/json"}
        post(self.url, body, headers, self.ca_file, self.patience)
