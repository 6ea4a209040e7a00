"""Archives that say themselves which tables they hold: every archive in order, into the tables it speaks of."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.doubles.direct_data import Archive, Chain, Extract, packed
from tests.doubles.direct_data_replay import Replay
from tests.integration.world import World
from tests.services import PostgresServer, postgres
from tests.warehouses import warehouse_database

MARK = "_deleted_at"
LINEAGE = ("_batch", "_run_id", "_source_file", "_record_no")
ARCHIVES: dict[str, Any] = {
    "models": None,
    "source.batches": {"files": r"\d+-(?P<batch>\d{8}-\d{4}-[FNL])\.tar\.gz"},
    "gate": {"max_reject_pct": 0},
}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres() as started:
        yield started


@pytest.fixture(params=["duckdb", pytest.param("postgresql", marks=[pytest.mark.services, pytest.mark.slow])])
def vault(world: World, request: pytest.FixtureRequest, tmp_path: Any) -> World:
    made = world
    if request.param == "postgresql":
        server = request.getfixturevalue("server")
        database = warehouse_database(server, f"vault_{abs(hash(tmp_path)) % 10**9}")
        made = World(world.root, world.capsys, world.state_url, server.url(database))
        made.settle()
    made.set_up(ARCHIVES | {"tables": {"removed": "drop"}})
    return made


def held(world: World, table: str) -> list[dict[str, Any]]:
    """The rows of a table, each by its columns' names, lineage left out."""
    quoted = '"' + table + '"'
    columns = [
        name
        for (name,) in world.target(
            f"SELECT column_name FROM information_schema.columns WHERE table_name = '{table}' ORDER BY ordinal_position"
        )
        if name not in LINEAGE
    ]
    named = ", ".join('"' + name + '"' for name in columns)
    return [dict(zip(columns, row, strict=True)) for row in world.target(f"SELECT {named} FROM {quoted}")]


def tables_of(world: World) -> set[str]:
    found = world.target("SELECT table_name FROM information_schema.tables WHERE table_schema IN ('main', 'public')")
    return {name for (name,) in found if not name.startswith("ingestkit_")}


def plain(value: Any) -> Any:
    """A value as both sides show it."""
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    return value.normalize() if isinstance(value, Decimal) else value


def compare(world: World, replay: Replay) -> None:
    """Exactly the rows of the replay, column by column; a column nobody gave a value is there or not."""
    assert tables_of(world) == set(replay.rows)
    for table, rows in replay.rows.items():
        found = held(world, table)
        assert sorted(map(told, found)) == sorted(map(told, rows.values())), table
        if rows:
            columns = {name for row in found for name in row if not name.endswith("_text") and name != MARK}
            assert columns == replay.columns[table], table


def told(row: Mapping[str, Any]) -> str:
    """What a row says, without what it does not."""
    return repr(sorted((name, plain(value)) for name, value in row.items() if value is not None))


def fill(world: World, chain: Chain, replay: Replay, archives: int) -> None:
    for name, content in [chain.full(), *(chain.next() for _ in range(archives))]:
        world.drop({name: content})
        replay.archive(name, content)


@pytest.mark.parametrize(("seed", "incrementals"), [(0, 12), (1, 50)])
def test_a_chain_of_archives_ends_in_what_their_replay_gives(vault: World, seed: int, incrementals: int) -> None:
    replay = Replay()
    fill(vault, Chain(seed), replay, incrementals)
    answer = vault.does("run", "p")
    assert len(answer["results"]) == 1 + incrementals
    compare(vault, replay)
    assert vault.does("run", "p")["results"] == []


def test_what_is_gone_stays_where_it_is_to_be_kept(vault: World) -> None:
    vault.set_up(ARCHIVES | {"tables": {"removed": "keep", "deleted": "mark"}})
    replay = Replay(drops=False, marks=True)
    fill(vault, Chain(3), replay, 12)
    vault.does("run", "p")
    compare(vault, replay)
    assert any(row.get(MARK) for rows in replay.rows.values() for row in rows.values())


