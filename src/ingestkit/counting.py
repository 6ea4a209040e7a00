"""Batches that count up by one: what is missing before those that wait, and which keys may be stepped over unseen."""

from collections.abc import Iterable, Mapping, Sequence

from ingestkit.model import CompletionStatus
from ingestkit.settings import Batches, Hole
from ingestkit.states.completions import Done


def holes(
    settings: Batches,
    waiting: Mapping[str, Sequence[str]],
    there: Iterable[str],
    done: Done,
    floors: Mapping[str, str | None],
) -> dict[str, Hole]:
    """By waiting batch: what is missing between what one of its models has done and the batch.

    What is stepped over by a person fills its place and no more: what else is missing before it still is.
    """
    if settings.holes is None or not waiting:
        return {}
    shown = list(there)
    models = {model for several in waiting.values() for model in several}
    behind = {model: _behind(settings, model, done, floors) for model in models}
    filled = {model: {*shown, *(batch for batch, name in done if name == model)} for model in models}
    found: dict[str, Hole] = {}
    for batch, several in waiting.items():
        for model in several:
            start = behind[model] or min(filled[model], key=settings.order)
            hole = settings.hole(start, batch, filled[model])
            if hole is not None:
                found.setdefault(batch, hole)
    return found


def newest(settings: Batches, done: Done) -> str | None:
    """The newest batch that is done. One that was stepped over was never loaded, and makes no earlier one late."""
    taken = (batch for (batch, _), (status, _) in done.items() if status is not CompletionStatus.SKIPPED)
    return max(taken, key=settings.order, default=None)


def is_between(
    settings: Batches, batch: str, there: Iterable[str], done: Done, floors: Mapping[str, str | None]
) -> bool:
    """Whether there may be such a batch among those that are known, which count up."""
    known = (*there, *(key for key, _ in done), *(floor for floor in floors.values() if floor is not None))
    places = [settings.order(key) for key in known]
    return settings.holes is not None and bool(places) and min(places) < settings.order(batch) < max(places)


def _behind(settings: Batches, model: str, done: Done, floors: Mapping[str, str | None]) -> str | None:
    """The batch up to which nothing of a model is missing any more."""
    taken = [
        batch for (batch, name), (status, _) in done.items() if name == model and status is not CompletionStatus.SKIPPED
    ]
    floor = floors.get(model)
    return max([*taken, *([floor] if floor is not None else [])], key=settings.order, default=None)
