"""What a lake's service is to remove by itself: rules of our own, merged into those that others have written there."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from ingestkit.errors import ConfigError, LakeError
from ingestkit.lake import BATCH_KINDS
from ingestkit.model import LoadMode
from ingestkit.pipeline import Clock
from ingestkit.ports import LakeRule, Lifecycle, Policy, ServiceRule
from ingestkit.settings import Lifecycle as Wanted
from ingestkit.settings import PipelineSettings, duration_text

READS = 5
"""How often a service is asked whether it has what was written: some take a moment."""
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Need:
    """How long what is below a prefix may be needed; None is without an end."""

    prefix: str
    kept: timedelta | None
    why: str


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a rule. Of what is not ours nothing does."""

    change: Literal["added", "changed", "removed", "unchanged", "foreign"]
    there: ServiceRule | None
    meant: ServiceRule | None = None
    says: LakeRule | None = None

    @property
    def name(self) -> str:
        rule = self.meant or self.there
        return "" if rule is None else rule.name


@dataclass(frozen=True, slots=True)
class Plan:
    before: Policy
    changes: tuple[Change, ...]
    warnings: tuple[str, ...]

    @property
    def to_write(self) -> tuple[Change, ...]:
        return tuple(one for one in self.changes if one.change in ("added", "changed", "removed"))


def plan(service: Lifecycle, wanted: Wanted, pipelines: Sequence[PipelineSettings]) -> Plan:
    """What the service would be told, beside what it has been told."""
    before = service.read()
    there = {rule.name: rule for rule in before.rules}
    changes = []
    for says in rules(wanted, service.prefix):
        found, meant = there.pop(says.name, None), service.worded(says)
        alike = found is not None and found.meaning == meant.meaning
        changes.append(Change("added" if found is None else "unchanged" if alike else "changed", found, meant, says))
    ours = _ours(service.prefix)
    foreign = [rule for rule in before.rules if not rule.name.startswith(ours)]
    changes += [Change("removed", rule) for name, rule in there.items() if name.startswith(ours)]
    changes += [Change("foreign", rule) for rule in foreign]
    return Plan(before, tuple(changes), (*_by_age(wanted), *_harmful(foreign, pipelines)))


def apply(service: Lifecycle, planned: Plan, clock: Clock) -> None:
    """Write what was planned, while what it was planned over is still there; no service takes that as a condition."""
    now = service.read()
    if now.document != planned.before.document:
        raise LakeError(
            f"somebody changed the lifecycle rules of {service.place} meanwhile; nothing was written",
            hint="ingestkit lake lifecycle plan",
        )
    drop = {one.there.name for one in planned.to_write if one.there is not None}
    put = [one.meant for one in planned.to_write if one.meant is not None]
    service.write(now, drop, put)
    meant = _meanings((*(rule for rule in now.rules if rule.name not in drop), *put))
    for left in reversed(range(READS)):
        if _meanings(service.read().rules) == meant:
            return
        if left:
            clock.sleep(1)
    raise LakeError(
        f"{service.place} has other lifecycle rules than were written: somebody else wrote at the same time",
        hint="look whether theirs are there; then: ingestkit lake lifecycle plan",
    )


def rules(wanted: Wanted, lake: str) -> tuple[LakeRule, ...]:
    """The rules for a lake with this prefix."""
    ours = _ours(lake)
    found = [
        LakeRule(ours + prefix.strip("/_").replace("/", "-"), "expire", prefix, kept.days)
        for prefix, kept in wanted.keep.items()
    ]
    if wanted.noncurrent_versions is not None:
        found.append(LakeRule(f"{ours}noncurrent", "expire_noncurrent", "", wanted.noncurrent_versions.days))
    if wanted.abort_uploads_after is not None:
        found.append(LakeRule(f"{ours}uploads", "abort_uploads", "", wanted.abort_uploads_after.days))
    return tuple(found)


def refuse_short(where: str, wanted: Wanted, pipelines: Sequence[PipelineSettings]) -> None:
    """The service deletes behind the back of the state, which alone knows what is still needed."""
    uploads = wanted.abort_uploads_after
    marks = Need("_inflight/", uploads, f"marks of uploads are needed until {where}.abort_uploads_after voids those")
    for prefix, kept in wanted.keep.items():
        for need in (*needs(pipelines), marks):
            if _overlap(prefix, need.prefix) and (need.kept is None or kept < need.kept):
                least = None if need.kept is None else f"say {-(-need.kept // DAY)}d or more"
                raise ConfigError(
                    f"{where}.keep: {prefix} would go after {duration_text(kept)}, and {need.why}",
                    hint=least or "take it out; ingestkit clean removes what is not needed",
                )


def needs(pipelines: Iterable[PipelineSettings]) -> Iterator[Need]:
    """What `clean` keeps for these pipelines."""
    for settings in pipelines:
        name, retention = settings.pipeline, settings.retention
        key, kept = (
            ("keep", retention.keep) if retention.keep is not None else ("replay_window", retention.replay_window)
        )
        why = f"pipeline {name} keeps it for {duration_text(kept)} (retention.{key})"
        yield Need(f"_runs/{name}/", kept, why)
        adding = ", ".join(model for model, one in settings.models.items() if one.load is not LoadMode.REPLACE)
        always = f"pipeline {name} builds {adding} again from every batch since the newest full one, whatever its age"
        for kind in BATCH_KINDS:
            yield Need(f"{kind}/{name}/", None, always) if adding else Need(f"{kind}/{name}/", kept, why)


def _ours(lake: str) -> str:
    """What the names of a lake's rules begin with: of two lakes in one bucket each has its own."""
    return f"ingestkit-{hashlib.sha256(lake.encode()).hexdigest()[:8]}-"


def _overlap(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _meanings(some: Iterable[ServiceRule]) -> list[str]:
    return sorted(rule.meaning for rule in some)


def _by_age(wanted: Wanted) -> Iterator[str]:
    found = ", ".join(prefix for prefix in wanted.keep if not prefix.startswith("_"))
    if found:
        yield (
            f"a service looks at age alone: of {found} also goes what is that old and of the newest batch, of an open "
            "run, or waits in quarantine or for an approval"
        )


def _harmful(foreign: Iterable[ServiceRule], pipelines: Sequence[PipelineSettings]) -> Iterator[str]:
    for rule in foreign:
        if rule.expires is None:
            continue
        prefix, days = rule.expires
        # What is needed without an end weighs most.
        for need in sorted(needs(pipelines), key=lambda one: one.kept is not None):
            if _overlap(prefix, need.prefix) and (need.kept is None or days * DAY < need.kept):
                yield f"rule {rule.name} of others removes objects of {need.prefix} after {days}d, and {need.why}"
                break
