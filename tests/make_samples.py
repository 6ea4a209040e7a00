"""Makes `config/samples`: small deliveries, the same bytes each time. Run it after changing it."""

import csv
import gzip
import io
import shutil
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent / "config"
FOLDERS = ("20260104_180000", "20260111_180000", "20260118_180000")
FIRST_PACKAGE = 0x1C5
PEOPLE = ("Zoë", "José", "Anna", "Łukasz", "Siân", "Renée", "Jürgen", "Maya", "Nguyễn", "Ólafur")
FAMILIES = ("O'Hara", "Müller", "García, Jr.", "Åström", "Smith", "Dvořák", "D’Angelo", "Kowalczyk")
PLACES = (("Boston", "US-MA", "02110"), ("Newark", "US-NJ", "07102"), ("São Paulo", "BR-SP", "01310"))

Row = dict[str, str]


def vid(kind: int, number: int) -> str:
    return str(242_976_940_179_000_000 + kind * 100_000 + number)


def changed(delivery: int, number: int) -> str:
    return f"2026-01-{4 + 7 * delivery:02d}T09:{number % 60:02d}:00.000Z"


def hcp(delivery: int, number: int) -> Row:
    merged = number == 7 and delivery > 0
    return {
        "vid__v": vid(1, number),
        "first_name__v": PEOPLE[number % len(PEOPLE)],
        "last_name__v": FAMILIES[number % len(FAMILIES)],
        "hcp_type__v": "P",
        "hcp_status__v": "A",
        "specialty_1__v": ("IM", "CD", "NA")[number % 3],
        "npi_num__v": f"{12_345_678 + number:010d}",
        "primary_country__v": "US",
        "birth_year__v": str(1950 + number % 45),
        "record_state__v": "MERGED_INTO" if merged else "VALID",
        "record_merged_vid__v": vid(1, 6) if merged else "",
        "data_privacy_opt_out__v": "Y" if number % 11 == 0 else "",
        "created_date__v": "2016-11-17T10:58:49.000-08:00",
        "modified_date__v": changed(delivery, number),
    }


def hco(delivery: int, number: int) -> Row:
    return {
        "vid__v": vid(2, number),
        "corporate_name__v": f'Hospital "Sankt Jürgen" {number}' if number % 5 == 0 else f"Clínica São José {number}",
        "hco_type__v": "4:6",
        "hco_status__v": "A",
        "count_beds__v": str(number * 12) if number % 4 else "",
        "340B_eligible__v": ("true", "false")[number % 2],
        "notes__v": "East wing, first floor\nring twice" if number % 6 == 0 else "",
        "record_state__v": "VALID",
        "modified_date__v": changed(delivery, number),
    }


def address(delivery: int, number: int) -> Row:
    locality, area, postal_code = PLACES[number % len(PLACES)]
    return {
        "vid__v": vid(3, number),
        "entity_vid__v": vid(1, number),
        "entity_type__v": "HCP",
        "address_line_1__v": f"{number} Main St\nSuite {delivery + 1}" if number % 9 == 0 else f"{number} Main St",
        "locality__v": locality,
        "administrative_area__v": area,
        "postal_code__v": postal_code,
        "address_ordinal__v": "1",
        "latitude__v": f"42.{number:06d}",
        "longitude__v": f"-71.{number:06d}",
        "record_state__v": "VALID",
        "modified_date__v": changed(delivery, number),
    }


def licence(delivery: int, number: int) -> Row:
    return {
        "vid__v": vid(4, number),
        "entity_vid__v": vid(1, number),
        "license_number__v": f"{number:07d}",
        "license_degree__v": "MD",
        "expiration_date__v": f"{2027 + delivery}-12-31",
        "license_status__v": "A",
        "record_state__v": "VALID",
        "modified_date__v": changed(delivery, number),
    }


def parenthco(delivery: int, number: int) -> Row:
    return {
        "vid__v": vid(5, 1000 * delivery + number),
        "entity_vid__v": vid(1, number),
        "entity_type__v": "HCP",
        "parent_hco_vid__v": vid(2, 1 + number % 20),
        "hierarchy_type__v": "HCP_HCO",
        "relationship_type__v": "7356",
        "is_primary_relationship__v": ("Y", "N")[number % 2],
        "start_date__v": "2020-02-29",
        "end_date__v": "",
        "record_state__v": "VALID",
        "modified_date__v": changed(delivery, number),
    }


def customkey(delivery: int, number: int) -> Row:
    return {
        "vid__v": vid(6, number),
        "entity_vid__v": vid(1, number),
        "custom_key_source__v": "CRM|EU",
        "custom_key_value__v": f"{delivery}-{number:05d}",
        "record_state__v": "VALID",
        "modified_date__v": changed(delivery, number),
    }


def reference(number: int) -> Row:
    names = (("IM", "Internal Medicine", "Medicina Interna"), ("CD", "Cardiology", "Cardiologia"))
    code, english, portuguese = names[number]
    return {"Reference Type": "Specialty", "Network Code": code, "EN": english, "PT_BR": portuguese}


def text(rows: Iterable[Row], line_end: str = "\n", delimiter: str = ",") -> bytes:
    listed = list(rows)
    into = io.StringIO(newline="")
    writer = csv.DictWriter(into, listed[0], lineterminator=line_end, delimiter=delimiter)
    writer.writeheader()
    writer.writerows(listed)
    return into.getvalue().encode()


