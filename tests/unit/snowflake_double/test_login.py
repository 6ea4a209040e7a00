"""Who is let in, what he may do and look at, and what is written down of him."""

import base64
import contextlib
import hashlib
import json
import time
import urllib.request
import webbrowser
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from snowflake.connector import SnowflakeConnection
from snowflake.connector.errors import DatabaseError, ProgrammingError

from tests.snowflake_server import SnowflakeServer, answered, asked, brings, error_code, key_pair

pytestmark = [pytest.mark.services, pytest.mark.slow]


def test_a_key_pair_is_verified(server: SnowflakeServer, tmp_path: Path) -> None:
    """A wrong key is told apart from a user and an account that nobody knows."""
    with contextlib.closing(server.connect()) as link:
        said = asked(link, "SELECT CURRENT_USER(), CURRENT_ROLE(), CURRENT_WAREHOUSE()")
        assert said == [("LOADER", "LOADER", "LOADING")]
    key_pair(tmp_path / "other.p8")
    wrong = ({"private_key_file": str(tmp_path / "other.p8")}, {"user": "NOBODY"}, {"account": "elsewhere"})
    for more, number in zip(wrong, (394_304, 394_304, 390_144), strict=True):
        with pytest.raises(DatabaseError, match="JWT token is invalid") as refused:
            server.connect(**more)
        assert refused.value.errno == number
    assert server.logins[-1]["LOGIN_NAME"] == "LOADER"
    assert "TOKEN" not in server.logins[-1]


@pytest.mark.parametrize(
    ("signer", "seconds", "number"), [("loader", 60, None), ("forged", 60, "390144"), ("loader", -60, "390144")]
)
def test_a_token_of_a_key_is_refused_that_is_forged_or_too_old(
    server: SnowflakeServer, tmp_path: Path, signer: str, seconds: int, number: str | None
) -> None:
    key_pair(tmp_path / "forged.p8")
    key = load_pem_private_key(server.private_key.read_bytes(), None)
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    print_of_key = base64.b64encode(hashlib.sha256(key.public_key().public_bytes(*form)).digest()).decode()
    now = int(time.time())
    said = {"iss": f"INGESTKIT.LOADER.SHA256:{print_of_key}", "sub": "INGESTKIT.LOADER", "iat": now - 120}
    file = server.private_key if signer == "loader" else tmp_path / "forged.p8"
    token = jwt.encode(said | {"exp": now + seconds}, file.read_text(), "RS256")
    login = {"LOGIN_NAME": "loader", "AUTHENTICATOR": "SNOWFLAKE_JWT", "TOKEN": token}
    address = f"http://{server.host}:{server.port}/session/v1/login-request"
    with urllib.request.urlopen(address, json.dumps({"data": login}).encode()) as answer:
        assert json.load(answer).get("code") == number


def test_a_key_in_a_file_with_a_password_opens_the_account_once_its_public_half_is_known(
    server: SnowflakeServer, tmp_path: Path
) -> None:
    server.knows("ROTATED", public_keys=[key_pair(tmp_path / "old.p8"), key_pair(tmp_path / "new.p8", b"secret")])
    for name, password in (("old.p8", None), ("new.p8", "secret")):
        server.connect(user="ROTATED", private_key_file=str(tmp_path / name), private_key_file_pwd=password).close()


def test_a_token_is_compared_and_may_be_expired(server: SnowflakeServer) -> None:
    server.knows("BEARER", token="of-bearer")
    said = {"user": "BEARER", "authenticator": "oauth", "private_key_file": None}
    server.connect(**said, token="of-bearer").close()
    with pytest.raises(DatabaseError, match="Invalid OAuth access token"):
        server.connect(**said, token="of-somebody")
    server.knows("BEARER", token="of-bearer", token_expired=True)
    with pytest.raises(DatabaseError, match="expired"):
        server.connect(**said, token="of-bearer")


