"""Those who take alerts, over real sockets: all of it comes, within TLS, to one host, and in time or not at all."""

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from ingestkit.errors import TargetError
from ingestkit.observe.mail import Mail
from ingestkit.observe.slack import Slack
from ingestkit.observe.sns import Sns
from ingestkit.observe.webhook import Webhook
from ingestkit.ports import Alert, Message
from tests.certificates import Certified, certified
from tests.doubles.receivers import MailServer, Receiver, mailing, receiving

AT = datetime(2026, 1, 4, 18, 0, 5, tzinfo=UTC)
TEXT = "batch <!channel> & ünïcode failed"
MESSAGE = Message("failed", "open", "p", TEXT, AT, AT, "ingestkit run p", 3, "r1", "team", ("more@example.com",))
PATIENCE = 0.5


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as started:
        yield started


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    return certified(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def server(signed: Certified) -> Iterator[MailServer]:
    with mailing(signed) as started:
        yield started


@pytest.fixture(params=["slack", "webhook", "sns"])
def posted(request: pytest.FixtureRequest, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Alert:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "known")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    made: dict[str, Alert] = {
        "slack": Slack(receiver.url, None, PATIENCE),
        "webhook": Webhook(receiver.url, {"Authorization": "s3cret"}, None, PATIENCE),
        "sns": Sns("arn:aws:sns:eu-central-1:1:t", "eu-central-1", receiver.url.removesuffix("/hook"), PATIENCE),
    }
    return made[request.param]


def mail(server: MailServer, ca_file: Path | None, tls: str = "starttls") -> Mail:
    return Mail("127.0.0.1", server.port, tls, "me", "s3cret", "a@example.com", ("b@example.com",), ca_file, PATIENCE)


def fails(alert: Alert) -> str:
    """What is told of a message that was not taken, which is told in time."""
    began = time.monotonic()
    with pytest.raises(TargetError) as caught:
        alert.send(MESSAGE)
    assert time.monotonic() - began < PATIENCE + 20
    assert "s3cret" not in caught.value.message
    assert "/hook" not in caught.value.message
    return caught.value.message


def test_a_message_is_taken(posted: Alert, receiver: Receiver) -> None:
    posted.send(MESSAGE)
    [body] = receiver.bodies
    said = body.decode()
    said = parse_qs(said)["Message"][0] if "Action=Publish" in said else said
    assert "ingestkit run p" in said
    assert "team" in said


def test_slack_calls_nobody(receiver: Receiver) -> None:
    Slack(receiver.url, None, PATIENCE).send(MESSAGE)
    assert "&lt;!channel&gt; &amp; ünïcode" in json.loads(receiver.bodies[0])["text"]


def test_a_webhook_is_told_in_parts(receiver: Receiver) -> None:
    Webhook(receiver.url, {"X-Api-Key": "k"}, None, PATIENCE).send(MESSAGE)
    assert receiver.headers[0]["x-api-key"] == "k"
    assert json.loads(receiver.bodies[0]) == MESSAGE.facts()
    assert MESSAGE.facts()["text"] == TEXT


@pytest.mark.parametrize("status", [400, 403, 500])
def test_what_is_refused_was_not_taken(posted: Alert, receiver: Receiver, status: int) -> None:
    receiver.status = status
    assert "answered" in fails(posted)
    assert len(receiver.bodies) == 1


def test_who_hangs_is_not_waited_for(posted: Alert, receiver: Receiver) -> None:
    receiver.hangs = True
    assert "cannot be reached" in fails(posted)


def test_who_is_gone_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert "cannot be reached" in fails(Slack(f"http://127.0.0.1:{port}/hook", None, PATIENCE))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("kind", ["slack", "webhook"])
def test_no_other_host_is_told(receiver: Receiver, status: int, kind: str) -> None:
    with receiving() as other:
        receiver.status, receiver.location = status, other.url
        headers = {"Authorization": "s3cret"}
        posted: Alert = Slack(receiver.url, None, PATIENCE)
        if kind == "webhook":
            posted = Webhook(receiver.url, headers, None, PATIENCE)
        assert fails(posted) == f"answered {status}"
        assert other.bodies == []
        assert other.headers == []


def test_an_address_of_another_kind_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "hook").write_text("x")
    assert fails(Slack(f"file://{tmp_path}/hook", None, PATIENCE)) == "its url is no address of http or https"


def test_mail_comes_within_tls(server: MailServer, signed: Certified) -> None:
    mail(server, signed.certificate).send(MESSAGE)
    assert server.receivers == ["b@example.com", "more@example.com"]
    assert server.logins == ["\0me\0s3cret"]
    assert "Subject: ingestkit: p: failed" in server.mails[0]
    assert {line.split(" ")[0].upper() for line in server.in_the_open} == {"EHLO", "STARTTLS"}


def test_mail_that_was_taken_was_sent_however_the_server_parts(server: MailServer, signed: Certified) -> None:
    server.parts_ill = True
    mail(server, signed.certificate).send(MESSAGE)
    assert len(server.mails) == 1


def test_no_mail_goes_in_the_open(server: MailServer, signed: Certified) -> None:
    server.offers_tls = False
    fails(mail(server, signed.certificate))
    fails(replace(mail(server, signed.certificate), user=None, password=None))
    assert (server.mails, server.logins) == ([], [])


def test_no_mail_goes_to_whom_nobody_vouches_for(server: MailServer) -> None:
    fails(mail(server, None))
    fails(replace(mail(server, None), user=None, password=None))
    assert (server.mails, server.logins) == ([], [])


def test_a_mail_server_that_refuses_or_hangs_is_told(server: MailServer, signed: Certified) -> None:
    server.refuses = True
    fails(mail(server, signed.certificate))
    server.hangs = True
    fails(mail(server, signed.certificate))
    fails(mail(server, signed.certificate, "tls"))
    assert server.mails == []


def test_no_name_breaks_the_header_of_a_mail(server: MailServer, signed: Certified) -> None:
    odd = replace(MESSAGE, text="a\nBcc: evil@example.com")
    mail(server, signed.certificate).send(odd)
    assert "evil" not in server.mails[0].split("\n\n", 1)[0]
