"""An SFTP server within the test, for what OpenSSH's does not do here: let in by password, refuse, lose an answer."""

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
from paramiko.message import Message
from paramiko.sftp import CMD_EXTENDED, CMD_INIT, CMD_VERSION, SFTP_OK

from ingestkit.sources import ssh
from ingestkit.sources.hostkeys import HostKey
from ingestkit.sources.sftp_client import LIMITS, SPOKEN


@dataclass(slots=True)
class SftpDouble:
    """What the server asks for and what befalls its answers. It shows the folders of this machine, and writes no file.

    It names the extension that tells its limits, as some servers do, and knows nothing of it when it is asked.
    """

    port: int
    host_key: paramiko.PKey
    password: str | None
    """What lets in. Where there is none, any key does."""
    loses: set[int] = field(default_factory=set)
    """Of what changes something, counted from 1: it is done, and the connection cut in place of the answer."""
    changes: int = 0
    asked_limits: int = 0

    @property
    def fingerprint(self) -> str:
        return HostKey(self.host_key.get_name(), self.host_key.asbytes()).fingerprint


class _Gate(paramiko.ServerInterface):
    def __init__(self, double: SftpDouble, transport: paramiko.Transport) -> None:
        self.double, self.transport = double, transport

    def check_auth_password(self, username: str, password: str) -> int:
        right = password == self.double.password
        return paramiko.common.AUTH_SUCCESSFUL if right else paramiko.common.AUTH_FAILED

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        right = self.double.password is None
        return paramiko.common.AUTH_SUCCESSFUL if right else paramiko.common.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey" if self.double.password is None else "publickey,password"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED


class _Sftp(paramiko.SFTPServer):
    """paramiko's server, but for what it names in its greeting."""

    def _send_server_version(self) -> int:
        kind, _ = self._read_packet()  # type: ignore[attr-defined]
        assert kind == CMD_INIT
        greeting = Message()
        greeting.add_int(SPOKEN)
        greeting.add_string(LIMITS)
        greeting.add_string("1")
        self._send_packet(CMD_VERSION, greeting)  # type: ignore[attr-defined]
        return SPOKEN

    def _process(self, kind: int, number: int, content: Message) -> None:
        if kind == CMD_EXTENDED:
            assert isinstance(self.server, _Folders)
            self.server.gate.double.asked_limits += 1
        super()._process(kind, number, content)  # type: ignore[misc]


class _Opened(paramiko.SFTPHandle):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.readfile = Path(path).open("rb")  # noqa: SIM115 - closed by what it inherits

    def stat(self) -> paramiko.SFTPAttributes | int:
        return paramiko.SFTPAttributes.from_stat(os.fstat(self.readfile.fileno()))


class _Folders(paramiko.SFTPServerInterface):
    def __init__(self, gate: _Gate) -> None:
        super().__init__(gate)
        self.gate = gate

    def canonicalize(self, path: str) -> str:
        return os.path.realpath(path)

    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> paramiko.SFTPHandle | int:
        try:
            return _Opened(path)
        except OSError as error:
            return _code(error)

    def list_folder(self, path: str) -> list[paramiko.SFTPAttributes] | int:
        try:
            return [paramiko.SFTPAttributes.from_stat(one.lstat(), one.name) for one in Path(path).iterdir()]
        except OSError as error:
            return _code(error)

    def stat(self, path: str) -> paramiko.SFTPAttributes | int:
        try:
            return paramiko.SFTPAttributes.from_stat(Path(path).stat())
        except OSError as error:
            return _code(error)

    def lstat(self, path: str) -> paramiko.SFTPAttributes | int:
        try:
            return paramiko.SFTPAttributes.from_stat(Path(path).lstat())
        except OSError as error:
            return _code(error)

    def rename(self, oldpath: str, newpath: str) -> int:
        def renamed() -> None:
            if os.path.lexists(newpath):
                # As the standard has it, whatever this machine's rename does.
                raise FileExistsError(errno.EEXIST, "taken")
            Path(oldpath).rename(newpath)

        return self._changed(renamed)

    def remove(self, path: str) -> int:
        return self._changed(Path(path).unlink)

    def mkdir(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        return self._changed(Path(path).mkdir)

    def _changed(self, change: Callable[[], None]) -> int:
        try:
            change()
        except OSError as error:
            return _code(error)
        double = self.gate.double
        double.changes += 1
        if double.changes in double.loses:
            self.gate.transport.close()
        return SFTP_OK


def _code(error: OSError) -> int:
    return paramiko.SFTPServer.convert_errno(error.errno or 0)


@contextmanager
def sftp_double(password: str | None = None) -> Iterator[SftpDouble]:
    """A server that is gone afterwards, with a host key of its own."""
    transports: list[paramiko.Transport] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        double = SftpDouble(listener.getsockname()[1], paramiko.ECDSAKey.generate(), password)

        def serve() -> None:
            while True:
                try:
                    link, _ = listener.accept()
                except OSError:
                    return
                transport = paramiko.Transport(link)
                transport.set_log_channel(ssh.SILENT)
                transport.add_server_key(double.host_key)
                gate = _Gate(double, transport)
                transport.set_subsystem_handler("sftp", _Sftp, _Folders)
                transports.append(transport)
                transport.start_server(threading.Event(), gate)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield double
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for one in transports:
                one.close()
