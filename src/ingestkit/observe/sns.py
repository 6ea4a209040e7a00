"""Alerts to a topic of Amazon SNS."""

from dataclasses import dataclass

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ingestkit.errors import TargetError
from ingestkit.ports import Message

LONGEST_SUBJECT = 100


@dataclass(frozen=True, slots=True)
class Sns:
    """It logs in as the machine does: by its role, its profile or its environment."""

    topic: str
    region: str | None
    endpoint: str | None
    patience: float

    def send(self, message: Message) -> None:
        once = Config(
            connect_timeout=self.patience,
            read_timeout=self.patience,
            retries={"total_max_attempts": 1, "mode": "standard"},
        )
        subject = message.title.encode("ascii", "replace").decode()[:LONGEST_SUBJECT]
        text = "\n".join((message.title, *message.lines))
        try:
            client = boto3.session.Session(region_name=self.region).client(
                "sns", endpoint_url=self.endpoint, config=once
            )
            client.publish(TopicArn=self.topic, Subject=subject, Message=text)
        except ClientError as error:
            raise TargetError(f"answered {error.response.get('Error', {}).get('Code', 'an error')}") from None
        except (BotoCoreError, OSError, ValueError) as error:
            raise TargetError(f"cannot be reached ({type(error).__name__})") from None