def test_a_target_is_built_again_from_the_lake(vault: World) -> None:
    replay, chain = Replay(), Chain(2)
    fill(vault, chain, replay, 8)
    vault.does("run", "p")
    compare(vault, replay)
    vault.target_does('DROP TABLE "product__v"')
    name, content = chain.next()
    vault.drop({name: content})
    assert "ingestkit backfill p --from-lake" in vault.refused(7, "run", "p")
    vault.does("backfill", "p", "--from-lake")
    compare(vault, replay)
    replay.archive(name, content)
    vault.does("run", "p")
    compare(vault, replay)


def test_an_older_archive_is_not_loaded_over_newer_ones(vault: World) -> None:
    replay = Replay()
    fill(vault, Chain(2), replay, 3)
    vault.does("run", "p")
    old = ("backfill", "p", "--batch", "20260115-0515-N", "--from-lake")
    planned = vault.does(*old, "--dry-run")
    assert [(row["action"], row["why"]) for row in planned["batches"]] == [
        ("fail", "20260115-0545-N has changed the tables since")
    ]
    runs = vault.does("runs", "list", "p")
    said = vault.refused(2, *old)
    assert "20260115-0515-N of p comes before 20260115-0545-N" in said
    assert vault.does("runs", "list", "p") == runs
    compare(vault, replay)


# --- one archive at a time, in DuckDB ---------------------------------------------------------------------------------

PRODUCT = {
    "id": "ID",
    "name__v": "String",
    "active__c": "Boolean",
    "launch_date__c": "Date",
    "seen__c": "DateTime",
    "strength__c": "Number",
}
FULL, CHANGES, LATER = (f"100123-20260115-{name}.tar.gz" for name in ("0500-F", "0515-N", "0530-N"))


@pytest.fixture
def here(world: World) -> World:
    world.set_up(ARCHIVES | {"tables": {}})
    return world


def products(*rows: Mapping[str, str], **more: Any) -> Extract:
    return Extract("Object.product__v", PRODUCT, rows, **more)


def changes(*extracts: Extract, **more: Any) -> bytes:
    return Archive(extracts, full=False, everything={"Object.product__v": PRODUCT}, **more).made()


