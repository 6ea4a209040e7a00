"""Gate: the verdict over a run, from the rules its stages recorded. It closes the run and takes nothing back."""

from collections.abc import Iterable

from ingestkit.model import Rule, Verdict


def verdict(rules: Iterable[Rule], rejected: int) -> Verdict:
    """FAILED when any rule failed; with rejects that stayed under their limits, PASSED_WITH_REJECTS."""
    if any(rule.passed is False for rule in rules):
        return Verdict.FAILED
    return Verdict.PASSED_WITH_REJECTS if rejected else Verdict.PASSED


def explained(rule: Rule) -> str:
    """A rule as a person reads it: its name, figure and limit."""
    if rule.passed is None:
        return f"{rule.model}: {rule.name} not judged"
    return f"{rule.model}: {rule.name} is {_figure(rule.figure)} where {_figure(rule.limit)} is the limit"


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g}"
