"""The process: `yozora`, or `python -m yozora`."""

import sys

INTERRUPTED = 130  # what a shell gives for Ctrl-C


def run() -> int:
    """Runs the command line and returns the exit code; Ctrl-C is one line, while it is still being imported, too."""
    try:
        from yozora.cli import main

        return main()
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(run())
