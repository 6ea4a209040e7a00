"""SHOW, as far as a client looks at its tables, rights, parameters, streams, locks and transactions."""

import re
from collections.abc import Callable, Iterable

from tests.doubles.snowflake.account import Account, where
from tests.doubles.snowflake.answers import Data, Refused, compilation, rows, unprivileged
from tests.doubles.snowflake.engine import Asked, executed
from tests.doubles.snowflake.reading import dotted, literal
from tests.doubles.snowflake.sessions import PARAMETERS, Transaction

KIND = 0x4400
SOMEBODY = "SOMEBODY_ELSE"
"""The role that owns what the session's role does not."""


def shown(account: Account, asked: Asked) -> Data:
    what = next(word for word in asked.statement.words[1:] if word != "TERSE")
    known: dict[str, Callable[[Account, Asked], Data]] = {
        "GRANTS": _grants,
        "LOCKS": _locks,
        "PARAMETERS": _parameters,
        "STAGES": _stages,
        "STREAMS": _streams,
        "TABLES": _tables,
        "TRANSACTIONS": _transactions,
        "WAREHOUSES": _warehouses,
    }
    return known[what](account, asked) if what in known else executed(asked)


def _parameters(_: Account, asked: Asked) -> Data:
    known = asked.session.parameters
    said = [(name, value, PARAMETERS.get(name, ""), "SESSION") for name, value in sorted(known.items())]
    return _like(asked, ("key", "value", "default", "level"), said, at=0)


def _stages(account: Account, asked: Asked) -> Data:
    here = _place(asked)
    seen = account.rights.sees
    known = [one for one in account.stages.known.values() if one.name[:2] == here and seen("STAGE", dotted(one.name))]
    role = asked.session.role
    owners = [role if account.rights.owns("STAGE", dotted(one.name)) else SOMEBODY for one in known]
    said = [(one.name[2], *one.name[:2], one.url, owner) for one, owner in zip(known, owners, strict=True)]
    return _like(asked, ("name", "database_name", "schema_name", "url", "owner"), said, at=0)


def _streams(account: Account, asked: Asked) -> Data:
    """Those on tables of the session's schema, or of its database, or of the whole account."""
    within = re.search(r"\bIN\s+(ACCOUNT|DATABASE)\b", asked.statement.text, re.IGNORECASE)
    parts = {"ACCOUNT": 0, "DATABASE": 1}[within[1].upper()] if within else 2
    here = "".join(f"{part}." for part in where(asked.session)[:parts])
    return _like(asked, ("name", "table_name"), [one for one in account.streams if one[1].startswith(here)], at=0)


def _warehouses(account: Account, asked: Asked) -> Data:
    return _like(asked, ("name", "state"), [(one, "STARTED") for one in account.warehouses], at=0)


def _transactions(account: Account, asked: Asked) -> Data:
    """Those of the user; the account's are for its administrators, of whom there is none here."""
    if asked.statement.words[2:4] == ("IN", "ACCOUNT"):
        raise unprivileged("account", account.name)
    names = ("id", "user", "session", "name", "started_on", "state", "scope")
    theirs = [one for one in account.sessions.values() if one.user == asked.session.user]
    found = [one.transaction for one in theirs if one.transaction is not None]
    return rows(names, [(*_described(one), 0) for one in found], ("id", "session", "scope"), KIND)


def transaction(account: Account, asked: Asked, number: int) -> Data:
    """One of the user's, which may have ended."""
    found = account.transactions.get(number)
    if found is None or found.session.user != asked.session.user:
        raise Refused(2003, "02000", f"Transaction {number} does not exist.")
    return rows(("id", "user", "session", "name", "started_on", "state"), [_described(found)], ("id", "session"), KIND)


def _described(one: Transaction) -> tuple[object, ...]:
    return (one.number, one.session.user, one.session.number, one.name, one.started.isoformat(), one.state)


def _locks(account: Account, _: Asked) -> Data:
    names = ("resource", "type", "transaction", "transaction_started_on", "status", "acquired_on", "query_id")
    said: list[tuple[object, ...]] = [
        (dotted(on), "PARTITIONS", one.number, one.started, "HOLDING", at, query)
        for on, (one, query, at) in account.locks.holders.items()
    ]
    said += [
        (dotted(on), "PARTITIONS", one.number, one.started, "WAITING", None, None)
        for on, waiting in account.locks.waiting.items()
        for one in waiting
    ]
    return rows(names, said, ("transaction",), KIND)


