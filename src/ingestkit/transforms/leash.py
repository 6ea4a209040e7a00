"""Started by its path as a program of its own: runs a command, and ends all of its group when who started it is gone.

Nothing of ingestkit is imported here. Standard input is a pipe of which only the starter holds the other end; the
command's exit code is written to the other pipe.
"""

import os
import signal
import subprocess
import sys
import threading


def main(told: int, command: list[str]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        # They are for the command, which is in this group too. A handler is not handed on, to ignore one would be.
        signal.signal(number, lambda *_: None)
    threading.Thread(target=_let_go, daemon=True).start()
    try:
        code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode  # noqa: S603 - of settings
    except OSError as error:
        code = 126 if isinstance(error, PermissionError) else 127
    os.write(told, b"%d\n" % code)
    # What the command has left running goes with the rest, as soon as the starter has heard of its end.
    threading.Event().wait()


def _let_go() -> None:
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
