"""What a lake's service is to remove by itself: rules of our own, merged into those that others have written there."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from ingestkit.errors import ConfigError, LakeError
from ingestkit.lake import BATCH_KINDS
from ingestkit.pipeline import Clock
from ingestkit.ports import LakeRule, Lifecycle, Need, Policy, ServiceRule
from ingestkit.settings import Lifecycle as Wanted
from ingestkit.settings import PipelineSettings, duration_text

READS = 5
"""How often a service is asked whether it has what was written: some take a moment."""
DAY = timedelta(days=1)


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
    names = sorted(one.pipeline for one in pipelines)
    if not names:
        raise ConfigError(
            f"no pipeline of this project has its lake in {service.place}",
            hint="name a lake that one has, and see docs/lakes.md for whose rules are whose",
        )
    before, ours = service.read(), tuple(_ours(service.prefix, name) for name in names)
    there = {rule.name: rule for rule in before.rules if rule.name.startswith(ours)}
    foreign = [rule for rule in before.rules if not rule.name.startswith(ours)]
    said, changes = rules(wanted, ours[0]), []
    for says, meant in zip(said, service.worded(said, foreign), strict=True):
        found = there.pop(says.name, None)
        alike = found is not None and found.meaning == meant.meaning
        changes.append(Change("added" if found is None else "unchanged" if alike else "changed", found, meant, says))
    changes += [Change("removed", rule) for rule in there.values()]
    changes += [Change("foreign", rule) for rule in foreign]
    return Plan(before, tuple(changes), (*_doubtful(wanted), *_harmful(foreign, pipelines)))


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


def rules(wanted: Wanted, ours: str) -> tuple[LakeRule, ...]:
    """The rules that are wanted, with names that begin like ours."""
    found = [LakeRule(ours + _label(prefix), "expire", prefix, kept.days) for prefix, kept in wanted.keep.items()]
    if wanted.noncurrent_versions is not None:
        found.append(LakeRule(f"{ours}noncurrent", "expire_noncurrent", "", wanted.noncurrent_versions.days))
    if wanted.abort_uploads_after is not None:
        found.append(LakeRule(f"{ours}uploads", "abort_uploads", "", wanted.abort_uploads_after.days))
    return tuple(found)


def refuse_short(where: str, wanted: Wanted, inflight: Need, pipelines: Sequence[PipelineSettings]) -> None:
    """The service deletes behind the back of the state, which alone knows what is still needed."""
    for prefix, kept in wanted.keep.items():
        for need in (*needs(pipelines), inflight):
            if _overlap(prefix, need.prefix) and (need.kept is None or kept < need.kept):
                least = None if need.kept is None else f"say {-(-need.kept // DAY)}d or more"
                raise ConfigError(
                    f"{where}.keep: {prefix} would go after {duration_text(kept)}, and {need.why}",
                    hint=least or "take it out; ingestkit clean removes what is not needed",
                )


def needs(pipelines: Iterable[PipelineSettings]) -> Iterator[Need]:
    """What these pipelines keep. What `clean` looks after has no age: it asks what runs, waits and was done last."""
    for settings in pipelines:
        name, retention = settings.pipeline, settings.retention
        kept, key = max((retention.replay_window, "replay_window"), (retention.keep or timedelta(), "keep"))
        yield Need(f"_runs/{name}/", kept, f"pipeline {name} keeps it for {duration_text(kept)} (retention.{key})")
        for kind in BATCH_KINDS:
            yield Need(f"{kind}/{name}/", None, f"age does not tell what pipeline {name} still needs of it")


def _ours(lake: str, pipeline: str) -> str:
    """What names of rules begin with that a project with this pipeline has written for a lake.

    Two lakes may share a bucket, and two projects a lake; a pipeline is of one project.
    """
    return f"ingestkit-{hashlib.sha256(f'{lake}:{pipeline}'.encode()).hexdigest()[:8]}-"


def _label(prefix: str) -> str:
    """Another for each folder, without the underscores that not every service takes in a name."""
    return prefix.strip("/").removeprefix("_").replace("_", "--").replace("/", "-")


def _overlap(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _meanings(some: Iterable[ServiceRule]) -> list[str]:
    return sorted(rule.meaning for rule in some)


def _doubtful(wanted: Wanted) -> Iterator[str]:
    if records := ", ".join(one for one in wanted.keep if one.startswith("_runs/")):
        yield f"of runs whose records are gone from {records} ingestkit state adopt knows nothing"
    if others := ", ".join(one for one in wanted.keep if not one.startswith("_")):
        yield f"no pipeline of this project has {others}: look whether one of another project has, which would lose it"


def _harmful(foreign: Iterable[ServiceRule], pipelines: Sequence[PipelineSettings]) -> Iterator[str]:
    # What is needed without an end weighs most.
    needed = sorted(needs(pipelines), key=lambda one: one.kept is not None)
    for rule in foreign:
        told: set[str] = set()
        for loss, need in itertools.product(rule.losses, needed):
            short = need.kept is None or loss.days * DAY < need.kept
            if short and _overlap(loss.prefix, need.prefix) and loss.does not in told:
                told.add(loss.does)
                what = f"{loss.does} objects of {need.prefix} after {loss.days}d"
                yield f"rule {rule.name} of others {what}, and {need.why}"
