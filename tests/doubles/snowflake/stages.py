"""Stages and what lies in them: CREATE STAGE, PUT, LIST, REMOVE, and the storage that clients upload to themselves."""

import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from tests.doubles.relay import Answer, Request
from tests.doubles.snowflake.answers import Data, Refused, compilation, missing, rows, told
from tests.doubles.snowflake.outside import Outside, integrated
from tests.doubles.snowflake.reading import NAME, QUALIFIED, Name, Options, Statement, options, plain, resolved, true

CREATED: Final = re.compile(
    rf"CREATE\s+(?P<replace>OR\s+REPLACE\s+)?(?P<temporary>TEMP(?:ORARY)?\s+)?STAGE\s+"
    rf"(?P<exists>IF\s+NOT\s+EXISTS\s+)?(?P<name>{QUALIFIED})\s*(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
DROPPED: Final = re.compile(
    rf"DROP\s+STAGE\s+(?P<exists>IF\s+EXISTS\s+)?(?P<name>{QUALIFIED})", re.IGNORECASE | re.DOTALL
)
PLACE: Final = rf"@(?:~|(?:{NAME}\.){{0,2}}%?{NAME})(?:/[^\s')]*)?"
PUT: Final = re.compile(
    rf"PUT\s+(?P<file>'file://(?:[^'\\]|''|\\.)*'|file://\S+)\s+(?P<place>'@[^']*'|{PLACE})\s*(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
LISTED: Final = re.compile(rf"\w+\s+(?P<place>'@[^']*'|{PLACE})\s*(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
DIGEST: Final = "x-goog-meta-sfc-digest"


@dataclass(frozen=True, slots=True)
class Stage:
    name: Name
    url: str = ""
    session: int | None = None
    """Whose it is where it is temporary."""
    format: Options = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Staged:
    """A file in a stage."""

    stage: Stage
    path: str
    file: Path

    @property
    def shown(self) -> str:
        return f"{self.stage.url.rstrip('/') or self.stage.name[2].lower()}/{self.path}"

    @property
    def content(self) -> str:
        return hashlib.md5(self.file.read_bytes()).hexdigest()


@dataclass(slots=True)
class Stages:
    folder: Path
    storage: str = ""
    """Where clients upload to."""
    known: dict[Name, Stage] = field(default_factory=dict)
    formats: dict[Name, Options] = field(default_factory=dict)
    outside: Outside = field(default_factory=Outside)
    integrations: list[str] = field(default_factory=lambda: ["LAKE"])
    _digests: dict[Path, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def define(self, asked: Statement, session: int, database: str | None, schema: str | None) -> Data:
        """CREATE STAGE and DROP STAGE."""
        if found := DROPPED.match(asked.text):
            name = resolved(found["name"], database, schema)
            if self.known.pop(name, None) is None and not found["exists"]:
                raise missing("Stage", ".".join(name))
            self._empty(name)
            return told(f"{name[2]} successfully dropped.")
        created = CREATED.match(asked.text)
        if created is None:
            raise compilation("the double alters no stages")
        name = resolved(created["name"], database, schema)
        if name in self.known and created["exists"]:
            return told(f"{name[2]} already exists, statement succeeded.")
        if name in self.known and not created["replace"]:
            raise compilation(f"Object '{'.'.join(name)}' already exists.", 2002, "42710")
        said = options(created["rest"])
        self._empty(name)
        if "URL" in said:
            integrated(said.get("STORAGE_INTEGRATION"), self.integrations)
        owner = session if created["temporary"] else None
        self.known[name] = Stage(name, str(said.get("URL", "")), owner, said.get("FILE_FORMAT", {}))
        return told(f"Stage area {name[2]} successfully created.")

    def copy(self, database: str, name: str) -> None:
        """The stages of one database for another, but for those that are somebody's."""
        for (owner, *rest), stage in list(self.known.items()):
            if owner == database and stage.session is None:
                here = (name, rest[0], rest[1])
                self.known[here] = replace(stage, name=here)
                if (root := self.root(stage.name)).exists():
                    shutil.copytree(root, self.root(here))

    def forget(self, session: int) -> None:
        """What was temporary goes with its session."""
        for name in [name for name, stage in self.known.items() if stage.session == session]:
            del self.known[name]
            self._empty(name)

    def place(self, said: str, session: int, user: str, database: str | None, schema: str | None) -> tuple[Stage, str]:
        """The stage and the path in it that `@stage/path` means to a session."""
        stage, _, path = said.strip("'").removeprefix("@").partition("/")
        if stage == "~":
            return Stage(("~", "~", user)), path
        head, _, last = stage.rpartition(".")
        if last.startswith("%"):
            name = resolved(f"{head}.{last[1:]}" if head else last[1:], database, schema)
            return Stage((name[0], name[1], f"%{name[2]}")), path
        name = resolved(stage, database, schema)
        found = self.known.get(name)
        if found is None or found.session not in {None, session}:
            raise missing("Stage", ".".join(name))
        return found, path

    def files(self, stage: Stage, path: str) -> list[Staged]:
        """What lies there, by name; a path is no folder but how the names begin."""
        root = self.root(stage.name)
        if stage.url:
            return [Staged(stage, one, root / one) for one in self.outside.names(stage.url, path)]
        found = sorted(file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file())
        return [Staged(stage, one, root / one) for one in found if one.startswith(path)]

    def here(self, found: Iterable[Staged]) -> Sequence[Staged]:
        """The same files, those of an external stage fetched as they are now."""
        known = tuple(found)
        for one in known:
            if one.stage.url:
                one.file.parent.mkdir(parents=True, exist_ok=True)
                self.outside.fetch(one.stage.url, one.path, one.file)
        return known

    def list(self, stage: Stage, path: str) -> Data:
        found = self.here(self.files(stage, path))
        said = [(one.shown, one.file.stat().st_size, one.content, "") for one in found]
        return rows(("name", "size", "md5", "last_modified"), said, ("size",))

    def described(self, stage: Stage) -> Data:
        """DESCRIBE STAGE, as far as its location goes; the address is a list in JSON."""
        names = ("parent_property", "property", "property_type", "property_value", "property_default")
        said = [("STAGE_FILE_FORMAT", "TYPE", "String", stage.format.get("TYPE", "CSV"), "CSV")]
        said.append(("STAGE_LOCATION", "URL", "String", json.dumps([stage.url] if stage.url else []), ""))
        return rows(names, said if stage.url else [said[0], ("STAGE_LOCATION", "URL", "String", "", "")])

    def remove(self, stage: Stage, path: str, pattern: str) -> Data:
        if stage.url:
            raise compilation("stricter than Snowflake: what lies in somebody's lake is not removed by a warehouse")
        gone = [one for one in self.files(stage, path) if re.fullmatch(pattern, one.path)]
        for one in gone:
            one.file.unlink()
        return rows(("name", "result"), [(one.shown, "removed") for one in gone])

    def put(self, asked: Statement, session: int, user: str, database: str | None, schema: str | None) -> Data:
        """Where a client shall upload to, and how; it does so by itself, and looks itself whether the file is there."""
        found = PUT.match(asked.text)
        if found is None:
            raise compilation(f"syntax error in PUT: {asked.text}")
        stage, path = self.place(found["place"], session, user, database, schema)
        if stage.url:
            raise compilation("PUT takes internal stages only")
        said = options(found["rest"])
        where = "/".join(quote(part) for part in (*stage.name, *path.strip("/").split("/")) if part)
        info = {
            "locationType": "GCS",
            "location": f"stages/{where}/",
            "creds": {"GCS_ACCESS_TOKEN": "of-the-double"},
            "endPoint": self.storage,
            "region": "LOOPBACK",
            "storageAccount": None,
            "isClientSideEncrypted": False,
        }
        return {
            "stageInfo": info,
            "src_locations": [plain(found["file"]).removeprefix("file://")],
            "parallel": int(said.get("PARALLEL", 4)),
            "autoCompress": true(said, "AUTO_COMPRESS", otherwise=True),
            "sourceCompression": str(said.get("SOURCE_COMPRESSION", "auto_detect")).lower(),
            "overwrite": true(said, "OVERWRITE"),
            "command": "UPLOAD",
        }

    def take(self, asked: Statement, session: int, user: str, database: str | None, schema: str | None) -> None:
        """Put other files where those of a PUT are to lie."""
        said = self.put(asked, session, user, database, schema)
        folder = self.folder.joinpath(*said["stageInfo"]["location"].rstrip("/").split("/")[1:])
        folder.mkdir(parents=True, exist_ok=True)
        for pattern in map(Path, said["src_locations"]):
            for file in pattern.parent.glob(pattern.name):
                (folder / file.name).write_bytes(b"of somebody else")

    def answer(self, request: Request) -> Answer:
        """The storage itself: a file is there whole or not at all."""
        file = self._file(request.path)
        match request.method:
            case "HEAD" if file.is_file():
                return Answer(
                    200, ((DIGEST, self._digests.get(file, "")), ("Content-Length", str(file.stat().st_size)))
                )
            case "PUT":
                return self._upload(file, request)
        return Answer(404)

    def root(self, name: Name) -> Path:
        return self.folder.joinpath(*(quote(part, safe="%~") for part in name))

    def _upload(self, file: Path, request: Request) -> Answer:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.folder.parent)
        with os.fdopen(handle, "wb") as made:
            made.write(request.body)
        Path(name).replace(file)
        with self._lock:
            self._digests[file] = request.header(DIGEST) or ""
        return Answer(200)

    def _file(self, path: str) -> Path:
        # Quoted once by the double and once by the client.
        database, schema, stage, *rest = (unquote(unquote(part)) for part in path.removeprefix("/stages/").split("/"))
        if ".." in rest:
            raise Refused(253_003, "42000", "a path leaves its stage")
        return self.root((database, schema, stage)).joinpath(*rest)

    def _empty(self, name: Name) -> None:
        root = self.root(name)
        for file in [file for file in root.rglob("*") if file.is_file()]:
            file.unlink()
