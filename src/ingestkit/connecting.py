"""A connection put into config/settings.yaml as a line of text, so that what people wrote there stays as it is."""

import copy
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from ingestkit import files, layers
from ingestkit.errors import UsageError
from ingestkit.layers import Origin
from ingestkit.settings import Connection, LocalConnection, Settings, SftpConnection, VaultConnection
from ingestkit.shapes import checked, nearest

VARIABLE = "VAULT_PASSWORD"
"""The variable that a new connection of a Vault reads its password from."""


def _folder(url: str) -> Mapping[str, Any]:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise UsageError(f"{url!r} is of another machine", hint="a folder of this one: file:///srv/drop, or /srv/drop")
    return {"type": "local", "path": unquote(parts.path) if parts.scheme else url}


def _server(url: str) -> Mapping[str, Any]:
    parts = urlsplit(url)
    if parts.password is not None:
        raise UsageError("a password does not belong into an address", hint="say it as password: ${env:NAME} instead")
    if not parts.hostname or not parts.username:
        raise UsageError(f"{url!r} does not say who logs in where", hint="sftp://USER@HOST/FOLDER")
    try:
        port = {} if parts.port is None else {"port": parts.port}
    except ValueError as error:
        raise UsageError(f"{url!r} says no port: {error}") from error
    path = unquote(parts.path)
    # As everywhere: what begins so is relative to where the login leads.
    path = path.removeprefix("/~/") or "."
    login = {"host": parts.hostname, **port, "user": unquote(parts.username)}
    return {"type": "sftp", **login, "path": path, "key": "~/.ssh/id_ed25519"}


def _vault(url: str) -> Mapping[str, Any]:
    parts = urlsplit(url)
    if parts.password is not None:
        raise UsageError("a password does not belong into an address", hint=f"it is read from ${VARIABLE}")
    if not parts.hostname or not parts.username or parts.path not in ("", "/"):
        raise UsageError(f"{url!r} does not say who logs in where", hint="https://USER@DOMAIN@HOST")
    dns = parts.netloc.rpartition("@")[2]
    return {"type": "vault", "dns": dns, "username": unquote(parts.username), "password": f"${{env:{VARIABLE}}}"}


# What makes a connection of an address, by the type of the source and the scheme of its addresses.
SCHEMES: Mapping[str, Mapping[str, Callable[[str], Mapping[str, Any]]]] = {
    "files": {"": _folder, "file": _folder, "sftp": _server},
    "vault": {"https": _vault},
}


def connection_of(kind: str, url: str) -> Mapping[str, Any]:
    """The settings of a connection that a source of this kind reads from."""
    if kind not in SCHEMES:
        raise UsageError(f"there is no source of type {kind!r}{nearest(kind, SCHEMES)}")
    scheme = urlsplit(url).scheme if "://" in url else ""
    if scheme not in SCHEMES[kind]:
        known = ", ".join(f"{one}://" for one in SCHEMES[kind] if one)
        folders = "folders and " if "" in SCHEMES[kind] else ""
        place = f"{scheme}://" if scheme else "a folder"
        raise UsageError(f"no source of type {kind} reads from {place}; known are {folders}{known}")
    made = SCHEMES[kind][scheme](url)
    _, wrong = checked(Settings, layers.built({"connections": {"it": made}}, Origin("flag", "--url")))
    if wrong or not url.strip():
        raise UsageError("; ".join(wrong) or "--url says no place")
    return made


def is_vault(connection: Connection | None) -> bool:
    return isinstance(connection, VaultConnection)


def require_source(connections: Mapping[str, Connection], name: str) -> None:
    """Refuse a connection that a source cannot read from, before a pipeline that names it is written."""
    held = connections.get(name)
    if isinstance(held, LocalConnection | SftpConnection):
        return
    usable = [
        one for one, its in connections.items() if one != "lake" and isinstance(its, LocalConnection | SftpConnection)
    ]
    others = "".join(f", or: --connection {one}" for one in usable)
    if held is None:
        raise UsageError(
            f"the project has no connection {name!r} for the files to come from",
            hint=f"add it: ingestkit new source {name} --url FOLDER{others}",
        )
    raise UsageError(
        f"connection {name!r} is of type {held.type}, and no source reads from it",
        hint=f"add another one: ingestkit new source NAME --url FOLDER{others}",
    )


def connect(path: Path, profile: str, name: str, connection: Mapping[str, Any]) -> tuple[str, str]:
    """Add a connection to a settings file; below which keys, and the line that was put there.

    Refused where the file would come to say anything else than before besides it: then a person has to do it.
    """
    path = path.resolve()
    before = path.read_bytes().decode()
    tree = layers.plain(layers.read_text(before.removeprefix("\ufeff"), path.name, "file"))
    line = f"{name}: {_flow(connection)}"
    for keys in (("profiles", profile, "connections"), ("connections",)):
        held = tree
        for key in keys:
            held = held.get(key) if isinstance(held, dict) else None
        if isinstance(held, dict):
            break
    else:
        raise _by_hand(path, f"it has no connections of profile {profile}", ("connections",), line)
    wanted = copy.deepcopy(tree)
    _below(wanted, keys)[name] = dict(connection)
    after = _with_line(before, keys, line)
    if after is None or path.suffix == ".json" or _said(after) != wanted:
        raise _by_hand(path, "no line can be put there without changing what else it says", keys, line)
    mode = stat.S_IMODE(path.stat().st_mode)
    files.replace_whole(path, after.encode())
    path.chmod(mode)
    return ".".join(keys), line


def _with_line(text: str, keys: tuple[str, ...], line: str) -> str | None:
    """The text with a line behind the last of a mapping's; None where that is written within braces."""
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    for key in keys:
        node = next((value for name, value in node.value if name.value == key), None)
    if not isinstance(node, yaml.MappingNode) or node.flow_style or not node.value:
        return None
    lines = text.splitlines(keepends=True)
    end = "\r\n" if lines[0].endswith("\r\n") else "\n"
    place = _last_line(node) + 1
    above = "".join(lines[:place])
    indent = " " * node.value[0][0].start_mark.column
    return f"{above}{'' if above.endswith(end) else end}{indent}{line}{end}{''.join(lines[place:])}"


def _last_line(node: yaml.Node) -> int:
    """The line on which a value ends; those below a block that are empty or comments are not its own."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _last_line(last[1] if isinstance(last, tuple) else last)
    ends: yaml.Mark = node.end_mark
    return int(ends.line) if ends.column else int(ends.line) - 1


def _below(tree: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    for key in keys:
        tree = tree[key]
    return tree


def _said(text: str) -> Any:
    return layers.plain(layers.read_text(text.removeprefix("\ufeff"), "the settings", "file"))


def _flow(connection: Mapping[str, Any]) -> str:
    told: str = yaml.safe_dump(
        dict(connection), default_flow_style=True, sort_keys=False, allow_unicode=True, width=9999
    )
    return told.strip()


def _by_hand(path: Path, why: str, keys: tuple[str, ...], line: str) -> UsageError:
    return UsageError(f"{path} was left as it is: {why}", hint=f"put this below {'.'.join(keys)}: {line}")
