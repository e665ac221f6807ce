"""The process: `yozora`, or `python -m yozora`."""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130  # what a shell gives for Ctrl-C


def run() -> int:
    """Runs the command line and returns the exit code; Ctrl-C is one line, while it is still being imported, too."""
    signal.signal(signal.SIGTERM, _end)
    try:
        from yozora.cli import main

        return main()
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun starts, one speaks
            print("error: interrupted", file=sys.stderr)
        return INTERRUPTED


def _end(number: int, _frame: FrameType | None) -> None:
    """Ends the program in good order, so that no half-written file stays behind."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(run())
