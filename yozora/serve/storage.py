"""Files: in a folder or in a bucket, behind the same few calls. A file is there whole or not at all."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

from yozora.errors import ConfigError, YozoraError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

__all__ = ["FileGone", "Storage", "StorageError"]

RETRY: RetryConfig = {"max_retries": 5, "retry_timeout": timedelta(seconds=30)}  # who waits for an answer waits for it
CHUNK = 2**18  # bytes read at a time: what an answer holds in memory
_S3_SAYS = re.compile(r"<Code>(\w+)</Code>\s*<Message>([^<]*)</Message>")


class StorageError(YozoraError):
    """A file could not be kept or found: the disk is full, the bucket does not answer."""


class FileGone(StorageError):
    """There is no such file."""


class Storage:
    """A folder ("/srv/files") or a bucket ("s3://bucket/prefix"; address, region and credentials as AWS_… says in the
    environment, else the credentials that the machine has)."""

    def __init__(self, where: str) -> None:
        self.where = where
        try:
            if where.startswith("s3://"):
                plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")  # then that is what is wanted
                options: ClientConfig = {"allow_http": True} if plain else {}
                self.store: ObjectStore = from_url(where, client_options=options, retry_config=RETRY)
            else:
                folder = Path(where).absolute()
                folder.mkdir(parents=True, exist_ok=True)
                self.store = LocalStore(folder, mkdir=True, automatic_cleanup=True)
        except (BaseError, OSError, ValueError) as error:
            raise ConfigError(f"{where} cannot be used for files: {_line(error)}") from None

    def check(self) -> None:
        """Raises ConfigError where it cannot be looked into: no such bucket, no right to it, nobody there."""
        try:
            for _ in obstore.list(self.store, chunk_size=1):
                return
        except (BaseError, OSError) as error:
            raise ConfigError(f"{self.where} cannot be used for files: {_line(error)}") from None

    def put(self, key: str, source: Path | bytes) -> int:
        """Keeps a file, and says how many bytes it has. Raises StorageError, and then there is none."""
        try:
            obstore.put(self.store, key, source)
            return source.stat().st_size if isinstance(source, Path) else len(source)
        except (BaseError, OSError) as error:
            raise StorageError(f"a file could not be kept: {_line(error)}") from error

    def fetch(self, key: str, target: Path) -> None:
        """Copies a file to a path. Raises StorageError where it is not there."""
        try:
            with target.open("wb") as out:
                for chunk in obstore.get(self.store, key).stream(CHUNK):
                    out.write(chunk)
        except (BaseError, OSError) as error:
            target.unlink(missing_ok=True)
            raise StorageError(f"a file could not be read: {_line(error)}") from error

    def read(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """Its bytes start ≤ b < end, a chunk at a time. Raises FileGone, StorageError."""
        for begin in range(start, end, CHUNK):
            try:
                yield bytes(obstore.get_range(self.store, key, start=begin, end=min(end, begin + CHUNK)))
            except (NotFoundError, FileNotFoundError) as error:
                raise FileGone(f"a file is gone: {_line(error)}") from error
            except (BaseError, OSError) as error:
                raise StorageError(f"a file could not be read: {_line(error)}") from error

    def delete(self, keys: Iterable[str]) -> None:
        """Removes files; those that are not there are no error. Raises StorageError for any other failure."""
        for key in keys:
            try:
                obstore.delete(self.store, key)
            except (NotFoundError, FileNotFoundError):
                continue
            except (BaseError, OSError) as error:
                raise StorageError(f"a file could not be removed: {_line(error)}") from error

    def keys(self, prefix: str = "", older_than: float = 0.0) -> Iterator[str]:
        """The keys of all files in the folder `prefix`, or of all there are, that were last written so many seconds ago
        or earlier."""
        latest = time.time() - older_than
        try:
            for batch in obstore.list(self.store, prefix or None):
                for found in batch:
                    if found["last_modified"].timestamp() <= latest:
                        yield found["path"]
        except (BaseError, OSError) as error:
            raise StorageError(f"files could not be listed: {_line(error)}") from error


def _line(error: BaseException) -> str:
    """What went wrong, in a line: as S3 says it, else the first line, without the Rust structure that may follow."""
    told = str(error).strip()
    if said := _S3_SAYS.search(told):
        return f"{said[1]}: {said[2]}"[:200]
    return (told.splitlines() or [type(error).__name__])[0][:300]