def but(rows: Sequence[Row], number: int, **changes: str) -> list[Row]:
    """The rows, with one of them spoiled."""
    return [{**row, **changes} if at == number else row for at, row in enumerate(rows)]


def deliveries() -> Iterable[tuple[str, bytes]]:
    """Path and content of every file, in delivery order."""
    for delivery, folder in enumerate(FOLDERS):
        people = [hcp(delivery, number) for number in range(1, 51 + 4 * delivery)]
        places = [hco(delivery, number) for number in range(1, 21 + 2 * delivery)]
        addresses = [address(delivery, number) for number in range(10 * delivery + 1, 10 * delivery + 43)]
        licences = [licence(delivery, number) for number in range(5 * delivery + 1, 5 * delivery + 41)]
        parents = text(parenthco(delivery, number) for number in range(1, 31 + 2 * delivery))
        match delivery:
            case 0:
                people = but(people, 11, modified_date__v="2026-1-4")
                yield f"{folder}/HCP.csv", text(people)
                yield f"{folder}/hco.csv", b"\xef\xbb\xbf" + text(places, "\r\n")
                yield f"{folder}/address.csv", text(addresses)
                yield f"{folder}/US_license.csv", text(licences)
                yield f"{folder}/parenthco.csv", parents
            case 1:
                half = len(people) // 2
                yield f"{folder}/US_hcp_1.csv", text(but(people[:half], 4, vid__v=""))
                yield f"{folder}/US_hcp_2.csv", text(people[half:])
                yield f"{folder}/HCO_full.csv", text(places)
                yield f"{folder}/Address.csv.gz", gzip.compress(text(addresses), mtime=0)
                yield f"{folder}/license.csv", text(licences) + vid(4, 99).encode() + b",too,few\n"
                yield f"{folder}/PARENT_HCO.csv", parents
                yield f"{folder}/readme.txt", b"Delivered weekly. Not a table.\n"
            case _:
                yield f"{folder}/hcp.csv", text([*people, people[2]])
                yield f"{folder}/hco.csv", text(places)
                yield f"{folder}/address.csv", text(but(addresses, 3, latitude__v="142.5"))
                yield f"{folder}/license.csv", text(but(licences, 8, expiration_date__v="31/12/2029"))
                yield f"{folder}/parenthco.csv", parents


def packages() -> Iterable[tuple[str, bytes]]:
    """Name and content of each counted package: one in full, then two of what changed."""
    people = [hcp(0, number) for number in range(1, 31)]
    yield packed(
        0,
        HCP=piped(but(people, 11, npi_num__v="123")),
        HCO=piped(hco(0, number) for number in range(1, 11)),
        ADDRESS=piped(address(0, number) for number in range(1, 31)),
        LICENSE=piped(licence(0, number) for number in range(1, 31)),
        RELATION=piped(parenthco(0, number) for number in range(1, 31)),
        EXTERNALKEYS=piped(customkey(0, number) for number in range(1, 31)),
        REFERENCE=piped(map(reference, range(2))),
    )
    report = piped(hcp(1, number) for number in (6, 7, 31, 32))
    names, rows = report.split(b"\n", 1)
    labelled = b"|".join(b"hcp.%s (%s)" % (name, name.split(b"_")[0].upper()) for name in names.split(b"|"))
    yield packed(
        1,
        US_HCP_delta=labelled + b"\n" + rows,
        addresses_delta_20260111=piped(address(1, number) for number in (7, 31)),
        PARENTHCO_delta=piped(parenthco(1, number) for number in (31, 32)),
        CustomKeys_delta=piped(customkey(1, number) for number in (31, 32)),
    )
    gone = {**hcp(2, 3), "record_state__v": "DELETED"}
    opted_out = {**hcp(2, 4), "data_privacy_opt_out__v": "Y"}
    yield packed(
        2,
        hcp_delta=piped([hcp(2, 2), gone, opted_out]),
        hco_delta=piped([hco(2, 11), {**hco(2, 5), "record_state__v": "INVALID"}]),
        license_delta=piped(licence(2, number) for number in (2, 31)),
    )


def piped(rows: Iterable[Row]) -> bytes:
    return text(rows, delimiter="|")


def packed(delivery: int, **members: bytes) -> tuple[str, bytes]:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w") as archive:
        for name, content in members.items():
            # Stored, since what packs them is another from one library to the next.
            archive.writestr(zipfile.ZipInfo(f"{name}.csv", (2026, 1, 4 + 7 * delivery, 18, 0, 0)), content)
    return f"exp_{FIRST_PACKAGE + delivery:08X}.zip", into.getvalue()


def main() -> None:
    for pipeline, made in (("opendata", deliveries()), ("network", packages())):
        samples = ROOT / "samples" / pipeline
        shutil.rmtree(samples, ignore_errors=True)
        for name, content in made:
            path = samples / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        contract = yaml.safe_load((ROOT / "pipelines" / f"{pipeline}.yaml").read_text())["models"]
        for model, row in MODELS.items():
            if model in contract:
                assert list(contract[model]["columns"]) == list(row(0, 1)), f"{model}: sample and contract differ"


MODELS = {
    "hcp": hcp,
    "hco": hco,
    "address": address,
    "license": licence,
    "parenthco": parenthco,
    "customkey": customkey,
}


if __name__ == "__main__":
    main()
