"""Alerts as mail, by SMTP within TLS whose certificate is checked."""

import smtplib
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path

from ingestkit.errors import ConfigError, TargetError
from ingestkit.ports import Message


@dataclass(frozen=True, slots=True)
class Mail:
    host: str
    port: int
    tls: str
    """starttls, or tls from the first byte."""
    user: str | None
    password: str | None = field(repr=False)
    sender: str
    to: tuple[str, ...]
    ca_file: Path | None
    patience: float

    def send(self, message: Message) -> None:
        receivers = tuple(dict.fromkeys((*self.to, *message.emails)))
        if not receivers:
            raise ConfigError("mail has nobody to go to", hint="name somebody as to: of the channel")
        mail = EmailMessage()
        mail["Subject"], mail["From"], mail["To"] = message.title, self.sender, ", ".join(receivers)
        mail.set_content("\n".join(message.lines) + "\n")
        try:
            server = self._opened(ssl.create_default_context(cafile=self.ca_file))
            try:
                if self.user is not None and self.password is not None:
                    server.login(self.user, self.password)
                refused = server.send_message(mail)
                # It was taken, however it is parted.
                with suppress(smtplib.SMTPException, OSError):
                    server.quit()
            finally:
                server.close()
        except smtplib.SMTPResponseException as error:
            # The words behind the code are the other side's.
            raise TargetError(f"answered {error.smtp_code}") from None
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise TargetError(f"cannot be reached ({type(error).__name__})") from None
        if refused:
            raise TargetError(f"refused {len(refused)} of {len(receivers)} receivers")

    def _opened(self, context: ssl.SSLContext) -> smtplib.SMTP:
        if self.tls == "tls":
            return smtplib.SMTP_SSL(self.host, self.port, timeout=self.patience, context=context)
        server = smtplib.SMTP(self.host, self.port, timeout=self.patience)
        try:
            # Where the server offers no TLS this is an error: nothing goes in the open.
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
        return server
