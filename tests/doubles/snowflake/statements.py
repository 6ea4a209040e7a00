"""What a statement does, by its kind."""

import datetime as dt
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from tests.doubles.snowflake import altering, loading, showing
from tests.doubles.snowflake.account import Account, note, where, written
from tests.doubles.snowflake.answers import Data, Refused, compilation, hidden, rows, told
from tests.doubles.snowflake.engine import DONE, Asked, demand_lengths, executed, in_context, translated
from tests.doubles.snowflake.leaving import inserted
from tests.doubles.snowflake.merging import merged
from tests.doubles.snowflake.parameters import collated
from tests.doubles.snowflake.reading import NAME, QUALIFIED, Name, Statement, dotted, literal, options, resolved
from tests.doubles.snowflake.sessions import PARAMETERS, Done, Session, Transaction
from tests.doubles.snowflake.stages import CREATED, LISTED

READ: Final = re.compile(rf"\b(?:FROM|JOIN)\s+({QUALIFIED})(?!\s*\()", re.IGNORECASE)
BEGUN: Final = re.compile(rf"(?:BEGIN|START)(?:\s+(?:WORK|TRANSACTION))?(?:\s+NAME\s+(?P<name>{NAME}))?", re.IGNORECASE)
LONGEST_NAME: Final = 255
DESCRIBED: Final = re.compile(rf"DESC(?:RIBE)?\s+STAGE\s+({QUALIFIED})", re.IGNORECASE)
OF_A_TRANSACTION: Final = re.compile(r"DESC(?:RIBE)?\s+TRANSACTION\s+(\d+)", re.IGNORECASE)
ABORT: Final = re.compile(r"SELECT\s+SYSTEM\$ABORT_TRANSACTION\s*\(\s*'?(\d+)'?\s*\)", re.IGNORECASE)


def run(account: Account, asked: Asked) -> Data:
    """What a statement answers; it has the turn, but while it waits for a lock."""
    session = asked.session
    with account.turn, _busy(session), translated():
        if session.aborted is not None:
            number, session.aborted = session.aborted, None
            raise Refused(615, "57014", f"Transaction '{number}' was aborted.")
        transaction = session.transaction
        if transaction is not None and transaction.failed and asked.statement.kind not in {"ROLLBACK", "COMMIT"}:
            raise Refused(617, "57014", "The transaction was aborted by an error; only ROLLBACK is possible.")
        return _run(account, asked)


def _run(account: Account, asked: Asked) -> Data:
    if asked.statement.looks_into_schemas:
        account.rights.enter(*where(asked.session))
    if asked.statement.changes:
        return _change(account, asked)
    if asked.statement.kind in {"SHOW", "DESCRIBE"} and asked.session.transaction is not None:
        raise _stricter("it would silently commit the open transaction, as all DDL does")
    match asked.statement.kind:
        case "SHOW":
            return showing.shown(account, asked)
        case "PUT" | "LIST" | "REMOVE":
            return _on_stage(account, asked)
        case "DDL":
            return _define(account, asked)
        case "BEGIN" | "COMMIT" | "ROLLBACK" | "SESSION":
            return _control(account, asked)
        case "USE" if asked.statement.words[1:] == ("SECONDARY", "ROLES", "NONE"):
            asked.session.secondary = frozenset()
            return told(DONE)
        case "USE" if asked.statement.words[1] in {"ROLE", "WAREHOUSE"}:
            return _use(account, asked.session, *asked.statement.words[1:3])
    return _described(account, asked) or _query(account, asked)


def _described(account: Account, asked: Asked) -> Data | None:
    session = asked.session
    if found := DESCRIBED.fullmatch(asked.statement.text):
        stage, _ = account.stages.place(found[1], session.number, session.user, *where(session))
        return account.stages.described(stage)
    if found := OF_A_TRANSACTION.fullmatch(asked.statement.text):
        return showing.transaction(account, asked, int(found[1]))
    return None