ABOUT = """modified_date,extract,extract_label,column_name,column_label,type,length,related_extract
,Object.product__v,Product,id,ID,String,20,
,Object.product__v,Product,modified_date__v,Last Modified Date,DateTime,,
,Object.product__v,Product,name__v,Product Name,String,2,
,Object.product__v,Product,status__v,Status,Picklist,46,Picklist.picklist__sys
,Object.product__v,Product,created_by__v,Created By,Relationship,,Object.user__sys
,Object.product__v,Product,active__c,Active,Boolean,,
,Object.product__v,Product,code__c,Code,String,20,
,Object.product__v,Product,description__c,Description,LongText,64000,
{launch},Object.product__v,Product,strength__c,Strength,Number,,
,Object.3d_model__c,3D Model,id,ID,String,20,
,Document.document_version__sys,Document Version,id,ID,String,64,
,Document.document_version__sys,Document Version,document_number__v,Document Number,Number,,
,Document.document_version__sys,Document Version,size__v,Size,Number,,
,Picklist.picklist__sys,Picklist,object,Object,String,64,
"""
LAUNCH = ",Object.product__v,Product,launch_date__c,Launch Date,Date,,\n"
ATC = ",Object.product__v,Product,atc_code__c,ATC Code,String,10,\n"
DOCUMENTED = [
    (
        "manifest.csv",
        """extract,extract_label,type,records,file
Metadata.metadata,Metadata,updates,15,Metadata/metadata.csv
Object.product__v,Product,updates,3,Object/product__v.csv
Object.user__sys,User,updates,1,Object/user__sys.csv
Object.3d_model__c,3D Model,updates,0,
Document.document_version__sys,Document Version,updates,2,Document/document_version__sys.csv
Picklist.picklist__sys,Picklist,updates,2,Picklist/picklist__sys.csv
""",
    ),
    ("Metadata/metadata.csv", ABOUT.format(launch=LAUNCH)),
    (
        "Object/product__v.csv",
        """id,modified_date__v,name__v,status__v,created_by__v,active__c,code__c,description__c,launch_date__c,strength__c
00P101,2026-01-14T13:17:05.000Z,Cholesterin,active__v,1001,true,00123,"Line one
Line ""two"", with comma",2024-02-29,2.5
00P102,2026-01-14T13:18:05.000Z,NA,active__v,1001,false,0E5,C:\\\\data\\\\x,1600-01-01,9007199254740993
00P103,2026-01-14T13:19:05.000Z,Miracle,inactive__v,1002,,007,,,
""",
    ),
    ("Object/user__sys.csv", "id,name__v\n1001,Ann\n"),
    (
        "Document/document_version__sys.csv",
        """id,modified_date__v,doc_id,document_number__v,name__v,size__v
101_0_1,2026-01-14T12:00:00.000Z,101,VV-PRM-00101,Banner,34567
102_1_0,2026-01-14T12:05:00.000Z,102,VV-PRM-00102,Placeholder,
""",
    ),
    (
        "Picklist/picklist__sys.csv",
        """modified_date__v,object,object_field,picklist_value_name,picklist_value_label,status__v
2023-12-14T00:06:28.867Z,product__v,status__v,active__v,Active,active__v
2023-12-14T00:06:28.867Z,product__v,status__v,inactive__v,Inactive,active__v
""",
    ),
]
AFTERWARDS = [
    (
        "manifest.csv",
        """extract,extract_label,type,records,file
Metadata.metadata,Metadata,updates,1,Metadata/metadata.csv
Metadata.metadata,Metadata,deletes,1,Metadata/metadata_deletes.csv
Object.product__v,Product,updates,2,Object/product__v.csv
Object.product__v,Product,deletes,1,Object/product__v_deletes.csv
Picklist.picklist__sys,Picklist,deletes,1,Picklist/picklist__sys_deletes.csv
Object.user__sys,User,updates,1,Object/user__sys.csv
""",
    ),
    ("metadata_full.csv", ABOUT.format(launch=ATC)),
    ("Metadata/metadata.csv", ABOUT.partition("\n")[0] + "\n2026-01-15T05:03:11.000Z" + ATC),
    (
        "Metadata/metadata_deletes.csv",
        "extract,column_name,deleted_date\nObject.product__v,launch_date__c,2026-01-15T05:04:00.000Z\n",
    ),
    (
        "Object/product__v.csv",
        """id,modified_date__v,name__v,status__v,created_by__v,active__c,atc_code__c,code__c,description__c,strength__c
00P101,2026-01-15T04:58:00.000Z,Cholesterin XR,active__v,1001,true,C10AA05,00123,,3
00P104,2026-01-15T05:09:12.345Z,New,active__v,1002,true,,010,,0.25
""",
    ),
    ("Object/product__v_deletes.csv", "id,deleted_date\n00P103,2026-01-15T05:10:44.000Z\n"),
    (
        "Picklist/picklist__sys_deletes.csv",
        """object,object_field,picklist_value_name,deleted_date
product__v,status__v,inactive__v,2026-01-15T05:11:00.000Z
""",
    ),
    ("Object/user__sys.csv", "id,name__v\n1001,Anna\n"),
]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_archives_written_as_they_are_documented(vault: World, end: str) -> None:
    """Lengths that are too short and numbers that are none among them."""
    for name, members in ((FULL, DOCUMENTED), (CHANGES, AFTERWARDS)):
        vault.drop({name: packed([(one, text.replace("\n", end)) for one, text in members])})
    vault.does("run", "p")
    found = {row["id"]: row for row in held(vault, "product__v")}
    assert list(found["00P101"]) == list(found["00P104"])
    assert "launch_date__c" not in found["00P101"]
    told = {
        key: (row["name__v"], row["code__c"], plain(row["strength__c"]), row["atc_code__c"])
        for key, row in found.items()
    }
    assert told == {
        "00P101": ("Cholesterin XR", "00123", Decimal(3), "C10AA05"),
        "00P102": ("NA", "0E5", plain(Decimal(9007199254740993)), None),
        "00P104": ("New", "010", Decimal("0.25"), None),
    }
    assert found["00P102"]["description__c"] == "C:\\\\data\\\\x"
    assert found["00P104"]["modified_date__v"].astimezone(UTC) == datetime(2026, 1, 15, 5, 9, 12, 345000, UTC)
    assert held(vault, "3d_model__c") == []
    documents = [(row["id"], row["document_number__v"], row["size__v"]) for row in held(vault, "document_version__sys")]
    assert sorted(documents) == [("101_0_1", "VV-PRM-00101", Decimal(34567)), ("102_1_0", "VV-PRM-00102", None)]
    assert [row["picklist_value_name"] for row in held(vault, "picklist__sys")] == ["active__v"]
    assert [row["name__v"] for row in held(vault, "user__sys")] == ["Anna"]


