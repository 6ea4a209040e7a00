"""The one handler: errors become one clear line and an exit code, signals become a request to stop."""

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

from ingestkit.cli.options import Globals, Output
from ingestkit.errors import IngestkitError, Interrupted, TargetError
from ingestkit.observe.text import printable

if TYPE_CHECKING:
    # Its module reads settings, which --help has no use for.
    from ingestkit.pipeline import Stop

SHOW_CURSOR = b"\x1b[?25h"


def handle(call: Callable[[], object], said: Globals, words: Sequence[str] = ()) -> int:
    """Call the command line, and turn however it ends into an exit code and at most two lines."""
    try:
        code = _ended(call())
    except IngestkitError as error:
        code = _told(error.message, said, error.exit_code, error)
        report(error.message, said, hint=error.hint, exit_code=code)
    except typer.TyperException as error:
        code = _usage(error, said, words)
    except typer.Exit as error:
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = _told("stopped", said, 130)
        report("stopped", said, exit_code=code)
    except SystemExit as error:
        code = _left(error)
    except Exception as error:  # noqa: BLE001 - the one place: what nobody expected is a bug, and must end in one line
        code = _bug(error, said)
    return _flushed(code, said)


def report(
    message: str, said: Globals, *, hint: str | None = None, exit_code: int | None = None, kind: str = "error"
) -> None:
    """One line about what went wrong and one about what to type next; one JSON object where logs are JSON."""
    if said.log_format == "json":
        import json

        facts = {"level": kind, "event": message, "hint": hint, "exit_code": exit_code}
        lines = [json.dumps({name: fact for name, fact in facts.items() if fact is not None}, ensure_ascii=False)]
    else:
        lines = [f"{_coloured(kind)}: {printable(message, lines=True)}"]
        lines += [f"hint: {printable(hint, lines=True)}"] if hint else []
    try:
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()
    except OSError:
        # Nobody can be told any more; the exit code still speaks.
        return


def colours(stream: object) -> bool:
    """Whether a stream is a terminal whose reader wants colours."""
    return (
        bool(getattr(stream, "isatty", bool)()) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )


def forget_output() -> None:
    """Send what is still to be written to nowhere, so that the interpreter ends quietly."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def stopping(stop: "Stop", say: Callable[[str], None]) -> Iterator[None]:
    """Inside the block the first SIGTERM or Ctrl-C asks to stop at a safe point, and the second ends the process.

    Signals are read by a thread from a pipe: the main thread may be inside a long query and would not hear them.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    listener = threading.Thread(target=_listen, args=(reading, stop, say), name="signals", daemon=True)
    listener.start()
    before = {number: signal.signal(number, _noted) for number in (signal.SIGINT, signal.SIGTERM)}
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)
        listener.join()
        os.close(reading)


def _noted(number: int, frame: FrameType | None) -> None:
    """Signals are heard by the listener; that Python has a handler is what makes it write them to the pipe."""


def _listen(reading: int, stop: "Stop", say: Callable[[str], None]) -> None:
    asked = False
    while block := os.read(reading, 1):
        number = block[0]
        if number not in (signal.SIGINT, signal.SIGTERM):
            continue
        if asked:
            _end_now(number)
        asked = True
        name = signal.Signals(number).name
        stop.request(partial(_interrupted, name, number))
        say(f"{name}: stopping at the next safe point; once more ends it at once")


def _interrupted(name: str, number: int) -> Interrupted:
    return Interrupted(
        f"stopped by {name} at a safe point",
        exit_code=128 + number,
        hint="run the same command again: it goes on where this one stopped",
    )


def _end_now(number: int) -> None:
    if sys.stderr.isatty():
        os.write(2, SHOW_CURSOR)
    os._exit(128 + number)


def end_with(said: Globals, error: IngestkitError) -> None:
    """Tell an error and end the process, for work that did not stop when it was asked to."""
    if sys.stderr.isatty():
        os.write(2, SHOW_CURSOR)
    _told(error.message, said, error.exit_code, error)
    report(error.message, said, hint=error.hint, exit_code=error.exit_code)
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(error.exit_code)


def _told(message: str, said: Globals, exit_code: int, error: IngestkitError | None = None) -> int:
    """Where output is for programs, a failure is told there too, with what was done before it; its exit code."""
    if said.output is not Output.TEXT:
        from ingestkit.cli import render
        from ingestkit.outcome import Outcome, run_ids_of

        failed = Outcome(said.command, said.pipeline, "failed", message, exit_code=exit_code)
        if error is not None:
            ids = run_ids_of(error.results)
            failed = replace(failed, results=error.results, run_ids=ids, failed=error.failed)
        # Where nothing can be written, standard error and the exit code still speak.
        with suppress(TargetError):
            render.outcome(failed, said.output)
    return exit_code


def _ended(result: object) -> int:
    return result if isinstance(result, int) else 0


def _flushed(code: int, said: Globals) -> int:
    """What is still to be written is written here: at the interpreter's end it would be too late for a clear line."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        forget_output()
    except OSError as error:
        forget_output()
        code = code or TargetError.exit_code
        report(f"standard output cannot be written: {error.strerror}", said, exit_code=code)
    return code


def _usage(error: typer.TyperException, said: Globals, words: Sequence[str]) -> int:
    if said.output is Output.TEXT:
        # A word that is unknown is found before those that are known are looked at.
        said.output = _asked_for(words)
    message = " ".join((error.format_message() or "missing command").split()).rstrip(".")
    command = getattr(getattr(error, "ctx", None), "command_path", "ingestkit")
    message = message[:1].lower() + message[1:]
    code = _told(message, said, error.exit_code)
    report(message, said, hint=f"{command} --help", exit_code=code)
    return code


def _asked_for(words: Sequence[str]) -> Output:
    """The output that a command line which cannot be read asks for."""
    spaced = " ".join(words).replace("--output=", "--output ").split(" ")
    asked = [word for flag, word in pairwise(spaced) if flag == "--output"]
    asked += [value for name, value in os.environ.items() if re.fullmatch(r"INGESTKIT_[A-Z_]+_OUTPUT", name)]
    return next((one for one in Output if one.value in asked[:1]), Output.TEXT)


def _left(error: SystemExit) -> int:
    """Typer and rich end the process when the reader of standard output has left; that is nobody's fault."""
    if isinstance(error.__context__, BrokenPipeError):
        return 0
    return error.code if isinstance(error.code, int) else 0


def _bug(error: Exception, said: Globals) -> int:
    summary = " ".join(str(error).split())
    where = _keep_traceback(error, said.folder)
    hint = f"the traceback is in {where}" if where else "the traceback could not be written anywhere"
    code = _told(f"{type(error).__name__}: {summary}", said, 1)
    report(f"{type(error).__name__}: {summary}", said, hint=hint, exit_code=code, kind="bug")
    return code


def _keep_traceback(error: Exception, folder: Path | None) -> Path | None:
    import tempfile
    import traceback
    from datetime import UTC, datetime

    name = f"ingestkit-bug-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}.txt"
    elsewhere = Path(tempfile.gettempdir())
    for place in [folder / "bugs", elsewhere] if folder else [elsewhere]:
        try:
            place.mkdir(parents=True, exist_ok=True)
            (place / name).write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        except OSError:
            continue
        return place / name
    return None


def _coloured(kind: str) -> str:
    return f"\x1b[1;31m{kind}\x1b[0m" if colours(sys.stderr) else kind