def test_a_browser_brings_what_opens_the_account(server: SnowflakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.knows("PERSON", saml="of-a-person")
    said = {"user": "PERSON", "authenticator": "externalbrowser", "private_key_file": None}
    monkeypatch.setattr(webbrowser, "open_new", partial(brings, "of-a-person"))
    server.connect(**said).close()
    monkeypatch.setattr(webbrowser, "open_new", partial(brings, "of-somebody"))
    with pytest.raises(DatabaseError, match="SAML Identity Provider"):
        server.connect(**said)


def test_a_password_opens_the_account_only_of_whom_it_is_written_down(server: SnowflakeServer) -> None:
    server.knows("PERSON", password="secret")
    said = {"authenticator": "snowflake", "private_key_file": None, "password": "secret"}
    server.connect(user="PERSON", **said).close()
    with pytest.raises(DatabaseError, match="Incorrect username or password"):
        server.connect(**said)


def test_a_role_that_is_not_there_refuses_the_login_and_a_warehouse_that_is_not_there_the_first_query(
    server: SnowflakeServer, database: str
) -> None:
    with pytest.raises(DatabaseError, match="Role 'NONE'"):
        server.connect(database, role="NONE")
    with contextlib.closing(server.connect(database, warehouse="NONE")) as link:
        asked(link, "CREATE TABLE t (a NUMBER)")
        assert error_code(link, "SELECT * FROM t") == 606
        asked(link, "USE WAREHOUSE loading")
        assert asked(link, "SELECT * FROM t") == []


def test_every_statement_is_written_down_in_its_order_with_session_and_tag(
    server: SnowflakeServer, connect: Callable[..., SnowflakeConnection]
) -> None:
    before = len(server.sent)
    first = connect(session_parameters={"QUERY_TAG": "run-1", "LOCK_TIMEOUT": 600})
    second = connect()
    assert asked(first, "SHOW PARAMETERS LIKE 'LOCK_TIMEOUT'")[0][1] == "600"
    asked(second, "SELECT 2")
    asked(first, "ALTER SESSION SET QUERY_TAG = 'run-1 load' LOCK_TIMEOUT = 5")
    with pytest.raises(ProgrammingError):
        asked(first, "SELECT * FROM nowhere")
    sent = server.sent[before:]
    assert [(one.sql, one.tag, one.outcome) for one in sent] == [
        ("SHOW PARAMETERS LIKE 'LOCK_TIMEOUT'", "run-1", "done"),
        ("SELECT 2", "", "done"),
        ("ALTER SESSION SET QUERY_TAG = 'run-1 load' LOCK_TIMEOUT = 5", "run-1", "done"),
        ("SELECT * FROM nowhere", "run-1 load", "002003"),
    ]
    assert [one.session == sent[0].session for one in sent] == [True, False, True, True]


def test_a_query_is_known_afterwards_by_its_id(link: SnowflakeConnection) -> None:
    with link.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.sfqid is not None
        assert link.get_query_status(cursor.sfqid).name == "SUCCESS"


def test_two_statements_at_once_are_refused(link: SnowflakeConnection) -> None:
    assert error_code(link, "SELECT 1; SELECT 2") == 8


def test_a_right_that_is_missing_refuses_the_statement_and_is_missing_from_the_grants(
    server: SnowflakeServer, link: SnowflakeConnection, database: str
) -> None:
    server.takes("INSERT", "TABLE", f"{database}.PUBLIC.PEOPLE")
    server.takes("CREATE TABLE", "SCHEMA", f"{database}.PUBLIC")
    assert error_code(link, "INSERT INTO people (id) VALUES (1)") == 3001
    with pytest.raises(ProgrammingError, match="Insufficient privileges") as refused:
        asked(link, "CREATE TABLE other (a NUMBER)")
    assert refused.value.sqlstate == "42501"
    given = {(row["privilege"], row["granted_on"]) for row in answered(link, "SHOW GRANTS TO ROLE loader")}
    assert {("SELECT", "TABLE"), ("UPDATE", "TABLE"), ("CREATE STAGE", "SCHEMA")} < given
    assert not {("INSERT", "TABLE"), ("OWNERSHIP", "TABLE"), ("CREATE TABLE", "SCHEMA")} & given
    asked(link, "DELETE FROM people")
    server.takes("SELECT", "TABLE", f"{database}.PUBLIC.PEOPLE")
    assert error_code(link, "SELECT count(*) FROM people") == 3001
    assert asked(link, "SHOW WAREHOUSES LIKE 'loading'")[0][0] == "LOADING"


def test_tables_that_log_errors_and_streams_are_shown(
    server: SnowflakeServer, database: str, link: SnowflakeConnection
) -> None:
    asked(link, "CREATE TABLE other_one (a NUMBER)")
    asked(link, "ALTER TABLE people SET ERROR_LOGGING = TRUE")
    found = answered(link, "SHOW TABLES LIKE 'PEO%'")
    assert [(row["name"], row["error_logging"]) for row in found] == [("PEOPLE", "ON")]
    (other,) = answered(link, "SHOW TABLES LIKE 'OTHER\\\\_ONE'")
    assert other["error_logging"] == "OFF"
    server.streams("CHANGES", f"{database}.PUBLIC.PEOPLE")
    assert [row["name"] for row in answered(link, "SHOW STREAMS")] == ["CHANGES"]