def test_values_are_what_the_archive_says(here: World) -> None:
    """Leading zeros, texts that look like nothing, old days, numbers of any length."""
    rows = [
        {"id": "00123", "name__v": "NA", "active__c": "true", "launch_date__c": "0001-01-01", "strength__c": "0.10"},
        {"id": "0E5", "name__v": "C:\\\\data", "seen__c": "1600-01-01T00:00:00.000Z", "strength__c": "9" * 29},
        {"id": "7", "name__v": 'two\nlines, "quoted"', "active__c": "false", "strength__c": "VV-1"},
        {"id": "8", "strength__c": "0.12345678901"},
    ]
    here.drop({FULL: Archive([products(*rows)]).made()})
    here.does("run", "p")
    assert held(here, "product__v") == [
        {
            "id": "00123",
            "name__v": "NA",
            "active__c": True,
            "launch_date__c": date(1, 1, 1),
            "seen__c": None,
            "strength__c": Decimal("0.1"),
            "strength__c_text": None,
        },
        {
            "id": "0E5",
            "name__v": "C:\\\\data",
            "active__c": None,
            "launch_date__c": None,
            "seen__c": datetime(1600, 1, 1, tzinfo=UTC),
            "strength__c": None,
            "strength__c_text": "9" * 29,
        },
        {
            "id": "7",
            "name__v": 'two\nlines, "quoted"',
            "active__c": False,
            "launch_date__c": None,
            "seen__c": None,
            "strength__c": None,
            "strength__c_text": "VV-1",
        },
        {
            "id": "8",
            "name__v": None,
            "active__c": None,
            "launch_date__c": None,
            "seen__c": None,
            "strength__c": None,
            "strength__c_text": "0.12345678901",
        },
    ]
    # A number of today takes the place of a text of yesterday.
    here.drop({CHANGES: changes(products({"id": "0E5", "name__v": "b", "strength__c": "1"}))})
    here.does("run", "p")
    [row] = [row for row in held(here, "product__v") if row["id"] == "0E5"]
    assert (row["strength__c"], row["strength__c_text"]) == (Decimal(1), None)


