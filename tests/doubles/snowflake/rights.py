"""What a role may do: everything, but for what a test takes from it; and how SHOW GRANTS tells."""

import re
from dataclasses import dataclass, field
from typing import Final

from tests.doubles.snowflake.answers import missing, unprivileged
from tests.doubles.snowflake.reading import Name, Statement, dotted

ON_TABLES: Final = {
    "INSERT": ("INSERT",),
    "UPDATE": ("UPDATE",),
    "DELETE": ("DELETE",),
    "TRUNCATE": ("TRUNCATE",),
    "MERGE": ("INSERT", "UPDATE"),
    "COPY": ("INSERT",),
}
DELETES: Final = re.compile(r"\bTHEN\s+DELETE\b", re.IGNORECASE)
PRIVILEGES: Final = {
    "WAREHOUSE": ("USAGE",),
    "DATABASE": ("USAGE",),
    "SCHEMA": ("USAGE", "CREATE TABLE", "CREATE STAGE", "CREATE VIEW", "CREATE FILE FORMAT"),
    "TABLE": ("DELETE", "INSERT", "SELECT", "TRUNCATE", "UPDATE"),
    "STAGE": ("READ", "USAGE", "WRITE"),
}


@dataclass(frozen=True, slots=True)
class Grant:
    privilege: str
    kind: str
    name: str


@dataclass(slots=True)
class Rights:
    taken: set[Grant] = field(default_factory=set)
    given: dict[Grant, tuple[str, str]] = field(default_factory=dict)
    """What was taken from the role and is another's, by what that is and its name."""

    def take(self, privilege: str, kind: str, name: str, to: str = "") -> None:
        """A name is dotted and upper case; `*` are all of the kind. `to` is as SHOW GRANTS has it: `SHARE NAME`."""
        self.taken.add(Grant(privilege, kind, name))
        if to:
            granted_to, _, grantee = to.partition(" ")
            self.given[Grant(privilege, kind, name)] = (granted_to, grantee)

    def has(self, privilege: str, kind: str, name: str) -> bool:
        return not {Grant(privilege, kind, name), Grant(privilege, kind, "*")} & self.taken

    def owns(self, kind: str, name: str) -> bool:
        """Who owns a thing may do all with it."""
        return all(self.has(one, kind, name) for one in ("OWNERSHIP", *PRIVILEGES[kind]))

    def sees(self, kind: str, name: str) -> bool:
        """A role is shown what it has any privilege on, and nothing of the rest."""
        return any(self.has(one, kind, name) for one in ("OWNERSHIP", *PRIVILEGES[kind]))

    def demand(self, privilege: str, kind: str, name: str) -> None:
        if kind in {"TABLE", "STAGE"} and not self.sees(kind, name):
            raise missing(kind.capitalize(), name)
        if not self.has(privilege, kind, name):
            raise unprivileged(kind, name.rpartition(".")[2])

    def enter(self, database: str | None, schema: str | None) -> None:
        """Without its usage a place and all that is in it is not there for a role."""
        if database is not None and not self.has("USAGE", "DATABASE", database):
            raise missing("Database", database)
        if database is not None and schema is not None and not self.has("USAGE", "SCHEMA", f"{database}.{schema}"):
            raise missing("Schema", f"{database}.{schema}")

    def look(self, asked: Statement, target: Name | None, schema: str | None) -> None:
        """Raises where the statement needs what the role has not."""
        if target is not None:
            for privilege in ON_TABLES.get(asked.kind, ()):
                self.demand(privilege, "TABLE", dotted(target))
            if asked.kind == "MERGE" and DELETES.search(asked.text):
                self.demand("DELETE", "TABLE", dotted(target))
        if asked.kind != "DDL":
            return
        if asked.words[0] != "CREATE":
            if target is not None:
                self.demand("OWNERSHIP", "TABLE", dotted(target))
            return
        made = next((kind for kind in ("TABLE", "STAGE", "VIEW", "FILE FORMAT") if asked.about(kind)), None)
        where = ".".join(target[:2]) if target else schema
        if made == "TABLE" and {"TEMP", "TEMPORARY"} & set(asked.words[1:4]):
            # Which goes with the session; one IF NOT EXISTS is asked for, whether there is one or not.
            return
        if made is not None and where is not None:
            self.demand(f"CREATE {made}", "SCHEMA", where)

    def shown(self, things: list[tuple[str, str]], role: str) -> list[tuple[str, str, str, str, str]]:
        """The rows of SHOW GRANTS: privilege, kind, name and whose it is; who owns is told as such, and alone."""
        found = []
        for kind, name in things:
            others = [(one, to) for one, to in self.given.items() if (one.kind, one.name) == (kind, name)]
            found += [(one.privilege, kind, name, *to) for one, to in others]
            if any(one.privilege == "OWNERSHIP" and to[0] == "DATABASE_ROLE" for one, to in others):
                # Which stands below the role, and has all rights for it.
                continue
            held = [one for one in PRIVILEGES[kind] if self.has(one, kind, name)]
            whole = kind in {"TABLE", "STAGE"} and self.owns(kind, name)
            found += [(one, kind, name, "ROLE", role) for one in (["OWNERSHIP"] if whole else held)]
        return found
