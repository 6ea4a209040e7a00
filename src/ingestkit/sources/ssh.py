"""A connection to an SFTP server: its host key is checked before anything is said, then the login, then SFTP."""

import logging
import shlex
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from io import StringIO
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from paramiko.ssh_exception import IncompatiblePeer, PasswordRequiredException

from ingestkit.errors import ConfigError, SourceError
from ingestkit.files import shown
from ingestkit.settings import SftpConnection
from ingestkit.sources import hostkeys, openssh
from ingestkit.sources.hostkeys import HostKey
from ingestkit.sources.sftp_client import LOST, Client

SILENT = "ingestkit.paramiko"
# How paramiko tells a login that was refused from one that had no answer.
NO_ANSWER = ("timeout", "EOF")
# Under which names a server may sign with an RSA key; its key is of the one type all the same.
ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}


@dataclass(frozen=True, slots=True)
class Server:
    """How a server is reached, with its secrets resolved; `pipeline` and `connection` are for messages."""

    settings: SftpConnection
    root: Path
    """The project's folder, which files are relative to."""
    connection: str
    pipeline: str

    @property
    def name(self) -> str:
        host, port = self.settings.host, self.settings.port
        return shown(host if port == 22 else f"{host}:{port}")

    @property
    def known_hosts(self) -> Path:
        return self.root / self.settings.known_hosts.expanduser()

    def known(self) -> tuple[HostKey, ...]:
        return hostkeys.known(self.known_hosts, self.settings.host, self.settings.port)

    def key_files(self) -> tuple[Path, ...]:
        return tuple(self.root / Path(one).expanduser() for one in self.settings.key)


def connecting(server: Server) -> Callable[[], Client]:
    """What makes a connection. SourceError when the server is not the one that is known, or does not let us in."""
    if server.settings.engine == "openssh":
        # Keys of which only the fingerprints are said are fetched once.
        return partial(_by_openssh, server, cache(partial(_trusted, server)))
    return partial(_by_paramiko, server)


def presented(server: Server) -> tuple[HostKey, ...]:
    """The host keys that the server shows now, known or not."""
    if server.settings.engine == "openssh":
        return openssh.scanned(server.settings, server.name)
    with _greeted(server) as transport:
        return (_host_key(transport),)


def is_trusted(server: Server, key: HostKey) -> bool:
    if server.settings.host_keys:
        return key.fingerprint in {one.rstrip("=") for one in server.settings.host_keys}
    return key in server.known()


def pin(server: Server, keys: Sequence[HostKey]) -> Path:
    """Trust these keys from now on; the file they were written to."""
    hostkeys.pin(server.known_hosts, server.settings.host, server.settings.port, keys)
    return server.known_hosts


def _by_openssh(server: Server, trusted: Callable[[], Sequence[HostKey]]) -> Client:
    return openssh.connected(
        server.settings, server.name, server.key_files(), trusted(), lambda: _stranger(server, presented(server))
    )


def _trusted(server: Server) -> Sequence[HostKey]:
    if not server.settings.host_keys and (known := server.known()):
        return known
    seen = presented(server)
    trusted = tuple(key for key in seen if is_trusted(server, key))
    if not trusted:
        raise _stranger(server, seen)
    return trusted


class _NotKnownError(Exception):
    """The server shows a key that is not known; it may have others."""

    def __init__(self, key: HostKey) -> None:
        super().__init__(key.fingerprint)
        self.key = key


def _by_paramiko(server: Server) -> Client:
    seen: list[HostKey] = []
    while True:
        try:
            return _connected(server, but=[key.type for key in seen])
        except _NotKnownError as unknown:
            # Which type of key a fingerprint is of it does not tell, so that each there is has to be seen.
            if not server.settings.host_keys or unknown.key in seen:
                raise _stranger(server, [*seen, unknown.key]) from None
            seen.append(unknown.key)
        except SourceError as error:
            if not seen or not isinstance(error.__cause__, IncompatiblePeer):
                raise
            raise _stranger(server, seen) from None


