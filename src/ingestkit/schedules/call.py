"""How a scheduler calls the program: by paths that hold wherever it is called from."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Call:
    """The program, the project it works in, and the flags that go before each command."""

    program: Path
    project: Path
    flags: tuple[str, ...] = ()

    def words(self, *command: str) -> list[str]:
        return [str(self.program), *self.flags, *command]

    def run(self, pipeline: str) -> str:
        return shlex.join(self.words("--log-format", "json", "run", pipeline, "--if-locked", "skip"))

    def look(self) -> str:
        return shlex.join(self.words("--log-format", "json", "alerts", "check"))


def flags(*, profile: str | None, env_file: Path | None, no_env_file: bool) -> tuple[str, ...]:
    """What was said before the command that writes a schedule is said before those it starts."""
    said: Sequence[str] = ["--profile", profile] if profile is not None else []
    if no_env_file:
        return (*said, "--no-env-file")
    return (*said, *(["--env-file", str(env_file.absolute())] if env_file is not None else []))
