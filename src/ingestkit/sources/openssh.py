"""The `ssh` program of this machine as what carries SFTP: it speaks to servers that are too old for paramiko."""

import shutil
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from ingestkit.errors import SourceError
from ingestkit.files import shown
from ingestkit.settings import SftpConnection
from ingestkit.sources import hostkeys
from ingestkit.sources.hostkeys import HostKey
from ingestkit.sources.sftp_client import LOST, Client


@dataclass(frozen=True, slots=True)
class Pipe:
    """Our end of what the program reads and writes, as paramiko's client wants it."""

    end: socket.socket

    def recv(self, size: int) -> bytes:
        return self.end.recv(size)

    def send(self, data: bytes) -> int:
        return self.end.send(data)

    def close(self) -> None:
        self.end.close()

    def get_name(self) -> str:
        return "ssh"


def connected(
    settings: SftpConnection,
    name: str,
    keys: Sequence[Path],
    trusted: Sequence[HostKey],
    stranger: Callable[[], SourceError],
) -> Client:
    """A client over a program of its own, which takes no host key but the trusted ones."""
    # The file is read while the connection is made, and never again.
    with ExitStack() as stack, TemporaryDirectory(prefix="ingestkit-ssh-") as folder:
        file, said = Path(folder) / "known_hosts", stack.enter_context((Path(folder) / "said").open("w+b"))
        file.write_text("".join(f"{key.line(settings.host, settings.port)}\n" for key in trusted))
        ours, theirs = socket.socketpair()
        stack.callback(ours.close)
        with theirs:
            program = _started(_command(settings, keys, file), theirs.fileno(), said)
        stack.callback(_end, program)
        ours.settimeout((settings.connect_timeout + settings.login_timeout).total_seconds())
        try:
            client = Client(Pipe(ours))  # type: ignore[arg-type]
        except (*LOST, OSError) as error:
            ours.close()
            _end(program)
            raise _failure(settings, name, said, stranger) from error
        ours.settimeout(settings.answer_timeout.total_seconds())
        client.end = stack.pop_all().close
    return client


def _started(command: Sequence[str], pipe: int, said: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        # In a session of its own, since a Ctrl-C asks us to end at a safe point and not the connection to break.
        return subprocess.Popen(  # noqa: S603 - of settings, no shell
            command, stdin=pipe, stdout=pipe, stderr=said, start_new_session=True
        )
    except FileNotFoundError as error:
        raise SourceError("engine: openssh needs the program ssh", hint="apt-get install openssh-client") from error


def _end(program: subprocess.Popen[bytes]) -> None:
    program.kill()
    program.wait()


def scanned(settings: SftpConnection, name: str) -> tuple[HostKey, ...]:
    """The host keys that the server shows."""
    program = shutil.which("ssh-keyscan")
    if program is None:
        raise SourceError("engine: openssh needs the program ssh-keyscan", hint="apt-get install openssh-client")
    within = max(1, int(settings.connect_timeout.total_seconds()))
    command = [program, "-T", str(within), "-p", str(settings.port), "--", settings.host]
    done = subprocess.run(  # noqa: S603 - of settings, no shell
        command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    keys = tuple(key for line in done.stdout.splitlines() if (key := hostkeys.key_of(line)) is not None)
    if not keys:
        raise SourceError(
            f"{name} shows no host key to ssh-keyscan",
            hint=f"is it up, and port {settings.port} right?",
            transient=True,
        )
    return keys


def _command(settings: SftpConnection, keys: Sequence[Path], known_hosts: Path) -> list[str]:
    """What is said first counts, so that no option can undo the check of the host key."""
    seconds = int(settings.connect_timeout.total_seconds())
    beat = max(1, int(settings.keepalive.total_seconds()))
    said = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": str(known_hosts),
        "GlobalKnownHostsFile": "none",
        "UpdateHostKeys": "no",
        "ConnectTimeout": str(max(1, seconds)),
        "ServerAliveInterval": str(beat),
        "IdentitiesOnly": "no" if settings.agent else "yes",
        **({} if settings.agent else {"IdentityAgent": "none"}),
    }
    command = ["ssh", "-F", "none", "-x", "-a", "-T"]
    for name, value in (*said.items(), *settings.options.items()):
        command += ["-o", f"{name}={value}"]
    for key in keys:
        command += ["-i", str(key)]
    return [*command, "-p", str(settings.port), "-l", settings.user, "-s", "--", settings.host, "sftp"]


def _failure(settings: SftpConnection, name: str, said: IO[bytes], stranger: Callable[[], SourceError]) -> SourceError:
    said.seek(0)
    lines = [shown(line) for line in said.read().decode("utf-8", "replace").splitlines() if line.strip()]
    text = lines[-1] if lines else "it ended without a word"
    if "Host key verification failed" in text or any("HOST IDENTIFICATION HAS CHANGED" in line for line in lines):
        return stranger()
    if "Permission denied" in text:
        return SourceError(
            f"{name} does not let {shown(settings.user)} in: {text}",
            hint="have the public key put there, or look at key and user of the connection",
        )
    if "Unable to negotiate" in text or "no matching" in text:
        return SourceError(
            f"ssh and {name} have no way of speaking in common: {text}",
            hint="say in `options` of the connection what the server offers, such as HostKeyAlgorithms: +ssh-rsa",
        )
    return SourceError(f"{name} cannot be connected to: {text}", transient=True)
