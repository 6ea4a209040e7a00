"""Our lifecycle rules among those of others, in a bucket of S3: theirs stay to the letter, nobody is overwritten."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ingestkit import lifecycle
from ingestkit.errors import LakeError
from ingestkit.settings import Lifecycle, PipelineSettings, S3Connection
from ingestkit.stores.s3_lifecycle import S3Lifecycle, opened
from tests.doubles.rules import Rules, rules
from tests.object_stores import S3Server, s3, s3_without_conditions

THEIRS = """<Rule attr="kept"><ID>cold &amp; old</ID>
   <!-- a word of theirs --><Filter><And>
  <Prefix>lake/</Prefix><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan></And></Filter>
  <Status>Enabled</Status><Unheard of="this">ü</Unheard>
  <Transition><Days>30</Days><StorageClass>GLACIER</StorageClass></Transition></Rule>"""
OTHERS = """<Rule><ID>ingestkit-00000000-runs</ID><Prefix>other/_runs/</Prefix>
<Status>Disabled</Status><Expiration><Days>1</Days></Expiration></Rule>"""
DOCUMENT = f"""<?xml version="1.0" encoding="UTF-8"?>
<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{THEIRS}
{OTHERS}</LifecycleConfiguration>"""
WANTED = {"keep": {"_runs/": "400d"}, "noncurrent_versions": "30d", "abort_uploads_after": "3d"}


@dataclass(slots=True)
class Still:
    """A clock that tells how long it was asked to wait, and does not."""

    waited: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def elapsed(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)


@pytest.fixture
def bucket() -> Iterator[Rules]:
    with rules() as made:
        made.document = DOCUMENT.encode()
        yield made


def service(endpoint: str, bucket: str = "b", **more: Any) -> S3Lifecycle:
    said = {
        "bucket": bucket,
        "prefix": "lake/",
        "endpoint_url": endpoint,
        "path_style": True,
        "region": "eu-central-1",
        "access_key": "AKIAIOSFODNN7EXAMPLE",
        "secret_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    }
    return opened(connection=S3Connection.model_validate(said | more), root=Path())


def planned(there: S3Lifecycle, wanted: dict[str, Any] | None = None) -> lifecycle.Plan:
    return lifecycle.plan(there, Lifecycle.model_validate(WANTED if wanted is None else wanted), [])


def applied(there: S3Lifecycle, wanted: dict[str, Any] | None = None) -> None:
    plan = planned(there, wanted)
    if plan.to_write:
        lifecycle.apply(there, plan, Still())


def changes(plan: lifecycle.Plan) -> list[tuple[str, str]]:
    return [(one.change, one.name.rpartition("-")[2]) for one in plan.changes]


def test_rules_of_others_stay_to_the_letter(bucket: Rules) -> None:
    applied(service(bucket.endpoint))
    [written] = bucket.written
    text = written.decode()
    assert text.startswith(DOCUMENT.removesuffix("</LifecycleConfiguration>"))
    assert re.findall("<ID>(.*?)</ID>", text) == [
        "cold &amp; old",
        "ingestkit-00000000-runs",
        "ingestkit-e0e1a28f-runs",
        "ingestkit-e0e1a28f-noncurrent",
        "ingestkit-e0e1a28f-uploads",
    ]
    applied(service(bucket.endpoint), {})
    assert bucket.written[1].decode() == DOCUMENT


def test_what_is_there_already_is_not_written_again(bucket: Rules) -> None:
    applied(service(bucket.endpoint))
    assert len(bucket.written) == 1
    again = planned(service(bucket.endpoint))
    assert {kind for kind, _ in changes(again)} == {"unchanged", "foreign"}
    assert again.to_write == ()


def test_only_what_differs_is_changed(bucket: Rules) -> None:
    applied(service(bucket.endpoint))
    plan = planned(service(bucket.endpoint), {"keep": {"_runs/": "500d", "raw/": "90d"}, "noncurrent_versions": "30d"})
    assert changes(plan) == [
        ("changed", "runs"),
        ("added", "raw"),
        ("unchanged", "noncurrent"),
        ("removed", "uploads"),
        ("foreign", "cold & old"),
        ("foreign", "runs"),
    ]
    lifecycle.apply(service(bucket.endpoint), plan, Still())
    assert re.findall("<Days>(.*?)</Days>", bucket.written[-1].decode()) == ["30", "1", "500", "90"]


def test_the_last_rule_is_removed_as_a_service_wants_it(bucket: Rules) -> None:
    bucket.document = None
    applied(service(bucket.endpoint))
    applied(service(bucket.endpoint), {})
    assert bucket.document is None
    assert planned(service(bucket.endpoint), {}).changes == ()


def test_what_is_said_of_all_rules_beside_them_stays(bucket: Rules) -> None:
    bucket.smallest = "varies_by_storage_class"
    applied(service(bucket.endpoint))
    assert bucket.smallest == "varies_by_storage_class"


def test_who_writes_between_plan_and_apply_is_not_overwritten(bucket: Rules) -> None:
    plan = planned(service(bucket.endpoint))
    bucket.document = DOCUMENT.replace("30", "31").encode()
    with pytest.raises(LakeError, match="somebody changed the lifecycle rules of s3://b meanwhile"):
        lifecycle.apply(service(bucket.endpoint), plan, Still())
    assert bucket.written == []


def test_who_writes_right_behind_us_is_told_of(bucket: Rules) -> None:
    def theirs() -> None:
        bucket.document = DOCUMENT.encode()

    bucket.afterwards = theirs
    with pytest.raises(LakeError, match="somebody else wrote at the same time"):
        applied(service(bucket.endpoint))


def test_a_service_that_takes_a_moment_is_waited_for(bucket: Rules) -> None:
    bucket.stale = 2
    clock = Still()
    lifecycle.apply(service(bucket.endpoint), planned(service(bucket.endpoint)), clock)
    assert clock.waited == [1, 1]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("<ListBucketResult/>", "knows no lifecycle rules"),
        ('<a:LifecycleConfiguration xmlns:a="x"><a:Rule/></a:LifecycleConfiguration>', "as nobody writes them"),
    ],
)
def test_what_cannot_be_kept_to_the_letter_is_not_touched(bucket: Rules, document: str, told: str) -> None:
    bucket.document = document.encode()
    with pytest.raises(LakeError, match=told):
        planned(service(bucket.endpoint))


def test_rules_of_others_that_remove_what_is_needed_are_warned_of(bucket: Rules) -> None:
    fatal = "<Rule><ID>{}</ID><Filter>{}</Filter><Status>{}</Status><Expiration><Days>{}</Days></Expiration></Rule>"
    where = "<Prefix>lake/raw/</Prefix>"
    tagged = "<And><Prefix>lake/</Prefix><Tag><Key>a</Key><Value>b</Value></Tag></And>"
    some = [
        fatal.format("all", "", "Enabled", 89),
        fatal.format("raw", where, "Enabled", 30),
        fatal.format("enough", where, "Enabled", 90),
        fatal.format("elsewhere", "<Prefix>lakes/</Prefix>", "Enabled", 1),
        fatal.format("off", where, "Disabled", 1),
        fatal.format("tagged", tagged, "Enabled", 1),
    ]
    bucket.document = f"<LifecycleConfiguration>{''.join(some)}</LifecycleConfiguration>".encode()
    batches = {"folders": r"(?P<batch>\d+)"}
    shop = {
        "pipeline": "shop",
        "source": {"connection": "d", "batches": batches},
        "models": {"a": {"columns": {"id": {}}}},
    }
    told = lifecycle.plan(service(bucket.endpoint), Lifecycle(), [PipelineSettings.model_validate(shop)]).warnings
    assert [one.split()[1] for one in told] == ["all", "raw"]
    assert "after 30d, and pipeline shop keeps it for 90d (retention.replay_window)" in told[1]


@pytest.mark.services
def test_the_vendors_client_sees_what_was_meant_and_what_others_wrote() -> None:
    theirs: dict[str, Any] = {"ID": "cold", "Status": "Enabled", "Filter": {"Prefix": "x/"}}
    theirs |= {"Transitions": [{"Days": 30, "StorageClass": "GLACIER"}]}
    with s3() as server:
        name, client = server.bucket(), server.client()
        client.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": [theirs]})  # type: ignore[list-item]
        applied(service(server.endpoint, name))
        found: list[Any] = [*client.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]]
        assert planned(service(server.endpoint, name)).to_write == ()
    assert found == [
        theirs,
        {
            "ID": "ingestkit-e0e1a28f-runs",
            "Filter": {"Prefix": "lake/_runs/"},
            "Status": "Enabled",
            "Expiration": {"Days": 400},
        },
        {
            "ID": "ingestkit-e0e1a28f-noncurrent",
            "Filter": {"Prefix": "lake/"},
            "Status": "Enabled",
            "Expiration": {"ExpiredObjectDeleteMarker": True},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
        },
        {
            "ID": "ingestkit-e0e1a28f-uploads",
            "Filter": {"Prefix": "lake/"},
            "Status": "Enabled",
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 3},
        },
    ]


@pytest.mark.services
def test_a_service_without_rules_is_told_from_one_that_has_none() -> None:
    with s3_without_conditions() as server, pytest.raises(LakeError, match="knows no lifecycle rules"):
        planned(service(server.endpoint, server.bucket()))


@pytest.mark.services
def test_a_bucket_that_is_not_there_is_said(moto: S3Server) -> None:
    with pytest.raises(LakeError, match="does not exist"):
        planned(service(moto.endpoint, "nobodys"))


@pytest.fixture
def moto() -> Iterator[S3Server]:
    with s3() as server:
        yield server
