"""A Snowflake account of its own on loopback: fakesnow, made stricter where the service has traps, and able to fail.

It is spoken to by the service's own connector, and told how to behave below `/double/`. What it does not keep:

* Statements are translated to DuckDB by fakesnow: types, functions and messages are near to Snowflake's, not the same.
  DuckDB knows no case of names: two columns that differ only in it are one; words of its own (AT) want quotes.
  An instant with a zone comes back in UTC.
* DDL, SHOW and DESCRIBE among it, BEGIN and ALTER SESSION SET AUTOCOMMIT in an open transaction are errors; the service
  silently commits or ignores them.
* A transaction is done again after a statement of it failed and when others commit. What it had updated or deleted is
  then also looked for in rows that others added meanwhile, and what says the time says a later one.
* Whose transaction others ended is told once by an error (615), or not at all where a test wants it so: the service
  promises neither. A COMMIT of nothing succeeds.
* Only who adds rows waits for nobody but those who change them. A wait that lasts too long and a deadlock end with the
  number of the error that too many waiters are told; which they have at the service is not known.
* COPY loads Parquet by names or by a SELECT over `$1:name`, and CSV by position. An external stage is read by a client
  of the double's own, whose credentials are not those of the storage integration.
* The storage that PUT uploads to speaks as Google's does, from where OVERWRITE is kept here, and in one piece each.
* Clients that vanish are not noticed; a session that says nothing for a while is (`patience`), when it is in the way.
* One role has all rights but those a test takes; there are no masking, streams or tasks, and no history of queries.
"""

import json
import sys
import tempfile
from pathlib import Path

from tests.certificates import certified
from tests.doubles.relay import served
from tests.doubles.snowflake.account import Account
from tests.doubles.snowflake.login import Users
from tests.doubles.snowflake.stages import Stages
from tests.doubles.snowflake.wire import Wire


def main(account: str) -> None:
    with tempfile.TemporaryDirectory(prefix="ingestkit-snowflake-") as name:
        folder = Path(name)
        kept = folder / "kept"
        for part in (kept, folder / "stages"):
            part.mkdir()
        signed = certified(folder)
        stages = Stages(folder / "stages")
        known = Account(account, kept, ["LOADER", "READER"], ["LOADING"], stages)
        wire = Wire(known, Users(account))
        with served(wire.storage, signed.server()) as storage, served(wire.answer) as port:
            stages.storage = f"https://127.0.0.1:{storage}"
            print(json.dumps({"port": port, "storage": storage, "certificate": str(signed.certificate)}), flush=True)
            # It ends with whoever started it.
            sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
