"""What an approval covers: the rule it names, over the content it was given for, while the figure is no worse."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from ingestkit.approvals import Contents, applied, subject
from ingestkit.model import Counts, Rule, Stage
from ingestkit.stages import gate
from ingestkit.states.decisions import Decision

FAILED = Rule("reject_rate", Stage.VALIDATE, "a", 25.0, 10.0, passed=False)
SEEN: Contents = {"a": {"digest": "d1", "generation": 1}}


def approved(rule: Rule = FAILED, contents: Contents = SEEN) -> Decision:
    said = subject("p.b.1", "b", [rule], contents)
    return Decision("p", 1, "approve", said, "seen", "me", "me", datetime(2026, 1, 1, tzinfo=UTC), "", "")


def passes(rule: Rule, contents: Contents = SEEN, approval: Decision | None = None, batch: str = "b") -> bool:
    [found] = applied([rule], batch, contents, [approval or approved()])
    return found.passed is True


def test_what_was_approved_passes_and_names_its_decision() -> None:
    [found] = applied([FAILED], "b", SEEN, [approved()])
    assert (found.passed, found.approved_by) == (True, 1)


@pytest.mark.parametrize(
    ("change", "contents"),
    [
        ({"figure": 25.1}, SEEN),
        ({"name": "loss"}, SEEN),
        ({"stage": Stage.GATE}, SEEN),
        ({"model": "b"}, SEEN),
        ({"approvable": False}, SEEN),
        ({}, {"a": {"digest": "d2", "generation": 1}}),
        ({}, {"a": {"digest": "d1", "generation": 2}}),
        ({}, {}),
    ],
)
def test_another_rule_a_worse_figure_and_other_content_do_not_pass(change: dict[str, Any], contents: Contents) -> None:
    assert not passes(replace(FAILED, **change), contents)


def test_a_better_figure_passes_and_another_batch_does_not() -> None:
    assert passes(replace(FAILED, figure=20.0))
    assert not passes(FAILED, batch="c")
    assert passes(FAILED, {"a": {"digest": "d1"}}), "a generation counts where both sides know one"


def test_of_a_least_the_figure_may_not_fall() -> None:
    least = Rule("min_rows", Stage.VALIDATE, "a", 5.0, 9.0, passed=False, least=True)
    assert passes(replace(least, figure=6.0), approval=approved(least))
    assert not passes(replace(least, figure=4.0), approval=approved(least))


def test_of_an_age_what_counts_is_how_far_the_data_reach() -> None:
    old = Rule("freshness", Stage.GATE, "a", 30.0, 24.0, passed=False, basis="2026-01-02T00:00:00+00:00")
    assert passes(replace(old, figure=99.0), approval=approved(old))
    assert not passes(replace(old, figure=1.0, basis="2026-01-01T00:00:00+00:00"), approval=approved(old))


def test_what_a_newer_batch_has_said_is_no_loss() -> None:
    validated, loaded = Counts(records=10, rejected=1, duplicates=0), Counts(loaded=5, superseded=3, deletes=1)
    unexplained, lost = gate.loss("a", validated, loaded, 10.0)
    assert (unexplained.figure, lost.figure, lost.passed) == (0, 10.0, True)
    unexplained, lost = gate.loss("a", validated, replace(loaded, superseded=2), 10.0)
    assert (unexplained.figure, unexplained.passed, lost.figure, lost.passed) == (1, False, 20.0, False)