def _connected(server: Server, *, but: Sequence[str]) -> Client:
    """A connection to a server that shows a known key, asked for a key of another type than these."""
    settings = server.settings
    with _greeted(server, keep=True, but=but) as transport:
        key = _host_key(transport)
        if not is_trusted(server, key):
            raise _NotKnownError(key)
        _log_in(server, transport)
        transport.set_keepalive(int(settings.keepalive.total_seconds()))
        try:
            client = Client.from_transport(transport)
        except paramiko.ChannelException as error:
            raise SourceError(f"{server.name} gives {settings.user} no SFTP: {error}") from error
        assert isinstance(client, Client)
        channel = client.get_channel()
        assert channel is not None
        channel.settimeout(settings.answer_timeout.total_seconds())
        client.end = transport.close
    return client


@contextmanager
def _greeted(server: Server, *, keep: bool = False, but: Sequence[str] = ()) -> Iterator[paramiko.Transport]:
    """A transport that has exchanged keys, and closed behind the block but where it is to be kept after success."""
    settings, transport, whole = server.settings, None, False
    with _translated(server):
        try:
            within = settings.connect_timeout.total_seconds()
            link = socket.create_connection((settings.host, settings.port), timeout=within)
            # Many small requests go out, and none is to wait for the answer to the one before.
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport = paramiko.Transport(link)
            # It logs whole tracebacks of what it raises anyway.
            logging.getLogger(SILENT).setLevel(logging.CRITICAL + 1)
            transport.set_log_channel(SILENT)
            transport.banner_timeout = transport.handshake_timeout = within
            transport.auth_timeout = settings.login_timeout.total_seconds()
            transport.channel_timeout = settings.answer_timeout.total_seconds()
            _prefer_known(server, transport, but)
            transport.start_client(timeout=within)
            yield transport
            whole = keep
        finally:
            if transport is not None and not whole:
                transport.close()


def _prefer_known(server: Server, transport: paramiko.Transport, but: Sequence[str]) -> None:
    """Ask first for the types of key that are known of the server, or it shows another one; not for some at all."""
    options = transport.get_security_options()
    left_out = [name for one in but for name in ALGORITHMS.get(one, (one,))]
    known = [name for key in server.known() for name in ALGORITHMS.get(key.type, (key.type,))]
    wanted = [one for one in options.key_types if one not in left_out]
    options.key_types = sorted(wanted, key=lambda one: one not in known)


def _host_key(transport: paramiko.Transport) -> HostKey:
    key = transport.get_remote_server_key()
    return HostKey(key.get_name(), key.asbytes())


@contextmanager
def _translated(server: Server) -> Iterator[None]:
    settings = server.settings
    try:
        yield
    except IncompatiblePeer as error:
        raise SourceError(
            f"{server.name} speaks only what is too old for paramiko: {error}",
            hint=f"set engine: openssh in connection {server.connection}, with what it needs, such as "
            "options: {HostKeyAlgorithms: +ssh-rsa}",
        ) from error
    except socket.gaierror as error:
        raise SourceError(
            f"there is no address of {server.name}: {error.strerror}",
            hint=f"look at `host` of connection {server.connection}",
            transient=error.errno == socket.EAI_AGAIN,
        ) from error
    except ConnectionRefusedError as error:
        raise SourceError(
            f"{server.name} refuses connections", hint=f"is it up, and port {settings.port} right?", transient=True
        ) from error
    except (*LOST, OSError) as error:
        raise SourceError(
            f"{server.name} cannot be connected to: {shown(str(error) or type(error).__name__)}",
            hint=f"try it by hand: {by_hand(server)}",
            transient=True,
        ) from error


def by_hand(server: Server) -> str:
    settings = server.settings
    port = f"-P {settings.port} " if settings.port != 22 else ""
    return f"sftp {port}{shlex.quote(f'{settings.user}@{settings.host}')}"