def _control(account: Account, asked: Asked) -> Data:
    session = asked.session
    match asked.statement.kind:
        case "BEGIN":
            if session.transaction is not None:
                raise _stricter("BEGIN while a transaction is open is ignored")
            account.begin(session, _named(asked.statement.text))
        case "COMMIT":
            account.commit(session)
        case "ROLLBACK":
            account.roll_back(session)
        case _:
            _set(asked)
    return told(DONE)


def _change(account: Account, asked: Asked) -> Data:
    session = asked.session
    _awake(account, session)
    target = _target(account, asked)
    account.rights.look(asked.statement, target, None)
    alone = session.transaction is None and session.autocommit
    transaction = session.transaction or account.begin(session)
    try:
        exclusive = asked.statement.kind not in {"INSERT", "COPY"} or "OVERWRITE" in asked.statement.words[:2]
        account.locks.wait(target, transaction, asked.query, take=exclusive)
        account.ready(transaction)
        data, done = _done(account, asked, target)
        demand_lengths(session, target)
        transaction.done.append(done)
    except Exception:
        if alone:
            account.roll_back(session)
        else:
            account.set_back(session.transaction)
            transaction.failed = session.parameters["TRANSACTION_ABORT_ON_ERROR"] == "true"
        raise
    if alone:
        account.commit(session)
    return data


def _done(account: Account, asked: Asked, target: Name) -> tuple[Data, Done]:
    """What a change answers, and how it is done again."""
    session = asked.session
    opted_out = session.parameters["OPT_OUT_ERROR_LOGGING"] == "true"
    logging = target if target in account.error_logging and not opted_out else None
    match asked.statement.kind:
        case "COPY":
            data, statements, contents = _copy(account, asked, target)
            duck = session.fake._duck_conn
            return data, Done(lambda: [duck.execute(one) for one in statements], (target, contents))
        case "MERGE":
            strict = session.parameters["ERROR_ON_NONDETERMINISTIC_MERGE"] == "true"

            def merge() -> Data:
                sql = in_context(asked)
                return merged(session.fake.cursor(), sql, asked.bound, deterministic=strict, logging=logging)

            return merge(), Done(merge)
        case "INSERT" if logging is not None:

            def insert() -> Data:
                return inserted(session.fake.cursor(), in_context(asked), asked.bound, target)

            return insert(), Done(insert)
        case "UPDATE" if logging is not None:
            raise Refused(2, "0A000", "the double updates no tables that log errors")
        case kind:
            truncated = target if kind == "TRUNCATE" else None
            return executed(asked), Done(lambda: executed(asked), truncated=truncated)


def _copy(account: Account, asked: Asked, target: Name) -> tuple[Data, list[str], dict[str, str]]:
    session = asked.session
    copy = loading.read(asked.statement)
    stage, path = account.stages.place(copy.place, session.number, session.user, *where(session))
    account.rights.demand("USAGE" if stage.url else "READ", "STAGE", dotted(stage.name))
    chosen = loading.chosen(copy, path, account.stages.files(stage, path.rstrip("/") if path else ""))
    said = {**stage.format, **copy.said.get("FILE_FORMAT", {})}
    if "FORMAT_NAME" in said:
        said = {**account.stages.formats[resolved(said["FORMAT_NAME"], *where(session))], **said}
    known = {table: dict(files) for table, files in account.loaded.items()}
    for done in session.transaction.done if session.transaction else ():
        note(known, done)
    work = loading.Loading(session.fake.cursor(), copy, target, said, account.folder)
    done_with = work.load(account.stages.here(chosen), known.get(target, {}))
    if copy.said.get("PURGE", "FALSE").upper() == "TRUE":
        for one in chosen:
            one.file.unlink()
    return done_with.answer, done_with.statements, done_with.contents


