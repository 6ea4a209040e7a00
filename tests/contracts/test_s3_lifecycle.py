"""Our lifecycle rules among those of others, in a bucket of S3: theirs stay to the letter, nobody is overwritten."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ingestkit import lifecycle
from ingestkit.errors import ConfigError, LakeError
from ingestkit.settings import Lifecycle, PipelineSettings, S3Connection
from ingestkit.stores.s3_lifecycle import S3Lifecycle, opened
from tests.doubles.rules import Rules, rules
from tests.object_stores import S3Server, s3, s3_without_conditions

THEIRS = """<Rule attr="kept"><ID>cold &amp; old</ID>
   <!-- a word of theirs --><Filter><And>
  <Prefix>lake/</Prefix><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan></And></Filter>
  <Status>Enabled</Status><Unheard of="this">ü</Unheard>
  <Transition><Days>30</Days><StorageClass>GLACIER</StorageClass></Transition></Rule>"""
OTHERS = """<Rule><ID>ingestkit-00000000-runs</ID><Filter><Prefix>other/_runs/</Prefix></Filter>
<Status>Disabled</Status><Expiration><Days>1</Days></Expiration></Rule>"""
DOCUMENT = f"""<?xml version="1.0" encoding="UTF-8"?>
<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{THEIRS}
{OTHERS}</LifecycleConfiguration>"""
OLDER = """<Rule><ID>{}</ID><Prefix>{}</Prefix><Status>Enabled</Status>{}</Rule>"""
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


def project(*pipelines: str) -> list[PipelineSettings]:
    source = {"connection": "d", "batches": {"folders": r"(?P<batch>\d+)"}}
    models: dict[str, Any] = {"a": {"columns": {"id": {}}}}
    return [
        PipelineSettings.model_validate({"pipeline": name, "source": source, "models": models}) for name in pipelines
    ]


SHOP = project("shop")


def planned(
    there: S3Lifecycle, wanted: dict[str, Any] | None = None, pipelines: list[PipelineSettings] = SHOP
) -> lifecycle.Plan:
    return lifecycle.plan(there, Lifecycle.model_validate(WANTED if wanted is None else wanted), pipelines)


def applied(there: S3Lifecycle, wanted: dict[str, Any] | None = None, pipelines: list[PipelineSettings] = SHOP) -> None:
    plan = planned(there, wanted, pipelines)
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
        "ingestkit-9a816a7d-runs",
        "ingestkit-9a816a7d-noncurrent",
        "ingestkit-9a816a7d-uploads",
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
    plan = planned(
        service(bucket.endpoint), {"keep": {"_runs/": "500d", "raw/gone/": "90d"}, "noncurrent_versions": "30d"}
    )
    assert changes(plan) == [
        ("changed", "runs"),
        ("added", "gone"),
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
    with pytest.raises(LakeError, match=told) as refused:
        planned(service(bucket.endpoint))
    assert refused.value.hint is not None


def test_rules_of_others_that_remove_what_is_needed_are_warned_of(bucket: Rules) -> None:
    fatal = "<Rule><ID>{}</ID><Filter>{}</Filter><Status>{}</Status><Expiration><Days>{}</Days></Expiration></Rule>"
    where = "<Prefix>lake/raw/</Prefix>"
    tagged = "<And><Prefix>lake/</Prefix><Tag><Key>a</Key><Value>b</Value></Tag></And>"
    some = [
        fatal.format("all", "", "Enabled", 89),
        fatal.format("raw", where, "Enabled", 30),
        fatal.format("late", where, "Enabled", 9000),
        fatal.format("records", "<Prefix>lake/_runs/shop/</Prefix>", "Enabled", 89),
        fatal.format("enough", "<Prefix>lake/_runs/shop/</Prefix>", "Enabled", 90),
        fatal.format("elsewhere", "<Prefix>lakes/</Prefix>", "Enabled", 1),
        fatal.format("off", where, "Disabled", 1),
        fatal.format("tagged", tagged, "Enabled", 1),
    ]
    bucket.document = f"<LifecycleConfiguration>{''.join(some)}</LifecycleConfiguration>".encode()
    told = planned(service(bucket.endpoint), {}).warnings
    assert [one.split()[1] for one in told] == ["all", "raw", "late", "records"]
    assert "removes objects of raw/shop/ after 30d, and age does not tell what pipeline shop still needs" in told[1]
    assert "after 89d, and pipeline shop keeps it for 90d (retention.replay_window)" in told[3]


def test_rules_of_others_that_archive_what_is_needed_are_warned_of(bucket: Rules) -> None:
    moves = "<Transition><Days>{}</Days><StorageClass>{}</StorageClass></Transition>"
    rule = "<Rule><ID>{}</ID><Filter><Prefix>{}</Prefix></Filter><Status>Enabled</Status>{}</Rule>"
    both = (
        moves.format(30, "STANDARD_IA") + moves.format(60, "DEEP_ARCHIVE") + "<Expiration><Days>90</Days></Expiration>"
    )
    some = [
        rule.format("cold", "lake/valid/", moves.format(30, "GLACIER")),
        rule.format("read", "lake/", moves.format(30, "GLACIER_IR")),
        rule.format("elsewhere", "x/", moves.format(30, "GLACIER")),
        rule.format("both", "", both),
    ]
    bucket.document = f"<LifecycleConfiguration>{''.join(some)}</LifecycleConfiguration>".encode()
    told = planned(service(bucket.endpoint), {}).warnings
    assert [" ".join(one.split()[1:10]) for one in told] == [
        "cold of others archives objects of valid/shop/ after 30d,",
        "both of others removes objects of raw/shop/ after 90d,",
        "both of others archives objects of raw/shop/ after 60d,",
    ]


def test_beside_rules_of_the_older_form_ours_are_of_it_too(bucket: Rules) -> None:
    theirs = OLDER.format("cold", "x/", "<Expiration><Days>7</Days></Expiration>")
    bucket.document = f"<LifecycleConfiguration>{theirs}</LifecycleConfiguration>".encode()
    wanted = {"keep": {"_runs/": "400d"}, "abort_uploads_after": "3d"}
    applied(service(bucket.endpoint), wanted)
    text = bucket.written[-1].decode()
    assert theirs in text
    assert re.findall("<Prefix>(.*?)</Prefix>", text) == ["x/", "lake/_runs/", "lake/"]
    assert "Filter" not in text
    assert planned(service(bucket.endpoint), wanted).to_write == ()
    # They have rewritten theirs, and with it ours.
    bucket.document = text.replace("<Prefix>", "<Filter><Prefix>").replace("</Prefix>", "</Prefix></Filter>").encode()
    assert [kind for kind, _ in changes(planned(service(bucket.endpoint), wanted))] == ["unchanged"] * 2 + ["foreign"]


def test_ours_take_the_newer_form_when_nobody_else_holds_to_the_older(bucket: Rules) -> None:
    theirs = OLDER.format("cold", "x/", "<Expiration><Days>7</Days></Expiration>")
    bucket.document = f"<LifecycleConfiguration>{theirs}</LifecycleConfiguration>".encode()
    applied(service(bucket.endpoint), {"abort_uploads_after": "3d"})
    assert bucket.document is not None
    bucket.document = bucket.document.replace(theirs.encode(), b"")
    applied(service(bucket.endpoint), {"keep": {"_runs/": "400d"}, "abort_uploads_after": "3d"})
    assert bucket.written[-1].count(b"<Filter>") == 2


@pytest.mark.parametrize(
    ("theirs", "wanted", "told"),
    [
        (
            OLDER.format("all", "", "<Expiration><Days>900</Days></Expiration>"),
            {"keep": {"_runs/": "400d"}},
            "rules all and ingestkit-9a816a7d-runs of s3://b may not both say Expiration",
        ),
        (
            OLDER.format("cold", "x/", "<Expiration><Days>900</Days></Expiration>"),
            WANTED,
            "ingestkit-9a816a7d-runs and ingestkit-9a816a7d-noncurrent of s3://b may not both say Expiration",
        ),
    ],
)
def test_what_cannot_be_said_in_the_older_form_is_told_before_anything_is_written(
    bucket: Rules, theirs: str, wanted: dict[str, Any], told: str
) -> None:
    bucket.document = f"<LifecycleConfiguration>{theirs}</LifecycleConfiguration>".encode()
    with pytest.raises(LakeError, match=told) as refused:
        planned(service(bucket.endpoint), wanted)
    assert "into a Filter" in (refused.value.hint or "")
    assert planned(service(bucket.endpoint), {}).to_write == ()


def test_two_projects_of_one_lake_leave_each_others_rules_alone(bucket: Rules) -> None:
    till = project("till")
    applied(service(bucket.endpoint))
    applied(service(bucket.endpoint), {"abort_uploads_after": "5d"}, till)
    plan = planned(service(bucket.endpoint), {"abort_uploads_after": "5d"}, till)
    assert [kind for kind, _ in changes(plan)] == ["unchanged"] + ["foreign"] * 5
    applied(service(bucket.endpoint), {}, till)
    assert planned(service(bucket.endpoint)).to_write == ()
    assert bucket.written[-1] == bucket.written[0]


def test_a_project_knows_its_rules_again_when_it_has_more_pipelines(bucket: Rules) -> None:
    applied(service(bucket.endpoint))
    more = project("address", "shop")
    applied(service(bucket.endpoint), pipelines=more)
    assert bucket.written[-1].count(b"<Rule") == 5
    applied(service(bucket.endpoint), {}, more)
    assert bucket.written[-1].decode() == DOCUMENT


def test_a_project_without_a_pipeline_there_has_no_rules(bucket: Rules) -> None:
    with pytest.raises(ConfigError, match="no pipeline of this project has its lake in s3://b"):
        planned(service(bucket.endpoint), pipelines=[])


def test_every_folder_has_a_rule_of_its_own(bucket: Rules) -> None:
    bucket.document = None
    folders = ["raw/a/", "raw/a_/", "raw/a__b/", "raw/a_b/", "_runs/", "_runs/a/", "_runs/a_/", "_inflight/a/"]
    wanted = {"keep": dict.fromkeys(folders, "400d"), "abort_uploads_after": "3d"}
    applied(service(bucket.endpoint), wanted)
    assert planned(service(bucket.endpoint), wanted).to_write == ()
    assert len(set(re.findall("<ID>([a-z0-9-]+)</ID>", bucket.written[-1].decode()))) == len(folders) + 1


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
            "ID": "ingestkit-9a816a7d-runs",
            "Filter": {"Prefix": "lake/_runs/"},
            "Status": "Enabled",
            "Expiration": {"Days": 400},
        },
        {
            "ID": "ingestkit-9a816a7d-noncurrent",
            "Filter": {"Prefix": "lake/"},
            "Status": "Enabled",
            "Expiration": {"ExpiredObjectDeleteMarker": True},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
        },
        {
            "ID": "ingestkit-9a816a7d-uploads",
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