def test_settings_say_what_becomes_of_numbers_and_names(here: World) -> None:
    said = {
        "number_type": "decimal(10,2)",
        "prefix": "vault_",
        "double_backslashes": True,
        "contracts": {"vault_product__v": {"name__v": {"type": "integer"}, "strength__c": {"type": "string"}}},
    }
    here.set_up(ARCHIVES | {"tables": said})
    other = Extract(
        "Object.other__c", {"id": "ID", "n__c": "Number", "path__c": "String"}, [{"id": "1", "n__c": "1.50"}]
    )
    other.rows = [{"id": "1", "n__c": "1.50", "path__c": "C:\\\\x"}]
    here.drop({FULL: Archive([products({"id": "1", "name__v": "12", "strength__c": "0.10"}), other]).made()})
    here.does("run", "p")
    assert (
        held(here, "vault_product__v")[0] | {"id": "1", "name__v": 12, "strength__c": "0.10"}
        == held(here, "vault_product__v")[0]
    )
    assert held(here, "vault_other__c") == [{"id": "1", "n__c": Decimal("1.50"), "path__c": "C:\\x"}]
    assert tables_of(here) == {"vault_product__v", "vault_other__c", "vault_metadata"}


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        (Archive([products({"id": "1"}, records=2)]), "has 1 records, where the manifest says that it has 2"),
        (Archive([products({"id": "1"}, records=0)]), "has 1 records, where the manifest says that it has 0"),
        (Archive([Extract("Object.a__c", {"id": "ID", "ID": "String"}, [{"id": "1"}])]), "two columns of one name"),
        (
            Archive([Extract("Object.a__c", {"id": "ID"}), Extract("Document.A__c", {"id": "ID"})]),
            "which would be one table",
        ),
        (Archive([products({"id": "1"}), products({"id": "2"})]), "twice in its manifest"),
    ],
)
def test_an_archive_that_is_not_what_it_says_fails_whole(here: World, archive: Archive, said: str) -> None:
    here.drop({FULL: archive.made()})
    told = here.refused(5, "run", "p")
    assert said in told
    assert FULL in told
    assert here.completions() == {}
    assert f"ingestkit manifest show --path {FULL}\n" in told + "\n"
    assert here.does("manifest", "show", "--path", FULL)["rows"]


def test_rows_without_the_id_that_metadata_tell_of_fail_the_archive(here: World) -> None:
    members = Archive([products({"id": "1"})]).members()
    without = [
        (name, text.replace("id,", "other,", 1) if name.startswith("Object") else text) for name, text in members
    ]
    here.drop({FULL: packed(without)})
    assert "has no column id, by which its rows are known" in here.refused(5, "run", "p")


def test_what_no_id_is_told_of_is_replaced_whole(vault: World) -> None:
    """Such as how fields are configured, which full archives alone hold."""
    fields = {"object": "String", "formula": "LongText"}
    other = Extract("Metadata.object", fields, [{"object": "a", "formula": "1"}, {"object": "a", "formula": "2"}])
    vault.drop({FULL: Archive([products({"id": "1"}), other, Extract("Metadata.document", fields)]).made()})
    vault.does("run", "p")
    assert sorted(row["formula"] for row in held(vault, "object")) == ["1", "2"]
    assert held(vault, "document") == []
    vault.drop({CHANGES: changes(products({"id": "2"}))})
    other.rows = [{"object": "a", "formula": "3"}]
    later = FULL.replace("20260115", "20260116")
    vault.drop({later: Archive([products({"id": "1"}), other]).made()})
    vault.does("run", "p")
    assert [row["formula"] for row in held(vault, "object")] == ["3"]
    # Nobody could say which row it is that has changed.
    archive = Archive(
        [Extract("Metadata.object", fields, other.rows)], full=False, everything={"Metadata.object": fields}
    )
    vault.drop({LATER.replace("20260115", "20260117"): archive.made()})
    assert "has no column id, by which its rows are known" in vault.refused(5, "run", "p")


def test_a_member_that_is_missing_fails_the_archive(here: World) -> None:
    members = Archive([products({"id": "1"})]).members()
    here.drop({FULL: packed([one for one in members if one[0] != "Object/product__v.csv"])})
    assert "has no Object/product__v.csv, which its manifest names" in here.refused(5, "run", "p")


def test_a_member_that_the_manifest_does_not_name_is_told_and_left_out(here: World) -> None:
    members = Archive([products({"id": "1"})]).members()
    here.drop({FULL: packed([*members, ("object.csv", "a\n1\n")])})
    ended = here.call("run", "p")
    assert ended.code == 0
    assert any("does not name object.csv" in line["event"] for line in ended.log)
    assert tables_of(here) == {"product__v", "metadata"}


def test_an_archive_that_is_cut_off_fails_and_is_done_when_it_is_whole(here: World) -> None:
    whole = Archive([products({"id": "1"})]).made()
    here.drop({FULL: whole[:-20]})
    assert "is no whole archive" in here.refused(5, "run", "p")
    here.drop({FULL: whole})
    here.does("run", "p")
    assert [row["id"] for row in held(here, "product__v")] == ["1"]