def _define(account: Account, asked: Asked) -> Data:
    session, said = asked.session, asked.statement
    if session.transaction is not None:
        raise _stricter("it would silently commit the open transaction")
    here = where(session)
    schema = ".".join(part for part in here if part)
    _demand_short_names(said.text)
    target = _target(account, asked) if said.target else None
    account.rights.look(said, target, schema)
    if said.words[0] == "CREATE" and target is not None and said.about("TABLE"):
        _demand_free(account, session, target)
    if said.about("STAGE"):
        _demand_shown(account, said, here)
        return account.stages.define(said, session.number, *here)
    if said.about(r"FILE\s+FORMAT"):
        return _format(account, said, here)
    if logging := re.search(r"\bSET\s+ERROR_LOGGING\s*=\s*(TRUE|FALSE)", said.text, re.IGNORECASE):
        change = account.error_logging.add if logging[1].upper() == "TRUE" else account.error_logging.discard
        change(_target(account, asked))
        return told(DONE)
    if target is not None and said.about("TABLE"):
        probe = Transaction(0, session, dt.datetime.now(dt.UTC))
        account.locks.wait(target, probe, asked.query, take=False)
        altering.look(session.fake.cursor(), said, target)
        if said.words[0] == "DROP" or "REPLACE" in said.words:
            account.loaded.pop(target, None)
    account.set_others_back(session)
    text = collated(said.text, account.defaults.get("DEFAULT_DDL_COLLATION", ""))
    return executed(replace(asked, statement=Statement(text)))


def _demand_free(account: Account, session: Session, target: Name) -> None:
    """Raises where the name of a table to be made is a view's, or a table's that the role sees nothing of."""
    database, schema, name = map(literal, target)
    here = f"database_name = {database} AND schema_name = {schema}"
    duck = session.fake._duck_conn
    found = duck.execute(f"SELECT 1 FROM duckdb_tables() WHERE {here} AND table_name = {name}").fetchall()
    if found and not account.rights.sees("TABLE", dotted(target)):
        raise hidden("Table", target[2])
    if duck.execute(f"SELECT 1 FROM duckdb_views() WHERE {here} AND view_name = {name}").fetchall():
        raise compilation(f"Object '{target[2]}' already exists as VIEW", 2002, "42710")


def _demand_shown(account: Account, said: Statement, here: tuple[str | None, str | None]) -> None:
    """Raises where the name of a stage to be made is one's that the role sees nothing of."""
    found = CREATED.match(said.text)
    name = resolved(found["name"], *here) if found else None
    if name in account.stages.known and not account.rights.sees("STAGE", dotted(name)):
        raise hidden("Stage", name[2])


def _query(account: Account, asked: Asked) -> Data:
    session = asked.session
    begins = account.queries_begin and asked.statement.words[0] in {"SELECT", "WITH", "CALL", "VALUES"}
    if begins and session.transaction is None and not session.autocommit:
        account.begin(session)
    if found := ABORT.match(asked.statement.text):
        return _abort(account, session, int(found[1]))
    if re.search(r"\bFROM\b", asked.statement.text, re.IGNORECASE):
        _awake(account, session)
    for name in READ.findall(asked.statement.text):
        account.rights.demand("SELECT", "TABLE", dotted(resolved(name, *where(session))))
    transaction = session.transaction
    if transaction is not None:
        account.ready(transaction)
    try:
        return executed(asked)
    except Exception:
        account.set_back(transaction)
        raise


def _on_stage(account: Account, asked: Asked) -> Data:
    session, said = asked.session, asked.statement
    here = (session.number, session.user, *where(session))
    if said.kind == "PUT":
        return account.stages.put(said, *here)
    found = LISTED.match(said.text)
    if found is None:
        raise compilation(f"syntax error: {said.text}")
    stage, path = account.stages.place(found["place"], *here)
    needed = "USAGE" if stage.url else "READ" if said.kind == "LIST" else "WRITE"
    account.rights.demand(needed, "STAGE", dotted(stage.name))
    if said.kind == "LIST":
        return account.stages.list(stage, path)
    return account.stages.remove(stage, path, str(options(found["rest"]).get("PATTERN", ".*")))


