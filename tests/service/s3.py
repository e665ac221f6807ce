"""SeaweedFS for tests: an S3 server with a bucket, in a folder of its own, ended afterwards."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import postgres

BUCKET = "videos"
KEY, SECRET = "yozora", "a secret of the tests"
START = 60.0  # seconds


def find_binary() -> Path | None:
    """`weed`, beside the environment's Python or on the PATH."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.is_file() else shutil.which("weed")
    return None if found is None else Path(found)


class Server:
    """A running server. `environment` is what a program needs to use its bucket."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.binary, self.folder = binary, folder
        self.ports = [postgres.free_port() for _ in range(8)]
        master, volume, filer, self.port = self.ports[::2]
        allowed = ["Admin", "Read", "Write", "List", "Tagging"]
        who = {"name": KEY, "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": allowed}
        (folder / "s3.json").write_text(json.dumps({"identities": [who]}))
        given = {"ip": "127.0.0.1", "ip.bind": "127.0.0.1", "dir": folder, "volume.max": 8}
        given |= {"master.port": master, "master.port.grpc": self.ports[1], "master.volumeSizeLimitMB": 64}
        given |= {"volume.port": volume, "volume.port.grpc": self.ports[3], "master.telemetry": "false"}
        given |= {"filer.port": filer, "filer.port.grpc": self.ports[5], "filer.localSocket": folder / "filer.sock"}
        given |= {"s3.port": self.port, "s3.port.grpc": self.ports[7], "s3.config": folder / "s3.json"}
        self.command = [str(binary), "server", "-filer", "-s3", "-s3.autoCreateBucket=false"]
        self.command += [f"-{name}={value}" for name, value in given.items()]
        self.buckets = f"http://127.0.0.1:{filer}/buckets/"
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }
        self.start()

    def start(self) -> None:
        """Until it answers and has its bucket."""
        with (self.folder / "log.txt").open("ab") as out:
            self.process = subprocess.Popen(self.command, stdout=out, stderr=subprocess.STDOUT, cwd=self.folder)
        end = time.monotonic() + START
        while not (self._says(self.environment["AWS_ENDPOINT_URL"]) == 403 and self._says(self.buckets) == 200):
            assert time.monotonic() < end and self.process.poll() is None, (self.folder / "log.txt").read_text()[-3000:]
            time.sleep(0.1)
        made = self._says(urllib.request.Request(f"{self.buckets}{BUCKET}/", method="POST"))
        assert made in (201, 409), made  # after a stop, it is there

    def stop(self) -> None:
        """As when the power goes."""
        self.process.kill()
        self.process.wait()

    def _says(self, url: str | urllib.request.Request) -> int:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0


@contextmanager
def running(binary: Path) -> Iterator[Server]:
    """A server for as long as the block lasts."""
    folder = Path(tempfile.mkdtemp(prefix="yozora-s3-"))
    try:
        server = Server(binary, folder)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
