"""Who logs in to a Snowflake account and where, as a connection says it; nothing is asked of the service here."""

import shlex
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, SECP521R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ingestkit.errors import ConfigError
from ingestkit.files import shown
from ingestkit.settings import SnowflakeConnection
from ingestkit.warehouses.snowflake_session import Account
from ingestkit.warehouses.snowflake_sql import Names

CURVES = (SECP256R1, SECP384R1, SECP521R1)
RSA = "make one of RSA: openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out loader.p8"


def account_of(connection: SnowflakeConnection, root: Path) -> Account:
    """The account of a connection whose references are resolved."""
    names = Names(exact=connection.names == "exact")
    said = {
        "account": connection.account,
        "user": connection.user,
        "role": connection.role,
        "warehouse": connection.warehouse,
        # Quoted, since else they would be taken in upper case.
        "database": names.one(connection.database),
        "schema": names.one(connection.schema_),
        "login_timeout": round(connection.login_timeout.total_seconds()),
        "network_timeout": round(connection.network_timeout.total_seconds()),
        "socket_timeout": round(connection.answer_timeout.total_seconds()),
        "application": "ingestkit",
        **_identity(connection, root),
        **_endpoint(connection),
    }
    return Account(
        f"snowflake {connection.account}/{connection.database}.{connection.schema_}",
        connection.database,
        connection.schema_,
        names,
        connection.lock_timeout.total_seconds(),
        connection.statement_timeout.total_seconds(),
        connection.network_timeout.total_seconds(),
        connection.answer_timeout.total_seconds(),
        {key: value for key, value in said.items() if value is not None},
    )


def _endpoint(connection: SnowflakeConnection) -> dict[str, Any]:
    if connection.endpoint is None:
        return {}
    place = urlsplit(connection.endpoint)
    return {"protocol": place.scheme, "host": place.hostname, "port": place.port}


def _identity(connection: SnowflakeConnection, root: Path) -> dict[str, Any]:
    match connection.login:
        case "oauth":
            return {"authenticator": "oauth", "token": connection.token}
        case "browser":
            if not sys.stdin.isatty():
                raise ConfigError(
                    "a login by browser needs a person at a terminal",
                    hint="set login: key_pair and private_key in the connection",
                )
            return {"authenticator": "externalbrowser"}
    if connection.private_key is None:
        raise ConfigError("private_key is missing: login is key_pair", hint="name the key's file: private_key")
    key = _private_key(root / connection.private_key, connection.passphrase)
    return {"authenticator": "SNOWFLAKE_JWT", "private_key": key}


def _private_key(file: Path, passphrase: str | None) -> PrivateKeyTypes:
    look = f"look at it: openssl pkey -noout -in {shlex.quote(shown(file))}"
    try:
        key = load_pem_private_key(file.read_bytes(), passphrase.encode() if passphrase else None)
        if _taken(key):
            return key
        problem, cure = "is of a kind that Snowflake does not take", RSA
    except OSError as error:
        problem, cure = f"cannot be read: {error.strerror}", "look at `private_key` of the connection"
    except TypeError:
        # What cryptography says when one is wanted, or is said where none is.
        wanted = passphrase is None
        problem = "needs its passphrase" if wanted else "is not encrypted, but a passphrase is said"
        cure = "say it: passphrase: ${env:...}" if wanted else "take `passphrase` out of the connection"
    except (ValueError, UnsupportedAlgorithm):
        # These may quote what was read.
        unread = "cannot be read with the passphrase that was said"
        problem, cure = unread if passphrase else "is no private key in PEM", look
    raise ConfigError(f"key {shown(file)} {problem}", hint=cure)


def _taken(key: PrivateKeyTypes) -> bool:
    """Whether the service verifies what such a key signs."""
    return isinstance(key, RSAPrivateKey) or (
        isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, CURVES)
    )
