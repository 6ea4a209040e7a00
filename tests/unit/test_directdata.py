"""Archives that say what is in them: what is read of them, and which are refused."""

import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import pytest

from ingestkit import directdata
from ingestkit.directdata import Archive, Contents, contents_of, members
from ingestkit.errors import ContractError
from ingestkit.settings import Archives
from tests.doubles.direct_data import Archive as Made
from tests.doubles.direct_data import Extract, packed

PRODUCT = {"id": "ID", "name__v": "String", "strength__c": "Number"}
ROWS = [{"id": "1", "name__v": "a", "strength__c": "2.5"}, {"id": "2", "name__v": "b", "strength__c": ""}]
FULL = Made([Extract("Object.product__v", PRODUCT, ROWS), Extract("Object.3d_model__c", {"id": "ID"})])
CHANGES = Made(
    [Extract("Object.product__v", PRODUCT, ROWS[:1], [("7",)])],
    full=False,
    changed=[("Object.product__v", "strength__c", "Number")],
    removed=[("Object.product__v", "old__c"), ("Object.gone__c", "id")],
    everything={"Object.product__v": PRODUCT},
)


def archive(content: bytes, **limits: float) -> Archive:
    @contextmanager
    def opened() -> Iterator[BinaryIO]:
        yield io.BytesIO(content)

    return Archive("drop/a.tar.gz", len(content), opened, Archives.model_validate(limits))


def names(content: bytes, **limits: float) -> list[str]:
    return [name for name, _, file in members(archive(content, **limits)) if file.read() is not None]


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(ContractError) as caught:
        act()
    assert caught.value.hint
    return caught.value.message


def test_what_a_full_archive_says() -> None:
    found = contents_of(archive(FULL.made()), whole=True)
    assert [(one.extract, one.kind, one.records, one.file) for one in found.entries] == [
        ("Metadata.metadata", "updates", 4, "Metadata/metadata.csv"),
        ("Object.product__v", "updates", 2, "Object/product__v.csv"),
        ("Object.3d_model__c", "updates", 0, ""),
    ]
    assert found.columns == {"Object.product__v": PRODUCT, "Object.3d_model__c": {"id": "ID"}}
    assert (found.changed, found.removed) == ({}, {})


@pytest.mark.parametrize("suffixed", [False, True])
@pytest.mark.parametrize("dated", ["modified_date", "modified_date__v"])
@pytest.mark.parametrize("formula", [False, True])
def test_what_an_archive_of_changes_says_however_it_is_written(suffixed: bool, dated: str, formula: bool) -> None:
    CHANGES.suffixed, CHANGES.dated, CHANGES.formula = suffixed, dated, formula
    found = contents_of(archive(CHANGES.made()), whole=False)
    assert [(one.extract, one.kind, one.records) for one in found.entries] == [
        ("Metadata.metadata", "updates", 1),
        ("Metadata.metadata", "deletes", 2),
        ("Object.product__v", "updates", 1),
        ("Object.product__v", "deletes", 1),
    ]
    assert found.columns == {"Object.product__v": PRODUCT}
    assert found.changed == {"Object.product__v": ("strength__c",)}
    assert found.removed == {"Object.product__v": ("old__c",), "Object.gone__c": ("id",)}


def test_a_manifest_without_types_is_of_what_is_there() -> None:
    FULL.typed = False
    try:
        assert {one.kind for one in contents_of(archive(FULL.made()), whole=True).entries} == {"updates"}
    finally:
        FULL.typed = True


def test_relationships_that_are_gone_have_a_name_of_their_own() -> None:
    manifest = "extract,extract_label,records,file\nDocument.document_relationships_deleted__sys,x,1,Document/d.csv\n"
    everything = "extract,column_name,type\n"
    found = contents_of(archive(packed([("manifest.csv", manifest), ("metadata_full.csv", everything)])), whole=False)
    assert [(one.extract, one.kind) for one in found.entries] == [("Document.document_relationships__sys", "deletes")]


def test_what_is_wanted_may_stand_at_the_end_and_is_read_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    real = directdata.members

    def told(one: Archive) -> Iterator[tuple[str, int, object]]:
        for name, size, file in real(one):
            seen.append(name)
            yield name, size, file

    monkeypatch.setattr(directdata, "members", told)
    first = contents_of(archive(FULL.made()), whole=True)
    assert seen == ["manifest.csv", "Metadata/metadata.csv"]
    FULL.last = ("Metadata/metadata.csv", "manifest.csv")
    try:
        assert contents_of(archive(FULL.made()), whole=True) == first
    finally:
        FULL.last = ()
    assert seen[2:] == ["Object/product__v.csv", "Metadata/metadata.csv", "manifest.csv"]


