"""Whether a role may do in Snowflake what a warehouse must, proved without making anything."""

from snowflake.connector import SnowflakeConnection

from ingestkit.errors import WarehouseError
from ingestkit.warehouses import snowflake_sql as sql
from ingestkit.warehouses.snowflake_session import GRANTS, Account, execute

ROLES = ("ROLE", "ACCOUNT ROLE")


def look_in(account: Account, connection: SnowflakeConnection) -> None:
    """The role has a warehouse that it may use, and sees the schema."""
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
