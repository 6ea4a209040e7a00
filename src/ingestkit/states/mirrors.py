"""Copies of the state for others to read: written when behind, and never read to decide but for one refusal."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingestkit.errors import StateError
from ingestkit.files import replace_whole
from ingestkit.ports import Mirror


@dataclass(frozen=True, slots=True)
class JsonMirror:
    """One JSON file per pipeline."""

    folder: Path

    def path(self, pipeline: str) -> Path:
        return self.folder / "mirror" / f"{pipeline}.json"

    def read(self, pipeline: str) -> Mapping[str, Any] | None:
        """What the mirror shows of the pipeline, or None. A file that cannot be read is a StateError.

        It is read to refuse a run whose state is empty: a damaged mirror had shown something, so None would be a lie.
        """
        path = self.path(pipeline)
        try:
            shown = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"the mirror {path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise _damaged(path) from error
        if not isinstance(shown, dict):
            raise _damaged(path)
        return shown

    def write(self, pipeline: str, shown: Mapping[str, Any]) -> None:
        path = self.path(pipeline)
        try:
            replace_whole(path, json.dumps(shown, indent=1, sort_keys=True).encode() + b"\n")
        except OSError as error:
            raise StateError(
                f"the mirror {path} cannot be written: {error.strerror}",
                hint="look at space and rights of its folder; the next run writes it again",
            ) from error


def bring_up(mirror: Mirror, pipeline: str, shown: Mapping[str, Any]) -> bool:
    """Write what the mirror should show unless it does; whether it was behind. A damaged one is behind."""
    wanted = json.loads(json.dumps(shown))
    try:
        if mirror.read(pipeline) == wanted:
            return False
    except StateError:
        # Reading decides nothing here; if the mirror is out of reach, writing says so.
        pass
    mirror.write(pipeline, wanted)
    return True


def _damaged(path: Path) -> StateError:
    return StateError(
        f"the mirror {path} is damaged", hint=f"if the state database is the right one: rm {path}, then run again"
    )