def _stranger(server: Server, keys: Sequence[HostKey]) -> SourceError:
    """The server's key is not one we know: it may be another server in its place."""
    seen = " or ".join(f"{key.fingerprint} ({key.type})" for key in keys) or "no key"
    hint = f"ask its operator for the fingerprint, then: ingestkit check {server.pipeline} --pin"
    if server.settings.host_keys:
        return SourceError(
            f"{server.name} shows host key {seen}, which is none of host_keys in connection {server.connection}",
            hint="ask its operator; if the server has a new key, add its fingerprint there",
        )
    known = ", ".join(key.fingerprint for key in server.known())
    if known:
        return SourceError(
            f"the host key of {server.name} has changed: it shows {seen}, and {known} is known", hint=hint
        )
    return SourceError(f"the host key of {server.name} is unknown: it shows {seen}", hint=hint)


def _log_in(server: Server, transport: paramiko.Transport) -> None:
    """By each key that was named in turn, then the agent's where they are asked for, then the password."""
    user, refused = server.settings.user, None
    for attempt in _attempts(server, transport):
        try:
            left = attempt(user)
        except paramiko.AuthenticationException as error:
            if any(word in str(error) for word in NO_ANSWER):
                raise paramiko.SSHException(str(error)) from error
            refused = error
            continue
        if not left:
            return
    tried = [f"key {shown(one)}" for one in server.settings.key]
    tried += ["the agent's keys"] if server.settings.agent else []
    tried += ["the password"] if server.settings.password else []
    raise SourceError(
        f"{server.name} does not let {shown(user)} in by {', '.join(tried)}",
        hint=f"have the public key put there, or look at key and user of connection {server.connection}",
    ) from refused


def _attempts(server: Server, transport: paramiko.Transport) -> Iterator[Callable[[str], Sequence[str]]]:
    for path in server.key_files():
        key = _private_key(server, path)
        yield lambda user, key=key: transport.auth_publickey(user, key)  # type: ignore[misc]
    if server.settings.agent:
        agent = paramiko.Agent()
        try:
            for held in agent.get_keys():
                yield lambda user, held=held: transport.auth_publickey(user, held)  # type: ignore[misc]
        finally:
            agent.close()
    if (password := server.settings.password) is not None:
        yield lambda user: transport.auth_password(user, password)


def _private_key(server: Server, path: Path) -> paramiko.PKey:
    """A private key of a file, in whichever of the usual forms it is written."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"key {shown(path)} of connection {server.connection} cannot be read: {error.strerror}",
            hint=f"ls -l {shlex.quote(shown(path))}",
        ) from error
    passphrase = server.settings.passphrase
    try:
        loaded = _decoded(content, passphrase.encode() if passphrase else None)
        plain = loaded.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        ).decode()
        kinds: dict[type, type[paramiko.PKey]] = {
            rsa.RSAPrivateKey: paramiko.RSAKey,
            ed25519.Ed25519PrivateKey: paramiko.Ed25519Key,
            ec.EllipticCurvePrivateKey: paramiko.ECDSAKey,
        }
        kind = next(made for of, made in kinds.items() if isinstance(loaded, of))
        return kind.from_private_key(StringIO(plain))
    except PasswordRequiredException:
        problem, cure = "needs its passphrase", "say it: passphrase: ${env:...}"
    except (ValueError, TypeError, StopIteration, paramiko.SSHException):
        # What these say may quote what was read.
        problem, cure = "is no private key that can be read", "look at it: ssh-keygen -y -f"
        if passphrase:
            problem = "cannot be read with the passphrase that was said"
    raise ConfigError(
        f"key {shown(path)} of connection {server.connection} {problem}",
        hint=cure if cure.startswith("say") else f"{cure} {shlex.quote(shown(path))}",
    )


def _decoded(
    content: bytes, passphrase: bytes | None
) -> rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey:
    load = serialization.load_ssh_private_key if b"OPENSSH PRIVATE" in content else serialization.load_pem_private_key
    loaded: object
    try:
        loaded = load(content, password=passphrase)
    except (TypeError, ValueError) as error:
        if passphrase is None and ("encrypted" in str(error) or isinstance(error, TypeError)):
            raise PasswordRequiredException("encrypted") from None
        # Of two keys only one may have a passphrase.
        if not isinstance(error, TypeError) and "not encrypted" not in str(error):
            raise
        loaded = load(content, password=None)
    if not isinstance(loaded, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
        raise ValueError("of a kind that is not used any more")
    return loaded