def test_two_archives_of_one_batch_are_refused(here: World) -> None:
    content = Archive([products({"id": "1"})]).made()
    here.drop({FULL: content, FULL.replace("100123", "200456"): content})
    assert "has 2 archives, and each is a batch of its own" in here.refused(5, "run", "p")


def test_a_value_that_breaks_its_type_is_rejected_and_shown(here: World) -> None:
    rows = [{"id": "1", "active__c": "yes indeed"}, {"id": "2", "active__c": "true"}, {"id": "", "name__v": "x"}]
    here.drop({FULL: Archive([products(*rows)]).made()})
    assert "reject_rate" in here.refused(6, "run", "p")
    here.set_up(ARCHIVES | {"tables": {}, "gate": {"max_reject_pct": 50}})
    here.does("run", "p")
    assert [row["id"] for row in held(here, "product__v")] == ["2"]
    found = here.does("quarantine", "list", "p")["rows"]
    assert {(row["column"], row["code"], row["records"]) for row in found} == {
        ("active__c", "type", 1),
        ("id", "required", 1),
    }
    shown = here.does("quarantine", "show", "p")["rows"]
    print(shown)


def test_where_all_rows_are_rejected_none_is_left(here: World) -> None:
    lenient = {"gate": {"max_reject_pct": 100}, "validation": {"max_file_reject_pct": 100}}
    here.set_up(ARCHIVES | {"tables": {}} | lenient)
    other = Extract("Object.other__c", {"id": "ID", "n__c": "Number", "b__c": "Boolean"}, [{"id": "1", "b__c": "oops"}])
    here.drop({FULL: Archive([products({"id": "1", "strength__c": "VV-1"}), other]).made()})
    here.does("run", "p")
    assert held(here, "other__c") == []
    assert [(row["strength__c"], row["strength__c_text"]) for row in held(here, "product__v")] == [(None, "VV-1")]


def test_a_key_that_comes_twice_publishes_nothing(here: World) -> None:
    here.drop({FULL: Archive([products({"id": "1"})]).made()})
    here.does("run", "p")
    here.drop({CHANGES: changes(products({"id": "2"}, {"id": "2", "name__v": "again"}))})
    assert "product__v: key_duplicates is 1" in here.refused(6, "run", "p")
    assert [row["id"] for row in held(here, "product__v")] == ["1"]


def test_logs_are_added_once(here: World) -> None:
    here.set_up(ARCHIVES | {"tables": {"load": "append"}})
    logs = {"timestamp": "DateTime", "user": "String", "action": "String"}
    days = {"20260115-0500-L": "login", "20260116-0500-L": "logout"}
    for day, action in days.items():
        extract = Extract(
            "Log.login_audit", logs, [{"timestamp": "2026-01-15T00:00:00.000Z", "user": "a", "action": action}]
        )
        archive = Archive([extract], full=False, everything={"Log.login_audit": logs})
        here.drop({f"100123-{day}.tar.gz": archive.made()})
    here.does("run", "p")
    rows = here.table("login_audit", "action", "_batch")
    assert rows == [("login", "20260115-0500-L"), ("logout", "20260116-0500-L")]
    here.does("backfill", "p", "--batch", "20260115-0500-L", "--from-lake")
    assert here.table("login_audit", "action", "_batch") == rows


