"""Every error raised on purpose, grouped by what happens next; messages live where they are raised."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ingestkit.outcome import ModelResult


class IngestkitError(Exception):
    """An expected failure: one line that names the thing, a hint that is the next command, an exit code.

    `transient` says that the same call may succeed later; only the runner, and who waits, act on it.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None, transient: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.transient = transient
        self.details: Mapping[str, Any] = {}
        """The same in parts, for programs: no cell value among them."""
        self.results: tuple[ModelResult, ...] = ()
        """What was done before it, and how far each model of the failed run has come."""
        self.incident: str | None = None
        """As what people are told of it, where that is more than a failure."""
        self.failed: tuple[Mapping[str, Any], ...] = ()
        """The batches that failed, where a command goes on with those behind them."""


class UsageError(IngestkitError):
    """The command cannot mean what it says."""

    exit_code = 2


class UnknownBatch(UsageError):
    """The source has no batch of that key; who waits for it goes on waiting."""


class ConfigError(IngestkitError):
    """A setting or secret is wrong, missing or unknown."""

    exit_code = 3


class SourceError(IngestkitError):
    """The source does not answer, or what it holds cannot be taken."""

    exit_code = 4


class NotArrived(SourceError):
    """What a batch holds is still being written, so that it cannot even be listed; the batch waits."""


class ContractError(IngestkitError):
    """Data breaks its contract."""

    exit_code = 5


class GateClosed(IngestkitError):
    """A rule was judged and failed; nothing went on behind it."""

    exit_code = 6


class TargetError(IngestkitError):
    """Warehouse, target, lake or state does not answer or is not what it should be."""

    exit_code = 7


class WarehouseError(TargetError):
    """The warehouse failed or is not the one the state knows."""


class LakeError(TargetError):
    """The lake failed, or holds something it should not."""


class ObjectExists(LakeError):
    """A store was asked to publish under a name that is taken; the lake adopts or refuses it."""


class Altered(LakeError):
    """An object came with other bytes than it was written with; the lake tells which they are."""


class StateError(TargetError):
    """The state database failed, is of another version, or is not the one the lake and target know."""


class Busy(IngestkitError):
    """Somebody else holds what this command needs."""

    exit_code = 8


class LeaseHeld(Busy):
    """A lease of this pipeline belongs to another owner; `--if-locked` decides."""


class LeaseLost(Busy):
    """This process was taken for dead: it may not write any more."""


class Fenced(Busy):
    """A later owner has published: this transaction was rolled back."""


class PlanAgain(IngestkitError):
    """The target holds another generation than the one planned: rolled back, to be planned again."""

    exit_code = 7


class PartlyDone(IngestkitError):
    """Some of it was done, some was not."""

    exit_code = 9


class Interrupted(IngestkitError):
    """A signal or a time-out asked the process to end; it ended at a safe point."""

    def __init__(self, message: str, *, exit_code: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