def _tables(account: Account, asked: Asked) -> Data:
    names = ("created_on", "name", "database_name", "schema_name", "kind", "rows", "owner", "error_logging")
    said = []
    for database, schema, name, temporary, count in _known_tables(asked):
        if not account.rights.sees("TABLE", f"{database}.{schema}.{name}"):
            continue
        logged = "ON" if (database, schema, name) in account.error_logging else "OFF"
        kind = "TEMPORARY" if temporary else "TABLE"
        owner = asked.session.role if account.rights.owns("TABLE", f"{database}.{schema}.{name}") else SOMEBODY
        said.append(("", name, database, schema, kind, count, owner, logged))
    return _like(asked, names, said, at=1, numbers=("rows",))


def _schema(asked: Asked) -> tuple[str | None, str | None]:
    """That which the statement names, or the session's."""
    found = re.search(r"\bIN\s+(?:SCHEMA\s+)?([\w$\".]+)", asked.statement.text, re.IGNORECASE)
    database, schema = where(asked.session)
    if found and found[1].upper() not in {"ACCOUNT", "DATABASE"}:
        parts = [part.strip('"') if part.startswith('"') else part.upper() for part in found[1].split(".")]
        return (parts[0], parts[1]) if len(parts) > 1 else (database, parts[0])
    return database, schema


def _place(asked: Asked) -> tuple[str | None, str | None]:
    """The same, which must be there."""
    database, schema = _schema(asked)
    here = f"database_name = {literal(database or '')} AND schema_name = {literal(schema or '')}"
    duck = asked.session.fake._duck_conn
    if not duck.execute(f"SELECT 1 FROM duckdb_schemas() WHERE {here}").fetchall():
        raise compilation("Object does not exist, or operation cannot be performed.", 2043, "02000")
    return database, schema


def _known_tables(asked: Asked) -> list[tuple[str, str, str, bool, int]]:
    database, schema = _place(asked)
    sql = f"""
        SELECT database_name, schema_name, table_name, temporary, estimated_size FROM duckdb_tables()
        WHERE database_name = {literal(database or "")} AND schema_name = {literal(schema or "")}
        ORDER BY table_name
    """
    return asked.session.fake._duck_conn.execute(sql).fetchall()


def _grants(account: Account, asked: Asked) -> Data:
    names = ("created_on", "privilege", "granted_on", "name", "granted_to", "grantee_name", "grant_option")
    words = asked.statement.words
    if words[2:4] == ("TO", "USER"):
        said = [("", one, "", asked.session.user, "") for one in account.roles]
        return rows(("created_on", "role", "granted_to", "grantee_name", "granted_by"), said, kind=KIND)
    session = asked.session
    database, schema = where(session)
    things = [("WAREHOUSE", name) for name in account.warehouses]
    if database:
        things.append(("DATABASE", database))
    if database and schema:
        things.append(("SCHEMA", f"{database}.{schema}"))
        things += [("TABLE", ".".join(row[:3])) for row in _known_tables_here(asked)]
        things += [("STAGE", dotted(name)) for name in account.stages.known]
    given = account.rights.shown(things, session.role)
    if words[2:3] == ("ON",):
        on = re.search(r"\bON\s+(\w+)\s+([\w$\".]+)", asked.statement.text, re.IGNORECASE)
        wanted = on[2].upper().replace('"', "") if on else ""
        given = [one for one in given if on and one[1] == on[1].upper() and f".{one[2]}".endswith(f".{wanted}")]
    return rows(names, [("", *one, "false") for one in given], kind=KIND)


def _known_tables_here(asked: Asked) -> list[tuple[str, str, str]]:
    database, schema = where(asked.session)
    here = f"database_name = {literal(database or '')} AND schema_name = {literal(schema or '')}"
    sql = (
        f"SELECT database_name, schema_name, table_name FROM duckdb_tables() WHERE {here} AND NOT temporary ORDER BY 3"
    )
    return asked.session.fake._duck_conn.execute(sql).fetchall()


def _like(
    asked: Asked, names: tuple[str, ...], said: Iterable[tuple[object, ...]], at: int, numbers: tuple[str, ...] = ()
) -> Data:
    """Those whose name fits LIKE, where that is said; upper and lower case are one."""
    found = re.search(r"\bLIKE\s+'((?:[^']|'')*)'", asked.statement.text, re.IGNORECASE)
    if found is None:
        return rows(names, said, numbers, KIND)
    pattern = re.sub(r"\\\\(.)", r"\\\1", found[1].replace("''", "'"))
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    meant = {"%": ".*", "_": "."}
    fitting = re.compile("".join(meant.get(part, re.escape(part[-1])) for part in parts), re.IGNORECASE | re.DOTALL)
    return rows(names, [row for row in said if fitting.fullmatch(str(row[at]))], numbers, KIND)