def _format(account: Account, said: Statement, here: tuple[str | None, str | None]) -> Data:
    found = re.search(r"FORMAT\s+(?:IF\s+(?:NOT\s+)?EXISTS\s+)?(\S+)\s*(.*)", said.text, re.IGNORECASE | re.DOTALL)
    if found is None:
        raise compilation(f"syntax error: {said.text}")
    name = resolved(found[1], *here)
    if said.words[0] == "DROP":
        account.stages.formats.pop(name, None)
        return told(f"{name[2]} successfully dropped.")
    account.stages.formats[name] = options(found[2])
    return told(f"File format {name[2]} successfully created.")


def _set(asked: Asked) -> None:
    """ALTER SESSION SET and UNSET; it ends no transaction, but where it changes AUTOCOMMIT."""
    session = asked.session
    verb, text = re.sub(r"^ALTER\s+SESSION\s+", "", asked.statement.text, flags=re.IGNORECASE).split(None, 1)
    unset = dict.fromkeys((name.strip().upper() for name in text.split(",")), None)
    said = options(text) if verb.upper() == "SET" else unset
    for name, value in said.items():
        if name not in session.parameters:
            raise compilation(f"invalid property '{name}' for 'SESSION'", 1422, "42601")
        if name == "AUTOCOMMIT" and session.transaction is not None:
            raise _stricter("ALTER SESSION SET AUTOCOMMIT would silently commit the open transaction")
        if name == "QUERY_TAG" and len(value or "") > 2000:
            raise compilation("Value of QUERY_TAG is longer than 2000 characters.", 1007, "22023")
        session.parameters[name] = PARAMETERS.get(name, "") if value is None else written(value, name)


def _use(account: Account, session: Session, what: str, name: str) -> Data:
    known = account.roles if what == "ROLE" else account.warehouses
    if name not in known:
        raise compilation("Object does not exist, or operation cannot be performed.", 2043, "02000")
    if what == "ROLE":
        session.role = name
    else:
        session.warehouse = name
    return told(DONE)


def _named(text: str) -> str | None:
    """What BEGIN calls its transaction."""
    found = BEGUN.fullmatch(text)
    if found is None:
        raise compilation(f"syntax error: {text}")
    _demand_short_names(text)
    return resolved(found["name"], "", "")[2] if found["name"] else None


def _demand_short_names(text: str) -> None:
    for name in re.findall(NAME, re.sub(r"'(?:[^'\\]|''|\\.)*'", "''", text)):
        if len(resolved(name, "", "")[2]) > LONGEST_NAME:
            raise compilation(f"identifier {name} is longer than {LONGEST_NAME} characters.", 1007, "22023")


def _abort(account: Account, session: Session, number: int) -> Data:
    """Who began a transaction may end it; nobody here is an administrator of the account."""
    open_ones = [one.transaction for one in account.sessions.values() if one.transaction is not None]
    found = next((one for one in open_ones if one.number == number and one.session.user == session.user), None)
    if found is None:
        raise Refused(2003, "02000", f"Transaction {number} does not exist.")
    account.abort(found)
    return rows((f"SYSTEM$ABORT_TRANSACTION('{number}')",), [("Aborted transaction id: " + str(number),)])


def _awake(account: Account, session: Session) -> None:
    if session.warehouse is None:
        said = "No active warehouse selected in the current session.  Select an active warehouse with the "
        raise Refused(606, "57P03", f"{said}'use warehouse' command.")
    account.rights.demand("USAGE", "WAREHOUSE", session.warehouse)


def _target(account: Account, asked: Asked) -> Name:
    if asked.statement.target is None:
        raise compilation(f"the double does not see which table this changes: {asked.statement.text[:80]}")
    return resolved(asked.statement.target, *where(asked.session))


def _stricter(why: str) -> Refused:
    return Refused(999_999, "25001", f"stricter than Snowflake, so that it is seen: {why}")


@contextmanager
def _busy(session: Session) -> Iterator[None]:
    session.busy += 1
    try:
        yield
    finally:
        session.busy -= 1
