"""Alerts by an incoming webhook of Slack."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from ingestkit.observe.posting import post
from ingestkit.ports import Message


@dataclass(frozen=True, slots=True)
class Slack:
    url: str = field(repr=False)
    ca_file: Path | None
    patience: float

    def send(self, message: Message) -> None:
        # What is said of files and tables calls nobody by <!channel>.
        text = "\n".join((f"*{message.title}*", *message.lines))
        for mark, said in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
            text = text.replace(mark, said)
        body = json.dumps({"text": text}).encode()
        post(self.url, body, {"Content-Type": "application/json"}, self.ca_file, self.patience)