def test_types_are_those_of_the_contract() -> None:
    kind = directdata.type_of
    assert kind("Object.a", "n", "Number", "decimal(38,10)") == "decimal(38,10)"
    assert kind("Object.a", "id", "Number", "decimal(38,10)") == "string"
    assert kind("Document.document_version__sys", "document_number__v", "Number", "decimal(38,10)") == "string"
    assert kind("Picklist.picklist__sys", "object_field", "Boolean", "float") == "string"
    assert [kind("Object.a", "n", said, "float") for said in ("Boolean", "Date", "DateTime", "Richtext", "", None)] == [
        "boolean",
        "date",
        "timestamp",
        "string",
        "string",
        "string",
    ]


def test_folders_are_passed_over() -> None:
    FULL.folders = True
    try:
        assert names(FULL.made()) == ["manifest.csv", "Metadata/metadata.csv", "Object/product__v.csv"]
    finally:
        FULL.folders = False


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../a.csv", "Object/../../a.csv", "a\\..\\b.csv", "", "./", "Object/.."]
)
def test_a_name_that_leads_out_is_refused(name: str) -> None:
    assert "leads out of it" in refused(lambda: names(packed([(name, "x")])))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_what_is_no_file_is_refused(kind: bytes) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as made:
        info = tarfile.TarInfo("manifest.csv")
        info.type, info.linkname = kind, "/etc/passwd"
        made.addfile(info)
    assert "is no file" in refused(lambda: names(out.getvalue()))


def test_two_members_of_one_name_are_refused() -> None:
    twice = packed([("Object/a.csv", "id\n"), ("Object/./a.csv", "id\n")])
    assert "two members Object/a.csv" in refused(lambda: names(twice))


def test_an_archive_that_is_cut_off_or_damaged_anywhere_is_refused() -> None:
    whole = packed([("manifest.csv", "extract,records,file\n"), ("Object/a.csv", "id\n" + "1234567\n" * 500)])
    assert names(whole) == ["manifest.csv", "Object/a.csv"]
    for size in range(len(whole)):
        refused(lambda size=size: names(whole[:size]))  # type: ignore[misc]
    for at in range(10, len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        refused(lambda damaged=damaged: names(bytes(damaged)))  # type: ignore[misc]


def test_what_goes_on_behind_the_end_is_refused() -> None:
    plain = gzip.decompress(packed([("manifest.csv", "x")]))
    assert "goes on behind its end" in refused(lambda: names(gzip.compress(plain + b"more")))
    assert names(gzip.compress(plain) + gzip.compress(b"\0" * 512)) == ["manifest.csv"]
    refused(lambda: names(gzip.compress(plain) + b"more"))


def test_limits_hold() -> None:
    content = packed([("a.csv", "x"), ("b.csv", "y" * 5000)])
    assert "max_members" in refused(lambda: names(content, max_members=1))
    assert "max_bytes" in refused(lambda: names(content, max_bytes=5000))
    assert names(content, max_members=2, max_bytes=5001) == ["a.csv", "b.csv"]
    bomb = packed([("a.csv", "x" * (65 << 20))])
    assert "max_ratio" in refused(lambda: names(bomb))
    assert names(bomb, max_ratio=2000) == ["a.csv"]


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ("extract,records\nObject.a,1\n", "has no column file"),
        ("extract,records,file\nObject.a,many,Object/a.csv\n", "has many records"),
        ("extract,records,file\nObject.a,1,\n", "1 records, and of no file"),
        ("extract,type,records,file\nObject.a,upserts,1,Object/a.csv\n", "of type upserts"),
        ("extract,records,file\nMetadata.metadata,1,Metadata/metadata.csv\n", "has no Metadata/metadata.csv"),
        ('extract,records,file\n"Object.a\n', "cannot be read as CSV"),
        ("extract,records,file\na,1,b,c\n", "more values than columns"),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_refused(manifest: str, said: str) -> None:
    content = packed([("manifest.csv", manifest), ("metadata_full.csv", "extract,column_name,type\n")])
    assert said in refused(lambda: contents_of(archive(content), whole=False))


def test_what_is_no_archive_of_this_kind_is_refused() -> None:
    assert "has no manifest.csv" in refused(lambda: contents_of(archive(packed([("a.csv", "x")])), whole=True))
    without = packed([("manifest.csv", "extract,records,file\n")])
    assert "nobody knows the types" in refused(lambda: contents_of(archive(without), whole=False))
    assert contents_of(archive(without), whole=True) == Contents((), {})
    assert "is no whole archive" in refused(lambda: names(b"PK\x03\x04 no gzip"))
    assert "is no whole archive" in refused(lambda: names(b""))
    latin = packed([("manifest.csv", "extract,records,file\n\xe9,0,\n".encode("latin-1"))])
    assert "is no UTF-8" in refused(lambda: contents_of(archive(latin), whole=True))
