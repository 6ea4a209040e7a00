"""A folder of this machine as a drop."""

import errno
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import ClassVar

from ingestkit.errors import SourceError
from ingestkit.files import shown
from ingestkit.sources.drop import Entry, Opened, Status
from ingestkit.sources.reading import failed, reading

# How file systems say that they know no links.
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


@dataclass(frozen=True, slots=True)
class LocalDrop:
    root: Path
    # File systems stamp folders in steps of up to two seconds; a younger stamp may hide a change within its step.
    step: ClassVar[float] = 3.0

    def named(self, path: str) -> str:
        return shown(self.root / path)

    def entries(self, folder: str) -> Sequence[Entry]:
        with os.scandir(self.root / folder) as scan:
            return list(scan)

    def entry(self, path: str) -> Entry:
        return self.root / path

    def stat(self, path: str) -> Status:
        return (self.root / path).stat()

    def real(self, path: str) -> Path:
        return (self.root / path).resolve()

    @contextmanager
    def reading(self, real: PurePath) -> Iterator[Opened]:
        with reading(Path(real)) as file:
            yield Opened(file, partial(os.fstat, file.fileno()))

    def rename(self, path: str, to: str) -> None:
        try:
            # Unlike a rename, a link does not take the place of another file.
            os.link(self.root / path, self.root / to, follow_symlinks=False)
        except OSError as error:
            if error.errno not in NO_LINKS or (self.root / to).exists():
                raise
            (self.root / path).rename(self.root / to)
            return
        (self.root / path).unlink()

    def remove(self, path: str) -> None:
        (self.root / path).unlink()

    def make_folder(self, path: str) -> None:
        (self.root / path).mkdir(parents=True, exist_ok=True)

    def failed(self, error: OSError, path: str, *, gone: str, transient: bool) -> SourceError:
        return failed(error, self.root / path, gone=gone, transient=transient)

    def absent(self, connection: str) -> SourceError:
        make = f"mkdir -p {shlex.quote(shown(self.root))}"
        return SourceError(
            f"the drop folder {shown(self.root)} does not exist",
            hint=f"mount it or make it ({make}), or change `path` of connection {connection}",
        )
