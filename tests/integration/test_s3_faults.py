"""What a service of objects can do to a lake: requests refused, answers lost, links cut, keys that expire."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ingestkit.errors import ConfigError, LakeError
from ingestkit.lake import Lake, Landed
from ingestkit.pipeline import Stop
from ingestkit.settings import S3Connection
from ingestkit.stores import remote
from ingestkit.stores.remote import RemoteStore, Turns
from ingestkit.stores.s3 import S3Bucket
from ingestkit.stores.s3_lifecycle import S3Lifecycle
from tests.contracts.store import NAME, PLACE, names, put, read
from tests.doubles.httpfaults import (
    ACCESS_DENIED,
    ANSWER_LOST,
    CLOCK_SKEWED,
    CONFLICT,
    EXPIRED_TOKEN,
    INTERNAL_ERROR,
    NEVER_ARRIVES,
    SLOW_DOWN,
    Fault,
    FaultyServer,
    Meanwhile,
    Said,
    faulty,
)
from tests.doubles.proxy import proxied
from tests.doubles.relay import Answer, Request, passed_on, served
from tests.faults.lakes import Bucket
from tests.faults.sights import watched
from tests.object_stores import S3Server, s3

pytestmark = [pytest.mark.services, pytest.mark.slow]

SMALL, LARGE = Random(1).randbytes(100_000), Random(2).randbytes(12_000_000)
PARTS = r"partNumber=\d"
LAST = "partNumber=3"
COMMIT = r"uploadId=[^&]+$"


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Server]:
    with s3() as server:
        yield server


@pytest.fixture
def service(moto: S3Server) -> Iterator[FaultyServer]:
    with faulty(moto.endpoint) as server:
        yield server


@pytest.fixture
def said(moto: S3Server, service: FaultyServer) -> Iterator[dict[str, Any]]:
    """Somebody lists the bucket all the time, and reads what is there: it must be whole from the first sight on."""
    bucket = moto.bucket()
    with watched(Bucket(moto, bucket).listing):
        yield {
            "bucket": bucket,
            "prefix": "lake/",
            "endpoint_url": service.endpoint,
            "path_style": True,
            "part_size": 5 * 2**20,
            "region": moto.region,
            "access_key": moto.access_key,
            "secret_key": moto.secret_key,
        }


@pytest.fixture
def store(said: dict[str, Any], tmp_path: Path) -> RemoteStore:
    made = opened(said, tmp_path / "one")
    made.check()
    return made


@pytest.fixture
def second(said: dict[str, Any], tmp_path: Path) -> RemoteStore:
    return opened(said, tmp_path / "two")


def opened(said: dict[str, Any], folder: Path) -> RemoteStore:
    return RemoteStore(S3Bucket(S3Connection.model_validate(said)), folder)


def landed(store: RemoteStore, content: bytes) -> Landed:
    def fill(writer: Any) -> None:
        writer.write(content)

    return Lake(store).publish(PLACE, NAME, fill)


def nothing_is_left(store: RemoteStore, moto: S3Server, said: dict[str, Any]) -> None:
    assert names(store) == []
    assert list(store.inflight("_inflight/")) == []
    assert moto.client().list_multipart_uploads(Bucket=said["bucket"]).get("Uploads", []) == []


@pytest.mark.parametrize(
    ("fault", "method", "target", "told", "passing"),
    [
        (INTERNAL_ERROR, "PUT", LAST, "InternalError", True),
        (EXPIRED_TOKEN, "PUT", "partNumber=2", "have expired", True),
        (EXPIRED_TOKEN, "POST", COMMIT, "have expired", True),
        (SLOW_DOWN, "PUT", PARTS, "asked too much", True),
        (ACCESS_DENIED, "POST", COMMIT, "does not allow it", False),
        (CLOCK_SKEWED, "PUT", LAST, "clock is wrong", True),
        (NEVER_ARRIVES, "PUT", LAST, "does not answer", True),
    ],
)
def test_an_upload_that_is_refused_in_its_midst_leaves_nothing(
    store: RemoteStore,
    service: FaultyServer,
    moto: S3Server,
    said: dict[str, Any],
    fault: Fault,
    method: str,
    target: str,
    told: str,
    passing: bool,
) -> None:
    service.breaks(fault, method, target, times=None)
    with pytest.raises(LakeError, match=told) as refused:
        landed(store, LARGE)
    assert refused.value.transient is passing
    assert service.broken > 0
    service.heals()
    nothing_is_left(store, moto, said)
    assert not landed(store, LARGE).adopted
    assert read(store, NAME) == LARGE


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["whole", "parts"])
def test_what_passes_is_tried_again(store: RemoteStore, service: FaultyServer, content: bytes) -> None:
    service.breaks(SLOW_DOWN, "PUT", "lake/raw/", times=2)
    assert not landed(store, content).adopted
    assert service.broken == 2


@pytest.mark.parametrize(
    ("fault", "content", "method", "target"),
    [
        (ANSWER_LOST, SMALL, "PUT", "lake/raw/"),
        (ANSWER_LOST, LARGE, "POST", COMMIT),
        # What a service says to the vendor's second try that has forgotten the upload by then.
        (Said(404, "NoSuchUpload", done=True), LARGE, "POST", COMMIT),
    ],
    ids=["whole", "parts", "forgotten"],
)
def test_what_was_done_and_not_answered_is_done_once(
    store: RemoteStore,
    second: RemoteStore,
    service: FaultyServer,
    fault: Fault,
    content: bytes,
    method: str,
    target: str,
) -> None:
    service.breaks(fault, method, target)
    landed(store, content)
    assert service.broken == 1
    assert names(second) == [NAME]
    assert read(second, NAME) == content
    assert list(second.inflight("_inflight/")) == []


@pytest.mark.parametrize(
    ("content", "method", "target"), [(SMALL, "PUT", "lake/raw/"), (LARGE, "POST", COMMIT)], ids=["whole", "parts"]
)
def test_whoever_is_told_to_come_again_sends_all_of_it_again(
    store: RemoteStore, second: RemoteStore, service: FaultyServer, content: bytes, method: str, target: str
) -> None:
    service.breaks(CONFLICT, method, target, times=2)
    assert not landed(store, content).adopted
    assert read(second, NAME) == content
    if content is LARGE:
        assert sum("partNumber=1" in one for one in service.seen if "_inflight" not in one) == 3


def test_a_bucket_that_is_not_there_is_named(said: dict[str, Any], tmp_path: Path) -> None:
    store = opened(said | {"bucket": "no-such-bucket"}, tmp_path)
    with pytest.raises(LakeError, match="s3://no-such-bucket/lake does not exist") as missing:
        store.check()
    assert not missing.value.transient
    with pytest.raises(LakeError, match="s3://no-such-bucket/lake does not exist"):
        names(store)


def test_who_has_no_rights_is_told_which_are_needed(store: RemoteStore, service: FaultyServer) -> None:
    service.breaks(ACCESS_DENIED, "HEAD", times=None)
    with pytest.raises(LakeError, match="does not allow it") as refused:
        store.stat(NAME)
    assert refused.value.hint is not None
    assert "docs/lakes.md" in refused.value.hint


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (400, "KMS.DisabledException", "kms_key"),
        (400, "InvalidToken", "aws sts get-caller-identity"),
        (400, "InvalidArgument", "docs/lakes.md"),
        (501, "NotImplemented", "docs/lakes.md"),
        (500, "InternalError", "run again"),
    ],
)
def test_whatever_the_service_says_there_is_something_to_do(
    store: RemoteStore, service: FaultyServer, status: int, code: str, hint: str
) -> None:
    service.breaks(Said(status, code), "PUT", times=None)
    with pytest.raises(LakeError) as refused:
        store.check()
    assert hint in (refused.value.hint or "")
    assert refused.value.transient == (code == "InternalError")


def test_a_service_without_the_word_for_lifecycle_rules_is_told_as_that(
    said: dict[str, Any], service: FaultyServer
) -> None:
    service.breaks(Said(501, "NotImplemented"), "GET", "lifecycle", times=None)
    with pytest.raises(LakeError, match="knows no lifecycle rules") as refused:
        S3Lifecycle(S3Bucket(S3Connection.model_validate(said))).read()
    assert not refused.value.transient
    assert refused.value.hint == "leave it to ingestkit clean"


def test_an_object_that_is_gone_or_another_by_now_is_told_with_what_helps(
    store: RemoteStore, second: RemoteStore, service: FaultyServer
) -> None:
    with pytest.raises(LakeError, match="holds no") as gone:
        second.path(NAME)
    put(store, NAME, SMALL)
    service.breaks(Said(412, "PreconditionFailed"), "GET", NAME, times=None)
    with pytest.raises(LakeError, match="was overwritten while it was read") as other:
        second.path(NAME)
    service.heals()
    service.breaks(Said(404, "NoSuchKey"), "GET", NAME, times=None)
    with pytest.raises(LakeError, match="holds no") as removed:
        second.path(NAME)
    assert all("who else removes or writes there" in (one.value.hint or "") for one in (gone, other, removed))


def test_a_profile_that_is_not_there_is_a_mistake_in_the_settings(said: dict[str, Any], tmp_path: Path) -> None:
    own = {name: value for name, value in said.items() if name not in ("access_key", "secret_key")}
    with pytest.raises(ConfigError, match="nowhere") as refused:
        opened(own | {"profile": "nowhere"}, tmp_path).check()
    assert "`profile`" in (refused.value.hint or "")


def test_what_a_rule_has_archived_is_told_as_that(
    store: RemoteStore, second: RemoteStore, service: FaultyServer
) -> None:
    put(store, NAME, SMALL)
    service.breaks(Said(403, "InvalidObjectState"), "GET", NAME, times=None)
    with pytest.raises(LakeError, match="has archived it") as refused:
        read(second, NAME)
    assert not refused.value.transient
    assert "restored" in (refused.value.hint or "")


def test_a_service_that_is_not_there_is_told_as_that(said: dict[str, Any], tmp_path: Path) -> None:
    store = opened(said | {"endpoint_url": "http://127.0.0.1:9", "connect_timeout": "1s"}, tmp_path)
    with pytest.raises(LakeError, match="does not answer") as silent:
        store.check()
    assert silent.value.transient


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.matrix) for seed in range(1, 20))])
def test_reading_goes_on_behind_a_link_that_is_cut(
    store: RemoteStore, moto: S3Server, said: dict[str, Any], tmp_path: Path, seed: int
) -> None:
    put(store, NAME, LARGE)
    at = Random(seed).randrange(1000, len(LARGE))
    print(f"seed {seed}: cut behind {at} bytes")
    with proxied("127.0.0.1", moto.port) as proxy:
        far = opened(said | {"endpoint_url": f"http://127.0.0.1:{proxy.port}"}, tmp_path / "far")
        assert far.stat(NAME) is not None
        proxy.faults.cut_down = at
        assert read(far, NAME) == LARGE
        assert far.path(NAME).read_bytes() == LARGE


def test_an_object_overwritten_while_it_is_read_is_not_read_as_two(
    moto: S3Server, said: dict[str, Any], tmp_path: Path
) -> None:
    # Nobody watches another one, where somebody does what we never do.
    said["bucket"] = moto.bucket()
    put(opened(said, tmp_path / "one"), NAME, LARGE)
    with opened(said, tmp_path / "two").open(NAME) as file:
        assert file.read(10) == LARGE[:10]
        moto.client().put_object(Bucket=said["bucket"], Key=f"lake/{NAME}", Body=LARGE[::-1])
        file.seek(6_000_000)
        with pytest.raises(LakeError, match="overwritten while it was read"):
            file.read(10)


def test_what_was_refused_leaves_nothing_on_this_machine(
    store: RemoteStore, service: FaultyServer, tmp_path: Path
) -> None:
    service.breaks(ACCESS_DENIED, "PUT", "lake/raw/", times=None)
    with pytest.raises(LakeError, match="does not allow it"):
        landed(store, SMALL)
    assert [path for path in (tmp_path / "one").rglob("*") if path.is_file()] == []


def test_parts_that_may_not_be_sent_leave_no_mark(store: RemoteStore, service: FaultyServer) -> None:
    service.breaks(ACCESS_DENIED, "POST", "uploads", times=None)
    with pytest.raises(LakeError, match="does not allow it"):
        landed(store, LARGE)
    assert list(store.inflight("_inflight/")) == []


def test_looking_is_told_why_it_was_refused(store: RemoteStore, service: FaultyServer) -> None:
    service.breaks(EXPIRED_TOKEN, times=None)
    with pytest.raises(LakeError, match="have expired") as refused:
        store.stat(NAME)
    assert refused.value.transient


def test_a_service_that_is_silent_is_asked_five_times_for_a_read(store: RemoteStore, service: FaultyServer) -> None:
    put(store, NAME, LARGE)
    store.let_go()
    service.breaks(NEVER_ARRIVES, "GET", NAME, times=None)
    with pytest.raises(LakeError, match="does not answer"):
        read(store, NAME)
    assert service.broken == 5


def test_a_service_that_knows_no_ranges_is_not_believed(
    store: RemoteStore, moto: S3Server, said: dict[str, Any], tmp_path: Path
) -> None:
    put(store, NAME, LARGE)

    def whole(request: Request) -> Answer:
        headers = tuple((name, value) for name, value in request.headers if name.lower() != "range")
        return passed_on(replace(request, headers=headers), moto.endpoint)

    with served(whole) as port:
        far = opened(said | {"endpoint_url": f"http://127.0.0.1:{port}"}, tmp_path / "far")
        with pytest.raises(LakeError, match="other bytes"):
            far.path(NAME)


def test_what_is_published_stands_though_its_mark_cannot_be_removed(
    store: RemoteStore, second: RemoteStore, service: FaultyServer
) -> None:
    service.breaks(ACCESS_DENIED, "DELETE", "_inflight/opendata", times=None)
    landed(store, LARGE)
    assert names(second) == [NAME]
    service.heals()
    Lake(second).remove_inflight("opendata", "hcp", below=PLACE.token + 1)
    assert list(second.inflight("_inflight/")) == []
    assert read(second, NAME) == LARGE


def without(header: str, *methods: str) -> Callable[[Request], Request]:
    """A service that does not look at that header."""

    def deaf(request: Request) -> Request:
        kept = tuple(one for one in request.headers if one[0].lower() != header)
        return replace(request, headers=kept) if request.method in methods else request

    return deaf


def unknown(request: Request) -> Request | Answer:
    """A service to which conditions of writing are unknown."""
    if any(name.lower() == "if-none-match" for name, _ in request.headers):
        return Answer(501, (), b"<Error><Code>NotImplemented</Code><Message>no</Message></Error>")
    return request


@contextmanager
def otherwise(moto: S3Server, heard: Callable[[Request], Request | Answer]) -> Iterator[str]:
    def answer(request: Request) -> Answer:
        found = heard(request)
        return found if isinstance(found, Answer) else passed_on(found, moto.endpoint)

    with served(answer) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    "heard",
    [without("if-none-match", "PUT", "POST"), without("if-none-match", "POST"), unknown],
    ids=["none", "not the last of parts", "unknown"],
)
def test_a_service_that_keeps_to_no_condition_is_found_out(
    moto: S3Server, said: dict[str, Any], tmp_path: Path, heard: Callable[[Request], Request | Answer]
) -> None:
    with otherwise(moto, heard) as endpoint:
        store = opened(said | {"endpoint_url": endpoint}, tmp_path)
        store.check()
        assert not store.keeps_names
        put(store, NAME, LARGE)
        assert names(store) == [NAME]


def test_an_object_overwritten_while_it_is_read_is_noticed_where_the_service_does_not(
    moto: S3Server, said: dict[str, Any], tmp_path: Path
) -> None:
    # Nobody watches another one, where somebody does what we never do.
    said["bucket"] = moto.bucket()
    put(opened(said, tmp_path / "one"), NAME, LARGE)
    with otherwise(moto, without("if-match", "GET")) as endpoint:
        far = opened(said | {"endpoint_url": endpoint}, tmp_path / "two")
        with far.open(NAME) as file:
            assert file.read(10) == LARGE[:10]
            moto.client().put_object(Bucket=said["bucket"], Key=f"lake/{NAME}", Body=LARGE[::-1])
            file.seek(6_000_000)
            with pytest.raises(LakeError, match="overwritten while it was read"):
                file.read(10)


@pytest.mark.parametrize(
    "profile",
    [
        "credential_process = /bin/false",
        "sso_start_url = https://a\nsso_region = a\nsso_account_id = 1\nsso_role_name = a",
        "role_arn = arn:aws:iam::1:role/a\nsource_profile = missing",
    ],
    ids=["process", "sso", "role"],
)
def test_credentials_that_nobody_gives_out_are_told_with_what_helps(
    said: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    (tmp_path / "config").write_text(f"[profile lake]\n{profile}\n")
    own = {name: value for name, value in said.items() if name not in ("access_key", "secret_key")}
    with pytest.raises(LakeError) as refused:
        opened(own | {"profile": "lake"}, tmp_path).check()
    assert "AWS_ACCESS_KEY_ID" in (refused.value.hint or "")


def test_a_check_without_rights_leaves_nothing_behind(
    said: dict[str, Any], service: FaultyServer, moto: S3Server, tmp_path: Path
) -> None:
    service.breaks(ACCESS_DENIED, "GET", "_check", times=None)
    for _ in range(2):
        with pytest.raises(LakeError, match="does not allow it"):
            opened(said, tmp_path).check()
    service.heals()
    # Missed only behind a kill, when whoever comes next must void what was begun.
    service.breaks(ACCESS_DENIED, "GET", "uploads", times=None)
    with pytest.raises(LakeError, match="does not allow it"):
        opened(said, tmp_path).check()
    assert "Contents" not in moto.client().list_objects_v2(Bucket=said["bucket"])
    assert moto.client().list_multipart_uploads(Bucket=said["bucket"]).get("Uploads", []) == []


def test_who_is_asked_to_stop_sends_and_fetches_no_more(
    store: RemoteStore,
    service: FaultyServer,
    moto: S3Server,
    said: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = bytes(12 * said["part_size"])
    stop = Stop()
    stopped = RemoteStore(S3Bucket(S3Connection.model_validate(said), Turns(stop)), tmp_path / "two", stop)
    stopped.check()
    service.breaks(Meanwhile(partial(stop.request, Asked)), "PUT", PARTS)
    with pytest.raises(Asked):
        landed(stopped, many)
    assert sum(re.search(PARTS, one) is not None for one in service.seen) < 12
    nothing_is_left(store, moto, said)
    service.heals()
    landed(store, many)
    monkeypatch.setattr(remote, "RANGE", 2**20)
    with pytest.raises(Asked):
        stopped.path(NAME)


class Asked(Exception):
    """Why it is to stop."""
