"""Whether a role may do in Snowflake what a warehouse must, proved without making anything."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from snowflake.connector import SnowflakeConnection

from ingestkit.errors import WarehouseError
from ingestkit.model import LoadMode
from ingestkit.warehouses import snowflake_sql as sql
from ingestkit.warehouses.snowflake_session import GRANTS, Account, execute

ROLES = ("ROLE", "ACCOUNT ROLE")
UNASKED = ("DATABASE_ROLE", "APPLICATION_ROLE", "USER")
"""Whoever else may hold a right for us: of none of them a session can ask whether it is, or stands above it."""


NEEDED = {
    LoadMode.REPLACE: ("SELECT", "INSERT", "TRUNCATE"),
    LoadMode.APPEND: ("SELECT", "INSERT", "DELETE"),
    LoadMode.WINDOW: ("SELECT", "INSERT", "DELETE"),
    LoadMode.MERGE: ("SELECT", "INSERT", "UPDATE", "DELETE"),
}
"""Of a table that somebody else owns, to write its rows."""
OF_FENCES = ("SELECT", "INSERT", "UPDATE")
OF_RECEIPTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
OF_STAGE = ("READ", "WRITE")


@dataclass(frozen=True, slots=True)
class Owned:
    """A table or a stage of the schema, and the role that owns it."""

    kind: str
    name: str
    owner: str


def needed_for(modes: Collection[LoadMode]) -> tuple[str, ...]:
    """What any of the modes needs. Where files of changes are merged, full ones behind them delete what they say."""
    return tuple(dict.fromkeys(one for mode, rights in NEEDED.items() if mode in modes for one in rights))


def role_of(connection: SnowflakeConnection) -> str:
    [here] = execute(connection, "SELECT CURRENT_ROLE()")
    (role,) = here.values()
    return str(role)


def look_in(account: Account, connection: SnowflakeConnection) -> str:
    """The role, which has a warehouse that it may use, and sees the schema."""
    [here] = execute(connection, "SELECT CURRENT_ROLE() AS role, CURRENT_WAREHOUSE() AS warehouse")
    role, warehouse = here.values()
    if warehouse is None:
        named = account.parameters.get("warehouse")
        raise WarehouseError(
            f"{account.place}: role {role} has no warehouse to work with"
            + (f": it lacks USAGE ON WAREHOUSE {named}, or there is none of that name" if named else ""),
            hint=f"name one as `warehouse` of the connection, and {GRANTS}",
        )
    execute(connection, f"SHOW TABLES LIKE 'ingestkit%' IN SCHEMA {account.named()}")
    return str(role)


def owned_by_another(
    account: Account, connection: SnowflakeConnection, role: str, what: Owned, needed: Sequence[str]
) -> str | None:
    """The statement by which another role would give away what it owns; refused where that is needed to work there."""
    if what.owner == role:
        return None
    on = f"{what.kind} {account.named(what.name)}"
    grants = execute(connection, f"SHOW GRANTS ON {on}")
    if any(row["privilege"] == "OWNERSHIP" and row["granted_to"] in UNASKED for row in grants):
        return None
    given = [row for row in grants if row["privilege"] in needed]
    ours = _stood_for(connection, {what.owner, *(row["grantee_name"] for row in given if row["granted_to"] in ROLES)})
    if what.owner in ours:
        return None
    held = {row["privilege"] for row in given if row["granted_to"] in UNASKED or row["grantee_name"] in ours}
    cure = f"GRANT OWNERSHIP ON {on} TO ROLE {sql.quoted(role)} COPY CURRENT GRANTS"
    if lacks := [one for one in needed if one not in held]:
        raise WarehouseError(
            f"{account.place}: {what.kind.lower()} {what.name} belongs to role {what.owner}, and role {role} lacks "
            f"{', '.join(lacks)} on it",
            hint=f"let its owner say: {cure}",
        )
    return cure


def _stood_for(connection: SnowflakeConnection, roles: set[str]) -> set[str]:
    """Those that the session's role is, or stands above."""
    each = " UNION ALL ".join(
        f"SELECT {sql.text(one)} AS role, IS_ROLE_IN_SESSION({sql.text(one)}) AS held" for one in sorted(roles)
    )
    return {str(role) for role, held in (row.values() for row in execute(connection, each)) if held}


def refuse_to_make(account: Account, privilege: str) -> None:
    """CREATE is let pass by the primary role alone, and by no other that its user has besides."""
    with account.session() as connection:
        execute(connection, "USE SECONDARY ROLES NONE")
        refuse_without(account, connection, privilege)


def refuse_without(
    account: Account, connection: SnowflakeConnection, privilege: str, on: str = "", hint: str = GRANTS
) -> None:
    """The role, or one that it stands for, has a privilege on something, or owns it: on the schema, or what is said."""
    on = on or f"SCHEMA {account.named()}"
    given = execute(connection, f"SHOW GRANTS ON {on}")
    holders = [row for row in given if row["privilege"] in (privilege, "OWNERSHIP")]
    if any(row["granted_to"] in UNASKED for row in holders):
        return
    asked = (f"IS_ROLE_IN_SESSION({sql.text(row['grantee_name'])})" for row in holders if row["granted_to"] in ROLES)
    [[role, held]] = [
        row.values()
        for row in execute(connection, f"SELECT CURRENT_ROLE() AS role, {' OR '.join(asked) or 'FALSE'} AS held")
    ]
    if not held:
        raise WarehouseError(f"{account.place}: role {role} lacks {privilege} ON {on}", hint=hint)