def test_columns_that_come_and_go_are_told(here: World) -> None:
    here.set_up(ARCHIVES | {"tables": {"removed": "drop"}})
    here.drop({FULL: Archive([products({"id": "1", "launch_date__c": "2020-01-01"})]).made()})
    here.does("run", "p")
    left = {name: kind for name, kind in PRODUCT.items() if name != "launch_date__c"} | {"new__c": "Number"}
    archive = Archive(
        [Extract("Object.product__v", left, [{"id": "2", "new__c": "2"}])],
        full=False,
        changed=[("Object.product__v", "new__c", "Number")],
        removed=[("Object.product__v", "launch_date__c")],
        everything={"Object.product__v": left},
    )
    here.drop({CHANGES: archive.made()})
    for stage in ("extract", "validate"):
        here.does(stage, "p")
    statements = [row["statement"] for row in here.does("plan", "p")["ddl"]]
    assert any('ADD COLUMN "new__c"' in one for one in statements), statements
    assert any("DROP COLUMN launch_date__c" in one for one in statements), statements
    for stage in ("load", "gate", "clean"):
        here.does(stage, "p")
    assert held(here, "product__v")[1]["new__c"] == Decimal(2)
    assert "launch_date__c" not in held(here, "product__v")[0]
    drift = here.state('SELECT "column", kind, action FROM schema_drift')
    assert sorted(drift) == [
        ("Object.product__v.launch_date__c", "removed", "drop"),
        ("Object.product__v.new__c", "changed", "evolve"),
    ]


def test_a_field_that_is_made_anew_with_another_type_holds_what_is_new(vault: World) -> None:
    """Nothing of what it held before is left, and the publish that gives it its values gives it its type."""
    vault.drop(
        {FULL: Archive([products({"id": "1", "strength__c": "2"}, {"id": "2", "strength__c": "9" * 40})]).made()}
    )
    vault.does("run", "p")
    anew = PRODUCT | {"strength__c": "String"}
    archive = Archive(
        [Extract("Object.product__v", anew, [{"id": "1", "strength__c": "strong"}])],
        full=False,
        changed=[("Object.product__v", "strength__c", "String")],
        removed=[("Object.product__v", "strength__c")],
        everything={"Object.product__v": anew},
    )
    vault.drop({CHANGES: archive.made()})
    vault.does("run", "p")
    found = sorted((row["id"], row["strength__c"], row.get("strength__c_text")) for row in held(vault, "product__v"))
    assert found == [("1", "strong", None), ("2", None, None)]


def test_a_table_that_somebody_else_has_made_is_left_as_it_is(vault: World) -> None:
    vault.drop({FULL: Archive([products({"id": "1"})]).made()})
    vault.does("check", "p")
    vault.target_does("CREATE TABLE product__v (id integer)")
    vault.target_does("INSERT INTO product__v VALUES (7)")
    told = vault.refused(7, "run", "p")
    assert "table product__v is there already, and was not made for p" in told
    assert vault.target("SELECT id FROM product__v") == [(7,)]
    vault.target_does("DROP TABLE product__v")
    vault.does("run", "p")
    assert [row["id"] for row in held(vault, "product__v")] == ["1"]


def test_nothing_is_kept_where_nothing_is_to_be(here: World) -> None:
    here.set_up(ARCHIVES | {"tables": {"removed": "drop"}, "keep": "none"})
    replay = Replay()
    fill(here, Chain(4), replay, 4)
    here.does("run", "p")
    compare(here, replay)
    assert [path for path in (here.root / "lake").glob("*/p/_all/**/*") if path.is_file()] == []


def test_an_archive_may_be_rehearsed(here: World) -> None:
    here.drop({FULL: Archive([products({"id": "1"}, {"id": "2"}, {"id": "3"})]).made()})
    assert here.call("run", "p", "--dry-run=data", "--rows", "2").code == 0
    assert here.call("run", "p", "--dry-run=data").code == 0
    assert not (here.root / "state/ingestkit.db").exists()


def test_a_table_of_another_pipeline_is_not_taken(here: World) -> None:
    archive = Archive([products({"id": "1"})]).made()
    here.drop({FULL: archive})
    here.does("run", "p")
    here.set_up(ARCHIVES | {"tables": {}}, pipeline="q")
    said = here.refused(7, "run", "q")
    assert "belongs to p." in said
    assert "set tables.prefix in pipeline q" in said
    here.set_up(ARCHIVES | {"tables": {"prefix": "q_"}}, pipeline="q")
    here.does("run", "q")
    assert [row["id"] for row in held(here, "q_product__v")] == ["1"]
