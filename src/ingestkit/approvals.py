"""Approvals: what a person lets pass over its limit, and whether it still is what they saw."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import sqlalchemy as sql

from ingestkit.model import Rule
from ingestkit.states import completions
from ingestkit.states.completions import Order
from ingestkit.states.decisions import Decision

Contents: TypeAlias = Mapping[str, Mapping[str, Any]]
"""By model: the digest of its files, and the generation they are published as where that is known."""


def with_others(
    conn: sql.Connection, pipeline: str, order: Order, contents: Contents, rules: Sequence[Rule]
) -> Contents:
    """The same with what was done last of models that only a rule looks at, and the run does not work on."""
    others = {model for rule in rules if rule.passed is False for model in rule.models}.difference(contents)
    if not others:
        return contents
    newest = completions.newest((key for key in completions.done(conn, pipeline) if key[1] in others), order)
    last = completions.each(conn, pipeline, newest)
    beside = {
        model: {"digest": f"{one.batch} {one.digest}", "generation": one.generation} for model, (one, _) in last.items()
    }
    return {**contents, **beside}


def subject(run_id: str, batch: str, rules: Sequence[Rule], contents: Contents) -> dict[str, Any]:
    """What an approval speaks of: each rule with its figure, and the content of each model it looks at."""
    return {
        "run_id": run_id,
        "batch": batch,
        "rules": [
            {
                "name": rule.name,
                "stage": rule.stage.value,
                "model": rule.model,
                "figure": rule.figure,
                "limit": rule.limit,
                "basis": rule.basis,
                "models": {model: dict(contents.get(model, {})) for model in rule.models},
            }
            for rule in rules
        ],
    }


def applied(rules: Iterable[Rule], batch: str, contents: Contents, decisions: Sequence[Decision]) -> tuple[Rule, ...]:
    """The same rules, those that failed passed where an approval of the same content covers them."""
    approvals = [one for one in decisions if one.kind == "approve" and one.subject["batch"] == batch]
    return tuple(_covered(rule, contents, approvals) for rule in rules)


def _covered(rule: Rule, contents: Contents, approvals: Sequence[Decision]) -> Rule:
    if rule.passed is not False or not rule.approvable:
        return rule
    for approval in reversed(approvals):
        for seen in approval.subject["rules"]:
            if _is_same(rule, seen, contents) and _is_no_worse(rule, seen):
                return replace(rule, passed=True, approved_by=approval.number)
    return rule


def _is_same(rule: Rule, seen: Mapping[str, Any], contents: Contents) -> bool:
    """The same rule over the same content; a generation counts where both sides know one."""
    if (seen["name"], seen["stage"], seen["model"]) != (rule.name, rule.stage.value, rule.model):
        return False
    for model, then in seen["models"].items():
        now = contents.get(model, {})
        generations = {then.get("generation"), now.get("generation")} - {None}
        if then.get("digest") != now.get("digest") or len(generations) > 1:
            return False
    return True


def _is_no_worse(rule: Rule, seen: Mapping[str, Any]) -> bool:
    if rule.basis is not None and seen["basis"] is not None:
        return rule.basis >= str(seen["basis"])
    if rule.figure is None or seen["figure"] is None:
        return False
    then = float(seen["figure"])
    return rule.figure >= then if rule.least else rule.figure <= then
