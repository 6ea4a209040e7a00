"""What a command notices that people may be told of and no state keeps, and how it has them told at once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from ingestkit.model import Sight


@dataclass(slots=True)
class Noticed:
    """Of one command, since it began."""

    began: datetime
    sights: list[Sight] = field(default_factory=list)
    tell: Callable[[BaseException | None], None] | None = field(default=None, repr=False)
    """Tells of how a run ended, while the command goes on with others."""
