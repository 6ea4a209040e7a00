"""What a command reports: one result per model and a summary; how it is drawn is the command line's."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelResult:
    """What was done for one model: the stable JSON object run and stage commands end with. None is unknown."""

    pipeline: str
    model: str
    batch: str | None
    run_id: str | None
    stage: str
    status: str
    rows: int | None = None
    rejected: int | None = None
    duplicates: int | None = None
    superseded: int | None = None
    bytes: int | None = None
    sha256: str | None = None
    """Digest of the model's file set."""
    seconds: float | None = None
    sidecar: str | None = None
    detail: str | None = None
    window: Mapping[str, str] | None = None
    """From when to when the batch is, if it is a window."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended. `status` is done, nothing new, paused, held, waiting, skipped, locked or failed."""

    command: str
    pipeline: str | None
    """None where it failed before it was known which is meant."""
    status: str
    message: str
    results: tuple[ModelResult, ...] = ()
    warnings: tuple[str, ...] = ()
    exit_code: int = 0
    run_ids: tuple[str, ...] = ()
    failed: tuple[Mapping[str, Any], ...] = ()
    """Batches that failed, where the command went on with those behind them."""
    rules: tuple[Mapping[str, Any], ...] = ()
    """How a rehearsal was judged; a run's rules are in the state."""


def run_ids_of(results: Iterable[ModelResult]) -> tuple[str, ...]:
    """The runs these speak of, each once."""
    return tuple(dict.fromkeys(one.run_id for one in results if one.run_id))
