"""`yozora serve` and `yozora worker` as processes of their own, as users run them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

QUICK = {
    "YOZORA_POLL_SECONDS": "0.05",
    "YOZORA_HEARTBEAT_SECONDS": "0.2",
    "YOZORA_DEAD_SECONDS": "2",
    "YOZORA_WEBHOOK_INTERVAL": "0.2",
    "YOZORA_WEBHOOK_PRIVATE": "true",
}
START = 180.0  # seconds: on a busy machine, importing torch alone takes many


class Process:
    """A running `yozora …`; what it prints and logs is in a file. `first`: Python that is run in it before."""

    def __init__(self, arguments: list[str], log: Path, more: Mapping[str, str], first: str = "") -> None:
        self.log = log
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, **QUICK, **more, "PYTHONUNBUFFERED": "1"}
        with log.open("wb") as out:
            code = f"{first}\nimport runpy\nrunpy.run_module('yozora', run_name='__main__')"
            command = [sys.executable, *(["-c", code] if first else ["-m", "yozora"]), *arguments]
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, pattern: str, seconds: float = START) -> re.Match[str]:
        """Waits until it has printed something. Fails where it ends before."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if match := re.search(pattern, self.text):
                return match
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.text[-4000:]}"
            time.sleep(0.05)
        raise AssertionError(f"{pattern!r} did not come in {seconds} s:\n{self.text[-4000:]}")

    def kill(self) -> None:
        """As when the power goes."""
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """As an operator does; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(90)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        return self.process.returncode


@contextmanager
def running(command: str, *arguments: str, log: Path, more: Mapping[str, str] | None = None) -> Iterator[Process]:
    """`yozora COMMAND …` for as long as the block lasts. Give `serve` port 0."""
    process = Process([command, *arguments], log, more or {})
    try:
        process.wait_for(r"yozora (serves|works)")
        yield process
    finally:
        process.end()


def address(process: Process) -> str:
    """http://HOST:PORT of a server."""
    return process.wait_for(r"yozora serves (http://\S+)")[1]
