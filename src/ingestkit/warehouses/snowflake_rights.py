"""Whether a role may do in Snowflake what a warehouse must, proved without making anything."""

from snowflake.connector import SnowflakeConnection

from ingestkit.errors import WarehouseError
from ingestkit.model import LoadMode
from ingestkit.warehouses import snowflake_sql as sql
from ingestkit.warehouses.snowflake_session import GRANTS, Account, execute

ROLES = ("ROLE", "ACCOUNT ROLE")


NEEDED = {
    LoadMode.REPLACE: ("SELECT", "INSERT", "TRUNCATE"),
    LoadMode.APPEND: ("SELECT", "INSERT", "DELETE"),
    LoadMode.WINDOW: ("SELECT", "INSERT", "DELETE"),
    LoadMode.MERGE: ("SELECT", "INSERT", "UPDATE", "DELETE"),
}
"""Of a table that somebody else owns, to write its rows."""


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
    account: Account, connection: SnowflakeConnection, role: str, table: str, mode: LoadMode, owner: str
) -> str | None:
    """What it means that a table is another role's; refused where its rows cannot be written."""
    named = account.named(table)
    given = [row for row in execute(connection, f"SHOW GRANTS ON TABLE {named}") if row["privilege"] in NEEDED[mode]]
    ours = _stood_for(connection, {owner, *(row["grantee_name"] for row in given if row["granted_to"] in ROLES)})
    if owner in ours:
        return None
    held = {row["privilege"] for row in given if row["granted_to"] not in ROLES or row["grantee_name"] in ours}
    cure = f"GRANT OWNERSHIP ON TABLE {named} TO ROLE {sql.quoted(role)} COPY CURRENT GRANTS"
    if lacks := [one for one in NEEDED[mode] if one not in held]:
        raise WarehouseError(
            f"{account.place}: table {table} belongs to role {owner}, and role {role} lacks {', '.join(lacks)} on it",
            hint=f"let its owner say: {cure}",
        )
    return f"table {table} belongs to role {owner}: no column can be added or widened until that says {cure}"


def _stood_for(connection: SnowflakeConnection, roles: set[str]) -> set[str]:
    """Those that the session's role is, or stands above."""
    each = " UNION ALL ".join(
        f"SELECT {sql.text(one)} AS role, IS_ROLE_IN_SESSION({sql.text(one)}) AS held" for one in sorted(roles)
    )
    return {str(role) for role, held in (row.values() for row in execute(connection, each)) if held}


def refuse_without(account: Account, connection: SnowflakeConnection, privilege: str) -> None:
    """The role, or one that it stands for, has a privilege on the schema, or owns it."""
    given = execute(connection, f"SHOW GRANTS ON SCHEMA {account.named()}")
    holders = [row for row in given if row["privilege"] in (privilege, "OWNERSHIP")]
    if any(row["granted_to"] not in ROLES for row in holders):
        # To a role of a database or an application, of which no role can be asked whether it stands for it.
        return
    asked = (f"IS_ROLE_IN_SESSION({sql.text(row['grantee_name'])})" for row in holders)
    [[role, held]] = [
        row.values()
        for row in execute(connection, f"SELECT CURRENT_ROLE() AS role, {' OR '.join(asked) or 'FALSE'} AS held")
    ]
    if not held:
        raise WarehouseError(f"{account.place}: role {role} lacks {privilege} ON SCHEMA {account.named()}", hint=GRANTS)
