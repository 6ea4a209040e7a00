"""What stands in a target over what: which newer batch leaves a batch nothing to say, and whose a table is."""

from collections.abc import Sequence

from ingestkit.errors import WarehouseError
from ingestkit.model import Intent, LoadMode, Receipt
from ingestkit.pipeline import Pipeline
from ingestkit.ports import Warehouse


def superseded_by(pipeline: Pipeline, batch: str, intent: Intent, receipts: Sequence[Receipt]) -> str | None:
    """The newer batch whose content leaves nothing for this one to say; the batch's own receipt is compared first."""
    mine = own(receipts, intent.model, batch)
    if mine is not None and mine.answers(intent):
        return None
    return newer_content(pipeline, batch, intent.model, intent.mode, receipts)


def newer_content(
    pipeline: Pipeline, batch: str, model: str, mode: LoadMode, receipts: Sequence[Receipt]
) -> str | None:
    """The newest batch that stands over this one whole: a newer replace does, and over a replace anything newer.

    Where files of changes come behind full ones, the changes stand, and what they do not speak of is the full one's.
    """
    alone = stands_alone(pipeline, batch, model, mode, receipts)
    newer = newer_than(pipeline, batch, model, receipts)
    whole = [one.batch for one in newer if one.mode is LoadMode.REPLACE or alone]
    return max(whole, key=pipeline.order, default=None)


def is_alone(pipeline: Pipeline, model: str, mode: LoadMode) -> bool:
    """Whether a model says that what is loaded so is all that the table holds, beside nothing that others say."""
    return mode is LoadMode.REPLACE and not pipeline.model(model).takes_changes


def stands_alone(pipeline: Pipeline, batch: str, model: str, mode: LoadMode, receipts: Sequence[Receipt]) -> bool:
    """Whether what is loaded so is all that the table holds, and not beside what others say.

    Newer changes were merged by a key, and stay beside it also where the model takes none any more.
    """
    merged = pipeline.model(model).key and any(
        one.mode is LoadMode.MERGE for one in newer_than(pipeline, batch, model, receipts)
    )
    return is_alone(pipeline, model, mode) and not merged


def refuse_of_another(warehouse: Warehouse, mine: tuple[str, str], table: str, *, part: bool = False) -> None:
    """No (pipeline, model) writes into a table that is another's, be it for its rows or its rejects."""
    owner = warehouse.table_owner(table)
    if owner is not None and owner != mine:
        other = f"give the model another one: models.{mine[1]}.table in pipeline {mine[0]}"
        raise WarehouseError(
            f"table {table} belongs to {'.'.join(owner)}, not to {'.'.join(mine)}",
            hint=f"let its tables begin with a name of their own: set tables.prefix in pipeline {mine[0]}"
            if part
            else other,
        )


def own(receipts: Sequence[Receipt], model: str, batch: str) -> Receipt | None:
    return next((one for one in receipts if one.model == model and one.batch == batch), None)


def newer_than(pipeline: Pipeline, batch: str, model: str, receipts: Sequence[Receipt]) -> list[Receipt]:
    order = pipeline.order
    return [one for one in receipts if one.model == model and order(one.batch) > order(batch)]
